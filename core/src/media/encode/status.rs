//! What a program hears of a source and of what becomes of it.

use std::time::Duration;

use tokio::sync::watch;

use super::writer::TrackWriterError;
use crate::{
    broadcast::TrackConfig,
    media::{EncoderError, InitError, SourceError},
};

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
    /// Its name, which is that of its preset.
    pub name: String,
    /// What viewers find it by, see [`LocalTrack::catalog_name`](crate::broadcast::LocalTrack::catalog_name); none before its
    /// first frame is encoded.
    pub catalog_name: Option<String>,
    /// As the catalog has it; none before its first frame is encoded.
    pub config: Option<TrackConfig>,
    /// The GStreamer element that encodes it, if one does.
    pub encoder: Option<String>,
    /// What its preset asks for, bits a second.
    pub nominal: u64,
    /// What the encoder has been told, bits a second; what the next is to be told, where none is at work.
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
    pub(super) caps: gst::Caps,
    pub(super) buffer: gst::Buffer,
    pub(super) timestamp: Duration,
}

impl CapturedFrame {
    /// When it was captured, in the time of [`LocalBroadcast::now`](crate::LocalBroadcast::now).
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
    pub(super) frames: watch::Receiver<Option<CapturedFrame>>,
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
