//! The publishing side: sources become the tracks of a broadcast.

mod rate_control;

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::{
    AudioEncoder, AudioPreset, AudioSource, VideoEncoder, VideoPreset, VideoSource,
    encode::{
        Preview, RenditionInfo, SetSourceError, SourceStatus,
        fanout::{Fanout, FanoutConfig},
    },
    ladder::plan::Ladder,
};
use crate::broadcast::{LocalBroadcast, MediaKind};

/// The sources of a broadcast, none at first.
#[derive(Debug, Default)]
struct Sources {
    video: OnceLock<Arc<Fanout>>,
    audio: OnceLock<Arc<Fanout>>,
}

impl LocalBroadcast {
    /// The broadcast's pictures: a source, encoders, and the renditions they make.
    pub fn video(&self) -> LocalVideo {
        let sources = self.attachment::<Sources>();
        let fanout = sources.video.get_or_init(|| self.fanout(MediaKind::Video));
        LocalVideo {
            fanout: fanout.clone(),
            broadcast: self.tracks_only(),
        }
    }

    /// The broadcast's sound.
    pub fn audio(&self) -> LocalAudio {
        let sources = self.attachment::<Sources>();
        let fanout = sources.audio.get_or_init(|| self.fanout(MediaKind::Audio));
        LocalAudio {
            fanout: fanout.clone(),
        }
    }

    fn fanout(&self, kind: MediaKind) -> Arc<Fanout> {
        Fanout::new(kind, self.tracks_only())
    }
}

/// The pictures of a broadcast. Cheap to clone; every clone is the same.
///
/// A rendition is encoded only while somebody watches it; its first frames are encoded to see what they are, for the
/// catalog. The first viewer gets a key frame at once, later ones soon.
#[derive(Debug, Clone)]
pub struct LocalVideo {
    fanout: Arc<Fanout>,
    broadcast: LocalBroadcast,
}

/// The sound of a broadcast. Cheap to clone; every clone is the same.
///
/// A rendition is encoded only while somebody listens to it.
#[derive(Debug, Clone)]
pub struct LocalAudio {
    fanout: Arc<Fanout>,
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
        let ladder = Ladder::Video {
            codec: encoder.codec,
            presets: presets.into_iter().collect(),
        };
        self.fanout.set(
            source.into().0,
            FanoutConfig::new(ladder, &encoder.request())?,
        )
    }

    /// Captures from another source from now on. The tracks stay; viewers see the picture change.
    ///
    /// # Errors
    /// See [`SetSourceError`].
    pub fn replace_source(&self, source: impl Into<VideoSource>) -> Result<(), SetSourceError> {
        self.fanout.replace(source.into().0)
    }

    /// Lets go of the source, and ends its tracks.
    pub fn stop(&self) {
        self.fanout.stop();
    }

    /// Switches the pictures off and on. Off, nothing is sent, but the tracks stay in the catalog and the source goes
    /// on, for the preview. On again, viewers get a key frame.
    pub fn set_enabled(&self, enabled: bool) {
        self.fanout.set_enabled(enabled);
    }

    /// Whether pictures are sent.
    pub fn is_enabled(&self) -> bool {
        self.fanout.is_enabled()
    }

    /// Bounds the bit rate of all renditions together that are watched, bits a second. None is what the presets say.
    ///
    /// The encoders follow while they run.
    pub fn set_bitrate_limit(&self, limit: Option<u64>) {
        self.fanout.set_limit(limit);
    }

    /// The frames of the source as they are captured.
    pub fn preview(&self) -> Preview {
        self.fanout.preview()
    }

    /// How the source does.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.fanout.status()
    }

    /// The renditions, in the order of their presets. Empty before the first frame.
    pub fn renditions(&self) -> Vec<RenditionInfo> {
        self.fanout.renditions()
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
        let ladder = Ladder::Audio {
            codec: encoder.codec,
            presets: presets.into_iter().collect(),
        };
        self.fanout.set(
            source.into().0,
            FanoutConfig::new(ladder, &encoder.request())?,
        )
    }

    /// Captures from another source from now on. The tracks stay.
    ///
    /// # Errors
    /// See [`SetSourceError`].
    pub fn replace_source(&self, source: impl Into<AudioSource>) -> Result<(), SetSourceError> {
        self.fanout.replace(source.into().0)
    }

    /// Lets go of the source, and ends its tracks.
    pub fn stop(&self) {
        self.fanout.stop();
    }

    /// Mutes, or lets it be heard again. Muted, listeners get silence: packets go on as before, of a few bytes each. To
    /// send nothing at all, [`stop`](Self::stop).
    pub fn set_muted(&self, muted: bool) {
        self.fanout.set_enabled(!muted);
    }

    /// Whether it is muted.
    pub fn is_muted(&self) -> bool {
        !self.fanout.is_enabled()
    }

    /// How the source does.
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.fanout.status()
    }

    /// The renditions, in the order of their presets. Empty before the first samples.
    pub fn renditions(&self) -> Vec<RenditionInfo> {
        self.fanout.renditions()
    }
}
