//! Which encoders are tried for a codec, and in which order.

use gst::prelude::*;

use super::table;
use crate::media::caps::Codec;

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
pub(in crate::media) struct EncoderRequest<'a> {
    pub codec: Codec,
    /// The element that the program wants.
    pub factory: Option<&'a str>,
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
                    codec: self.codec.title().to_owned(),
                });
            }
            return Ok(vec![factory]);
        }
        let kind = if self.codec.is_video() {
            gst::ElementFactoryType::VIDEO_ENCODER
        } else {
            gst::ElementFactoryType::AUDIO_ENCODER
        };
        let ranks = std::env::var("GST_PLUGIN_FEATURE_RANK").unwrap_or_default();
        let mut found: Vec<_> = gst::ElementFactory::factories_with_type(kind, gst::Rank::NONE)
            .into_iter()
            .filter(|factory| factory.can_src_any_caps(&encoded))
            .filter_map(|factory| {
                let preference = preference(&Installed {
                    name: &factory.name(),
                    rank: factory.rank().into(),
                    hardware: factory.has_type(gst::ElementFactoryType::HARDWARE),
                    ranked_by_user: names(&ranks, &factory.name()),
                })?;
                Some((preference, factory))
            })
            .collect();
        found.sort_by_key(|(preference, factory)| (*preference, factory.name()));
        if found.is_empty() {
            return Err(EncoderError::NotInstalled {
                codec: self.codec.title().to_owned(),
                package: self.codec.encoder_package(),
            });
        }
        Ok(found.into_iter().map(|(_, factory)| factory).collect())
    }
}

/// What is known of an encoder that is installed.
struct Installed<'a> {
    name: &'a str,
    rank: i32,
    /// Whether it says that it is hardware.
    hardware: bool,
    /// Whether its rank is what the user wants.
    ranked_by_user: bool,
}

/// By what encoders are sorted.
type Preference = (bool, std::cmp::Reverse<i32>, usize);

/// How good an encoder is, the least being the best; none for one that is not to be used.
///
/// Most plugins for hardware give their encoders no rank, so that nobody gets them by surprise. Those that are known to be
/// good are taken all the same, unless the user says otherwise.
fn preference(encoder: &Installed) -> Option<Preference> {
    let known = table::find(encoder.name);
    let device = known.is_some_and(|(_, tuning)| tuning.hardware);
    let rank = if device && !encoder.ranked_by_user {
        encoder.rank.max(i32::from(gst::Rank::PRIMARY))
    } else {
        encoder.rank
    };
    (rank > 0).then_some((
        !(device || encoder.hardware),
        std::cmp::Reverse(rank),
        known.map_or(usize::MAX, |(place, _)| place),
    ))
}

/// Whether the environment variable for ranks, as `vah264enc:NONE,x264enc:MAX`, names an element.
fn names(ranks: &str, element: &str) -> bool {
    ranks
        .split(',')
        .filter_map(|entry| entry.split_once(':'))
        .any(|(name, _)| name.trim() == element)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the order in which they are tried; `klass` says what calls itself hardware.
    fn order(encoders: &[(&'static str, i32, bool)], ranks: &str) -> Vec<&'static str> {
        let mut found: Vec<_> = encoders
            .iter()
            .filter_map(|(name, rank, hardware)| {
                let preference = preference(&Installed {
                    name,
                    rank: *rank,
                    hardware: *hardware,
                    ranked_by_user: names(ranks, name),
                })?;
                Some((preference, *name))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn devices_come_before_software_though_their_plugins_give_them_no_rank() {
        let linux = [
            ("x264enc", 256, false),
            ("openh264enc", 64, false),
            ("avenc_h264_omx", 0, false),
            ("vulkanh264enc", 0, true),
            ("vaapih264enc", 256, true),
            ("vah264enc", 0, true),
            ("qsvh264enc", 0, true),
            ("nosuchh264enc", 0, true),
        ];
        assert_eq!(
            order(&linux, ""),
            [
                "qsvh264enc",
                "vah264enc",
                "vaapih264enc",
                "vulkanh264enc",
                "x264enc",
                "openh264enc"
            ]
        );
        let windows = [
            ("x264enc", 256, false),
            ("mfh264enc", 64, true),
            ("nvd3d11h264enc", 0, true),
            ("d3d12h264enc", 0, true),
        ];
        assert_eq!(
            order(&windows, ""),
            ["nvd3d11h264enc", "d3d12h264enc", "mfh264enc", "x264enc"]
        );
        let boards = [
            ("x264enc", 256, false),
            ("nvv4l2h264enc", 0, false),
            ("amcvidenc-omxbcmavc", 0, false),
        ];
        assert_eq!(
            order(&boards, ""),
            ["nvv4l2h264enc", "amcvidenc-omxbcmavc", "x264enc"]
        );
    }

    #[test]
    fn the_user_has_the_last_word() {
        let encoders = [
            ("x264enc", 256, false),
            ("vah264enc", 0, true),
            ("qsvh264enc", 512, true),
        ];
        assert_eq!(
            order(&encoders, "vah264enc:NONE,qsvh264enc:512"),
            ["qsvh264enc", "x264enc"]
        );
    }

    #[test]
    fn a_codec_without_encoder_names_the_package() {
        crate::media::init().unwrap();
        // As if none were installed: what has no rank is taken by its name only. No other test here asks for MP3.
        let request = |factory| EncoderRequest {
            codec: Codec::Mp3,
            factory,
        };
        if let Ok(found) = request(None).candidates() {
            for factory in found {
                factory.set_rank(gst::Rank::NONE);
            }
        }
        assert_eq!(
            request(None).candidates().unwrap_err().to_string(),
            "no encoder for MP3 is installed: install the package gstreamer1.0-plugins-good"
        );
    }

    #[test]
    fn a_named_encoder_is_looked_at() {
        crate::media::init().unwrap();
        let named = |codec, name| {
            EncoderRequest {
                codec,
                factory: Some(name),
            }
            .candidates()
        };
        assert!(matches!(
            named(Codec::H264, "nosuchenc"),
            Err(EncoderError::Unknown { .. })
        ));
        for name in ["vp8enc", "h264parse"] {
            assert!(matches!(
                named(Codec::H264, name),
                Err(EncoderError::WrongCodec { .. })
            ));
        }
        assert_eq!(
            named(Codec::Aac, "avenc_aac").unwrap()[0].name(),
            "avenc_aac"
        );
    }
}
