//! How large the renditions of a picture are.

use crate::media::VideoPreset;

/// No encoder that is known takes less.
const SMALLEST: u32 = 16;

/// The size of a picture with square pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    /// The picture with square pixels, smaller rather than larger in either direction.
    pub(in crate::media) fn of(info: &gst_video::VideoInfo) -> Self {
        let par = info.par();
        let (n, d) = (
            u64::try_from(par.numer()).unwrap_or(1).max(1),
            u64::try_from(par.denom()).unwrap_or(1).max(1),
        );
        let scale = |length: u32, by: u64, of: u64| {
            u32::try_from(u64::from(length) * by / of).unwrap_or(length)
        };
        if n >= d {
            Self {
                width: info.width(),
                height: scale(info.height(), d, n),
            }
        } else {
            Self {
                width: scale(info.width(), n, d),
                height: info.height(),
            }
        }
    }

    /// The size at which a preset shows the picture: its shape is kept, it is never scaled up, and both lengths are
    /// even, as 4:2:0 wants them. An upright picture gets the preset upright.
    pub(in crate::media) fn fit(self, preset: VideoPreset) -> Self {
        let (width, height) = preset_box(self, preset);
        let (w, h) = (u64::from(self.width.max(1)), u64::from(self.height.max(1)));
        // By the length that has to shrink most: the scale as a fraction, at most one.
        let (n, d) = [(u64::from(width), w), (u64::from(height), h), (1, 1)]
            .into_iter()
            .min_by(|a, b| (a.0 * b.1).cmp(&(b.0 * a.1)))
            .unwrap_or((1, 1));
        let even = |length: u64| {
            let scaled = u32::try_from(length * n / d).unwrap_or(u32::MAX);
            (scaled & !1).max(SMALLEST)
        };
        Self {
            width: even(w),
            height: even(h),
        }
    }

    /// Whether the preset has room for more than there is.
    fn is_exceeded_by(self, preset: VideoPreset) -> bool {
        let (width, height) = preset_box(self, preset);
        width >= self.width && height >= self.height && (width, height) != (self.width, self.height)
    }
}

fn preset_box(size: Size, preset: VideoPreset) -> (u32, u32) {
    let (width, height) = preset.size();
    if (size.height > size.width) == (height > width) || size.width == size.height {
        (width, height)
    } else {
        (height, width)
    }
}

/// Those presets that make sense for a picture: of those larger than it the smallest only, and that only where none has
/// it at its full size already.
pub(in crate::media) fn sensible(size: Size, presets: &[VideoPreset]) -> Vec<VideoPreset> {
    let mut sorted = presets.to_vec();
    sorted.sort_by_key(|preset| {
        let (width, height) = preset.size();
        (u64::from(width) * u64::from(height), preset.bitrate())
    });
    let full = size.fit(VideoPreset::Custom {
        width: size.width,
        height: size.height,
        framerate: 30,
        bitrate: 0,
    });
    let mut kept: Vec<VideoPreset> = Vec::new();
    for preset in sorted {
        let covered = kept.iter().any(|kept| size.fit(*kept) == full);
        if !(size.is_exceeded_by(preset) && covered) {
            kept.push(preset);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use VideoPreset::{P180, P360, P720, P1080, P2160};

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn custom(width: u32, height: u32, bitrate: u64) -> VideoPreset {
        VideoPreset::Custom {
            width,
            height,
            framerate: 30,
            bitrate,
        }
    }

    #[test]
    fn the_shape_is_kept_and_nothing_is_scaled_up() {
        assert_eq!(size(1920, 1080).fit(P720), size(1280, 720));
        assert_eq!(size(640, 480).fit(P360), size(480, 360));
        assert_eq!(size(640, 480).fit(P1080), size(640, 480));
        assert_eq!(size(1080, 1920).fit(P720), size(720, 1280), "upright");
        assert_eq!(size(641, 481).fit(P1080), size(640, 480), "odd");
        assert_eq!(size(4000, 100).fit(P180), size(320, 16), "narrow");
        assert_eq!(size(1, 1).fit(P180), size(16, 16));
        assert_eq!(
            size(u32::MAX, u32::MAX).fit(P2160),
            size(2160, 2160),
            "absurd"
        );
    }

    #[test]
    fn pixels_become_square() {
        crate::media::init().unwrap();
        let with = |width, height, par: (i32, i32)| {
            let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width, height)
                .par(gst::Fraction::new(par.0, par.1))
                .build()
                .unwrap();
            Size::of(&info)
        };
        assert_eq!(with(1440, 1080, (4, 3)), size(1440, 810));
        assert_eq!(with(720, 576, (16, 15)), size(720, 540));
        assert_eq!(with(720, 480, (8, 9)), size(640, 480));
    }

    #[test]
    fn presets_that_add_nothing_are_left_out() {
        assert_eq!(
            sensible(size(1280, 720), &[P1080, P720, P360]),
            [P360, P720]
        );
        assert_eq!(
            sensible(size(800, 600), &[P360, P720, P1080, P2160]),
            [P360, P720],
            "720p serves the full 800x600"
        );
        assert_eq!(sensible(size(320, 240), &[P2160, P1080]), [P1080]);
        assert_eq!(
            sensible(size(1280, 720), &[P720, custom(1280, 720, 500_000)]),
            [custom(1280, 720, 500_000), P720],
            "two bit rates of one size"
        );
    }
}
