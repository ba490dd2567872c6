//! States, latency, timestamps and pace.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicUsize},
};

use gst::prelude::*;
use iroh_live_tests::{
    Frame, LOCAL, Pipe, Publisher, Test, Viewer,
    media::{Sent, record},
    start,
};

use super::{BYTE_STREAM, RAW, last_slice, lateness, median, publish_video, video_and_audio};

/// A file with H.264 and 5.1 AAC of that many seconds.
fn movie(test: &Test, seconds: u32) -> String {
    let location = test.file("movie.mp4");
    let pipe = Pipe::parse(&format!(
        "mp4mux name=mux ! filesink location={location} \
         videotestsrc num-buffers={} pattern=ball ! {RAW} ! x264enc key-int-max=30 ! h264parse ! mux. \
         audiotestsrc num-buffers={} samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=6,channel-mask=(bitmask)0x3f ! \
         avenc_aac ! aacparse ! mux.",
        seconds * 30,
        seconds * 48_000 / 1024
    ));
    pipe.play();
    pipe.wait_eos();
    location
}

#[test]
fn a_live_source_does_not_preroll() {
    let _test = start();
    let publisher = publish_video();
    let viewer = Viewer::new(&publisher.ticket(), "", |_| Some(String::new()));
    let set = |state| {
        viewer
            .pipe
            .pipeline
            .set_state(state)
            .expect("the state changes")
    };
    assert_eq!(set(gst::State::Ready), gst::StateChangeSuccess::Success);
    assert_eq!(set(gst::State::Paused), gst::StateChangeSuccess::NoPreroll);
    set(gst::State::Playing);
    viewer.wait_frames("video_0", 10);
    assert_eq!(set(gst::State::Paused), gst::StateChangeSuccess::NoPreroll);
    let before = viewer.count("video_0");
    set(gst::State::Playing);
    // After the pause it goes on, and says that something is missing.
    let log = viewer.wait_frames("video_0", before + 20);
    let discontinuities = log
        .frames()
        .skip(before)
        .filter(|frame| frame.flags.contains(gst::BufferFlags::DISCONT));
    assert!(
        discontinuities.count() > 0,
        "what comes after a pause is a discontinuity"
    );
}

#[test]
fn nothing_is_pushed_before_playing() {
    let _test = start();
    let publisher = publish_video();
    let sent = record(&publisher.sink.static_pad("sink_0").expect("it is linked"));
    let viewer = Viewer::new(&publisher.ticket(), "", |_| Some(String::new()));
    viewer
        .pipe
        .pipeline
        .set_state(gst::State::Paused)
        .expect("it starts");
    viewer.pipe.wait("the pad", || viewer.pad("video_0"));
    // The publisher goes on for a second; none of that may be pushed.
    let count = || sent.lock().expect("nobody panics with the lock").len();
    let before = count();
    publisher.pipe.wait("thirty more frames", || {
        (count() > before + 30).then_some(())
    });
    assert_eq!(viewer.count("video_0"), 0, "buffers were pushed in PAUSED");
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
}

#[test]
fn latency_is_answered_and_follows_the_property() {
    let _test = start();
    let publisher = publish_video();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let pad = viewer.src.static_pad("video_0").expect("the pad is there");
    let asked = || {
        let mut of_element = gst::query::Latency::new();
        assert!(viewer.src.query(&mut of_element));
        let mut of_pad = gst::query::Latency::new();
        assert!(pad.query(&mut of_pad));
        [of_element, of_pad].map(|query| {
            let (live, min, _) = query.result();
            (live, min.mseconds())
        })
    };
    assert_eq!(asked(), [(true, 200); 2]);
    let latency_messages = || {
        let messages = viewer.pipe.messages();
        messages
            .iter()
            .filter(|message| message.type_() == gst::MessageType::Latency)
            .count()
    };
    let before = latency_messages();
    viewer.src.set_property("latency", 350_u32);
    assert_eq!(asked(), [(true, 350); 2]);
    viewer.pipe.wait("a LATENCY message", || {
        (latency_messages() > before).then_some(())
    });
}

#[test]
fn a_sink_that_syncs_shows_every_frame_on_time() {
    let _test = start();
    let publisher = publish_video();
    let viewer = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} latency=500 ! avdec_h264 ! fakesink name=out sync=true qos=true signal-handoffs=true"
    ));
    viewer
        .element("s")
        .set_property("ticket", publisher.ticket());
    let shown = Arc::new(AtomicUsize::new(0));
    let counted = shown.clone();
    viewer.element("out").connect("handoff", false, move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        None
    });
    viewer.play();
    viewer.wait("frames on the screen", || {
        (shown.load(std::sync::atomic::Ordering::Relaxed) >= 60).then_some(())
    });
    let stats: gst::Structure = viewer.element("out").property("stats");
    let (rendered, dropped) = (stats.get::<u64>("rendered"), stats.get::<u64>("dropped"));
    let (rendered, dropped) = (
        rendered.expect("sinks count"),
        dropped.expect("sinks count"),
    );
    // A machine that is busy with other tests may drop some, wrong timestamps would make it drop nearly all.
    assert!(
        dropped * 4 < rendered,
        "{dropped} frames dropped, {rendered} shown"
    );
}

/// The difference between times of the far end and of this one, in milliseconds, for each frame that was sent as
/// `matches` tells: (running time at the publisher, difference).
fn differences(sent: &[Sent], frames: &[Frame], key: impl Fn(&[u8]) -> Vec<u8>) -> Vec<(i64, i64)> {
    let mut times = HashMap::new();
    for sent in sent {
        // What was sent twice cannot be told apart.
        times
            .entry(key(&sent.data))
            .and_modify(|time| *time = None)
            .or_insert(Some(sent.running_time));
    }
    let micros = |time: gst::ClockTime| i64::try_from(time.useconds()).expect("not that long");
    frames
        .iter()
        .filter_map(|frame| {
            let sent = micros((*times.get(&key(&frame.data))?)?);
            Some((sent, micros(frame.pts?) - sent))
        })
        .collect()
}

#[test]
fn sound_that_begins_a_second_later_stays_in_sync() {
    let _test = start();
    let publisher = Publisher::new(&video_and_audio());
    let audio = publisher.sink.static_pad("audio_0").expect("it is linked");
    let video = publisher.sink.static_pad("video_0").expect("it is linked");
    let sent_video = record(&video);
    let sent_audio = record(&audio);
    audio
        .peer()
        .expect("it is linked")
        .add_probe(gst::PadProbeType::BUFFER, |_, info| {
            match info.buffer().and_then(|buffer| buffer.pts()) {
                Some(pts) if pts < gst::ClockTime::SECOND => gst::PadProbeReturn::Drop,
                _ => gst::PadProbeReturn::Ok,
            }
        });
    publisher.pipe.play();
    let viewer = Viewer::new(&publisher.ticket(), "latency=2000", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.wait_frames("audio_0", 100);
    viewer.wait_more_frames("video_0", 30);
    let frames = |name: &str| {
        viewer
            .pad(name)
            .expect("it is there")
            .frames()
            .cloned()
            .collect::<Vec<_>>()
    };
    let sent = |sent: &Mutex<Vec<Sent>>| sent.lock().expect("nobody panics with the lock").clone();
    let video = differences(&sent(&sent_video), &frames("video_0"), last_slice);
    let audio = differences(&sent(&sent_audio), &frames("audio_0"), <[u8]>::to_vec);
    assert!(
        video.len() > 50 && audio.len() > 50,
        "{} and {} frames were recognised",
        video.len(),
        audio.len()
    );
    assert!(audio[0].0 >= 1_000_000, "the sound was to begin late");
    // For each picture, the sound of the same moment.
    let apart = video.iter().filter_map(|(time, difference)| {
        let nearest = audio
            .iter()
            .min_by_key(|(other, _)| other.abs_diff(*time))?;
        (nearest.0.abs_diff(*time) < 30_000).then_some(nearest.1 - difference)
    });
    let apart = median(apart.collect());
    assert!(
        apart.abs() <= 5_000,
        "sound and picture are {apart} µs apart"
    );
}

#[test]
fn timestamps_keep_their_distances_but_for_discontinuities() {
    let _test = start();
    // With B-frames timestamps go back and forth.
    let publisher = Publisher::start(&format!(
        "videotestsrc is-live=true pattern=ball ! {RAW} ! \
         x264enc bframes=3 b-adapt=false rc-lookahead=5 key-int-max=30 ! {BYTE_STREAM} ! SINK"
    ));
    let sent = record(&publisher.sink.static_pad("sink_0").expect("it is linked"));
    let viewer = Viewer::start(&publisher.ticket());
    let log = viewer.wait_frames("video_0", 90);
    let sent = sent.lock().expect("nobody panics with the lock").clone();
    let mut before = None;
    let mut compared = 0;
    for frame in log.frames() {
        let difference = differences(&sent, std::slice::from_ref(frame), last_slice);
        let Some((time, difference)) = difference.first().copied() else {
            continue;
        };
        if let Some(before) = before.replace(difference)
            && !frame.flags.contains(gst::BufferFlags::DISCONT)
        {
            let jump = difference - before;
            assert!(jump.abs() < 5_000, "a jump of {jump} µs at {time} µs");
            compared += 1;
        }
    }
    assert!(compared > 60, "only {compared} frames were recognised");
}

#[test]
fn timestamps_are_running_time_whatever_the_encoder_starts_with() {
    let _test = start();
    let publisher = Publisher::start(&video_and_audio());
    let sent = record(&publisher.sink.static_pad("video_0").expect("it is linked"));
    let viewer = Viewer::new(&publisher.ticket(), "latency=1000", |_| Some(String::new()));
    viewer.pipe.play();
    for name in ["video_0", "audio_0"] {
        let log = viewer.wait_frames(name, 60);
        let late = median(log.frames().skip(20).filter_map(lateness).collect());
        assert!(
            (-100..=1000).contains(&late),
            "frames of {name} come {late} ms after their time"
        );
    }
    // x264enc begins at 1000 hours, so that no timestamp is negative; only the segment tells.
    let first = sent.lock().expect("nobody panics with the lock")[0].clone();
    assert!(first.pts >= gst::ClockTime::from_seconds(3_600_000));
    assert!(first.running_time < gst::ClockTime::from_seconds(60));
}

#[test]
fn a_file_is_paced_and_watched_from_its_middle() {
    let test = start();
    let location = movie(&test, 6);
    let publisher = Publisher::new(&format!(
        "SINK  filesrc location={location} ! qtdemux name=d  d.video_0 ! queue ! stream.video_0  d.audio_0 ! queue ! stream.audio_0"
    ));
    publisher
        .pipe
        .pipeline
        .set_state(gst::State::Paused)
        .expect("it starts");
    let sent = record(&publisher.sink.static_pad("video_0").expect("it is linked"));
    publisher.pipe.wait("the file to be opened", || {
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        publisher.pipe.pipeline.query_duration::<gst::ClockTime>()?;
        publisher
            .pipe
            .pipeline
            .seek_simple(flags, gst::ClockTime::from_seconds(3))
            .ok()
    });
    let viewer = Viewer::new(&publisher.ticket(), "latency=2000", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.pipe.wait("the viewer to be there", || {
        (publisher.sink.property::<u32>("subscribers") == 1).then_some(())
    });
    publisher.pipe.play();
    let log = viewer.wait_frames("video_0", 30);
    let frames: Vec<_> = log.frames().cloned().collect();
    publisher.pipe.wait_eos();
    viewer.pipe.wait_eos();
    let sent = sent.lock().expect("nobody panics with the lock").clone();
    // A sink does not wait with frames that are decoded before the beginning: a few may have come this far before the
    // flush.
    let sent: Vec<_> = sent
        .into_iter()
        .filter(|sent| sent.pts >= gst::ClockTime::from_seconds(3))
        .collect();
    assert!(
        sent.len() >= 85,
        "the second half has 90 frames, {} were sent",
        sent.len()
    );
    assert!(
        sent[0].running_time < gst::ClockTime::from_mseconds(500),
        "after the seek time begins anew"
    );
    let slices: Vec<_> = sent.iter().map(|sent| avc_slice(&sent.data)).collect();
    let first = frames
        .iter()
        .position(|frame| slices.contains(&last_slice(&frame.data)))
        .expect("frames of the second half come");
    assert!(
        first < 5 && frames[first].is_key(),
        "it begins with frame {first}"
    );
    let pts = frames[first].pts.expect("frames have a time");
    assert!(pts < gst::ClockTime::from_seconds(60), "{pts}");
}

fn avc_slice(data: &[u8]) -> Vec<u8> {
    iroh_live_tests::media::length_prefixed(data)
        .last()
        .map(|unit| unit.to_vec())
        .unwrap_or_default()
}

#[test]
fn a_file_takes_as_long_to_publish_as_it_lasts() {
    let test = start();
    let location = movie(&test, 3);
    let publisher = Publisher::start(&format!(
        "filesrc location={location} ! qtdemux name=d  d.video_0 ! queue ! SINK  d.audio_0 ! queue ! stream."
    ));
    publisher.pipe.wait_eos();
    let took = publisher
        .pipe
        .pipeline
        .current_running_time()
        .expect("the clock runs");
    assert!(took >= gst::ClockTime::from_seconds(2), "took {took}");
    assert!(
        appsinks(&publisher.sink)
            .iter()
            .all(|sink| sink.property::<bool>("sync"))
    );
    assert_eq!(appsinks(&publisher.sink).len(), 2);
}

fn appsinks(sink: &gst::Element) -> Vec<gst::Element> {
    let bin = sink.downcast_ref::<gst::Bin>().expect("the sink is a bin");
    let elements = bin.iterate_recurse().into_iter().flatten();
    elements
        .filter(|element| {
            element
                .factory()
                .is_some_and(|factory| factory.name() == "appsink")
        })
        .collect()
}

#[test]
fn live_sources_are_not_delayed() {
    let _test = start();
    let publisher = Publisher::start(&video_and_audio());
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 5);
    let appsinks = appsinks(&publisher.sink);
    assert_eq!(appsinks.len(), 2);
    assert!(appsinks.iter().all(|sink| !sink.property::<bool>("sync")));
}
