//! Every codec across two processes: what an encoder gave is, bit for bit, what a decoder gets, and the decoder takes it
//! as it comes, with no parser between.

use std::fs;

use iroh_live_tests::{
    LOCAL, Process,
    media::{NalKind, annex_b, annexb_obus, files, length_prefixed, obus, position, without_adts},
    start,
};

/// How many frames have to arrive, and how many each decoder has to give.
const FRAMES: usize = 60;
const DECODED: usize = 30;

/// The parts of a buffer that have to arrive as they were.
type Parts = fn(&[u8]) -> Vec<&[u8]>;

struct Case<'a> {
    /// From a live source to the encoded stream.
    source: &'a str,
    /// A filter for the viewer's pad: what its caps have to be at least.
    caps: &'a str,
    /// The same for what the decoders give.
    raw: &'a str,
    /// Decoders that are linked straight to the viewer's pad, one after the other.
    decoders: &'a [&'a str],
    sent: Parts,
    received: Parts,
}

const VIDEO: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=30/1";
const RAW_VIDEO: &str = "video/x-raw,width=160,height=120,framerate=30/1";

fn whole_buffer(buffer: &[u8]) -> Vec<&[u8]> {
    vec![buffer]
}

fn content(units: Vec<&[u8]>, kind: fn(&[u8]) -> NalKind) -> Vec<&[u8]> {
    let is_content = |unit: &&[u8]| kind(unit) == NalKind::Content;
    units.into_iter().filter(is_content).collect()
}

fn h264_units(buffer: &[u8]) -> Vec<&[u8]> {
    content(annex_b(buffer), NalKind::h264)
}

fn h264_avc_units(buffer: &[u8]) -> Vec<&[u8]> {
    content(length_prefixed(buffer), NalKind::h264)
}

fn h265_units(buffer: &[u8]) -> Vec<&[u8]> {
    content(annex_b(buffer), NalKind::h265)
}

fn h265_hvc1_units(buffer: &[u8]) -> Vec<&[u8]> {
    content(length_prefixed(buffer), NalKind::h265)
}

fn behind_adts(buffer: &[u8]) -> Vec<&[u8]> {
    vec![without_adts(buffer)]
}

/// Publishes in one process, watches in another, and compares. Gives what each decoder made of the frames.
fn travels_unaltered(case: &Case<'_>) -> Vec<Vec<Vec<u8>>> {
    let test = start();
    let store = |name: &str| {
        fs::create_dir(test.path(name)).expect("the test's folder can be written");
        format!(
            "multifilesink name={name} location={}/%06d async=false",
            test.file(name)
        )
    };
    let mut publisher = Process::launch(
        &test,
        "publisher",
        &format!(
            "{source} ! tee name=t ! queue ! {sent}  t. ! queue ! irohlivesink name=stream {LOCAL} \
             bind-address=127.0.0.1:0 ticket-location={ticket}",
            source = case.source,
            sent = store("sent"),
            ticket = test.file("ticket"),
        ),
    );
    let ticket = publisher.ticket(&test.file("ticket"));

    // A busy machine may be late, but that is not to make the viewer skip anything.
    let watch = format!("irohlivesrc ticket={ticket} {LOCAL} latency=10000");
    let mut description = format!("{watch} ! {} ! {}", case.caps, store("received"));
    for (n, decoder) in case.decoders.iter().enumerate() {
        let store = store(&format!("decoded{n}"));
        description += &format!("  {watch} ! {decoder} ! {} ! {store}", case.raw);
    }
    let mut viewer = Process::launch(&test, "viewer", &description);
    let wait_files = |process: &mut Process, name: &str, count: usize| {
        process.wait(&format!("{count} frames {name}"), || {
            let found = files(&test.path(name));
            (found.len() >= count).then_some(found)
        })
    };
    let received = wait_files(&mut viewer, "received", FRAMES);
    let decoded: Vec<_> = (0..case.decoders.len())
        .map(|n| wait_files(&mut viewer, &format!("decoded{n}"), DECODED))
        .collect();
    // What was sent is written in a thread of its own, which may be a little behind.
    let written = files(&test.path("sent")).len();
    let sent = wait_files(&mut publisher, "sent", written + 5);

    let sent: Vec<_> = sent.iter().flat_map(|buffer| (case.sent)(buffer)).collect();
    let units: Vec<_> = received
        .iter()
        .map(|buffer| (case.received)(buffer))
        .collect();
    assert!(
        units.iter().all(|units| !units.is_empty()),
        "a frame has nothing in it"
    );
    position(&sent, &units.concat());
    decoded
}

/// The same for video whose decoders give a picture of 160x120 in I420.
fn pictures_travel_unaltered(case: &Case<'_>) {
    for picture in travels_unaltered(case).into_iter().flatten() {
        assert_eq!(picture.len(), 160 * 120 * 3 / 2);
    }
}

#[test]
fn h264_byte_stream() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x264enc tune=zerolatency key-int-max=30 ! video/x-h264,stream-format=byte-stream,alignment=au"
        ),
        caps: "video/x-h264,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h264", "openh264dec"],
        sent: h264_units,
        received: h264_units,
    });
}

#[test]
fn h264_byte_stream_in_single_nal_units() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x264enc tune=zerolatency key-int-max=30 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=nal"
        ),
        caps: "video/x-h264,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h264"],
        sent: h264_units,
        received: h264_units,
    });
}

#[test]
fn h264_avc() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x264enc tune=zerolatency key-int-max=30 ! video/x-h264,stream-format=avc"
        ),
        caps: "video/x-h264,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h264", "openh264dec"],
        sent: h264_avc_units,
        received: h264_units,
    });
}

#[test]
fn h264_avc3() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x264enc tune=zerolatency key-int-max=30 ! h264parse config-interval=-1 ! video/x-h264,stream-format=avc3,alignment=au"
        ),
        caps: "video/x-h264,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h264"],
        sent: h264_avc_units,
        received: h264_units,
    });
}

#[test]
fn h264_with_b_frames() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x264enc bframes=3 b-adapt=false rc-lookahead=5 key-int-max=30 ! video/x-h264,stream-format=byte-stream,profile=high"
        ),
        caps: "video/x-h264,stream-format=byte-stream,alignment=au,profile=high,width=160,height=120",
        raw: RAW_VIDEO,
        decoders: &["avdec_h264"],
        sent: h264_units,
        received: h264_units,
    });
}

#[test]
fn h265_byte_stream() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! video/x-h265,stream-format=byte-stream"
        ),
        caps: "video/x-h265,stream-format=byte-stream,alignment=au,profile=main,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h265"],
        sent: h265_units,
        received: h265_units,
    });
}

#[test]
fn h265_with_b_frames() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x265enc speed-preset=ultrafast key-int-max=30 option-string=bframes=3:rc-lookahead=5 ! video/x-h265,stream-format=byte-stream"
        ),
        caps: "video/x-h265,stream-format=byte-stream,alignment=au,width=160,height=120",
        raw: RAW_VIDEO,
        decoders: &["avdec_h265"],
        sent: h265_units,
        received: h265_units,
    });
}

#[test]
fn h265_hvc1() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! h265parse ! video/x-h265,stream-format=hvc1"
        ),
        caps: "video/x-h265,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h265"],
        sent: h265_hvc1_units,
        received: h265_units,
    });
}

#[test]
fn h265_hev1() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! h265parse config-interval=-1 ! video/x-h265,stream-format=hev1"
        ),
        caps: "video/x-h265,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h265"],
        sent: h265_hvc1_units,
        received: h265_units,
    });
}

#[test]
fn h265_in_single_nal_units() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! h265parse ! video/x-h265,stream-format=byte-stream,alignment=nal"
        ),
        caps: "video/x-h265,stream-format=byte-stream,alignment=au,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["avdec_h265"],
        sent: h265_units,
        received: h265_units,
    });
}

const AV1: &str =
    "av1enc cpu-used=8 usage-profile=realtime lag-in-frames=0 keyframe-max-dist=30 threads=1";

fn av1_travels_unaltered(form: &str, sent: Parts) {
    pictures_travel_unaltered(&Case {
        source: &format!("{VIDEO} ! {AV1} {form}"),
        caps: "video/x-av1,stream-format=obu-stream,alignment=tu,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["av1dec"],
        sent,
        received: obus,
    });
}

#[test]
fn av1() {
    av1_travels_unaltered("", obus);
}

#[test]
fn av1_in_single_obus() {
    av1_travels_unaltered(
        "! av1parse ! video/x-av1,stream-format=obu-stream,alignment=obu",
        obus,
    );
}

#[test]
fn av1_in_annex_b() {
    av1_travels_unaltered(
        "! av1parse ! video/x-av1,stream-format=annexb,alignment=tu",
        annexb_obus,
    );
}

#[test]
fn vp8() {
    pictures_travel_unaltered(&Case {
        source: &format!("{VIDEO} ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=30"),
        caps: "video/x-vp8,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["vp8dec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn vp9() {
    pictures_travel_unaltered(&Case {
        source: &format!("{VIDEO} ! vp9enc deadline=1 cpu-used=8 keyframe-max-dist=30"),
        caps: "video/x-vp9,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["vp9dec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn vp8_with_frames_that_are_not_shown() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=30 lag-in-frames=10 auto-alt-ref=true"
        ),
        caps: "video/x-vp8,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["vp8dec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn vp9_with_frames_that_are_not_shown() {
    pictures_travel_unaltered(&Case {
        source: &format!(
            "{VIDEO} ! vp9enc deadline=1 cpu-used=8 keyframe-max-dist=30 lag-in-frames=10"
        ),
        caps: "video/x-vp9,width=160,height=120,framerate=30/1",
        raw: RAW_VIDEO,
        decoders: &["vp9dec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn opus_stereo() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=48000,channels=2 ! opusenc",
        caps: "audio/x-opus,rate=48000,channels=2",
        raw: "audio/x-raw,rate=48000,channels=2",
        decoders: &["opusdec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn opus_packets_of_a_few_bytes() {
    // An encoder has next to nothing to say about silence.
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=silence ! audio/x-raw,rate=48000,channels=1 ! opusenc dtx=true",
        caps: "audio/x-opus,rate=48000,channels=1",
        raw: "audio/x-raw,rate=48000,channels=1",
        decoders: &["opusdec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn opus_5_1() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=48000,channels=6,channel-mask=(bitmask)0x3f ! opusenc",
        caps: "audio/x-opus,rate=48000,channels=6,channel-mapping-family=1",
        raw: "audio/x-raw,rate=48000,channels=6,channel-mask=(bitmask)0x3f",
        decoders: &["opusdec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn opus_7_1() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=48000,channels=8,channel-mask=(bitmask)0xc3f ! opusenc",
        caps: "audio/x-opus,rate=48000,channels=8,channel-mapping-family=1",
        raw: "audio/x-raw,rate=48000,channels=8,channel-mask=(bitmask)0xc3f",
        decoders: &["opusdec"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn aac_raw() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=44100,channels=2 ! avenc_aac ! audio/mpeg,stream-format=raw",
        caps: "audio/mpeg,mpegversion=4,stream-format=raw,rate=44100,channels=2",
        raw: "audio/x-raw,rate=44100,channels=2",
        decoders: &["avdec_aac"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn aac_adts() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=48000,channels=1 ! avenc_aac ! aacparse ! audio/mpeg,stream-format=adts",
        caps: "audio/mpeg,mpegversion=4,stream-format=raw,rate=48000,channels=1",
        raw: "audio/x-raw,rate=48000,channels=1",
        decoders: &["avdec_aac"],
        sent: behind_adts,
        received: whole_buffer,
    });
}

#[test]
fn aac_5_1() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=48000,channels=6,channel-mask=(bitmask)0x3f ! avenc_aac",
        caps: "audio/mpeg,mpegversion=4,stream-format=raw,rate=48000,channels=6",
        raw: "audio/x-raw,rate=48000,channels=6",
        decoders: &["avdec_aac"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn flac() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,format=S16LE,rate=44100,channels=2 ! flacenc blocksize=1024",
        caps: "audio/x-flac,framed=true,rate=44100,channels=2",
        raw: "audio/x-raw,rate=44100,channels=2",
        decoders: &["flacdec", "avdec_flac"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}

#[test]
fn mp3() {
    travels_unaltered(&Case {
        source: "audiotestsrc is-live=true wave=white-noise ! audio/x-raw,rate=44100,channels=2 ! lamemp3enc",
        caps: "audio/mpeg,mpegversion=1,layer=3,rate=44100,channels=2",
        raw: "audio/x-raw,rate=44100,channels=2",
        decoders: &["mpg123audiodec", "avdec_mp3"],
        sent: whole_buffer,
        received: whole_buffer,
    });
}
