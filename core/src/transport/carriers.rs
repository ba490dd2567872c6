//! The links that carry one session: one, and for a while two, when another one takes over.

use std::{
    ops::Add,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use moq_lite::{bandwidth, goaway::Goaway};
use tokio::sync::watch;

use super::{
    close::CloseCode,
    limits::{Limit, LimitGuard},
    link::{Link, TrafficBytes},
    lock,
};
use crate::{broadcast::CatalogGuard, lease::LaterLeases};

/// How many links a session may have. A peer that makes more loses the oldest ones.
const MAX_LINKS: usize = 3;

/// A link, and the MoQ on it.
#[derive(Clone)]
pub(super) struct Carrier {
    pub(super) link: Link,
    pub(super) moq: moq_lite::Session,
    /// The peer has dialled it.
    pub(super) incoming: bool,
    /// Holds it to the limits.
    pub(super) guard: Arc<LimitGuard>,
    /// Where what is sent on it keeps the session, until the peer has it.
    pub(super) leases: LaterLeases,
}

impl Carrier {
    pub(super) fn new(
        guard: Arc<LimitGuard>,
        leases: LaterLeases,
        moq: moq_lite::Session,
        incoming: bool,
    ) -> Self {
        Self {
            link: Link::new(guard.connection().clone(), guard.exceeded()),
            moq,
            incoming,
            guard,
            leases,
        }
    }

    /// What the peer says that it can send, bits per second.
    pub(super) fn peer_rate(&self) -> Option<u64> {
        let rate: Option<bandwidth::Consumer> = self.moq.recv_bandwidth();
        Some(rate?.peek()?.as_bps())
    }

    /// Says that it is about to end, so that what the peer reads goes over to another one.
    pub(super) fn drain(&self) {
        // It may have been said already.
        let _ = self.moq.drain().send(Goaway::new());
    }
}

/// The links of one session, the newest last. There is always one, which may have ended.
pub(super) struct Carriers {
    list: watch::Sender<Vec<Carrier>>,
    /// What has gone over those that were removed. Locked within the list.
    removed: Mutex<TrafficBytes>,
}

/// The newest one that has not ended, or else the newest.
fn current(list: &[Carrier]) -> Option<&Carrier> {
    let mut alive = list.iter().rev().filter(|carrier| carrier.link.is_alive());
    alive.next().or(list.last())
}

impl Carriers {
    pub(super) fn new(first: Carrier) -> Arc<Self> {
        Arc::new(Self {
            list: watch::Sender::new(vec![first]),
            removed: Mutex::default(),
        })
    }

    /// What has gone over all of them so far, those that were removed too.
    pub(super) fn traffic(&self) -> TrafficBytes {
        let list = self.list.borrow();
        let removed = *lock(&self.removed);
        let traffic = list.iter().map(|carrier| carrier.link.traffic().bytes());
        traffic.fold(removed, Add::add)
    }

    fn note_removed(&self, carrier: &Carrier) {
        let mut removed = lock(&self.removed);
        *removed = *removed + carrier.link.traffic().bytes();
    }

    /// The one that is used now.
    pub(super) fn current(&self) -> Carrier {
        let list = self.list.borrow();
        current(&list)
            .expect("the last one is never removed")
            .clone()
    }

    pub(super) fn all(&self) -> Vec<Carrier> {
        self.list.borrow().clone()
    }

    /// The numbers of the links that there are.
    pub(super) fn ids(&self) -> Vec<usize> {
        self.list.borrow().iter().map(|c| c.link.id()).collect()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.list.borrow().iter().any(|c| c.link.is_alive())
    }

    /// Takes one more. False if all have ended: the session has ended too, then.
    pub(super) fn add(&self, carrier: Carrier) -> bool {
        self.list.send_if_modified(|list| {
            let alive = list.iter().any(|carrier| carrier.link.is_alive());
            if alive {
                list.push(carrier);
                let too_many = list.len().saturating_sub(MAX_LINKS);
                for old in list.drain(..too_many) {
                    old.link
                        .close(CloseCode::SUPERSEDED, "too many connections of one session");
                    self.note_removed(&old);
                }
            }
            alive
        })
    }

    /// Forgets one that has ended, unless there is no other.
    pub(super) fn remove(&self, link: &Link) {
        self.list.send_if_modified(|list| {
            let others = list.len() > 1;
            if others {
                for removed in list.extract_if(.., |carrier| carrier.link.id() == link.id()) {
                    self.note_removed(&removed);
                }
            }
            others
        });
    }

    /// What catalogs of the peer may be.
    pub(super) fn catalog_guard(self: &Arc<Self>) -> CatalogGuard {
        let carriers = Arc::downgrade(self);
        CatalogGuard {
            limits: self.current().guard.limits.catalog,
            exceeded: Some(Arc::new(move || {
                for carrier in carriers.upgrade().iter().flat_map(|it| it.all()) {
                    carrier.guard.exceed(Limit::Catalog);
                }
            })),
        }
    }

    /// Ends all. None can be added from then on.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        // With the list locked.
        self.list.send_if_modified(|list| {
            for carrier in list {
                carrier.link.close(code, reason);
            }
            false
        });
    }

    /// Waits until there are only such as this side has dialled. Cancel safe.
    pub(super) async fn dialed(&self) {
        let mut changes = self.list.subscribe();
        let dialed = |list: &Vec<Carrier>| !list.iter().any(|carrier| carrier.incoming);
        // The sender is in `self`.
        let _ = changes.wait_for(dialed).await.map(drop);
    }

    /// Whether the peer is there on any of them, and if so how long it had to show that.
    pub(super) async fn answers(&self) -> Option<Duration> {
        let mut asked: FuturesUnordered<_> = self
            .all()
            .into_iter()
            .map(|carrier| async move {
                let answered = carrier.link.responds().await;
                answered.then(|| carrier.link.patience())
            })
            .collect();
        while let Some(answered) = asked.next().await {
            if answered.is_some() {
                return answered;
            }
        }
        None
    }

    /// Waits until all have ended, and gives the last one. Cancel safe.
    pub(super) async fn ended(&self) -> Link {
        let mut changes = self.list.subscribe();
        loop {
            let link = {
                let list = changes.borrow_and_update();
                current(&list).map(|carrier| carrier.link.clone())
            };
            let link = link.expect("the last one is never removed");
            if !link.is_alive() {
                return link;
            }
            tokio::select! {
                () = link.closed() => {}
                // The sender is in `self`.
                _ = changes.changed() => {}
            }
        }
    }

    /// The link that is used, then each other one that comes to be used, until all have ended.
    pub(super) fn links(&self) -> impl Stream<Item = Link> + Send + use<> {
        let state = (self.list.subscribe(), None);
        futures_util::stream::unfold(state, |(mut list, mut last)| async move {
            loop {
                let link = {
                    let list = list.borrow_and_update();
                    current(&list)?.link.clone()
                };
                if !link.is_alive() {
                    return None;
                }
                if last.replace(link.id()) != Some(link.id()) {
                    return Some((link, (list, last)));
                }
                tokio::select! {
                    () = link.closed() => {}
                    changed = list.changed() => if changed.is_err() { link.closed().await },
                }
            }
        })
        // Whoever looks at several things at once asks again after the end.
        .fuse()
    }
}
