//! What goes wrong, and what the user is told: a clear sentence on the bus that names the mend, and never a panic, a hang
//! or a crash.

mod peers;
mod settings;
mod streams;

use gst::{glib, prelude::*};
use iroh_live_tests::{LOCAL, Pipe};

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
    x264enc tune=zerolatency key-int-max=15";

/// Starts the pipeline, which fails, and gives the error.
fn failure(pipe: &Pipe) -> glib::Error {
    // It may fail at once or a moment later.
    let _ = pipe.pipeline.set_state(gst::State::Playing);
    pipe.wait_error()
}

/// The error of a source with these properties.
fn source_failure(ticket: Option<&str>, properties: &str) -> glib::Error {
    let pipe = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} {properties} ! fakesink"
    ));
    if let Some(ticket) = ticket {
        pipe.element("s").set_property("ticket", ticket);
    }
    failure(&pipe)
}

/// The error of a sink with these properties.
fn sink_failure(properties: &str) -> glib::Error {
    failure(&Pipe::parse(&format!(
        "{VIDEO} ! irohlivesink name=stream {LOCAL} {properties}"
    )))
}

#[track_caller]
fn says<D: glib::error::ErrorDomain + Copy>(error: &glib::Error, code: D, parts: &[&str]) {
    assert!(error.matches(code), "{error:?}");
    for part in parts {
        assert!(
            error.message().contains(part),
            "{:?} says nothing of {part:?}",
            error.message()
        );
    }
}

/// Bytes that look like nothing, but the same each time.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
