//! Files that are played, sought in and paced.

use std::time::{Duration, Instant};

use gst::prelude::*;
use iroh_live_tests::{
    Pipe, Publisher, Test, Viewer,
    media::{NalKind, annex_b, length_prefixed, record},
    nick, start,
};

/// A file with H.264, a key frame each second, and sound, of that many seconds.
fn movie(test: &Test, seconds: u32) -> String {
    let location = test.file("movie.mp4");
    let pipe = Pipe::parse(&format!(
        "mp4mux name=mux ! filesink location={location} \
         videotestsrc num-buffers={} pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
         x264enc key-int-max=30 ! h264parse ! mux. \
         audiotestsrc num-buffers={} samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse ! mux.",
        seconds * 30,
        seconds * 48_000 / 1024
    ));
    pipe.play();
    pipe.wait_eos();
    location
}

/// A pipeline that publishes a file's picture and sound.
fn publish_movie(location: &str) -> Publisher {
    Publisher::new(&format!(
        "SINK  filesrc location={location} ! qtdemux name=d  d.video_0 ! queue ! stream.video_0  d.audio_0 ! queue ! stream.audio_0"
    ))
}

fn rewind(publisher: &Publisher) {
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
    publisher
        .pipe
        .pipeline
        .seek_simple(flags, gst::ClockTime::ZERO)
        .expect("a file can be sought in");
}

#[test]
fn a_file_that_is_played_again_is_published_again() {
    let test = start();
    let publisher = publish_movie(&movie(&test, 2));
    publisher.pipe.play();
    let first = Viewer::start(&publisher.ticket());
    publisher.pipe.wait_eos();
    first.pipe.wait_eos();
    drop(first);
    assert_eq!(nick(&publisher.sink, "status"), "ended");
    let subscribers = |count: u32| {
        publisher.pipe.wait(&format!("{count} subscribers"), || {
            (publisher.sink.property::<u32>("subscribers") == count).then_some(())
        });
    };
    for round in 0..2 {
        subscribers(0);
        publisher.pipe.forget();
        rewind(&publisher);
        // Not over before the viewer is there, however long that takes.
        publisher
            .pipe
            .pipeline
            .set_state(gst::State::Paused)
            .expect("it pauses");
        let viewer = Viewer::new(&publisher.ticket(), "latency=5000", |_| Some(String::new()));
        viewer.pipe.play();
        subscribers(1);
        assert_eq!(
            nick(&publisher.sink, "status"),
            "published",
            "round {round}"
        );
        publisher.pipe.play();
        publisher.pipe.wait_eos();
        viewer.pipe.wait_eos();
        // All but the first few, which may have come before the pause.
        for (pad, count) in [("audio_0", 20), ("video_0", 25)] {
            assert!(viewer.count(pad) >= count, "round {round}: {pad}");
        }
        assert_eq!(nick(&publisher.sink, "status"), "ended");
    }
}

/// The picture itself in an access unit, however it is written.
fn slice(units: Vec<&[u8]>) -> Option<Vec<u8>> {
    let last = units
        .into_iter()
        .rfind(|unit| NalKind::h264(unit) == NalKind::Content);
    last.map(<[u8]>::to_vec)
}

#[test]
fn a_flushing_seek_loses_no_picture_and_the_file_is_paced_from_there() {
    let test = start();
    let publisher = publish_movie(&movie(&test, 4));
    let sent = record(&publisher.sink.static_pad("video_0").expect("it is linked"));
    publisher.pipe.play();
    // A machine that is busy may be slow: nothing is to be left out for that.
    let properties = "latency=2000 max-lag=20000";
    let viewer = Viewer::new(&publisher.ticket(), properties, |_| Some(String::new()));
    viewer.pipe.play();
    viewer.wait_frames("video_0", 60);
    let before = sent.lock().expect("nobody panics with the lock").len();
    let sought = Instant::now();
    rewind(&publisher);
    publisher.pipe.wait_eos();
    assert!(
        sought.elapsed() >= Duration::from_secs(3),
        "four seconds of film were sent in {:?}",
        sought.elapsed()
    );
    viewer.pipe.wait_eos();
    let log = viewer.pad("video_0").expect("it was there");
    let frames: Vec<_> = log.frames().collect();
    let sent = sent.lock().expect("nobody panics with the lock");
    // What came behind the seek begins with the file's first picture.
    let first = slice(length_prefixed(&sent[0].data)).expect("there is a picture");
    let again = frames
        .iter()
        .rposition(|frame| slice(annex_b(&frame.data)).as_ref() == Some(&first))
        .expect("the first picture came");
    assert!(again > 30, "the first picture came once only");
    assert!(
        frames[again].is_key() && frames[again].flags.contains(gst::BufferFlags::DISCONT),
        "what comes after a seek is a discontinuity"
    );
    assert_eq!(frames.len() - again, 120, "of {} sent", sent.len() - before);
    let times: Vec<_> = frames.iter().filter_map(|frame| frame.pts).collect();
    assert!(times[again] > times[again - 1], "time went backwards");
}

#[test]
fn a_pad_can_be_released_while_the_pipeline_is_paused() {
    let test = start();
    let publisher = publish_movie(&movie(&test, 2));
    publisher
        .pipe
        .pipeline
        .set_state(gst::State::Paused)
        .expect("it starts");
    let pad = publisher.sink.static_pad("video_0").expect("it is linked");
    let sent = record(&pad);
    publisher.pipe.wait("a buffer that waits", || {
        (!sent.lock().expect("nobody panics with the lock").is_empty()).then_some(())
    });
    publisher.sink.release_request_pad(&pad);
    assert!(publisher.sink.static_pad("video_0").is_none());
    // The other one goes on.
    let viewer = Viewer::start(&publisher.ticket());
    publisher.pipe.play();
    viewer.wait_frames("audio_0", 60);
    assert!(viewer.pad("video_0").is_none());
}

#[test]
fn a_file_that_need_not_be_paced_is_sent_at_once() {
    let test = start();
    let publisher = publish_movie(&movie(&test, 20));
    publisher.sink.set_property("sync", false);
    publisher.pipe.play();
    publisher.pipe.wait_eos();
    let took = publisher
        .pipe
        .pipeline
        .current_running_time()
        .expect("the clock runs");
    assert!(took < gst::ClockTime::from_seconds(19), "took {took}");
}
