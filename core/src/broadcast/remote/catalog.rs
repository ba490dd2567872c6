//! The catalog of a broadcast that is read.

use std::{sync::Arc, time::SystemTime};

use super::error::CatalogError;
use crate::{
    broadcast::{
        catalog_reader::Reader,
        extension::Catalog,
        upstream::{Incarnation, Lasting, Upstream},
    },
    lease::Lease,
};

/// The catalog of a broadcast as it changes.
pub struct CatalogWatch(Source);

enum Source {
    One {
        reader: Box<Reader>,
        _lease: Option<Lease>,
    },
    Lasting {
        lasting: Lasting,
        seen: Option<Arc<Catalog>>,
    },
}

impl CatalogWatch {
    /// That of one incarnation, to its end.
    pub(super) async fn of(incarnation: &Incarnation) -> Result<Self, CatalogError> {
        let track = incarnation
            .broadcast
            .track(hang::Catalog::DEFAULT_NAME)
            .map_err(CatalogError::transport)?
            .subscribe(hang::Catalog::default_subscription())
            .await
            .map_err(|error| match error {
                moq_lite::Error::NotFound => CatalogError::NotFound(error),
                error => CatalogError::transport(error),
            })?;
        Ok(Self(Source::One {
            reader: Box::new(Reader::new(track, incarnation.catalog_guard.clone())),
            _lease: incarnation.lease.clone(),
        }))
    }

    /// That of whatever a subscription finds.
    pub(super) fn lasting(lasting: Lasting) -> Self {
        Self(Source::Lasting {
            lasting,
            seen: None,
        })
    }

    /// The next state of the catalog; `None` when the broadcast ended.
    ///
    /// The first call gives the state as it stands. Of a [`Subscriber`](crate::Subscriber) this goes on over lost
    /// connections and publishers that come back. Cancel safe.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub async fn next(&mut self) -> Result<Option<Catalog>, CatalogError> {
        match &mut self.0 {
            Source::One { reader, .. } => Ok(reader.next().await?),
            Source::Lasting { lasting, seen } => {
                let new = |upstream: &Upstream| match upstream {
                    Upstream::Absent => None,
                    Upstream::Present(incarnation) => {
                        let catalog = incarnation.catalog.as_ref()?;
                        let known = seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, catalog));
                        (!known).then(|| Ok(Some(catalog.clone())))
                    }
                    Upstream::Ended(_) => Some(Ok(None)),
                    Upstream::Failed(error) => Some(Err(error.clone())),
                };
                let next = lasting.wait_for(new).await??;
                seen.clone_from(&next);
                Ok(next.map(|catalog| (*catalog).clone()))
            }
        }
    }

    /// The wall-clock time of the broadcast's timestamp zero, if the catalog says so.
    pub fn epoch(catalog: &Catalog) -> Option<SystemTime> {
        catalog
            .clock
            .and_then(|clock| clock.wall_clock(moq_lite::Timestamp::ZERO).ok())
    }
}
