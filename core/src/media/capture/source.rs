//! The sources that a program can choose from.

use std::{path::Path, sync::Arc};

use super::{
    device,
    error::SourceError,
    input::Input,
    pipeline::{Capture, Tap},
    push::{Attached, AudioPusher, PushChannel, VideoPusher},
    split::{Half, SplitSource},
};
use crate::media::ladder::plan::CaptureFormat;

/// Where pictures come from.
///
/// Nothing is opened before it is given to [`LocalVideo::set_source`](crate::media::LocalVideo::set_source).
#[derive(Debug)]
pub struct VideoSource(pub(in crate::media) SourceKind);

/// Where sound comes from.
///
/// Nothing is opened before it is given to [`LocalAudio::set`](crate::media::LocalAudio::set).
#[derive(Debug)]
pub struct AudioSource(pub(in crate::media) SourceKind);

/// Where pictures and sound come from together, in sync.
///
/// [`split`](Self::split) it, and give one half to the video and the other to the audio of a broadcast.
#[derive(Debug)]
pub struct MediaSource(Input);

impl VideoSource {
    /// The camera: the first that the machine has.
    pub fn camera() -> Self {
        Self(SourceKind::Own(Input::Camera(None)))
    }

    /// The camera of that name (see [`cameras`](Self::cameras)), or of that device, as `/dev/video2`.
    pub fn camera_named(name: impl Into<String>) -> Self {
        Self(SourceKind::Own(Input::Camera(Some(name.into()))))
    }

    /// The names of the cameras that the machine has.
    ///
    /// # Errors
    /// [`SourceError::Init`].
    pub fn cameras() -> Result<Vec<String>, SourceError> {
        crate::media::init()?;
        Ok(device::names(device::CAMERA))
    }

    /// The whole screen.
    ///
    /// Under Wayland a program has to ask the desktop portal first; with the PipeWire node that it gets, use
    /// [`description`](Self::description) with `pipewiresrc`.
    pub fn screen() -> Self {
        Self(SourceKind::Own(Input::Screen))
    }

    /// A test card with a running clock.
    pub fn test() -> Self {
        Self(SourceKind::Own(Input::TestPicture))
    }

    /// Frames that the program pushes.
    ///
    /// `info` says what they look like; make it with `gst_video::VideoInfo::builder`.
    pub fn push(info: gst_video::VideoInfo) -> (VideoPusher, Self) {
        let (pusher, channel) = VideoPusher::new(info);
        (pusher, Self(SourceKind::Pushed(channel)))
    }
}

impl AudioSource {
    /// The microphone: the one that the system has as its default.
    pub fn microphone() -> Self {
        Self(SourceKind::Own(Input::Microphone(None)))
    }

    /// The microphone of that name; see [`microphones`](Self::microphones).
    pub fn microphone_named(name: impl Into<String>) -> Self {
        Self(SourceKind::Own(Input::Microphone(Some(name.into()))))
    }

    /// The names of the microphones and other inputs that the machine has.
    ///
    /// # Errors
    /// [`SourceError::Init`].
    pub fn microphones() -> Result<Vec<String>, SourceError> {
        crate::media::init()?;
        Ok(device::names(device::MICROPHONE))
    }

    /// A tone of 440 Hz.
    pub fn test() -> Self {
        Self(SourceKind::Own(Input::TestTone))
    }

    /// Samples that the program pushes.
    ///
    /// `info` says what they look like; make it with `gst_audio::AudioInfo::builder`. They are interleaved.
    pub fn push(info: gst_audio::AudioInfo) -> (AudioPusher, Self) {
        let (pusher, channel) = AudioPusher::new(info);
        (pusher, Self(SourceKind::Pushed(channel)))
    }
}

/// The constructors that all sources have, whatever of the media is wanted.
macro_rules! inputs {
    ($source:ident, $wrap:expr, $file:literal, $description:literal) => {
        impl $source {
            #[doc = $file]
            pub fn file(path: impl AsRef<Path>) -> Self {
                Self($wrap(Input::File(path.as_ref().to_owned())))
            }

            /// What GStreamer plays under that URI, paced as live.
            pub fn uri(uri: impl Into<String>) -> Self {
                Self($wrap(Input::Uri(uri.into())))
            }

            #[doc = $description]
            pub fn description(description: impl Into<String>) -> Self {
                Self($wrap(Input::Description(description.into())))
            }
        }

        impl From<gst::Element> for $source {
            /// An element, or a bin, with a source pad of its own for each kind of media that is not linked yet.
            fn from(element: gst::Element) -> Self {
                Self($wrap(Input::Element(element)))
            }
        }
    };
}

inputs!(
    VideoSource,
    SourceKind::Own,
    "The pictures of a file, paced as live. For its sound too, see [`MediaSource::file`].",
    "Elements in the notation of `gst-launch-1.0`, as `v4l2src device=/dev/video2 ! video/x-raw,width=1280`.

The last one's source pad stays open. What it gives is decoded where it is not raw."
);
inputs!(
    AudioSource,
    SourceKind::Own,
    "The sound of a file, paced as live. For its pictures too, see [`MediaSource::file`].",
    "Elements in the notation of `gst-launch-1.0`; see [`VideoSource::description`]."
);
inputs!(
    MediaSource,
    std::convert::identity,
    "A file, paced as live.",
    "Elements in the notation of `gst-launch-1.0`, two of which have an open source pad, as
`videotestsrc is-live=true  audiotestsrc is-live=true`."
);

impl MediaSource {
    /// The two halves, for the video and for the audio of a broadcast.
    ///
    /// The source starts when both have been given to a broadcast or dropped, so that neither misses the beginning.
    pub fn split(self) -> (VideoSource, AudioSource) {
        let [video, audio] = SplitSource::halves(self.0);
        (
            VideoSource(SourceKind::Half(video)),
            AudioSource(SourceKind::Half(audio)),
        )
    }
}

#[derive(Debug)]
pub(in crate::media) enum SourceKind {
    Own(Input),
    Half(Half),
    Pushed(Arc<PushChannel>),
}

/// A source that runs. Dropping it lets go of the source; the device is closed soon after.
#[derive(Debug)]
pub(in crate::media) enum RunningSource {
    Own(Capture),
    Half(Arc<SplitSource>),
    Pushed { _attached: Attached },
}

impl RunningSource {
    /// Lets go of the source, and waits until the device is free for whoever wants it next.
    pub fn stop(self) {
        let capture = match self {
            Self::Own(capture) => Some(capture),
            Self::Half(shared) => SplitSource::into_capture(shared),
            Self::Pushed { .. } => None,
        };
        if let Some(capture) = capture {
            capture.stop();
        }
    }
}

impl SourceKind {
    /// Starts it; what it gives goes to `tap`.
    pub fn start(
        self,
        tap: Tap,
        format: Option<CaptureFormat>,
    ) -> Result<RunningSource, SourceError> {
        match self {
            Self::Own(input) => {
                Capture::start(input, vec![tap], format.unwrap_or_default()).map(RunningSource::Own)
            }
            Self::Half(half) => half.give(tap, format).map(RunningSource::Half),
            Self::Pushed(channel) => Ok(RunningSource::Pushed {
                _attached: channel.attach(tap),
            }),
        }
    }
}
