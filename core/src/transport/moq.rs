//! The sessions with all peers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{ConnectOptions, Connection, ConnectionError},
    protocol::{AcceptError, ProtocolHandler},
};
use moq_lite::{Client, Hop, Server, origin};
use tokio::sync::{Mutex as AsyncMutex, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, info_span};

use super::{PathInfo, alpns, quic::QuicSession};
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
    /// What this machine publishes; every session reads from it.
    origin: origin::Producer,
    published: Mutex<HashMap<String, CancellationToken>>,
    peers: Mutex<HashMap<EndpointId, Slot>>,
    /// Every session that is alive, for shutting down and for counting.
    sessions: watch::Sender<Vec<MoqSession>>,
    events: broadcast::Sender<MoqSession>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
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
        let (origin, driver) = origin::Producer::new(origin::Config::new(Hop::random()));
        let inner = Arc::new(Inner {
            endpoint,
            origin,
            published: Mutex::default(),
            peers: Mutex::default(),
            sessions: watch::Sender::default(),
            events: broadcast::Sender::new(64),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        inner.drive(driver);
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
        let path = moq_lite::Path::from(name.clone());
        if path.is_empty() {
            return Err(PublishError::Name {
                source: moq_lite::Error::NotFound,
                name,
            });
        }
        let route = self
            .inner
            .origin
            .dynamic(&path, origin::Route::default())
            .map_err(|source| PublishError::Name {
                name: name.clone(),
                source,
            })?;
        let stop = self.inner.shutdown.child_token();
        if let Some(old) = lock(&self.inner.published).insert(name, stop.clone()) {
            old.cancel();
        }
        let consumer = broadcast.consume();
        self.inner.tasks.spawn(async move {
            loop {
                let request = tokio::select! {
                    request = route.requested_broadcast() => request,
                    _ = consumer.closed() => break,
                    () = stop.cancelled() => break,
                };
                match request {
                    Ok(request) if *request.path() == path => request.accept(&consumer),
                    Ok(request) => request.reject(moq_lite::Error::NotFound),
                    Err(_) => break,
                }
            }
        });
        Ok(())
    }

    /// Takes back what was published under `name`. Viewers that have begun go on until the broadcast ends.
    pub fn unpublish(&self, name: &str) {
        if let Some(stop) = lock(&self.inner.published).remove(name) {
            stop.cancel();
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
        let addr = addr.into();
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
        let (remote, remote_driver) = remote_origin();
        let quic = QuicSession::new(connection.clone());
        let client = Client::new()
            .with_publisher(&self.inner.origin)
            .with_subscriber(remote.clone());
        let handshake = client.connect(now(), quic);
        let (session, driver) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| ConnectError::Timeout(HANDSHAKE_TIMEOUT))?
            .map_err(ConnectError::Handshake)?;
        self.inner.drive(remote_driver);
        self.inner.drive(driver);
        Ok(self.register(connection, session, remote, false))
    }

    async fn welcome(&self, connection: Connection) -> Result<(), moq_lite::Error> {
        let (remote, remote_driver) = remote_origin();
        let quic = QuicSession::new(connection.clone());
        let server = Server::new()
            .with_publisher(&self.inner.origin)
            .with_subscriber(remote.clone());
        let (session, driver) =
            tokio::time::timeout(HANDSHAKE_TIMEOUT, server.accept(now(), quic))
                .await
                .map_err(|_| moq_lite::Error::Timeout)??;
        self.inner.drive(remote_driver);
        self.inner.drive(driver);
        let session = self.register(connection.clone(), session, remote, true);
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
        remote: origin::Producer,
        incoming: bool,
    ) -> MoqSession {
        let session = MoqSession {
            inner: Arc::new(SessionInner {
                connection,
                session,
                remote: moq_lite::Consume::consume(&remote),
                _remote: remote,
                incoming,
            }),
        };
        debug!(peer = %session.remote_id().fmt_short(), version = %session.version(), incoming, "session");
        self.inner
            .sessions
            .send_modify(|sessions| sessions.push(session.clone()));
        let (inner, watched) = (Arc::downgrade(&self.inner), session.clone());
        self.inner.tasks.spawn(async move {
            watched.inner.connection.closed().await;
            if let Some(inner) = inner.upgrade() {
                inner.sessions.send_modify(|sessions| {
                    sessions.retain(|session| !Arc::ptr_eq(&session.inner, &watched.inner));
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

/// Where a session puts what its peer publishes.
fn remote_origin() -> (origin::Producer, origin::Driver) {
    let mut config = origin::Config::new(Hop::random());
    config.pool = pool();
    config.cache_duration = RETENTION;
    origin::Producer::new(config)
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
    /// What the peer publishes.
    remote: origin::Consumer,
    _remote: origin::Producer,
    incoming: bool,
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

    /// How the peer is reached at the moment.
    pub fn path(&self) -> PathInfo {
        PathInfo::of(&self.inner.connection)
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
            Ok(broadcast) => Ok(RemoteBroadcast::new(name.to_owned(), broadcast)),
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
