//! Ends, the identity of a publisher, reconnection and who watches.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use iroh_live_tests::{
    Frame, LOCAL, Process, Publisher, Viewer, eventually, free_port, media::record, nick,
    secret_key, start,
};

use super::{BYTE_STREAM, RAW, content, lateness, median, types, video, video_and_audio};

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

/// The structures in a field of the statistics, by name.
fn structures(stats: &gst::Structure, field: &str) -> Vec<(String, gst::Structure)> {
    let all = stats
        .get::<gst::Structure>(field)
        .expect("the field is there");
    all.iter()
        .map(|(name, value)| (name.to_string(), value.get().expect("it is a structure")))
        .collect()
}
