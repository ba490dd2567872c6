//! The level of a stream: what a decoder has to be able to do at least.

use crate::media::caps::Codec;

/// A picture of so many pixels, so many frames a second, at so many bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub width: u32,
    pub height: u32,
    pub framerate: u32,
    pub bitrate: u64,
}

/// Macroblocks a second, macroblocks a picture, kilobits a second (ITU-T H.264, table A-1).
const H264: &[(&str, u64, u64, u64)] = &[
    ("1", 1_485, 99, 64),
    ("1.1", 3_000, 396, 192),
    ("1.2", 6_000, 396, 384),
    ("1.3", 11_880, 396, 768),
    ("2", 11_880, 396, 2_000),
    ("2.1", 19_800, 792, 4_000),
    ("2.2", 20_250, 1_620, 4_000),
    ("3", 40_500, 1_620, 10_000),
    ("3.1", 108_000, 3_600, 14_000),
    ("3.2", 216_000, 5_120, 20_000),
    ("4", 245_760, 8_192, 20_000),
    ("4.1", 245_760, 8_192, 50_000),
    ("4.2", 522_240, 8_704, 50_000),
    ("5", 589_824, 22_080, 135_000),
    ("5.1", 983_040, 36_864, 240_000),
    ("5.2", 2_073_600, 36_864, 240_000),
];

/// Samples a second, samples a picture, kilobits a second in the main tier (ITU-T H.265, tables A.8 and A.9).
const H265: &[(&str, u64, u64, u64)] = &[
    ("1", 552_960, 36_864, 128),
    ("2", 3_686_400, 122_880, 1_500),
    ("2.1", 7_372_800, 245_760, 3_000),
    ("3", 16_588_800, 552_960, 6_000),
    ("3.1", 33_177_600, 983_040, 10_000),
    ("4", 66_846_720, 2_228_224, 12_000),
    ("4.1", 133_693_440, 2_228_224, 20_000),
    ("5", 267_386_880, 8_912_896, 25_000),
    ("5.1", 534_773_760, 8_912_896, 40_000),
    ("5.2", 1_069_547_520, 8_912_896, 60_000),
];

/// The lowest level that takes it; the highest that is known where none does. None for other codecs.
pub(super) fn level(codec: Codec, load: Load) -> Option<&'static str> {
    let (table, unit) = match codec {
        Codec::H264 => (H264, 16),
        Codec::H265 => (H265, 1),
        _ => return None,
    };
    let size = u64::from(load.width.div_ceil(unit)) * u64::from(load.height.div_ceil(unit));
    let rate = size * u64::from(load.framerate);
    table
        .iter()
        .find(|(_, most_rate, most_size, kilobits)| {
            rate <= *most_rate && size <= *most_size && load.bitrate <= kilobits * 1000
        })
        .or(table.last())
        .map(|(level, ..)| *level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(codec: Codec, width: u32, height: u32, framerate: u32, kilobits: u64) -> &'static str {
        let load = Load {
            width,
            height,
            framerate,
            bitrate: kilobits * 1000,
        };
        level(codec, load).unwrap()
    }

    #[test]
    fn the_level_follows_from_size_and_rates() {
        assert_eq!(of(Codec::H264, 320, 180, 30, 150), "1.3");
        assert_eq!(of(Codec::H264, 640, 360, 30, 500), "3");
        assert_eq!(of(Codec::H264, 1280, 720, 30, 2_000), "3.1");
        assert_eq!(of(Codec::H264, 1920, 1080, 30, 4_000), "4");
        assert_eq!(of(Codec::H264, 1920, 1080, 30, 30_000), "4.1");
        assert_eq!(of(Codec::H264, 1920, 1080, 60, 8_000), "4.2");
        assert_eq!(of(Codec::H264, 3840, 2160, 30, 14_000), "5.1");
        assert_eq!(of(Codec::H264, 8192, 8192, 60, 1), "5.2", "beyond all");
        assert_eq!(of(Codec::H265, 1920, 1080, 30, 4_000), "4");
        assert_eq!(of(Codec::H265, 3840, 2160, 60, 14_000), "5.1");
        let load = Load {
            width: 16,
            height: 16,
            framerate: 1,
            bitrate: 1,
        };
        assert_eq!(level(Codec::Vp8, load), None);
    }
}
