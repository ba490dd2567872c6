//! The pipeline behind it.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use gst::prelude::*;
use iroh_live_tests::{
    Frame, LOCAL, Pipe, Publisher, Viewer,
    media::record,
    peer::{HandmadePublisher, catalog, frames},
    start,
};

use super::VIDEO;

/// Holds up each buffer at a pad for this long.
fn slow_down(pad: &gst::Pad, time: Duration) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        thread::sleep(time);
        gst::PadProbeReturn::Ok
    });
}

#[test]
fn a_pad_that_is_unlinked_and_linked_again_goes_on_with_a_picture() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let sent = record(&publisher.sink.sink_pads()[0]);
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let pad = viewer.src.static_pad("video_0").expect("it is there");
    let peer = pad.peer().expect("it is linked");
    // So that there is something in the queue that nobody takes.
    slow_down(&peer, Duration::from_millis(50));
    viewer.wait_more_frames("video_0", 10);
    for round in 0..3 {
        let before = viewer.count("video_0");
        pad.unlink(&peer).expect("they are linked");
        let count = || sent.lock().expect("nobody panics with the lock").len();
        let (already, more) = (count(), if round == 1 { 0 } else { 40 });
        publisher
            .pipe
            .wait("more frames", || (count() >= already + more).then_some(()));
        pad.link(&peer).expect("they were linked before");
        let log = viewer.wait_frames("video_0", before + 20);
        // One may have been on its way through the peer.
        let after: Vec<_> = log.frames().skip(before).take(3).cloned().collect();
        let fresh =
            |frame: &Frame| frame.is_key() && frame.flags.contains(gst::BufferFlags::DISCONT);
        assert!(after.iter().take(2).any(fresh), "round {round}: {after:?}");
    }
    assert!(viewer.pipe.error().is_none());
}

#[test]
fn an_element_that_is_stopped_and_started_again_behind_a_pad_goes_on() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let behind = viewer.pipe.element("behind-0");
    behind.set_state(gst::State::Ready).expect("it stops");
    thread::sleep(Duration::from_millis(500));
    let before = viewer.count("video_0");
    behind.set_state(gst::State::Playing).expect("it starts");
    let log = viewer.wait_frames("video_0", before + 20);
    let first = log.frames().nth(before).expect("there are more");
    assert!(first.is_key(), "it begins with a key frame");
    assert!(viewer.pipe.error().is_none());
}

#[test]
fn a_pipeline_that_is_too_slow_goes_on_with_what_is_new() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let pad = viewer.src.static_pad("video_0").expect("it is there");
    let peer = pad.peer().expect("it is linked");
    slow_down(&peer, Duration::from_millis(100));
    let before = viewer.count("video_0");
    viewer.pipe.wait("frames that were left out", || {
        let log = viewer.pad("video_0")?;
        let mut later = log.frames().skip(before);
        later
            .any(|frame| frame.flags.contains(gst::BufferFlags::DISCONT))
            .then_some(())
    });
    let stats = viewer.src.property::<gst::Structure>("stats");
    assert!(stats.get::<u64>("jitter").is_ok());
}

#[test]
fn a_pipeline_that_waits_long_for_its_other_branch_is_not_too_slow() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    // Its sink waits as long as the slowest branch wants.
    let pipe = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} max-lag=20000 ! fakesink name=sink sync=true signal-handoffs=true \
         audiotestsrc is-live=true ! queue min-threshold-time=0 ! identity name=slow ! fakesink sync=true"
    ));
    pipe.element("s").set_property("ticket", publisher.ticket());
    pipe.element("slow")
        .static_pad("src")
        .expect("it has one")
        .add_probe(
            gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PULL,
            |_, info| {
                if let Some(query) = info.query_mut()
                    && let gst::QueryViewMut::Latency(latency) = query.view_mut()
                {
                    let (_, min, max) = latency.result();
                    latency.set(true, min + gst::ClockTime::from_seconds(4), max);
                }
                gst::PadProbeReturn::Ok
            },
        );
    let marked = Arc::new(Mutex::new((0, 0)));
    let kept = marked.clone();
    pipe.element("sink")
        .connect("handoff", false, move |values| {
            let buffer = values[1].get::<gst::Buffer>().ok()?;
            let mut marked = kept.lock().expect("nobody panics with the lock");
            marked.0 += 1;
            marked.1 += usize::from(buffer.flags().contains(gst::BufferFlags::DISCONT));
            None
        });
    pipe.play();
    pipe.wait("150 frames", || {
        let marked = marked.lock().expect("nobody panics with the lock");
        (marked.0 > 150).then_some(())
    });
    let marked = marked.lock().expect("nobody panics with the lock");
    assert_eq!(marked.1, 1, "the first is a discontinuity, and no other");
}

#[test]
fn latency_that_is_raised_while_playing_has_what_is_late_waited_for() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames(0)),
    ];
    let publisher = HandmadePublisher::start("late", &tracks);
    let viewer = Viewer::new(publisher.ticket(), "latency=0", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
    publisher.next_group_beside("cam", frames(1000));
    // Without latency nobody waits for the rest of the first group.
    viewer.wait_frames("video_0", 10);
    viewer.src.set_property("latency", 30_000_u32);
    publisher.next_group_beside("cam", frames(2000));
    // Long enough to leave out the second group, if it were not waited for.
    thread::sleep(Duration::from_millis(500));
    publisher.next_group("cam", frames(3000), true);
    let log = viewer.wait_frames("video_0", 20);
    let marked = log
        .frames()
        .enumerate()
        .filter(|(_, frame)| frame.flags.contains(gst::BufferFlags::DISCONT))
        .map(|(number, _)| number);
    assert_eq!(marked.collect::<Vec<_>>(), [0, 5]);
}
