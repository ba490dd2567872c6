//! A broadcast that is written.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hang::catalog::{AudioConfig, MOQ_EPOCH_UNIX_MILLIS, VideoConfig};
use moq_lite::{Timestamp, broadcast, cache::Pool};
use moq_mux::{
    catalog::{self, Reserved},
    container::{Frame, Producer},
};

#[cfg(feature = "media")]
use super::viewers::Viewers;
use super::{
    cache::pool,
    container::TrackContainer,
    timeline::{Restarts, Timeline},
    track::{EncodedFrame, TrackConfig},
};

/// How long the first catalog waits for tracks that were announced but not described yet.
const CATALOG_PATIENCE: Duration = Duration::from_secs(1);

/// A broadcast that this machine publishes. Cheap to clone; every clone is the same broadcast.
///
/// Timestamps are wall-clock time: microseconds since 2020-01-01 00:00 UTC, which is what the MoQ world counts from and
/// what the catalog's `clock` says, so that broadcasts of different machines can be aligned as well as their clocks are.
///
/// It can be made and written to before it is published, and published under several names. When the last clone and the
/// last [`LocalTrack`] are dropped, viewers lose it; with [`finish`](Self::finish) they learn that it was meant to end.
#[derive(Clone)]
pub struct LocalBroadcast {
    inner: Arc<Inner>,
    /// What the layer above keeps here: sources and encoders. Tracks hold the rest of the broadcast only, as these hold
    /// the tracks.
    #[cfg(feature = "media")]
    attachment: super::attachment::Attachment,
}

struct Inner {
    broadcast: broadcast::Producer,
    pool: Pool,
    catalog: catalog::Producer,
    /// Held while a track is announced that has no configuration yet, so that viewers see all tracks at once.
    waiting: Mutex<Waiting>,
    timeline: Mutex<Timeline>,
}

#[derive(Default)]
struct Waiting {
    tracks: usize,
    gate: Option<Reserved>,
    since: Option<Instant>,
}

impl std::fmt::Debug for LocalBroadcast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalBroadcast").finish_non_exhaustive()
    }
}

impl Default for LocalBroadcast {
    fn default() -> Self {
        Self::new()
    }
}

/// A track could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishTrackError {
    /// The name is taken by another track of this broadcast.
    #[error("the broadcast already has a track named {0:?}; choose another name")]
    Duplicate(String),
    /// A video track cannot become an audio track, nor the other way round.
    #[error("track {0:?} cannot change between audio and video; publish another track")]
    Kind(String),
    /// The broadcast has ended.
    #[error("the broadcast has ended; make a new one")]
    Ended,
    /// The catalog refused the description.
    #[error("the catalog does not take the track's description: {0}")]
    Catalog(#[source] moq_mux::Error),
}

/// A frame could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A track begins with a key frame; the frame was dropped.
    #[error("no key frame yet: the frame cannot be decoded and was dropped")]
    NoKeyframe,
    /// The timestamp lies before media that was sent already; the frame was dropped.
    #[error("the timestamp lies before an earlier group of pictures; the frame was dropped")]
    Rewind,
    /// The group of pictures is larger than what a group can carry (32 MiB or 8192 frames).
    #[error(
        "the group of pictures is larger than 32 MiB or 8192 frames; set the encoder to a shorter key frame interval"
    )]
    GroupTooLarge,
    /// The track or the broadcast has ended.
    #[error("the track has ended")]
    Ended,
    /// Anything else.
    #[error("the frame could not be written: {0}")]
    Mux(#[source] moq_mux::Error),
}

impl From<moq_mux::Error> for WriteError {
    fn from(error: moq_mux::Error) -> Self {
        use moq_lite::Error as Net;
        match error {
            moq_mux::Error::MissingKeyframe(_) => Self::NoKeyframe,
            moq_mux::Error::TimestampRewind(_) => Self::Rewind,
            moq_mux::Error::Moq(Net::GroupTooLarge | Net::FrameTooLarge) => Self::GroupTooLarge,
            moq_mux::Error::Moq(Net::Closed | Net::Cancel | Net::Dropped) => Self::Ended,
            error => Self::Mux(error),
        }
    }
}

impl LocalBroadcast {
    /// A broadcast with no tracks, not published yet.
    pub fn new() -> Self {
        let mut info = broadcast::Info::new();
        let pool = pool();
        info.pool = pool.clone();
        let mut broadcast = info.produce();
        let zero = UNIX_EPOCH + Duration::from_millis(MOQ_EPOCH_UNIX_MILLIS);
        let mut config = catalog::Config::default().with_max_age(super::RETENTION);
        if let Ok(clock) = moq_mux::Clock::at(Instant::now(), zero) {
            config = config.with_clock(clock);
        }
        let catalog = catalog::Producer::new(&mut broadcast, config)
            .expect("a broadcast that was just made has no catalog yet");
        Self {
            inner: Arc::new(Inner {
                broadcast,
                pool,
                catalog,
                waiting: Mutex::default(),
                timeline: Mutex::default(),
            }),
            #[cfg(feature = "media")]
            attachment: Default::default(),
        }
    }

    /// The broadcast without the sources that write to it: what their tracks may hold on to.
    pub(crate) fn tracks_only(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            #[cfg(feature = "media")]
            attachment: Default::default(),
        }
    }

    /// What the layer above keeps with the broadcast, made when it is first asked for. There is one of these.
    #[cfg(feature = "media")]
    pub(crate) fn attachment<T: Default + std::any::Any + Send + Sync>(&self) -> Arc<T> {
        self.attachment.get()
    }

    /// Whether both are clones of one broadcast.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Wall-clock time as a timestamp of a broadcast: time since 2020-01-01 00:00 UTC.
    ///
    /// Zero where the machine's clock was never set.
    pub fn now() -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH + Duration::from_millis(MOQ_EPOCH_UNIX_MILLIS))
            .unwrap_or_default()
    }

    /// A time of the media clock on the timeline of this broadcast, and how often that timeline was moved so far: when the
    /// count changes, the frame does not continue the one before it.
    ///
    /// `time` says when the frame is presented and `now` is the present, if the clock runs yet, both in nanoseconds of one
    /// clock, the same for all tracks. None for what lies before the broadcast's zero. See [`Timeline`].
    pub fn timestamp(&self, time: i64, now: Option<i64>) -> Option<(Duration, u32)> {
        self.timeline().timestamp(time, now, Self::now())
    }

    /// Says that the media clock stood still for a while, as in a pause, so that the timeline is looked at again.
    pub fn resume(&self) {
        self.timeline().resume();
    }

    /// The same for a track that goes through restarts of the media clock. See [`Timeline::timestamp_of`].
    pub fn timestamp_of(
        &self,
        track: &mut Restarts,
        time: i64,
        now: Option<i64>,
    ) -> Option<(Duration, u32)> {
        self.timeline().timestamp_of(track, time, now, Self::now())
    }

    /// For a track that begins now, and that restarts of the media clock will reach.
    pub fn restarts(&self) -> Restarts {
        self.timeline().restarts()
    }

    /// Says that the media clock counts from zero again for a track, as after a seek. See [`Timeline::restart`].
    pub fn restart(&self, track: &mut Restarts, cause: u32) {
        self.timeline().restart(track, cause);
    }

    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.inner
            .timeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a place for a track that will come, when it is not known yet what it carries.
    ///
    /// The first catalog waits for it, one second at most, so that a viewer who is there first does not see the tracks
    /// appear one by one.
    pub fn reserve_track(&self) -> TrackReservation {
        let mut waiting = self.waiting();
        let first_ever = waiting.since.is_none();
        let since = *waiting.since.get_or_insert_with(Instant::now);
        waiting.tracks += 1;
        if first_ever || (waiting.gate.is_none() && since.elapsed() < CATALOG_PATIENCE) {
            waiting.gate = Some(self.inner.catalog.reserve());
        }
        drop(waiting);
        TrackReservation {
            broadcast: self.tracks_only(),
        }
    }

    /// Adds a track.
    ///
    /// # Errors
    /// See [`PublishTrackError`].
    pub fn publish_track(
        &self,
        name: impl Into<String>,
        config: impl Into<TrackConfig>,
    ) -> Result<LocalTrack, PublishTrackError> {
        let name = name.into();
        let mux = self.inner.mux(&name, config.into())?;
        Ok(LocalTrack {
            broadcast: self.tracks_only(),
            name,
            #[cfg(feature = "media")]
            viewers: Viewers::new(mux.track()),
            mux,
            paused: false,
        })
    }

    /// The catalog as it stands.
    pub fn catalog(&self) -> super::Catalog {
        self.inner.catalog.snapshot()
    }

    /// Says that no track will come any more: viewers learn that the broadcast is over when its tracks are.
    pub fn finish(&self) {
        let mut catalog = self.inner.catalog.clone();
        if let Err(error) = catalog.finish() {
            tracing::debug!(%error, "the catalog was closed before");
        }
    }

    /// Whether anybody watches at the moment.
    pub fn is_watched(&self) -> bool {
        self.inner.broadcast.demand().is_used()
    }

    /// What peers are given.
    pub(crate) fn consume(&self) -> broadcast::Consumer {
        self.inner.broadcast.consume()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the first catalog go when nothing is missing from it any more, or when it has waited long enough.
    fn open_gate(&self, waiting: &mut Waiting) {
        let late = waiting
            .since
            .is_some_and(|since| since.elapsed() >= CATALOG_PATIENCE);
        if waiting.tracks == 0 || late {
            waiting.gate = None;
        }
    }
}

/// A place in the first catalog for a track that is not described yet. Dropping it gives the place up.
#[derive(Debug)]
pub struct TrackReservation {
    broadcast: LocalBroadcast,
}

impl TrackReservation {
    /// Adds the track.
    ///
    /// # Errors
    /// See [`PublishTrackError`].
    pub fn publish(
        self,
        name: impl Into<String>,
        config: impl Into<TrackConfig>,
    ) -> Result<LocalTrack, PublishTrackError> {
        self.broadcast.publish_track(name, config)
    }
}

impl Drop for TrackReservation {
    fn drop(&mut self) {
        let mut waiting = self.broadcast.waiting();
        waiting.tracks = waiting.tracks.saturating_sub(1);
        self.broadcast.open_gate(&mut waiting);
    }
}

enum Mux {
    Video(Box<Producer<TrackContainer, VideoConfig>>),
    Audio(Box<Producer<TrackContainer, AudioConfig>>),
}

impl Mux {
    fn track(&self) -> &moq_lite::track::Producer {
        match self {
            Self::Video(mux) => mux.track(),
            Self::Audio(mux) => mux.track(),
        }
    }
}

/// A track that is written. Dropping it takes it out of the catalog.
pub struct LocalTrack {
    broadcast: LocalBroadcast,
    name: String,
    mux: Mux,
    /// Whether viewers were told that nothing comes for now.
    paused: bool,
    #[cfg(feature = "media")]
    viewers: Viewers,
}

impl std::fmt::Debug for LocalTrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTrack")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LocalTrack {
    /// The track's name, unique in its broadcast.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Describes what the track carries, or describes it anew, as when the resolution changes.
    ///
    /// A track stays audio or video for good.
    ///
    /// # Errors
    /// See [`PublishTrackError`].
    pub fn set_config(&mut self, config: impl Into<TrackConfig>) -> Result<(), PublishTrackError> {
        match (&mut self.mux, config.into()) {
            (Mux::Video(mux), TrackConfig::Video(config)) => mux.set(config),
            (Mux::Audio(mux), TrackConfig::Audio(config)) => mux.set(config),
            _ => return Err(PublishTrackError::Kind(self.name.clone())),
        }
        .map_err(PublishTrackError::Catalog)
    }

    /// Sends a frame.
    ///
    /// The payload is not copied. A key frame of video ends the group of pictures before it. Never waits: a viewer that
    /// is too slow is skipped ahead, not waited for.
    ///
    /// # Errors
    /// See [`WriteError`]; the track goes on after each but [`WriteError::Ended`].
    pub fn write(&mut self, frame: EncodedFrame) -> Result<(), WriteError> {
        self.write_at(frame, Instant::now())
    }

    fn write_at(&mut self, frame: EncodedFrame, now: Instant) -> Result<(), WriteError> {
        self.broadcast.inner.pool.gc(now);
        if self.broadcast.is_gated() {
            self.broadcast.open_gate(&mut self.broadcast.waiting());
        }
        let timestamp = Timestamp::from_micros(
            u64::try_from(frame.timestamp.as_micros()).map_err(|_| WriteError::Rewind)?,
        )
        .map_err(|_| WriteError::Rewind)?;
        let discontinuity = frame.discontinuity && !self.paused;
        let frame = Frame {
            timestamp,
            duration: None,
            payload: frame.payload,
            keyframe: frame.keyframe,
        };
        match &mut self.mux {
            Mux::Video(mux) => {
                if discontinuity && !(mux.needs_keyframe() && mux.live_edge().is_none()) {
                    mux.discontinuity()?;
                }
                let result = mux.write(frame).map_err(WriteError::from);
                self.paused &= result.is_err();
                if matches!(result, Err(WriteError::GroupTooLarge)) {
                    // What is left of this group could not be decoded; the next key frame opens a new one.
                    let _ = mux.cut(None);
                }
                result
            }
            Mux::Audio(mux) => {
                if discontinuity && mux.live_edge().is_some() {
                    mux.discontinuity()?;
                }
                // One packet, one group, and so one QUIC stream: a lost packet holds up nothing behind it.
                mux.write(Frame {
                    keyframe: true,
                    ..frame
                })?;
                mux.cut(None)?;
                self.paused = false;
                Ok(())
            }
        }
    }

    /// Says that nothing comes for now, as when nobody watches or the source is switched off.
    ///
    /// What was written before `at` is over then: who subscribes later waits for what comes next, and is not shown the
    /// last group as if it were live. Called again and again while the pause lasts it keeps that true for viewers with
    /// any patience. The next [`write`](Self::write) ends the pause; of video it must be a key frame.
    ///
    /// # Errors
    /// See [`WriteError`]; the track goes on after each but [`WriteError::Ended`].
    pub fn pause(&mut self, at: Duration) -> Result<(), WriteError> {
        match &mut self.mux {
            Mux::Video(mux) => pause(mux, at, self.paused)?,
            Mux::Audio(mux) => pause(mux, at, self.paused)?,
        }
        self.paused = true;
        Ok(())
    }

    #[cfg(feature = "media")]
    pub(crate) fn demand(&self) -> moq_lite::track::Demand {
        self.mux.track().demand()
    }

    /// How often somebody has come to watch so far; see [`Viewers`].
    #[cfg(feature = "media")]
    pub(crate) fn viewers_joined(&mut self) -> u64 {
        self.viewers.joins()
    }

    /// Whether a key frame has to come next, as at the beginning.
    pub fn needs_keyframe(&self) -> bool {
        match &self.mux {
            Mux::Video(mux) => mux.needs_keyframe(),
            Mux::Audio(_) => false,
        }
    }

    /// Whether anybody watches this track at the moment.
    pub fn is_watched(&self) -> bool {
        self.mux.track().is_used()
    }

    /// Ends the track: viewers get everything that was written, and then its end.
    ///
    /// # Errors
    /// [`WriteError`] if the end could not be marked; the track is over in any case.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        match &mut self.mux {
            Mux::Video(mux) => mux.finish()?,
            Mux::Audio(mux) => mux.finish()?,
        }
        Ok(())
    }
}

/// Puts an empty frame into a group of its own: to readers a mark that what was there before is over.
fn pause<R: Clone + Send + 'static>(
    mux: &mut Producer<TrackContainer, R>,
    at: Duration,
    again: bool,
) -> Result<(), WriteError> {
    if mux.needs_keyframe() && mux.live_edge().is_none() {
        // Nothing was ever written.
        return Ok(());
    }
    if !again {
        mux.discontinuity()?;
    }
    let at = u64::try_from(at.as_micros())
        .ok()
        .and_then(|micros| Timestamp::from_micros(micros).ok())
        .ok_or(WriteError::Rewind)?;
    let timestamp = mux.live_edge().map_or(at, |edge| edge.max(at));
    mux.write(Frame {
        timestamp,
        duration: None,
        payload: bytes::Bytes::new(),
        keyframe: true,
    })?;
    mux.cut(None)?;
    Ok(())
}

impl LocalBroadcast {
    fn is_gated(&self) -> bool {
        self.waiting().gate.is_some()
    }
}

impl Inner {
    fn mux(&self, name: &str, config: TrackConfig) -> Result<Mux, PublishTrackError> {
        let track = self
            .broadcast
            .create_track(name, self.catalog.track_info(config.kind().priority()))
            .map_err(|error| match error {
                moq_lite::Error::Duplicate => PublishTrackError::Duplicate(name.to_owned()),
                _ => PublishTrackError::Ended,
            })?;
        // The gate of the first catalog is a reservation beside this one: nothing is published while either is held.
        match config {
            TrackConfig::Video(config) => {
                let wire = (&config)
                    .try_into()
                    .map(TrackContainer::new)
                    .map_err(PublishTrackError::Catalog)?;
                self.catalog
                    .video(track, wire, config)
                    .map(|mux| Mux::Video(Box::new(mux)))
            }
            TrackConfig::Audio(config) => {
                let wire = (&config)
                    .try_into()
                    .map(TrackContainer::new)
                    .map_err(PublishTrackError::Catalog)?;
                self.catalog
                    .audio(track, wire, config)
                    .map(|mux| Mux::Audio(Box::new(mux)))
            }
        }
        .map_err(PublishTrackError::Catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{RemoteBroadcast, VideoCodec, cache::CAPACITY};

    /// The most that is kept of ten groups a second while a viewer reads all of them, bytes.
    async fn kept_at(bytes_a_second: usize) -> u64 {
        let broadcast = LocalBroadcast::new();
        let config = TrackConfig::from(VideoConfig::new(VideoCodec::VP8));
        let mut track = broadcast.publish_track("video", config.clone()).unwrap();
        let remote = RemoteBroadcast::new("test".to_owned(), broadcast.consume());
        let mut catalog = remote.catalog().await.unwrap();
        catalog.next().await.unwrap();
        let mut reader = remote
            .subscribe("video", &config, Duration::from_secs(1))
            .await
            .unwrap();
        let start = Instant::now();
        let mut most = 0;
        for number in 0..1000 {
            let time = Duration::from_millis(10 * number);
            let frame = EncodedFrame::new(time, vec![0; bytes_a_second / 100], number % 10 == 0);
            track.write_at(frame, start + time).unwrap();
            assert!(reader.next().await.unwrap().is_some());
            most = most.max(broadcast.inner.pool.used());
        }
        most
    }

    #[tokio::test]
    async fn what_is_kept_for_viewers_stays_within_its_budget() {
        // Up to 50 Mbit/s by the bytes, above that by the time.
        for (bytes_a_second, limit) in [
            (2 << 20, CAPACITY + (1 << 20)),
            (6 << 20, 2 * CAPACITY),
            (25 << 20, 75 << 20),
        ] {
            let kept = kept_at(bytes_a_second).await;
            assert!(
                kept < limit,
                "{kept} bytes kept of {bytes_a_second} a second"
            );
        }
    }

    #[tokio::test]
    async fn what_fits_the_budget_is_kept_for_viewers_that_lag() {
        let broadcast = LocalBroadcast::new();
        let config = TrackConfig::from(VideoConfig::new(VideoCodec::VP8));
        let mut track = broadcast.publish_track("video", config.clone()).unwrap();
        let remote = RemoteBroadcast::new("test".to_owned(), broadcast.consume());
        let start = Instant::now();
        let mut reader = remote
            .subscribe("video", &config, Duration::from_secs(10))
            .await
            .unwrap();
        for number in 0..4 {
            let time = Duration::from_secs(number);
            let frame = EncodedFrame::new(time, vec![0; 1 << 18], true);
            track.write_at(frame, start + time).unwrap();
        }
        for number in 0..4 {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!(frame.timestamp, Duration::from_secs(number));
        }
    }
}
