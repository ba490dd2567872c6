//! Encoders: which one is taken for a codec, and how it is set up for live media.
//!
//! Any encoder that GStreamer knows can serve. Those that GStreamer 1.22 to 1.28 ship have a line in the
//! [`table`](self::table); of others the usual properties are guessed.

mod choose;
mod level;
mod table;
mod tuned;

pub use choose::EncoderError;
pub(super) use choose::EncoderRequest;
pub(super) use table::RateChange;
pub(super) use tuned::{EncoderSettings, NO_KEYFRAME_DUE, Tuned};

use super::{AudioCodec, VideoCodec};

/// A codec, and the encoder for it where the program wants a certain one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VideoEncoder {
    pub(super) codec: VideoCodec,
    pub(super) factory: Option<String>,
}

/// A codec, and the encoder for it where the program wants a certain one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AudioEncoder {
    pub(super) codec: AudioCodec,
    pub(super) factory: Option<String>,
}

impl From<VideoCodec> for VideoEncoder {
    fn from(codec: VideoCodec) -> Self {
        Self {
            codec,
            factory: None,
        }
    }
}

impl From<AudioCodec> for AudioEncoder {
    fn from(codec: AudioCodec) -> Self {
        Self {
            codec,
            factory: None,
        }
    }
}

impl VideoCodec {
    /// This codec, by the GStreamer element of that name, as `x264enc`.
    pub fn by(self, element: impl Into<String>) -> VideoEncoder {
        VideoEncoder {
            codec: self,
            factory: Some(element.into()),
        }
    }
}

impl AudioCodec {
    /// This codec, by the GStreamer element of that name, as `avenc_aac`.
    pub fn by(self, element: impl Into<String>) -> AudioEncoder {
        AudioEncoder {
            codec: self,
            factory: Some(element.into()),
        }
    }
}

impl VideoEncoder {
    pub(super) fn request(&self) -> EncoderRequest<'_> {
        EncoderRequest {
            codec: self.codec.into(),
            factory: self.factory.as_deref(),
        }
    }
}

impl AudioEncoder {
    pub(super) fn request(&self) -> EncoderRequest<'_> {
        EncoderRequest {
            codec: self.codec.into(),
            factory: self.factory.as_deref(),
        }
    }
}
