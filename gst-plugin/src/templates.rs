//! What the pads of the elements take and give.

/// What the video pads of the sink take.
pub(crate) fn video_sink_caps() -> gst::Caps {
    caps(&[
        "video/x-h264",
        "video/x-h265",
        "video/x-av1",
        "video/x-vp8",
        "video/x-vp9",
        "video/x-raw(ANY)",
    ])
}

/// What the audio pads of the sink take.
pub(crate) fn audio_sink_caps() -> gst::Caps {
    caps(&[
        "audio/x-opus",
        "audio/mpeg,mpegversion=(int){2,4}",
        "audio/mpeg,mpegversion=(int)1,layer=(int)3",
        "audio/x-flac",
        "audio/x-raw(ANY)",
    ])
}

/// What the video pads of the source give.
pub(crate) fn video_src_caps() -> gst::Caps {
    caps(&[
        "video/x-h264,stream-format=(string){byte-stream,avc},alignment=(string)au",
        "video/x-h265,stream-format=(string){byte-stream,hvc1},alignment=(string)au",
        "video/x-av1,stream-format=(string)obu-stream,alignment=(string)tu",
        "video/x-vp8",
        "video/x-vp9",
    ])
}

/// What the audio pads of the source give.
pub(crate) fn audio_src_caps() -> gst::Caps {
    caps(&[
        "audio/x-opus",
        "audio/mpeg,mpegversion=(int)4,stream-format=(string)raw,framed=(boolean)true",
        "audio/mpeg,mpegversion=(int)1,layer=(int)3,parsed=(boolean)true",
        "audio/x-flac,framed=(boolean)true",
    ])
}

fn caps(structures: &[&str]) -> gst::Caps {
    structures
        .join(";")
        .parse()
        .expect("the caps above are well-formed")
}
