//! The sessions with all peers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{ConnectOptions, Connection, ConnectionError},
    protocol::{AcceptError, ProtocolHandler},
};
use moq_lite::{Client, Hop, Server, origin};
use tokio::sync::{Mutex as AsyncMutex, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span};

use super::{PathInfo, Policy, alpns, quic::QuicSession};
use crate::broadcast::{LocalBroadcast, RETENTION, RemoteBroadcast, pool};

/// Application close codes that tell a peer why a session ended.
pub mod close_code {
    /// The normal end.
    pub const DONE: u32 = 0;
    /// The peer may not connect.
    pub const REFUSED: u32 = 0x100;
}

/// A peer that has connected must speak MoQ within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
    peers: Mutex<HashMap<EndpointId, Slot>>,
    /// Every session that is alive, for shutting down and for counting.
    sessions: watch::Sender<Vec<MoqSession>>,
    events: broadcast::Sender<MoqSession>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// A broadcast under a name.
struct Publication {
    /// Does not keep the broadcast alive: that is its owner's to do.
    broadcast: moq_lite::broadcast::Consumer,
    stop: CancellationToken,
}

/// The session with one peer. Locked while it is being made, so that nobody makes a second one.
type Slot = Arc<AsyncMutex<Option<MoqSession>>>;

impl std::fmt::Debug for Moq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moq")
            .field("endpoint", &self.inner.endpoint.id())
            .finish_non_exhaustive()
    }
}

/// A broadcast could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// MoQ names are paths: not empty, no part that is `*` or `**`, at most 32 parts.
    #[error("{name:?} cannot be a broadcast's name: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: moq_lite::Error,
    },
    /// The transport was shut down.
    #[error("the transport is shut down")]
    Shutdown,
}

/// A session with a peer could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The peer could not be reached: it is away, or there is no path to it.
    #[error("the peer cannot be reached: {0}")]
    Unreachable(#[source] iroh::endpoint::ConnectWithOptsError),
    /// The connection could not be completed.
    #[error("the connection failed: {0}")]
    Connecting(#[source] iroh::endpoint::ConnectingError),
    /// The peer took the connection and speaks no version of MoQ that is known here.
    #[error("the peer does not speak MoQ as it should: {0}")]
    Handshake(#[source] moq_lite::Error),
    /// The peer took the connection and then said nothing.
    #[error("the peer took the connection, but did not answer within {}", humantime(.0))]
    Timeout(Duration),
    /// The peer does not let us connect.
    #[error("the peer refused the connection: ask it for access")]
    Refused,
    /// The transport was shut down.
    #[error("the transport is shut down")]
    Shutdown,
}

fn humantime(duration: &Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// A broadcast could not be had from a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The peer has no broadcast of that name.
    #[error("the peer has no broadcast named {0:?}")]
    NotFound(String),
    /// The peer does not let us watch it.
    #[error("the peer refused access to the broadcast {0:?}")]
    Refused(String),
    /// The session ended.
    #[error("the session ended: {0}")]
    Session(#[source] moq_lite::Error),
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
            sessions: watch::Sender::default(),
            events: broadcast::Sender::new(64),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
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
        if self.inner.shutdown.is_cancelled() {
            return Err(PublishError::Shutdown);
        }
        valid_name(&name)?;
        let publication = Publication {
            broadcast: broadcast.consume(),
            stop: self.inner.shutdown.child_token(),
        };
        let mut published = lock(&self.inner.published);
        // Under the lock, as a session that begins offers what it finds here.
        for session in &*self.inner.sessions.borrow() {
            self.offer(session, &name, &publication);
        }
        let (moq, forgotten) = (Arc::downgrade(&self.inner), name.clone());
        let (consumer, stop) = (broadcast.consume(), publication.stop.clone());
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

    /// Lets the peer of a session see a broadcast, if it may.
    fn offer(&self, session: &MoqSession, name: &str, publication: &Publication) {
        if !self.inner.policy.may_watch(session.remote_id(), name) {
            return;
        }
        session.offer(
            name,
            publication.broadcast.clone(),
            &publication.stop,
            &self.inner.tasks,
        );
    }

    /// Takes back what was published under `name`. Viewers that have begun go on until the broadcast ends.
    pub fn unpublish(&self, name: &str) {
        if let Some(publication) = lock(&self.inner.published).remove(name) {
            publication.stop.cancel();
        }
    }

    /// The session with a peer: the one that is there, whichever side began it, or a new one.
    ///
    /// However many ask at once, one connection is made. Cancel safe: dropping the future of the one who makes it leaves
    /// the work to the next.
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
        let slot = self.slot(addr.id);
        let mut slot = slot.lock().await;
        if let Some(session) = &*slot
            && session.is_alive()
        {
            return Ok(session.clone());
        }
        if self.inner.shutdown.is_cancelled() {
            return Err(ConnectError::Shutdown);
        }
        let session = self.dial(addr).await?;
        *slot = Some(session.clone());
        Ok(session)
    }

    /// Sessions that peers begin, from now on.
    pub fn incoming(&self) -> broadcast::Receiver<MoqSession> {
        self.inner.events.subscribe()
    }

    /// The sessions that are alive, as they change.
    pub fn sessions(&self) -> watch::Receiver<Vec<MoqSession>> {
        self.inner.sessions.subscribe()
    }

    /// Ends all sessions, giving them a moment to deliver what was written, and all publications.
    pub async fn shutdown(&self) {
        let sessions = self.inner.sessions.send_replace(Vec::new());
        let drained = sessions.iter().map(|session| async move {
            let closed = tokio::time::timeout(DRAIN_TIMEOUT, session.inner.session.clone().close());
            if closed.await.is_err() {
                session.close(close_code::DONE, "shut down");
            }
        });
        futures_util::future::join_all(drained).await;
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn slot(&self, id: EndpointId) -> Slot {
        lock(&self.inner.peers).entry(id).or_default().clone()
    }

    async fn dial(&self, addr: EndpointAddr) -> Result<MoqSession, ConnectError> {
        let mut alpns = alpns();
        let first = alpns.next().unwrap_or_default();
        let options =
            ConnectOptions::new().with_additional_alpns(alpns.map(<[u8]>::to_vec).collect());
        let connection = self
            .inner
            .endpoint
            .connect_with_opts(addr, first, options)
            .await
            .map_err(ConnectError::Unreachable)?
            .await
            .map_err(ConnectError::Connecting)?;
        let origins = Origins::new(&self.inner);
        let quic = QuicSession::new(connection.clone());
        let client = Client::new()
            .with_publisher(&origins.local)
            .with_subscriber(origins.remote.clone());
        let handshake = client.connect(now(), quic);
        let (session, driver) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| ConnectError::Timeout(HANDSHAKE_TIMEOUT))?
            .map_err(|error| match connection.close_reason() {
                Some(ConnectionError::ApplicationClosed(close))
                    if close.error_code == close_code::REFUSED.into() =>
                {
                    ConnectError::Refused
                }
                _ => ConnectError::Handshake(error),
            })?;
        self.inner.drive(driver);
        Ok(self.register(connection, session, origins, false))
    }

    async fn welcome(&self, connection: Connection) -> Result<(), moq_lite::Error> {
        if !self.inner.policy.may_connect(connection.remote_id()) {
            debug!("refused");
            connection.close(close_code::REFUSED.into(), b"not allowed");
            return Ok(());
        }
        let origins = Origins::new(&self.inner);
        let quic = QuicSession::new(connection.clone());
        let server = Server::new()
            .with_publisher(&origins.local)
            .with_subscriber(origins.remote.clone());
        let (session, driver) = tokio::time::timeout(HANDSHAKE_TIMEOUT, server.accept(now(), quic))
            .await
            .map_err(|_| moq_lite::Error::Timeout)??;
        self.inner.drive(driver);
        let session = self.register(connection.clone(), session, origins, true);
        // Nobody has to be listening.
        let _ = self.inner.events.send(session.clone());
        if let Ok(mut slot) = self.slot(session.remote_id()).try_lock()
            && slot.as_ref().is_none_or(|old| !old.is_alive())
        {
            *slot = Some(session);
        }
        connection.closed().await;
        Ok(())
    }

    fn register(
        &self,
        connection: Connection,
        session: moq_lite::Session,
        origins: Origins,
        incoming: bool,
    ) -> MoqSession {
        let session = MoqSession {
            inner: Arc::new(SessionInner {
                connection,
                session,
                local: origins.local,
                remote: moq_lite::Consume::consume(&origins.remote),
                _remote: origins.remote,
                incoming,
                ended: self.inner.shutdown.child_token(),
            }),
        };
        debug!(peer = %session.remote_id().fmt_short(), version = %session.version(), incoming, "session");
        {
            let published = lock(&self.inner.published);
            for (name, publication) in &*published {
                self.offer(&session, name, publication);
            }
            self.inner
                .sessions
                .send_modify(|sessions| sessions.push(session.clone()));
        }
        let (inner, watched) = (Arc::downgrade(&self.inner), session.clone());
        self.inner.tasks.spawn(async move {
            watched.inner.connection.closed().await;
            watched.inner.ended.cancel();
            if let Some(inner) = inner.upgrade() {
                inner.sessions.send_modify(|sessions| {
                    sessions.retain(|session| !Arc::ptr_eq(&session.inner, &watched.inner));
                });
                // A slot that is locked is getting a new session.
                lock(&inner.peers).retain(|_, slot| {
                    slot.try_lock()
                        .is_ok_and(|slot| slot.as_ref().is_some_and(MoqSession::is_alive))
                        || Arc::strong_count(slot) > 1
                });
            }
        });
        session
    }
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
}

impl ProtocolHandler for Moq {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let span = info_span!("session", peer = %connection.remote_id().fmt_short());
        self.welcome(connection)
            .instrument(span)
            .await
            .map_err(AcceptError::from_err)
    }

    async fn shutdown(&self) {
        Moq::shutdown(self).await;
    }
}

/// What one session gives and what it gets.
struct Origins {
    /// What the peer may see.
    local: origin::Producer,
    /// What the peer publishes.
    remote: origin::Producer,
}

impl Origins {
    /// Must run before the session does, which may use them at once.
    fn new(inner: &Inner) -> Self {
        let (local, local_driver) = origin::Producer::new(origin::Config::new(Hop::random()));
        let mut config = origin::Config::new(Hop::random());
        config.pool = pool();
        config.cache_duration = RETENTION;
        let (remote, remote_driver) = origin::Producer::new(config);
        inner.drive(local_driver);
        inner.drive(remote_driver);
        Self { local, remote }
    }
}

/// Whether MoQ can announce a broadcast under this name.
fn valid_name(name: &str) -> Result<(), PublishError> {
    let path = moq_lite::Path::from(name.to_owned());
    let invalid = |source| PublishError::Name {
        name: name.to_owned(),
        source,
    };
    if path.is_empty() || path.parts().count() > moq_lite::Path::MAX_PARTS {
        return Err(invalid(moq_lite::Error::NotFound));
    }
    if path.parts().any(|part| part == "*" || part == "**") {
        return Err(invalid(moq_lite::Error::Unroutable));
    }
    Ok(())
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A session with one peer. Cheap to clone; ends when it is closed by either side, not when it is dropped.
#[derive(Clone)]
pub struct MoqSession {
    inner: Arc<SessionInner>,
}

struct SessionInner {
    connection: Connection,
    session: moq_lite::Session,
    /// What the peer may see of this machine.
    local: origin::Producer,
    /// What the peer publishes.
    remote: origin::Consumer,
    _remote: origin::Producer,
    incoming: bool,
    ended: CancellationToken,
}

impl std::fmt::Debug for MoqSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MoqSession")
            .field("peer", &self.remote_id())
            .field("incoming", &self.inner.incoming)
            .finish_non_exhaustive()
    }
}

impl MoqSession {
    /// The peer.
    pub fn remote_id(&self) -> EndpointId {
        self.inner.connection.remote_id()
    }

    /// The QUIC connection below.
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// The version of MoQ that both sides speak.
    pub fn version(&self) -> moq_lite::Version {
        self.inner.session.version()
    }

    /// Whether the peer began the session.
    pub fn is_incoming(&self) -> bool {
        self.inner.incoming
    }

    /// Whether the session has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.inner.connection.close_reason().is_none()
    }

    /// Cancelled when the session has ended.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.inner.ended.clone()
    }

    /// How the peer is reached at the moment.
    pub fn path(&self) -> PathInfo {
        PathInfo::of(&self.inner.connection)
    }

    /// Offers a broadcast to this peer alone, beside what is published to all, for as long as the session lasts.
    ///
    /// # Errors
    /// [`PublishError::Name`].
    pub fn publish(
        &self,
        name: impl Into<String>,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        let name = name.into();
        valid_name(&name)?;
        self.offer(
            &name,
            broadcast.consume(),
            &self.inner.ended,
            &TaskTracker::new(),
        );
        Ok(())
    }

    fn offer(
        &self,
        name: &str,
        broadcast: moq_lite::broadcast::Consumer,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let path = moq_lite::Path::from(name.to_owned());
        let route = match self.inner.local.dynamic(&path, origin::Route::default()) {
            Ok(route) => route,
            Err(error) => {
                debug!(name, %error, "not offered");
                return;
            }
        };
        let (consumer, stop, ended) = (broadcast, stop.clone(), self.inner.ended.clone());
        tasks.spawn(async move {
            loop {
                let request = tokio::select! {
                    request = route.requested_broadcast() => request,
                    _ = consumer.closed() => break,
                    () = stop.cancelled() => break,
                    () = ended.cancelled() => break,
                };
                match request {
                    Ok(request) if *request.path() == path => request.accept(&consumer),
                    Ok(request) => request.reject(moq_lite::Error::NotFound),
                    Err(_) => break,
                }
            }
        });
    }

    /// Waits until the peer offers a broadcast named `name`.
    ///
    /// A name that nobody publishes is waited for; put a time limit around it where that is not wanted. Cancel safe.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe(&self, name: &str) -> Result<RemoteBroadcast, SubscribeError> {
        let broadcast = tokio::select! {
            broadcast = self.inner.remote.routed_broadcast(name) => broadcast,
            error = self.inner.session.closed() => Err(error),
        };
        match broadcast {
            Ok(broadcast) => Ok(RemoteBroadcast::new(name.to_owned(), broadcast)
                .with_peer_rate(self.inner.session.recv_bandwidth())),
            Err(moq_lite::Error::NotFound) => Err(SubscribeError::NotFound(name.to_owned())),
            Err(moq_lite::Error::Unauthorized) => Err(SubscribeError::Refused(name.to_owned())),
            Err(error) => Err(SubscribeError::Session(error)),
        }
    }

    /// The names of the broadcasts that the peer has offered so far.
    pub fn offered(&self) -> Vec<String> {
        let mut announced = self.inner.remote.announced();
        std::iter::from_fn(|| announced.try_next())
            .filter(|update| update.kind.is_active())
            .map(|update| update.prefix.to_string())
            .collect()
    }

    /// Ends the session at once; `reason` is for the peer to read.
    pub fn close(&self, code: u32, reason: &str) {
        self.inner.connection.close(code.into(), reason.as_bytes());
    }

    /// Waits until the session has ended, and says why. Cancel safe.
    pub async fn closed(&self) -> ConnectionError {
        self.inner.connection.closed().await
    }
}
