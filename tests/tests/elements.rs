//! How the two elements behave in a pipeline, by the book of GStreamer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, atomic::AtomicUsize},
};

use gst::prelude::*;
use iroh_live::broadcast::{AudioCodec, AudioConfig, VideoCodec, VideoConfig};
use iroh_live_tests::{
    Frame, Item, LOCAL, Pipe, Process, Publisher, Test, Viewer,
    core::CorePublisher,
    eventually, free_port,
    media::{NalKind, Sent, annex_b, record},
    nick, secret_key, start,
};

const RAW: &str = "video/x-raw,format=I420,width=160,height=120,framerate=30/1";

const BYTE_STREAM: &str = "video/x-h264,stream-format=byte-stream";

/// Live H.264 with a key frame every half second, and no more than that in front of it.
fn video() -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! {RAW} ! x264enc tune=zerolatency key-int-max=15 ! {BYTE_STREAM}"
    )
}

/// The same with sound beside it.
fn video_and_audio() -> String {
    format!(
        "SINK  {} ! stream.video_0  audiotestsrc is-live=true wave=white-noise ! opusenc ! stream.audio_0",
        video()
    )
}

fn publish_video() -> Publisher {
    Publisher::start(&format!("{} ! SINK", video()))
}

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

fn types(items: &[Item]) -> Vec<&'static str> {
    items
        .iter()
        .map(|item| match item {
            Item::Event(event) => event.type_().name().as_str(),
            Item::Frame(_) => "buffer",
        })
        .collect()
}

#[test]
fn the_elements_say_what_they_are() {
    let _test = start();
    let flags = |element: &str| {
        let element = gst::ElementFactory::make(element)
            .build()
            .expect("the plugin is loaded");
        let flags = element.element_flags();
        (
            flags.contains(gst::ElementFlags::SINK),
            flags.contains(gst::ElementFlags::SOURCE),
        )
    };
    assert_eq!(flags("irohlivesink"), (true, false));
    assert_eq!(flags("irohlivesrc"), (false, true));
    let source = gst::Element::make_from_uri(gst::URIType::Src, "iroh-live:AAAA/x", None)
        .expect("some element takes the scheme");
    assert_eq!(
        source.factory().expect("it was made by one").name(),
        "irohlivesrc"
    );
    assert_eq!(source.property::<String>("ticket"), "iroh-live:AAAA/x");
}

#[test]
fn events_come_once_and_in_order() {
    let _test = start();
    let publisher = Publisher::start(&video_and_audio());
    let viewer = Viewer::start(&publisher.ticket());
    let pads = ["video_0", "audio_0"].map(|name| viewer.wait_frames(name, 20));
    let mut groups = Vec::new();
    let mut streams = BTreeSet::new();
    for pad in &pads {
        let types = types(&pad.items);
        let first = types
            .iter()
            .position(|name| *name == "buffer")
            .expect("it gave buffers");
        let mut serialized: Vec<_> = types[..first]
            .iter()
            .filter(|name| ["stream-start", "caps", "segment"].contains(*name))
            .collect();
        // An appsrc may give the same segment again behind the collection, which changes nothing.
        serialized.dedup();
        assert_eq!(
            serialized,
            [&"stream-start", &"caps", &"segment"],
            "{} gave {:?}",
            pad.name,
            &types[..first]
        );
        assert_eq!(types[0], "stream-start");
        for event in pad.events() {
            match event.view() {
                gst::EventView::StreamStart(start) => {
                    groups.push(
                        start
                            .group_id()
                            .expect("streams of one element belong together"),
                    );
                    streams.insert(start.stream_id().to_owned());
                }
                gst::EventView::Segment(segment) => {
                    let segment = segment.segment();
                    assert_eq!(segment.format(), gst::Format::Time);
                    let segment = segment
                        .downcast_ref::<gst::ClockTime>()
                        .expect("it is in TIME");
                    assert_eq!(segment.start(), Some(gst::ClockTime::ZERO));
                    assert_eq!(segment.rate(), 1.0);
                }
                _ => {}
            }
        }
    }
    assert!(
        groups.iter().all(|group| *group == groups[0]),
        "all pads are of one group"
    );
    assert_eq!(streams.len(), 2, "each pad has a stream id of its own");

    let signals = viewer.signals();
    let (last, added) = signals.split_last().expect("there were signals");
    assert_eq!(last, "no-more-pads");
    let added: BTreeSet<_> = added.iter().map(String::as_str).collect();
    assert_eq!(
        added,
        BTreeSet::from(["pad-added audio_0", "pad-added video_0"])
    );

    let messages = viewer.pipe.messages();
    let collections: Vec<_> = messages
        .iter()
        .filter_map(|message| match message.view() {
            gst::MessageView::StreamCollection(message) => Some(message.stream_collection()),
            _ => None,
        })
        .collect();
    let collection = collections.last().expect("a StreamCollection was posted");
    let listed: BTreeSet<_> = collection
        .iter()
        .filter_map(|stream| stream.stream_id())
        .map(|id| id.to_string())
        .collect();
    let streams: BTreeSet<_> = streams.iter().map(ToString::to_string).collect();
    assert_eq!(listed, streams);
    let types: Vec<_> = collection
        .iter()
        .map(|stream| stream.stream_type())
        .collect();
    assert!(types.contains(&gst::StreamType::VIDEO) && types.contains(&gst::StreamType::AUDIO));
}

#[test]
fn tags_follow_the_segment() {
    let _test = start();
    let mut video = VideoConfig::new("vp8".parse::<VideoCodec>().expect("it is known"));
    video.label = Some("Front door".into());
    video.bitrate = Some(123_000);
    let publisher = CorePublisher::start("tags", vec![("cam", video.into())]);
    let viewer = Viewer::start(publisher.ticket());
    let pad = viewer.wait_frames("video_0", 3);
    let types = types(&pad.items);
    let at = |name| types.iter().position(|known| *known == name);
    assert!(
        at("segment").is_some() && at("segment") < at("tag") && at("tag") < at("buffer"),
        "{types:?}"
    );
    let tags = pad.events().find_map(|event| match event.view() {
        gst::EventView::Tag(tag) => Some(tag.tag_owned()),
        _ => None,
    });
    let tags = tags.expect("there is a tag event");
    assert_eq!(
        tags.get::<gst::tags::Title>()
            .expect("the label is one")
            .get(),
        "Front door"
    );
    assert_eq!(
        tags.get::<gst::tags::MaximumBitrate>()
            .expect("it was given")
            .get(),
        123_000
    );
}

#[test]
fn several_pads_of_each_kind_travel_together() {
    let _test = start();
    let publisher = Publisher::start(
        "SINK \
         videotestsrc is-live=true ! video/x-raw,width=160,height=120 ! x264enc tune=zerolatency key-int-max=15 ! stream.video_0 \
         videotestsrc is-live=true ! video/x-raw,width=96,height=64 ! vp8enc deadline=1 keyframe-max-dist=15 ! stream.video_1 \
         audiotestsrc is-live=true ! audio/x-raw,channels=1 ! opusenc ! stream.audio_0 \
         audiotestsrc is-live=true ! audio/x-raw,rate=44100,channels=2 ! avenc_aac ! stream.audio_1",
    );
    let viewer = Viewer::start(&publisher.ticket());
    let caps = |name: &str| {
        let caps = viewer.wait_frames(name, 10).caps();
        caps.last()
            .expect("caps come before buffers")
            .to_string()
            .parse::<gst::Caps>()
            .expect("they are caps")
    };
    let is = |name: &str, expected: &str| {
        let (caps, expected) = (
            caps(name),
            expected
                .parse::<gst::Caps>()
                .expect("the test has valid caps"),
        );
        assert!(caps.is_subset(&expected), "{name}: {caps}");
    };
    is("video_0", "video/x-h264,width=160,height=120");
    is("video_1", "video/x-vp8,width=96,height=64");
    is("audio_0", "audio/x-opus,channels=1");
    is("audio_1", "audio/mpeg,rate=44100,channels=2");
    assert_eq!(
        viewer
            .signals()
            .iter()
            .filter(|signal| *signal == "no-more-pads")
            .count(),
        1
    );
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

#[test]
fn key_frames_are_flagged_and_a_late_viewer_begins_on_one_within_a_group() {
    let _test = start();
    let publisher = Publisher::start(&format!(
        "videotestsrc is-live=true pattern=ball ! {RAW} ! x264enc tune=zerolatency key-int-max=45 ! {BYTE_STREAM} ! SINK"
    ));
    let sent = record(&publisher.sink.static_pad("sink_0").expect("it is linked"));
    let sent = || sent.lock().expect("nobody panics with the lock").clone();
    // Late, and in the middle of a group.
    publisher
        .pipe
        .wait("a second group", || (sent().len() >= 70).then_some(()));
    let before = sent().len();
    let viewer = Viewer::start(&publisher.ticket());
    let log = viewer.wait_frames("video_0", 100);
    let frames: Vec<_> = log.frames().collect();
    assert!(frames[0].is_key() && frames[0].flags.contains(gst::BufferFlags::DISCONT));
    for frame in &frames {
        let idr = annex_b(&frame.data).iter().any(|unit| unit[0] & 31 == 5);
        assert_eq!(frame.is_key(), idr, "DELTA_UNIT is wrong");
        let sps = annex_b(&frame.data).iter().any(|unit| unit[0] & 31 == 7);
        assert!(!idr || sps, "a key frame without parameter sets");
    }
    assert!(frames.iter().filter(|frame| frame.is_key()).count() >= 2);
    let sent = sent();
    let slice = content(&frames[0].data);
    let first = sent
        .iter()
        .position(|sent| content(&sent.data) == slice)
        .expect("it was sent");
    assert!(sent[first].key);
    assert!(
        first + 45 >= before,
        "begins {} frames before the viewer came",
        before - first
    );
}

/// What is in an access unit, but for what parsers add and take away.
fn content(data: &[u8]) -> Vec<&[u8]> {
    let mut units = annex_b(data);
    units.retain(|unit| NalKind::h264(unit) == NalKind::Content);
    units
}

#[test]
fn the_publishers_end_reaches_the_viewer_after_the_last_frame() {
    let _test = start();
    let publisher = Publisher::start(&format!(
        "SINK  videotestsrc is-live=true pattern=ball num-buffers=100 ! {RAW} ! x264enc tune=zerolatency key-int-max=15 ! {BYTE_STREAM} ! stream.video_0 \
         audiotestsrc is-live=true wave=white-noise num-buffers=150 ! opusenc ! stream.audio_0"
    ));
    let sent = ["video_0", "audio_0"]
        .map(|name| record(&publisher.sink.static_pad(name).expect("it is linked")));
    let viewer = Viewer::new(
        &publisher.ticket(),
        "latency=10000",
        |_| Some(String::new()),
    );
    viewer.pipe.play();
    publisher.pipe.wait_eos();
    viewer.pipe.wait_eos();
    viewer.wait_status("ended");
    for (name, sent) in ["video_0", "audio_0"].into_iter().zip(sent) {
        let pad = viewer.pad(name).expect("it was there");
        assert!(pad.has_ended(), "no EOS on {name}");
        assert_eq!(
            types(&pad.items).last(),
            Some(&"eos"),
            "something comes after the end of {name}"
        );
        let last = pad.frames().last().expect("frames came").data.clone();
        let sent = sent.lock().expect("nobody panics with the lock");
        let sent = &sent.last().expect("frames were sent").data;
        if name == "video_0" {
            assert_eq!(
                content(&last),
                content(sent),
                "the end of {name} is missing"
            );
        } else {
            assert_eq!(&last, sent, "the end of {name} is missing");
        }
    }
    assert_eq!(nick(&publisher.sink, "status"), "ended");
}

#[test]
fn eos_on_demand_ends_the_viewer() {
    let _test = start();
    let publisher = Publisher::start(&video_and_audio());
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.wait_frames("audio_0", 5);
    assert!(viewer.pipe.pipeline.send_event(gst::event::Eos::new()));
    viewer.pipe.wait_eos();
}

#[test]
fn eos_on_demand_ends_a_publisher_and_its_viewer_on_the_command_line() {
    let test = start();
    let mut publisher = {
        let mut command = std::process::Command::new("gst-launch-1.0");
        let line = format!(
            "-e {} ! irohlivesink name=stream {LOCAL} bind-address=127.0.0.1:0 ticket-location={}",
            video(),
            test.file("ticket")
        );
        command.args(line.split_whitespace());
        Process::run(&test, "publisher", command)
    };
    let ticket = publisher.ticket(&test.file("ticket"));
    let mut viewer = Process::launch(
        &test,
        "viewer",
        &format!(
            "irohlivesrc {LOCAL} ticket={ticket} ! avdec_h264 ! filesink location={}",
            test.file("video")
        ),
    );
    viewer.wait("pictures", || {
        let length = std::fs::metadata(test.path("video")).ok()?.len();
        (length > 20 * 160 * 120).then_some(())
    });
    publisher.interrupt();
    let ended = publisher.end();
    assert!(ended.status.success(), "{}", ended.log);
    let ended = viewer.end();
    assert!(
        ended.status.success() && ended.log.contains("EOS"),
        "{}",
        ended.log
    );
}

#[test]
fn an_unlinked_pad_does_not_stop_the_others() {
    let _test = start();
    let publisher = Publisher::start(&video_and_audio());
    let viewer = Viewer::new(&publisher.ticket(), "", |name| {
        (name == "video_0").then(String::new)
    });
    viewer.pipe.play();
    viewer.wait_frames("video_0", 60);
    assert!(
        viewer.pad("audio_0").is_some(),
        "the other pad is there, but not linked"
    );
    assert_eq!(viewer.count("audio_0"), 0);
    assert!(viewer.pipe.error().is_none());
    // And a pad that is unlinked while it plays does not either.
    let pad = viewer.src.static_pad("video_0").expect("it is there");
    let peer = pad.peer().expect("it is linked");
    pad.unlink(&peer).expect("they are linked");
    let first = viewer.count("video_0");
    viewer.pipe.wait("the unlinked pad to be quiet", || {
        (viewer.count("video_0") - first < 60).then_some(())
    });
    pad.link(&peer).expect("they were linked before");
    viewer.wait_more_frames("video_0", 20);
}

#[test]
fn a_change_of_resolution_is_a_change_of_caps_on_the_same_pad() {
    let _test = start();
    let publisher = Publisher::start(&format!(
        "videotestsrc is-live=true pattern=ball ! capsfilter name=size caps={RAW} ! x264enc tune=zerolatency key-int-max=15 ! SINK"
    ));
    let ticket = publisher.ticket();
    let viewer = Viewer::new(&ticket, "latency=10000", |_| Some(String::new()));
    let decoded = Viewer::new(&ticket, "latency=10000", |_| Some("avdec_h264".into()));
    for viewer in [&viewer, &decoded] {
        viewer.pipe.play();
        viewer.wait_frames("video_0", 20);
    }
    let larger = RAW.replace("160", "320").replace("120", "240");
    publisher
        .pipe
        .element("size")
        .set_property_from_str("caps", &larger);
    let widths = |viewer: &Viewer| -> Vec<i32> {
        let caps = viewer.pad("video_0").expect("it is there").caps();
        caps.iter()
            .filter_map(|caps| caps.structure(0)?.get("width").ok())
            .collect()
    };
    for viewer in [&viewer, &decoded] {
        viewer.pipe.wait("the new size", || {
            (widths(viewer).last() == Some(&320)).then_some(())
        });
        viewer.wait_more_frames("video_0", 20);
        let mut widths = widths(viewer);
        widths.dedup();
        assert_eq!(widths, [160, 320]);
        assert_eq!(viewer.pads().len(), 1, "there is a second pad");
    }
}

#[test]
fn caps_change_where_the_frames_do() {
    let _test = start();
    let publisher = Publisher::start(&format!(
        "videotestsrc is-live=true pattern=ball ! capsfilter name=size caps={RAW} ! x264enc tune=zerolatency key-int-max=15 ! SINK"
    ));
    let viewer = Viewer::new(
        &publisher.ticket(),
        "latency=10000",
        |_| Some(String::new()),
    );
    viewer.pipe.play();
    viewer.wait_frames("video_0", 20);
    let larger = RAW.replace("160", "320").replace("120", "240");
    publisher
        .pipe
        .element("size")
        .set_property_from_str("caps", &larger);
    viewer.pipe.wait("the new size", || {
        (viewer.pad("video_0")?.caps().len() > 1).then_some(())
    });
    viewer.wait_more_frames("video_0", 20);
    let log = viewer.pad("video_0").expect("it is there");
    let mut width = 0;
    let mut sps_at = HashMap::<Vec<u8>, BTreeSet<i32>>::new();
    for item in &log.items {
        match item {
            Item::Event(event) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    let structure = caps.caps().structure(0).expect("the caps are fixed");
                    width = structure.get("width").expect("it is in the catalog");
                }
            }
            Item::Frame(frame) => {
                for sps in annex_b(&frame.data)
                    .into_iter()
                    .filter(|unit| unit[0] & 31 == 7)
                {
                    sps_at.entry(sps.to_vec()).or_default().insert(width);
                }
            }
        }
    }
    let widths: BTreeSet<_> = sps_at.into_values().collect();
    // The catalog may come behind the first group of the new size, never in front of the last one of the old.
    assert!(
        widths.contains(&BTreeSet::from([160])) && widths.iter().any(|seen| seen.contains(&320)),
        "caps and frames do not fit: {widths:?}"
    );
}

#[test]
fn pads_come_and_go_while_playing() {
    let _test = start();
    let publisher = publish_video();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 10);
    for round in 1..=2 {
        let name = format!("video_{round}");
        let bin = gst::parse::bin_from_description(
            "videotestsrc is-live=true ! video/x-raw,width=96,height=64,framerate=30/1 ! vp8enc deadline=1 keyframe-max-dist=15",
            true,
        )
        .expect("the description is right");
        publisher.pipe.pipeline.add(&bin).expect("it is new");
        let pad = publisher
            .sink
            .request_pad_simple("video_%u")
            .expect("more pads can be had");
        assert_eq!(pad.name(), "video_0");
        bin.static_pad("src")
            .expect("it has a pad")
            .link(&pad)
            .expect("VP8 is taken");
        bin.sync_state_with_parent().expect("it starts");

        let log = viewer.wait_frames(&name, 10);
        assert_eq!(
            log.caps()[0].structure(0).expect("they are fixed").name(),
            "video/x-vp8"
        );
        viewer.wait_more_frames("video_0", 5);

        // First what is in front of the pad: a source that pushes into nothing posts an error.
        bin.set_state(gst::State::Null).expect("it stops");
        publisher.sink.release_request_pad(&pad);
        publisher.pipe.pipeline.remove(&bin).expect("it is there");
        let log = viewer.pipe.wait("pad-removed", || {
            viewer.pad(&name).filter(|pad| pad.removed)
        });
        assert!(log.has_ended(), "the pad went without its end");
        viewer.wait_more_frames("video_0", 10);
    }
    let log = viewer.pad("video_0").expect("it is there");
    assert!(!log.removed && !log.has_ended());
    assert!(publisher.pipe.error().is_none());
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

fn last_slice(data: &[u8]) -> Vec<u8> {
    content(data)
        .last()
        .map(|unit| unit.to_vec())
        .unwrap_or_default()
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
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

#[test]
fn the_ticket_stays_the_same_with_the_same_key_and_port() {
    let test = start();
    let port = free_port();
    let publisher = Publisher::new(&format!("{} ! SINK", video()));
    publisher.sink.set_property("secret-key", secret_key(7));
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{port}"));
    publisher
        .sink
        .set_property("ticket-location", test.file("ticket"));
    publisher.pipe.play();
    let first = publisher.ticket();
    assert!(
        first.starts_with("iroh-live:") && first.ends_with("/stream"),
        "{first}"
    );
    let written = eventually("the ticket's file", || {
        std::fs::read_to_string(test.path("ticket")).ok()
    });
    assert_eq!(written.trim(), first);
    publisher.pipe.stop();
    assert_eq!(publisher.sink.property::<Option<String>>("ticket"), None);
    publisher.pipe.play();
    assert_eq!(publisher.ticket(), first);
    // Another element with the same settings is the same publisher.
    publisher.pipe.stop();
    let other = Publisher::new(&format!("{} ! SINK secret-key={}", video(), secret_key(7)));
    other
        .sink
        .set_property("bind-address", format!("127.0.0.1:{port}"));
    other.pipe.play();
    assert_eq!(other.ticket(), first);
}

#[test]
fn a_key_file_is_made_for_its_owner_alone_and_used_again() {
    use std::os::unix::fs::PermissionsExt;
    let test = start();
    let id = || {
        let publisher = Publisher::start(&format!(
            "{} ! SINK secret-key-location={}",
            video(),
            test.file("key")
        ));
        let ticket: iroh_live::LiveTicket = publisher.ticket().parse().expect("it is a ticket");
        ticket.addr().id
    };
    let first = id();
    let mode = std::fs::metadata(test.path("key"))
        .expect("it was made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(id(), first);
}

#[test]
fn a_viewer_goes_on_by_itself_when_the_publisher_comes_back() {
    let _test = start();
    let publisher = Publisher::new(&format!("{} ! SINK secret-key={}", video(), secret_key(11)));
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{}", free_port()));
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    let before = viewer.wait_frames("video_0", 30).frames().count();
    publisher.pipe.stop();
    viewer.wait_statuses(&["connected", "reconnecting"]);
    publisher.pipe.play();
    viewer.wait_statuses(&["connected", "reconnecting", "connected"]);
    let log = viewer.pipe.wait("frames on the same pad", || {
        let log = viewer.pad("video_0")?;
        let signals = viewer.signals();
        assert!(
            !log.has_ended(),
            "the restart of the publisher was taken for its end: {signals:?}"
        );
        (log.frames().count() >= before + 50).then_some(log)
    });
    assert_eq!(viewer.pads().len(), 1, "the pad stays the same");
    // What had been on its way when the publisher stopped comes first.
    let after: Vec<_> = log.frames().skip(before).cloned().collect();
    let fresh = after
        .iter()
        .position(|frame| frame.is_key() && frame.flags.contains(gst::BufferFlags::DISCONT));
    let fresh = fresh.expect("after the gap there is a key frame with DISCONT");
    // The latency is what it was.
    let late = |frames: &[Frame]| median(frames.iter().filter_map(lateness).collect());
    let frames: Vec<_> = log.frames().take(before).cloned().collect();
    let (first, second) = (late(&frames[10..]), late(&after[fresh + 10..]));
    assert!(
        first.abs_diff(second) < 150,
        "latency was {first} ms, now it is {second} ms"
    );
    let statuses = viewer.statuses();
    assert_eq!(statuses.first().map(String::as_str), Some("connecting"));
    assert!(
        !statuses
            .iter()
            .any(|status| status == "ended" || status == "failed"),
        "{statuses:?}"
    );
    let warnings = viewer.pipe.warnings();
    assert!(
        warnings.iter().any(|text| text.contains("Trying again")),
        "{warnings:?}"
    );
}

/// How many milliseconds after its time a frame came.
fn lateness(frame: &Frame) -> Option<i64> {
    let millis = |time: gst::ClockTime| i64::try_from(time.mseconds()).expect("not that long");
    Some(millis(frame.arrival?) - millis(frame.pts?))
}

#[test]
fn a_viewer_goes_on_by_itself_after_a_crash_of_the_publisher() {
    let test = start();
    let line = format!(
        "{} ! irohlivesink name=stream {LOCAL} secret-key={} bind-address=127.0.0.1:{} ticket-location={}",
        video(),
        secret_key(12),
        free_port(),
        test.file("ticket")
    );
    let mut publisher = Process::launch(&test, "publisher", &line);
    let viewer = Viewer::start(&publisher.ticket(&test.file("ticket")));
    viewer.wait_frames("video_0", 10);
    publisher.kill();
    let _publisher = Process::launch(&test, "again", &line);
    viewer.wait_statuses(&["connected", "reconnecting", "connected"]);
    viewer.wait_more_frames("video_0", 20);
    assert_eq!(viewer.pads().len(), 1, "the pad stays the same");
}

#[test]
fn subscribers_are_counted_and_named() {
    let _test = start();
    let publisher = Publisher::new(&video_and_audio());
    let signals = Arc::new(Mutex::new(Vec::new()));
    for name in ["subscriber-added", "subscriber-removed"] {
        let signals = signals.clone();
        publisher.sink.connect(name, false, move |values| {
            let id = values[1].get::<String>().expect("the signal has the id");
            signals
                .lock()
                .expect("nobody panics with the lock")
                .push((name, id));
            None
        });
    }
    publisher.pipe.play();
    let count = || publisher.sink.property::<u32>("subscribers");
    assert_eq!(count(), 0);
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 10);
    viewer.wait_frames("audio_0", 10);
    publisher
        .pipe
        .wait("one subscriber", || (count() == 1).then_some(()));

    assert_eq!(nick(&viewer.src, "path-type"), "direct");
    let stats: gst::Structure = viewer.src.property("stats");
    assert_eq!(stats.get::<&str>("path-type"), Ok("direct"));
    assert!(stats.get::<u64>("bytes-received").expect("it is there") > 1000);
    assert!(stats.get::<u64>("round-trip-time").expect("it is there") < 60_000_000_000);
    assert!(
        stats
            .get::<&str>("address")
            .expect("it is there")
            .starts_with("127.0.0.1:")
    );
    assert!(
        stats
            .get::<&str>("version")
            .expect("it is there")
            .starts_with("moq-lite")
    );
    let tracks = structures(&stats, "tracks");
    assert_eq!(tracks.len(), 2);
    for (_, track) in &tracks {
        assert!(track.get::<u64>("frames").expect("it is there") >= 10);
    }
    let id = stats.get::<String>("subscriber").expect("it is there");

    let stats: gst::Structure = publisher.sink.property("stats");
    let subscribers = structures(&stats, "subscribers");
    assert_eq!(subscribers.len(), 1);
    let (peer, path) = &subscribers[0];
    assert_eq!(*peer, id);
    assert_eq!(path.get::<&str>("path-type"), Ok("direct"));
    assert!(path.get::<u64>("packets-sent").expect("it is there") > 0);
    let tracks = structures(&stats, "tracks");
    let names: BTreeSet<_> = tracks.iter().map(|(pad, _)| pad.clone()).collect();
    assert_eq!(
        names,
        BTreeSet::from(["audio_0".to_owned(), "video_0".to_owned()])
    );
    for (_, track) in &tracks {
        assert!(track.get::<u64>("frames").expect("it is there") >= 10);
        assert!(track.get::<u64>("bytes").expect("it is there") > 0);
        assert_eq!(track.get::<bool>("watched"), Ok(true));
    }

    viewer.pipe.stop();
    publisher
        .pipe
        .wait("nobody watching", || (count() == 0).then_some(()));
    let signals = publisher.pipe.wait("both signals", || {
        let signals = signals.lock().expect("nobody panics with the lock").clone();
        (signals.len() >= 2).then_some(signals)
    });
    assert_eq!(
        signals,
        [("subscriber-added", id.clone()), ("subscriber-removed", id)]
    );
    assert_eq!(nick(&viewer.src, "path-type"), "none");
    assert_eq!(nick(&viewer.src, "status"), "idle");
}

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

/// The structures in a field of the statistics, by name.
fn structures(stats: &gst::Structure, field: &str) -> Vec<(String, gst::Structure)> {
    let all = stats
        .get::<gst::Structure>(field)
        .expect("the field is there");
    all.iter()
        .map(|(name, value)| (name.to_string(), value.get().expect("it is a structure")))
        .collect()
}

#[test]
fn audio_codecs_of_a_core_publisher_are_described_as_the_decoder_wants() {
    let _test = start();
    // Opus without a header, as browsers publish it.
    let opus = AudioConfig::new(
        "opus".parse::<AudioCodec>().expect("it is known"),
        48_000,
        2,
    );
    let publisher = CorePublisher::start("talk", vec![("mic", opus.into())]);
    let viewer = Viewer::start(publisher.ticket());
    let log = viewer.wait_frames("audio_0", 5);
    let expected: gst::Caps = "audio/x-opus,rate=48000,channels=2,channel-mapping-family=0"
        .parse()
        .expect("valid");
    assert!(log.caps()[0].is_subset(&expected), "{}", log.caps()[0]);
}
