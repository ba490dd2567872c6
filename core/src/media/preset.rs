//! How large and how good a rendition is.

/// The size, frame rate and bit rate of a video rendition.
///
/// The picture keeps its shape: it is scaled to the preset's height, and never up. Bit rates are for H.264; the codecs
/// that need less are given less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VideoPreset {
    /// 320x180 at 150 kbit/s.
    P180,
    /// 640x360 at 500 kbit/s.
    P360,
    /// 1280x720 at 2 Mbit/s.
    P720,
    /// 1920x1080 at 4 Mbit/s.
    P1080,
    /// 3840x2160 at 14 Mbit/s.
    P2160,
    /// As you say.
    Custom {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Frames a second at most; slower sources stay as they are.
        framerate: u32,
        /// Bits a second.
        bitrate: u64,
    },
}

/// How good an audio rendition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AudioPreset {
    /// Stereo at 128 kbit/s, for music.
    Hq,
    /// Mono at 32 kbit/s, for speech.
    Lq,
}

impl VideoPreset {
    /// The presets with a name, smallest first.
    pub const LADDER: [Self; 5] = [Self::P180, Self::P360, Self::P720, Self::P1080, Self::P2160];

    /// Width and height at most, pixels.
    pub fn size(self) -> (u32, u32) {
        match self {
            Self::P180 => (320, 180),
            Self::P360 => (640, 360),
            Self::P720 => (1280, 720),
            Self::P1080 => (1920, 1080),
            Self::P2160 => (3840, 2160),
            Self::Custom { width, height, .. } => (width, height),
        }
    }

    /// Frames a second at most.
    pub fn framerate(self) -> u32 {
        match self {
            Self::Custom { framerate, .. } => framerate,
            _ => 30,
        }
    }

    /// Bits a second.
    pub fn bitrate(self) -> u64 {
        match self {
            Self::P180 => 150_000,
            Self::P360 => 500_000,
            Self::P720 => 2_000_000,
            Self::P1080 => 4_000_000,
            Self::P2160 => 14_000_000,
            Self::Custom { bitrate, .. } => bitrate,
        }
    }

    /// What its track is called: `720p`, or with the bit rate, `240p-900k`, for one of your own.
    pub fn name(self) -> String {
        match self {
            Self::Custom { .. } => format!("{}p-{}k", self.size().1, self.bitrate() / 1000),
            _ => format!("{}p", self.size().1),
        }
    }
}

impl AudioPreset {
    /// Channels at most; sources with fewer stay as they are.
    pub fn channels(self) -> u32 {
        match self {
            Self::Hq => 2,
            Self::Lq => 1,
        }
    }

    /// Bits a second.
    pub fn bitrate(self) -> u64 {
        match self {
            Self::Hq => 128_000,
            Self::Lq => 32_000,
        }
    }

    /// What its track is called unless somebody says otherwise.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hq => "hq",
            Self::Lq => "lq",
        }
    }
}
