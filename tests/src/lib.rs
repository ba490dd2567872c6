//! Helpers for the tests that cross crates or processes.
//!
//! A test begins with [`start`], which finds the plugin, keeps it and GStreamer's registry out of the user's own, and
//! gives the test a folder, a time limit, and a look at whether anything panicked in the plugin. Pipelines in the
//! test's process are [`Pipe`]s, those in other processes [`Process`]es, and what comes out of an `irohlivesrc` is
//! recorded by a [`Viewer`]. Everything stays on the loopback interface: no relays, no address lookup.

pub mod core;
pub mod media;
pub mod peer;
mod pipe;
mod process;
mod setup;
mod viewer;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

pub use pipe::{Pipe, Publisher};
pub use process::{Outcome, Process};
pub use setup::{Test, start};
pub use viewer::{Frame, Item, PadLog, Viewer, bytes_of, nick};

/// How both elements are set so that nothing leaves the machine.
pub const LOCAL: &str = "relay-mode=disabled address-lookup=none";

/// How long anything may take before it counts as stuck. Generous: a busy machine is not a bug.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks every few milliseconds whether something has come about.
///
/// # Panics
/// If it has not within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "did not come about: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// A UDP port of the loopback interface that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("the loopback interface has free ports")
        .port()
}

/// A secret key that is the same in each run for the same `number`.
pub fn secret_key(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}
