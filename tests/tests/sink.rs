//! How `irohlivesink` behaves: in the states of a pipeline, towards the application, and towards what is upstream.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex, mpsc},
};

use gst::prelude::*;
use iroh_live_tests::{LOCAL, PATIENCE, Process, Test, start};

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
    sink.set_state(gst::State::Null).expect("it stops");
    drop(guard);
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
received = source.get_property("stats")
sent = sink.get_property("stats")
peers = sent.get_value("subscribers")
peer = peers.get_value(received.get_value("subscriber"))
assert peer.get_value("packets-sent") > 0
for path in peer, received:
    assert path.get_value("path-type") == "direct"
    assert path.get_value("address").startswith("127.0.0.1:")
    assert path.get_value("bytes-received") > 0
print("pads of the sink:", *sums(sink))
viewer.set_state(Gst.State.NULL)
publisher.set_state(Gst.State.NULL)
"#
        ),
    );
    assert!(log.contains("pads of the sink: video_0"), "{log}");
}
