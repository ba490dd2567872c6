//! The codecs that media can be encoded with. How a catalog names them is in [`broadcast::catalog`](crate::broadcast::catalog).

use super::{VideoPreset, caps::Codec};

/// A codec to encode video with. Streams are described by [`catalog::VideoCodec`](crate::broadcast::catalog::VideoCodec).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum VideoCodec {
    /// H.264: plays everywhere, and most machines encode it in hardware.
    #[default]
    H264,
    /// H.265: a third less than H.264 for the same picture.
    H265,
    /// AV1: half of H.264 for the same picture, at a price in computation.
    Av1,
    /// VP8: free, and decoded everywhere.
    Vp8,
    /// VP9: free, about as good as H.265.
    Vp9,
}

/// A codec to encode audio with. Streams are described by [`catalog::AudioCodec`](crate::broadcast::catalog::AudioCodec).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AudioCodec {
    /// Opus: the one for live sound.
    #[default]
    Opus,
    /// AAC: for players that know nothing else.
    Aac,
}

impl VideoCodec {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::H264, Self::H265, Self::Av1, Self::Vp8, Self::Vp9];

    /// What a preset gets with this codec, bits a second: less than H.264 where the codec needs less. What the program
    /// chose itself is left as it is.
    pub fn bitrate(self, preset: VideoPreset) -> u64 {
        let bitrate = preset.bitrate();
        if matches!(preset, VideoPreset::Custom { .. }) {
            return bitrate;
        }
        match self {
            Self::H264 | Self::Vp8 => bitrate,
            Self::H265 | Self::Vp9 => bitrate * 7 / 10,
            Self::Av1 => bitrate * 6 / 10,
        }
    }
}

impl From<VideoCodec> for Codec {
    fn from(codec: VideoCodec) -> Self {
        match codec {
            VideoCodec::H264 => Self::H264,
            VideoCodec::H265 => Self::H265,
            VideoCodec::Av1 => Self::Av1,
            VideoCodec::Vp8 => Self::Vp8,
            VideoCodec::Vp9 => Self::Vp9,
        }
    }
}

impl From<AudioCodec> for Codec {
    fn from(codec: AudioCodec) -> Self {
        match codec {
            AudioCodec::Opus => Self::Opus,
            AudioCodec::Aac => Self::Aac,
        }
    }
}

impl std::fmt::Display for VideoCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Codec::from(*self).title())
    }
}

impl std::fmt::Display for AudioCodec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Codec::from(*self).title())
    }
}
