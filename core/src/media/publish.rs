//! The publishing side: sources become the tracks of a broadcast.

mod follow;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;

use super::encode::{
    TrackWriterError,
    fanout::{Hub, Setting},
};
use super::ladder::plan::Plan;
use super::{
    AudioEncoder, AudioPreset, AudioSource, EncoderError, InitError, SourceError, VideoEncoder,
    VideoPreset, VideoSource,
};
use crate::broadcast::{LocalBroadcast, MediaKind, TrackConfig};

/// The sources of a broadcast, none at first.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    video: OnceLock<Arc<Hub>>,
    audio: OnceLock<Arc<Hub>>,
}

impl LocalBroadcast {
    /// The broadcast's pictures: a source, encoders, and the renditions they make.
    pub fn video(&self) -> LocalVideo {
        let hub = self.media.video.get_or_init(|| self.hub(MediaKind::Video));
        LocalVideo { hub: hub.clone() }
    }

    /// The broadcast's sound.
    pub fn audio(&self) -> LocalAudio {
        let hub = self.media.audio.get_or_init(|| self.hub(MediaKind::Audio));
        LocalAudio { hub: hub.clone() }
    }

    fn hub(&self, kind: MediaKind) -> Arc<Hub> {
        Hub::new(kind, self.tracks_only())
    }
}

/// A source could not be set.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SetSourceError {
    /// GStreamer does not start.
    #[error(transparent)]
    Init(#[from] InitError),
    /// No preset was given, so nothing would be published.
    #[error("no preset was given; give one or more, as VideoPreset::P720 or AudioPreset::Hq")]
    NoPreset,
    /// Two presets are the same, or have one name.
    #[error("two presets are called {0:?}; their tracks need names of their own")]
    SamePreset(String),
    /// There is no source yet that could be replaced.
    #[error("there is no source yet; set one, with a codec and presets, before it is replaced")]
    NotSet,
    /// No encoder can be had.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The source cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// Something went wrong with a source or what becomes of it, after it was set.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishMediaError {
    /// The source failed. Set another one; the tracks wait for it.
    #[error(transparent)]
    Source(SourceError),
    /// None of the encoders for a rendition works; the others go on.
    #[error("rendition {rendition:?} cannot be encoded: {reason}")]
    Encoder {
        /// The rendition's name.
        rendition: String,
        /// What the last encoder that was tried said.
        reason: String,
    },
    /// The track of a rendition cannot be published; the others go on.
    #[error("rendition {rendition:?} cannot be published: {source}")]
    Track {
        /// The rendition's name.
        rendition: String,
        /// Why.
        source: TrackWriterError,
    },
}

/// How a source does.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum SourceStatus {
    /// None is set.
    #[default]
    Idle,
    /// It is being opened: nothing came yet.
    Starting,
    /// It gives frames.
    Running,
    /// It came to its end, as a file does; its tracks have ended.
    Ended,
    /// It failed, or one of its renditions did.
    Failed(PublishMediaError),
}

/// A rendition as it stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RenditionInfo {
    /// Its name, which is that of its track.
    pub name: String,
    /// As the catalog has it; none before its first frame is encoded.
    pub config: Option<TrackConfig>,
    /// The GStreamer element that encodes it, if one does.
    pub encoder: Option<String>,
    /// What its preset asks for, bits a second.
    pub nominal: u64,
    /// What the encoder is told, bits a second.
    pub bitrate: u64,
    /// Whether anybody watches it.
    pub watched: bool,
    /// Frames, or packets, that were encoded.
    pub frames_encoded: u64,
    /// Those of them that went to viewers.
    pub frames_sent: u64,
    /// Bytes that went to viewers, each counted once however many there are.
    pub bytes_sent: u64,
}

/// A frame of one's own source, as it was captured.
#[derive(Debug, Clone)]
pub struct CapturedFrame {
    pub(in crate::media) caps: gst::Caps,
    pub(in crate::media) buffer: gst::Buffer,
    pub(in crate::media) timestamp: Duration,
}

impl CapturedFrame {
    /// When it was captured, in the time of [`LocalBroadcast::now`].
    pub fn timestamp(&self) -> Duration {
        self.timestamp
    }

    /// What it looks like.
    pub fn caps(&self) -> &gst::Caps {
        &self.caps
    }

    /// The memory, shared with the encoders.
    pub fn buffer(&self) -> &gst::Buffer {
        &self.buffer
    }

    /// The frame, mapped for reading; no copy. None if its memory cannot be read.
    pub fn video_frame(&self) -> Option<gst_video::VideoFrame<gst_video::video_frame::Readable>> {
        let info = gst_video::VideoInfo::from_caps(&self.caps).ok()?;
        gst_video::VideoFrame::from_buffer_readable(self.buffer.clone(), &info).ok()
    }
}

/// One's own pictures as they are captured. Dropping it costs nothing any more.
#[derive(Debug)]
pub struct Preview {
    frames: watch::Receiver<Option<CapturedFrame>>,
}

impl Preview {
    /// The next frame; frames that were not taken in time are skipped. None when the broadcast is gone.
    ///
    /// Cancel safe.
    pub async fn next_frame(&mut self) -> Option<CapturedFrame> {
        loop {
            self.frames.changed().await.ok()?;
            let frame = self.frames.borrow_and_update().clone();
            if frame.is_some() {
                return frame;
            }
        }
    }
}

/// The pictures of a broadcast. Cheap to clone; every clone is the same.
///
/// A rendition is encoded only while somebody watches it; its first frames are encoded to see what they are, for the
/// catalog. The first viewer gets a key frame at once, later ones soon.
#[derive(Debug, Clone)]
pub struct LocalVideo {
    hub: Arc<Hub>,
}

/// The sound of a broadcast. Cheap to clone; every clone is the same.
///
/// A rendition is encoded only while somebody listens to it.
#[derive(Debug, Clone)]
pub struct LocalAudio {
    hub: Arc<Hub>,
}

impl LocalVideo {
    /// Captures from a source, and publishes each preset as a rendition: scaled once, encoded once.
    ///
    /// Pictures are never scaled up: of the presets that are larger than the source only the smallest is published, and
    /// only where no other has the full size. A source that is there already is replaced; renditions with the same
    /// codec and name go on.
    ///
    /// Opens the device, so it may take a moment. Files and the network are opened in the background, and failures of
    /// later on are told by [`status`](Self::status).
    ///
    /// # Errors
    /// See [`SetSourceError`]. What was there before has been let go of if the error is
    /// [`SetSourceError::Source`], and goes on otherwise.
    pub fn set_source(
        &self,
        source: impl Into<VideoSource>,
        encoder: impl Into<VideoEncoder>,
        presets: impl IntoIterator<Item = VideoPreset>,
    ) -> Result<(), SetSourceError> {
        super::init()?;
        let encoder = encoder.into();
        let plan = Plan::Video {
            codec: encoder.codec,
            presets: presets.into_iter().collect(),
        };
        self.hub
            .set(source.into().0, Setting::new(plan, &encoder.wanted())?)
    }

    /// Captures from another source from now on. The tracks stay; viewers see the picture change.
    ///
    /// # Errors
    /// See [`SetSourceError`].
    pub fn replace_source(&self, source: impl Into<VideoSource>) -> Result<(), SetSourceError> {
        self.hub.replace(source.into().0)
    }

    /// Lets go of the source, and ends its tracks.
    pub fn stop(&self) {
        self.hub.stop();
    }

    /// Switches the pictures off and on. Off, nothing is sent, but the tracks stay in the catalog and the source goes
    /// on, for the preview. On again, viewers get a key frame.
    pub fn set_enabled(&self, enabled: bool) {
        self.hub.set_enabled(enabled);
    }

    /// Whether pictures are sent.
    pub fn is_enabled(&self) -> bool {
        self.hub.is_enabled()
    }

    /// Bounds the bit rate of all renditions together that are watched, bits a second. None is what the presets say.
    ///
    /// The encoders follow while they run.
    pub fn set_bitrate_limit(&self, limit: Option<u64>) {
        self.hub.set_limit(limit);
    }

    /// The frames of the source as they are captured.
    pub fn preview(&self) -> Preview {
        Preview {
            frames: self.hub.preview(),
        }
    }

    /// How the source does.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.hub.status()
    }

    /// The renditions, in the order of their presets. Empty before the first frame.
    pub fn renditions(&self) -> Vec<RenditionInfo> {
        self.hub.renditions()
    }
}

impl LocalAudio {
    /// Captures from a source, and publishes each preset as a rendition.
    ///
    /// A source that is there already is replaced; renditions with the same codec and name go on.
    ///
    /// # Errors
    /// See [`SetSourceError`].
    pub fn set(
        &self,
        source: impl Into<AudioSource>,
        encoder: impl Into<AudioEncoder>,
        presets: impl IntoIterator<Item = AudioPreset>,
    ) -> Result<(), SetSourceError> {
        super::init()?;
        let encoder = encoder.into();
        let plan = Plan::Audio {
            codec: encoder.codec,
            presets: presets.into_iter().collect(),
        };
        self.hub
            .set(source.into().0, Setting::new(plan, &encoder.wanted())?)
    }

    /// Captures from another source from now on. The tracks stay.
    ///
    /// # Errors
    /// See [`SetSourceError`].
    pub fn replace_source(&self, source: impl Into<AudioSource>) -> Result<(), SetSourceError> {
        self.hub.replace(source.into().0)
    }

    /// Lets go of the source, and ends its tracks.
    pub fn stop(&self) {
        self.hub.stop();
    }

    /// Mutes, or lets it be heard again. Muted, listeners get silence: packets go on as before, of a few bytes each. To
    /// send nothing at all, [`stop`](Self::stop).
    pub fn set_muted(&self, muted: bool) {
        self.hub.set_enabled(!muted);
    }

    /// Whether it is muted.
    pub fn is_muted(&self) -> bool {
        !self.hub.is_enabled()
    }

    /// How the source does.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.hub.status()
    }

    /// The renditions, in the order of their presets. Empty before the first samples.
    pub fn renditions(&self) -> Vec<RenditionInfo> {
        self.hub.renditions()
    }
}
