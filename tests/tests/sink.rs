//! How `irohlivesink` behaves: in the states of a pipeline, towards the application, and towards what is upstream.

use std::{
    collections::HashSet,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use iroh_live_tests::{
    Frame, LOCAL, PATIENCE, Pipe, Process, Publisher, Test, Viewer, eventually,
    media::{NalKind, annex_b, length_prefixed, record},
    nick, start,
};

/// Live H.264 with a key frame every half second.
const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
                     x264enc tune=zerolatency key-int-max=15";

fn sink(properties: &str) -> gst::Element {
    gst::parse::launch(&format!("irohlivesink {LOCAL} {properties}")).expect("the plugin is loaded")
}

#[test]
fn a_sync_handler_that_waits_for_the_one_who_stops_the_element_does_not_keep_it_from_stopping() {
    let _test = start();
    let sink = sink("ticket-location=/nowhere/at/all");
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    let held = Arc::new(Mutex::new(()));
    let guard = held.lock().expect("it is new");
    let (sender, called) = mpsc::channel();
    let wanted = held.clone();
    bus.set_sync_handler(move |_, message| {
        if message.type_() == gst::MessageType::Error {
            let _ = sender.send(());
            drop(wanted.lock());
        }
        gst::BusSyncReply::Drop
    });
    sink.set_state(gst::State::Ready).expect("it starts");
    called.recv_timeout(PATIENCE).expect("there is an error");
    let (sender, stopped) = mpsc::channel();
    let element = sink.clone();
    std::thread::spawn(move || sender.send(element.set_state(gst::State::Null)));
    let result = stopped.recv_timeout(PATIENCE);
    // Before anything can fail, or what is dropped then waits for it.
    drop(guard);
    result
        .expect("stopping does not wait for the handler")
        .expect("it stops");
}

/// A program in Python, with what `apt install python3-gi gir1.2-gstreamer-1.0` gives it.
fn python(test: &Test, program: &str) -> String {
    let location = test.path("program.py");
    std::fs::write(&location, program).expect("the test's folder can be written");
    // The system's own, which has the system's packages.
    let system = Path::new("/usr/bin/python3");
    let mut command = Command::new(if system.exists() {
        system
    } else {
        Path::new("python3")
    });
    command.arg(location);
    let outcome = Process::run(test, "python", command).end();
    assert!(outcome.status.success(), "{}", outcome.log);
    outcome.log
}

#[test]
fn python_reads_the_statistics() {
    let test = start();
    let log = python(
        &test,
        &format!(
            r#"
import time
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)

def wait(what, look):
    for _ in range(6000):
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise SystemExit("did not come about: " + what)

publisher = Gst.parse_launch("{VIDEO} ! irohlivesink name=stream {LOCAL} bind-address=127.0.0.1:0")
sink = publisher.get_by_name("stream")
publisher.set_state(Gst.State.PLAYING)
ticket = wait("a ticket", lambda: sink.get_property("ticket"))
viewer = Gst.parse_launch("irohlivesrc name=s {LOCAL} ! fakesink")
source = viewer.get_by_name("s")
source.set_property("ticket", ticket)
viewer.set_state(Gst.State.PLAYING)

# What a structure gives belongs to it: it has to be kept for as long as its parts are looked at.
def sums(element):
    stats = element.get_property("stats")
    tracks = stats.get_value("tracks")
    names = [tracks.nth_field_name(n) for n in range(tracks.n_fields())]
    return {{name: tracks.get_value(name).get_value("frames") for name in names}}

wait("frames", lambda: sums(source).get("video_0", 0) > 5)

# Who watches is counted when that is known, which may be after the first frames have come.
wait("a subscriber", lambda: sink.get_property("subscribers") == 1)
wait("the path", lambda: source.get_property("path-type").value_nick == "direct")
received = source.get_property("stats")
sent = sink.get_property("stats")
peers = sent.get_value("subscribers")
peer = peers.get_value(received.get_value("subscriber"))
assert peer.get_value("packets-sent") > 0
for path in peer, received:
    assert path.get_value("path-type") == "direct"
    assert path.get_value("bytes-received") > 0
    # Whichever of the machine's addresses it is.
    ip, _, port = path.get_value("address").rpartition(":")
    assert ip and int(port) > 0, path.to_string()
print("pads of the sink:", *sums(sink))
viewer.set_state(Gst.State.NULL)
publisher.set_state(Gst.State.NULL)
"#
        ),
    );
    assert!(log.contains("pads of the sink: sink_0"), "{log}");
}

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

#[test]
fn raw_media_is_refused_once() {
    let _test = start();
    let publisher = Publisher::new("SINK  videotestsrc is-live=true ! stream.video_0");
    let sent = record(&publisher.sink.static_pad("video_0").expect("it is linked"));
    publisher.pipe.play();
    publisher.pipe.wait_error();
    eventually("more pictures after the error", || {
        (sent.lock().expect("nobody panics with the lock").len() > 10).then_some(())
    });
    let messages = publisher.pipe.messages();
    let errors = messages
        .iter()
        .filter(|message| message.type_() == gst::MessageType::Error);
    assert_eq!(errors.count(), 1);
}

#[test]
fn the_command_line_prints_the_ticket_unasked() {
    let test = start();
    let mut command = Command::new("gst-launch-1.0");
    let line = format!("{VIDEO} ! irohlivesink name=stream {LOCAL} bind-address=127.0.0.1:0");
    command.args(line.split_whitespace());
    let mut publisher = Process::run(&test, "publisher", command);
    let log = publisher.log_location();
    publisher.wait("the ticket", || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.lines()
            .any(|line| line.starts_with("iroh-live:"))
            .then_some(())
    });
}

#[test]
fn stopping_says_goodbye_to_each_subscriber_and_takes_the_ticket_back_once() {
    let _test = start();
    let publisher = Publisher::new(&format!("{VIDEO} ! SINK"));
    let log = Arc::new(Mutex::new(Vec::new()));
    for signal in ["subscriber-added", "subscriber-removed"] {
        let log = log.clone();
        publisher.sink.connect(signal, false, move |_| {
            log.lock()
                .expect("nobody panics with the lock")
                .push(signal);
            None
        });
    }
    let kept = log.clone();
    publisher
        .sink
        .connect_notify(Some("ticket"), move |sink, _| {
            let ticket = sink.property::<Option<String>>("ticket");
            let what = if ticket.is_some() {
                "ticket"
            } else {
                "no ticket"
            };
            kept.lock().expect("nobody panics with the lock").push(what);
        });
    publisher.pipe.play();
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let log = || log.lock().expect("nobody panics with the lock").clone();
    publisher.pipe.wait("the viewer", || {
        log().contains(&"subscriber-added").then_some(())
    });
    publisher.pipe.stop();
    eventually("the goodbye", || {
        log().contains(&"subscriber-removed").then_some(())
    });
    assert_eq!(publisher.sink.property::<u32>("subscribers"), 0);
    // A ticket may be given out again, with other addresses.
    let mut calls = log();
    calls.dedup();
    assert_eq!(
        calls,
        [
            "ticket",
            "subscriber-added",
            "no ticket",
            "subscriber-removed"
        ]
    );
    // And an element that was never started has none to take back.
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let idle = sink("");
    idle.connect_notify(None, move |_, _| {
        *counted.lock().expect("nobody panics with the lock") += 1;
    });
    idle.set_state(gst::State::Null).expect("it is stopped");
    assert_eq!(*calls.lock().expect("nobody panics with the lock"), 0);
}

#[test]
fn a_fixed_port_is_there_again_at_once() {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "{VIDEO} ! SINK secret-key={}",
        iroh_live_tests::secret_key(23)
    ));
    let port = iroh_live_tests::free_port();
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{port}"));
    publisher.pipe.play();
    let ticket = publisher.ticket();
    let viewer = Viewer::start(&ticket);
    viewer.wait_frames("video_0", 5);
    for _ in 0..3 {
        publisher.pipe.stop();
        publisher.pipe.play();
        assert_eq!(publisher.ticket(), ticket);
    }
    viewer.wait_statuses(&["connected", "reconnecting", "connected"]);
    viewer.wait_more_frames("video_0", 20);
}

#[test]
fn sync_is_a_boolean_as_that_of_every_sink() {
    let _test = start();
    let on = sink("");
    assert!(on.property::<bool>("sync"));
    on.set_property("sync", false);
    assert!(!on.property::<bool>("sync"));
    assert!(!sink("sync=false").property::<bool>("sync"));
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

#[test]
fn a_start_that_fails_leaves_nothing_published() {
    let _test = start();
    let publisher = Publisher::new(&format!("{VIDEO} ! SINK"));
    // A child that does not come up: there is no such file.
    let bin = publisher
        .sink
        .downcast_ref::<gst::Bin>()
        .expect("it is one");
    let child = gst::ElementFactory::make("filesrc")
        .property("location", "/nowhere/at/all")
        .build()
        .expect("it is there");
    bin.add(&child).expect("it is new");
    publisher
        .sink
        .set_state(gst::State::Ready)
        .expect("it gets this far");
    let ticket = eventually("a ticket", || {
        publisher.sink.property::<Option<String>>("ticket")
    });
    assert!(publisher.sink.set_state(gst::State::Paused).is_err());
    let viewer = Viewer::start(&ticket);
    viewer.pipe.wait_warning("It has none at the moment");
    publisher
        .sink
        .set_state(gst::State::Null)
        .expect("it stops");
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

#[test]
fn the_secret_key_cannot_be_read_back() {
    let _test = start();
    for element in ["irohlivesink", "irohlivesrc"] {
        let element = gst::ElementFactory::make(element)
            .property("secret-key", iroh_live_tests::secret_key(3))
            .build()
            .expect("the plugin is loaded");
        let property = element.find_property("secret-key").expect("it is there");
        assert_eq!(
            property.flags() & gst::glib::ParamFlags::READWRITE,
            gst::glib::ParamFlags::WRITABLE
        );
        // What a dot file is made of.
        let readable = element.list_properties();
        let readable = readable
            .iter()
            .filter(|property| property.flags().contains(gst::glib::ParamFlags::READABLE));
        for property in readable {
            let value = element.property_value(property.name());
            let text = value.serialize().map(|text| text.to_string());
            assert!(!text.unwrap_or_default().contains("030303"), "{property:?}");
        }
    }
}

#[test]
fn elements_of_one_process_do_not_share_an_identity_unawares() {
    let test = start();
    let mut command = Command::new("gst-launch-1.0");
    let key = iroh_live_tests::secret_key(21);
    // A call, as it were: it publishes, and watches another.
    let line = format!(
        "-v {VIDEO} ! irohlivesink name=stream {LOCAL} bind-address=127.0.0.1:0 ticket-location={} \
         irohlivesrc name=s {LOCAL} ticket=iroh-live:{}/other ! fakesink",
        test.file("ticket"),
        "A".repeat(43)
    );
    command
        .args(line.split_whitespace())
        .env("IROH_SECRET", &key)
        .env("GST_DEBUG", "irohlive-net:4");
    let mut call = Process::run(&test, "call", command);
    let ticket = call.ticket(&test.file("ticket"));
    let ticket: iroh_live::LiveTicket = ticket.parse().expect("it is one");
    let secret: iroh_live::iroh::SecretKey = key.parse().expect("it is one");
    assert_eq!(ticket.addr().id, secret.public());
    let log = call.log_location();
    call.wait("the other's own identity", || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("this one has a new one").then_some(())
    });
    // Said in so many words, it is a mistake.
    let [first, second] =
        [(); 2].map(|()| sink(&format!("secret-key={}", iroh_live_tests::secret_key(22))));
    first.set_state(gst::State::Ready).expect("it is the first");
    let bus = gst::Bus::new();
    second.set_bus(Some(&bus));
    assert!(second.set_state(gst::State::Ready).is_err());
    let message = bus
        .pop_filtered(&[gst::MessageType::Error])
        .expect("it says why");
    let gst::MessageView::Error(error) = message.view() else {
        panic!("{message:?}");
    };
    assert!(
        error
            .error()
            .message()
            .contains("another element of this process")
    );
    first.set_state(gst::State::Null).expect("it stops");
    second
        .set_state(gst::State::Ready)
        .expect("it is free again");
    second.set_state(gst::State::Null).expect("it stops");
}

#[test]
fn who_only_connects_is_no_subscriber() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let ticket: iroh_live::LiveTicket = publisher.ticket().parse().expect("it is one");
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    let peer = iroh_live_tests::core::live(&runtime);
    let session = runtime
        .block_on(peer.transport().connect(ticket.addr().clone()))
        .expect("the publisher is there");
    // Another comes later, and is counted: by then the first would have been.
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let count = || publisher.sink.property::<u32>("subscribers");
    publisher
        .pipe
        .wait("a subscriber", || (count() > 0).then_some(()));
    assert_eq!(count(), 1);
    let broadcast = runtime
        .block_on(session.subscribe("stream"))
        .expect("the broadcast is there");
    runtime.block_on(async {
        let mut catalog = broadcast.catalog().await.expect("it has one");
        catalog.next().await.expect("it can be read");
    });
    publisher
        .pipe
        .wait("the other", || (count() == 2).then_some(()));
    runtime.block_on(peer.shutdown());
    publisher
        .pipe
        .wait("its end", || (count() == 1).then_some(()));
}
