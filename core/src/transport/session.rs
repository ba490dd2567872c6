//! A session with one peer.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use iroh::{
    EndpointId,
    endpoint::{Connection, ConnectionError},
};
use moq_lite::{Hop, origin};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    DisconnectReason, PathChanges, PathInfo, PublishError, SubscribeError, close_code, lock,
};
use crate::{
    broadcast::{Catalog, LocalBroadcast, RETENTION, RemoteBroadcast, pool},
    signals::{NetStats, NetworkSignals, Sampled},
};

/// A session with one peer. Cheap to clone; ends when it is closed by either side, not when it is dropped.
#[derive(Clone)]
pub struct MoqSession {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Connection,
    session: moq_lite::Session,
    origins: Origins,
    /// What the peer publishes.
    remote: origin::Consumer,
    incoming: bool,
    tasks: TaskTracker,
    ended: CancellationToken,
    /// What this side made of it when it ended the session.
    reason: OnceLock<DisconnectReason>,
    /// What the peer may see, by name.
    offers: Mutex<HashMap<String, Offer>>,
    /// The names of those that the peer has asked for.
    requested: watch::Sender<BTreeSet<String>>,
    /// Reasons to keep the session when a call on it ends.
    uses: AtomicUsize,
    in_call: AtomicBool,
    /// What either side offered in the last call.
    last_call: Mutex<(Option<Offer>, Option<RemoteBroadcast>)>,
    sampled: OnceLock<Sampled>,
}

/// How long the peer's side of a call may stay after the call has ended.
const CALL_LINGER: Duration = Duration::from_secs(2);

/// A broadcast that the peer may see.
#[derive(Clone)]
struct Offer {
    /// Takes it back.
    stop: CancellationToken,
    /// Cancelled when it is taken back, so that the same name can be offered as something new.
    gone: CancellationToken,
}

/// What one session gives and what it gets.
pub(super) struct Origins {
    /// What the peer may see.
    pub(super) local: origin::Producer,
    /// What the peer publishes.
    pub(super) remote: origin::Producer,
}

impl Origins {
    /// The origins, and what drives them. Must run before the session does, which may use them at once.
    pub(super) fn new() -> (Self, [origin::Driver; 2]) {
        let config = || {
            let mut config = origin::Config::new(Hop::random());
            config.pool = pool();
            config.cache_duration = RETENTION;
            config
        };
        let (local, local_driver) = origin::Producer::new(config());
        let (remote, remote_driver) = origin::Producer::new(config());
        (Self { local, remote }, [local_driver, remote_driver])
    }
}

impl std::fmt::Debug for MoqSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MoqSession")
            .field("peer", &self.remote_id())
            .field("incoming", &self.inner.incoming)
            .finish_non_exhaustive()
    }
}

/// A reason to keep a session when a call on it ends, until it is dropped.
#[derive(Debug)]
pub(crate) struct SessionUse(MoqSession);

impl Drop for SessionUse {
    fn drop(&mut self) {
        self.0.inner.uses.fetch_sub(1, Ordering::Relaxed);
    }
}

impl MoqSession {
    pub(super) fn new(
        connection: Connection,
        session: moq_lite::Session,
        origins: Origins,
        incoming: bool,
        tasks: TaskTracker,
        ended: CancellationToken,
    ) -> Self {
        let inner = Inner {
            connection,
            session,
            remote: moq_lite::Consume::consume(&origins.remote),
            origins,
            incoming,
            tasks,
            ended,
            reason: OnceLock::new(),
            offers: Mutex::default(),
            requested: watch::Sender::default(),
            uses: AtomicUsize::new(0),
            in_call: AtomicBool::new(false),
            last_call: Mutex::default(),
            sampled: OnceLock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

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

    /// How the peer is reached, as it changes.
    pub fn path_changes(&self) -> PathChanges {
        PathChanges::of(&self.inner.connection)
    }

    /// The state of the network, every 200 ms until the session ends.
    ///
    /// Must be called in a tokio runtime. However many ask, it is measured once.
    pub fn signals(&self) -> watch::Receiver<NetworkSignals> {
        self.sampled().signals.clone()
    }

    /// Statistics, for a display; taken from the first call on, until the session ends.
    ///
    /// Must be called in a tokio runtime.
    pub fn stats(&self) -> NetStats {
        self.sampled().stats.clone()
    }

    fn sampled(&self) -> &Sampled {
        let inner = &self.inner;
        inner.sampled.get_or_init(|| {
            Sampled::spawn(
                &inner.connection,
                inner.session.recv_bandwidth(),
                inner.ended.clone(),
            )
        })
    }

    /// Offers a broadcast to this peer alone, for as long as the session and the broadcast last.
    ///
    /// Replaces what the peer was offered under the name before, also by [`Moq::publish`](super::Moq::publish). Must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// [`PublishError::Name`], [`PublishError::Ended`].
    pub fn publish(
        &self,
        name: impl Into<String>,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        self.publish_counted(name.into(), broadcast, true)
    }

    /// The same; with `counted`, a peer that has asked for it is a reason to keep the session.
    pub(crate) fn publish_counted(
        &self,
        name: String,
        broadcast: &LocalBroadcast,
        counted: bool,
    ) -> Result<(), PublishError> {
        valid_name(&name)?;
        if !self.is_alive() {
            return Err(PublishError::Ended);
        }
        let consumer = broadcast.consume();
        self.offer(&name, consumer, &self.inner.ended, counted);
        Ok(())
    }

    /// Takes back what [`publish`](Self::publish) offered. Who watches already goes on until the broadcast ends.
    pub fn unpublish(&self, name: &str) {
        self.withdraw(name);
    }

    fn withdraw(&self, name: &str) -> Option<Offer> {
        let offer = lock(&self.inner.offers).remove(name)?;
        offer.stop.cancel();
        Some(offer)
    }

    /// Lets the peer see a broadcast until it ends, `stop` is cancelled, or another takes its name.
    pub(super) fn offer(
        &self,
        name: &str,
        broadcast: moq_lite::broadcast::Consumer,
        stop: &CancellationToken,
        counted: bool,
    ) {
        let path = moq_lite::Path::from(name.to_owned());
        let route = match self
            .inner
            .origins
            .local
            .dynamic(&path, origin::Route::default())
        {
            Ok(route) => route,
            Err(error) => {
                debug!(name, %error, "not offered");
                return;
            }
        };
        let (stop, gone) = (stop.child_token(), CancellationToken::new());
        let offer = Offer {
            stop: stop.clone(),
            gone: gone.clone(),
        };
        let old = lock(&self.inner.offers).insert(name.to_owned(), offer);
        if let Some(old) = old {
            old.stop.cancel();
        }
        let session = self.clone();
        self.inner.tasks.spawn(async move {
            let mut requested = None;
            loop {
                let request = tokio::select! {
                    request = route.requested_broadcast() => request,
                    _ = broadcast.closed() => break,
                    () = stop.cancelled() => break,
                    () = session.inner.ended.cancelled() => break,
                };
                match request {
                    Ok(request) if *request.path() == path => {
                        if counted && requested.is_none() {
                            requested = Some(session.hold());
                        }
                        session
                            .inner
                            .requested
                            .send_if_modified(|requested| requested.insert(path.to_string()));
                        request.accept(&broadcast);
                    }
                    Ok(request) => request.reject(moq_lite::Error::NotFound),
                    Err(_) => break,
                }
            }
            drop(route);
            gone.cancel();
            stop.cancel();
            lock(&session.inner.offers).retain(|_, offer| !offer.stop.is_cancelled());
        });
    }

    /// Waits until the peer has asked for the broadcast that is published as `name`, as whoever watches it does.
    ///
    /// A peer that only connects never does. Does not end when the session does. Cancel safe.
    pub async fn requested(&self, name: &str) {
        let mut requested = self.inner.requested.subscribe();
        // It cannot fail, as this session has the other end.
        let _ = requested
            .wait_for(|requested| requested.contains(name))
            .await;
    }

    /// Waits until the peer offers a broadcast named `name`.
    ///
    /// A name that nobody publishes is waited for; put a time limit around it where that is not wanted. Cancel safe.
    ///
    /// ```no_run
    /// # use iroh_live::MoqSession;
    /// # use std::time::Duration;
    /// # async fn example(session: MoqSession) -> Result<(), Box<dyn std::error::Error>> {
    /// let subscribing = session.subscribe("stream");
    /// let broadcast = tokio::time::timeout(Duration::from_secs(5), subscribing).await??;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe(&self, name: &str) -> Result<RemoteBroadcast, SubscribeError> {
        let broadcast = self.find(name).await?;
        self.keep();
        Ok(broadcast)
    }

    /// The same, and is no reason to keep the session.
    pub(crate) async fn find(&self, name: &str) -> Result<RemoteBroadcast, SubscribeError> {
        let finding = async {
            let broadcast = self.inner.remote.routed_broadcast(name).await?;
            if !self.offered().iter().any(|offered| offered == name) {
                // The peer offers a whole branch of names, as a relay does, and promises nothing of this one.
                let catalog = broadcast.track(Catalog::DEFAULT_NAME)?;
                catalog
                    .subscribe(<Catalog>::default_subscription())
                    .await
                    .map(drop)?;
            }
            Ok(broadcast)
        };
        let found = tokio::select! {
            found = finding => found,
            error = self.inner.session.closed() => Err(error),
        };
        found
            .map(|broadcast| {
                RemoteBroadcast::new(name.to_owned(), broadcast)
                    .with_peer_rate(self.inner.session.recv_bandwidth())
            })
            .map_err(|error| SubscribeError::new(name, error))
    }

    /// Waits until the peer offers a name that `wanted` says so of, whatever is behind it. Cancel safe.
    pub(crate) async fn offers(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut announced = self.inner.remote.announced();
        while let Some(update) = announced.next().await {
            let name = update.prefix.to_string();
            if update.kind.is_active() && wanted(&name) {
                return name;
            }
        }
        // The session has ended, and with it the chance.
        std::future::pending().await
    }

    /// The names of the broadcasts that the peer has offered so far.
    pub fn offered(&self) -> Vec<String> {
        let mut announced = self.inner.remote.announced();
        std::iter::from_fn(|| announced.try_next())
            .filter(|update| update.kind.is_active())
            .map(|update| update.prefix.to_string())
            .collect()
    }

    /// Ends the session at once. The peer is told `code`, one of [`close_code`] or an own one above 64, and `reason`.
    pub fn close(&self, code: u32, reason: &str) {
        self.end(DisconnectReason::LocalClose, code, reason);
    }

    /// Ends a session that is lost, or that another one is used instead of.
    pub(super) fn lose(&self, reason: &str) {
        debug!(peer = %self.remote_id().fmt_short(), reason, "session given up");
        self.end(
            DisconnectReason::TransportError,
            close_code::SUPERSEDED,
            reason,
        );
    }

    fn end(&self, why: DisconnectReason, code: u32, reason: &str) {
        let connection = &self.inner.connection;
        if connection.close_reason().is_none() {
            // The first to end it says why.
            let _ = self.inner.reason.set(why);
            connection.close(code.into(), reason.as_bytes());
        }
    }

    /// Ends the session when what was written is delivered.
    pub(super) async fn drain(&self) {
        if self.is_alive() {
            let _ = self.inner.reason.set(DisconnectReason::LocalClose);
        }
        if let Err(error) = self.inner.session.clone().close().await {
            debug!(%error, "not drained");
        }
    }

    /// Waits until the session has ended, and says why. Cancel safe.
    pub async fn closed(&self) -> ConnectionError {
        self.inner.connection.closed().await
    }

    /// Waits until the session has ended, and says who ended it. Cancel safe.
    pub async fn disconnected(&self) -> DisconnectReason {
        match self.closed().await {
            // Where this side has not meant to, its QUIC or MoQ found something wrong with what the peer sent.
            ConnectionError::LocallyClosed => self
                .inner
                .reason
                .get()
                .copied()
                .unwrap_or(DisconnectReason::TransportError),
            error => DisconnectReason::from(&error),
        }
    }

    /// The session has ended: lets go of what depends on it.
    pub(super) fn finish(&self) {
        self.inner.ended.cancel();
    }

    /// Whether both are handles on one session.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// A reason to keep the session when a call on it ends.
    pub(crate) fn hold(&self) -> SessionUse {
        self.keep();
        SessionUse(self.clone())
    }

    /// The same for good, where nobody will say when it is over.
    pub(crate) fn keep(&self) {
        self.inner.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is any reason to keep the session when a call on it ends.
    pub(crate) fn is_held(&self) -> bool {
        self.inner.uses.load(Ordering::Relaxed) > 0
    }

    /// Begins a call on this session, unless there is one. To be ended with [`end_call`](Self::end_call).
    pub(crate) fn begin_call(&self) -> bool {
        !self.inner.in_call.swap(true, Ordering::AcqRel)
    }

    /// Waits until the call before is taken back on both sides, so that neither takes the next one for the same. Cancel
    /// safe.
    pub(crate) async fn last_call_gone(&self) {
        let (offer, remote) = lock(&self.inner.last_call).clone();
        if let Some(offer) = offer {
            offer.gone.cancelled().await;
        }
        if let Some(remote) = remote {
            // Not all peers take it back.
            let _ = tokio::time::timeout(CALL_LINGER, remote.closed()).await;
        }
    }

    pub(crate) fn is_in_call(&self) -> bool {
        self.inner.in_call.load(Ordering::Acquire)
    }

    pub(crate) fn end_call(&self, name: &str, remote: Option<RemoteBroadcast>) {
        *lock(&self.inner.last_call) = (self.withdraw(name), remote);
        self.inner.in_call.store(false, Ordering::Release);
    }
}

/// Whether MoQ can announce a broadcast under this name.
pub(super) fn valid_name(name: &str) -> Result<(), PublishError> {
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
