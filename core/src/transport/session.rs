//! A session with one peer.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use iroh::{EndpointId, endpoint::Connection};
use moq_lite::{Hop, origin};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, info_span};

use super::{
    call_slot::CallSlot,
    carriers::{Carrier, Carriers},
    close::{CloseCode, Disconnect, DisconnectReason},
    error::{BroadcastError, PublishError},
    grant::Publication,
    grants::{Grants, next_id},
    link::{Link, TrafficBytes},
    name::{normal_name, valid_name},
    origins::Origins,
    path::{PathChanges, PathInfo},
    remote_end::RemoteEnd,
    tasks::Tasks,
};
use crate::{
    broadcast::{CatalogGuard, LocalBroadcast, PeerRate, Readers, RemoteBroadcast, StopReason},
    lease::{Lease, Leases},
    signals::{Measured, NetStats, NetworkSignals, Sampled},
};

/// How often to look whether a peer that has begun a session is still the same.
const LOOK: Duration = Duration::from_secs(1);

/// A session with one peer. Cheap to clone.
///
/// It is apart from the connection that carries it. When nothing comes from the peer for two seconds, a side that
/// has dialled it, reads from it or has a call on it dials another connection beside the one that there is, which takes over
/// if it delivers first: the session goes on, and so does what is read from it and what the peer reads.
///
/// One that this side dialled ends a moment after the last of what needs it is gone: handles on it, what is read from it,
/// a call, and what the peer watches on it. The lists and streams that all sessions are in do not keep it. One that the
/// peer dialled is the peer's to end, unless the peer has lost it, as when it was started anew, and this side has dialled it since. Either side may [`close`](Self::close) it at any time.
#[derive(Clone)]
pub struct MoqSession {
    inner: Arc<Inner>,
    /// None on the handles that do not keep it.
    lease: Option<Lease>,
}

struct Inner {
    /// Sessions are numbered as they become known.
    number: AtomicU64,
    peer: EndpointId,
    carriers: Arc<Carriers>,
    /// What the peer may see.
    grants: Arc<Grants>,
    /// What the peer publishes.
    remote: origin::Consumer,
    /// What each link is given. They are kept, as an origin ends with its producers.
    origins: Origins,
    remote_end: RemoteEnd,
    incoming: bool,
    tasks: Tasks,
    ended: CancellationToken,
    /// What this side made of it when it ended the session.
    local_end: OnceLock<Disconnect>,
    /// Whether the endpoint was closed, and the session with it.
    offline: Box<dyn Fn() -> bool + Send + Sync>,
    leases: Arc<Leases>,
    call: CallSlot,
    /// What is read on it.
    readers: Readers,
    sampled: OnceLock<Sampled>,
    span: Span,
}

/// The span of all that is done for a session.
pub(super) fn session_span(peer: EndpointId, incoming: bool) -> Span {
    info_span!("session", peer = %peer.fmt_short(), incoming)
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
    /// A handle that does not keep the session. `remote_hop` is what the peer's end of it calls itself, if it has said so.
    pub(super) fn new(
        first: Carrier,
        origins: Origins,
        remote_hop: Option<Hop>,
        tasks: Tasks,
        ended: CancellationToken,
        offline: Box<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        let (peer, incoming) = (first.link.remote_id(), first.incoming);
        let span = session_span(peer, incoming);
        let leases = Arc::new(Leases::default());
        let grants = Grants::new(
            origins.local.clone(),
            leases.clone(),
            tasks.clone(),
            ended.clone(),
            span.clone(),
        );
        let carrier = first.clone();
        let inner = Inner {
            number: AtomicU64::new(0),
            peer,
            carriers: Carriers::new(first),
            grants: Arc::new(grants),
            remote: moq_lite::Consume::consume(&origins.remote),
            remote_end: RemoteEnd::new(&origins.remote, remote_hop),
            origins,
            incoming,
            tasks,
            ended,
            local_end: OnceLock::new(),
            offline,
            leases,
            call: CallSlot::default(),
            readers: Readers::default(),
            sampled: OnceLock::new(),
            span,
        };
        let session = Self {
            inner: Arc::new(inner),
            lease: None,
        };
        session.accompany(carrier);
        session
    }

    /// One more link carries the session. False where the session has ended.
    pub(super) fn join(&self, carrier: Carrier) -> bool {
        if !carrier.incoming {
            // The peer may have been started anew; it shows in what it announces.
            self.inner.remote_end.forget();
        }
        let joined = self.inner.carriers.add(carrier.clone());
        if joined {
            let _entered = self.inner.span.enter();
            debug!(path = ?carrier.link.path(), "one more connection");
            self.accompany(carrier);
        }
        joined
    }

    /// Stays with a link until it has ended.
    fn accompany(&self, carrier: Carrier) {
        carrier.leases.set(self.inner.leases.clone());
        let carriers = self.inner.carriers.clone();
        self.inner.tasks.spawn(async move {
            let leaving = async {
                let leaves = carrier.moq.draining().recv().await.is_some();
                // What this side sends on it goes over to another one, as what the peer sends does now.
                if leaves && carriers.all().len() > 1 {
                    carrier.drain();
                }
                std::future::pending().await
            };
            tokio::select! {
                () = carrier.link.closed() => {}
                () = leaving => {}
            }
            carriers.remove(&carrier.link);
        });
    }

    /// Does something for the session until it has ended.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.inner.ended.clone();
        let task = async move {
            tokio::select! {
                () = task => {}
                () = ended.cancelled() => {}
            }
        };
        self.inner
            .tasks
            .spawn(task.instrument(self.inner.span.clone()));
    }

    /// What each link of the session is given.
    pub(super) fn origins(&self) -> &Origins {
        &self.inner.origins
    }

    pub(super) fn carriers(&self) -> &Arc<Carriers> {
        &self.inner.carriers
    }

    /// The link that is used now.
    pub(super) fn link(&self) -> Link {
        self.inner.carriers.current().link
    }

    /// What the peer's end of the session calls itself on all links, if that is known: a number that no other session has.
    pub(crate) fn remote_hop(&self) -> Option<Hop> {
        self.inner.remote_end.hop()
    }

    /// Whether something is announced by another end of the peer than `before`: it was started anew.
    pub(crate) fn was_started_anew(&self, before: Option<Hop>) -> bool {
        self.inner.remote_end.was_started_anew(before)
    }

    /// Waits until this side is the one to end the session when nobody needs it: it has dialled it, or all connections that
    /// carry it where the peer, who began it, has lost it since, as when it was started anew. Cancel safe.
    pub(super) async fn ours_to_end(&self) {
        let carriers = &self.inner.carriers;
        while self.is_incoming() {
            carriers.dialed().await;
            // It shows in what the peer announces.
            tokio::time::sleep(LOOK).await;
            if !self.inner.remote_end.is_first() && carriers.dialed().now_or_never().is_some() {
                return;
            }
        }
    }

    /// Whether something is read from the peer, or there is a call with it.
    pub(super) fn is_read(&self) -> bool {
        self.inner.leases.is_read() || self.inner.call.is_taken()
    }

    /// The same with a handle that keeps it. `None` when it was let go of.
    pub(crate) fn held(&self) -> Option<Self> {
        let lease = self.inner.leases.hold()?;
        self.is_alive().then(|| Self {
            inner: self.inner.clone(),
            lease: Some(lease),
        })
    }

    /// The same with a handle that does not keep it.
    pub(crate) fn unheld(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            lease: None,
        }
    }

    /// The peer.
    pub fn remote_id(&self) -> EndpointId {
        self.inner.peer
    }

    /// The QUIC connection that carries the session at the moment. Another one may take over.
    pub fn connection(&self) -> Connection {
        self.link().connection().clone()
    }

    /// The version of MoQ that both sides speak.
    pub fn version(&self) -> moq_lite::Version {
        self.inner.carriers.current().moq.version()
    }

    /// Whether the peer began the session.
    pub fn is_incoming(&self) -> bool {
        self.inner.incoming
    }

    /// Whether the session has not ended yet.
    pub fn is_alive(&self) -> bool {
        self.inner.carriers.is_alive()
    }

    /// How the peer is reached at the moment.
    pub fn path(&self) -> PathInfo {
        self.link().path()
    }

    /// How much has gone over the session so far, over all connections that have carried it.
    pub fn traffic(&self) -> TrafficBytes {
        self.inner.carriers.traffic()
    }

    /// How the peer is reached, as it changes.
    pub fn path_changes(&self) -> PathChanges {
        let links = self.inner.carriers.links();
        PathChanges::over(links.map(|link| link.connection().clone()))
    }

    /// The state of the network, every 200 ms until the session ends. However many ask, it is measured once.
    pub fn signals(&self) -> watch::Receiver<NetworkSignals> {
        self.sampled().signals.clone()
    }

    /// Statistics, for a display; taken from the first call on, until the session ends.
    pub fn stats(&self) -> NetStats {
        self.sampled().stats.clone()
    }

    fn sampled(&self) -> &Sampled {
        let inner = &self.inner;
        inner.sampled.get_or_init(|| {
            let (carriers, readers) = (Arc::downgrade(&inner.carriers), inner.readers.clone());
            let look = move || {
                let carriers = carriers.upgrade()?;
                let current = carriers.current();
                let now = std::time::Instant::now();
                Some(Measured {
                    download_bandwidth: current.peer_rate(),
                    download_delay: readers.download_delay(now).unwrap_or_default(),
                    link: current.link,
                    traffic: carriers.traffic(),
                })
            };
            let (sampled, sampling) = Sampled::begin(look, inner.ended.clone());
            // Who asks first may be gone before the session is.
            if let Some(sampling) = sampling {
                inner.tasks.spawn(sampling);
            }
            sampled
        })
    }

    /// Offers a broadcast to this peer alone, for as long as the session and the broadcast last.
    ///
    /// Replaces what the peer was offered under the name before, also by [`Moq::publish`](super::Moq::publish). The
    /// [`Policy`](super::Policy) is not asked: this is the program's own word. The name `call` is that of calls.
    ///
    /// # Errors
    /// [`PublishError::Name`], [`PublishError::Reserved`], [`PublishError::Ended`].
    pub fn publish(
        &self,
        name: impl Into<String>,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        let name = valid_name(&name.into())?;
        self.announce(name, broadcast, true).map(drop)
    }

    /// The same under any name; with `counted`, a peer that watches it is a reason to keep the session. Gives a number to
    /// [take it back](Self::take_back) by.
    pub(crate) fn announce(
        &self,
        name: String,
        broadcast: &LocalBroadcast,
        counted: bool,
    ) -> Result<u64, PublishError> {
        if !self.is_alive() {
            return Err(PublishError::Ended);
        }
        let id = next_id();
        let publication = Publication {
            id,
            name,
            source: broadcast.consume(),
            audience: broadcast.audience().clone(),
            content: broadcast.content(),
            to_all: false,
            counted,
        };
        self.inner.grants.announce(&publication, || true);
        Ok(id)
    }

    /// Takes back what was announced with this number, and not what has its name by now.
    pub(crate) fn take_back(&self, name: &str, id: u64) {
        let grants = &self.inner.grants;
        grants.withdraw(name, StopReason::Withdrawn, |granted| granted.id == id);
    }

    /// Takes back what [`publish`](Self::publish) offered. If the peer watches it, that ends, and it is told why.
    pub fn unpublish(&self, name: &str) {
        let (grants, name) = (&self.inner.grants, normal_name(name));
        grants.withdraw(&name, StopReason::Withdrawn, |_| true);
    }

    pub(super) fn grants(&self) -> &Arc<Grants> {
        &self.inner.grants
    }

    /// Waits until the peer has asked for the broadcast that is published as `name`, as whoever watches it does.
    ///
    /// A peer that only connects never does. Does not end when the session does. Cancel safe.
    pub async fn requested(&self, name: &str) {
        self.inner.grants.requested(&normal_name(name)).await;
    }

    /// Waits until the peer offers a broadcast named `name`.
    ///
    /// A name that nobody publishes is waited for; put a time limit around it where that is not wanted. A session
    /// that this side has dialled is kept for as long as anything of the broadcast is; one that the peer has dialled ends
    /// when the peer needs it no more, which it does while a catalog or a track is read. Cancel safe.
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
    /// See [`BroadcastError`].
    pub async fn subscribe(&self, name: &str) -> Result<RemoteBroadcast, BroadcastError> {
        let lease = self.inner.leases.read();
        let broadcast = self.resolve(&normal_name(name)).await?;
        Ok(broadcast.with_lease(lease))
    }

    /// The same, and is no reason to keep the session when a call on it ends.
    pub(crate) async fn resolve(&self, name: &str) -> Result<RemoteBroadcast, BroadcastError> {
        let resolving = async {
            let broadcast = self.inner.remote.routed_broadcast(name).await?;
            if !self.announced().iter().any(|announced| announced == name) {
                // The peer offers a whole branch of names, as a relay does, and promises nothing of this one.
                let catalog = broadcast.track(hang::Catalog::DEFAULT_NAME)?;
                catalog
                    .subscribe(hang::Catalog::default_subscription())
                    .await
                    .map(drop)?;
            }
            Ok(broadcast)
        };
        let resolved = tokio::select! {
            resolved = resolving => resolved,
            end = self.disconnected() => return Err(BroadcastError::Session(end)),
        };
        match resolved {
            Ok(broadcast) => {
                let broadcast = RemoteBroadcast::new(name.to_owned(), broadcast)
                    .with_peer_rate(self.peer_rate())
                    .with_readers(self.inner.readers.clone())
                    .with_catalog_guard(self.catalog_guard());
                Ok(self.keep(broadcast))
            }
            Err(error) if self.is_alive() => Err(BroadcastError::new(name, error)),
            Err(_) => Err(BroadcastError::Session(self.disconnected().await)),
        }
    }

    /// What keeps the session as this handle does.
    pub(crate) fn keep(&self, broadcast: RemoteBroadcast) -> RemoteBroadcast {
        broadcast.with_lease(self.lease.clone())
    }

    /// What catalogs of the peer may be.
    pub(crate) fn catalog_guard(&self) -> CatalogGuard {
        self.inner.carriers.catalog_guard()
    }

    /// What the peer says that it can send, at the time of asking.
    fn peer_rate(&self) -> PeerRate {
        let carriers = Arc::downgrade(&self.inner.carriers);
        Arc::new(move || carriers.upgrade()?.current().peer_rate())
    }

    /// Waits until the peer announces a name that `wanted` says so of, whatever is behind it. Cancel safe.
    pub(crate) async fn wait_for_name(&self, wanted: impl Fn(&str) -> bool) -> String {
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

    /// The names of the broadcasts that the peer has announced so far.
    pub fn announced(&self) -> Vec<String> {
        let mut announced = self.inner.remote.announced();
        std::iter::from_fn(|| announced.try_next())
            .filter(|update| update.kind.is_active())
            .map(|update| update.prefix.to_string())
            .collect()
    }

    /// Ends the session at once. The peer is told `code` and `reason`.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.end(Disconnect::local(code, reason), code, reason);
    }

    /// Ends a session that is lost, or that another one is used instead of.
    pub(super) fn abandon(&self, reason: &str) {
        let _entered = self.inner.span.enter();
        debug!(reason, "session given up");
        self.end(Disconnect::lost(reason), CloseCode::SUPERSEDED, reason);
    }

    fn end(&self, end: Disconnect, code: CloseCode, reason: &str) {
        if self.is_alive() {
            // The first to end it says why.
            let _ = self.inner.local_end.set(end);
            self.inner.carriers.close(code, reason);
        }
    }

    /// Ends the session when what was written is delivered.
    pub(super) async fn drain(&self) {
        if self.is_alive() {
            let end = Disconnect::local(CloseCode::DONE, "shut down");
            let _ = self.inner.local_end.set(end);
        }
        let carriers = self.inner.carriers.all();
        let drained = carriers
            .into_iter()
            .map(|carrier| async move { carrier.moq.close().await });
        for result in futures_util::future::join_all(drained).await {
            if let Err(error) = result {
                debug!(%error, "not drained");
            }
        }
    }

    /// Waits until nobody has needed the session for as long as `grace`. From then on no handle keeps it. Cancel safe.
    pub(super) async fn released(&self, grace: Duration) {
        self.inner.leases.released(grace).await;
    }

    /// Waits until the session has ended, and says who ended it. Cancel safe.
    pub async fn closed(&self) -> DisconnectReason {
        self.disconnected().await.reason
    }

    /// Waits until the session has ended, and says all that is known of it. Cancel safe.
    pub async fn disconnected(&self) -> Disconnect {
        let last = self.inner.carriers.ended().await;
        // It has ended.
        last.ended(self.local_end().as_ref())
            .unwrap_or_else(|| Disconnect::lost(""))
    }

    fn local_end(&self) -> Option<Disconnect> {
        let offline = || Disconnect::local(CloseCode::DONE, "the endpoint was closed");
        let meant = self.inner.local_end.get().cloned();
        meant.or_else(|| (self.inner.offline)().then(offline))
    }

    /// All that is known of the end, if the session has ended.
    pub fn ended(&self) -> Option<Disconnect> {
        if self.is_alive() {
            return None;
        }
        self.link().ended(self.local_end().as_ref())
    }

    /// Whether the peer had dialled, and then needed the session no more. Who does need one dials.
    pub(crate) fn was_left_unused(&self) -> bool {
        let end = self.ended().filter(|_| self.is_incoming());
        end.is_some_and(|end| end.code == Some(CloseCode::UNUSED))
    }

    /// The session has ended: lets go of what depends on it.
    pub(super) fn finish(&self) {
        self.inner.ended.cancel();
        self.inner.grants.clear();
    }

    pub(super) fn number(&self) -> u64 {
        self.inner.number.load(Ordering::Relaxed)
    }

    pub(super) fn set_number(&self, number: u64) {
        self.inner.number.store(number, Ordering::Relaxed);
    }

    pub(super) fn span(&self) -> &Span {
        &self.inner.span
    }

    /// Whether both are handles on one session.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether the session carries anything beside a call, or may: the peer that dialled, and has once asked for a
    /// broadcast, may still need it, and can end it by itself.
    pub(crate) fn is_in_use(&self) -> bool {
        let may_be = self.is_incoming() && self.inner.grants.was_asked();
        may_be || self.inner.leases.is_in_use()
    }

    /// The place for a call.
    pub(crate) fn call(&self) -> &CallSlot {
        &self.inner.call
    }
}
