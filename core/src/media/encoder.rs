//! Encoders: which one is taken for a codec, and how it is set up for live media.
//!
//! Any encoder that GStreamer knows can serve. Those that GStreamer 1.22 to 1.28 ship have a line in the
//! [`table`](self::table); of others the usual properties are guessed.

mod table;

use gst::{glib, prelude::*};

use super::{AudioCodec, VideoCodec, caps::Codec, element::set};
use table::{Tuning, Unit};

/// The time between two key frames that nobody asked for.
const KEYFRAME_INTERVAL_SECS: u32 = 4;

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

/// No encoder can be had for a codec.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// None is installed.
    #[error("no encoder for {codec} is installed: install the package {package}")]
    NotInstalled {
        /// The codec, as people write it.
        codec: String,
        /// The Debian package that has one.
        package: &'static str,
    },
    /// The one that the program named is not installed.
    #[error("the encoder {name:?} is not installed; `gst-inspect-1.0 {name}` says more")]
    Unknown {
        /// The element's name.
        name: String,
    },
    /// The one that the program named makes something else.
    #[error("{name:?} is no encoder for {codec}")]
    WrongCodec {
        /// The element's name.
        name: String,
        /// The codec, as people write it.
        codec: String,
    },
}

/// What is asked of an encoder, of pictures or of sound.
pub(super) struct EncoderRequest<'a> {
    pub codec: Codec,
    /// As people write it.
    pub title: String,
    pub factory: Option<&'a str>,
}

impl VideoEncoder {
    pub(super) fn request(&self) -> EncoderRequest<'_> {
        EncoderRequest {
            codec: self.codec.into(),
            title: self.codec.to_string(),
            factory: self.factory.as_deref(),
        }
    }
}

impl AudioEncoder {
    pub(super) fn request(&self) -> EncoderRequest<'_> {
        EncoderRequest {
            codec: self.codec.into(),
            title: self.codec.to_string(),
            factory: self.factory.as_deref(),
        }
    }
}

impl EncoderRequest<'_> {
    /// The encoders that can do it, best first: hardware before software, then by GStreamer's rank.
    ///
    /// One that the program named stands alone, whatever its rank.
    pub fn candidates(&self) -> Result<Vec<gst::ElementFactory>, EncoderError> {
        let encoded = self.codec.encoded_caps();
        if let Some(name) = self.factory {
            let factory = gst::ElementFactory::find(name).ok_or_else(|| EncoderError::Unknown {
                name: name.to_owned(),
            })?;
            if !factory.has_type(gst::ElementFactoryType::ENCODER)
                || !factory.can_src_any_caps(&encoded)
            {
                return Err(EncoderError::WrongCodec {
                    name: name.to_owned(),
                    codec: self.title.clone(),
                });
            }
            return Ok(vec![factory]);
        }
        let kind = if self.codec.is_video() {
            gst::ElementFactoryType::VIDEO_ENCODER
        } else {
            gst::ElementFactoryType::AUDIO_ENCODER
        };
        let mut found: Vec<_> = gst::ElementFactory::factories_with_type(kind, gst::Rank::from(1))
            .into_iter()
            .filter(|factory| factory.can_src_any_caps(&encoded))
            .collect();
        found.sort_by_key(|factory| {
            (
                !factory.has_type(gst::ElementFactoryType::HARDWARE),
                std::cmp::Reverse(i32::from(factory.rank())),
                factory.name(),
            )
        });
        if found.is_empty() {
            return Err(EncoderError::NotInstalled {
                codec: self.title.clone(),
                package: self.codec.encoder_package(),
            });
        }
        Ok(found)
    }
}

/// What it costs to change the bit rate of an encoder that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateChange {
    /// Nothing.
    Seamless,
    /// The encoder starts anew, with a key frame.
    KeyFrame,
    /// It cannot be changed: another encoder has to take over.
    Rebuild,
}

/// An encoder element that is set up for live media.
#[derive(Debug, Clone)]
pub(super) struct Tuned {
    pub element: gst::Element,
    tuning: Option<&'static Tuning>,
    /// In whose unit the bit rate goes.
    rate: Option<(String, Unit)>,
    gop: u32,
}

impl Tuned {
    /// Makes the element. `framerate` is frames a second, of video.
    pub fn make(
        factory: &gst::ElementFactory,
        bitrate: u64,
        framerate: u32,
        speech: bool,
    ) -> Result<Self, glib::BoolError> {
        let element = factory.create().build()?;
        let name = factory.name();
        let tuning = table::find(&name);
        let gop = framerate.saturating_mul(KEYFRAME_INTERVAL_SECS).max(1);
        let rate = match tuning {
            Some(tuning) => Some((tuning.bitrate.to_owned(), tuning.unit)),
            None => guess_rate(&element),
        };
        let tuned = Self {
            element,
            tuning,
            rate,
            gop,
        };
        for (property, value) in tuning.map_or(table::USUAL, |tuning| tuning.set) {
            set(&tuned.element, property, value);
        }
        let gop = gop.to_string();
        for property in table::KEYFRAME_DISTANCE {
            set(&tuned.element, property, &gop);
        }
        if speech {
            set(&tuned.element, "audio-type", "voice");
        }
        tuned.set_bitrate(bitrate);
        Ok(tuned)
    }

    /// Changes the bit rate, bits a second, while it runs.
    pub fn set_bitrate(&self, bitrate: u64) {
        let Some((property, unit)) = &self.rate else {
            return;
        };
        match unit {
            Unit::Bits => set(&self.element, property, &bitrate.to_string()),
            Unit::Kilobits => set(
                &self.element,
                property,
                &(bitrate / 1000).max(1).to_string(),
            ),
            Unit::Controls => set(
                &self.element,
                property,
                &format!(
                    "controls,video_bitrate={bitrate},video_gop_size={},repeat_sequence_header=1,video_b_frames=0",
                    self.gop
                ),
            ),
        };
        // A ceiling that stayed where it was would be a floor.
        if let Some(peak) = self.tuning.and_then(|tuning| tuning.peak) {
            let value = match unit {
                Unit::Kilobits => bitrate / 1000,
                _ => bitrate,
            };
            set(&self.element, peak, &value.max(1).to_string());
        }
    }

    /// What it costs to change the bit rate.
    pub fn rate_change(&self) -> RateChange {
        let name = self.element.factory().map(|factory| factory.name());
        match name.as_deref() {
            Some("svtav1enc" | "rav1enc" | "x265enc") => RateChange::Rebuild,
            Some(name) if name.starts_with("va") || name.starts_with("msdk") => {
                RateChange::KeyFrame
            }
            _ => RateChange::Seamless,
        }
    }

    /// Asks for a key frame, with the next picture that goes in.
    pub fn force_keyframe(&self) {
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        if let Some(pad) = self.element.static_pad("src") {
            pad.send_event(event);
        }
    }
}

/// The property for the bit rate of an encoder that has no line in the table.
fn guess_rate(element: &gst::Element) -> Option<(String, Unit)> {
    ["bitrate", "target-bitrate"].into_iter().find_map(|name| {
        let property = element.find_property(name)?;
        let blurb = property.blurb().unwrap_or_default().to_lowercase();
        let kilo = ["kbit", "kbps", "kilobit", "kb/s"]
            .iter()
            .any(|unit| blurb.contains(unit));
        Some((
            name.to_owned(),
            if kilo { Unit::Kilobits } else { Unit::Bits },
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() {
        super::super::init().unwrap();
    }

    #[test]
    fn a_codec_without_encoder_names_the_package() {
        init();
        // As if none were installed: what has no rank is taken by its name only. No other test here asks for AAC.
        let encoder = AudioEncoder::from(AudioCodec::Aac);
        if let Ok(found) = encoder.request().candidates() {
            for factory in found {
                factory.set_rank(gst::Rank::NONE);
            }
        }
        let error = encoder.request().candidates().unwrap_err();
        assert_eq!(
            error.to_string(),
            "no encoder for AAC is installed: install the package gstreamer1.0-plugins-bad"
        );
    }

    #[test]
    fn a_named_encoder_is_looked_at() {
        init();
        let unknown = VideoCodec::H264.by("nosuchenc");
        assert!(matches!(
            unknown.request().candidates(),
            Err(EncoderError::Unknown { .. })
        ));
        let wrong = VideoCodec::H264.by("vp8enc");
        assert!(matches!(
            wrong.request().candidates(),
            Err(EncoderError::WrongCodec { .. })
        ));
        let no_encoder = VideoCodec::H264.by("h264parse");
        assert!(matches!(
            no_encoder.request().candidates(),
            Err(EncoderError::WrongCodec { .. })
        ));
        // Of no rank, so that only its name finds it.
        let named = AudioCodec::Aac.by("avenc_aac");
        assert_eq!(named.request().candidates().unwrap()[0].name(), "avenc_aac");
    }

    #[test]
    fn encoders_come_hardware_first_then_by_rank() {
        init();
        let encoder = VideoEncoder::from(VideoCodec::H264);
        let found = encoder.request().candidates().unwrap();
        let keys: Vec<_> = found
            .iter()
            .map(|factory| {
                (
                    !factory.has_type(gst::ElementFactoryType::HARDWARE),
                    -i32::from(factory.rank()),
                )
            })
            .collect();
        assert!(keys.is_sorted(), "{keys:?}");
        assert!(found.iter().all(|factory| i32::from(factory.rank()) > 0));
    }

    #[test]
    fn bit_rates_go_in_the_unit_of_the_encoder() {
        init();
        for (name, expected) in [
            ("x264enc", 1500_i64),
            ("openh264enc", 1_500_000),
            ("vp8enc", 1_500_000),
            ("x265enc", 1500),
            ("av1enc", 1500),
        ] {
            let Some(factory) = gst::ElementFactory::find(name) else {
                continue;
            };
            let tuned = Tuned::make(&factory, 1_500_000, 30, false).unwrap();
            let (property, _) = tuned.rate.as_ref().unwrap();
            let value = tuned.element.property_value(property);
            let value = value.transform::<i64>().unwrap().get::<i64>().unwrap();
            assert_eq!(value, expected, "{name}");
        }
    }

    /// A value that the installed release does not take is a slip in the table, or a property that changed.
    #[test]
    fn the_table_holds_for_what_is_installed() {
        init();
        let mut seen = 0;
        for tuning in table::TABLE {
            let Some(factory) = gst::ElementFactory::find(tuning.factory) else {
                continue;
            };
            let element = factory.create().build().unwrap();
            assert!(
                element.has_property(tuning.bitrate),
                "{}: {}",
                tuning.factory,
                tuning.bitrate
            );
            for (name, value) in tuning.set {
                if element.has_property(name) {
                    assert!(
                        set(&element, name, value),
                        "{}: {name}={value}",
                        tuning.factory
                    );
                }
            }
            seen += 1;
        }
        assert!(seen > 0);
    }
}
