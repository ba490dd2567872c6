//! Pads, their events and caps.

use std::collections::{BTreeSet, HashMap};

use gst::prelude::*;
use iroh_live::broadcast::{
    AudioConfig, VideoConfig,
    catalog::{AudioCodec, VideoCodec},
};
use iroh_live_tests::{
    Item, Publisher, Viewer,
    core::CorePublisher,
    media::{annex_b, record},
    start,
};

use super::{BYTE_STREAM, RAW, content, publish_video, types, video_and_audio};

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
