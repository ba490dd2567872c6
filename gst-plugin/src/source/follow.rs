//! Follows a broadcast to its end: the catalog, the pads, the readers of the tracks.

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use gst::{glib, prelude::*};
use iroh_live::{
    RemoteBroadcast,
    broadcast::{Catalog, CatalogError, CatalogWatch},
    media::receive::Playable,
    retry::Backoff,
    transport::MoqSession,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    category::CAT,
    failure::{Failure, unplayable},
    pad_selection::{limited, warnings},
    reader::{BroadcastState, End, Reading},
    run::{Observer, Run},
    status::Status,
    track::Track,
};

/// After the catalog's end, how long its tracks may still go on.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// After the session's end, how long what it brought is still taken in.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// When to look again whether a track has begun anew that is still listed after its end. The transport remembers what it had
/// for half a minute after it was last looked at: sooner, it would always give that.
const PROBE_INTERVAL: Duration = Duration::from_secs(31);

/// After so many attempts in a row without a frame there is a warning. One may be the catalog being a moment behind.
const MAX_EMPTY_ATTEMPTS: u32 = 2;

/// A broadcast that is followed.
pub(super) struct Follower<O> {
    run: Arc<Run<O>>,
    session: MoqSession,
    broadcast: RemoteBroadcast,
    /// As it stands.
    catalog: Option<Catalog>,
    readers: Readers,
    retries: HashMap<String, Retry>,
    state: watch::Sender<BroadcastState>,
}

impl<O: Observer> Follower<O> {
    pub(super) fn new(run: Arc<Run<O>>, session: MoqSession, broadcast: RemoteBroadcast) -> Self {
        Self {
            run,
            session,
            broadcast,
            catalog: None,
            readers: Readers::default(),
            retries: HashMap::new(),
            state: watch::Sender::default(),
        }
    }

    /// Returns when the publisher has ended the broadcast.
    pub(super) async fn follow(mut self) -> Result<(), Failure> {
        let mut catalog = self.broadcast.catalog().await.map_err(Failure::catalog)?;
        let mut paths = self.session.path_changes();
        let mut playing = self.run.playing.clone();
        let session = self.session.clone();
        let mut closed = pin!(async {
            let end = session.disconnected().await;
            // How the broadcast ended may be in what came before.
            tokio::time::sleep(CLOSE_GRACE).await;
            end
        });
        loop {
            tokio::select! {
                update = catalog.next() => match update {
                    Ok(Some(update)) => {
                        self.catalog = Some(update);
                        self.update().await?;
                    }
                    Ok(None) => break,
                    Err(error) => return Err(self.failure(error)),
                },
                done = self.readers.next() => self.reader_done(done).await?,
                // While it paused, pads may have had to stay.
                Ok(()) = playing.changed() => if *playing.borrow_and_update() {
                    self.update().await?;
                },
                end = &mut closed => return Err(Failure::closed(&end)),
                Some(_) = paths.next() => self.run.observer.set_session(Some(&self.session)),
            }
        }
        self.last_frames().await
    }

    /// The catalog broke off. If that was the session's end, that says more.
    fn failure(&self, error: CatalogError) -> Failure {
        match (error, self.session.ended()) {
            (CatalogError::Transport(_), Some(end)) => Failure::closed(&end),
            (error, _) => Failure::catalog(error),
        }
    }

    /// No track comes any more; those that are there go on to their ends.
    async fn last_frames(mut self) -> Result<(), Failure> {
        let tracks = self.run.observer.tracks();
        if tracks.is_empty() {
            return Err(Failure::empty(self.run.unplayable()));
        }
        let is_empty = |catalog: &Catalog| {
            catalog.video.renditions.is_empty() && catalog.audio.renditions.is_empty()
        };
        self.state.send_replace(match &self.catalog {
            Some(catalog) if is_empty(catalog) => BroadcastState::Emptied,
            _ => BroadcastState::Ended,
        });
        let mut unknown = false;
        let last = async {
            while !self.readers.is_empty() {
                match self.readers.next().await {
                    Done::Read(track, End::Unavailable(reason)) => {
                        gst::debug!(CAT, obj = track.ghost, "{reason}");
                        return Err(Failure::stopped());
                    }
                    Done::Read(_, End::Unknown) => unknown = true,
                    Done::Probed(..) => {}
                    done => self.reader_done(done).await?,
                }
            }
            Ok(())
        };
        if let Ok(Err(failure)) = tokio::time::timeout(LAST_FRAMES, last).await {
            return Err(failure);
        }
        // Tracks that nobody reads end as the others do. Where there are no others, better wait in vain than leave a
        // publisher that comes back.
        if unknown && !tracks.iter().any(|track| track.has_ended()) {
            return Err(Failure::stopped());
        }
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
    fn connected(&self) {
        if self.run.status() != Status::Connected {
            if let Some(now) = self.run.observer.running_time() {
                self.run.clock.reconnected(now);
            }
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
            flowed: self.run.flowed.clone(),
        };
        let observer = self.run.observer.clone();
        self.readers.start(&track.clone(), async move {
            reading.wait(delay).await;
            if track.has_ended() {
                let restarts = reading.restarts(&track).await;
                return Done::Probed(track, restarts);
            }
            let end = reading.read(&track, || observer.running_time()).await;
            Done::Read(track, end)
        });
    }

    async fn reader_done(&mut self, done: Done) -> Result<(), Failure> {
        match done {
            Done::Read(track, End::Finished) => track.end(),
            Done::Read(track, End::Downstream | End::Unknown) => {
                gst::debug!(CAT, obj = track.ghost, "downstream takes no more");
            }
            // Once may be a publisher whose timestamps jumped.
            Done::Read(track, End::Malformed(reason)) => self.retry(&track, &reason, true),
            Done::Read(track, End::Unavailable(reason)) => self.retry(&track, &reason, false),
            Done::Probed(track, true) => {
                gst::info!(CAT, obj = track.ghost, "begun anew by the publisher");
                track.set_restarted();
                self.update().await?;
            }
            Done::Probed(track, false) => self.probe_later(track),
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
enum Done {
    /// The track was read.
    Read(Arc<Track>, End),
    /// The track had ended; whether it has begun anew.
    Probed(Arc<Track>, bool),
}

/// The tasks that read the tracks, one for each.
#[derive(Default)]
struct Readers {
    tasks: JoinSet<Done>,
    /// The names of the pads that have one.
    busy: BTreeSet<String>,
}

impl Readers {
    fn start(&mut self, track: &Track, task: impl Future<Output = Done> + Send + 'static) {
        if self.busy.insert(track.ghost.name().into()) {
            self.tasks.spawn(task);
        }
    }

    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next that is done; never, while there is none. Cancel safe.
    async fn next(&mut self) -> Done {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(done)) => {
                    let (Done::Read(track, _) | Done::Probed(track, _)) = &done;
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
