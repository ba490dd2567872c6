//! A broadcast that is read.

mod catalog;
mod error;
mod reader;

use std::{sync::Arc, time::Duration};

pub use catalog::CatalogWatch;
pub use error::{CatalogError, ReadError, SubscribeTrackError};
use moq_lite::broadcast;
pub use reader::{EncodedReader, TrackStats};

use tokio::time::Instant;

use self::reader::TrackRequest;
use super::{
    catalog_reader::CatalogGuard,
    readers::{ReaderShare, Readers},
    rendition::Rendition,
    track::TrackConfig,
    upstream::{Incarnation, Lasting, PeerRate, Upstream},
};
use crate::lease::Lease;

/// A broadcast of another machine. Cheap to clone; clones read independently.
///
/// One that a [session](crate::MoqSession::subscribe) gives ends with the session. One that comes from a
/// [`Subscriber`](crate::Subscriber), as [`Live::subscribe`](crate::Live::subscribe) gives it, lasts: what reads from it goes on when the connection was lost or
/// the publisher has come back. Either keeps the session that it comes on, as everything does that reads from it.
#[derive(Clone)]
pub struct RemoteBroadcast {
    name: String,
    source: Source,
    /// What the layer above keeps here: what plays it.
    #[cfg(feature = "media")]
    attachment: super::attachment::Attachment,
}

#[derive(Clone)]
enum Source {
    One(Incarnation),
    Lasting(Lasting),
}

impl std::fmt::Debug for RemoteBroadcast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteBroadcast")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RemoteBroadcast {
    pub(crate) fn new(name: String, broadcast: broadcast::Consumer) -> Self {
        Self::of(
            name,
            Source::One(Incarnation {
                number: 0,
                broadcast,
                peer_rate: None,
                readers: Readers::default(),
                lease: None,
                catalog: None,
                catalog_guard: CatalogGuard::default(),
            }),
        )
    }

    /// Whichever broadcast of this name a subscription finds.
    pub(crate) fn lasting(name: String, lasting: Lasting) -> Self {
        Self::of(name, Source::Lasting(lasting))
    }

    fn of(name: String, source: Source) -> Self {
        Self {
            name,
            source,
            #[cfg(feature = "media")]
            attachment: Default::default(),
        }
    }

    /// The same, with what the peer says that it can deliver.
    pub(crate) fn with_peer_rate(mut self, peer_rate: PeerRate) -> Self {
        if let Source::One(incarnation) = &mut self.source {
            incarnation.peer_rate = Some(peer_rate);
        }
        self
    }

    /// The same, beside other readers of the session.
    pub(crate) fn with_readers(mut self, readers: Readers) -> Self {
        if let Source::One(incarnation) = &mut self.source {
            incarnation.readers = readers;
        }
        self
    }

    /// The same, with what its catalog may be.
    pub(crate) fn with_catalog_guard(mut self, guard: CatalogGuard) -> Self {
        if let Source::One(incarnation) = &mut self.source {
            incarnation.catalog_guard = guard;
        }
        self
    }

    /// The same, with a reason to keep what it comes on for as long as it is read.
    pub(crate) fn with_lease(mut self, lease: Option<Lease>) -> Self {
        if let Source::One(incarnation) = &mut self.source {
            incarnation.lease = lease;
        }
        self
    }

    /// The broadcast's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One more reader that chooses how much it receives.
    pub(crate) fn join_readers(&self) -> ReaderShare {
        let readers = self.incarnation().map(|found| found.readers);
        readers.unwrap_or_default().join()
    }

    /// What the layer above keeps with the broadcast, made when it is first asked for. There is one of these.
    #[cfg(feature = "media")]
    pub(crate) fn attachment<T: Default + std::any::Any + Send + Sync>(&self) -> std::sync::Arc<T> {
        self.attachment.get()
    }

    /// What it is read from now, if there is anything.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        match &self.source {
            Source::One(incarnation) => Some(incarnation.clone()),
            Source::Lasting(lasting) => match lasting.now() {
                Upstream::Present(incarnation) => Some(incarnation),
                _ => None,
            },
        }
    }

    /// What the peer says that it can deliver to us, bits per second: the estimate of its congestion controller.
    ///
    /// `None` where it does not say. While it sends less than the path carries, this is hardly more than what it sent.
    pub fn download_bandwidth(&self) -> Option<u64> {
        self.incarnation()?.peer_rate?()
    }

    /// Begins to read the catalog, which changes as tracks come and go.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn catalog(&self) -> Result<CatalogWatch, CatalogError> {
        match &self.source {
            Source::One(incarnation) => CatalogWatch::of(incarnation).await,
            Source::Lasting(lasting) => Ok(CatalogWatch::lasting(lasting.clone())),
        }
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
        let request = TrackRequest {
            rendition: Arc::new(Rendition::new(name, config.clone())),
            max_age,
            priority,
        };
        let mut lasting = match &self.source {
            Source::One(incarnation) => {
                let track = request.open(incarnation).await?;
                return Ok(EncodedReader::new(request, track, None));
            }
            Source::Lasting(lasting) => lasting.clone(),
        };
        loop {
            let present = lasting.wait_for(Upstream::settled).await;
            let present = present
                .and_then(std::convert::identity)
                .map_err(|error| SubscribeTrackError::upstream(name, error))?;
            let Some(incarnation) = present else {
                let name = name.to_owned();
                return Err(SubscribeTrackError::Ended { name });
            };
            let opened = tokio::select! {
                biased;
                opened = request.open(&incarnation) => opened,
                // The publisher has not answered, and will not.
                () = lasting.replaced(incarnation.number, Instant::now()) => continue,
            };
            match opened {
                Ok(track) => return Ok(EncodedReader::new(request, track, Some(lasting))),
                Err(error @ SubscribeTrackError::Container { .. }) => return Err(error),
                // Of this track alone, or of all?
                Err(error) => {
                    let gone = lasting.gone(incarnation.number);
                    if tokio::time::timeout(reader::GRACE, gone).await.is_err() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Whether both read from the same broadcast now.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let (one, other) = (self.incarnation(), other.incarnation());
        one.zip(other)
            .is_some_and(|(one, other)| one.broadcast.is_clone(&other.broadcast))
    }

    /// Whether it is known to be over.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.source {
            Source::One(incarnation) => incarnation.broadcast.is_closed(),
            Source::Lasting(lasting) => {
                matches!(lasting.now(), Upstream::Ended(_) | Upstream::Failed(_))
            }
        }
    }

    /// Waits until the broadcast is over or cannot be reached any more. Cancel safe.
    ///
    /// One that lasts is over when its publisher has ended it, or its subscription was refused, closed or given up.
    pub async fn closed(&self) -> moq_lite::Error {
        match &self.source {
            Source::One(incarnation) => incarnation.broadcast.closed().await,
            Source::Lasting(lasting) => {
                let over = |upstream: &Upstream| match upstream {
                    Upstream::Ended(_) | Upstream::Failed(_) => Some(()),
                    Upstream::Absent | Upstream::Present(_) => None,
                };
                // An error: nobody looks for it any more.
                let _ = lasting.clone().wait_for(over).await;
                moq_lite::Error::Closed
            }
        }
    }
}

#[cfg(test)]
mod tests;
