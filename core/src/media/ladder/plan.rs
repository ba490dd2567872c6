//! Which renditions come of a source, and what their encoders are to do.

use super::fit::{Size, sensible};
use crate::media::{
    AudioCodec, AudioPreset, VideoCodec, VideoPreset,
    capture::{Format, SourceError},
    encode::pipeline::Job,
};

/// The presets that the program asked for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::media) enum Plan {
    Video {
        codec: VideoCodec,
        presets: Vec<VideoPreset>,
    },
    Audio {
        codec: AudioCodec,
        presets: Vec<AudioPreset>,
    },
}

impl Plan {
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
    pub fn format(&self) -> Option<Format> {
        let Self::Video { presets, .. } = self else {
            return None;
        };
        let largest = presets.iter().max_by_key(|preset| {
            let (width, height) = preset.size();
            u64::from(width) * u64::from(height)
        })?;
        let (width, height) = largest.size();
        let framerate = presets.iter().map(|preset| preset.framerate()).max()?;
        Some(Format {
            width,
            height,
            framerate,
        })
    }

    /// What the encoders are to do with a source of these caps. Renditions that exist already stay.
    pub fn jobs(&self, caps: &gst::Caps, existing: &[String]) -> Result<Vec<Job>, SourceError> {
        let not_raw = || SourceError::NotRaw {
            caps: caps.to_string(),
        };
        match self {
            Self::Video { codec, presets } => {
                let info = gst_video::VideoInfo::from_caps(caps)
                    .ok()
                    .filter(|info| {
                        info.format() != gst_video::VideoFormat::Encoded
                            && info.width() > 0
                            && info.height() > 0
                    })
                    .ok_or_else(not_raw)?;
                let size = Size::of(&info);
                let sensible = sensible(size, presets);
                Ok(presets
                    .iter()
                    .filter(|preset| sensible.contains(preset) || existing.contains(&preset.name()))
                    .map(|preset| video_job(*codec, *preset, size, info.fps()))
                    .collect())
            }
            Self::Audio { codec, presets } => {
                let info = gst_audio::AudioInfo::from_caps(caps).map_err(|_| not_raw())?;
                Ok(presets
                    .iter()
                    .map(|preset| audio_job(*codec, *preset, &info))
                    .collect())
            }
        }
    }
}

fn video_job(codec: VideoCodec, preset: VideoPreset, size: Size, fps: gst::Fraction) -> Job {
    let Size { width, height } = size.fit(preset);
    let most = gst::Fraction::new(i32::try_from(preset.framerate().max(1)).unwrap_or(30), 1);
    // A source of no fixed rate says zero.
    let framerate = if fps.numer() > 0 && fps < most {
        fps
    } else {
        most
    };
    let length = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    Job {
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

fn audio_job(codec: AudioCodec, preset: AudioPreset, info: &gst_audio::AudioInfo) -> Job {
    let channels = info.channels().min(preset.channels()).max(1);
    let rate = match codec {
        AudioCodec::Aac if info.rate() == 44_100 => 44_100,
        _ => 48_000,
    };
    Job {
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

    fn jobs(presets: &[VideoPreset], caps: &str, existing: &[&str]) -> Vec<(String, String)> {
        crate::media::init().unwrap();
        let plan = Plan::Video {
            codec: VideoCodec::H264,
            presets: presets.to_vec(),
        };
        let existing: Vec<_> = existing.iter().map(|name| (*name).to_owned()).collect();
        plan.jobs(&caps.parse().unwrap(), &existing)
            .unwrap()
            .into_iter()
            .map(|job| {
                let target = job.target.structure(0).unwrap();
                let size = format!(
                    "{}x{}@{}",
                    target.get::<i32>("width").unwrap(),
                    target.get::<i32>("height").unwrap(),
                    job.framerate.unwrap()
                );
                (job.name, size)
            })
            .collect()
    }

    #[test]
    fn a_source_makes_the_renditions_that_it_has_pixels_for() {
        let hd = "video/x-raw,format=I420,width=1280,height=720,framerate=25/1";
        let both = [VideoPreset::P1080, VideoPreset::P720, VideoPreset::P180];
        assert_eq!(
            jobs(&both, hd, &[]),
            [
                ("720p".into(), "1280x720@25".into()),
                ("180p".into(), "320x180@25".into())
            ]
        );
        assert_eq!(
            jobs(&both, hd, &["1080p"])[0],
            ("1080p".into(), "1280x720@25".into()),
            "a track that is there stays"
        );
        let fast = "video/x-raw,format=I420,width=320,height=180,framerate=60/1";
        assert_eq!(
            jobs(&[VideoPreset::P180], fast, &[]),
            [("180p".into(), "320x180@30".into())]
        );
        let free = "video/x-raw,format=I420,width=320,height=180,framerate=0/1";
        assert_eq!(
            jobs(&[VideoPreset::P180], free, &[]),
            [("180p".into(), "320x180@30".into())]
        );
    }

    #[test]
    fn what_is_not_raw_is_refused() {
        crate::media::init().unwrap();
        let plan = Plan::Video {
            codec: VideoCodec::H264,
            presets: vec![VideoPreset::P180],
        };
        let caps = gst::Caps::builder("video/x-h264").build();
        assert!(matches!(
            plan.jobs(&caps, &[]),
            Err(SourceError::NotRaw { .. })
        ));
    }
}
