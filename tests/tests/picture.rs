//! What a viewer sees and hears, against what went into the encoder.

use std::sync::atomic::{AtomicU32, Ordering};

use gst::prelude::*;
use iroh_live_tests::{Frame, Pipe, Publisher, Viewer, bytes_of, media::tone, start};

/// The samples of frames in F32LE, of all channels in turn.
fn samples<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<f32> {
    let bytes: Vec<u8> = frames.flat_map(|frame| frame.data.to_vec()).collect();
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|sample| f32::from_le_bytes(*sample))
        .collect()
}

/// One frame of a test picture, as it looks before it is encoded.
fn reference(source: &str, raw: &str) -> Vec<u8> {
    let pipe = Pipe::parse(&format!(
        "{source} num-buffers=1 ! {raw} ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false"
    ));
    pipe.play();
    let sink = pipe
        .element("out")
        .downcast::<gst_app::AppSink>()
        .expect("that is what it is");
    let sample = sink.pull_sample().expect("one frame comes");
    bytes_of(sample.buffer().expect("a sample has a buffer")).to_vec()
}

#[test]
fn the_picture_is_the_one_that_was_sent() {
    let _test = start();
    let raw = "video/x-raw,format=I420,width=320,height=240,framerate=30/1,colorimetry=bt601";
    let publisher = Publisher::start(&format!(
        "videotestsrc is-live=true pattern=smpte ! {raw} ! \
         x264enc tune=zerolatency pass=quant quantizer=8 key-int-max=15 ! SINK"
    ));
    let viewer = Viewer::new(&publisher.ticket(), "", |_| {
        Some("avdec_h264 ! videoconvert ! video/x-raw,format=RGB".into())
    });
    viewer.pipe.play();
    let log = viewer.wait_frames("video_0", 20);
    let expected = reference("videotestsrc pattern=smpte", raw);
    assert_eq!(expected.len(), 320 * 240 * 3);
    for frame in log.frames() {
        assert_eq!(frame.data.len(), expected.len());
        // The lowest third of this pattern has noise in it.
        let pairs = frame.data.iter().zip(&expected).take(320 * 160 * 3);
        let differences: Vec<_> = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).collect();
        let worst = differences.iter().max().copied().unwrap_or_default();
        let mean = differences.iter().sum::<u32>() / (320 * 160 * 3);
        // The colours' edges are as sharp as the encoder leaves them.
        assert!(
            mean <= 2 && worst <= 60,
            "differs by {mean} on average, {worst} at worst"
        );
    }
    // All that would be so, too, if there were nothing to see.
    let colours: std::collections::BTreeSet<_> = expected.as_chunks::<3>().0.iter().collect();
    assert!(colours.len() > 6);
}

/// The brightness that the picture of this number has, 24 in turn.
fn brightness(number: u32) -> u8 {
    u8::try_from(32 + number % 24 * 8).expect("at most 216")
}

fn pictures_come_one_after_the_other(encoder: &str) {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "videotestsrc name=source is-live=true pattern=black ! video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1 ! \
         videoconvert ! video/x-raw,format=I420 ! {encoder} ! SINK"
    ));
    let number = AtomicU32::new(0);
    let source = publisher
        .pipe
        .element("source")
        .static_pad("src")
        .expect("it has a pad");
    source.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let level = brightness(number.fetch_add(1, Ordering::Relaxed));
        let buffer = info
            .buffer_mut()
            .expect("the probe is for buffers")
            .make_mut();
        buffer.map_writable().expect("it is a copy").fill(level);
        gst::PadProbeReturn::Ok
    });
    publisher.pipe.play();
    // Late frames are not to be skipped: every picture counts.
    let viewer = Viewer::new(&publisher.ticket(), "latency=10000", |_| {
        Some("avdec_h264 ! videoconvert ! video/x-raw,format=GRAY8".into())
    });
    viewer.pipe.play();
    let log = viewer.wait_frames("video_0", 75);
    let frames: Vec<_> = log.frames().collect();
    let level = |frame: &Frame| -> u32 {
        let sum: u32 = frame.data.iter().map(|byte| u32::from(*byte)).sum();
        sum / u32::try_from(frame.data.len()).expect("a small picture")
    };
    let number = |frame: &Frame| {
        let level = level(frame);
        let number = (0..24).min_by_key(|n| u32::from(brightness(*n)).abs_diff(level));
        number.expect("there are 24")
    };
    for pair in frames.windows(2) {
        assert_eq!(
            number(pair[1]),
            (number(pair[0]) + 1) % 24,
            "a picture is missing or twice"
        );
    }
    // Where the timeline is corrected, at a discontinuity, time may go back once or twice.
    let back = frames.windows(2).filter(|pair| pair[0].pts >= pair[1].pts);
    assert!(back.count() <= 4, "time goes back again and again");
}

#[test]
fn pictures_come_complete_and_in_order() {
    pictures_come_one_after_the_other(
        "x264enc tune=zerolatency pass=quant quantizer=10 key-int-max=15",
    );
}

#[test]
fn pictures_with_b_frames_come_complete_and_in_order() {
    pictures_come_one_after_the_other(
        "x264enc bframes=3 b-adapt=false rc-lookahead=5 pass=quant quantizer=10 key-int-max=15",
    );
}

fn a_tone_is_heard(encoder: &str, decoder: &'static str) {
    let _test = start();
    let publisher = Publisher::start(&format!(
        "audiotestsrc is-live=true freq=440 volume=0.5 ! audio/x-raw,rate=48000,channels=2 ! {encoder} ! SINK"
    ));
    let viewer = Viewer::new(&publisher.ticket(), "latency=10000", move |_| {
        Some(format!(
            "{decoder} ! audioconvert ! audio/x-raw,format=F32LE,layout=interleaved,channels=1"
        ))
    });
    viewer.pipe.play();
    let pad = viewer.pipe.wait("a pad", || {
        viewer.pads().first().map(|pad| pad.name.clone())
    });
    let log = viewer.wait_frames(&pad, 60);
    // The first packets are those in which a decoder finds its feet.
    let samples = samples(log.frames().skip(10));
    let heard = tone(&samples, 48_000, 440.0);
    assert!(
        (0.45..0.55).contains(&heard),
        "440 Hz has the amplitude {heard}, not 0.5"
    );
    for other in [220.0, 880.0, 1320.0, 403.0] {
        let noise = tone(&samples, 48_000, other);
        assert!(noise < 0.02, "{other} Hz is heard as well, with {noise}");
    }
}

#[test]
fn a_tone_is_heard_through_opus() {
    a_tone_is_heard("opusenc", "opusdec");
}

#[test]
fn a_tone_is_heard_through_aac() {
    a_tone_is_heard("avenc_aac", "avdec_aac");
}

/// A tone of its own for each channel of 5.1. The fourth is the one for low frequencies only.
const TONES: [f64; 6] = [400.0, 700.0, 1000.0, 60.0, 1300.0, 1600.0];

fn every_channel_is_in_its_place(encoder: &str, decoder: &'static str) {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "audiotestsrc name=source is-live=true ! \
         audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels=6,channel-mask=(bitmask)0x3f ! \
         audioconvert ! {encoder} ! SINK"
    ));
    let time = AtomicU32::new(0);
    let source = publisher
        .pipe
        .element("source")
        .static_pad("src")
        .expect("it has a pad");
    source.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info
            .buffer_mut()
            .expect("the probe is for buffers")
            .make_mut();
        let mut map = buffer.map_writable().expect("it is a copy");
        for block in map.as_chunks_mut::<24>().0 {
            let seconds = f64::from(time.fetch_add(1, Ordering::Relaxed)) / 48_000.0;
            for (sample, hz) in block.as_chunks_mut().0.iter_mut().zip(TONES) {
                #[expect(clippy::cast_possible_truncation, reason = "a sample")]
                let value = (0.3 * (std::f64::consts::TAU * hz * seconds).sin()) as f32;
                *sample = value.to_le_bytes();
            }
        }
        gst::PadProbeReturn::Ok
    });
    publisher.pipe.play();
    let viewer = Viewer::new(&publisher.ticket(), "latency=10000", move |_| {
        Some(format!(
            "{decoder} ! audioconvert ! audio/x-raw,format=F32LE,layout=interleaved,channels=6"
        ))
    });
    viewer.pipe.play();
    let pad = viewer.pipe.wait("a pad", || {
        viewer.pads().first().map(|pad| pad.name.clone())
    });
    let log = viewer.wait_frames(&pad, 60);
    let samples = samples(log.frames().skip(10));
    for (channel, own) in TONES.into_iter().enumerate() {
        let channel_samples: Vec<_> = samples.iter().skip(channel).step_by(6).copied().collect();
        let loudest = TONES
            .into_iter()
            .max_by(|a, b| {
                let [a, b] = [a, b].map(|hz| tone(&channel_samples, 48_000, *hz));
                a.total_cmp(&b)
            })
            .expect("there are six");
        assert_eq!(loudest, own, "channel {channel} has the tone of another");
        assert!(
            tone(&channel_samples, 48_000, own) > 0.1,
            "channel {channel} is not heard"
        );
    }
}

#[test]
fn every_channel_of_opus_5_1_is_in_its_place() {
    every_channel_is_in_its_place("opusenc bitrate=384000", "opusdec");
}

#[test]
fn every_channel_of_aac_5_1_is_in_its_place() {
    every_channel_is_in_its_place("avenc_aac bitrate=384000", "avdec_aac");
}

#[test]
fn sound_is_decoded_with_the_latency_of_the_source_and_no_more() {
    let _test = start();
    let publisher = Publisher::start("audiotestsrc is-live=true ! opusenc ! SINK");
    let viewer = Viewer::new(&publisher.ticket(), "latency=200", |_| {
        Some("opusdec name=decoder".into())
    });
    viewer.pipe.play();
    viewer.wait_frames("audio_0", 20);
    let pad = viewer.pipe.element("decoder").static_pad("src");
    let mut latency = gst::query::Latency::new();
    assert!(pad.expect("a decoder has one").query(&mut latency));
    let (live, least, _) = latency.result();
    assert_eq!((live, least.mseconds()), (true, 200));
}
