//! Helpers for the tests that cross crates or processes.
//!
//! A test begins with [`start`], which finds the plugin, keeps it and GStreamer's registry out of the user's own, and
//! gives the test a folder, a time limit, and a look at whether anything panicked in the plugin. Pipelines in the
//! test's process are [`Pipe`]s, those in other processes [`Process`]es, and what comes out of an `irohlivesrc` is
//! recorded by a [`Viewer`]. Everything stays on the loopback interface: no relays, no address lookup.

pub mod core;
pub mod hostile;
#[cfg(target_os = "linux")]
pub mod link;
pub mod media;
pub mod peer;
mod pipe;
mod process;
mod setup;
mod viewer;
mod wire;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use iroh_live::{LiveTicket, iroh::EndpointAddr, util::parse_secret_key};

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

/// A UDP port of the loopback interface that nobody uses, nor is given by the system to whoever asks for any: so it is
/// still free when a publisher comes back to it.
///
/// # Panics
/// If all are taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that test at the same time begin at different ports.
    let first = std::process::id().wrapping_mul(97);
    (0..8000)
        .map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 8000 + 20_000)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok())
        .expect("there are free ports")
}

/// A secret key that is the same in each run for the same `number`.
pub fn secret_key(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

/// The ticket of a publisher that is not there: of the broadcast `stream` of this key, at this port of the loopback interface.
///
/// # Panics
/// If it is no key.
pub fn ticket_of(key: &str, port: u16) -> String {
    let id = parse_secret_key(key).expect("it is a key").public();
    let address = EndpointAddr::new(id).with_ip_addr(([127, 0, 0, 1], port).into());
    LiveTicket::new(address, "stream").to_string()
}
