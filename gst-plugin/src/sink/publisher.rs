//! The published broadcast: the endpoint, the ticket, the subscribers, the timeline.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gst::{glib, prelude::*};
use iroh_live::{Live, LocalBroadcast, TicketWatcher, iroh::EndpointId};
use tokio::task::JoinSet;

use super::{IrohLiveSink, Status};
use crate::{notifier::Notifier, runtime, stats};

/// What lives from READY to NULL.
pub(super) struct Publisher {
    live: Live,
    name: String,
    /// Of the current run, from PAUSED to READY.
    run: Mutex<Option<LocalBroadcast>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Publisher {
    pub(super) fn start(
        element: &IrohLiveSink,
        notifier: &Notifier,
        live: Live,
        name: String,
        ticket_location: Option<PathBuf>,
    ) -> Result<Self, gst::ErrorMessage> {
        let tickets = live.watch_ticket(&name).map_err(|error| {
            // Nothing but this closes the endpoint, and lets go of its port.
            let live = live.clone();
            let _ = runtime::block_on(async move { live.shutdown().await });
            gst::error_msg!(
                gst::ResourceError::Settings,
                ("No ticket can be made: {error}. Set the property broadcast to another name")
            )
        })?;
        let _guard = runtime::runtime()?.enter();
        let mut tasks = JoinSet::new();
        tasks.spawn(announce(
            element.downgrade(),
            notifier.clone(),
            tickets,
            ticket_location,
        ));
        tasks.spawn(count_subscribers(
            element.downgrade(),
            notifier.clone(),
            live.clone(),
        ));
        Ok(Self {
            live,
            name,
            run: Mutex::default(),
            tasks: Mutex::new(tasks),
        })
    }

    /// Begins a broadcast, empty yet.
    pub(super) fn begin(&self) -> Result<LocalBroadcast, gst::ErrorMessage> {
        let _guard = runtime::runtime()?.enter();
        let broadcast = LocalBroadcast::new();
        self.live
            .publish(self.name.as_str(), &broadcast)
            .map_err(|error| {
                gst::error_msg!(
                    gst::ResourceError::Settings,
                    ("{error}. Set the property broadcast to another name")
                )
            })?;
        *self.run() = Some(broadcast.clone());
        Ok(broadcast)
    }

    pub(super) fn broadcast(&self) -> Option<LocalBroadcast> {
        self.run().clone()
    }

    /// Ends the broadcast. Viewers whose tracks were not finished wait for it to come back.
    pub(super) fn end(&self) {
        let broadcast = self.run().take();
        if let Some(broadcast) = broadcast {
            // The tracks go one by one now, without having ended. Were the catalog still open, viewers would see them
            // leave it one by one, and take away their pads.
            broadcast.finish();
        }
        self.live.transport().unpublish(&self.name);
    }

    /// The pipeline was paused, so running time and wall-clock time have come apart.
    pub(super) fn resume(&self) {
        if let Some(broadcast) = &*self.run() {
            broadcast.resume();
        }
    }

    /// Running time as wall-clock time, and how often the timeline was moved so far.
    ///
    /// `now` is the element's running time, if there is a clock.
    pub(super) fn timestamp(
        &self,
        running_time: gst::Signed<gst::ClockTime>,
        now: Option<gst::ClockTime>,
    ) -> Option<(Duration, u32)> {
        let nanos = |time: gst::ClockTime| i64::try_from(time.nseconds()).unwrap_or(i64::MAX);
        let time = match running_time {
            gst::Signed::Positive(time) => nanos(time),
            gst::Signed::Negative(time) => -nanos(time),
        };
        self.broadcast()?.timestamp(time, now.map(nanos))
    }

    /// What is known of each peer, by its id.
    pub(super) fn stats(&self) -> Vec<(String, gst::Structure)> {
        let sessions = self.live.transport().sessions();
        let sessions = sessions.borrow();
        let stats = |session| {
            stats::with_path(gst::Structure::builder("subscriber"), Some(session)).build()
        };
        sessions
            .iter()
            .map(|session| (session.remote_id().to_string(), stats(session)))
            .collect()
    }

    /// Closes everything; waits a moment for viewers to get what was written.
    pub(super) fn stop(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let live = self.live.clone();
        let stopped = runtime::block_on(async move {
            // They hold on to the endpoint, and so to its port.
            tasks.shutdown().await;
            live.shutdown().await;
        });
        if stopped.is_err() {
            gst::warning!(super::imp::CAT, "the transport did not stop");
        }
    }

    fn run(&self) -> MutexGuard<'_, Option<LocalBroadcast>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says the ticket as soon as it is known how this end is reached, and again when that changes.
async fn announce(
    element: glib::WeakRef<IrohLiveSink>,
    notifier: Notifier,
    mut tickets: TicketWatcher,
    location: Option<PathBuf>,
) {
    let mut is_first = true;
    while let Some(ticket) = tickets.next().await {
        let has_no_address = std::mem::take(&mut is_first) && ticket.addr().is_empty();
        let (element, location) = (element.clone(), location.clone());
        notifier
            .run(move || {
                let Some(element) = element.upgrade() else {
                    return;
                };
                if has_no_address {
                    gst::element_warning!(
                        element,
                        gst::ResourceError::Settings,
                        ("This machine has no network that viewers could reach it by. The ticket gets its addresses when one is there")
                    );
                }
                let ticket = ticket.to_string();
                if let Some(location) = &location
                    && let Err(error) = write_ticket(location, &ticket)
                {
                    gst::element_error!(
                        element,
                        gst::ResourceError::OpenWrite,
                        (
                            "The ticket cannot be written to {}: {error}. Set ticket-location to a file that can be written",
                            location.display()
                        )
                    );
                }
                element.set_ticket(ticket);
            })
            .await;
    }
}

/// Writes the whole file or nothing, as somebody may be waiting for it.
fn write_ticket(location: &PathBuf, ticket: &str) -> std::io::Result<()> {
    let mut draft = location.clone().into_os_string();
    draft.push(".part");
    std::fs::write(&draft, format!("{ticket}\n"))?;
    std::fs::rename(&draft, location)
}

/// Tells of peers that come and go.
async fn count_subscribers(element: glib::WeakRef<IrohLiveSink>, notifier: Notifier, live: Live) {
    let mut sessions = live.transport().sessions();
    let mut known = BTreeMap::<EndpointId, usize>::new();
    loop {
        let mut now = BTreeMap::<EndpointId, usize>::new();
        for session in &*sessions.borrow_and_update() {
            *now.entry(session.remote_id()).or_default() += 1;
        }
        let added: Vec<_> = now
            .keys()
            .filter(|id| !known.contains_key(*id))
            .copied()
            .collect();
        let removed: Vec<_> = known
            .keys()
            .filter(|id| !now.contains_key(*id))
            .copied()
            .collect();
        known = now;
        let (count, element) = (known.len(), element.clone());
        if !added.is_empty() || !removed.is_empty() {
            notifier
                .run(move || {
                    if let Some(element) = element.upgrade() {
                        element.subscribers_changed(count, &added, &removed);
                    }
                })
                .await;
        }
        if sessions.changed().await.is_err() {
            return;
        }
    }
}

impl IrohLiveSink {
    fn set_ticket(&self, ticket: String) {
        use glib::subclass::prelude::*;
        self.imp().set_ticket(ticket);
    }

    fn subscribers_changed(&self, count: usize, added: &[EndpointId], removed: &[EndpointId]) {
        use glib::subclass::prelude::*;
        self.imp().set_subscribers(count);
        for id in added {
            self.emit_by_name::<()>("subscriber-added", &[&id.to_string()]);
        }
        for id in removed {
            self.emit_by_name::<()>("subscriber-removed", &[&id.to_string()]);
        }
    }
}

impl Status {
    /// What follows from a ticket being known.
    pub(super) fn announced(self) -> Self {
        match self {
            Self::Starting => Self::Published,
            other => other,
        }
    }
}
