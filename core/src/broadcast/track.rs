//! What a track carries: its frames, and how a catalog describes them.

use std::time::Duration;

use bytes::Bytes;
use hang::catalog::{AudioConfig, PRIORITY, VideoConfig};

/// Pictures or sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MediaKind {
    /// Pictures.
    #[default]
    Video,
    /// Sound.
    Audio,
}

impl MediaKind {
    /// How a track is served beside the others of its session, unless somebody says otherwise: higher ones first.
    pub(crate) fn priority(self) -> u8 {
        match self {
            Self::Video => PRIORITY.video,
            Self::Audio => PRIORITY.audio,
        }
    }
}

/// One encoded video frame (access unit, temporal unit) or audio packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    /// When it is presented, since the broadcast's zero; see [`LocalBroadcast`](super::LocalBroadcast) for where that is.
    ///
    /// Frames are in decode order, so with B-frames this goes back and forth. The wire carries microseconds.
    pub timestamp: Duration,
    /// What the encoder produced.
    pub payload: Bytes,
    /// Whether decoding can begin here. Always true for audio.
    pub keyframe: bool,
    /// Whether something is missing before this frame: a group, or the end of one, was left out, or the publisher paused.
    pub discontinuity: bool,
    /// Of what is read by a [`Subscriber`](crate::Subscriber): counts how often the broadcast was found, after lost
    /// connections and restarts of the publisher. Where it has changed, path and publisher may have another delay. Means
    /// nothing in what is written.
    pub incarnation: u64,
}

impl EncodedFrame {
    /// A frame that follows the one before it.
    pub fn new(timestamp: Duration, payload: impl Into<Bytes>, keyframe: bool) -> Self {
        Self {
            timestamp,
            payload: payload.into(),
            keyframe,
            discontinuity: false,
            incarnation: 0,
        }
    }
}

/// What a track carries, as the catalog describes it.
///
/// The fields are those of WebCodecs' decoder configurations.
#[derive(Debug, Clone, PartialEq)]
pub enum TrackConfig {
    /// A video rendition.
    Video(VideoConfig),
    /// An audio rendition.
    Audio(AudioConfig),
}

impl TrackConfig {
    /// Pictures or sound.
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Video(_) => MediaKind::Video,
            Self::Audio(_) => MediaKind::Audio,
        }
    }

    /// Whether it is video.
    pub fn is_video(&self) -> bool {
        self.kind() == MediaKind::Video
    }
}

impl From<VideoConfig> for TrackConfig {
    fn from(config: VideoConfig) -> Self {
        Self::Video(config)
    }
}

impl From<AudioConfig> for TrackConfig {
    fn from(config: AudioConfig) -> Self {
        Self::Audio(config)
    }
}
