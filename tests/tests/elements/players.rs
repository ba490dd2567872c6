//! Elements and players of GStreamer's own behind the source.

use gst::prelude::*;
use iroh_live_tests::{LOCAL, Pipe, Process, Publisher, start};

use super::video_and_audio;

#[test]
fn playbin3_plays_a_ticket() {
    let _test = start();
    let publisher = Publisher::start(&video_and_audio());
    let viewer = Pipe::parse("playbin3 name=p video-sink=fakesink audio-sink=fakesink");
    let play = viewer.pipeline.clone();
    // The element inside has to stay on this machine as well.
    play.connect("source-setup", false, |values| {
        let source = values[1]
            .get::<gst::Element>()
            .expect("the signal has the source");
        source.set_property_from_str("relay-mode", "disabled");
        source.set_property_from_str("address-lookup", "none");
        None
    });
    play.set_property("uri", publisher.ticket());
    viewer.play();
    viewer.wait("picture and sound", || {
        let rendered = |sink: &str| {
            let sink = play.property::<Option<gst::Element>>(sink)?;
            let bin = sink.downcast_ref::<gst::Bin>();
            let sink = bin.map_or(Some(sink.clone()), |bin| {
                bin.iterate_sinks().into_iter().flatten().next()
            })?;
            sink.property::<gst::Structure>("stats")
                .get::<u64>("rendered")
                .ok()
        };
        (rendered("video-sink")? > 20 && rendered("audio-sink")? > 20).then_some(())
    });
}

#[test]
fn decodebin3_decodes_both_pads_on_the_command_line() {
    let test = start();
    let publisher = Publisher::start(&video_and_audio());
    let mut viewer = Process::launch(
        &test,
        "viewer",
        &format!(
            "irohlivesrc {LOCAL} ticket={} name=s \
             s.video_0 ! queue ! decodebin3 ! videoconvert ! video/x-raw,format=RGB ! filesink location={} \
             s.audio_0 ! queue ! decodebin3 ! audioconvert ! audio/x-raw,format=S16LE ! filesink location={}",
            publisher.ticket(),
            test.file("video"),
            test.file("audio")
        ),
    );
    viewer.wait("picture and sound", || {
        let length = |name| Some(std::fs::metadata(test.path(name)).ok()?.len());
        (length("video")? > 20 * 160 * 120 * 3 && length("audio")? > 48_000).then_some(())
    });
}
