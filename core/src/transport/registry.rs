//! What the transport knows: the sessions, the peers, and what is published to them.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::{Endpoint, EndpointId};
use moq_lite::Hop;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug};

use super::{
    admission::IncomingSession,
    carriers::Carrier,
    close::CloseCode,
    error::PublishError,
    grant::Publication,
    lock,
    peer::Peer,
    policy::Policy,
    routes::next_id,
    session::{MoqSession, Origins, valid_name},
    tasks::Tasks,
};
use crate::broadcast::{LocalBroadcast, StopReason};

/// How long a session that this side dialled stays when nothing needs it any more.
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
    published: Mutex<HashMap<String, Publication>>,
    peers: Mutex<Peers>,
    /// Counts the connections that come in.
    connections: AtomicU64,
    /// Every session that is alive, as they came. The handles do not keep them.
    pub(super) sessions: watch::Sender<Vec<MoqSession>>,
    /// Where to ask about sessions that peers begin.
    pub(super) admission: Mutex<Option<mpsc::Sender<IncomingSession>>>,
    pub(super) tasks: Tasks,
    /// Nothing new begins.
    pub(super) stopping: CancellationToken,
    /// Nothing goes on.
    pub(super) shutdown: CancellationToken,
}

struct PolicyState {
    policy: Policy,
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
    pub(super) fn new(endpoint: Endpoint, policy: Policy) -> Arc<Self> {
        let registry = Arc::new(Self {
            endpoint,
            policy: Mutex::new(PolicyState {
                policy: Policy::Everyone,
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
            tasks: Tasks::new(),
            stopping: CancellationToken::new(),
            shutdown: CancellationToken::new(),
        });
        registry.set_policy(policy);
        registry
    }

    fn policy(&self) -> Policy {
        lock(&self.policy).policy.clone()
    }

    pub(super) fn may_connect(&self, peer: EndpointId) -> bool {
        self.policy().may_connect(peer)
    }

    /// The next number of a connection that comes in.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn published(&self) -> MutexGuard<'_, HashMap<String, Publication>> {
        lock(&self.published)
    }

    fn current_sessions(&self) -> Vec<MoqSession> {
        self.sessions.borrow().clone()
    }

    pub(super) fn publish(
        self: &Arc<Self>,
        name: String,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        valid_name(&name)?;
        let publication = Publication {
            id: next_id(),
            name: name.clone(),
            source: broadcast.consume(),
            audience: broadcast.audience().clone(),
            content: broadcast.content(),
            counted: true,
        };
        let old = {
            let mut published = self.published();
            if self.stopping.is_cancelled() {
                return Err(PublishError::Shutdown);
            }
            published.insert(name, publication.clone())
        };
        // A session that begins meanwhile finds it in the list.
        for session in self.current_sessions() {
            if !self.offer(&session, &publication)
                && let Some(old) = &old
            {
                let routes = session.routes();
                routes.withdraw(&old.name, Some(old.id), StopReason::NotAllowed);
            }
        }
        self.forget_when_over(publication);
        Ok(())
    }

    fn forget_when_over(self: &Arc<Self>, publication: Publication) {
        let (registry, shutdown) = (Arc::downgrade(self), self.shutdown.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                _ = publication.source.closed() => {}
                () = shutdown.cancelled() => return,
            }
            if let Some(registry) = registry.upgrade() {
                let mut published = registry.published();
                // Another one may have its name.
                if registry.is_current(&published, &publication) {
                    published.remove(&publication.name);
                }
            }
        });
    }

    fn is_current(
        &self,
        published: &HashMap<String, Publication>,
        publication: &Publication,
    ) -> bool {
        published
            .get(&publication.name)
            .is_some_and(|current| current.id == publication.id)
    }

    pub(super) fn unpublish(&self, name: &str) {
        let Some(publication) = self.published().remove(name) else {
            return;
        };
        for session in self.current_sessions() {
            let routes = session.routes();
            routes.withdraw(name, Some(publication.id), StopReason::Withdrawn);
        }
    }

    /// Lets the peer of a session watch a broadcast, if it may. Asks the program, so no lock may be held.
    fn offer(&self, session: &MoqSession, publication: &Publication) -> bool {
        let name = &publication.name;
        let may_watch = self.policy().may_watch(session.remote_id(), name);
        if may_watch {
            session.routes().announce(publication);
            // It may have been taken back while the program was asked.
            if !self.is_current(&self.published(), publication) {
                let routes = session.routes();
                routes.withdraw(name, Some(publication.id), StopReason::Withdrawn);
            }
        }
        may_watch
    }

    fn current_publications(&self) -> Vec<Publication> {
        self.published().values().cloned().collect()
    }

    pub(super) fn set_policy(self: &Arc<Self>, policy: Policy) {
        let replaced = CancellationToken::new();
        if let Policy::Only(list) = &policy {
            self.follow(list.clone(), replaced.clone());
        }
        let old = std::mem::replace(&mut *lock(&self.policy), PolicyState { policy, replaced });
        old.replaced.cancel();
        self.enforce_policy();
    }

    /// Ends what is not allowed, and lets peers watch what is.
    pub(super) fn enforce_policy(&self) {
        let published = self.current_publications();
        for session in self.current_sessions() {
            let peer = session.remote_id();
            if session.is_incoming() && !self.may_connect(peer) {
                session.close(CloseCode::REFUSED, "not allowed any more");
                continue;
            }
            for publication in &published {
                if !self.offer(&session, publication) {
                    session.routes().withdraw(
                        &publication.name,
                        Some(publication.id),
                        StopReason::NotAllowed,
                    );
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

    pub(super) fn origins(&self, span: &Span) -> Origins {
        let (origins, drivers) = Origins::new();
        for driver in drivers {
            self.drive(driver, span);
        }
        origins
    }

    /// A session that nobody knows of yet, and what the peer's end of it calls itself, if it has said so; see [`register`](Self::register).
    pub(super) fn session(
        &self,
        first: Carrier,
        origins: Origins,
        remote_hop: Option<Hop>,
    ) -> MoqSession {
        let (tasks, ended) = (self.tasks.clone(), self.shutdown.child_token());
        MoqSession::new(first, origins, remote_hop, tasks, ended)
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

    /// Stays with a session until it has ended, and ends it when this side has dialled and needs it no more.
    fn watch(self: &Arc<Self>, session: &MoqSession, peer: Arc<Peer>) {
        let (registry, watched) = (Arc::downgrade(self), session.clone());
        let watching = async move {
            let released = async {
                match watched.is_incoming() {
                    true => std::future::pending().await,
                    false => watched.released(UNUSED_GRACE).await,
                }
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
