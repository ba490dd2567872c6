//! What `irohlivesrc` makes of the tracks in a catalog: those that cannot be had, too many of them, some that go and come.

use std::{sync::mpsc, thread, time::Duration};

use bytes::Bytes;
use gst::prelude::*;
use iroh_live_tests::{
    Viewer,
    peer::{HandmadePublisher, catalog, frames},
    start,
};

fn collections(viewer: &Viewer) -> Vec<usize> {
    let messages = viewer.pipe.messages();
    let sizes = messages.iter().filter_map(|message| match message.view() {
        gst::MessageView::StreamCollection(message) => Some(message.stream_collection().len()),
        _ => None,
    });
    sizes.collect()
}

/// Publishes that group of `cam` and waits for it; all before it have come.
fn next_frames(publisher: &HandmadePublisher, viewer: &Viewer, number: u32) {
    publisher.next_group("cam", frames(u64::from(number) * 500), true);
    viewer.wait_frames("video_0", 5 * (number as usize + 1));
}

#[test]
fn a_track_that_the_publisher_does_not_have_is_left_out_and_the_rest_goes_on() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["cam", "gone"], 1)]),
        ("cam", frames(0)),
    ];
    let publisher = HandmadePublisher::start("half", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.pipe.wait_warning("gone");
    for number in 1..10 {
        // The catalog changes all the time, as it does where bitrates are measured.
        publisher.next_group(
            "catalog.json",
            vec![catalog(&["cam", "gone"], 1 + number)],
            true,
        );
        next_frames(&publisher, &viewer, number);
    }
    let warnings = viewer.pipe.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(!viewer.statuses().iter().any(|s| s == "reconnecting"));
}

#[test]
fn a_rendition_of_another_broadcast_is_left_out_with_one_warning() {
    let _test = start();
    let listed = |bitrate: u32| {
        Bytes::from(format!(
            r#"{{"video":{{"renditions":{{"cam":{{"codec":"vp8","bitrate":{bitrate},"container":{{"kind":"legacy"}}}},"far":{{"codec":"vp8","broadcast":"other","container":{{"kind":"legacy"}}}}}}}}}}"#
        ))
    };
    let tracks = [("catalog.json", vec![listed(1)]), ("cam", frames(0))];
    let publisher = HandmadePublisher::start("half", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_0", 5);
    for number in 1..5 {
        publisher.next_group("catalog.json", vec![listed(1 + number)], true);
        next_frames(&publisher, &viewer, number);
    }
    let warnings = viewer.pipe.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("far"), "{warnings:?}");
    assert_eq!(viewer.pads().len(), 1);
}

#[test]
fn a_catalog_of_sixty_tracks_gets_a_few_pads() {
    let _test = start();
    let names: Vec<_> = (0..60).map(|number| format!("cam{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let tracks = [
        ("catalog.json", vec![catalog(&names, 1)]),
        ("cam00", frames(0)),
    ];
    let publisher = HandmadePublisher::start("many", &tracks);
    let viewer = Viewer::new(publisher.ticket(), "", |name| {
        (name == "video_0").then(String::new)
    });
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
    assert_eq!(viewer.pads().len(), 16);
    publisher.next_group("catalog.json", vec![catalog(&names, 2)], true);
    publisher.next_group("cam00", frames(500), true);
    viewer.wait_frames("video_0", 10);
    let warnings = viewer.pipe.warnings();
    let about = warnings
        .iter()
        .filter(|text| text.contains("beyond the first 16"));
    assert_eq!(about.count(), 1, "{warnings:?}");
}

#[test]
fn a_track_that_ends_and_comes_back_while_it_is_listed_is_read_again() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames(0)),
    ];
    let publisher = HandmadePublisher::start("again", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_0", 5);
    publisher.end("cam");
    viewer.pipe.wait("the end of the track", || {
        viewer.pad("video_0").filter(|pad| pad.has_ended())
    });
    // Still listed: that alone is no reason for another pad.
    publisher.next_group("catalog.json", vec![catalog(&["cam"], 2)], true);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(viewer.pads().len(), 1);
    publisher.begin_again("cam", frames(2000));
    // The transport remembers the track that has ended for a while.
    viewer.wait_frames("video_1", 5);
    assert!(viewer.pad("video_0").is_some_and(|pad| pad.removed));
}

#[test]
fn the_stream_collection_follows_the_tracks_that_go() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["one", "two"], 1)]),
        ("one", frames(0)),
        ("two", frames(0)),
    ];
    let publisher = HandmadePublisher::start("two", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_0", 5);
    assert_eq!(collections(&viewer), [2]);
    publisher.next_group("catalog.json", vec![catalog(&["one"], 1)], true);
    viewer.pipe.wait("a collection of one", || {
        (collections(&viewer) == [2, 1]).then_some(())
    });
}

#[test]
fn a_pad_that_goes_is_let_go_of_though_it_was_never_linked() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["one", "two"], 1)]),
        ("one", frames(0)),
        ("two", frames(0)),
    ];
    let publisher = HandmadePublisher::start("two", &tracks);
    let viewer = Viewer::new(publisher.ticket(), "", |_| None);
    viewer.pipe.play();
    viewer
        .pipe
        .wait("both pads", || (viewer.pads().len() == 2).then_some(()));
    let pad = viewer
        .src
        .static_pad("video_1")
        .expect("it is there")
        .downgrade();
    publisher.next_group("catalog.json", vec![catalog(&["one"], 1)], true);
    viewer.pipe.wait("nobody to keep the pad", || {
        pad.upgrade().is_none().then_some(())
    });
}

#[test]
fn a_track_that_comes_back_in_another_codec_gets_another_pad() {
    let _test = start();
    let listed = |codec: &str| {
        Bytes::from(format!(
            r#"{{"video":{{"renditions":{{"cam":{{"codec":"{codec}","container":{{"kind":"legacy"}}}}}}}}}}"#
        ))
    };
    let tracks = [("catalog.json", vec![listed("vp8")]), ("cam", frames(0))];
    let publisher = HandmadePublisher::start("change", &tracks);
    // Each takes the one codec.
    let viewer = Viewer::new(publisher.ticket(), "", |name| {
        let codec = if name == "video_0" { "vp8" } else { "vp9" };
        Some(format!("capsfilter caps=video/x-{codec}"))
    });
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
    publisher.next_group("catalog.json", vec![listed("vp09.00.10.08")], true);
    publisher.next_group("cam", frames(500), true);
    viewer.wait_frames("video_1", 5);
    let first = viewer.pad("video_0").expect("it was there");
    assert!(first.has_ended() && first.removed);
    // A description that says more of the same is no reason.
    publisher.next_group("catalog.json", vec![listed("vp09.01.10.08")], true);
    publisher.next_group("cam", frames(1000), true);
    viewer.wait_frames("video_1", 10);
    assert_eq!(viewer.pads().len(), 2);
}

#[test]
fn a_track_that_goes_while_the_viewer_pauses_ends_when_it_plays_again() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["one", "two"], 1)]),
        ("one", frames(0)),
        ("two", frames(0)),
    ];
    let publisher = HandmadePublisher::start("two", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_1", 5);
    let pad = viewer.src.static_pad("video_1").expect("it is there");
    let peer = pad.peer().expect("it is linked");
    let (sender, held) = mpsc::channel();
    let block = peer
        .add_probe(
            gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER,
            move |_, _| {
                let _ = sender.send(());
                gst::PadProbeReturn::Ok
            },
        )
        .expect("a probe can be added");
    publisher.next_group("two", frames(500), true);
    held.recv_timeout(Duration::from_secs(30))
        .expect("a frame that is not taken yet");
    viewer
        .pipe
        .pipeline
        .set_state(gst::State::Paused)
        .expect("it pauses");
    publisher.next_group("catalog.json", vec![catalog(&["one"], 1)], true);
    viewer.pipe.wait("a collection of one", || {
        (collections(&viewer) == [2, 1]).then_some(())
    });
    let paused = viewer.pad("video_1").expect("it was there");
    assert!(!paused.removed, "it has not given its end yet");
    peer.remove_probe(block);
    viewer.pipe.play();
    viewer.pipe.wait("the pad to go", || {
        viewer.pad("video_1").filter(|pad| pad.removed)
    });
    assert!(viewer.pad("video_1").is_some_and(|pad| pad.has_ended()));
}
