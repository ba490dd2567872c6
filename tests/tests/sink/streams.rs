//! What comes into the pads: ends, gaps, other caps and codecs.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use gst::prelude::*;
use iroh_live_tests::{Frame, Pipe, Publisher, Viewer, nick, start};

use super::VIDEO;

/// What the sink's statistics say of its pads: their names, and those of their tracks.
fn tracks(sink: &gst::Element) -> Vec<(String, String)> {
    let stats: gst::Structure = sink.property("stats");
    let tracks: gst::Structure = stats.get("tracks").expect("it is there");
    let name = |track: gst::Structure| track.get("name").expect("it is there");
    tracks
        .iter()
        .map(|(pad, track)| {
            (
                pad.to_string(),
                name(track.get().expect("it is a structure")),
            )
        })
        .collect()
}

#[test]
fn tracks_are_named_by_what_they_carry_however_their_pads_are_linked() {
    let _test = start();
    let publisher = Publisher::start(&format!(
        "{VIDEO} ! queue ! SINK  audiotestsrc is-live=true ! opusenc ! queue ! stream."
    ));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.wait_frames("audio_0", 5);
    let named = |pad: &str, track: &str| (pad.to_owned(), track.to_owned());
    assert_eq!(
        tracks(&publisher.sink),
        [named("sink_0", "video_0"), named("sink_1", "audio_0")]
    );
}

#[test]
fn the_stream_ends_when_all_that_is_linked_has_ended() {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "SINK  {VIDEO} ! stream.video_0  audiotestsrc is-live=true ! opusenc ! stream.audio_0"
    ));
    let ends = |pad: &str| {
        let pad = publisher.sink.static_pad(pad).expect("it is linked");
        assert!(pad.send_event(gst::event::Eos::new()));
    };
    let _never_linked = publisher.sink.request_pad_simple("video_7");
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.wait_frames("audio_0", 5);
    ends("video_0");
    assert_eq!(nick(&publisher.sink, "status"), "published");
    // Sound is unlinked instead of ended.
    let audio = publisher.sink.static_pad("audio_0").expect("it is linked");
    let peer = audio.peer().expect("it is linked");
    let _ = peer.unlink(&audio);
    publisher.pipe.wait("the end", || {
        (nick(&publisher.sink, "status") == "ended").then_some(())
    });
}

/// Adds elements to a pipeline that plays, and links what comes out of them.
fn link_late(publisher: &Publisher, description: &str, pad: &gst::Pad) {
    let bin = gst::parse::bin_from_description(description, true).expect("it is well-formed");
    publisher.pipe.pipeline.add(&bin).expect("it is new");
    let source = bin.static_pad("src").expect("it has one");
    source.link(pad).expect("it fits");
    bin.sync_state_with_parent().expect("it starts");
}

#[test]
fn pads_that_are_linked_after_the_end_are_all_in_the_broadcast_that_follows() {
    let _test = start();
    let publisher = Publisher::new(&format!("{VIDEO} ! SINK"));
    let request = |name: &str| {
        let pad = publisher.sink.request_pad_simple(name);
        pad.expect("there is none of that name")
    };
    let before = request("audio_3");
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let pad = publisher.sink.static_pad("sink_0").expect("it is linked");
    assert!(pad.send_event(gst::event::Eos::new()));
    publisher.pipe.wait("the end", || {
        (nick(&publisher.sink, "status") == "ended").then_some(())
    });
    viewer.pipe.wait_eos();
    let [first, second] = ["video_5", "audio_5"].map(request);
    link_late(&publisher, VIDEO, &first);
    publisher.pipe.wait("another broadcast", || {
        (nick(&publisher.sink, "status") == "published").then_some(())
    });
    for pad in [second, before] {
        link_late(&publisher, "audiotestsrc is-live=true ! opusenc", &pad);
    }
    let viewer = Viewer::start(&publisher.ticket());
    viewer.pipe.wait("a picture and two sounds", || {
        let pads = viewer.pads();
        let flowing = pads.iter().filter(|pad| pad.frames().count() > 5);
        (flowing.count() == 3).then_some(())
    });
}

#[test]
fn a_track_that_ends_and_begins_again_under_its_name_is_another_pad_to_viewers() {
    let _test = start();
    // The sound keeps the broadcast from ending.
    let publisher = Publisher::start("audiotestsrc is-live=true ! opusenc ! SINK");
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 5);
    let mut seen = HashSet::new();
    for round in 0..6 {
        let pad = publisher.sink.request_pad_simple("video_7");
        let pad = pad.expect("it is free");
        link_late(&publisher, VIDEO, &pad);
        let log = viewer.wait_frames(&format!("video_{round}"), 10);
        assert!(log.frames().next().is_some_and(Frame::is_key));
        for frame in log.frames() {
            assert!(
                seen.insert(frame.pts),
                "round {round}: what was there before comes again"
            );
        }
        assert!(tracks(&publisher.sink).contains(&("video_7".to_owned(), "video_7".to_owned())));
        if round % 2 == 0 {
            assert!(pad.send_event(gst::event::Eos::new()));
        }
        publisher.sink.release_request_pad(&pad);
    }
}

#[test]
fn a_discontinuity_of_upstream_reaches_the_viewer() {
    let _test = start();
    let publisher = Publisher::new(&format!("SINK  {VIDEO} ! stream.video_0"));
    let pad = publisher.sink.static_pad("video_0").expect("it is linked");
    let keys = AtomicUsize::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT)
            && keys.fetch_add(1, Ordering::Relaxed) % 4 == 3
        {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        gst::PadProbeReturn::Ok
    });
    publisher.pipe.play();
    let viewer = Viewer::new(&publisher.ticket(), "latency=5000", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.pipe.wait("a second discontinuity", || {
        let log = viewer.pad("video_0")?;
        let marked = log
            .frames()
            .skip(1)
            .filter(|frame| frame.flags.contains(gst::BufferFlags::DISCONT));
        (marked.count() > 0).then_some(())
    });
}

/// Live H.264 whose encoder makes no key frame after the first, unless it is asked.
const RARE_KEYS: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
                         x264enc tune=zerolatency key-int-max=100000";

#[test]
fn a_frame_that_was_lost_upstream_asks_for_a_key_frame() {
    let _test = start();
    let publisher = Publisher::new(&format!("{RARE_KEYS} ! identity ! SINK"));
    let pad = publisher.sink.static_pad("sink_0").expect("it is linked");
    let count = AtomicUsize::new(0);
    pad.peer()
        .expect("it is linked")
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            match (count.fetch_add(1, Ordering::Relaxed), info.buffer_mut()) {
                (30, _) => return gst::PadProbeReturn::Drop,
                (31, Some(buffer)) => buffer.make_mut().set_flags(gst::BufferFlags::DISCONT),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    let log = viewer.pipe.wait("a second key frame", || {
        let log = viewer.pad("video_0")?;
        (log.frames().filter(|frame| frame.is_key()).count() >= 2).then_some(log)
    });
    let second = log.frames().filter(|frame| frame.is_key()).nth(1);
    let second = second.expect("there are two");
    assert!(second.flags.contains(gst::BufferFlags::DISCONT));
    // Asked for once, not again and again.
    let before = log.frames().count();
    let log = viewer.wait_frames("video_0", before + 60);
    assert_eq!(log.frames().filter(|frame| frame.is_key()).count(), 2);
}

#[test]
fn a_stream_that_begins_after_an_end_without_a_flush_is_published() {
    let _test = start();
    let frames = encoded(
        "videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
        x264enc tune=zerolatency ! video/x-h264,stream-format=byte-stream,alignment=au",
    );
    let publisher = Publisher::new("SINK sync=false");
    let pad = publisher.sink.request_pad_simple("video_0");
    let source = gst::Pad::new(gst::PadDirection::Src);
    source
        .link(&pad.expect("there is none of that name"))
        .expect("it takes anything");
    source.set_active(true).expect("it can be");
    publisher.pipe.play();
    let status = |status: &str| {
        publisher.pipe.wait(status, || {
            (nick(&publisher.sink, "status") == status).then_some(())
        });
    };
    for round in 0..3 {
        let stream = gst::event::StreamStart::new(&format!("stream {round}"));
        assert!(source.push_event(stream));
        assert!(source.push_event(gst::event::Caps::new(&frames.0)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(source.push_event(gst::event::Segment::new(&segment)));
        let viewer = std::cell::OnceCell::new();
        for (number, buffer) in frames.1.iter().enumerate() {
            let mut buffer = buffer.copy();
            // The pipeline's time goes on.
            let now = publisher.pipe.pipeline.current_running_time();
            buffer.make_mut().set_pts(now);
            buffer.make_mut().set_dts(gst::ClockTime::NONE);
            source.push(buffer).expect("it is taken");
            if number == 0 {
                status("published");
            }
            let viewer = viewer.get_or_init(|| Viewer::start(&publisher.ticket()));
            viewer.wait_frames("video_0", number + 1);
        }
        assert!(source.push_event(gst::event::Eos::new()));
        status("ended");
        viewer.into_inner().expect("there is one").pipe.wait_eos();
    }
}

#[test]
fn after_a_pause_the_group_of_pictures_goes_on() {
    let _test = start();
    let publisher = Publisher::start(&format!("{RARE_KEYS} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 20);
    for state in [gst::State::Paused, gst::State::Playing] {
        publisher
            .pipe
            .pipeline
            .set_state(state)
            .expect("the state changes");
        std::thread::sleep(Duration::from_millis(300));
    }
    let log = viewer.wait_more_frames("video_0", 20);
    assert_eq!(log.frames().filter(|frame| frame.is_key()).count(), 1);
}

#[test]
fn new_caps_within_a_group_of_pictures_ask_for_a_key_frame() {
    let _test = start();
    let publisher = Publisher::new(
        "SINK  videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1 ! \
         vp8enc deadline=1 keyframe-max-dist=100000 ! identity ! stream.video_0",
    );
    let pad = publisher.sink.static_pad("video_0").expect("it is linked");
    let source = pad.peer().expect("it is linked");
    let count = AtomicUsize::new(0);
    source.add_probe(gst::PadProbeType::BUFFER, move |source, _| {
        if count.fetch_add(1, Ordering::Relaxed) == 30 {
            let mut caps = source.current_caps().expect("they come before buffers");
            caps.make_mut().set("framerate", gst::Fraction::new(25, 1));
            source.push_event(gst::event::Caps::new(&caps));
        }
        gst::PadProbeReturn::Ok
    });
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.pipe.wait("a second key frame", || {
        let log = viewer.pad("video_0")?;
        (log.frames().filter(|frame| frame.is_key()).count() >= 2).then_some(())
    });
    viewer.wait_more_frames("video_0", 20);
}

#[test]
fn an_encoder_that_holds_pictures_back_is_spoken_of() {
    let _test = start();
    let slow = Publisher::start(&format!("{} ! SINK", VIDEO.replace("tune=zerolatency", "")));
    slow.pipe.wait_warning("tune=zerolatency");
    let fast = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&fast.ticket());
    viewer.wait_frames("video_0", 30);
    assert_eq!(fast.pipe.warnings(), Vec::<String>::new());
}

/// All that comes out of a pipeline, and its caps.
fn encoded(description: &str) -> (gst::Caps, Vec<gst::Buffer>) {
    let pipe = Pipe::parse(&format!("{description} ! appsink name=out sync=false"));
    pipe.play();
    let out = pipe
        .element("out")
        .downcast::<gst_app::AppSink>()
        .expect("that is what it is");
    let samples: Vec<_> = std::iter::from_fn(|| out.pull_sample().ok()).collect();
    let caps = samples.first().and_then(|sample| sample.caps_owned());
    let buffers = samples.iter().filter_map(|sample| sample.buffer_owned());
    (caps.expect("something comes out"), buffers.collect())
}

#[test]
fn buffers_are_no_measure_of_whether_a_stream_is_in_order() {
    let _test = start();
    // Before the first key frame thousands of buffers come, of a few bytes each.
    let publisher = Publisher::new(
        "SINK  appsrc name=bytes is-live=true format=bytes caps=video/x-h264,stream-format=byte-stream ! stream.video_0 \
         audiotestsrc is-live=true ! opusenc ! stream.audio_0",
    );
    let (_, stream) = encoded(
        "videotestsrc num-buffers=40 ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
         x264enc tune=zerolatency key-int-max=20 ! video/x-h264,stream-format=byte-stream",
    );
    publisher.pipe.play();
    let bytes = publisher
        .pipe
        .element("bytes")
        .downcast::<gst_app::AppSrc>()
        .expect("that is what it is");
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 10);
    let mut joined = false;
    let mut pieces = 0;
    for buffer in stream.iter().skip(1) {
        let frame = iroh_live_tests::bytes_of(buffer);
        joined |= !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let size = if joined { frame.len() } else { 1 };
        for piece in frame.chunks(size) {
            pieces += 1;
            bytes
                .push_buffer(gst::Buffer::from_slice(piece.to_vec()))
                .expect("it is taken");
        }
    }
    assert!(pieces > 2000, "{pieces}");
    viewer.wait_frames("video_0", 10);
    assert_eq!(publisher.pipe.warnings(), Vec::<String>::new());
}

#[test]
fn a_pad_whose_codec_changes_goes_on() {
    let _test = start();
    let raw =
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1";
    let publisher = Publisher::start(&format!(
        "input-selector name=select ! SINK \
         {raw} ! x264enc tune=zerolatency key-int-max=15 ! select.sink_0 \
         {raw} ! vp8enc deadline=1 keyframe-max-dist=15 ! select.sink_1"
    ));
    // Each takes the one codec.
    let viewer = Viewer::new(&publisher.ticket(), "", |name| {
        let only = match name {
            "video_1" => "capsfilter caps=video/x-vp8",
            _ => "h264parse",
        };
        Some(only.to_owned())
    });
    viewer.pipe.play();
    let carries = |codec: &str| {
        viewer.pipe.wait(codec, || {
            let pads = viewer.pads();
            let pad = pads.iter().rfind(|pad| !pad.removed && !pad.has_ended())?;
            let caps = pad.caps().pop()?;
            let is_it = caps.structure(0)?.name() == codec;
            (is_it && pad.frames().count() > 20).then_some(())
        });
    };
    let select = publisher.pipe.element("select");
    for (number, codec) in ["video/x-h264", "video/x-vp8", "video/x-h264"]
        .iter()
        .enumerate()
    {
        let pad = select.static_pad(&format!("sink_{}", number % 2));
        select.set_property("active-pad", pad);
        carries(codec);
    }
    assert_eq!(
        tracks(&publisher.sink),
        [("sink_0".to_owned(), "video_0".to_owned())]
    );
}
