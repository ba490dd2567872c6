//! A broadcast that is written.

mod error;
mod first_catalog;
mod names;
mod shared;
mod track;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hang::catalog::MOQ_EPOCH_UNIX_MILLIS;
use moq_lite::{Hop, broadcast};
use moq_mux::catalog;

pub use self::{
    error::{PublishTrackError, WriteError},
    track::LocalTrack,
};
use self::{first_catalog::FirstCatalog, shared::Shared};
use super::{
    audience::Audience,
    cache::pool,
    extension::Catalog,
    timeline::{Restarts, Timeline},
    track::TrackConfig,
};

/// A broadcast that this machine publishes. Cheap to clone; every clone is the same broadcast.
///
/// Timestamps are wall-clock time: microseconds since 2020-01-01 00:00 UTC, which is what the MoQ world counts from and
/// what the catalog's `clock` says, so that broadcasts of different machines can be aligned as well as their clocks are.
///
/// It can be made and written to before it is published, and published under several names. When the last clone and the
/// last [`LocalTrack`] are dropped, viewers lose it; with [`finish`](Self::finish) they learn that it was meant to end.
#[derive(Clone)]
pub struct LocalBroadcast {
    shared: Arc<Shared>,
    /// What the layer above keeps here: sources and encoders. Tracks hold the rest of the broadcast only, as these hold
    /// the tracks.
    #[cfg(feature = "media")]
    attachment: super::attachment::Attachment,
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

impl LocalBroadcast {
    /// A broadcast with no tracks, not published yet.
    pub fn new() -> Self {
        let mut info = broadcast::Info::new();
        let pool = pool();
        info.pool = pool.clone();
        let mut broadcast = info.produce();
        let zero = UNIX_EPOCH + Duration::from_millis(MOQ_EPOCH_UNIX_MILLIS);
        let mut config = catalog::Config::default()
            .with_catalog(Catalog::default())
            .with_max_age(super::RETENTION);
        if let Ok(clock) = moq_mux::Clock::at(Instant::now(), zero) {
            config = config.with_clock(clock);
        }
        let catalog = catalog::Producer::new(&mut broadcast, config)
            .expect("a broadcast that was just made has no catalog yet");
        Self {
            shared: Arc::new(Shared {
                broadcast,
                content: Hop::random(),
                pool,
                catalog,
                first_catalog: FirstCatalog::default(),
                audience: Audience::default(),
                timeline: Mutex::default(),
                names: Arc::default(),
            }),
            #[cfg(feature = "media")]
            attachment: Default::default(),
        }
    }

    /// The broadcast without the sources that write to it: what their tracks may hold on to.
    pub(crate) fn tracks_only(&self) -> Self {
        Self {
            shared: self.shared.clone(),
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
        Arc::ptr_eq(&self.shared, &other.shared)
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
        self.shared
            .timeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a place for a track that will come, when it is not known yet what it carries.
    ///
    /// The first catalog waits for it, one second at most, so that a viewer who is there first does not see the tracks
    /// appear one by one.
    pub fn reserve_track(&self) -> TrackReservation {
        self.shared.first_catalog.announce(&self.shared.catalog);
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
        LocalTrack::new(self.shared.clone(), name.into(), config.into())
    }

    /// The catalog as it stands.
    pub fn catalog(&self) -> Catalog {
        self.shared.catalog.snapshot()
    }

    /// Says in the catalog whether the pictures are fitted to what the network carries; see
    /// [`IrohLive::adapts_video`](super::IrohLive::adapts_video).
    #[cfg(feature = "media")]
    pub(crate) fn set_adapts_video(&self, adapts: bool) {
        if self.catalog().ext.iroh_live.adapts_video == adapts {
            return;
        }
        let mut catalog = self.shared.catalog.clone();
        let changed = catalog.mutate(|catalog| catalog.ext.iroh_live.adapts_video = adapts);
        if let Err(error) = changed {
            tracing::debug!(%error, "the catalog was closed before");
        }
    }

    /// The peers that watch it.
    pub(crate) fn audience(&self) -> &Audience {
        &self.shared.audience
    }

    /// Says that no track will come any more: viewers learn that the broadcast is over when its tracks are.
    pub fn finish(&self) {
        let mut catalog = self.shared.catalog.clone();
        if let Err(error) = catalog.finish() {
            tracing::debug!(%error, "the catalog was closed before");
        }
    }

    /// Whether anybody watches at the moment.
    pub fn is_watched(&self) -> bool {
        self.shared.broadcast.demand().is_used()
    }

    /// What peers are given.
    pub(crate) fn consume(&self) -> broadcast::Consumer {
        self.shared.broadcast.consume()
    }

    /// What tells it apart from all others, also from one that takes its name. Who reaches it in two ways, as over two
    /// connections, knows by this that it is the same.
    pub(crate) fn content(&self) -> Hop {
        self.shared.content
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
        self.broadcast.shared.first_catalog.resolve();
    }
}

#[cfg(test)]
mod tests;
