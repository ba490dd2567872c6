//! What each codec needs, from the pad that takes it to the package that decodes it: one row a codec.

use crate::broadcast::MediaKind;

/// Why a stream cannot be published or played, in words for the user.
pub type Reason = String;

/// The codecs that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
    /// AV1.
    Av1,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// Opus.
    Opus,
    /// AAC.
    Aac,
    /// FLAC.
    Flac,
    /// MPEG-1 Audio Layer III.
    Mp3,
}

/// An element that brings a stream into the form that travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parser {
    /// The element's name.
    pub element: &'static str,
    /// The package of Debian and Ubuntu that has it.
    pub package: &'static str,
    /// Properties, and their values.
    pub settings: &'static [(&'static str, &'static str)],
}

/// What a codec needs.
#[derive(Debug)]
struct Row {
    codec: Codec,
    kind: MediaKind,
    /// As people write it.
    title: &'static str,
    /// What its name in a catalog begins with.
    catalog: &'static str,
    /// The stream in whatever form: what a pad that publishes takes, what an encoder gives.
    encoded: &'static str,
    /// What brings it into the form that travels.
    parser: Option<Parser>,
    /// The form that travels.
    wire: &'static str,
    /// The forms that are received: other publishers have more.
    received: &'static str,
    /// The package of Debian and Ubuntu that encodes it.
    encoder_package: &'static str,
    /// The package of Debian and Ubuntu that decodes it.
    decoder_package: &'static str,
}

const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const LIBAV: &str = "gstreamer1.0-libav";

/// Parameter sets with each key frame, so that a viewer can begin at any.
const PARAMETER_SETS: &[(&str, &str)] = &[("config-interval", "-1")];

/// Where one stream fits two rows, as `audio/mpeg` without a version, it is the first.
static TABLE: [Row; 9] = [
    Row {
        codec: Codec::H264,
        kind: MediaKind::Video,
        title: "H.264",
        catalog: "avc3",
        encoded: "video/x-h264",
        parser: Some(Parser {
            element: "h264parse",
            package: BAD,
            settings: PARAMETER_SETS,
        }),
        wire: "video/x-h264,stream-format=(string)byte-stream,alignment=(string)au",
        received: "video/x-h264,stream-format=(string){byte-stream,avc},alignment=(string)au",
        encoder_package: UGLY,
        decoder_package: LIBAV,
    },
    Row {
        codec: Codec::H265,
        kind: MediaKind::Video,
        title: "H.265",
        catalog: "hev1",
        encoded: "video/x-h265",
        parser: Some(Parser {
            element: "h265parse",
            package: BAD,
            settings: PARAMETER_SETS,
        }),
        wire: "video/x-h265,stream-format=(string)byte-stream,alignment=(string)au",
        received: "video/x-h265,stream-format=(string){byte-stream,hvc1},alignment=(string)au",
        encoder_package: BAD,
        decoder_package: LIBAV,
    },
    Row {
        codec: Codec::Av1,
        kind: MediaKind::Video,
        title: "AV1",
        catalog: "av01",
        encoded: "video/x-av1",
        parser: Some(Parser {
            element: "av1parse",
            package: BAD,
            settings: &[],
        }),
        wire: "video/x-av1,stream-format=(string)obu-stream,alignment=(string)tu",
        received: "video/x-av1,stream-format=(string)obu-stream,alignment=(string)tu",
        encoder_package: BAD,
        decoder_package: BAD,
    },
    Row {
        codec: Codec::Vp8,
        kind: MediaKind::Video,
        title: "VP8",
        catalog: "vp8",
        encoded: "video/x-vp8",
        parser: None,
        wire: "video/x-vp8",
        received: "video/x-vp8",
        encoder_package: GOOD,
        decoder_package: GOOD,
    },
    Row {
        codec: Codec::Vp9,
        kind: MediaKind::Video,
        title: "VP9",
        catalog: "vp09",
        encoded: "video/x-vp9",
        parser: Some(Parser {
            element: "vp9parse",
            package: BAD,
            settings: &[],
        }),
        wire: "video/x-vp9,alignment=(string)super-frame",
        received: "video/x-vp9",
        encoder_package: GOOD,
        decoder_package: GOOD,
    },
    Row {
        codec: Codec::Opus,
        kind: MediaKind::Audio,
        title: "Opus",
        catalog: "opus",
        encoded: "audio/x-opus",
        parser: None,
        wire: "audio/x-opus",
        received: "audio/x-opus",
        encoder_package: BASE,
        decoder_package: BASE,
    },
    Row {
        codec: Codec::Aac,
        kind: MediaKind::Audio,
        title: "AAC",
        catalog: "mp4a.40",
        encoded: "audio/mpeg,mpegversion=(int){2,4}",
        parser: Some(Parser {
            element: "aacparse",
            package: GOOD,
            settings: &[],
        }),
        wire: "audio/mpeg,mpegversion=(int){2,4},stream-format=(string)raw,framed=(boolean)true",
        received: "audio/mpeg,mpegversion=(int)4,stream-format=(string)raw,framed=(boolean)true",
        encoder_package: BAD,
        decoder_package: LIBAV,
    },
    Row {
        codec: Codec::Flac,
        kind: MediaKind::Audio,
        title: "FLAC",
        catalog: "flac",
        encoded: "audio/x-flac",
        parser: Some(Parser {
            element: "flacparse",
            package: GOOD,
            settings: &[],
        }),
        wire: "audio/x-flac,framed=(boolean)true",
        received: "audio/x-flac,framed=(boolean)true",
        encoder_package: GOOD,
        decoder_package: GOOD,
    },
    Row {
        codec: Codec::Mp3,
        kind: MediaKind::Audio,
        title: "MP3",
        catalog: "mp3",
        encoded: "audio/mpeg,mpegversion=(int)1,layer=(int)3",
        parser: Some(Parser {
            element: "mpegaudioparse",
            package: GOOD,
            settings: &[],
        }),
        wire: "audio/mpeg,mpegversion=(int)1,layer=(int)3,parsed=(boolean)true",
        received: "audio/mpeg,mpegversion=(int)1,layer=(int)3,parsed=(boolean)true",
        encoder_package: GOOD,
        decoder_package: GOOD,
    },
];

impl Codec {
    /// What an encoded stream carries.
    ///
    /// # Errors
    /// A sentence that names the mend.
    pub fn of(caps: &gst::CapsRef) -> Result<Self, Reason> {
        let Some(structure) = caps.structure(0) else {
            return Err("no caps: link an encoder or a parser to this pad".into());
        };
        match structure.name().as_str() {
            "video/x-raw" => {
                return Err(
                    "raw video cannot be published yet: put an encoder before the pad, \
                     for example `! videoconvert ! x264enc tune=zerolatency !`"
                        .into(),
                );
            }
            "audio/x-raw" => {
                return Err(
                    "raw audio cannot be published yet: put an encoder before the pad, \
                     for example `! audioconvert ! audioresample ! opusenc !`"
                        .into(),
                );
            }
            _ => {}
        }
        let mut first = gst::Caps::new_empty();
        first.make_mut().append_structure(structure.to_owned());
        TABLE
            .iter()
            .find(|row| first.can_intersect(&caps_of(row.encoded)))
            .map(|row| row.codec)
            .ok_or_else(|| format!("{first} cannot be published"))
    }

    fn row(self) -> &'static Row {
        match self {
            Self::H264 => &TABLE[0],
            Self::H265 => &TABLE[1],
            Self::Av1 => &TABLE[2],
            Self::Vp8 => &TABLE[3],
            Self::Vp9 => &TABLE[4],
            Self::Opus => &TABLE[5],
            Self::Aac => &TABLE[6],
            Self::Flac => &TABLE[7],
            Self::Mp3 => &TABLE[8],
        }
    }

    /// Whether it is for pictures or for sound.
    pub fn kind(self) -> MediaKind {
        self.row().kind
    }

    /// Whether it is a video codec.
    pub fn is_video(self) -> bool {
        self.kind() == MediaKind::Video
    }

    /// As people write it: `H.264`.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// What its name in a catalog begins with: `avc3`.
    pub(super) fn catalog_name(self) -> &'static str {
        self.row().catalog
    }

    /// Caps of an encoded stream in whatever form.
    pub fn encoded_caps(self) -> gst::Caps {
        caps_of(self.row().encoded)
    }

    /// Caps of the form that travels, which the [`parser`](Self::parser) makes.
    pub fn wire_caps(self) -> gst::Caps {
        caps_of(self.row().wire)
    }

    /// The parser that brings a stream into the form that travels; none where it has that form already.
    pub fn parser(self) -> Option<Parser> {
        self.row().parser
    }

    /// The package of Debian and Ubuntu that encodes it.
    pub fn encoder_package(self) -> &'static str {
        self.row().encoder_package
    }

    /// The package of Debian and Ubuntu that decodes it.
    pub fn decoder_package(self) -> &'static str {
        self.row().decoder_package
    }
}

/// What can be published, raw media among it: for the template of a sink pad.
pub fn sink_caps(kind: MediaKind) -> gst::Caps {
    let mut caps = join(kind, |row| row.encoded);
    caps.merge(caps_of(match kind {
        MediaKind::Video => "video/x-raw(ANY)",
        MediaKind::Audio => "audio/x-raw(ANY)",
    }));
    caps
}

/// What can be received: for the template of a source pad.
pub fn src_caps(kind: MediaKind) -> gst::Caps {
    join(kind, |row| row.received)
}

fn join(kind: MediaKind, column: fn(&Row) -> &'static str) -> gst::Caps {
    TABLE
        .iter()
        .filter(|row| row.kind == kind)
        .fold(gst::Caps::new_empty(), |mut caps, row| {
            caps.merge(caps_of(column(row)));
            caps
        })
}

fn caps_of(text: &str) -> gst::Caps {
    // A test parses all of them.
    text.parse().unwrap_or_else(|_| gst::Caps::new_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_codec_has_a_row_whose_caps_agree() {
        gst::init().unwrap();
        for row in &TABLE {
            assert!(std::ptr::eq(row.codec.row(), row), "each its own row");
            let encoded = caps_of(row.encoded);
            let received = caps_of(row.received);
            let wire = row.codec.wire_caps();
            assert!(!encoded.is_empty() && !received.is_empty() && !wire.is_empty());
            assert_eq!(Codec::of(&wire), Ok(row.codec), "{wire}");
            assert_eq!(Codec::of(&received), Ok(row.codec), "{received}");
            assert!(wire.is_subset(&encoded), "{wire}");
            assert!(wire.can_intersect(&received), "{wire}");
            assert!(sink_caps(row.kind).can_intersect(&encoded), "{encoded}");
            assert!(src_caps(row.kind).can_intersect(&wire), "{wire}");
            if let Some(parser) = row.parser {
                let factory = gst::ElementFactory::find(parser.element).expect("installed");
                assert!(factory.can_sink_any_caps(&encoded), "{parser:?}");
                assert!(factory.can_src_any_caps(&wire), "{parser:?}");
            }
        }
    }

    #[test]
    fn a_stream_is_known_by_its_caps() {
        gst::init().unwrap();
        let of = |caps: &str| Codec::of(&caps.parse::<gst::Caps>().unwrap());
        assert_eq!(of("audio/mpeg"), Ok(Codec::Aac), "no version");
        assert_eq!(of("audio/mpeg,mpegversion=2"), Ok(Codec::Aac));
        assert_eq!(of("audio/mpeg,mpegversion=1"), Ok(Codec::Mp3), "no layer");
        assert_eq!(
            of("audio/mpeg,mpegversion=1,layer=2"),
            Err("audio/mpeg, mpegversion=(int)1, layer=(int)2 cannot be published".into())
        );
        assert!(of("video/x-theora").is_err());
        assert!(of("video/x-raw").unwrap_err().contains("videoconvert"));
        assert!(of("audio/x-raw").unwrap_err().contains("opusenc"));
        assert!(Codec::of(gst::Caps::new_empty().as_ref()).is_err());
    }
}
