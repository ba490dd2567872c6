//! What the transport knows: the sessions, the peers, and what is published to them.
//!
//! Locks, in their order: the grants of a session; then [`Registry::policy`] or [`Registry::published`]. Each of the others is
//! held alone. The program's functions are called under none of them.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use iroh::{Endpoint, EndpointId};
use moq_lite::{Consume, Hop};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, Span, debug};

use super::{
    admission::IncomingSession,
    carriers::Carrier,
    close::CloseCode,
    error::PublishError,
    grant::Publication,
    grants::next_id,
    limiter::{Limiter, count_announces},
    limits::{LimitGuard, Limits},
    lock,
    name::{normal_name, valid_name},
    origins::Origins,
    peer::Peer,
    policy::Policy,
    session::MoqSession,
    tasks::Tasks,
};
use crate::broadcast::{LocalBroadcast, StopReason};

/// How long a session that is this side's to end stays when nothing needs it any more.
const UNUSED_GRACE: Duration = Duration::from_secs(2);

/// How long the network below is kept for the last words, when nobody waits for them.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Peers that nothing is known of are looked for when there are so many.
const PEERS: usize = 64;

/// What the transport knows. All handles share it, and tasks that outlast the handles do not keep it.
pub(super) struct Registry {
    pub(super) endpoint: Endpoint,
    policy: Mutex<PolicyState>,
    /// What this machine publishes, to all who may watch it.
    published: Mutex<HashMap<String, Published>>,
    peers: Mutex<Peers>,
    /// Counts the connections that come in.
    connections: AtomicU64,
    /// Every session that is alive, as they came. The handles do not keep them.
    pub(super) sessions: watch::Sender<Vec<MoqSession>>,
    /// Where to ask about sessions that peers begin.
    pub(super) admission: Mutex<Option<mpsc::Sender<IncomingSession>>>,
    pub(super) limiter: Arc<Limiter>,
    pub(super) tasks: Tasks,
    /// Nothing new begins.
    pub(super) stopping: CancellationToken,
    /// Nothing goes on.
    pub(super) shutdown: CancellationToken,
}

struct Published {
    publication: Publication,
    /// Another one has its name, or none has.
    _over: DropGuard,
}

struct PolicyState {
    policy: Policy,
    /// What the program says may be otherwise each time that this is raised.
    epoch: u64,
    /// Ends what follows the list of the policy.
    replaced: CancellationToken,
}

struct Peers {
    known: HashMap<EndpointId, Arc<Peer>>,
    /// When there are so many, those that nothing is known of are let go of.
    sweep_at: usize,
}

impl Registry {
    /// Must be called in a tokio runtime.
    pub(super) fn new(endpoint: Endpoint, policy: Policy, limits: Limits) -> Arc<Self> {
        let registry = Arc::new(Self {
            endpoint,
            policy: Mutex::new(PolicyState {
                policy: Policy::Everyone,
                epoch: 0,
                replaced: CancellationToken::new(),
            }),
            published: Mutex::default(),
            peers: Mutex::new(Peers {
                known: HashMap::new(),
                sweep_at: PEERS,
            }),
            connections: AtomicU64::new(1),
            sessions: watch::Sender::default(),
            admission: Mutex::default(),
            limiter: Limiter::new(limits),
            tasks: Tasks::new(),
            stopping: CancellationToken::new(),
            shutdown: CancellationToken::new(),
        });
        registry.set_policy(policy);
        registry
    }

    fn policy(&self) -> (Policy, u64) {
        let state = lock(&self.policy);
        (state.policy.clone(), state.epoch)
    }

    pub(super) fn may_connect(&self, peer: EndpointId) -> bool {
        self.policy().0.may_connect(peer)
    }

    /// The next number of a connection that comes in.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether somebody has closed the endpoint, or is about to, and all connections with it.
    pub(super) fn is_offline(&self) -> bool {
        self.endpoint.closed().now_or_never().is_some()
    }

    fn published(&self) -> MutexGuard<'_, HashMap<String, Published>> {
        lock(&self.published)
    }

    fn current_sessions(&self) -> Vec<MoqSession> {
        self.sessions.borrow().clone()
    }

    pub(super) fn publish(
        self: &Arc<Self>,
        name: &str,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        let name = valid_name(name)?;
        let over = CancellationToken::new();
        let publication = {
            let mut published = self.published();
            if self.stopping.is_cancelled() {
                return Err(PublishError::Shutdown);
            }
            let publication = Publication {
                // They take each other's name in the order of these.
                id: next_id(),
                name: name.clone(),
                source: broadcast.consume(),
                audience: broadcast.audience().clone(),
                content: broadcast.content(),
                to_all: true,
                counted: true,
            };
            let new = Published {
                publication: publication.clone(),
                _over: over.clone().drop_guard(),
            };
            published.insert(name, new);
            publication
        };
        // A session that begins meanwhile finds it in the list.
        for session in self.current_sessions() {
            self.offer(&session, &publication);
        }
        self.forget_when_over(publication, over);
        Ok(())
    }

    fn forget_when_over(self: &Arc<Self>, publication: Publication, over: CancellationToken) {
        let (registry, shutdown) = (Arc::downgrade(self), self.shutdown.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                _ = publication.source.closed() => {}
                () = over.cancelled() => return,
                () = shutdown.cancelled() => return,
            }
            if let Some(registry) = registry.upgrade() {
                let mut published = registry.published();
                // Another one may have its name.
                if is_current(&published, &publication) {
                    published.remove(&publication.name);
                }
            }
        });
    }

    pub(super) fn unpublish(&self, name: &str) {
        let name = &normal_name(name);
        let last = {
            let mut published = self.published();
            published.remove(name);
            next_id()
        };
        // Also what had the name before and is watched to its end, but nothing that is published from now on.
        for session in self.current_sessions() {
            session
                .grants()
                .withdraw(name, StopReason::Withdrawn, |granted| {
                    granted.to_all && granted.id < last
                });
        }
    }

    /// Lets the peer of a session watch a broadcast, if it may, and nothing under its name if it may not. Asks the program,
    /// so no lock may be held.
    fn offer(&self, session: &MoqSession, publication: &Publication) {
        self.decide(session, &publication.name, Some(publication));
    }

    fn decide(&self, session: &MoqSession, name: &str, publication: Option<&Publication>) {
        let (peer, grants) = (session.remote_id(), session.grants());
        loop {
            let (policy, epoch) = self.policy();
            // Otherwise somebody else asks already, and has an answer that is newer.
            let settled = || lock(&self.policy).epoch == epoch;
            if !policy.may_watch(peer, name) {
                grants.withdraw(name, StopReason::NotAllowed, |granted| {
                    granted.to_all && settled()
                });
            } else if let Some(publication) = publication {
                // It may have been taken back while the program was asked.
                grants.announce(publication, || {
                    settled() && is_current(&self.published(), publication)
                });
            }
            if settled() {
                return;
            }
        }
    }

    fn current_publications(&self) -> Vec<Publication> {
        let published = self.published();
        let publications = published.values().map(|entry| &entry.publication);
        publications.cloned().collect()
    }

    pub(super) fn set_policy(self: &Arc<Self>, policy: Policy) {
        let replaced = CancellationToken::new();
        if let Policy::Only(list) = &policy {
            self.follow(list.clone(), replaced.clone());
        }
        let old = {
            let mut state = lock(&self.policy);
            let epoch = state.epoch;
            let new = PolicyState {
                policy,
                epoch,
                replaced,
            };
            std::mem::replace(&mut *state, new)
        };
        old.replaced.cancel();
        self.enforce_policy();
    }

    /// Lets go of what the program's function has in hand, which may be the transport itself. For when nobody is asked about
    /// any more.
    pub(super) fn forget_policy(&self) {
        let mut policy = Policy::nobody();
        std::mem::swap(&mut policy, &mut lock(&self.policy).policy);
    }

    /// Ends what is not allowed, and lets peers watch what is.
    pub(super) fn enforce_policy(&self) {
        lock(&self.policy).epoch += 1;
        let published = self.current_publications();
        let names: HashSet<_> = published.iter().map(|known| known.name.as_str()).collect();
        for session in self.current_sessions() {
            let peer = session.remote_id();
            if session.is_incoming() && !self.may_connect(peer) {
                session.close(CloseCode::REFUSED, "not allowed any more");
                continue;
            }
            for publication in &published {
                self.offer(&session, publication);
            }
            // What is published no more, and is watched to its end.
            for name in session.grants().names() {
                if !names.contains(name.as_str()) {
                    self.decide(&session, &name, None);
                }
            }
        }
    }

    /// Ends the sessions of peers that are taken off the list, whichever side began them, and lets those that are put on it
    /// see what there is.
    fn follow(
        self: &Arc<Self>,
        mut list: watch::Receiver<HashSet<EndpointId>>,
        replaced: CancellationToken,
    ) {
        let (registry, stopping) = (Arc::downgrade(self), self.stopping.clone());
        let mut known = list.borrow_and_update().clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    changed = list.changed() => if changed.is_err() { return },
                    () = stopping.cancelled() => return,
                    () = replaced.cancelled() => return,
                }
                let allowed = list.borrow_and_update().clone();
                let Some(registry) = registry.upgrade() else {
                    return;
                };
                for session in registry.current_sessions() {
                    let peer = session.remote_id();
                    if known.contains(&peer) && !allowed.contains(&peer) {
                        session.close(CloseCode::REFUSED, "not allowed any more");
                    }
                }
                registry.enforce_policy();
                known = allowed;
            }
        });
    }

    pub(super) fn peer(&self, id: EndpointId) -> Arc<Peer> {
        let own = self.endpoint.id();
        let mut peers = lock(&self.peers);
        if peers.known.len() >= peers.sweep_at {
            // Nobody else has a hand on those that can be let go of, and none can be given out meanwhile.
            peers
                .known
                .retain(|_, peer| Arc::strong_count(peer) > 1 || !peer.is_idle());
            peers.sweep_at = PEERS.max(peers.known.len() * 2);
        }
        let peer = peers.known.entry(id);
        peer.or_insert_with(|| Arc::new(Peer::new(own, id))).clone()
    }

    /// Runs a driver of the MoQ machinery until it is done.
    pub(super) fn drive(&self, driver: impl moq_lite::time::Driver + Send + 'static, span: &Span) {
        let shutdown = self.shutdown.clone();
        let driving = async move {
            tokio::select! {
                error = moq_lite::time::run(driver) => debug!(%error, "driver done"),
                () = shutdown.cancelled() => {}
            }
        };
        self.tasks.spawn(driving.instrument(span.clone()));
    }

    /// Runs the MoQ machinery of a connection until it is done, or the peer announces more than it may. What is announced
    /// is counted where it is read, so that no more of it can come before it has been counted.
    pub(super) fn drive_session(
        &self,
        driver: impl moq_lite::time::Driver + Send + 'static,
        guard: &Arc<LimitGuard>,
        origins: &Origins,
        span: &Span,
    ) {
        let shutdown = self.shutdown.clone();
        let (guard, remote) = (guard.clone(), Consume::consume(&origins.remote));
        let driving = async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = count_announces(remote, &guard) => {}
                error = moq_lite::time::run(driver) => debug!(%error, "driver done"),
            }
        };
        self.tasks.spawn(driving.instrument(span.clone()));
    }

    /// Closes the oldest session that nobody needs, for one more to come in. False if all are needed.
    pub(super) fn evict(&self, reason: &str) -> bool {
        let idle = self
            .current_sessions()
            .into_iter()
            .find(|session| session.is_incoming() && session.is_alive() && !session.is_in_use());
        if let Some(session) = &idle {
            session.close(CloseCode::LIMIT, reason);
        }
        idle.is_some()
    }

    pub(super) fn origins(&self, span: &Span) -> Origins {
        let (origins, drivers) = Origins::new();
        for driver in drivers {
            self.drive(driver, span);
        }
        origins
    }

    /// A session that nobody knows of yet, and what the peer's end of it calls itself, if it has said so; see [`register`](Self::register).
    pub(super) fn session(
        self: &Arc<Self>,
        first: Carrier,
        origins: Origins,
        remote_hop: Option<Hop>,
    ) -> MoqSession {
        let (tasks, ended) = (self.tasks.clone(), self.shutdown.child_token());
        let registry = Arc::downgrade(self);
        let offline = move || {
            registry
                .upgrade()
                .is_none_or(|registry| registry.is_offline())
        };
        MoqSession::new(first, origins, remote_hop, tasks, ended, Box::new(offline))
    }

    /// Makes a session that is in use known, and offers it what is published. False, and the session is closed, if the
    /// transport was shut down.
    pub(super) fn register(self: &Arc<Self>, session: &MoqSession, peer: &Arc<Peer>) -> bool {
        let session = session.unheld();
        debug!(parent: session.span(), version = %session.version(), "begun");
        // A shutdown ends the sessions that it finds in the list.
        let registered = self.sessions.send_if_modified(|sessions| {
            let open = !self.stopping.is_cancelled();
            if open {
                session.set_number(next_id());
                sessions.push(session.clone());
            }
            open
        });
        if !registered {
            session.close(CloseCode::DONE, "shut down");
            return false;
        }
        peer.remember(&session);
        self.watch(&session, peer.clone());
        for publication in self.current_publications() {
            self.offer(&session, &publication);
        }
        // Whoever changes the policy ends the sessions that are known by then.
        if session.is_incoming() && !self.may_connect(session.remote_id()) {
            session.close(CloseCode::REFUSED, "not allowed");
        }
        true
    }

    /// Stays with a session until it has ended, and ends it when it is this side's to end, and needed no more.
    fn watch(self: &Arc<Self>, session: &MoqSession, peer: Arc<Peer>) {
        let (registry, watched) = (Arc::downgrade(self), session.clone());
        let watching = async move {
            let released = async {
                watched.ours_to_end().await;
                watched.released(UNUSED_GRACE).await;
            };
            tokio::select! {
                _ = watched.closed() => {}
                () = released => {
                    watched.close(CloseCode::UNUSED, "not needed any more");
                    watched.closed().await;
                }
            }
            watched.finish();
            if let Some(registry) = registry.upgrade() {
                registry.sessions.send_modify(|sessions| {
                    let number = watched.number();
                    if let Ok(at) = sessions.binary_search_by_key(&number, MoqSession::number) {
                        sessions.remove(at);
                    }
                });
            }
            peer.forget(&watched);
        };
        self.tasks
            .spawn(watching.instrument(session.span().clone()));
    }

    /// Begins the end: nothing new from now on. Gives the sessions that there are.
    pub(super) fn stop(&self) -> Vec<MoqSession> {
        self.stopping.cancel();
        lock(&self.admission).take();
        let mut sessions = Vec::new();
        // One that begins looks while it changes the list whether it still may.
        self.sessions.send_if_modified(|known| {
            sessions.clone_from(known);
            false
        });
        sessions
    }

    /// Ends everything without waiting for it. The peers are told.
    pub(super) fn close(&self) {
        if self.shutdown.is_cancelled() {
            // All was said. To keep the endpoint now would only keep its port from whoever comes next.
            return;
        }
        for session in self.stop() {
            session.close(CloseCode::DONE, "closed");
        }
        let (endpoint, shutdown) = (self.endpoint.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            shutdown.cancel();
            drop(endpoint);
        });
    }
}

fn is_current(published: &HashMap<String, Published>, publication: &Publication) -> bool {
    published
        .get(&publication.name)
        .is_some_and(|current| current.publication.id == publication.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointConfig;

    #[tokio::test]
    async fn what_goes_on_and_off_the_air_leaves_nothing_behind() {
        let endpoint = EndpointConfig::local().bind().await.unwrap();
        let registry = Registry::new(endpoint, Policy::Everyone, Limits::default());
        let broadcast = LocalBroadcast::new();
        for _ in 0..100 {
            registry.publish("show", &broadcast).unwrap();
            registry.publish("show", &broadcast).unwrap();
            registry.unpublish("show");
        }
        let gone = async {
            while registry.tasks.len() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(30), gone).await;
        assert!(gone.is_ok(), "{} tasks are left", registry.tasks.len());
    }
}
