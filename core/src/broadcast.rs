//! Encoded media: a broadcast that is written, a broadcast that is read.
//!
//! A broadcast is a set of tracks and a catalog that describes them, in the format of the `hang` and `moq-mux` crates,
//! so that every player of that family reads it. A track is a sequence of groups; a group of video is a group of
//! pictures and begins with a key frame, a group of audio is one packet, as every packet can be decoded by itself.

mod cache;
mod container;
mod local;
mod remote;
mod rendition;
mod timeline;

use std::time::Duration;

use bytes::Bytes;
pub(crate) use cache::{RETENTION, pool};
pub use hang::catalog::{
    AAC, AV1, AudioCodec, AudioConfig, Catalog, Container, H264, H265, VP9, VideoCodec, VideoConfig,
};
pub use local::{LocalBroadcast, LocalTrack, PublishTrackError, TrackReservation, WriteError};
pub use remote::{
    CatalogError, CatalogWatch, EncodedReader, ReadError, RemoteBroadcast, SubscribeTrackError,
    TrackStats,
};
pub use rendition::{LeftOut, MediaKind, Readable, Rendition};
pub use timeline::Timeline;

/// One encoded video frame (access unit, temporal unit) or audio packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    /// When it is presented, since the broadcast's zero; see [`LocalBroadcast`] for where that is.
    ///
    /// Frames are in decode order, so with B-frames this goes back and forth. The wire carries microseconds.
    pub timestamp: Duration,
    /// What the encoder produced.
    pub payload: Bytes,
    /// Whether decoding can begin here. Always true for audio.
    pub keyframe: bool,
    /// Whether something is missing before this frame: a group, or the end of one, was left out, or the publisher paused.
    pub discontinuity: bool,
}

impl EncodedFrame {
    /// A frame that follows the one before it.
    pub fn new(timestamp: Duration, payload: impl Into<Bytes>, keyframe: bool) -> Self {
        Self {
            timestamp,
            payload: payload.into(),
            keyframe,
            discontinuity: false,
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
    /// Whether it is video.
    pub fn is_video(&self) -> bool {
        matches!(self, Self::Video(_))
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
