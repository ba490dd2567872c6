//! Follows a broadcast to its end: the way to it, the catalog, the pads, the readers of the tracks.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use gst::{glib, prelude::*};
use iroh_live::{
    LossReason, RemoteBroadcast, Subscriber, SubscriberState,
    broadcast::{Catalog, CatalogWatch},
    media::receive::Playable,
    retry::Backoff,
    transport::PathChanges,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    category::CAT,
    failure::{self, Failure, unplayable},
    pad_selection::{limited, warnings},
    reader::{BroadcastState, End, Reading},
    run::{Observer, Run},
    status::Status,
    track::Track,
};

/// After the broadcast's end, how long its tracks may still go on.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// When to look again whether a track has begun anew that is still listed after its end. The transport remembers what it had
/// for half a minute after it was last looked at: sooner, it would always give that.
const PROBE_INTERVAL: Duration = Duration::from_secs(31);

/// After so many attempts in a row without a frame there is a warning. One may be the catalog being a moment behind.
const MAX_EMPTY_ATTEMPTS: u32 = 2;

/// Watches until the publisher ends the broadcast, or something cannot be mended by trying again.
pub(super) async fn watch<O: Observer>(run: Arc<Run<O>>) {
    let mut subscriber = run.live.subscriber_of(&run.ticket);
    if let Some(limit) = run.timeout {
        subscriber = subscriber.give_up_after(limit);
    }
    let subscriber = subscriber.spawn();
    // There is one subscriber a run.
    let _ = run.net_stats.set(subscriber.stats());
    run.set_status(Status::Connecting);
    let watched = Follower::new(run.clone(), subscriber).follow().await;
    run.observer.set_session(None);
    match watched {
        Ok(()) => run.set_status(Status::Ended),
        Err(Failure::Empty(error)) => {
            run.set_status(Status::Ended);
            run.observer.fail(error);
        }
        Err(Failure::Fatal(error)) => {
            run.set_status(Status::Failed);
            run.observer.fail(error);
        }
    }
}

/// A broadcast that is followed.
struct Follower<O> {
    run: Arc<Run<O>>,
    subscriber: Subscriber,
    broadcast: RemoteBroadcast,
    /// As it stands.
    catalog: Option<Catalog>,
    /// Whether there is something to watch since the broadcast was found last.
    exposed: bool,
    /// Since when there is nothing.
    without: Instant,
    /// Whether it was said that the publisher has no such broadcast.
    told_absent: bool,
    readers: Readers,
    retries: HashMap<String, Retry>,
    state: watch::Sender<BroadcastState>,
}

impl<O: Observer> Follower<O> {
    fn new(run: Arc<Run<O>>, subscriber: Subscriber) -> Self {
        Self {
            run,
            broadcast: subscriber.broadcast().clone(),
            subscriber,
            catalog: None,
            exposed: false,
            without: Instant::now(),
            told_absent: false,
            readers: Readers::default(),
            retries: HashMap::new(),
            state: watch::Sender::new(BroadcastState::Live(0)),
        }
    }

    /// Returns when the publisher has ended the broadcast.
    async fn follow(mut self) -> Result<(), Failure> {
        let mut state = self.subscriber.state();
        let mut sessions = self.subscriber.sessions();
        let mut paths: Option<PathChanges> = None;
        let catalog = self.broadcast.catalog().await;
        let mut catalog = catalog.map_err(|error| Failure::read(&error.to_string()))?;
        let mut playing = self.run.playing.clone();
        loop {
            let deadline = self.deadline();
            let path = async {
                match &mut paths {
                    Some(paths) => paths.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Ok(()) = state.changed() => {
                    let state = state.borrow_and_update().clone();
                    self.state_changed(state)?;
                }
                Ok(()) = sessions.changed() => {
                    let session = sessions.borrow_and_update().clone();
                    self.run.observer.set_session(session.as_ref());
                    paths = session.map(|session| session.path_changes());
                }
                update = catalog.next() => match update {
                    Ok(Some(update)) => {
                        self.catalog = Some(update);
                        self.update().await?;
                    }
                    Ok(None) => break,
                    // Why is in the state.
                    Err(error) => {
                        self.state_changed(self.subscriber.closed().await)?;
                        return Err(Failure::read(&error.to_string()));
                    }
                },
                done = self.readers.next() => self.reader_done(done).await?,
                // While it paused, pads may have had to stay.
                Ok(()) = playing.changed() => if *playing.borrow_and_update() {
                    self.update().await?;
                },
                Some(_) = path => {
                    let session = sessions.borrow().clone();
                    self.run.observer.set_session(session.as_ref());
                }
                () = until(deadline) => return Err(self.late()),
            }
        }
        self.last_frames().await
    }

    /// When to give up a broadcast that is there, as nothing in it can be watched.
    fn deadline(&self) -> Option<Instant> {
        let up = self.subscriber.state().borrow().is_up();
        let limit = self.run.timeout.filter(|_| up && !self.exposed)?;
        Some(self.without + limit)
    }

    /// Nothing in the broadcast can be watched, for too long.
    fn late(&self) -> Failure {
        let error = match self.run.unplayable() {
            Some(reason) => unplayable(&reason),
            None => failure::absent(self.run.ticket.name()),
        };
        Failure::given_up(&error, self.without.elapsed())
    }

    fn state_changed(&mut self, state: SubscriberState) -> Result<(), Failure> {
        if matches!(
            state,
            SubscriberState::Connecting | SubscriberState::Waiting { .. }
        ) {
            self.away();
        }
        let name = self.run.ticket.name();
        let own = self.run.live.endpoint().id();
        if !matches!(state, SubscriberState::Waiting { .. }) {
            self.told_absent = false;
        }
        match state {
            SubscriberState::Connecting => self.run.set_status(Status::Connecting),
            SubscriberState::Waiting { published } => {
                self.run.set_status(Status::Waiting);
                if let Some(published) = published
                    && !std::mem::replace(&mut self.told_absent, true)
                {
                    let warning = failure::waiting(name, &published);
                    self.run.warn_once(warning);
                }
            }
            SubscriberState::Up => self.run.set_status(if self.exposed {
                Status::Connected
            } else {
                Status::Waiting
            }),
            SubscriberState::Stalled { .. } => self.run.set_status(Status::Stalled),
            SubscriberState::Lost { reason, is_new, .. } => {
                self.lost(&reason, is_new);
            }
            SubscriberState::Refused(error) => return Err(Failure::refused(&error, name, own)),
            SubscriberState::Failed(error) => return Err(Failure::failed(&error, name)),
            // The catalog has the end as well, and what comes before it.
            _ => {}
        }
        Ok(())
    }

    /// The broadcast is not there. That it was lost is not seen where another one takes its place at once.
    fn away(&mut self) {
        if std::mem::take(&mut self.exposed) {
            self.without = Instant::now();
        }
        self.run.set_unplayable(None);
    }

    fn lost(&mut self, reason: &LossReason, is_new: bool) {
        self.away();
        self.run.set_status(Status::Reconnecting);
        self.state.send_modify(|state| {
            if let BroadcastState::Live(losses) = state {
                *losses += 1;
            }
        });
        gst::info!(CAT, "{reason}");
        if is_new {
            let warning = failure::again(reason, self.run.ticket.name());
            self.run.observer.warn(warning);
        }
    }

    /// No track comes any more; those that are there go on to their ends.
    async fn last_frames(mut self) -> Result<(), Failure> {
        let tracks = self.run.observer.tracks();
        if tracks.is_empty() {
            return Err(Failure::empty(self.run.unplayable()));
        }
        self.state.send_replace(BroadcastState::Ended);
        let last = async {
            while !self.readers.is_empty() {
                match self.readers.next().await {
                    TrackTask::Read(track, End::Finished) => track.end(),
                    TrackTask::Read(track, end) => gst::debug!(CAT, obj = track.ghost, "{end:?}"),
                    TrackTask::Probed(..) => {}
                }
            }
        };
        let _ = tokio::time::timeout(LAST_FRAMES, last).await;
        for track in tracks {
            track.end();
        }
        Ok(())
    }

    /// Brings pads and readers in line with the catalog.
    async fn update(&mut self) -> Result<(), Failure> {
        let Some(catalog) = &self.catalog else {
            return Ok(());
        };
        let epoch = CatalogWatch::epoch(catalog);
        let mut playable = Playable::of(catalog);
        let (wanted, too_many) = limited(std::mem::take(&mut playable.renditions));
        let warnings = warnings(&playable, too_many);
        // It may list more later. Until then that is why nothing comes.
        let nothing = wanted.is_empty() && !warnings.is_empty();
        self.run
            .set_unplayable(nothing.then(|| warnings.join(". ")));
        match self.run.unplayable() {
            Some(reason) => self.run.warn_once(unplayable(&reason)),
            None => {
                for warning in warnings {
                    let warning = glib::Error::new(gst::StreamError::CodecNotFound, &warning);
                    self.run.warn_once(warning);
                }
            }
        }
        if wanted.is_empty() {
            // Nothing yet, or a publisher that stops without ending its tracks: it may come back.
            return Ok(());
        }
        let exposed = self.run.observer.expose(wanted).await;
        let tracks = exposed.map_err(|error| {
            Failure::Fatal(glib::Error::new(
                gst::CoreError::Pad,
                &format!("A pad could not be added: {error}"),
            ))
        })?;
        self.connected();
        self.retries
            .retain(|pad, _| tracks.iter().any(|track| track.ghost.name() == *pad));
        for track in tracks {
            self.start(track, epoch, Duration::ZERO);
        }
        Ok(())
    }

    /// There is something to watch.
    fn connected(&mut self) {
        self.exposed = true;
        if self.run.status() == Status::Waiting {
            self.run.set_status(Status::Connected);
        }
    }

    /// Begins to read a track after a `delay`, unless it is read already.
    fn start(&mut self, track: Arc<Track>, epoch: Option<std::time::SystemTime>, delay: Duration) {
        let mut reading = Reading {
            broadcast: self.broadcast.clone(),
            clock: self.run.clock.clone(),
            epoch,
            max_age: self.run.max_age.clone(),
            playing: self.run.playing.clone(),
            state: self.state.subscribe(),
        };
        let observer = self.run.observer.clone();
        self.readers.start(&track.clone(), async move {
            reading.wait(delay).await;
            if track.has_ended() {
                let restarts = reading.restarts(&track).await;
                return TrackTask::Probed(track, restarts);
            }
            let end = reading.read(&track, || observer.running_time()).await;
            TrackTask::Read(track, end)
        });
    }

    async fn reader_done(&mut self, done: TrackTask) -> Result<(), Failure> {
        match done {
            TrackTask::Read(track, End::Finished) => track.end(),
            TrackTask::Read(track, End::Downstream) => {
                gst::debug!(CAT, obj = track.ghost, "downstream takes no more");
            }
            // Once may be a publisher whose timestamps jumped.
            TrackTask::Read(track, End::Malformed(reason)) => self.retry(&track, &reason, true),
            TrackTask::Read(track, End::Unavailable(reason)) => self.retry(&track, &reason, false),
            TrackTask::Probed(track, true) => {
                gst::info!(CAT, obj = track.ghost, "begun anew by the publisher");
                track.set_restarted();
                self.update().await?;
            }
            TrackTask::Probed(track, false) => self.probe_later(track),
        }
        Ok(())
    }

    /// A track alone cannot be had, or broke off: it is tried again. Were it the broadcast or the session, the catalog or
    /// the session would say so.
    fn retry(&mut self, track: &Arc<Track>, reason: &str, give_up: bool) {
        let retry = self.retries.entry(track.ghost.name().into()).or_default();
        let frames = track.feed().stats().frames;
        let wait = retry.failed(Instant::now(), frames, rand::random());
        gst::info!(CAT, obj = track.ghost, "{reason}; again in {wait:?}");
        if retry.empty_attempts >= MAX_EMPTY_ATTEMPTS {
            self.run.warn_once(left_out(track, reason));
            if give_up {
                return track.end();
            }
        }
        self.start_after(track.clone(), wait);
    }

    /// Looks later whether a track has begun anew, for as long as the catalog lists it.
    fn probe_later(&mut self, track: Arc<Track>) {
        let listed = self.run.observer.tracks();
        if listed.iter().any(|other| Arc::ptr_eq(other, &track)) {
            self.start_after(track, PROBE_INTERVAL);
        }
    }

    fn start_after(&mut self, track: Arc<Track>, wait: Duration) {
        let epoch = self.catalog.as_ref().and_then(CatalogWatch::epoch);
        self.start(track, epoch, wait);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn left_out(track: &Track, reason: &str) -> glib::Error {
    glib::Error::new(
        gst::StreamError::Demux,
        &format!("Track {:?} is left out: {reason}", track.name),
    )
}

/// When to try a track again that could not be had.
#[derive(Default)]
struct Retry {
    backoff: Backoff,
    /// The failures in a row without a frame between them.
    empty_attempts: u32,
    /// At the last failure.
    frames: u64,
    at: Option<Instant>,
}

impl Retry {
    /// How long to wait. `frames` is how many have come so far.
    fn failed(&mut self, now: Instant, frames: u64, random: f64) -> Duration {
        self.empty_attempts = if frames > self.frames {
            1
        } else {
            self.empty_attempts + 1
        };
        if self.at.is_some_and(|at| now - at > 2 * Backoff::LONGEST) && self.empty_attempts == 1 {
            self.backoff.succeeded();
        }
        (self.frames, self.at) = (frames, Some(now));
        self.backoff.next(random)
    }
}

/// What a task says at its end.
enum TrackTask {
    /// The track was read.
    Read(Arc<Track>, End),
    /// The track had ended; whether it has begun anew.
    Probed(Arc<Track>, bool),
}

/// The tasks that read the tracks, one for each.
#[derive(Default)]
struct Readers {
    tasks: JoinSet<TrackTask>,
    /// The names of the pads that have one.
    busy: BTreeSet<String>,
}

impl Readers {
    fn start(&mut self, track: &Track, task: impl Future<Output = TrackTask> + Send + 'static) {
        if self.busy.insert(track.ghost.name().into()) {
            self.tasks.spawn(task);
        }
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next that is done; never, while there is none. Cancel safe.
    async fn next(&mut self) -> TrackTask {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(done)) => {
                    let (TrackTask::Read(track, _) | TrackTask::Probed(track, _)) = &done;
                    self.busy.remove(track.ghost.name().as_str());
                    return done;
                }
                // Broken: a panic is reported by the runtime.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_for_a_track_grows_until_it_goes_well_for_a_while() {
        let mut retry = Retry::default();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let first = retry.failed(begin, 0, 0.5);
        assert!(retry.failed(after(1), 0, 0.5) > first);
        assert!(
            retry.failed(after(2), 7, 0.5) > first,
            "a frame is not enough"
        );
        assert_eq!(retry.failed(after(30), 8, 0.5), first);
        assert!(
            retry.failed(after(60), 8, 0.5) > first,
            "time is not enough"
        );
    }

    #[test]
    fn attempts_without_a_frame_are_counted_in_a_row() {
        let mut retry = Retry::default();
        let mut empty_attempts = |frames| {
            retry.failed(Instant::now(), frames, 0.5);
            retry.empty_attempts
        };
        assert_eq!([0, 0, 5, 5, 6].map(&mut empty_attempts), [1, 2, 1, 2, 1]);
    }
}
