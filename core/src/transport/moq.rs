//! The sessions with all peers.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{ConnectOptions, Connection, ConnectionError},
    protocol::{AcceptError, ProtocolHandler},
};
use moq_lite::{Client, Server, SessionError};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span};

use super::{
    AcceptSessionError, ConnectError, IncomingSession, IncomingSessions, MoqSession, Policy,
    PublishError, alpns, close_code,
    incoming::{Decision, MAX_WAITING, Question},
    lock,
    peer::{Peer, Turn},
    quic::QuicSession,
    session::{Origins, valid_name},
};
use crate::broadcast::LocalBroadcast;

/// How long a peer that does not answer is dialled.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one handshake may take: more than a round trip on the worst of paths. In this time QUIC leaves no gap longer
/// than 1.2 s between two attempts to get through; later ones are twice as long and more.
const REACH_AGAIN: Duration = Duration::from_secs(3);

/// A peer that has connected must speak MoQ within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer that was dialled may think about whether it lets this side in.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the end of a session waits for what was written to be delivered.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(800);

/// The transport: publishes broadcasts to every peer and keeps one session with each. Cheap to clone.
#[derive(Clone)]
pub struct Moq {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    policy: Policy,
    /// What this machine publishes, to all who may watch it.
    published: Mutex<HashMap<String, Publication>>,
    peers: Mutex<HashMap<EndpointId, Arc<Peer>>>,
    /// Counts the connections that come in.
    connections: AtomicU64,
    /// Every session that is alive, for shutting down and for counting.
    sessions: watch::Sender<Vec<MoqSession>>,
    events: broadcast::Sender<MoqSession>,
    /// Where to ask about sessions that peers begin.
    screen: Mutex<Option<mpsc::Sender<IncomingSession>>>,
    tasks: TaskTracker,
    /// Nothing new begins.
    stopping: CancellationToken,
    /// Nothing goes on.
    shutdown: CancellationToken,
}

/// A broadcast under a name.
struct Publication {
    /// Does not keep the broadcast alive: that is its owner's to do.
    broadcast: moq_lite::broadcast::Consumer,
    stop: CancellationToken,
}

impl std::fmt::Debug for Moq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moq")
            .field("endpoint", &self.inner.endpoint.id())
            .finish_non_exhaustive()
    }
}

impl Moq {
    /// A transport on `endpoint`. Accepts nothing by itself: mount it on a router under [`alpns`], as it is a
    /// [`ProtocolHandler`].
    ///
    /// Must be called in a tokio runtime.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::with_policy(endpoint, Policy::default())
    }

    /// The same, with a say in who may connect and who may watch what.
    pub fn with_policy(endpoint: Endpoint, policy: Policy) -> Self {
        let inner = Arc::new(Inner {
            endpoint,
            policy,
            published: Mutex::default(),
            peers: Mutex::default(),
            connections: AtomicU64::new(1),
            sessions: watch::Sender::default(),
            events: broadcast::Sender::new(64),
            screen: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            shutdown: CancellationToken::new(),
        });
        if let Policy::Only(list) = &inner.policy {
            inner.follow(list.clone());
        }
        Self { inner }
    }

    /// The endpoint below.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Offers `broadcast` under `name` to every peer that is connected and to those that come later.
    ///
    /// Replaces what was published under the name before; the end of that does not take this one away.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(
        &self,
        name: impl Into<String>,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        let name = name.into();
        valid_name(&name)?;
        let publication = Publication {
            broadcast: broadcast.consume(),
            stop: self.inner.shutdown.child_token(),
        };
        let mut published = lock(&self.inner.published);
        if self.inner.stopping.is_cancelled() {
            return Err(PublishError::Shutdown);
        }
        // Under the lock, as a session that begins offers what it finds here.
        for session in &*self.inner.sessions.borrow() {
            self.inner.offer(session, &name, &publication);
        }
        let (moq, forgotten) = (Arc::downgrade(&self.inner), name.clone());
        let (consumer, stop) = (publication.broadcast.clone(), publication.stop.clone());
        self.inner.tasks.spawn(async move {
            tokio::select! {
                _ = consumer.closed() => {}
                () = stop.cancelled() => return,
            }
            // It is over, unless another has taken its name.
            if let Some(moq) = moq.upgrade() {
                lock(&moq.published).retain(|name, publication| {
                    *name != forgotten || !publication.broadcast.is_closed()
                });
            }
        });
        if let Some(old) = published.insert(name, publication) {
            old.stop.cancel();
        }
        Ok(())
    }

    /// Takes back what was published under `name`. Viewers that have begun go on until the broadcast ends.
    pub fn unpublish(&self, name: &str) {
        if let Some(publication) = lock(&self.inner.published).remove(name) {
            publication.stop.cancel();
        }
    }

    /// The session with a peer: the one that is there, whichever side began it, or a new one.
    ///
    /// However many ask at once there is one session, and when both sides dial at the same time they end with the same
    /// one. A peer that was started anew, and dials before its old session here has timed out, replaces it at once; only
    /// where two processes share one key can there be two sessions with a peer, and the newer one is given. A session is handed out when the peer has let this side in, which may take a person's decision there; put a
    /// time limit around it where that is not wanted. Cancel safe: dropping the future of the one who dials leaves the
    /// work to the next.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, addr: impl Into<EndpointAddr>) -> Result<MoqSession, ConnectError> {
        self.connect_boxed(addr.into()).await
    }

    /// Boxed, so that the whole of MoQ is not compiled again into every crate that connects.
    fn connect_boxed(&self, addr: EndpointAddr) -> BoxFuture<'_, Result<MoqSession, ConnectError>> {
        Box::pin(self.connect_to(addr))
    }

    async fn connect_to(&self, addr: EndpointAddr) -> Result<MoqSession, ConnectError> {
        let peer = self.peer(addr.id);
        tokio::select! {
            biased;
            () = self.inner.stopping.cancelled() => Err(ConnectError::Shutdown),
            session = peer.session() => Ok(session),
            dialed = self.dial(&peer, addr) => dialed,
        }
    }

    /// Sessions that peers begin and that were let in, from now on.
    pub fn incoming(&self) -> broadcast::Receiver<MoqSession> {
        self.inner.events.subscribe()
    }

    /// From now on, asks about each session that a peer begins before the peer is told anything.
    ///
    /// Whom the [`Policy`] refuses is not asked about; neither is a peer that this side dials at the same moment, which
    /// is let in. Calling it again takes over from who called it before.
    ///
    /// ```no_run
    /// # use iroh_live::{Moq, transport::close_code};
    /// # async fn example(moq: Moq, is_friend: impl Fn(iroh_live::iroh::EndpointId) -> bool) {
    /// let mut incoming = moq.screen();
    /// while let Some(session) = incoming.next().await {
    ///     if is_friend(session.remote_id()) {
    ///         if let Ok(session) = session.accept().await {
    ///             println!("{} is here", session.remote_id());
    ///         }
    ///     } else {
    ///         session.reject(close_code::REFUSED, "friends only");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn screen(&self) -> IncomingSessions {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let mut screen = lock(&self.inner.screen);
        // After a shutdown there is nobody to ask about.
        *screen = (!self.inner.stopping.is_cancelled()).then_some(sender);
        IncomingSessions { receiver }
    }

    /// The sessions that are alive, as they change.
    pub fn sessions(&self) -> watch::Receiver<Vec<MoqSession>> {
        self.inner.sessions.subscribe()
    }

    /// Ends all sessions, giving them a moment to deliver what was written, and all publications. Nothing new begins.
    ///
    /// Safe to call again, and to be cancelled and called again.
    pub async fn shutdown(&self) {
        let sessions = {
            // A session that begins looks under this lock whether it still may.
            let _published = lock(&self.inner.published);
            self.inner.stopping.cancel();
            self.inner.sessions.borrow().clone()
        };
        lock(&self.inner.screen).take();
        let drained = sessions.iter().map(|session| async move {
            if timeout(DRAIN_TIMEOUT, session.drain()).await.is_err() {
                debug!(peer = %session.remote_id().fmt_short(), "not all was delivered");
            }
            session.close(close_code::DONE, "shut down");
        });
        futures_util::future::join_all(drained).await;
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Cancelled when a shutdown begins.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.inner.stopping.clone()
    }

    fn peer(&self, id: EndpointId) -> Arc<Peer> {
        let mut peers = lock(&self.inner.peers);
        // Nobody else has a hand on those that can be let go of, and none can be given out meanwhile.
        peers.retain(|_, peer| Arc::strong_count(peer) > 1 || !peer.is_idle());
        let own = self.inner.endpoint.id();
        peers
            .entry(id)
            .or_insert_with(|| Arc::new(Peer::new(own, id)))
            .clone()
    }

    /// Connects. Until there is an answer, it begins anew every now and then: QUIC knocks less and less often, and would
    /// sleep through the moment at which the peer can be reached again.
    async fn reach(&self, addr: EndpointAddr) -> Result<Connection, ConnectError> {
        let deadline = Instant::now() + REACH_TIMEOUT;
        while Instant::now() < deadline {
            let mut alpns = alpns();
            let first = alpns.next().unwrap_or_default();
            let options =
                ConnectOptions::new().with_additional_alpns(alpns.map(<[u8]>::to_vec).collect());
            let connecting = self
                .inner
                .endpoint
                .connect_with_opts(addr.clone(), first, options)
                .await
                .map_err(ConnectError::Unreachable)?;
            match timeout(REACH_AGAIN, connecting).await {
                Ok(connected) => return connected.map_err(ConnectError::connecting),
                Err(_) => debug!("no answer yet"),
            }
        }
        Err(ConnectError::Connecting(ConnectionError::TimedOut.into()))
    }

    /// Dials, and waits until the peer has answered.
    async fn dial(&self, peer: &Peer, addr: EndpointAddr) -> Result<MoqSession, ConnectError> {
        let dial = peer.dial().await;
        let connection = self.reach(addr).await?;
        let unused = Unused {
            peer,
            connection: &connection,
        };
        dial.knock().await;
        let origins = self.inner.origins();
        let quic = QuicSession::new(connection.clone());
        let heard = quic.heard();
        let client = Client::new()
            .with_publisher(&origins.local)
            .with_subscriber(origins.remote.clone());
        let handshake = async {
            let (session, driver) = client
                .connect(now(), quic)
                .await
                .map_err(ConnectError::Handshake)?;
            self.inner.drive(driver);
            // Most versions of MoQ let the dialer begin before the peer has said anything.
            heard.await;
            Ok(session)
        };
        let session = tokio::select! {
            answered = timeout(ANSWER_TIMEOUT, handshake) => answered
                .map_err(|_| ConnectError::Timeout(ANSWER_TIMEOUT))?
                .map_err(|error| match connection.close_reason() {
                    Some(reason) => ConnectError::ended(reason),
                    None => error,
                })?,
            error = connection.closed() => return Err(ConnectError::ended(error)),
        };
        std::mem::forget(unused);
        let session = self.inner.session(connection, session, origins, false);
        if !dial.establish(&session) {
            session.lose("another connection came first");
            return Ok(peer.session().await);
        }
        if self.inner.register(&session) {
            Ok(session)
        } else {
            Err(ConnectError::Shutdown)
        }
    }

    /// Lets a peer in that has connected, and stays with it.
    async fn welcome(&self, connection: Connection) {
        if !self.inner.policy.may_connect(connection.remote_id()) {
            debug!("refused");
            connection.close(close_code::REFUSED.into(), b"not allowed");
            return;
        }
        let mut question = None;
        let outcome = tokio::select! {
            outcome = self.enter(&connection, &mut question) => outcome,
            error = connection.closed() => Err(AcceptSessionError::Gone(error)),
            () = self.inner.stopping.cancelled() => {
                connection.close(close_code::DONE.into(), b"shut down");
                Err(AcceptSessionError::Shutdown)
            }
        };
        if let Err(error) = &outcome {
            debug!(%error, "no session");
            // Where something is wrong with the peer; otherwise it is closed already, and the first word counts.
            let code = SessionError::ProtocolViolation.to_code();
            connection.close(code.into(), error.to_string().as_bytes());
        }
        if let Some(question) = question {
            question.tell(outcome);
        }
        connection.closed().await;
    }

    async fn enter(
        &self,
        connection: &Connection,
        question: &mut Option<Question>,
    ) -> Result<MoqSession, AcceptSessionError> {
        let number = self.inner.connections.fetch_add(1, Ordering::Relaxed);
        let peer = self.peer(connection.remote_id());
        let quic = QuicSession::new(connection.clone());
        let server = Server::new();
        let handshake = within(HANDSHAKE_TIMEOUT, server.accept_request(now(), quic)).await?;
        if let Some(asked) = self.ask(connection)? {
            let asked = question.insert(asked);
            let decision = tokio::select! {
                decision = asked.decision() => decision,
                () = peer.wanted() => Decision::Accept,
            };
            if let Decision::Reject { code, reason } = decision {
                connection.close(code.into(), reason.as_bytes());
                return Err(AcceptSessionError::Gone(connection.closed().await));
            }
        }
        let turn = peer.turn(number).await;
        let origins = self.inner.origins();
        let handshake = handshake
            .with_publisher(&origins.local)
            .with_subscriber(origins.remote.clone());
        let (session, driver) = within(HANDSHAKE_TIMEOUT, handshake.ok()).await?;
        if let Some(gone) = connection.close_reason() {
            // The peer left while it was decided about; what was written to it has gone nowhere.
            return Err(AcceptSessionError::Gone(gone));
        }
        self.inner.drive(driver);
        let session = self
            .inner
            .session(connection.clone(), session, origins, true);
        if let Turn::First(welcome) = turn {
            welcome.establish(&session);
        }
        if !self.inner.register(&session) {
            return Err(AcceptSessionError::Shutdown);
        }
        // Nobody has to be listening.
        let _ = self.inner.events.send(session.clone());
        Ok(session)
    }

    /// Asks the program about a session, if it wants to be asked.
    fn ask(&self, connection: &Connection) -> Result<Option<Question>, AcceptSessionError> {
        let Some(screen) = lock(&self.inner.screen).clone() else {
            return Ok(None);
        };
        let (question, incoming) = Question::new(connection.clone());
        match screen.try_send(incoming) {
            Ok(()) => Ok(Some(question)),
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(None),
            Err(mpsc::error::TrySendError::Full(_)) => {
                connection.close(close_code::BUSY.into(), b"too many are waiting");
                Err(AcceptSessionError::Gone(
                    iroh::endpoint::ConnectionError::LocallyClosed,
                ))
            }
        }
    }
}

/// A connection that was dialled and that no session was made of.
struct Unused<'a> {
    peer: &'a Peer,
    connection: &'a Connection,
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        let (code, reason) = if self.peer.is_connected() {
            (close_code::SUPERSEDED, &b"another connection is in use"[..])
        } else {
            (close_code::DONE, &b"given up"[..])
        };
        self.connection.close(code.into(), reason);
    }
}

async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = Result<T, moq_lite::Error>>,
) -> Result<T, AcceptSessionError> {
    timeout(limit, handshake)
        .await
        .map_err(|_| moq_lite::Error::Timeout)
        .flatten()
        .map_err(AcceptSessionError::Handshake)
}

impl Inner {
    /// Runs a driver of the MoQ machinery until it is done.
    fn drive(&self, driver: impl moq_lite::time::Driver + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                error = moq_lite::time::run(driver) => debug!(%error, "driver done"),
                () = shutdown.cancelled() => {}
            }
        });
    }

    fn origins(&self) -> Origins {
        let (origins, drivers) = Origins::new();
        for driver in drivers {
            self.drive(driver);
        }
        origins
    }

    fn session(
        &self,
        connection: Connection,
        session: moq_lite::Session,
        origins: Origins,
        incoming: bool,
    ) -> MoqSession {
        let (tasks, ended) = (self.tasks.clone(), self.shutdown.child_token());
        MoqSession::new(connection, session, origins, incoming, tasks, ended)
    }

    /// Makes a session that is in use known, and offers it what is published. False, and the session is closed, if the
    /// transport was shut down.
    fn register(self: &Arc<Self>, session: &MoqSession) -> bool {
        let peer = session.remote_id();
        debug!(peer = %peer.fmt_short(), version = %session.version(), incoming = session.is_incoming(), "session");
        {
            let published = lock(&self.published);
            if self.stopping.is_cancelled() {
                drop(published);
                session.close(close_code::DONE, "shut down");
                return false;
            }
            self.offer_all(session, &published);
            self.sessions
                .send_modify(|sessions| sessions.push(session.clone()));
        }
        // Whoever changes the policy ends the sessions that are known by then.
        if session.is_incoming() && !self.policy.may_connect(peer) {
            session.close(close_code::REFUSED, "not allowed");
        }
        let (inner, watched) = (Arc::downgrade(self), session.clone());
        self.tasks.spawn(async move {
            watched.closed().await;
            watched.finish();
            if let Some(inner) = inner.upgrade() {
                let mut other = None;
                inner.sessions.send_modify(|sessions| {
                    sessions.retain(|session| !session.is_same(&watched));
                    let of_peer = |session: &&MoqSession| session.remote_id() == peer;
                    other = sessions.iter().rfind(of_peer).cloned();
                });
                let known = lock(&inner.peers).get(&peer).cloned();
                if let Some(known) = known {
                    known.forget(&watched, other);
                }
            }
        });
        true
    }

    fn offer_all(&self, session: &MoqSession, published: &HashMap<String, Publication>) {
        for (name, publication) in published {
            self.offer(session, name, publication);
        }
    }

    /// Lets the peer of a session see a broadcast, if it may.
    fn offer(&self, session: &MoqSession, name: &str, publication: &Publication) {
        if self.policy.may_watch(session.remote_id(), name) {
            let broadcast = publication.broadcast.clone();
            session.offer(name, broadcast, &publication.stop, true);
        }
    }

    /// Ends the sessions of peers that are taken off the list, and lets those that are put on it see what there is.
    fn follow(self: &Arc<Self>, mut list: watch::Receiver<HashSet<EndpointId>>) {
        let (inner, stopping) = (Arc::downgrade(self), self.stopping.clone());
        let mut known = list.borrow_and_update().clone();
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    changed = list.changed() => if changed.is_err() { return },
                    () = stopping.cancelled() => return,
                }
                let allowed = list.borrow_and_update().clone();
                let Some(inner) = inner.upgrade() else { return };
                let published = lock(&inner.published);
                for session in &*inner.sessions.borrow() {
                    let peer = session.remote_id();
                    match (known.contains(&peer), allowed.contains(&peer)) {
                        (true, false) => session.close(close_code::REFUSED, "not allowed any more"),
                        (false, true) => inner.offer_all(session, &published),
                        _ => {}
                    }
                }
                known = allowed;
            }
        });
    }
}

impl ProtocolHandler for Moq {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let span = info_span!("session", peer = %connection.remote_id().fmt_short());
        self.welcome(connection).instrument(span).await;
        Ok(())
    }

    async fn shutdown(&self) {
        Moq::shutdown(self).await;
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
