//! Finds a broadcast on a session.

use std::time::Duration;

use tokio::time::timeout;

use super::{error::Verdict, machine::Event};
use crate::{
    broadcast::{Catalog, CatalogError, CatalogWatch, RemoteBroadcast},
    transport::{BroadcastError, MoqSession},
};

/// What the end of a session breaks off, breaks off no sooner than this before it.
const END_GRACE: Duration = Duration::from_millis(100);

/// A broadcast that is there, with its catalog.
pub(super) struct Found {
    pub(super) broadcast: RemoteBroadcast,
    /// As far as it was read, and what it said.
    pub(super) catalog: Option<(CatalogWatch, Catalog)>,
}

impl Found {
    /// Waits for the broadcast and its first catalog: one that has none cannot be watched.
    pub(super) async fn on(session: &MoqSession, name: &str) -> Result<Self, Event> {
        loop {
            let broadcast = match session.subscribe(name).await {
                Ok(broadcast) => broadcast,
                Err(BroadcastError::Session(_)) if session.was_left_unused() => {
                    return Err(Event::LeftUnused);
                }
                Err(error) => return Err(Event::Over(Verdict::from(error))),
            };
            let first = tokio::select! {
                biased;
                first = first(&broadcast) => first,
                end = session.disconnected() => return Err(Event::Over((&end).into())),
                // The publisher has put another one in its place, or has taken it back.
                _ = broadcast.closed() => continue,
            };
            return match first {
                Ok(Some(catalog)) => Ok(Self {
                    broadcast,
                    catalog: Some(catalog),
                }),
                Ok(None) => Err(Event::Ended),
                Err(error) => Err(broke(session, error).await),
            };
        }
    }
}

async fn first(
    broadcast: &RemoteBroadcast,
) -> Result<Option<(CatalogWatch, Catalog)>, CatalogError> {
    let mut watch = broadcast.catalog().await?;
    let first = watch.next().await?;
    Ok(first.map(|catalog| (watch, catalog)))
}

/// The catalog broke off. If that was the session's end, that says more.
pub(super) async fn broke(session: &MoqSession, error: CatalogError) -> Event {
    if matches!(error, CatalogError::Transport(_))
        && let Ok(end) = timeout(END_GRACE, session.disconnected()).await
    {
        return Event::Over((&end).into());
    }
    Event::Over(Verdict::catalog(error))
}
