//! Media and catalogs that nothing can be made of.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;
use iroh_live::{
    EncodedFrame, LocalBroadcast,
    broadcast::{VideoConfig, catalog::VideoCodec},
};
use iroh_live_tests::{
    Publisher, Viewer,
    core::CorePublisher,
    peer::{HandmadePublisher, catalog, legacy_frame},
    start,
};

use super::{VIDEO, failure, noise, says, source_failure};

#[test]
fn raw_media_into_a_pad() {
    let _test = start();
    let error = failure(&Publisher::new("videotestsrc is-live=true ! SINK").pipe);
    says(&error, gst::StreamError::WrongType, &["sink_0", "x264enc"]);
    let error = failure(&Publisher::new("SINK  audiotestsrc is-live=true ! stream.audio_0").pipe);
    says(&error, gst::StreamError::WrongType, &["audio_0", "opusenc"]);
}

#[test]
fn raw_media_into_one_pad_of_several() {
    let _test = start();
    // Not live, so that the pipeline plays only when each pad has something.
    let publisher = Publisher::start(
        "SINK  videotestsrc ! stream.video_0  audiotestsrc ! opusenc ! stream.audio_0",
    );
    let warning = publisher.pipe.wait_warning("video_0");
    assert!(warning.contains("x264enc"), "{warning}");
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 30);
    // The last of them is another matter.
    let audio = publisher.sink.static_pad("audio_0").expect("it is linked");
    let peer = audio.peer().expect("it is linked");
    peer.push_event(gst::event::Eos::new());
    let raw = publisher
        .sink
        .request_pad_simple("audio_1")
        .expect("there is none of that name");
    let tone = gst::ElementFactory::make("audiotestsrc")
        .build()
        .expect("it is there");
    publisher.pipe.pipeline.add(&tone).expect("it is new");
    let source = tone.static_pad("src").expect("it has one");
    source.link(&raw).expect("it fits");
    tone.sync_state_with_parent().expect("it starts");
    let error = publisher.pipe.wait_error();
    says(&error, gst::StreamError::WrongType, &["audio_1", "opusenc"]);
}

/// Publishes noise on one pad beside sound that is in order.
fn noise_on_one_pad(caps: &str) {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "SINK  appsrc name=noise is-live=true format=time do-timestamp=true caps={caps} ! stream.video_0 \
         audiotestsrc is-live=true ! opusenc ! stream.audio_0"
    ));
    publisher.pipe.play();
    let noisy = publisher
        .pipe
        .element("noise")
        .downcast::<gst_app::AppSrc>()
        .expect("that is what it is");
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 10);
    let mut seed = 0;
    let warning = publisher
        .pipe
        .wait("a warning that nothing comes of it", || {
            seed += 1;
            // Taken or refused: that is the sink's business.
            let _ = noisy.push_buffer(gst::Buffer::from_slice(noise(2000, seed)));
            std::thread::sleep(Duration::from_millis(2));
            publisher
                .pipe
                .warnings()
                .into_iter()
                .find(|text| text.contains("video_0"))
        });
    assert!(warning.contains("Nothing has come of"), "{warning}");
    viewer.wait_more_frames("audio_0", 30);
    let late = Viewer::start(&publisher.ticket());
    late.wait_frames("audio_0", 10);
}

#[test]
fn noise_instead_of_h264_in_a_byte_stream() {
    noise_on_one_pad("video/x-h264,stream-format=byte-stream,alignment=au");
}

#[test]
fn noise_instead_of_h264_in_avc() {
    // The configuration record is in order, what follows is not.
    noise_on_one_pad(
        "video/x-h264,stream-format=avc,alignment=au,width=320,height=240,codec_data=(buffer)\
         01f4000dffe1001b67f4000d919640507ec05a83030320000003002000000791e2854901000668ebcc448440",
    );
}

#[test]
fn noise_instead_of_aac() {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "SINK  {VIDEO} ! stream.video_0  \
         appsrc name=noise is-live=true format=time do-timestamp=true caps=audio/mpeg,mpegversion=4,stream-format=adts ! stream.audio_0"
    ));
    publisher.pipe.play();
    let noisy = publisher
        .pipe
        .element("noise")
        .downcast::<gst_app::AppSrc>()
        .expect("that is what it is");
    let viewer = Viewer::start(&publisher.ticket());
    for seed in 0..50 {
        let _ = noisy.push_buffer(gst::Buffer::from_slice(noise(2000, seed)));
    }
    let _ = noisy.end_of_stream();
    viewer.wait_frames("video_0", 30);
    assert!(publisher.pipe.error().is_none());
}

#[test]
fn a_catalog_by_hand_is_understood() {
    // So that the tests that follow fail for what they are about.
    let _test = start();
    let frames = (0..5)
        .map(|n| legacy_frame(n * 33_000, b"picture"))
        .collect();
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames),
    ];
    let publisher = HandmadePublisher::start("by hand", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    let log = viewer.wait_frames("video_0", 5);
    assert!(log.frames().all(|frame| frame.data == "picture"));
}

#[test]
fn a_group_that_breaks_off_is_a_discontinuity() {
    let _test = start();
    let begin = Instant::now();
    let frames = || {
        let now = u64::try_from(begin.elapsed().as_micros()).expect("not that long");
        (0..5).map(|n| legacy_frame(now + n, b"picture")).collect()
    };
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames()),
    ];
    let publisher = HandmadePublisher::start("by hand", &tracks);
    // A group whose end comes late is waited for: only what breaks off is to be a discontinuity.
    let viewer = Viewer::new(publisher.ticket(), "latency=20000", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
    publisher.next_group("cam", frames(), true);
    viewer.wait_frames("video_0", 10);
    publisher.next_group("cam", frames(), false);
    let log = viewer.wait_frames("video_0", 15);
    let marked: Vec<_> = log
        .frames()
        .enumerate()
        .filter(|(_, frame)| frame.flags.contains(gst::BufferFlags::DISCONT))
        .map(|(n, _)| n)
        .collect();
    assert_eq!(marked, [0, 10]);
}

#[test]
fn a_catalog_that_is_not_json() {
    let _test = start();
    for bad in [
        "this is no catalog",
        "{\"video\":",
        "[1,2,3]",
        "\u{0}\u{1}\u{2}",
        "{\"video\":7}",
    ] {
        let publisher =
            HandmadePublisher::start("bad", &[("catalog.json", vec![Bytes::from(bad)])]);
        let viewer = Viewer::start(publisher.ticket());
        let error = viewer.pipe.wait_error();
        says(
            &error,
            gst::StreamError::Format,
            &["catalog", "Ask the publisher"],
        );
    }
}

#[test]
fn a_catalog_with_nothing_but_an_unknown_codec() {
    let _test = start();
    let config =
        |codec: &str| VideoConfig::new(codec.parse::<VideoCodec>().expect("any text is a codec"));
    let publisher = CorePublisher::start("strange", vec![("cam", config("x266.9").into())]);
    let viewer = Viewer::start(publisher.ticket());
    let warning = viewer.pipe.wait_warning("x266.9");
    for part in ["cam", "Update this plugin"] {
        assert!(warning.contains(part), "{warning}");
    }
    // With a limit it is an error.
    let error = source_failure(Some(publisher.ticket()), "timeout=500");
    says(
        &error,
        gst::StreamError::CodecNotFound,
        &["cam", "x266.9", "Update this plugin", "timeout"],
    );
    // The one without is still there when something comes that is known.
    let broadcast = publisher.broadcast();
    let mut known = broadcast
        .publish_track("known", config("vp8"))
        .expect("the name is a new one");
    viewer.pipe.wait("the track that is known", || {
        let frame = EncodedFrame::new(LocalBroadcast::now(), vec![0; 9], true);
        known.write(frame).expect("the broadcast is there");
        std::thread::sleep(Duration::from_millis(20));
        (viewer.count("video_0") > 5).then_some(())
    });
    assert_eq!(viewer.statuses(), ["connecting", "waiting", "connected"]);
}

#[test]
fn a_broadcast_that_ends_with_nothing_but_an_unknown_codec() {
    let _test = start();
    let strange = VideoConfig::new("x266.9".parse::<VideoCodec>().expect("any text is a codec"));
    let publisher = CorePublisher::start("strange", vec![("cam", strange.into())]);
    let viewer = Viewer::start(publisher.ticket());
    viewer.pipe.wait_warning("x266.9");
    publisher.broadcast().finish();
    says(
        &viewer.pipe.wait_error(),
        gst::StreamError::CodecNotFound,
        &["ended", "cam", "x266.9", "Update this plugin"],
    );
}

#[test]
fn an_unknown_codec_beside_a_known_one() {
    let _test = start();
    let config =
        |codec: &str| VideoConfig::new(codec.parse::<VideoCodec>().expect("any text is a codec"));
    let publisher = CorePublisher::start(
        "half",
        vec![
            ("strange", config("x266.9").into()),
            ("known", config("vp8").into()),
        ],
    );
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_0", 20);
    let warning = viewer.pipe.wait_warning("x266.9");
    assert!(
        warning.contains("Left out") && warning.contains("strange"),
        "{warning}"
    );
    assert_eq!(viewer.pads().len(), 1);
}

#[test]
fn a_track_that_carries_no_frames() {
    let _test = start();
    let good = (0..5)
        .map(|n| legacy_frame(n * 33_000, b"picture"))
        .collect::<Vec<_>>();
    let tracks = [
        ("catalog.json", vec![catalog(&["bad", "good"], 1)]),
        // A frame too short for its timestamp.
        ("bad", vec![Bytes::from_static(&[0xff]), Bytes::new()]),
        ("good", good),
    ];
    let publisher = HandmadePublisher::start("half bad", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    let warning = viewer.pipe.wait_warning("bad");
    assert!(warning.contains("left out"), "{warning}");
    viewer.pipe.wait("the good track", || {
        viewer
            .pads()
            .iter()
            .any(|pad| pad.frames().count() >= 5)
            .then_some(())
    });
}
