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

/// How one encoder is set up.
#[derive(Debug)]
pub(super) struct Tuning {
    pub factory: &'static str,
    /// The property for the bit rate.
    pub bitrate: &'static str,
    pub unit: Unit,
    /// A second one that has to follow it.
    pub peak: Option<&'static str>,
    pub set: &'static [(&'static str, &'static str)],
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
];

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

type Set = &'static [(&'static str, &'static str)];

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
    ("cpb-size", "0"),
];

const VAAPI: Set = &[
    ("rate-control", "cbr"),
    ("max-bframes", "0"),
    ("quality-level", "6"),
    ("refs", "1"),
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
];

const VT: Set = &[
    ("realtime", "true"),
    ("allow-frame-reordering", "false"),
    ("rate-control", "cbr"),
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
    ("ref-frames", "1"),
];

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

const X265: Set = &[
    ("tune", "zerolatency"),
    ("speed-preset", "ultrafast"),
    ("option-string", "bframes=0:rc-lookahead=0:scenecut=0"),
];

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

const SVT_AV1: Set = &[
    ("preset", "10"),
    ("intra-refresh-type", "idr"),
    ("parameters-string", "rc=2:pred-struct=1:lookahead=0"),
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

const fn bits(factory: &'static str, bitrate: &'static str, set: Set) -> Tuning {
    Tuning {
        factory,
        bitrate,
        unit: Unit::Bits,
        peak: None,
        set,
    }
}

const fn kilobits(factory: &'static str, bitrate: &'static str, set: Set) -> Tuning {
    Tuning {
        factory,
        bitrate,
        unit: Unit::Kilobits,
        peak: None,
        set,
    }
}

const fn controls(factory: &'static str) -> Tuning {
    Tuning {
        factory,
        bitrate: "extra-controls",
        unit: Unit::Controls,
        peak: None,
        set: NONE,
    }
}

/// The encoders that GStreamer 1.22 to 1.28 ship.
pub(super) const TABLE: &[Tuning] = &[
    kilobits("x264enc", "bitrate", X264),
    Tuning {
        factory: "openh264enc",
        bitrate: "bitrate",
        unit: Unit::Bits,
        peak: Some("max-bitrate"),
        set: OPENH264,
    },
    kilobits("x265enc", "bitrate", X265),
    bits("vp8enc", "target-bitrate", VPX),
    bits("vp9enc", "target-bitrate", VPX),
    kilobits("av1enc", "target-bitrate", AOM),
    kilobits("svtav1enc", "target-bitrate", SVT_AV1),
    bits("rav1enc", "bitrate", RAV1E),
    // NVIDIA.
    kilobits("nvh264enc", "bitrate", NVIDIA),
    kilobits("nvcudah264enc", "bitrate", NVIDIA),
    kilobits("nvd3d11h264enc", "bitrate", NVIDIA),
    kilobits("nvautogpuh264enc", "bitrate", NVIDIA),
    kilobits("nvh265enc", "bitrate", NVIDIA),
    kilobits("nvcudah265enc", "bitrate", NVIDIA),
    kilobits("nvd3d11h265enc", "bitrate", NVIDIA),
    kilobits("nvautogpuh265enc", "bitrate", NVIDIA),
    kilobits("nvav1enc", "bitrate", NVIDIA),
    kilobits("nvcudaav1enc", "bitrate", NVIDIA),
    kilobits("nvd3d11av1enc", "bitrate", NVIDIA),
    kilobits("nvautogpuav1enc", "bitrate", NVIDIA),
    // VA-API, by the plugin va and by its predecessor.
    kilobits("vah264enc", "bitrate", VA),
    kilobits("vah264lpenc", "bitrate", VA),
    kilobits("vah265enc", "bitrate", VA),
    kilobits("vah265lpenc", "bitrate", VA),
    kilobits("vaav1enc", "bitrate", VA),
    kilobits("vaav1lpenc", "bitrate", VA),
    kilobits("vavp8enc", "bitrate", VA),
    kilobits("vavp9enc", "bitrate", VA),
    kilobits("vavp9lpenc", "bitrate", VA),
    kilobits("vaapih264enc", "bitrate", VAAPI),
    kilobits("vaapih265enc", "bitrate", VAAPI),
    kilobits("vaapivp8enc", "bitrate", VAAPI),
    kilobits("vaapivp9enc", "bitrate", VAAPI),
    // Intel.
    kilobits("qsvh264enc", "bitrate", QSV),
    kilobits("qsvh265enc", "bitrate", QSV),
    kilobits("qsvav1enc", "bitrate", QSV),
    kilobits("qsvvp9enc", "bitrate", QSV),
    kilobits("msdkh264enc", "bitrate", MSDK),
    kilobits("msdkh265enc", "bitrate", MSDK),
    kilobits("msdkav1enc", "bitrate", MSDK),
    kilobits("msdkvp9enc", "bitrate", MSDK),
    // Small boards.
    controls("v4l2h264enc"),
    controls("v4l2h265enc"),
    controls("v4l2vp8enc"),
    controls("v4l2vp9enc"),
    bits("omxh264enc", "target-bitrate", OMX),
    bits("omxh265enc", "target-bitrate", OMX),
    // Apple.
    kilobits("vtenc_h264", "bitrate", VT),
    kilobits("vtenc_h264_hw", "bitrate", VT),
    kilobits("vtenc_h265", "bitrate", VT),
    kilobits("vtenc_h265_hw", "bitrate", VT),
    // Windows.
    kilobits("mfh264enc", "bitrate", MF),
    kilobits("mfh265enc", "bitrate", MF),
    kilobits("mfvp9enc", "bitrate", MF),
    kilobits("d3d12h264enc", "bitrate", D3D12),
    kilobits("d3d12h265enc", "bitrate", D3D12),
    kilobits("amfh264enc", "bitrate", AMF),
    kilobits("amfh265enc", "bitrate", AMF),
    kilobits("amfav1enc", "bitrate", AMF),
    // Vulkan.
    kilobits("vulkanh264enc", "bitrate", VULKAN),
    kilobits("vulkanh265enc", "bitrate", VULKAN),
    // Audio.
    bits("opusenc", "bitrate", OPUS),
    bits("avenc_aac", "bitrate", NONE),
    bits("fdkaacenc", "bitrate", NONE),
    bits("voaacenc", "bitrate", NONE),
    bits("faac", "bitrate", NONE),
];

pub(super) fn find(factory: &str) -> Option<&'static Tuning> {
    TABLE.iter().find(|tuning| tuning.factory == factory)
}
