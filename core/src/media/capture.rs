//! Where pictures and sound come from.

mod device;
mod pipeline;
mod push;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gst::{glib, prelude::*};

pub(super) use pipeline::{Capture, CaptureTime, Intake, Tap, stop};
pub(super) use push::Link;
pub use push::{AudioPusher, PushError, VideoPusher};

use crate::broadcast::MediaKind;

/// Where pictures come from.
///
/// Nothing is opened before it is given to [`LocalVideo::set_source`](super::LocalVideo::set_source).
#[derive(Debug)]
pub struct VideoSource(pub(super) Origin);

/// Where sound comes from.
///
/// Nothing is opened before it is given to [`LocalAudio::set`](super::LocalAudio::set).
#[derive(Debug)]
pub struct AudioSource(pub(super) Origin);

/// Where pictures and sound come from together, in sync.
///
/// [`split`](Self::split) it, and give one half to the video and the other to the audio of a broadcast.
#[derive(Debug)]
pub struct MediaSource(Recipe);

#[derive(Debug)]
pub(super) enum Origin {
    Own(Recipe),
    Half(Half),
    Pushed(Arc<Link>),
}

/// What a pipeline begins with.
#[derive(Debug)]
pub(super) enum Recipe {
    Camera(Option<String>),
    Screen,
    Microphone(Option<String>),
    Card,
    Tone,
    File(PathBuf),
    Uri(String),
    Description(String),
    Element(gst::Element),
}

/// A source could not be opened, or failed later.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// GStreamer itself does not start.
    #[error(transparent)]
    Init(#[from] super::InitError),
    /// No such device is there.
    #[error(
        "no {what} was found{}; plug one in, or see what there is with `gst-device-monitor-1.0`",
        .name.as_ref().map(|name| format!(" by the name {name:?}")).unwrap_or_default()
    )]
    NoDevice {
        /// `camera` or `microphone`.
        what: &'static str,
        /// The name that was asked for.
        name: Option<String>,
    },
    /// The screen cannot be captured here.
    #[error("the screen cannot be captured: {0}")]
    Screen(&'static str),
    /// An element that is needed is not installed.
    #[error("the GStreamer element {element} is missing: install the package {package}")]
    Missing {
        /// Its name.
        element: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// There is no such file.
    #[error("the file {} cannot be opened: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// The description is no pipeline.
    #[error("the description {description:?} is no pipeline: {source}")]
    Description {
        /// As it was given.
        description: String,
        /// What is wrong with it.
        source: glib::Error,
    },
    /// The source gives nothing of the kind that was asked for.
    #[error("the source gives no {0}")]
    Nothing(&'static str),
    /// The source gives something that cannot be used.
    #[error("the source gives {caps}, which is not raw media and cannot be decoded here")]
    NotRaw {
        /// What it gives.
        caps: String,
    },
    /// An element of the source cannot be used.
    #[error("the source cannot be built: {0}")]
    Build(#[from] glib::BoolError),
    /// The device or the file failed: it was unplugged, say, or is in use by another program.
    #[error("{element} failed: {source}{}", .debug.as_ref().map(|debug| format!(" ({debug})")).unwrap_or_default())]
    Element {
        /// The element that failed.
        element: String,
        /// Why.
        source: glib::Error,
        /// More about it, for those who know the element.
        debug: Option<String>,
    },
    /// The source did not start and said nothing about it.
    #[error("the source does not start")]
    Start(#[source] gst::StateChangeError),
}

impl VideoSource {
    /// The camera: the first that the machine has.
    pub fn camera() -> Self {
        Self(Origin::Own(Recipe::Camera(None)))
    }

    /// The camera of that name (see [`cameras`](Self::cameras)), or of that device, as `/dev/video2`.
    pub fn camera_named(name: impl Into<String>) -> Self {
        Self(Origin::Own(Recipe::Camera(Some(name.into()))))
    }

    /// The names of the cameras that the machine has.
    ///
    /// # Errors
    /// [`SourceError::Init`].
    pub fn cameras() -> Result<Vec<String>, SourceError> {
        super::init()?;
        Ok(device::names(device::CAMERA))
    }

    /// The whole screen.
    ///
    /// Under Wayland a program has to ask the desktop portal first; with the PipeWire node that it gets, use
    /// [`description`](Self::description) with `pipewiresrc`.
    pub fn screen() -> Self {
        Self(Origin::Own(Recipe::Screen))
    }

    /// A test card with a running clock.
    pub fn test() -> Self {
        Self(Origin::Own(Recipe::Card))
    }

    /// The pictures of a file, paced as live. For its sound too, see [`MediaSource::file`].
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Origin::Own(Recipe::File(path.as_ref().to_owned())))
    }

    /// What GStreamer plays under that URI, paced as live.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self(Origin::Own(Recipe::Uri(uri.into())))
    }

    /// Elements in the notation of `gst-launch-1.0`, as `v4l2src device=/dev/video2 ! video/x-raw,width=1280`.
    ///
    /// The last one's source pad stays open. What it gives is decoded where it is not raw.
    pub fn description(description: impl Into<String>) -> Self {
        Self(Origin::Own(Recipe::Description(description.into())))
    }

    /// Frames that the program pushes.
    ///
    /// `info` says what they look like; make it with `gst_video::VideoInfo::builder`.
    pub fn push(info: gst_video::VideoInfo) -> (VideoPusher, Self) {
        let (pusher, link) = VideoPusher::new(info);
        (pusher, Self(Origin::Pushed(link)))
    }
}

impl AudioSource {
    /// The microphone: the one that the system has as its default.
    pub fn microphone() -> Self {
        Self(Origin::Own(Recipe::Microphone(None)))
    }

    /// The microphone of that name; see [`microphones`](Self::microphones).
    pub fn microphone_named(name: impl Into<String>) -> Self {
        Self(Origin::Own(Recipe::Microphone(Some(name.into()))))
    }

    /// The names of the microphones and other inputs that the machine has.
    ///
    /// # Errors
    /// [`SourceError::Init`].
    pub fn microphones() -> Result<Vec<String>, SourceError> {
        super::init()?;
        Ok(device::names(device::MICROPHONE))
    }

    /// A tone of 440 Hz.
    pub fn test() -> Self {
        Self(Origin::Own(Recipe::Tone))
    }

    /// The sound of a file, paced as live. For its pictures too, see [`MediaSource::file`].
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Origin::Own(Recipe::File(path.as_ref().to_owned())))
    }

    /// What GStreamer plays under that URI, paced as live.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self(Origin::Own(Recipe::Uri(uri.into())))
    }

    /// Elements in the notation of `gst-launch-1.0`; see [`VideoSource::description`].
    pub fn description(description: impl Into<String>) -> Self {
        Self(Origin::Own(Recipe::Description(description.into())))
    }

    /// Samples that the program pushes.
    ///
    /// `info` says what they look like; make it with `gst_audio::AudioInfo::builder`. They are interleaved.
    pub fn push(info: gst_audio::AudioInfo) -> (AudioPusher, Self) {
        let (pusher, link) = AudioPusher::new(info);
        (pusher, Self(Origin::Pushed(link)))
    }
}

impl MediaSource {
    /// A file, paced as live.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Recipe::File(path.as_ref().to_owned()))
    }

    /// What GStreamer plays under that URI, paced as live.
    pub fn uri(uri: impl Into<String>) -> Self {
        Self(Recipe::Uri(uri.into()))
    }

    /// Elements in the notation of `gst-launch-1.0`, two of which have an open source pad, as
    /// `videotestsrc is-live=true  audiotestsrc is-live=true`.
    pub fn description(description: impl Into<String>) -> Self {
        Self(Recipe::Description(description.into()))
    }

    /// The two halves, for the video and for the audio of a broadcast.
    ///
    /// The source starts when both have been given to a broadcast or dropped, so that neither misses the beginning.
    pub fn split(self) -> (VideoSource, AudioSource) {
        let shared = Arc::new(Shared {
            state: Mutex::new(SharedState {
                recipe: Some(self.0),
                taps: Vec::new(),
                waiting: 2,
                format: Format::default(),
                capture: None,
            }),
        });
        let half = |kind| {
            Origin::Half(Half {
                shared: shared.clone(),
                kind,
                given: false,
            })
        };
        (
            VideoSource(half(MediaKind::Video)),
            AudioSource(half(MediaKind::Audio)),
        )
    }
}

impl From<gst::Element> for VideoSource {
    /// An element, or a bin, with a source pad of its own that is not linked yet.
    fn from(element: gst::Element) -> Self {
        Self(Origin::Own(Recipe::Element(element)))
    }
}

impl From<gst::Element> for AudioSource {
    /// An element, or a bin, with a source pad of its own that is not linked yet.
    fn from(element: gst::Element) -> Self {
        Self(Origin::Own(Recipe::Element(element)))
    }
}

impl From<gst::Element> for MediaSource {
    /// An element, or a bin, with source pads of its own that are not linked yet.
    fn from(element: gst::Element) -> Self {
        Self(Recipe::Element(element))
    }
}

/// What is asked of a source that can choose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Format {
    pub width: u32,
    pub height: u32,
    pub framerate: u32,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 720,
            framerate: 30,
        }
    }
}

/// A source that runs. Dropping it lets go of the source; the device is closed soon after.
#[derive(Debug)]
pub(super) enum Running {
    Own(Capture),
    Half(Arc<Shared>),
    Pushed { _attached: push::Attached },
}

impl Running {
    /// Lets go of the source, and waits until the device is free for whoever wants it next.
    pub fn stop(self) {
        let capture = match self {
            Self::Own(capture) => Some(capture),
            Self::Half(shared) => Arc::into_inner(shared).and_then(|shared| {
                let state = shared.state.into_inner();
                state.unwrap_or_else(PoisonError::into_inner).capture
            }),
            Self::Pushed { .. } => None,
        };
        if let Some(capture) = capture {
            capture.stop();
        }
    }
}

impl Origin {
    /// Starts it; what it gives goes to `tap`.
    pub fn start(self, tap: Tap, format: Option<Format>) -> Result<Running, SourceError> {
        match self {
            Self::Own(recipe) => {
                Capture::start(recipe, vec![tap], format.unwrap_or_default()).map(Running::Own)
            }
            Self::Half(half) => half.give(tap, format).map(Running::Half),
            Self::Pushed(link) => Ok(Running::Pushed {
                _attached: link.attach(tap),
            }),
        }
    }
}

/// A source that two share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<SharedState>,
}

#[derive(Debug)]
struct SharedState {
    recipe: Option<Recipe>,
    taps: Vec<Tap>,
    /// How many have not said yet whether they want something.
    waiting: u8,
    format: Format,
    capture: Option<Capture>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the two has decided. The last one starts the source.
    fn decide(&self, tap: Option<Tap>, format: Option<Format>) -> Result<(), SourceError> {
        let mut state = self.state();
        state.taps.extend(tap);
        state.waiting = state.waiting.saturating_sub(1);
        if let Some(format) = format {
            state.format = format;
        }
        if state.waiting > 0 || state.taps.is_empty() {
            return Ok(());
        }
        let Some(recipe) = state.recipe.take() else {
            return Ok(());
        };
        let taps = std::mem::take(&mut state.taps);
        match Capture::start(recipe, taps.clone(), state.format) {
            Ok(capture) => {
                state.capture = Some(capture);
                Ok(())
            }
            Err(error) => {
                drop(state);
                for tap in taps {
                    tap.failed(error.clone());
                }
                Err(error)
            }
        }
    }
}

/// One of the two that share a source.
#[derive(Debug)]
pub(super) struct Half {
    shared: Arc<Shared>,
    kind: MediaKind,
    given: bool,
}

impl Half {
    fn give(mut self, tap: Tap, format: Option<Format>) -> Result<Arc<Shared>, SourceError> {
        debug_assert_eq!(tap.kind, self.kind);
        self.given = true;
        self.shared.decide(Some(tap), format)?;
        Ok(self.shared.clone())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.given {
            // Where it goes wrong the other half hears of it.
            let _ = self.shared.decide(None, None);
        }
    }
}

/// Makes an element, or says where it is to be had.
pub(super) fn make(
    element: &'static str,
    package: &'static str,
) -> Result<gst::Element, SourceError> {
    gst::ElementFactory::make(element)
        .build()
        .map_err(|_| SourceError::Missing { element, package })
}

/// The elements that a pipeline begins with, in a row. What the last one gives is what is captured.
pub(super) fn elements(recipe: Recipe, format: Format) -> Result<Vec<gst::Element>, SourceError> {
    const BASE: &str = "gstreamer1.0-plugins-base";
    let described = |description: &str| {
        gst::parse::bin_from_description(description, false)
            .or_else(|error| {
                // Caps at the end say what the element before them should give; they need one behind them too.
                gst::parse::bin_from_description(&format!("{description} ! identity"), false)
                    .map_err(|_| error)
            })
            .map(|bin| {
                for inner in bin.children() {
                    expose(&bin, &inner);
                }
                vec![bin.upcast()]
            })
            .map_err(|source| SourceError::Description {
                description: description.to_owned(),
                source,
            })
    };
    match recipe {
        Recipe::Camera(name) => {
            let source = device::find(device::CAMERA, name)?;
            let filter = make("capsfilter", "libgstreamer1.0-0")?;
            filter.set_property("caps", device::camera_caps(format)?);
            // Cameras that give JPEG give more frames, and larger ones.
            let decoder = make("decodebin", BASE)?;
            Ok(vec![source, filter, decoder])
        }
        Recipe::Microphone(name) => Ok(vec![device::find(device::MICROPHONE, name)?]),
        Recipe::Screen => device::screen(format),
        Recipe::Card => {
            make("videotestsrc", BASE)?;
            let Format {
                width,
                height,
                framerate,
            } = format;
            let clock = if gst::ElementFactory::find("timeoverlay").is_some() {
                " ! timeoverlay font-desc=\"Sans, 24\""
            } else {
                ""
            };
            described(&format!(
                "videotestsrc is-live=true ! \
                 video/x-raw,format=I420,width={},height={},framerate={}/1{clock}",
                width.max(16),
                height.max(16),
                framerate.max(1),
            ))
        }
        Recipe::Tone => {
            make("audiotestsrc", BASE)?;
            described(
                "audiotestsrc is-live=true freq=440 volume=0.25 samplesperbuffer=960 ! \
                 audio/x-raw,format=S16LE,rate=48000,channels=2",
            )
        }
        Recipe::File(path) => {
            let failed = |error: std::io::Error| SourceError::File {
                path: path.clone(),
                source: Arc::new(error),
            };
            std::fs::File::open(&path).map_err(failed)?;
            let absolute = std::path::absolute(&path).map_err(failed)?;
            let uri = glib::filename_to_uri(&absolute, None)
                .map_err(|error| failed(std::io::Error::other(error)))?;
            elements(Recipe::Uri(uri.into()), format)
        }
        Recipe::Uri(uri) => {
            let decoder = make("uridecodebin3", BASE)?;
            decoder.set_property("uri", uri);
            Ok(vec![decoder])
        }
        Recipe::Description(description) => described(&description),
        Recipe::Element(element) => Ok(vec![element]),
    }
}

/// Gives a bin the open pads of an element inside, now and later.
fn expose(bin: &gst::Bin, inner: &gst::Element) {
    let weak = bin.downgrade();
    let open = move |pad: &gst::Pad| {
        let Some(bin) = weak.upgrade() else { return };
        if pad.direction() != gst::PadDirection::Src || pad.is_linked() {
            return;
        }
        if let Ok(ghost) = gst::GhostPad::with_target(pad) {
            let _ = ghost.set_active(true);
            let _ = bin.add_pad(&ghost);
        }
    };
    for pad in inner.src_pads() {
        open(&pad);
    }
    inner.connect_pad_added(move |_, pad| open(pad));
}
