//! The playout clock of a broadcast: what all of its tracks are timed by.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::clock_recovery::{Adjustment, ClockRecovery};

/// Maps a publisher's timestamps to the running time of a pipeline, for all tracks of a broadcast alike. Cheap to clone.
///
/// One for each pipeline, never one for each track: that is what keeps picture and sound together.
#[derive(Debug, Clone)]
pub struct PlayoutClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recovery: Mutex<ClockRecovery>,
    /// Counts the jumps of the mapping; each track flags a discontinuity when it has changed.
    jumps: AtomicU32,
    /// What the newest frame is of.
    incarnation: Mutex<Option<u64>>,
    /// Numbers the subscriptions, for the recovery to tell them apart.
    subscriptions: AtomicU32,
}

impl PlayoutClock {
    /// A clock that has seen nothing yet, for sinks with this latency budget.
    pub fn new(latency: Duration) -> Self {
        Self(Arc::new(Inner {
            recovery: Mutex::new(ClockRecovery::new(latency)),
            jumps: AtomicU32::new(0),
            incarnation: Mutex::default(),
            subscriptions: AtomicU32::new(0),
        }))
    }

    fn with<T>(&self, f: impl FnOnce(&mut ClockRecovery) -> T) -> T {
        f(&mut self
            .0
            .recovery
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn jump(&self) {
        self.0.jumps.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes the latency budget.
    pub fn set_latency(&self, latency: Duration) {
        self.with(|recovery| recovery.set_latency(latency));
    }

    /// The latency budget in nanoseconds.
    pub(super) fn latency(&self) -> i64 {
        self.with(|recovery| recovery.latency())
    }

    /// How unevenly frames arrive: the interarrival jitter of RFC 3550.
    pub fn jitter(&self) -> Duration {
        self.with(|recovery| recovery.jitter())
    }

    /// Begins anew, as after a pause. What is mapped from now on is a discontinuity.
    pub fn restart(&self, latency: Duration) {
        self.with(|recovery| *recovery = ClockRecovery::new(latency));
        self.jump();
    }

    /// The connection is back, at this running time. What is mapped from now on is a discontinuity.
    pub fn reconnected(&self, now: gst::ClockTime) {
        self.with(|recovery| recovery.reconnected(now.nseconds()));
        self.jump();
    }

    /// A frame of this incarnation of the broadcast has come, at this running time: the first of another than before says
    /// that the connection is back.
    pub(super) fn enter(&self, incarnation: u64, now: gst::ClockTime) {
        let mut newest = self
            .0
            .incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The tracks are behind each other.
        if newest.is_none_or(|newest| newest < incarnation) && newest.replace(incarnation).is_some()
        {
            self.reconnected(now);
        }
    }

    /// Takes note of one more subscription to a track.
    pub(super) fn subscription(&self) -> ClockedTrack {
        ClockedTrack {
            id: self.0.subscriptions.fetch_add(1, Ordering::Relaxed),
            clock: self.clone(),
        }
    }

    /// Counts the jumps of the mapping so far.
    pub(super) fn jumps(&self) -> u32 {
        self.0.jumps.load(Ordering::Relaxed)
    }

    /// Whether the mapping can be relied on at this running time.
    pub(super) fn is_acquired(&self, now: gst::ClockTime) -> bool {
        self.with(|recovery| recovery.acquired(now.nseconds()))
    }

    /// The running time at which a frame with this timestamp is on time; negative before the pipeline began to run.
    pub(super) fn map(&self, timestamp: Duration) -> i64 {
        self.with(|recovery| recovery.map(nanos(timestamp)))
    }
}

/// One subscription to a track, as its [`PlayoutClock`] knows it.
#[derive(Debug)]
pub(super) struct ClockedTrack {
    id: u32,
    clock: PlayoutClock,
}

impl ClockedTrack {
    /// Takes note of a frame, in decode order, that arrived at this running time.
    pub(super) fn observe(&self, timestamp: Duration, arrival: gst::ClockTime) {
        let adjustment = self
            .clock
            .with(|recovery| recovery.observe(self.id, nanos(timestamp), arrival.nseconds()));
        match adjustment {
            Adjustment::Steady => return,
            Adjustment::Stepped { by } => {
                tracing::info!("the delay of the path changed: {} ms", by / 1_000_000);
            }
            Adjustment::Reanchored => tracing::info!("the publisher's timeline jumped"),
        }
        self.clock.jump();
    }
}

impl Drop for ClockedTrack {
    fn drop(&mut self) {
        self.clock.with(|recovery| recovery.unsubscribed(self.id));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
