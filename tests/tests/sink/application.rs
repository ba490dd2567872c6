//! Towards the application: handlers, statistics, tickets, identities.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex, mpsc},
};

use gst::prelude::*;
use iroh_live_tests::{
    LOCAL, PATIENCE, Process, Publisher, Test, Viewer, eventually, media::record, start,
};

use super::VIDEO;

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

#[test]
fn a_viewer_too_many_is_told_so_and_watches_when_there_is_a_place() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK max-subscribers=1"));
    let ticket = publisher.ticket();
    let first = Viewer::start(&ticket);
    first.wait_frames("video_0", 5);
    let second = Viewer::start(&ticket);
    second
        .pipe
        .wait_warning("at its limit (too many peers are connected)");
    assert_eq!(publisher.sink.property::<u32>("subscribers"), 1);
    first.wait_more_frames("video_0", 5);
    first.pipe.stop();
    second.wait_frames("video_0", 5);
}
