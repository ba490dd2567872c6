//! The frames of the rendition that is best for now.

use std::{fmt, future::pending, ops::RangeInclusive, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info};

use super::{
    arrival::LastWait,
    attempt::{Attempt, AttemptState, Receiving},
    handover::{Arrived, Handover, Step},
    interface::{
        AdaptiveConfig, AdaptiveControl, AdaptiveError, AdaptiveFrame, AdaptiveStatus, check,
    },
    ladder::Ladder,
    meter::DownloadReport,
    output::Output,
    quality::Quality,
    select::{Decision, Measured, Selector},
    share::SessionShare,
};
use crate::{
    EncodedFrame, RemoteBroadcast,
    broadcast::{
        Catalog, CatalogError, CatalogWatch, EncodedReader, MediaKind, ReadError, Rendition,
        SubscribeTrackError,
    },
};

/// How often the state of things is looked at.
const TICK: Duration = Duration::from_millis(200);
/// When all renditions have ended, so long the catalog may still name another.
const GRACE: Duration = Duration::from_secs(1);

/// The frames of the rendition that is best for now, as one stream. Made by [`RemoteBroadcast::adaptive`].
///
/// What is to be shown strictly continues: no frame twice and, unless the network left something out (which
/// [`EncodedFrame::discontinuity`] says), none missing. Dropping it ends all subscriptions.
pub struct AdaptiveReader {
    broadcast: RemoteBroadcast,
    config: AdaptiveConfig,
    catalog: Option<CatalogWatch>,
    /// The last catalog, while it is looked at what of it can be decoded.
    filtering: Option<BoxFuture<'static, Vec<Arc<Rendition>>>>,
    catalog_error: Option<CatalogError>,
    quality: watch::Receiver<Quality>,
    control: AdaptiveControl,
    status: watch::Sender<AdaptiveStatus>,
    start: Instant,
    next_tick: Duration,
    /// Something changed: what is to be done is to be asked before the next tick.
    stale: bool,
    last_wait: LastWait,
    selector: Selector,
    share: SessionShare,
    ladder: Ladder,
    /// Since when there has been nothing to wait for but another catalog.
    idle_since: Option<Duration>,
    current: Option<Receiving>,
    /// Why there is no current one, if not by the publisher's will.
    lost: Option<AdaptiveError>,
    attempt: Option<Attempt>,
    output: Output,
}

enum Event {
    Catalog(Result<Option<Box<Catalog>>, CatalogError>),
    Renditions(Vec<Arc<Rendition>>),
    Quality,
    Frame(Result<Option<EncodedFrame>, ReadError>),
    Opened(Result<Box<EncodedReader>, SubscribeTrackError>),
    Next(Result<Option<EncodedFrame>, ReadError>),
    Time,
}

impl RemoteBroadcast {
    /// Reads the picture (or the sound) in the rendition that is best for now, following network and catalog, or in the
    /// one that the program chooses.
    ///
    /// Waits for the first catalog. Cancel safe.
    ///
    /// ```no_run
    /// # use iroh_live::{Quality, RemoteBroadcast, adaptive::{AdaptiveConfig, AdaptiveError}};
    /// # async fn watch(broadcast: RemoteBroadcast) -> Result<(), AdaptiveError> {
    /// let mut reader = broadcast.adaptive(AdaptiveConfig::default()).await?;
    /// let control = reader.control();
    /// while let Some(next) = reader.next().await? {
    ///     if next.changed {
    ///         println!("now {}", next.rendition.name);
    ///     }
    ///     // Decode next.frame; show the picture unless next.decode_only.
    /// }
    /// # control.set_quality(Quality::UpTo(360))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AdaptiveError::Catalog`], and [`AdaptiveError::NoSuchRendition`] if the first catalog lacks the rendition that
    /// is asked for by name.
    pub async fn adaptive(&self, config: AdaptiveConfig) -> Result<AdaptiveReader, AdaptiveError> {
        let mut catalog = self.catalog().await?;
        let first = catalog.next().await?;
        let ended = first.is_none();
        let first = first.unwrap_or_default();
        let renditions = config.renditions(first.clone()).await;
        check(&config.quality, &renditions)?;
        let catalog = (!ended).then_some(catalog);
        let mut reader = AdaptiveReader::new(self.clone(), config, catalog, renditions);
        reader.take_extension(&first);
        Ok(reader)
    }
}

impl fmt::Debug for AdaptiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveReader")
            .field("broadcast", &self.broadcast.name())
            .field("current", &self.selector.current())
            .field("target", &self.selector.target())
            .finish_non_exhaustive()
    }
}

impl AdaptiveReader {
    fn new(
        broadcast: RemoteBroadcast,
        config: AdaptiveConfig,
        catalog: Option<CatalogWatch>,
        renditions: Vec<Arc<Rendition>>,
    ) -> Self {
        let (wanted, quality) = watch::channel(config.quality.clone());
        let (status, seen) = watch::channel(AdaptiveStatus::default());
        let start = Instant::now();
        let mut reader = Self {
            share: SessionShare::new(&broadcast),
            selector: Selector::new(config.quality.clone()),
            broadcast,
            config,
            catalog,
            filtering: None,
            catalog_error: None,
            quality,
            control: AdaptiveControl {
                quality: wanted,
                status: seen,
            },
            status,
            start,
            next_tick: Duration::ZERO,
            stale: false,
            last_wait: LastWait::new(start),
            ladder: Ladder::default(),
            idle_since: None,
            current: None,
            lost: None,
            attempt: None,
            output: Output::default(),
        };
        reader.take_renditions(renditions);
        reader.publish_status(None);
        reader
    }

    /// A handle to choose another rendition and to see what is read.
    pub fn control(&self) -> AdaptiveControl {
        self.control.clone()
    }

    /// Changes how far a group may fall behind before it is skipped.
    pub fn set_max_age(&mut self, max_age: Duration) {
        self.config.max_age = max_age;
        if let Some(source) = &mut self.current {
            source.reader.set_max_age(max_age);
        }
        if let Some(Attempt {
            state: AttemptState::Reading(source),
            ..
        }) = &mut self.attempt
        {
            source.reader.set_max_age(max_age);
        }
    }

    /// The next frame; `None` when the publisher ended the broadcast, or all its renditions.
    ///
    /// Waits as long as there is a catalog without any rendition that can be read. Everything happens in here: while it
    /// is not called, nothing is followed. Cancel safe.
    ///
    /// # Errors
    /// See [`AdaptiveError`]; the stream is over then.
    pub async fn next(&mut self) -> Result<Option<AdaptiveFrame>, AdaptiveError> {
        loop {
            let now = self.now();
            if let Some(frame) = self.output.next(now) {
                if frame.changed
                    && let Some(current) = &mut self.current
                {
                    current.rendition = frame.rendition.clone();
                }
                return Ok(Some(frame));
            }
            let mut wake = self.next_tick;
            match self.step(now) {
                Some(until) => wake = wake.min(until),
                None => continue,
            }
            if self.is_over(now) {
                return self.end();
            }
            if now >= self.next_tick || self.stale {
                self.decide(now);
                continue;
            }
            let event = self.event(wake).await;
            let now = self.now();
            // What is there at once may have been waiting since the caller left: no blame on the network for that.
            self.take(event, self.last_wait.arrival(now), now);
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for whatever comes first. Cancel safe, as all that it waits for is.
    async fn event(&mut self, wake: Duration) -> Event {
        let _wait = self.last_wait.begin();
        let catalog = async {
            match &mut self.catalog {
                Some(catalog) => catalog.next().await,
                None => pending().await,
            }
        };
        let renditions = async {
            match &mut self.filtering {
                Some(filtering) => filtering.await,
                None => pending().await,
            }
        };
        let frame = async {
            match &mut self.current {
                Some(source) => source.reader.next().await,
                None => pending().await,
            }
        };
        let attempt = async {
            match self.attempt.as_mut().map(|attempt| &mut attempt.state) {
                Some(AttemptState::Opening(opening)) => Event::Opened(opening.await.map(Box::new)),
                Some(AttemptState::Reading(source)) => Event::Next(source.reader.next().await),
                None => pending().await,
            }
        };
        tokio::select! {
            catalog = catalog => Event::Catalog(catalog.map(|catalog| catalog.map(Box::new))),
            renditions = renditions => Event::Renditions(renditions),
            frame = frame => Event::Frame(frame),
            event = attempt => event,
            _ = self.quality.changed() => Event::Quality,
            () = sleep_until(self.start + wake) => Event::Time,
        }
    }

    fn take(&mut self, event: Event, arrival: RangeInclusive<Duration>, now: Duration) {
        match event {
            Event::Catalog(Ok(Some(catalog))) => {
                self.take_extension(&catalog);
                self.filtering = Some(self.config.renditions(*catalog));
            }
            Event::Renditions(renditions) => {
                self.filtering = None;
                self.take_renditions(renditions);
            }
            Event::Catalog(Ok(None)) => self.catalog = None,
            Event::Catalog(Err(error)) => {
                debug!(%error, "the catalog is followed no longer");
                self.catalog = None;
                self.catalog_error = Some(error);
            }
            Event::Quality => {
                let quality = self.quality.borrow_and_update().clone();
                self.selector.set_quality(quality);
                self.stale = true;
            }
            Event::Frame(Ok(Some(frame))) => self.take_frame(frame, arrival),
            Event::Frame(ended) => self.current_ended(ended, now),
            Event::Opened(Ok(reader)) => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.opened(*reader, self.config.budget);
                }
            }
            Event::Opened(Err(error)) => self.open_failed(error, now),
            Event::Next(Ok(Some(frame))) => {
                if let Some(attempt) = &mut self.attempt {
                    attempt.push(frame, arrival);
                }
            }
            Event::Next(ended) => self.next_ended(ended, now),
            Event::Time => {}
        }
    }

    fn open_failed(&mut self, error: SubscribeTrackError, now: Duration) {
        debug!(%error, "the rendition cannot be had");
        self.selector.failed(now);
        self.abandon();
        match error {
            // As all that the publisher has ended: the others, one by one, and what reads is over then.
            SubscribeTrackError::Ended { name } => self.finish(name, now),
            error if self.current.is_none() => self.lost = Some(error.into()),
            _ => {}
        }
    }

    /// What the catalog says beyond the renditions.
    fn take_extension(&mut self, catalog: &Catalog) {
        let adapts = self.config.kind == MediaKind::Video && catalog.ext.iroh_live.adapts_video;
        self.selector.set_publisher_adapts(adapts);
        self.stale = true;
    }

    /// The rendition that is watched has no more frames.
    fn current_ended(&mut self, ended: Result<Option<EncodedFrame>, ReadError>, now: Duration) {
        let current = self.current.take();
        if let Some(attempt) = &mut self.attempt {
            attempt.handover.end_old();
        }
        match (ended, current) {
            (Err(error), _) => {
                debug!(%error, "the rendition was lost");
                self.lost = Some(error.into());
                self.selector.lost(now);
            }
            (Ok(_), Some(current)) => self.finish(current.rendition.name.clone(), now),
            (Ok(_), None) => {}
        }
        self.stale = true;
    }

    /// The rendition that is being switched to has no more frames.
    fn next_ended(&mut self, ended: Result<Option<EncodedFrame>, ReadError>, now: Duration) {
        let next = self.attempt.as_ref();
        let name = next.map(|attempt| attempt.rendition.name.clone());
        self.selector.failed(now);
        self.abandon();
        match (ended, name) {
            (Err(error), _) => debug!(%error, "the rendition was lost before it was shown"),
            (Ok(_), Some(name)) => self.finish(name, now),
            (Ok(_), None) => {}
        }
    }

    fn take_frame(&mut self, frame: EncodedFrame, arrival: RangeInclusive<Duration>) {
        let Some(source) = &mut self.current else {
            return;
        };
        self.share.follow(&self.broadcast, frame.incarnation);
        let at = *arrival.end();
        let lateness = source.meter.lateness(frame.timestamp, at);
        source.observe(&frame, arrival);
        let frame = Arrived { frame, at };
        match &mut self.attempt {
            Some(attempt) => attempt.handover.push_old(frame, lateness),
            None => self.output.push(frame),
        }
    }

    /// A rendition was ended by its publisher.
    fn finish(&mut self, name: String, now: Duration) {
        self.ladder.end(name, now);
        self.update_ladder();
    }

    fn take_renditions(&mut self, renditions: Vec<Arc<Rendition>>) {
        self.ladder.set(renditions);
        let ladder = &self.ladder;
        let changed = |rendition: &Arc<Rendition>| {
            let now = ladder.find(&rendition.name)?;
            (!rendition.decodes_as(now)).then(|| now.clone())
        };
        if let Some(current) = &self.current {
            self.output.describe(changed(&current.rendition));
        }
        if let Some(next) = self.attempt.as_mut().and_then(Attempt::receiving) {
            next.update = changed(&next.rendition);
        }
        self.update_ladder();
    }

    fn update_ladder(&mut self) {
        self.selector.set_ladder(self.ladder.rungs());
        self.stale = true;
    }

    /// Goes on with the switch under way; returns until when there is nothing to do, if nothing is to be done.
    fn step(&mut self, now: Duration) -> Option<Duration> {
        let Some(attempt) = &mut self.attempt else {
            return Some(Duration::MAX);
        };
        if attempt.prefer_at.take_if(|at| *at <= now).is_some() {
            let priority = self.config.kind.priority();
            if let Some(current) = &mut self.current {
                current.reader.set_priority(priority - 1);
            }
            if let Some(next) = attempt.receiving() {
                next.reader.set_priority(priority);
            }
        }
        match attempt.handover.step(now) {
            Step::Wait(until) => {
                let until = until.into_iter().chain(attempt.prefer_at).min();
                Some(until.unwrap_or(Duration::MAX))
            }
            Step::Frame(frame) => {
                self.output.push(frame);
                None
            }
            Step::Cut(frames) => {
                self.take_over(frames, now);
                None
            }
        }
    }

    fn take_over(&mut self, frames: Vec<Arrived>, now: Duration) {
        let Some(Attempt {
            state: AttemptState::Reading(mut source),
            ..
        }) = self.attempt.take()
        else {
            return;
        };
        let from = self
            .current
            .take()
            .map(|source| source.rendition.name.clone());
        info!(to = %source.rendition.name, from = from.as_deref(), "another rendition takes over");
        source.reader.set_priority(self.config.kind.priority());
        source.reader.set_max_age(self.config.max_age);
        let first = self.output.rendition().is_none();
        self.output.take_over(frames, source.rendition.clone());
        self.output.describe(source.update.clone());
        self.current = Some(*source);
        self.lost = None;
        self.selector.switched(now);
        self.share.set_trying(false);
        self.status
            .send_modify(|status| status.switches += u64::from(!first));
        self.stale = true;
    }

    /// Asks what to do, and does it.
    fn decide(&mut self, now: Duration) {
        if self.ladder.forget(now) {
            self.update_ladder();
        }
        // Between two ticks a report says nothing new, and would count twice.
        let ticks = now >= self.next_tick;
        let report = |receiving: &Receiving| ticks.then(|| receiving.meter.report(now));
        let watched = self.current.as_ref().and_then(report);
        let next = self.attempt.as_mut().and_then(Attempt::receiving);
        let next = next.and_then(|next| report(next));
        if let (Some(report), Some(current)) = (&watched, &self.current) {
            self.share.set_rate(report.rate);
            let delay = current.meter.delay(now);
            self.share.set_delay(delay, (self.start + now).into_std());
        }
        let measured = Measured {
            watched: watched.as_ref(),
            next: next.as_ref(),
            peer: self.broadcast.download_bandwidth(),
            others: self.share.others(),
            taken: self.share.is_taken(),
        };
        let decision = self.selector.decide(now, measured);
        self.stale = decision.is_some();
        self.carry_out(decision, now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
        }
        self.publish_status(watched);
    }

    fn carry_out(&mut self, decision: Option<Decision>, now: Duration) {
        match decision {
            Some(Decision::Switch(name)) => self.begin(&name, now),
            Some(Decision::Prefer) => self.prefer(now),
            Some(Decision::Abandon) => self.abandon(),
            None => {}
        }
        self.share.set_trying(self.selector.is_rising());
    }

    /// What plays the frames cannot keep up with them: another rendition is needed, whatever the network carries.
    #[cfg(feature = "media")]
    pub(crate) fn too_slow(&mut self) {
        let now = self.now();
        let decision = self.selector.too_slow(now);
        self.carry_out(decision, now);
    }

    /// Has the rendition that is being switched to served first, from a moment before its next key frame on.
    fn prefer(&mut self, now: Duration) {
        let (Some(attempt), Some(current)) = (&mut self.attempt, &self.current) else {
            return;
        };
        let last = attempt.receiving().and_then(|next| next.meter.last_key());
        let key = last.and_then(|last| current.meter.next_key(last, now + self.config.hold));
        attempt.prefer_at = key.map(|key| key.saturating_sub(self.config.hold));
    }

    /// Begins to switch.
    fn begin(&mut self, name: &str, now: Duration) {
        let Some(rendition) = self.ladder.find(name).cloned() else {
            self.selector.failed(now);
            return;
        };
        let mut handover = Handover::new(self.config.patience(), self.output.played());
        let mut priority = self.config.kind.priority();
        match &mut self.current {
            None => handover.end_old(),
            Some(_) if self.selector.is_rising() => priority -= 1,
            Some(source) => source.reader.set_priority(priority - 1),
        }
        debug!(
            to = name,
            rising = self.selector.is_rising(),
            "a switch begins"
        );
        let mut max_age = self.config.max_age;
        if self.selector.is_rising() {
            // Its next group must not wait for the rest of the one that is under way.
            max_age = max_age.min(self.config.hold);
        }
        let attempt = Attempt::open(&self.broadcast, rendition, max_age, priority, handover);
        self.attempt = Some(attempt);
    }

    /// Gives the switch under way up.
    fn abandon(&mut self) {
        self.stale = true;
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        debug!(to = attempt.rendition.name, "the switch is given up");
        for frame in attempt.handover.abandon() {
            self.output.push(frame);
        }
        if let Some(source) = &mut self.current {
            source.reader.set_priority(self.config.kind.priority());
        }
    }

    /// Whether there is nothing more to be had.
    fn is_over(&mut self, now: Duration) -> bool {
        if self.current.is_some() || self.attempt.is_some() || self.filtering.is_some() {
            self.idle_since = None;
            return false;
        }
        let nothing = self.selector.ladder().is_empty();
        let begun = self.output.rendition().is_some();
        if self.catalog.is_none() {
            return nothing || begun || self.lost.is_some();
        }
        // What was played and is in the catalog no more has ended, whether or not its track said so before it left.
        let begun = begun || self.ladder.any_ended();
        if !begun || !nothing {
            self.idle_since = None;
            return false;
        }
        let since = *self.idle_since.get_or_insert(now);
        now.saturating_sub(since) >= GRACE
    }

    fn end(&mut self) -> Result<Option<AdaptiveFrame>, AdaptiveError> {
        let catalog = self.catalog_error.take().map(AdaptiveError::from);
        match catalog.or(self.lost.take()) {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    fn publish_status(&self, report: Option<DownloadReport>) {
        let rungs = self.selector.ladder().iter();
        let ladder = rungs.filter_map(|rung| self.ladder.find(&rung.name).cloned());
        let ladder = ladder.collect();
        self.status.send_modify(|status| {
            status.rendition = self.current.as_ref().map(|source| source.rendition.clone());
            status.switching_to = self.selector.target().map(str::to_owned);
            status.ladder = ladder;
            status.report = report.unwrap_or(status.report);
            status.download_bandwidth = self.broadcast.download_bandwidth();
        });
    }
}

#[cfg(test)]
mod tests;
