//! Which renditions come of a source, and what their encoders are to do.

use super::fit::{Size, sensible};
use crate::media::{AudioCodec, AudioPreset, VideoCodec, VideoPreset};

/// What is asked of a source that can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) struct CaptureFormat {
    pub width: u32,
    pub height: u32,
    pub framerate: u32,
}

impl Default for CaptureFormat {
    fn default() -> Self {
        Self {
            width: 1280,
            height: 720,
            framerate: 30,
        }
    }
}

/// What a rendition is made of, and how.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::media) struct RenditionSpec {
    /// Its name, which is its track's.
    pub name: String,
    /// What the encoder gets: scaled, converted.
    pub target: gst::Caps,
    /// Frames a second, of video: what the encoder is told, and what it gets at most.
    pub framerate: Option<gst::Fraction>,
    /// Bits a second.
    pub bitrate: u64,
    /// Whether it is for speech rather than for music.
    pub speech: bool,
}

impl RenditionSpec {
    /// Whole frames a second, rounded up; of sound that of pictures, which nobody asks for.
    pub fn frames_a_second(&self) -> u32 {
        self.framerate.map_or(30, |rate| {
            u32::try_from((rate.numer() + rate.denom() - 1) / rate.denom().max(1)).unwrap_or(30)
        })
    }
}

/// The source gives no raw media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) struct NotRaw;

/// The presets that the program asked for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::media) enum Ladder {
    Video {
        codec: VideoCodec,
        presets: Vec<VideoPreset>,
    },
    Audio {
        codec: AudioCodec,
        presets: Vec<AudioPreset>,
    },
}

impl Ladder {
    /// What the tracks are called.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Video { presets, .. } => presets.iter().map(|preset| preset.name()).collect(),
            Self::Audio { presets, .. } => {
                presets.iter().map(|preset| preset.name().into()).collect()
            }
        }
    }

    /// What a source that can choose should give: as much as the largest preset.
    pub fn format(&self) -> Option<CaptureFormat> {
        let Self::Video { presets, .. } = self else {
            return None;
        };
        let largest = presets.iter().max_by_key(|preset| {
            let (width, height) = preset.size();
            u64::from(width) * u64::from(height)
        })?;
        let (width, height) = largest.size();
        let framerate = presets.iter().map(|preset| preset.framerate()).max()?;
        Some(CaptureFormat {
            width,
            height,
            framerate,
        })
    }

    /// The renditions of a source of these caps. Those that exist already stay.
    pub fn renditions(
        &self,
        caps: &gst::Caps,
        existing: &[String],
    ) -> Result<Vec<RenditionSpec>, NotRaw> {
        match self {
            Self::Video { codec, presets } => {
                let info = gst_video::VideoInfo::from_caps(caps)
                    .ok()
                    .filter(|info| {
                        info.format() != gst_video::VideoFormat::Encoded
                            && info.width() > 0
                            && info.height() > 0
                    })
                    .ok_or(NotRaw)?;
                let size = Size::of(&info);
                let sensible = sensible(size, presets);
                Ok(presets
                    .iter()
                    .filter(|preset| sensible.contains(preset) || existing.contains(&preset.name()))
                    .map(|preset| video_rendition(*codec, *preset, size, info.fps()))
                    .collect())
            }
            Self::Audio { codec, presets } => {
                let info = gst_audio::AudioInfo::from_caps(caps).map_err(|_| NotRaw)?;
                Ok(presets
                    .iter()
                    .map(|preset| audio_rendition(*codec, *preset, &info))
                    .collect())
            }
        }
    }
}

fn video_rendition(
    codec: VideoCodec,
    preset: VideoPreset,
    size: Size,
    fps: gst::Fraction,
) -> RenditionSpec {
    let Size { width, height } = size.fit(preset);
    let most = gst::Fraction::new(i32::try_from(preset.framerate().max(1)).unwrap_or(30), 1);
    // A source of no fixed rate says zero.
    let framerate = if fps.numer() > 0 && fps < most {
        fps
    } else {
        most
    };
    let length = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    RenditionSpec {
        name: preset.name(),
        target: gst::Caps::builder("video/x-raw")
            // What every encoder and every decoder takes.
            .field("format", gst::List::new(["I420", "NV12"]))
            .field("width", length(width))
            .field("height", length(height))
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build(),
        framerate: Some(framerate),
        bitrate: codec.bitrate(preset),
        speech: false,
    }
}

fn audio_rendition(
    codec: AudioCodec,
    preset: AudioPreset,
    info: &gst_audio::AudioInfo,
) -> RenditionSpec {
    let channels = info.channels().min(preset.channels()).max(1);
    let rate = match codec {
        AudioCodec::Aac if info.rate() == 44_100 => 44_100,
        _ => 48_000,
    };
    RenditionSpec {
        name: preset.name().into(),
        target: gst::Caps::builder("audio/x-raw")
            .field("channels", i32::try_from(channels).unwrap_or(1))
            .field("rate", rate)
            .build(),
        framerate: None,
        bitrate: preset.bitrate(),
        speech: preset == AudioPreset::Lq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renditions(presets: &[VideoPreset], caps: &str, existing: &[&str]) -> Vec<(String, String)> {
        crate::media::init().unwrap();
        let ladder = Ladder::Video {
            codec: VideoCodec::H264,
            presets: presets.to_vec(),
        };
        let existing: Vec<_> = existing.iter().map(|name| (*name).to_owned()).collect();
        ladder
            .renditions(&caps.parse().unwrap(), &existing)
            .unwrap()
            .into_iter()
            .map(|rendition| {
                let target = rendition.target.structure(0).unwrap();
                let size = format!(
                    "{}x{}@{}",
                    target.get::<i32>("width").unwrap(),
                    target.get::<i32>("height").unwrap(),
                    rendition.framerate.unwrap()
                );
                (rendition.name, size)
            })
            .collect()
    }

    #[test]
    fn a_source_makes_the_renditions_that_it_has_pixels_for() {
        let hd = "video/x-raw,format=I420,width=1280,height=720,framerate=25/1";
        let both = [VideoPreset::P1080, VideoPreset::P720, VideoPreset::P180];
        assert_eq!(
            renditions(&both, hd, &[]),
            [
                ("720p".into(), "1280x720@25".into()),
                ("180p".into(), "320x180@25".into())
            ]
        );
        assert_eq!(
            renditions(&both, hd, &["1080p"])[0],
            ("1080p".into(), "1280x720@25".into()),
            "a track that is there stays"
        );
        let fast = "video/x-raw,format=I420,width=320,height=180,framerate=60/1";
        assert_eq!(
            renditions(&[VideoPreset::P180], fast, &[]),
            [("180p".into(), "320x180@30".into())]
        );
        let free = "video/x-raw,format=I420,width=320,height=180,framerate=0/1";
        assert_eq!(
            renditions(&[VideoPreset::P180], free, &[]),
            [("180p".into(), "320x180@30".into())]
        );
    }

    #[test]
    fn what_is_not_raw_is_refused() {
        crate::media::init().unwrap();
        let ladder = Ladder::Video {
            codec: VideoCodec::H264,
            presets: vec![VideoPreset::P180],
        };
        let caps = gst::Caps::builder("video/x-h264").build();
        assert_eq!(ladder.renditions(&caps, &[]), Err(NotRaw));
    }
}
