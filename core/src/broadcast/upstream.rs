//! What a broadcast is read from: one that a session gives, for good, or whichever a subscription that lasts has found.

use std::{sync::Arc, time::Duration};

use moq_lite::broadcast;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::DropGuard;

use super::{
    activity::Activity, catalog_reader::CatalogGuard, extension::Catalog, readers::Readers,
    stop::StopReason,
};
use crate::lease::Lease;

/// After the end of a broadcast, how long its tracks may still go on without a frame.
pub(crate) const LAST_FRAMES: Duration = Duration::from_secs(5);

/// What a peer says that it can deliver to us at the moment, bits per second, where it says so.
pub(crate) type PeerRate = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

/// A broadcast from when it is found to when it is gone.
#[derive(Clone)]
pub(crate) struct Incarnation {
    /// Counts those that a subscription has found.
    pub(crate) number: u64,
    pub(crate) broadcast: broadcast::Consumer,
    /// What the peer says that it can deliver to us, where it says so.
    pub(crate) peer_rate: Option<PeerRate>,
    /// Keeps the session that it comes on.
    pub(crate) lease: Option<Lease>,
    /// Those that choose how much of the session they use.
    pub(crate) readers: Readers,
    /// As it stands, where somebody follows it for all that read.
    pub(crate) catalog: Option<Arc<Catalog>>,
    /// What it may be.
    pub(crate) catalog_guard: CatalogGuard,
}

/// What there is to read from.
#[derive(Clone, Default)]
pub(crate) enum Upstream {
    /// Nothing: it is waited for.
    #[default]
    Absent,
    Present(Incarnation),
    /// The publisher ended the broadcast, which was known then.
    Ended(Instant),
    Failed(UpstreamError),
}

/// Why there will be nothing to read from any more.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Stopped(StopReason),
    #[error("{0}")]
    Other(SharedError),
}

/// An error that several are told of.
pub(crate) type SharedError = Arc<dyn std::error::Error + Send + Sync>;

/// Nobody looks for the broadcast any more, as its subscription was closed.
#[derive(Debug, thiserror::Error)]
#[error("the subscription was closed")]
struct Closed;

impl UpstreamError {
    pub(crate) fn closed() -> Self {
        Self::Other(Arc::new(Closed))
    }
}

/// What is read from a subscription that lasts. The subscription goes on until all of these are dropped.
#[derive(Clone)]
pub(crate) struct Lasting {
    upstream: watch::Receiver<Upstream>,
    activity: Activity,
    _subscription: Arc<DropGuard>,
}

impl Lasting {
    /// `subscription` ends it when nobody reads any more.
    pub(crate) fn new(
        upstream: watch::Receiver<Upstream>,
        activity: Activity,
        subscription: DropGuard,
    ) -> Self {
        Self {
            upstream,
            activity,
            _subscription: Arc::new(subscription),
        }
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What there is now.
    pub(super) fn now(&self) -> Upstream {
        self.upstream.borrow().clone()
    }

    /// Waits for what `find` says something to; an error when there will be nothing. Cancel safe.
    pub(super) async fn wait_for<T>(
        &mut self,
        mut find: impl FnMut(&Upstream) -> Option<T>,
    ) -> Result<T, UpstreamError> {
        loop {
            if let Some(found) = find(&self.upstream.borrow_and_update()) {
                return Ok(found);
            }
            if self.upstream.changed().await.is_err() {
                return Err(UpstreamError::closed());
            }
        }
    }

    /// Waits until the incarnation of this number is gone. Cancel safe.
    pub(super) async fn gone(&mut self, number: u64) {
        let gone = |upstream: &Upstream| match upstream {
            Upstream::Present(incarnation) => (incarnation.number != number).then_some(()),
            _ => Some(()),
        };
        // An error: there is nothing any more.
        let _ = self.wait_for(gone).await;
    }

    /// Waits until there is another incarnation than that of this number, or none can be had any more; that it is gone is
    /// no reason not to read to the end what came of it, nor is that the broadcast has ended, unless nothing comes for
    /// [`LAST_FRAMES`] after the frame that came at `last`. Cancel safe.
    pub(super) async fn replaced(&mut self, number: u64, last: Instant) {
        loop {
            let ended = match &*self.upstream.borrow_and_update() {
                Upstream::Present(incarnation) if incarnation.number != number => return,
                Upstream::Failed(_) => return,
                Upstream::Ended(at) => Some(*at),
                Upstream::Absent | Upstream::Present(_) => None,
            };
            if let Some(at) = ended {
                return sleep_until(at.max(last) + LAST_FRAMES).await;
            }
            if self.upstream.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Upstream {
    /// What is there, its end (`None`) or the error; nothing while it is waited for.
    pub(super) fn settled(&self) -> Option<Result<Option<Incarnation>, UpstreamError>> {
        match self {
            Self::Absent => None,
            Self::Present(incarnation) => Some(Ok(Some(incarnation.clone()))),
            Self::Ended(_) => Some(Ok(None)),
            Self::Failed(error) => Some(Err(error.clone())),
        }
    }
}
