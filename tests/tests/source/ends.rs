//! Ends, asked for by either side.

use std::{thread, time::Duration};

use gst::prelude::*;
use iroh_live_tests::{
    LOCAL, Pipe, Process, Publisher, Viewer, core::CorePublisher, free_port, nick, secret_key,
    start, ticket_of,
};

use super::{AUDIO, VIDEO, publisher_at};

#[test]
fn an_interrupt_while_it_connects_ends_gst_launch() {
    let test = start();
    let ticket = ticket_of(&secret_key(60), free_port());
    for (number, rest) in [
        "s. ! fakesink",
        "s. ! h264parse ! fakesink sync=true",
        "s. ! queue ! opusdec ! audioconvert ! fakesink",
        "s. ! queue ! h264parse ! avdec_h264 ! fakesink  s. ! queue ! opusdec ! fakesink",
        "s. ! video/x-vp8 ! queue ! vp8dec ! fakesink",
    ]
    .iter()
    .enumerate()
    {
        let line = format!("-e irohlivesrc name=s ticket={ticket} {LOCAL} {rest}");
        let mut viewer = Process::launch(&test, &format!("viewer-{number}"), &line);
        let log = viewer.log_location();
        viewer.wait("the way to the publisher", || {
            let log = std::fs::read_to_string(&log).ok()?;
            log.contains("Setting pipeline to PLAYING").then_some(())
        });
        viewer.interrupt();
        let ended = viewer.end();
        assert!(
            ended.status.success() && ended.log.contains("Got EOS"),
            "{rest}: {}",
            ended.log
        );
    }
}

#[test]
fn an_interrupt_while_it_connects_ends_gst_launch_where_an_element_waits_for_data() {
    let test = start();
    let ticket = ticket_of(&secret_key(60), free_port());
    let line = format!("-e irohlivesrc ticket={ticket} {LOCAL} ! decodebin3 ! fakesink");
    let mut viewer = Process::launch(&test, "viewer", &line);
    let log = viewer.log_location();
    viewer.wait("the way to the publisher", || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("Setting pipeline to PLAYING").then_some(())
    });
    viewer.interrupt();
    let ended = viewer.end();
    assert!(
        ended.log.contains("does not end without data"),
        "{}",
        ended.log
    );
}

#[test]
fn eos_from_the_application_ends_every_track() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK {AUDIO} ! stream."));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.wait_frames("audio_0", 5);
    assert!(viewer.src.send_event(gst::event::Eos::new()));
    viewer.pipe.wait_eos();
    assert!(viewer.pads().iter().all(|pad| pad.has_ended()));
    assert_eq!(nick(&viewer.src, "status"), "ended");
    // A second one has nothing to do.
    assert!(viewer.src.send_event(gst::event::Eos::new()));
    // It can be started again.
    viewer.pipe.stop();
    viewer.pipe.play();
    viewer.wait_more_frames("video_0", 5);
}

#[test]
fn a_broadcast_that_ends_before_it_has_anything_is_an_error() {
    let _test = start();
    let publisher = CorePublisher::start("nothing", vec![]);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_status("waiting");
    publisher.broadcast().finish();
    let error = viewer.pipe.wait_error();
    assert!(error.matches(gst::ResourceError::Read), "{error:?}");
    assert!(error.message().contains("ended"), "{error}");
    assert_eq!(nick(&viewer.src, "status"), "ended");
}

#[test]
fn a_publisher_that_stops_has_not_ended_for_a_viewer_that_has_linked_nothing() {
    let _test = start();
    let publisher = publisher_at(61, &format!("{VIDEO} ! SINK"));
    let viewer = Viewer::new(&publisher.ticket(), "", |_| None);
    viewer.pipe.play();
    viewer.wait_status("connected");
    publisher.pipe.stop();
    publisher.pipe.play();
    viewer.wait_statuses(&["connected", "reconnecting", "connected"]);
    assert!(
        !viewer.statuses().iter().any(|status| status == "ended"),
        "{:?}",
        viewer.statuses()
    );
    let warnings = viewer.pipe.warnings();
    assert!(
        warnings
            .iter()
            .any(|text| text.starts_with("The publisher stopped")),
        "{warnings:?}"
    );
}

#[test]
fn the_end_of_a_broadcast_is_seen_whatever_is_linked() {
    let _test = start();
    for linked in ["", "video_0", "audio_0"] {
        let publisher = Publisher::start(&format!("{VIDEO} ! SINK {AUDIO} ! stream."));
        let viewer = Viewer::new(&publisher.ticket(), "", move |name| {
            (name == linked).then(String::new)
        });
        viewer.pipe.play();
        viewer
            .pipe
            .wait("both pads", || (viewer.pads().len() == 2).then_some(()));
        if !linked.is_empty() {
            viewer.wait_frames(linked, 5);
        }
        publisher.pipe.pipeline.send_event(gst::event::Eos::new());
        publisher.pipe.wait_eos();
        if linked.is_empty() {
            // Nobody but the publisher knows.
            viewer.wait_status("ended");
        }
        publisher.pipe.stop();
        viewer.wait_status("ended");
        if !linked.is_empty() {
            viewer.pipe.wait_eos();
        }
    }
}

#[test]
fn an_end_before_any_pad_is_linked_is_the_end_of_the_pipeline() {
    let _test = start();
    let publisher = Publisher::start(&format!("{AUDIO} ! SINK"));
    // A picture never comes.
    let pipe = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} ! h264parse ! fakesink"
    ));
    pipe.element("s").set_property("ticket", publisher.ticket());
    pipe.play();
    pipe.wait("the sound", || {
        (nick(&pipe.element("s"), "status") == "connected").then_some(())
    });
    pipe.pipeline.send_event(gst::event::Eos::new());
    let error = pipe.wait_error();
    assert!(
        error.message().contains("does not end without data"),
        "{error}"
    );
}

#[test]
fn an_end_before_any_pad_is_linked_is_no_error_for_what_goes_on() {
    let _test = start();
    let ticket = ticket_of(&secret_key(60), free_port());
    // Another source feeds the pipeline as well.
    let other = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} ! fakesink async=false  audiotestsrc is-live=true ! fakesink"
    ));
    // It has ended, and nobody stops it.
    let whole = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} ! fakesink async=false"
    ));
    for pipe in [&other, &whole] {
        pipe.element("s").set_property("ticket", &ticket);
        pipe.play();
        assert!(pipe.element("s").send_event(gst::event::Eos::new()));
    }
    whole.wait_eos();
    // Longer than a pipeline may take to end.
    thread::sleep(Duration::from_secs(4));
    for pipe in [&other, &whole] {
        assert!(pipe.error().is_none(), "{:?}", pipe.error());
    }
}
