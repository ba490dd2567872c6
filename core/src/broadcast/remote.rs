//! A broadcast that is read.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use moq_lite::{
    broadcast,
    track::{Control, Subscription as Preferences},
};
use moq_mux::{catalog::hang::Consumer as CatalogConsumer, container::Consumer};

use super::{
    container::{Groups, TrackContainer},
    extension::{Catalog, CatalogExtension},
    readers::{ReaderShare, Readers},
    stop::StopReason,
    track::{EncodedFrame, TrackConfig},
};
use crate::lease::Lease;

/// What a peer says that it can deliver to us at the moment, bits per second, where it says so.
pub(crate) type PeerRate = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// A broadcast of another machine. Cheap to clone; clones read independently.
///
/// It keeps the session that it comes on, as everything does that reads from it.
#[derive(Clone)]
pub struct RemoteBroadcast {
    name: String,
    broadcast: broadcast::Consumer,
    /// What the peer says that it can deliver to us, where it says so.
    peer_rate: Option<PeerRate>,
    /// What else is read on the session.
    readers: Readers,
    /// Keeps the session that it comes on.
    lease: Option<Lease>,
    /// What the layer above keeps here: what plays it.
    #[cfg(feature = "media")]
    attachment: super::attachment::Attachment,
}

impl std::fmt::Debug for RemoteBroadcast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteBroadcast")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The catalog could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The publisher has no catalog under the name that players expect.
    #[error("the broadcast has no catalog: it is not published by a player of the MoQ family")]
    NotFound(#[source] moq_lite::Error),
    /// The catalog is not valid JSON, or not a catalog.
    #[error("the catalog of the broadcast cannot be understood: {0}")]
    Malformed(#[source] moq_mux::Error),
    /// The publisher stopped it.
    #[error(transparent)]
    Stopped(StopReason),
    /// The connection was lost, or the publisher left.
    #[error("the catalog came to an abrupt end: {0}")]
    Transport(#[source] moq_lite::Error),
}

impl CatalogError {
    fn transport(error: moq_lite::Error) -> Self {
        match StopReason::of(&error) {
            Some(reason) => Self::Stopped(reason),
            None => Self::Transport(error),
        }
    }
}

/// A track could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeTrackError {
    /// The catalog describes a container that nobody here can read.
    #[error("the container of track {name:?} cannot be read: {source}")]
    Container {
        /// The track.
        name: String,
        /// What is wrong with it.
        source: moq_mux::Error,
    },
    /// The publisher stopped it.
    #[error("track {name:?} cannot be had: {reason}")]
    Stopped {
        /// The track.
        name: String,
        /// Why.
        reason: StopReason,
    },
    /// The publisher does not have the track, or the connection was lost.
    #[error("track {name:?} cannot be had: {source}")]
    Transport {
        /// The track.
        name: String,
        /// Why.
        source: moq_lite::Error,
    },
}

/// A track ended otherwise than by its publisher's will.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The publisher sent what is no frame.
    #[error("the track carries something that is no media: {0}")]
    Malformed(#[source] moq_mux::Error),
    /// The publisher stopped it.
    #[error(transparent)]
    Stopped(StopReason),
    /// The connection was lost, or the publisher left without ending the track.
    #[error("the track came to an abrupt end: {0}")]
    Transport(#[source] moq_lite::Error),
}

impl RemoteBroadcast {
    pub(crate) fn new(name: String, broadcast: broadcast::Consumer) -> Self {
        Self {
            name,
            broadcast,
            peer_rate: None,
            readers: Readers::default(),
            lease: None,
            #[cfg(feature = "media")]
            attachment: Default::default(),
        }
    }

    /// The same, with what the peer says that it can deliver.
    pub(crate) fn with_peer_rate(mut self, peer_rate: PeerRate) -> Self {
        self.peer_rate = Some(peer_rate);
        self
    }

    /// The same, among these readers.
    pub(crate) fn with_readers(mut self, readers: Readers) -> Self {
        self.readers = readers;
        self
    }

    /// The same, with a reason to keep what it comes on for as long as it is read.
    pub(crate) fn with_lease(mut self, lease: Option<Lease>) -> Self {
        self.lease = lease;
        self
    }

    /// The broadcast's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One more reader that chooses how much it receives.
    pub(crate) fn join_readers(&self) -> ReaderShare {
        self.readers.join()
    }

    /// What the layer above keeps with the broadcast, made when it is first asked for. There is one of these.
    #[cfg(feature = "media")]
    pub(crate) fn attachment<T: Default + std::any::Any + Send + Sync>(&self) -> std::sync::Arc<T> {
        self.attachment.get()
    }

    /// What the peer says that it can deliver to us, bits per second: the estimate of its congestion controller.
    ///
    /// `None` where it does not say. While it sends less than the path carries, this is hardly more than what it sent.
    pub fn download_bandwidth(&self) -> Option<u64> {
        self.peer_rate.as_ref()?()
    }

    /// Begins to read the catalog, which changes as tracks come and go.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn catalog(&self) -> Result<CatalogWatch, CatalogError> {
        let track = self
            .broadcast
            .track(hang::Catalog::DEFAULT_NAME)
            .map_err(CatalogError::transport)?
            .subscribe(hang::Catalog::default_subscription())
            .await
            .map_err(|error| match error {
                moq_lite::Error::NotFound => CatalogError::NotFound(error),
                error => CatalogError::transport(error),
            })?;
        Ok(CatalogWatch {
            consumer: CatalogConsumer::new(track),
            _lease: self.lease.clone(),
        })
    }

    /// Begins to receive a track, as encoded frames in decode order.
    ///
    /// `max_age` is how far a group may fall behind the newest one before it is skipped; a track begins with a key frame
    /// at most one group old. Dropping the reader ends the subscription. Cancel safe.
    ///
    /// # Errors
    /// See [`SubscribeTrackError`].
    pub async fn subscribe(
        &self,
        name: &str,
        config: &TrackConfig,
        max_age: Duration,
    ) -> Result<EncodedReader, SubscribeTrackError> {
        self.subscribe_with(name, config, max_age, config.kind().priority())
            .await
    }

    /// The same, with another priority than the kind of media has; higher ones are served first.
    pub(crate) async fn subscribe_with(
        &self,
        name: &str,
        config: &TrackConfig,
        max_age: Duration,
        priority: u8,
    ) -> Result<EncodedReader, SubscribeTrackError> {
        let wire = match config {
            TrackConfig::Video(config) => config.try_into(),
            TrackConfig::Audio(config) => config.try_into(),
        };
        let wire = wire.map_err(|source| SubscribeTrackError::Container {
            name: name.to_owned(),
            source,
        })?;
        let lost = |source| {
            let name = name.to_owned();
            match StopReason::of(&source) {
                Some(reason) => SubscribeTrackError::Stopped { name, reason },
                None => SubscribeTrackError::Transport { name, source },
            }
        };
        let preferences = Preferences::default()
            .with_priority(priority)
            .with_max_age(max_age);
        let track = self
            .broadcast
            .track(name)
            .map_err(lost)?
            .subscribe(preferences)
            .await
            .map_err(lost)?;
        let container = TrackContainer::new(wire);
        Ok(EncodedReader {
            control: track.control(),
            groups: container.groups(),
            consumer: Consumer::new(track, container),
            skipped: 0,
            stats: TrackStats::default(),
            audio: !config.is_video(),
            _lease: self.lease.clone(),
        })
    }

    /// Whether it is known to be over.
    pub(crate) fn is_closed(&self) -> bool {
        self.broadcast.is_closed()
    }

    /// Waits until the broadcast is over or cannot be reached any more. Cancel safe.
    pub async fn closed(&self) -> moq_lite::Error {
        self.broadcast.closed().await
    }
}

/// The catalog of a broadcast as it changes.
pub struct CatalogWatch {
    consumer: CatalogConsumer<CatalogExtension>,
    _lease: Option<Lease>,
}

impl CatalogWatch {
    /// The next state of the catalog; `None` when the broadcast ended.
    ///
    /// The first call gives the state as it stands. Cancel safe.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn next(&mut self) -> Result<Option<Catalog>, CatalogError> {
        self.consumer
            .next()
            .await
            .map_err(|error| match net_error(&error) {
                Some(error @ moq_lite::Error::NotFound) => CatalogError::NotFound(error),
                Some(error) => CatalogError::transport(error),
                None => CatalogError::Malformed(error),
            })
    }

    /// The wall-clock time of the broadcast's timestamp zero, if the catalog says so.
    pub fn epoch(catalog: &Catalog) -> Option<SystemTime> {
        catalog
            .clock
            .and_then(|clock| clock.wall_clock(moq_lite::Timestamp::ZERO).ok())
    }
}

/// The transport error inside an error of the layers above it; none if what was received makes no sense.
fn net_error(error: &moq_mux::Error) -> Option<moq_lite::Error> {
    match error {
        moq_mux::Error::Moq(error)
        | moq_mux::Error::Json(moq_json::Error::Net(error))
        | moq_mux::Error::Hang(hang::Error::Moq(error)) => match error {
            moq_lite::Error::Decode(_) | moq_lite::Error::BoundsExceeded(_) => None,
            error => Some(error.clone()),
        },
        _ => None,
    }
}

/// A track that is read.
pub struct EncodedReader {
    consumer: Consumer<TrackContainer>,
    groups: Groups,
    /// How often the consumer has skipped something so far.
    skipped: u64,
    control: Control,
    stats: TrackStats,
    audio: bool,
    _lease: Option<Lease>,
}

/// What was read of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TrackStats {
    /// Frames.
    pub frames: u64,
    /// Those of them that decoding can begin with.
    pub keyframes: u64,
    /// Bytes of media, without what the transport adds.
    pub bytes: u64,
    /// How often something was missing: groups that came too late, or only in part, and the publisher's pauses.
    pub discontinuities: u64,
}

impl EncodedReader {
    /// The next frame in decode order; `None` when the publisher ended the track.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<EncodedFrame>, ReadError> {
        let frame = self
            .consumer
            .read()
            .await
            .map_err(|error| match net_error(&error) {
                Some(error) => match StopReason::of(&error) {
                    Some(reason) => ReadError::Stopped(reason),
                    None => ReadError::Transport(error),
                },
                None => ReadError::Malformed(error),
            })?;
        let Some(frame) = frame else { return Ok(None) };
        let skipped = self.consumer.discontinuity();
        let mut discontinuity = std::mem::replace(&mut self.skipped, skipped) != skipped;
        if frame.keyframe {
            // Of what was before the first frame nobody misses anything.
            discontinuity |= self.groups.enter(frame.timestamp) && self.stats.frames > 0;
        }
        let keyframe = frame.keyframe || self.audio;
        self.stats.discontinuities += u64::from(discontinuity);
        self.stats.frames += 1;
        self.stats.keyframes += u64::from(keyframe);
        self.stats.bytes += frame.payload.len() as u64;
        Ok(Some(EncodedFrame {
            timestamp: frame.timestamp.into(),
            payload: frame.payload,
            keyframe,
            discontinuity,
        }))
    }

    /// What was read so far.
    pub fn stats(&self) -> TrackStats {
        self.stats
    }

    /// Changes how the track is served beside the others of its session; higher priorities are served first.
    pub(crate) fn set_priority(&self, priority: u8) {
        let preferences = self.control.subscription().with_priority(priority);
        // The track may have ended.
        let _ = self.control.update(preferences);
    }

    /// Changes how far a group may fall behind before it is skipped.
    pub fn set_max_age(&mut self, max_age: Duration) {
        self.consumer.set_max_age(max_age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{VideoConfig, catalog::VideoCodec};
    use moq_mux::{
        catalog::hang::Container,
        container::{Container as _, Frame},
    };

    const GOP: u64 = 10;

    fn timestamp(number: u64) -> moq_lite::Timestamp {
        moq_lite::Timestamp::from_millis(40 * number).expect("small")
    }

    /// Writes these frames into a group.
    fn write(
        group: &mut moq_lite::group::Producer,
        wire: &Container,
        frames: std::ops::Range<u64>,
    ) {
        for number in frames {
            let frame = Frame {
                timestamp: timestamp(number),
                duration: None,
                payload: vec![0; 100].into(),
                keyframe: number.is_multiple_of(GOP),
            };
            wire.write(group, &[frame]).expect("written");
        }
    }

    /// Groups of ten frames, of which the second one breaks off before its last frame: one is missing, no more than what a
    /// camera leaves out now and then.
    #[tokio::test]
    async fn a_group_that_breaks_off_is_a_gap() {
        let broadcast = broadcast::Info::new().produce();
        let track = broadcast.create_track("video", None).expect("a track");
        let remote = RemoteBroadcast::new("test".to_owned(), broadcast.consume());
        let config = VideoConfig::new(VideoCodec::VP8);
        let wire = Container::try_from(&config).expect("known");
        let mut reader = remote
            .subscribe("video", &config.into(), Duration::from_secs(10))
            .await
            .expect("there");
        let mut seen = Vec::new();
        for begin in [0, 10, 20, 30] {
            let mut group = track.append_group().expect("a group");
            let broken = begin == 10;
            let end = begin + GOP - u64::from(broken);
            write(&mut group, &wire, begin..end);
            for number in begin..end {
                let frame = reader.next().await.expect("sound").expect("not the end");
                assert_eq!(frame.timestamp, Duration::from(timestamp(number)));
                seen.push(frame.discontinuity);
            }
            if broken {
                group.abort(moq_lite::Error::Old).expect("open until now");
            } else {
                group.finish().expect("open until now");
            }
        }
        let gaps: Vec<_> = (0..seen.len()).filter(|at| seen[*at]).collect();
        assert_eq!(gaps, [19], "the first frame after the gap");
        assert_eq!(reader.stats().discontinuities, 1);
        // If this is no longer so, `TrackContainer` need not take note of groups.
        assert_eq!(reader.consumer.discontinuity(), 0, "nobody else noticed");
    }
}
