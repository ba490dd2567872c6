//! The source's way to the publisher and back to it: connects, follows the catalog, reconnects.

use std::{sync::Arc, time::Duration};

use gst::{glib, prelude::*};
use iroh_live::{
    Live, LiveTicket, RemoteBroadcast,
    broadcast::{Catalog, CatalogError, CatalogWatch},
    retry::Backoff,
    transport::{ConnectError, MoqSession, SubscribeError},
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    IrohLiveSrc, Status,
    imp::{self, CAT},
    track::{End, Track},
};
use iroh_live::media::receive::{Playable, PlayoutClock};

/// When a publisher that is there but has no such broadcast is spoken of.
const ABSENT_AFTER: Duration = Duration::from_secs(3);

/// How long one attempt to connect may take, so that a new one is made when the network has changed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);

/// How often the path to the publisher is looked at.
const PATH_TICK: Duration = Duration::from_secs(1);

/// After the catalog's end, how long its tracks may still go on.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// Everything that the tasks of one run know.
pub(super) struct Run {
    pub(super) element: glib::WeakRef<IrohLiveSrc>,
    pub(super) live: Live,
    pub(super) ticket: LiveTicket,
    pub(super) clock: PlayoutClock,
    pub(super) playing: watch::Receiver<bool>,
    pub(super) cancel: CancellationToken,
    pub(super) max_age: Duration,
    pub(super) timeout: Option<Duration>,
}

/// Why the way to the broadcast ended.
enum Failure {
    /// To be tried again; what the user should know.
    Again(String),
    /// Nothing to be done about it.
    Fatal(gst::ErrorMessage),
}

/// Watches until the publisher ends the broadcast, the run is cancelled, or something cannot be mended by trying again.
pub(super) async fn watch(run: Arc<Run>) {
    let cancel = run.cancel.clone();
    tokio::select! {
        () = attempts(run) => {}
        () = cancel.cancelled() => {}
    }
}

async fn attempts(run: Arc<Run>) {
    let mut backoff = Backoff::default();
    // Since when there has been no connection.
    let mut since = Instant::now();
    let mut told = false;
    loop {
        let deadline = run.timeout.map(|timeout| since + timeout);
        let mut connected = false;
        let attempt = attempt(&run, &mut connected);
        let result = match deadline {
            Some(deadline) => within(attempt, deadline, &run).await,
            None => attempt.await,
        };
        if connected {
            backoff.succeeded();
            since = Instant::now();
            told = false;
        }
        let reason = match result {
            Ok(()) => {
                run.set_status(Status::Ended);
                return;
            }
            Err(Failure::Fatal(message)) => {
                run.set_status(Status::Failed);
                run.post_error(message);
                return;
            }
            Err(Failure::Again(reason)) => reason,
        };
        if run
            .timeout
            .is_some_and(|timeout| since.elapsed() >= timeout)
        {
            run.set_status(Status::Failed);
            run.post_error(gst::error_msg!(
                gst::ResourceError::NotFound,
                (
                    "{reason}. Gave up after {} ms, as the property timeout says",
                    since.elapsed().as_millis()
                )
            ));
            return;
        }
        run.set_status(Status::Reconnecting);
        let wait = backoff.next(rand::random());
        gst::info!(CAT, "{reason}; next attempt in {wait:?}");
        if !std::mem::replace(&mut told, true) {
            run.warn(&format!("{reason}. Trying again until it is there"));
        }
        tokio::time::sleep(wait).await;
    }
}

/// Ends an attempt that has not connected by the deadline.
async fn within(
    attempt: impl Future<Output = Result<(), Failure>>,
    deadline: Instant,
    run: &Run,
) -> Result<(), Failure> {
    tokio::pin!(attempt);
    tokio::select! {
        result = &mut attempt => return result,
        () = tokio::time::sleep_until(deadline) => {}
    }
    match run.status() {
        Some(Status::Connected) => attempt.await,
        Some(Status::Waiting) => Err(Failure::Again(format!(
            "The publisher has no broadcast named {:?}",
            run.ticket.name()
        ))),
        _ => Err(Failure::Again("The publisher cannot be reached".into())),
    }
}

/// One way to the broadcast, until it ends (`Ok`) or fails.
async fn attempt(run: &Arc<Run>, connected: &mut bool) -> Result<(), Failure> {
    run.set_status(Status::Connecting);
    let address = run.ticket.addr().clone();
    let session = tokio::time::timeout(CONNECT_TIMEOUT, run.live.transport().connect(address))
        .await
        .map_err(|_| {
            Failure::Again(
                "The publisher cannot be reached: it is switched off, or there is no way to it from this network"
                    .into(),
            )
        })?
        .map_err(|error| match error {
            ConnectError::Refused { .. } => Failure::Fatal(gst::error_msg!(
                gst::ResourceError::NotAuthorized,
                ("The publisher refuses this viewer. Ask for access for {}", run.live.endpoint().id())
            )),
            error => Failure::Again(format!("The publisher cannot be reached ({error})")),
        })?;
    run.set_status(Status::Waiting);
    run.show_path(Some(&session));
    let broadcast = find(run, &session).await?;
    let mut catalog = broadcast.catalog().await.map_err(catalog_failure)?;
    let mut readers = Readers::default();
    let mut path_tick = tokio::time::interval(PATH_TICK);
    loop {
        tokio::select! {
            update = catalog.next() => match update.map_err(catalog_failure)? {
                Some(update) => {
                    if run.follow(&broadcast, &update, &mut readers).await? && !std::mem::replace(connected, true) {
                        if let Some(now) = run.running_time() {
                            run.clock.reconnected(now);
                        }
                        run.set_status(Status::Connected);
                    }
                }
                None => break,
            },
            (track, end) = readers.next(), if !readers.is_empty() => run.track_ended(&track, end)?,
            error = session.closed() => return Err(lost(&error.to_string())),
            _ = path_tick.tick() => run.show_path(Some(&session)),
        }
    }
    // No track comes any more; those that are there go on to their ends.
    let last = async {
        while !readers.is_empty() {
            let (track, end) = readers.next().await;
            run.track_ended(&track, end)?;
        }
        Ok(())
    };
    let last = tokio::time::timeout(LAST_FRAMES, last).await;
    if let Ok(Err(failure)) = last {
        return Err(failure);
    }
    for track in run.tracks() {
        track.end();
    }
    Ok(())
}

/// Waits for the publisher to offer the broadcast.
async fn find(run: &Run, session: &MoqSession) -> Result<RemoteBroadcast, Failure> {
    let name = run.ticket.name();
    let subscribe = session.subscribe(name);
    tokio::pin!(subscribe);
    let mut told = false;
    loop {
        tokio::select! {
            broadcast = &mut subscribe => return broadcast.map_err(|error| match error {
                SubscribeError::Refused(_) => Failure::Fatal(gst::error_msg!(
                    gst::ResourceError::NotAuthorized,
                    ("The publisher does not let this viewer watch {name:?}. Ask for access for {}", run.live.endpoint().id())
                )),
                error => Failure::Again(capitalised(&error.to_string())),
            }),
            () = tokio::time::sleep(ABSENT_AFTER), if !told => {
                told = true;
                let offered = session.offered();
                let offered = match offered.as_slice() {
                    [] => "It has none at the moment".to_owned(),
                    names => format!("It has: {}", names.join(", ")),
                };
                run.warn(&format!(
                    "The publisher is there, but has no broadcast named {name:?}. {offered}. Waiting for it to appear"
                ));
            }
        }
    }
}

fn lost(error: &str) -> Failure {
    Failure::Again(format!(
        "The connection to the publisher was lost ({error})"
    ))
}

fn catalog_failure(error: CatalogError) -> Failure {
    match error {
        CatalogError::Transport(error) => lost(&error.to_string()),
        error => Failure::Fatal(gst::error_msg!(
            gst::StreamError::Format,
            (
                "{}. Ask the publisher what it publishes with",
                capitalised(&error.to_string())
            )
        )),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// The tasks that read the tracks.
#[derive(Default)]
struct Readers {
    tasks: JoinSet<(Arc<Track>, End)>,
    names: Vec<String>,
}

impl Readers {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    async fn next(&mut self) -> (Arc<Track>, End) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => {
                    self.names.retain(|name| *name != ended.0.name);
                    return ended;
                }
                // Aborted with the set, or broken: a panic is reported by the runtime.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

impl Run {
    /// Brings the pads in line with the catalog. Returns whether there is anything to watch.
    async fn follow(
        self: &Arc<Self>,
        broadcast: &RemoteBroadcast,
        catalog: &Catalog,
        readers: &mut Readers,
    ) -> Result<bool, Failure> {
        let Playable {
            renditions,
            left_out,
            ..
        } = Playable::of(catalog);
        let wanted: Vec<_> = renditions
            .into_iter()
            .map(|(rendition, caps)| (rendition.name, rendition.config, caps))
            .collect();
        let unknown: Vec<_> = left_out.iter().map(ToString::to_string).collect();
        if wanted.is_empty() && !unknown.is_empty() {
            return Err(Failure::Fatal(gst::error_msg!(
                gst::StreamError::CodecNotFound,
                (
                    "Nothing of the broadcast can be played: {}. Update this plugin, or ask for another codec",
                    unknown.join("; ")
                )
            )));
        }
        if wanted.is_empty() {
            // Nothing yet, or a publisher that stops without ending its tracks: it may come back.
            return Ok(false);
        }
        for reason in unknown {
            self.warn(&format!("Left out: {reason}"));
        }
        let element = self.element.clone();
        let cancel = self.cancel.clone();
        // Adding pads calls the application's handlers, which may take their time.
        let exposed = tokio::task::spawn_blocking(move || {
            element
                .upgrade()
                .map(|element| imp::IrohLiveSrc::of(&element).expose(&wanted, &cancel))
        })
        .await;
        let tracks = match exposed {
            Ok(Some(Ok(tracks))) => tracks,
            Ok(Some(Err(error))) => {
                return Err(Failure::Fatal(gst::error_msg!(
                    gst::CoreError::Pad,
                    ("A pad could not be added: {error}")
                )));
            }
            Ok(None) | Err(_) => return Ok(false),
        };
        let any = !tracks.is_empty();
        let zero = CatalogWatch::zero(catalog);
        for track in tracks {
            if track.has_ended() || readers.names.contains(&track.name) {
                continue;
            }
            readers.names.push(track.name.clone());
            let (run, broadcast, element) = (self.clone(), broadcast.clone(), self.element.clone());
            let now = move || element.upgrade()?.current_running_time();
            readers.tasks.spawn(async move {
                let end = track
                    .read(
                        broadcast,
                        &run.clock,
                        run.max_age,
                        zero,
                        run.playing.clone(),
                        now,
                    )
                    .await;
                (track, end)
            });
        }
        Ok(any)
    }

    fn track_ended(&self, track: &Arc<Track>, end: End) -> Result<(), Failure> {
        match end {
            End::Finished => track.end(),
            End::Downstream => gst::debug!(CAT, obj = track.ghost, "downstream takes no more"),
            End::Lost(iroh_live::broadcast::ReadError::Transport(error)) => {
                // The catalog or the session says so too, and decides; the track alone waits for the next catalog.
                gst::debug!(CAT, obj = track.ghost, "lost: {error}");
                return Err(lost(&error.to_string()));
            }
            End::Lost(error) => {
                self.warn(&format!("Track {:?} is left out: {error}", track.name));
                track.end();
            }
            End::Refused(error) => {
                gst::debug!(CAT, obj = track.ghost, "refused: {error}");
                return Err(lost(&error.to_string()));
            }
        }
        Ok(())
    }

    fn tracks(&self) -> Vec<Arc<Track>> {
        self.element
            .upgrade()
            .map(|element| imp::IrohLiveSrc::of(&element).tracks())
            .unwrap_or_default()
    }

    fn running_time(&self) -> Option<gst::ClockTime> {
        self.element.upgrade()?.current_running_time()
    }

    fn status(&self) -> Option<Status> {
        Some(imp::IrohLiveSrc::of(&self.element.upgrade()?).status())
    }

    fn set_status(&self, status: Status) {
        if let Some(element) = self
            .element
            .upgrade()
            .filter(|_| !self.cancel.is_cancelled())
        {
            imp::IrohLiveSrc::of(&element).set_status(status);
        }
    }

    fn show_path(&self, session: Option<&MoqSession>) {
        if let Some(element) = self
            .element
            .upgrade()
            .filter(|_| !self.cancel.is_cancelled())
        {
            imp::IrohLiveSrc::of(&element).set_session(session.cloned());
        }
    }

    fn warn(&self, text: &str) {
        if let Some(element) = self
            .element
            .upgrade()
            .filter(|_| !self.cancel.is_cancelled())
        {
            gst::element_warning!(element, gst::ResourceError::NotFound, ("{text}"));
        }
    }

    fn post_error(&self, message: gst::ErrorMessage) {
        if let Some(element) = self
            .element
            .upgrade()
            .filter(|_| !self.cancel.is_cancelled())
        {
            element.post_error_message(message);
        }
    }
}
