//! What the tasks of one run share, from PAUSED to READY.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use gst::glib;
use iroh_live::{
    Live, LiveTicket, NetStats, media::receive::PlayoutClock, signals::NetSnapshot,
    transport::MoqSession,
};
use tokio::sync::watch;

use super::{pad_selection::Wanted, status::Status, track::Track};
use crate::stats;

/// The most different warnings of one run: some are about what a publisher makes up.
const MAX_WARNINGS: usize = 64;

/// The element, for those who watch the broadcast. Nothing here waits for the application.
pub(super) trait Observer: Clone + Send + Sync + 'static {
    /// The pipeline's running time; none while it has no clock.
    fn running_time(&self) -> Option<gst::ClockTime>;

    fn set_status(&self, status: Status);

    /// The session with the publisher, and how it is reached now.
    fn set_session(&self, session: Option<&MoqSession>);

    fn warn(&self, warning: glib::Error);

    fn fail(&self, error: glib::Error);

    /// Brings the pads in line with what the catalog lists, and gives the tracks that there are now.
    fn expose(
        &self,
        wanted: Vec<Wanted>,
    ) -> impl Future<Output = Result<Vec<Arc<Track>>, glib::BoolError>> + Send;

    /// The tracks that have a pad.
    fn tracks(&self) -> Vec<Arc<Track>>;
}

pub(super) struct Run<O> {
    pub(super) observer: O,
    pub(super) live: Live,
    pub(super) ticket: LiveTicket,
    pub(super) clock: PlayoutClock,
    /// How far a group may fall behind before it is skipped.
    pub(super) max_age: watch::Receiver<Duration>,
    pub(super) playing: watch::Receiver<bool>,
    /// After how long without the broadcast to give up.
    pub(super) timeout: Option<Duration>,
    /// What the network is like, once there is a subscription.
    pub(super) net_stats: OnceLock<NetStats>,
    pub(super) progress: Mutex<Progress>,
}

/// How far this run has come.
#[derive(Default)]
pub(super) struct Progress {
    status: Status,
    /// What was warned of already.
    warned: BTreeSet<String>,
    /// Why nothing that the catalog lists can be played.
    unplayable: Option<String>,
}

impl<O: Observer> Run<O> {
    pub(super) fn status(&self) -> Status {
        self.progress().status
    }

    pub(super) fn set_status(&self, status: Status) {
        self.progress().status = status;
        self.observer.set_status(status);
    }

    /// What is known of the network.
    pub(super) fn known(&self) -> NetSnapshot {
        let stats = self.net_stats.get();
        stats.map(NetStats::snapshot).unwrap_or_default()
    }

    /// Adds what is known of all tracks together.
    pub(super) fn add_stats(&self, stats: gst::structure::Builder) -> gst::structure::Builder {
        let age = self.known().signals.last_frame_age;
        stats
            .field("jitter", stats::nanos(self.clock.jitter()))
            .field("subscriber", self.live.endpoint().id().to_string())
            .field_if_some("last-frame-age", age.map(stats::nanos))
    }

    /// Why nothing that the catalog lists can be played, if that is so.
    pub(super) fn unplayable(&self) -> Option<String> {
        self.progress().unplayable.clone()
    }

    pub(super) fn set_unplayable(&self, reason: Option<String>) {
        self.progress().unplayable = reason;
    }

    /// Warns, unless that was said before in this run.
    pub(super) fn warn_once(&self, warning: glib::Error) {
        let new = {
            let warned = &mut self.progress().warned;
            warned.len() < MAX_WARNINGS && warned.insert(warning.message().to_owned())
        };
        if new {
            self.observer.warn(warning);
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
