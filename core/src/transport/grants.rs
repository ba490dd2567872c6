//! The broadcasts that one peer may watch.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moq_lite::{Hops, origin};
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
pub(super) struct Grants {
    local: origin::Producer,
    /// By name: what is announced, and what was before and is read to its end.
    table: Mutex<HashMap<String, Vec<Granted>>>,
    demand: Arc<Demand>,
    tasks: Tasks,
    /// The session has ended.
    ended: CancellationToken,
    span: Span,
}

/// A broadcast that the peer may watch, or still does.
pub(super) struct Granted {
    pub(super) id: u64,
    /// See [`Publication::to_all`].
    pub(super) to_all: bool,
    grant: Grant,
}

impl Grants {
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
            demand: Arc::new(Demand::new(leases)),
            tasks,
            ended,
            span,
        }
    }

    /// Lets the peer watch a broadcast until it ends, is withdrawn, or another takes its name. Does nothing where that was
    /// said before, where a newer broadcast has the name, or if `still` says so: it is asked when nothing can be withdrawn
    /// meanwhile.
    pub(super) fn announce(
        self: &Arc<Self>,
        publication: &Publication,
        still: impl FnOnce() -> bool,
    ) {
        let Publication { id, name, .. } = publication;
        let mut table = lock(&self.table);
        let known = table.get(name).into_iter().flatten();
        let mut announced = known.filter(|granted| !granted.grant.is_hidden());
        if announced.any(|granted| granted.id >= *id) || self.ended.is_cancelled() || !still() {
            return;
        }
        // Before the new one is there, which would else be taken for the same broadcast from another source.
        for old in table.get(name).into_iter().flatten() {
            old.grant.hide();
        }
        let copy = match self.local.create_broadcast(name.as_str()) {
            Ok(copy) => copy,
            Err(error) => return debug!(name, %error, "not announced"),
        };
        let demand = self.demand.clone();
        let (grant, running) = Grant::new(copy.clone(), publication.clone(), demand);
        // A peer that has two connections takes what begins with the same hop for the same content, and goes on with one
        // where the other stops.
        let mut hops = Hops::new();
        // Fails on a chain that is full.
        let _ = hops.push(publication.content);
        if let Err(error) = copy.announce(origin::Route::default().with_hops(hops)) {
            return debug!(name, %error, "not announced");
        }
        self.demand.announced(name, *id);
        table.entry(name.clone()).or_default().push(Granted {
            id: *id,
            to_all: publication.to_all,
            grant,
        });
        drop(table);
        let (grants, name) = (self.clone(), name.clone());
        self.spawn(async move {
            running.await;
            grants.forget(&name, |granted| granted.grant.is_over());
        });
    }

    /// Ends what the peer watches under a name, and what it still watches that had the name before, as far as `which` says
    /// so: it is asked when nothing can be announced meanwhile.
    pub(super) fn withdraw(
        &self,
        name: &str,
        reason: StopReason,
        which: impl Fn(&Granted) -> bool,
    ) {
        let withdrawn = self.forget(name, which);
        if withdrawn.is_empty() {
            return;
        }
        self.spawn(async move {
            tokio::time::sleep(NOTICE).await;
            for granted in withdrawn {
                granted.grant.revoke(reason);
            }
        });
    }

    /// Takes broadcasts out of the table, and out of sight.
    fn forget(&self, name: &str, which: impl Fn(&Granted) -> bool) -> Vec<Granted> {
        let mut table = lock(&self.table);
        let Some(granted) = table.get_mut(name) else {
            return Vec::new();
        };
        let forgotten: Vec<_> = granted.extract_if(.., |granted| which(granted)).collect();
        for granted in &forgotten {
            granted.grant.hide();
            self.demand.forgotten(name, granted.id);
        }
        if granted.is_empty() {
            table.remove(name);
        }
        forgotten
    }

    /// The names of what the peer watches, or may, of what is published to all.
    pub(super) fn names(&self) -> Vec<String> {
        let table = lock(&self.table);
        let published = table
            .iter()
            .filter(|(_, granted)| granted.iter().any(|granted| granted.to_all));
        published.map(|(name, _)| name.clone()).collect()
    }

    /// Lets go of all, as the session has ended.
    pub(super) fn clear(&self) {
        let table = std::mem::take(&mut *lock(&self.table));
        for granted in table.values().flatten() {
            granted.grant.hide();
        }
    }

    /// Whether the peer has ever watched what is a reason to keep the session.
    pub(super) fn was_asked(&self) -> bool {
        self.demand.was_asked()
    }

    /// Waits until the peer has asked for something of what is published as `name`. Cancel safe.
    pub(super) async fn requested(&self, name: &str) {
        self.demand.requested(name).await;
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
