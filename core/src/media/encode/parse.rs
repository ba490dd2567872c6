//! The end of a pipeline that publishes: a parser where the codec needs one, and an appsink.

use crate::media::{caps::Codec, element::set};

/// A parser is not installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the element {element} is missing: install the package {package}")]
pub struct MissingParser {
    /// The element's name.
    pub element: &'static str,
    /// The package of Debian and Ubuntu that has it.
    pub package: &'static str,
}

/// An appsink for encoded media that is to be sent: it waits for nothing and keeps nothing.
pub fn encoded_sink() -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder()
        // Without data it must not keep the pipeline from starting.
        .async_(false)
        .sync(false)
        .enable_last_sample(false)
        .qos(false)
        .build();
    // Video from before the segment is what later frames refer to.
    sink.set_drop_out_of_segment(false);
    sink
}

/// Makes the parser that brings a stream into the form that travels, to be linked before `sink`, which then takes that
/// form only; none where the codec needs none.
///
/// # Errors
/// [`MissingParser`].
pub fn parser(
    codec: Codec,
    sink: &gst_app::AppSink,
) -> Result<Option<gst::Element>, MissingParser> {
    let Some(needed) = codec.parser() else {
        sink.set_caps(None);
        return Ok(None);
    };
    let parser = gst::ElementFactory::make(needed.element)
        .build()
        .map_err(|_| MissingParser {
            element: needed.element,
            package: needed.package,
        })?;
    for (name, value) in needed.settings {
        set(&parser, name, value);
    }
    sink.set_caps(Some(&codec.wire_caps()));
    Ok(Some(parser))
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;

    use super::*;

    #[test]
    fn a_parser_that_is_missing_is_named_with_its_package() {
        let package = |codec: Codec| codec.parser().map(|parser| parser.package);
        assert_eq!(package(Codec::H264), Some("gstreamer1.0-plugins-bad"));
        assert_eq!(package(Codec::Aac), Some("gstreamer1.0-plugins-good"));
        let missing = MissingParser {
            element: "h264parse",
            package: package(Codec::H264).unwrap(),
        };
        assert!(missing.to_string().ends_with("gstreamer1.0-plugins-bad"));
    }

    #[test]
    fn a_parser_sends_parameter_sets_with_each_key_frame() {
        gst::init().unwrap();
        let sink = encoded_sink();
        for codec in [Codec::H264, Codec::H265] {
            let parser = parser(codec, &sink).unwrap().unwrap();
            assert_eq!(parser.property::<i32>("config-interval"), -1);
            assert_eq!(sink.caps().unwrap(), codec.wire_caps());
        }
        assert_eq!(parser(Codec::Vp8, &sink), Ok(None));
        assert_eq!(sink.caps(), None, "the form of another codec is forgotten");
    }
}
