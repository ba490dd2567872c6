//! The broadcasts that one peer may watch.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moq_lite::{Hops, broadcast, origin};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug};

use super::{
    grant::{Demand, Grant, Publication},
    lock,
    tasks::Tasks,
};
use crate::{broadcast::StopReason, lease::Leases};

/// Between the news that a broadcast is taken back and the end of what is read of it: who hears the end first asks again,
/// and learns no more than that it is not there.
const NOTICE: Duration = Duration::from_millis(150);

/// The next number of a broadcast, or of a session.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The broadcasts that one peer may watch.
pub(super) struct Routes {
    local: origin::Producer,
    table: Mutex<HashMap<String, Route>>,
    demand: Arc<Demand>,
    tasks: Tasks,
    /// The session has ended.
    ended: CancellationToken,
    span: Span,
}

/// A broadcast that the peer may watch.
struct Route {
    id: u64,
    grant: Grant,
}

impl Routes {
    pub(super) fn new(
        local: origin::Producer,
        leases: Arc<Leases>,
        tasks: Tasks,
        ended: CancellationToken,
        span: Span,
    ) -> Self {
        Self {
            local,
            table: Mutex::default(),
            demand: Arc::new(Demand {
                leases,
                ..Demand::default()
            }),
            tasks,
            ended,
            span,
        }
    }

    /// Lets the peer watch a broadcast until it ends, is withdrawn, or another takes its name. Does nothing where that was
    /// said before, or where a newer broadcast has the name.
    pub(super) fn announce(self: &Arc<Self>, publication: &Publication) {
        let Publication { id, name, .. } = publication;
        let path = moq_lite::Path::from(name.clone());
        let mut table = lock(&self.table);
        if table.get(name).is_some_and(|route| route.id >= *id) {
            return;
        }
        // Before the new one is there, which would else be taken for the same broadcast from another source.
        if let Some(old) = table.remove(name) {
            old.grant.hide();
        }
        let copy = match self.local.create_broadcast(&path) {
            Ok(copy) => copy,
            Err(error) => return debug!(name, %error, "not announced"),
        };
        let (grant, running) = Grant::new(copy.clone(), publication.clone(), self.demand.clone());
        // A peer that has two connections takes what begins with the same hop for the same content, and goes on with one
        // where the other stops.
        let mut hops = Hops::new();
        // Fails on a chain that is full.
        let _ = hops.push(publication.content);
        if let Err(error) = copy.announce(origin::Route::default().with_hops(hops)) {
            return debug!(name, %error, "not announced");
        }
        table.insert(name.clone(), Route { id: *id, grant });
        drop(table);
        self.spawn(self.clone().stay(publication.clone(), copy.consume()));
        self.spawn(running);
    }

    /// Ends what the peer watches under a name, of one broadcast or of any.
    pub(super) fn withdraw(&self, name: &str, id: Option<u64>, reason: StopReason) {
        let mut table = lock(&self.table);
        let known = table.get(name).map(|route| route.id);
        if known.is_none() || id.is_some_and(|id| known != Some(id)) {
            return;
        }
        let Some(route) = table.remove(name) else {
            return;
        };
        drop(table);
        route.grant.hide();
        self.spawn(async move {
            tokio::time::sleep(NOTICE).await;
            route.grant.revoke(reason);
        });
    }

    /// Takes a broadcast out of the table when it is over.
    async fn stay(self: Arc<Self>, publication: Publication, copy: broadcast::Consumer) {
        tokio::select! {
            biased;
            _ = publication.source.closed() => {}
            _ = copy.closed() => return,
        }
        let mut table = lock(&self.table);
        let current = table.get(&publication.name);
        if current.is_some_and(|route| route.id == publication.id)
            && let Some(route) = table.remove(&publication.name)
        {
            route.grant.hide();
        }
    }

    /// Whether the peer has ever watched what is a reason to keep the session.
    pub(super) fn was_asked(&self) -> bool {
        self.demand.asked.load(Ordering::Relaxed)
    }

    /// Waits until the peer has asked for something of what is published as `name`. Cancel safe.
    pub(super) async fn requested(&self, name: &str) {
        let mut requested = self.demand.requested.subscribe();
        // The sender is in `self`.
        let _ = requested
            .wait_for(|requested| requested.contains(name))
            .await
            .map(drop);
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        let task = async move {
            tokio::select! {
                () = task => {}
                () = ended.cancelled() => {}
            }
        };
        self.tasks.spawn(task.instrument(self.span.clone()));
    }
}
