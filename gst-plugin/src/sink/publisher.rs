//! The published broadcast: the endpoint, the ticket, the viewers.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh_live::{Live, LiveTicket, LocalBroadcast, MoqSession, TicketWatcher, iroh::EndpointId};
use tokio::task::JoinSet;

use crate::{endpoint::OpenEndpoint, log::SINK as CAT, notifier::Notifier, runtime, stats};

/// What the element has to know.
pub(super) enum Event {
    /// The ticket is known, or another than before.
    Ticket(LiveTicket),
    /// It could not be written to its file.
    TicketFile(PathBuf, std::io::Error),
    /// These peers watch now.
    Viewers(BTreeSet<EndpointId>),
}

/// Takes events, on the notifier's thread.
pub(super) type Handler = Arc<dyn Fn(Event) + Send + Sync>;

/// What lives from READY to NULL.
pub(super) struct Publisher {
    live: Live,
    /// Until it is closed.
    endpoint: Mutex<Option<OpenEndpoint>>,
    name: String,
    /// From PAUSED to READY.
    run: Mutex<Option<Run>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What is published at the moment.
struct Run {
    broadcast: LocalBroadcast,
    /// Viewers were told that it is over.
    finished: bool,
}

impl Publisher {
    pub(super) fn start(
        endpoint: OpenEndpoint,
        name: String,
        ticket_location: Option<PathBuf>,
        notifier: &Notifier,
        handler: Handler,
    ) -> Result<Self, gst::ErrorMessage> {
        let live = endpoint.live().clone();
        let tickets = match live.watch_ticket(&name) {
            Ok(tickets) => tickets,
            Err(error) => {
                endpoint.close();
                return Err(gst::error_msg!(
                    gst::ResourceError::Settings,
                    ("No ticket can be made: {error}. Set the property broadcast to another name")
                ));
            }
        };
        let _guard = runtime::runtime()?.enter();
        let mut tasks = JoinSet::new();
        tasks.spawn(announce(
            tickets,
            ticket_location,
            notifier.clone(),
            handler.clone(),
        ));
        tasks.spawn(watch_viewers(
            live.clone(),
            name.clone(),
            notifier.clone(),
            handler,
        ));
        Ok(Self {
            live,
            endpoint: Mutex::new(Some(endpoint)),
            name,
            run: Mutex::default(),
            tasks: Mutex::new(tasks),
        })
    }

    /// Begins a broadcast, empty yet.
    pub(super) fn begin(&self) -> Result<LocalBroadcast, gst::ErrorMessage> {
        let mut slot = self.slot();
        let broadcast = self.publish()?;
        *slot = Some(Run {
            broadcast: broadcast.clone(),
            finished: false,
        });
        Ok(broadcast)
    }

    /// The broadcast that is published, or another if that has ended, and whether it is another. None outside of a run.
    pub(super) fn current_or_next(
        &self,
    ) -> Result<Option<(LocalBroadcast, bool)>, gst::ErrorMessage> {
        let mut slot = self.slot();
        let Some(run) = &mut *slot else {
            return Ok(None);
        };
        let is_next = run.finished;
        if is_next {
            self.live.transport().unpublish(&self.name);
            run.broadcast = self.publish()?;
            run.finished = false;
        }
        Ok(Some((run.broadcast.clone(), is_next)))
    }

    fn publish(&self) -> Result<LocalBroadcast, gst::ErrorMessage> {
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
        Ok(broadcast)
    }

    pub(super) fn broadcast(&self) -> Option<LocalBroadcast> {
        self.slot().as_ref().map(|run| run.broadcast.clone())
    }

    /// Tells viewers that the broadcast is over. Returns whether there is one.
    pub(super) fn finish(&self) -> bool {
        let mut slot = self.slot();
        if let Some(run) = &mut *slot {
            run.broadcast.finish();
            run.finished = true;
        }
        slot.is_some()
    }

    /// Ends the run. Viewers whose tracks were not finished wait for the broadcast to come back.
    pub(super) fn end(&self) {
        let run = self.slot().take();
        if let Some(run) = run {
            // The tracks go one by one now, without having ended. Were the catalog still open, viewers would see them
            // leave it one by one, and take away their pads.
            run.broadcast.finish();
        }
        self.live.transport().unpublish(&self.name);
    }

    /// What is known of each peer, by its id.
    pub(super) fn stats(&self) -> Vec<(String, gst::Structure)> {
        let sessions = self.live.transport().sessions();
        let sessions = sessions.borrow();
        let stats = |session: &MoqSession| {
            let structure = gst::Structure::builder("subscriber");
            stats::with_path(structure, Some(session), session.traffic()).build()
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
        // They hold on to the endpoint, and so to its port.
        if runtime::block_on(async move { tasks.shutdown().await }).is_err() {
            gst::warning!(CAT, "the tasks did not stop");
        }
        let endpoint = self
            .endpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(endpoint) = endpoint {
            endpoint.close();
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says the ticket as soon as it is known how this end is reached, and again when that changes.
async fn announce(
    mut tickets: TicketWatcher,
    location: Option<PathBuf>,
    notifier: Notifier,
    handler: Handler,
) {
    while let Some(ticket) = tickets.next().await {
        let (location, handler) = (location.clone(), handler.clone());
        notifier
            .run(move || {
                if let Some(location) = location
                    && let Err(error) = write_ticket(&location, &ticket)
                {
                    handler(Event::TicketFile(location, error));
                }
                handler(Event::Ticket(ticket));
            })
            .await;
    }
}

/// Writes the whole file or nothing, as somebody may be waiting for it.
fn write_ticket(location: &Path, ticket: &LiveTicket) -> std::io::Result<()> {
    let mut draft = location.as_os_str().to_owned();
    draft.push(".part");
    std::fs::write(&draft, format!("{ticket}\n"))?;
    std::fs::rename(&draft, location)
}

/// Tells of peers that come to watch the broadcast called `name`, and go.
async fn watch_viewers(live: Live, name: String, notifier: Notifier, handler: Handler) {
    let mut sessions = live.transport().sessions();
    let mut known = BTreeSet::new();
    // Whoever only connects is no viewer: sessions that are looked at, and those of them that asked for the broadcast.
    let mut connected: Vec<MoqSession> = Vec::new();
    let mut asking = JoinSet::new();
    let mut watching: Vec<MoqSession> = Vec::new();
    loop {
        let now = sessions.borrow_and_update().clone();
        for session in now.iter().filter(|session| !contains(&connected, session)) {
            let (session, name) = (session.clone(), name.clone());
            asking.spawn(async move {
                tokio::select! {
                    () = session.requested(&name) => Some(session),
                    _ = session.closed() => None,
                }
            });
        }
        watching.retain(|session| contains(&now, session));
        connected = now;
        let viewers: BTreeSet<_> = watching.iter().map(MoqSession::remote_id).collect();
        if viewers != known {
            known.clone_from(&viewers);
            let handler = handler.clone();
            notifier.run(move || handler(Event::Viewers(viewers))).await;
        }
        tokio::select! {
            changed = sessions.changed() => if changed.is_err() {
                return;
            },
            Some(asked) = asking.join_next() => watching.extend(asked.ok().flatten()),
        }
    }
}

fn contains(sessions: &[MoqSession], session: &MoqSession) -> bool {
    sessions.iter().any(|other| other.is_same(session))
}
