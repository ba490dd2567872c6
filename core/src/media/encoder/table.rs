//! What each encoder is told, so that a picture leaves it as soon as it went in.
//!
//! A property is set where the element has it, so one line serves several releases; where a value changed its name,
//! both are there. All of them: no B-frames, no look-ahead, constant bit rate, key frames when they are asked for.

/// In what an encoder counts its bit rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Bits a second.
    Bits,
    /// Thousands of bits a second.
    Kilobits,
    /// Bits a second, in a structure of V4L2 controls.
    Controls,
}

/// What it costs to change the bit rate of an encoder that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) enum RateChange {
    /// Nothing.
    Seamless,
    /// The encoder starts anew, with a key frame.
    KeyFrame,
    /// It cannot be changed: another encoder has to take over.
    Rebuild,
}

/// How a property follows the bit rate.
#[derive(Debug, Clone, Copy)]
pub(super) enum Follow {
    /// It is the same: a ceiling that stayed where it was would be a floor.
    Same,
    /// It is what is sent in so many milliseconds, in the same unit without its second.
    Buffer(u64),
    /// It is a text that has bits a second in it.
    Text(fn(u64) -> String),
}

/// How one encoder is set up.
#[derive(Debug)]
pub(super) struct Tuning {
    /// The element's name, or what it begins with where this ends with a star.
    pub factory: &'static str,
    /// Whether it is a device that is known to be good, whatever rank its plugin gave it.
    pub hardware: bool,
    /// The property for the bit rate.
    pub bitrate: &'static str,
    pub unit: Unit,
    /// Properties that follow it.
    pub follow: &'static [(&'static str, Follow)],
    pub change: RateChange,
    /// An element before it, where it does not take the computer's own memory.
    pub upload: Option<&'static str>,
    /// Whether the level has to be asked for in the caps behind it: it takes the lowest otherwise.
    pub level: bool,
    pub set: Set,
}

impl Tuning {
    const fn new(factory: &'static str, bitrate: &'static str, unit: Unit, set: Set) -> Self {
        Self {
            factory,
            hardware: false,
            bitrate,
            unit,
            follow: &[],
            change: RateChange::Seamless,
            upload: None,
            level: false,
            set,
        }
    }

    const fn device(mut self) -> Self {
        self.hardware = true;
        self
    }

    const fn follows(mut self, follow: &'static [(&'static str, Follow)]) -> Self {
        self.follow = follow;
        self
    }

    const fn change(mut self, change: RateChange) -> Self {
        self.change = change;
        self
    }

    const fn behind(mut self, upload: &'static str) -> Self {
        self.upload = Some(upload);
        self
    }
}

/// Properties for the distance of key frames, in frames. No element has two of them that mean something else.
pub(super) const KEYFRAME_DISTANCE: &[&str] = &[
    "key-int-max",
    "gop-size",
    "keyframe-max-dist",
    "keyframe-period",
    "max-keyframe-interval",
    "intra-period-length",
    "max-key-frame-interval",
    "interval-intraframes",
    "idr-period",
    "iframeinterval",
    "idrinterval",
    "gop",
];

/// Properties that say how the bit rate is kept. An encoder that has one and takes none of these knows no bit rate, as a
/// device that only has a constant quality.
pub(super) const RATE_CONTROL: (&[&str], &[&str]) = (
    &["rate-control", "rc-mode", "control-rate", "end-usage"],
    &[
        "cbr",
        "constant",
        "constant_bitrate",
        "bitrate",
        "vbr",
        "variable",
    ],
);

/// For encoders that are not in the table.
pub(super) const USUAL: Set = &[
    ("bframes", "0"),
    ("b-frames", "0"),
    ("max-bframes", "0"),
    ("rate-control", "cbr"),
    ("rc-mode", "cbr"),
    ("low-latency", "true"),
    ("zerolatency", "true"),
    ("lag-in-frames", "0"),
    ("tune", "zerolatency"),
];

pub(super) type Set = &'static [(&'static str, &'static str)];

const NVIDIA: Set = &[
    // Up to 1.22, then since 1.24.
    ("preset", "low-latency-hq"),
    ("preset", "p4"),
    ("tune", "ultra-low-latency"),
    ("zerolatency", "true"),
    ("zero-reorder-delay", "true"),
    ("rc-mode", "cbr"),
    ("rate-control", "cbr"),
    ("bframes", "0"),
    ("b-frames", "0"),
    ("b-adapt", "false"),
    ("rc-lookahead", "0"),
    ("strict-gop", "true"),
    ("repeat-sequence-header", "true"),
    ("multi-pass", "disabled"),
];

const VA: Set = &[
    ("rate-control", "cbr"),
    ("b-frames", "0"),
    ("target-usage", "6"),
    ("ref-frames", "1"),
    ("hierarchical-level", "1"),
    ("mbbrc", "disabled"),
];

const VAAPI: Set = &[
    ("rate-control", "cbr"),
    ("max-bframes", "0"),
    ("quality-level", "6"),
    ("refs", "1"),
    // Milliseconds.
    ("cpb-length", "500"),
];

const QSV: Set = &[
    ("rate-control", "cbr"),
    ("low-latency", "true"),
    ("b-frames", "0"),
    ("ref-frames", "1"),
    ("target-usage", "6"),
    ("rc-lookahead", "0"),
];

const MSDK: Set = &[
    ("rate-control", "cbr"),
    ("b-frames", "0"),
    ("async-depth", "1"),
    ("ref-frames", "1"),
    ("target-usage", "6"),
    ("rc-lookahead", "0"),
    ("hardware", "true"),
    ("lowdelay-brc", "on"),
];

const VT: Set = &[
    ("realtime", "true"),
    ("allow-frame-reordering", "false"),
    ("rate-control", "cbr"),
    ("max-frame-delay", "0"),
];

const MF: Set = &[
    ("low-latency", "true"),
    ("rc-mode", "cbr"),
    ("bframes", "0"),
    ("quality-vs-speed", "33"),
];

const AMF: Set = &[
    ("usage", "ultra-low-latency"),
    ("rate-control", "cbr"),
    ("preset", "speed"),
    ("b-frames", "0"),
    ("pre-encode", "false"),
    ("pa-lookahead-buffer-depth", "0"),
];

const D3D12: Set = &[
    ("rate-control", "cbr"),
    ("b-frames", "0"),
    ("ref-frames", "1"),
];

const VULKAN: Set = &[
    ("rate-control", "cbr"),
    ("b-frames", "0"),
    ("num-ref-frames", "1"),
];

/// Rockchip.
const MPP: Set = &[("rc-mode", "cbr"), ("header-mode", "each-idr")];

/// NVIDIA Jetson.
const JETSON: Set = &[
    ("control-rate", "constant_bitrate"),
    ("insert-sps-pps", "true"),
    ("maxperf-enable", "true"),
    ("num-B-Frames", "0"),
    ("preset-level", "UltraFastPreset"),
];

/// Android. The distance of key frames is in seconds.
const ANDROID: Set = &[("i-frame-interval", "4")];

const OMX: Set = &[("control-rate", "constant"), ("b-frames", "0")];

const VPX: Set = &[
    ("deadline", "1"),
    ("cpu-used", "8"),
    ("lag-in-frames", "0"),
    ("end-usage", "cbr"),
    ("threads", "4"),
    ("token-partitions", "4"),
    ("row-mt", "true"),
    ("tile-columns", "2"),
    ("aq-mode", "cyclic-refresh"),
    ("auto-alt-ref", "false"),
    ("buffer-initial-size", "500"),
    ("buffer-optimal-size", "600"),
    ("buffer-size", "1000"),
    ("undershoot", "100"),
    ("overshoot", "15"),
    ("max-quantizer", "56"),
    ("static-threshold", "1"),
    // Of what a frame has on average, percent.
    ("max-intra-bitrate", "250"),
    ("dropframe-threshold", "30"),
];

const X264: Set = &[
    ("tune", "zerolatency"),
    ("speed-preset", "veryfast"),
    ("bframes", "0"),
    ("vbv-buf-capacity", "300"),
    ("rc-lookahead", "0"),
    ("mb-tree", "false"),
];

const OPENH264: Set = &[
    ("usage-type", "camera"),
    ("rate-control", "bitrate"),
    ("complexity", "low"),
    ("scene-change-detection", "false"),
];

const X265: Set = &[("tune", "zerolatency"), ("speed-preset", "ultrafast")];

/// The buffer is read when the encoder begins.
fn x265_options(bitrate: u64) -> String {
    let (rate, buffer) = ((bitrate / 1000).max(1), (bitrate * 3 / 10_000).max(1));
    format!("bframes=0:rc-lookahead=0:scenecut=0:vbv-maxrate={rate}:vbv-bufsize={buffer}")
}

const AOM: Set = &[
    ("usage-profile", "realtime"),
    ("end-usage", "cbr"),
    ("cpu-used", "8"),
    ("lag-in-frames", "0"),
    ("row-mt", "true"),
    ("tile-columns", "1"),
    ("threads", "4"),
    ("buf-initial-sz", "600"),
    ("buf-optimal-sz", "600"),
    ("buf-sz", "1000"),
    // Left at the element's default, which is 0, the library aborts the process when it cannot reach the rate.
    ("max-quantizer", "56"),
    ("min-quantizer", "2"),
];

/// With a bit rate to hold it ignores requests for key frames: so it holds a quality, up to a bit rate.
const SVT_AV1: Set = &[
    ("preset", "10"),
    ("intra-refresh-type", "idr"),
    ("crf", "35"),
    ("parameters-string", "rc=0:pred-struct=1:lookahead=0"),
];

const RAV1E: Set = &[
    ("speed-preset", "10"),
    ("low-latency", "true"),
    ("rdo-lookahead-frames", "1"),
];

const OPUS: Set = &[
    ("bitrate-type", "constrained-vbr"),
    ("frame-size", "20"),
    ("dtx", "true"),
];

const NONE: Set = &[];

const VBV: &[(&str, Follow)] = &[("vbv-buffer-size", Follow::Buffer(300))];
const CPB: &[(&str, Follow)] = &[("cpb-size", Follow::Buffer(500))];

const fn bits(factory: &'static str, bitrate: &'static str, set: Set) -> Tuning {
    Tuning::new(factory, bitrate, Unit::Bits, set)
}

const fn kilobits(factory: &'static str, bitrate: &'static str, set: Set) -> Tuning {
    Tuning::new(factory, bitrate, Unit::Kilobits, set)
}

const fn device(factory: &'static str, set: Set) -> Tuning {
    kilobits(factory, "bitrate", set).device()
}

const fn nvidia(factory: &'static str) -> Tuning {
    device(factory, NVIDIA).follows(VBV)
}

const fn va(factory: &'static str) -> Tuning {
    device(factory, VA)
        .follows(CPB)
        .change(RateChange::KeyFrame)
}

const fn msdk(factory: &'static str) -> Tuning {
    device(factory, MSDK).change(RateChange::KeyFrame)
}

const fn controls(factory: &'static str, level: bool) -> Tuning {
    let mut tuning = Tuning::new(factory, "extra-controls", Unit::Controls, NONE).device();
    tuning.level = level;
    tuning
}

/// The encoders that GStreamer 1.22 to 1.28 and the makers of some boards ship. Of two devices of one rank the first is
/// the better.
pub(super) const TABLE: &[Tuning] = &[
    kilobits("x264enc", "bitrate", X264),
    bits("openh264enc", "bitrate", OPENH264).follows(&[("max-bitrate", Follow::Same)]),
    kilobits("x265enc", "bitrate", X265)
        .follows(&[("option-string", Follow::Text(x265_options))])
        .change(RateChange::Rebuild),
    bits("vp8enc", "target-bitrate", VPX),
    bits("vp9enc", "target-bitrate", VPX),
    kilobits("av1enc", "target-bitrate", AOM),
    kilobits("svtav1enc", "max-bitrate", SVT_AV1).change(RateChange::Rebuild),
    bits("rav1enc", "bitrate", RAV1E).change(RateChange::Rebuild),
    // NVIDIA.
    nvidia("nvautogpuh264enc"),
    nvidia("nvcudah264enc"),
    nvidia("nvd3d11h264enc"),
    nvidia("nvh264enc"),
    nvidia("nvautogpuh265enc"),
    nvidia("nvcudah265enc"),
    nvidia("nvd3d11h265enc"),
    nvidia("nvh265enc"),
    nvidia("nvautogpuav1enc"),
    nvidia("nvcudaav1enc"),
    nvidia("nvd3d11av1enc"),
    nvidia("nvav1enc"),
    // Intel.
    device("qsvh264enc", QSV),
    device("qsvh265enc", QSV),
    device("qsvav1enc", QSV),
    device("qsvvp9enc", QSV),
    // VA-API.
    va("vah264enc"),
    va("vah264lpenc"),
    va("vah265enc"),
    va("vah265lpenc"),
    va("vaav1enc"),
    va("vaav1lpenc"),
    va("vavp8enc"),
    va("vavp9enc"),
    va("vavp9lpenc"),
    // What came before those two.
    msdk("msdkh264enc"),
    msdk("msdkh265enc"),
    msdk("msdkav1enc"),
    msdk("msdkvp9enc"),
    device("vaapih264enc", VAAPI),
    device("vaapih265enc", VAAPI),
    device("vaapivp8enc", VAAPI),
    device("vaapivp9enc", VAAPI),
    // Small boards.
    controls("v4l2h264enc", true),
    controls("v4l2h265enc", true),
    controls("v4l2vp8enc", false),
    controls("v4l2vp9enc", false),
    bits("mpph264enc", "bps", MPP).device(),
    bits("mpph265enc", "bps", MPP).device(),
    bits("mppvp8enc", "bps", MPP).device(),
    bits("nvv4l2h264enc", "bitrate", JETSON)
        .device()
        .behind("nvvidconv"),
    bits("nvv4l2h265enc", "bitrate", JETSON)
        .device()
        .behind("nvvidconv"),
    bits("omxh264enc", "target-bitrate", OMX).device(),
    bits("omxh265enc", "target-bitrate", OMX).device(),
    device("vpuenc_h264", NONE),
    device("vpuenc_hevc", NONE),
    device("vpuenc_vp8", NONE),
    // Android: the rest of the name is that of the device.
    bits("amcvidenc-*", "bitrate", ANDROID).device(),
    // Apple.
    device("vtenc_h264_hw", VT),
    device("vtenc_h265_hw", VT),
    device("vtenc_h264", VT),
    device("vtenc_h265", VT),
    // Windows.
    device("amfh264enc", AMF),
    device("amfh265enc", AMF),
    device("amfav1enc", AMF),
    device("d3d12h264enc", D3D12),
    device("d3d12h265enc", D3D12),
    device("mfh264enc", MF),
    device("mfh265enc", MF),
    device("mfvp9enc", MF),
    // Vulkan.
    device("vulkanh264enc", VULKAN).behind("vulkanupload"),
    device("vulkanh265enc", VULKAN).behind("vulkanupload"),
    // Audio.
    bits("opusenc", "bitrate", OPUS),
    bits("avenc_aac", "bitrate", NONE),
    bits("fdkaacenc", "bitrate", NONE),
    bits("voaacenc", "bitrate", NONE),
    bits("faac", "bitrate", NONE),
];

/// The row for an element, and its place.
pub(super) fn find(factory: &str) -> Option<(usize, &'static Tuning)> {
    TABLE
        .iter()
        .enumerate()
        .find(|(_, tuning)| match tuning.factory.strip_suffix('*') {
            Some(start) => factory.starts_with(start),
            None => tuning.factory == factory,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_has_one_row() {
        for (place, tuning) in TABLE.iter().enumerate() {
            assert_eq!(find(tuning.factory).unwrap().0, place, "{}", tuning.factory);
        }
        let (_, android) = find("amcvidenc-omxqcomvideoencoderavc").unwrap();
        assert!(android.hardware);
        assert!(find("nosuchenc").is_none());
    }

    #[test]
    fn the_buffer_of_x265_follows_the_bit_rate() {
        let options = x265_options(1_000_000);
        assert!(
            options.ends_with(":vbv-maxrate=1000:vbv-bufsize=300"),
            "{options}"
        );
    }
}
