use super::*;

fn settings(codec: Codec, bitrate: u64) -> EncoderSettings {
    crate::media::init().unwrap();
    EncoderSettings {
        codec,
        size: Some((640, 360)),
        framerate: 30,
        bitrate,
        speech: false,
    }
}

fn installed(name: &str, codec: Codec, bitrate: u64) -> Option<Tuned> {
    let settings = settings(codec, bitrate);
    let factory = gst::ElementFactory::find(name)?;
    Some(Tuned::make(&factory, settings).unwrap())
}

fn number(tuned: &Tuned, property: &str) -> i64 {
    let value = tuned.element.property_value(property);
    value.transform::<i64>().unwrap().get().unwrap()
}

#[test]
fn bit_rates_go_in_the_unit_of_the_encoder() {
    let mut seen = 0;
    for (name, codec, expected) in [
        ("x264enc", Codec::H264, 1500_i64),
        ("openh264enc", Codec::H264, 1_500_000),
        ("vp8enc", Codec::Vp8, 1_500_000),
        ("x265enc", Codec::H265, 1500),
        ("av1enc", Codec::Av1, 1500),
    ] {
        let Some(tuned) = installed(name, codec, 1_500_000) else {
            continue;
        };
        let (property, _) = tuned.rate.as_ref().unwrap();
        assert_eq!(number(&tuned, property), expected, "{name}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn what_has_to_follow_the_bit_rate_does() {
    if let Some(tuned) = installed("openh264enc", Codec::H264, 1_500_000) {
        assert_eq!(number(&tuned, "max-bitrate"), 1_500_000);
        assert_eq!(tuned.set_bitrate(2_000_000), Outcome::Done);
        assert_eq!(number(&tuned, "max-bitrate"), 2_000_000);
    }
    if let Some(tuned) = installed("x265enc", Codec::H265, 1_500_000) {
        let options = tuned.element.property::<String>("option-string");
        assert!(options.contains("vbv-bufsize=450"), "{options}");
        assert_eq!(tuned.rate_change(), RateChange::Rebuild);
    }
    if let Some(tuned) = installed("vp8enc", Codec::Vp8, 1_500_000) {
        assert_eq!(number(&tuned, "max-intra-bitrate"), 250);
        assert_eq!(number(&tuned, "dropframe-threshold"), 30);
        assert_eq!(tuned.rate_change(), RateChange::Seamless);
    }
}

/// A value that the installed release does not take is a slip in the table, or a property that changed.
#[test]
fn the_table_holds_for_what_is_installed() {
    crate::media::init().unwrap();
    let mut seen = 0;
    for tuning in table::TABLE {
        let Some(factory) = gst::ElementFactory::find(tuning.factory) else {
            continue;
        };
        if factory.plugin().is_none() {
            // One of the fakes below.
            continue;
        }
        let element = factory.create().build().unwrap();
        assert!(
            element.has_property(tuning.bitrate),
            "{}: {}",
            tuning.factory,
            tuning.bitrate
        );
        for (name, value) in tuning.set {
            assert_ne!(
                set(&element, name, value),
                Outcome::Refused,
                "{}: {name}={value}",
                tuning.factory
            );
        }
        seen += 1;
    }
    assert!(seen > 0);
}

/// Encoders as they would be on other machines, made of properties alone.
mod fake {
    use std::sync::{LazyLock, Mutex};

    use gst::{glib, prelude::*, subclass::prelude::*};

    /// A device that only has a constant quality.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
    #[repr(u32)]
    #[enum_type(name = "TestQualityOnly")]
    pub enum QualityOnly {
        #[default]
        #[enum_value(name = "Constant quality", nick = "cqp")]
        Cqp,
    }

    /// A device that has no constant bit rate.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
    #[repr(u32)]
    #[enum_type(name = "TestVariable")]
    pub enum Variable {
        #[default]
        #[enum_value(name = "Constant quality", nick = "cqp")]
        Cqp,
        #[enum_value(name = "Variable bit rate", nick = "vbr")]
        Vbr,
    }

    macro_rules! encoder {
        ($module:ident, $mode:ty, $name:literal) => {
            pub mod $module {
                use super::*;

                #[derive(Default, glib::Properties)]
                #[properties(wrapper_type = Fake)]
                pub struct Imp {
                    #[property(get, set, name = "rate-control", builder(<$mode>::default()))]
                    rate_control: Mutex<$mode>,
                    #[property(get, set)]
                    bitrate: Mutex<u32>,
                    #[property(get, set, name = "cpb-size")]
                    cpb_size: Mutex<u32>,
                    #[property(get, set, name = "extra-controls")]
                    extra_controls: Mutex<String>,
                }

                glib::wrapper! {
                    pub struct Fake(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
                }

                #[glib::object_subclass]
                impl ObjectSubclass for Imp {
                    const NAME: &'static str = $name;
                    type Type = Fake;
                    type ParentType = gst::Element;
                }

                #[glib::derived_properties]
                impl ObjectImpl for Imp {}
                impl GstObjectImpl for Imp {}
                impl ElementImpl for Imp {
                    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                        static METADATA: LazyLock<gst::subclass::ElementMetadata> =
                            LazyLock::new(|| {
                                gst::subclass::ElementMetadata::new(
                                    "Fake",
                                    "Codec/Encoder/Video/Hardware",
                                    "Is not there",
                                    "A test",
                                )
                            });
                        Some(&METADATA)
                    }
                }
            }
        };
    }

    encoder!(quality, QualityOnly, "TestQualityOnlyEnc");
    encoder!(variable, Variable, "TestVariableEnc");

    /// By a name of the table whose element is not installed here.
    pub fn factory(name: &str, kind: glib::Type) -> gst::ElementFactory {
        crate::media::init().unwrap();
        assert!(gst::ElementFactory::find(name).is_none());
        gst::Element::register(None, name, gst::Rank::NONE, kind).unwrap();
        gst::ElementFactory::find(name).unwrap()
    }
}

#[test]
fn a_device_that_keeps_no_bit_rate_is_not_fit() {
    let factory = fake::factory("vah265lpenc", fake::quality::Fake::static_type());
    let error = Tuned::make(&factory, settings(Codec::H265, 1_000_000)).unwrap_err();
    assert_eq!(error, "it keeps no bit rate: it has no rate-control=cbr");
}

#[test]
fn a_device_without_a_constant_bit_rate_gets_a_variable_one_and_a_small_buffer() {
    let factory = fake::factory("vah264lpenc", fake::variable::Fake::static_type());
    let tuned = Tuned::make(&factory, settings(Codec::H264, 1_000_000)).unwrap();
    assert_eq!(
        tuned.element.property::<fake::Variable>("rate-control"),
        fake::Variable::Vbr
    );
    assert_eq!(number(&tuned, "bitrate"), 1000);
    assert_eq!(number(&tuned, "cpb-size"), 500);
    tuned.set_bitrate(300_000);
    assert_eq!(number(&tuned, "cpb-size"), 150, "half a second still");
    assert_eq!(tuned.rate_change(), RateChange::KeyFrame);
    assert_eq!(tuned.output_caps(), None);
}

#[test]
fn a_raspberry_pi_is_asked_for_the_level_that_the_picture_needs() {
    if gst::ElementFactory::find("v4l2h264enc").is_some() {
        return;
    }
    let factory = fake::factory("v4l2h264enc", fake::quality::Fake::static_type());
    let tuned = Tuned::make(&factory, settings(Codec::H264, 500_000)).unwrap();
    let caps = tuned.output_caps().unwrap();
    assert_eq!(caps.to_string(), "video/x-h264, level=(string)3");
    let controls = tuned.element.property::<String>("extra-controls");
    let controls = controls.parse::<gst::Structure>().unwrap();
    for (name, value) in [
        ("video_bitrate_mode", 1),
        ("video_bitrate", 500_000),
        ("video_gop_size", 120),
        ("h264_i_frame_period", 120),
    ] {
        assert_eq!(controls.get::<i32>(name), Ok(value), "{name}");
    }
}
