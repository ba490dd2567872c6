//! The sessions with all peers.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Accepting, Connection},
    protocol::{AcceptError, IncomingFilter, ProtocolHandler},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error};

use super::{
    accept,
    admission::{IncomingSessions, MAX_WAITING},
    close::CloseCode,
    connect,
    error::{ConnectError, PublishError},
    limits::{Limit, Limits},
    lock,
    policy::Policy,
    registry::Registry,
    session::{MoqSession, session_span},
};
use crate::broadcast::LocalBroadcast;

/// How long the end of a session waits for what was written to be delivered.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(800);

/// The transport: publishes broadcasts to every peer and keeps one session with each. Cheap to clone. When the last clone
/// is dropped, all sessions are closed at once; a router that it is mounted on has one.
#[derive(Clone)]
pub struct Moq {
    handle: Arc<Handle>,
}

/// What all clones share, and nothing else has.
struct Handle {
    registry: Arc<Registry>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.registry.close();
    }
}

impl std::fmt::Debug for Moq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moq")
            .field("endpoint", &self.endpoint().id())
            .finish_non_exhaustive()
    }
}

impl Moq {
    /// A transport on `endpoint`. Accepts nothing by itself: mount it on a router under [`alpns`](super::alpns), as it is a
    /// [`ProtocolHandler`].
    ///
    /// Must be called in a tokio runtime.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::with_policy(endpoint, Policy::default())
    }

    /// The same, with a say in who may connect and who may watch what.
    pub fn with_policy(endpoint: Endpoint, policy: Policy) -> Self {
        Self::with_limits(endpoint, policy, Limits::default())
    }

    /// The same, with other limits on what a peer can make this side keep. Of those that are QUIC's the endpoint has its
    /// own, see [`quic_config_with`](super::quic_config_with).
    pub fn with_limits(endpoint: Endpoint, policy: Policy, limits: Limits) -> Self {
        Self {
            handle: Arc::new(Handle {
                registry: Registry::new(endpoint, policy, limits),
            }),
        }
    }

    /// How often peers went over each of the [`Limits`], since this transport was made.
    pub fn limits_exceeded(&self) -> BTreeMap<Limit, u64> {
        self.registry().limiter.counts()
    }

    /// For the router that this is mounted on: limits connections that begin and go no further, also those of other
    /// protocols. [`LiveBuilder::with_router`](crate::LiveBuilder::with_router) does it by itself.
    pub fn incoming_filter(&self) -> IncomingFilter {
        let limiter = self.registry().limiter.clone();
        Arc::new(move |incoming| limiter.filter(incoming))
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.handle.registry
    }

    /// The endpoint below.
    pub fn endpoint(&self) -> &Endpoint {
        &self.registry().endpoint
    }

    /// Decides anew who may connect and who may watch what, as [`enforce_policy`](Self::enforce_policy) says.
    pub fn set_policy(&self, policy: Policy) {
        self.registry().set_policy(policy);
    }

    /// Asks the policy again about all sessions and broadcasts, as when what a [`Policy::Authorizer`] goes by has changed.
    ///
    /// The sessions of peers that may not connect any more end, unless this side has dialled them. What a peer watches and
    /// may not watch any more ends, and it is told why; what it may watch now it sees.
    pub fn enforce_policy(&self) {
        self.registry().enforce_policy();
    }

    /// Offers `broadcast` under `name` to every peer that is connected and to those that come later.
    ///
    /// Replaces what was published under the name before; the end of that does not take this one away, and who watches it
    /// goes on until its end. The name `call` is that of calls.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(
        &self,
        name: impl Into<String>,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        self.registry().publish(&name.into(), broadcast)
    }

    /// Takes back what was published under `name`.
    ///
    /// Viewers get what has ended by itself, as tracks that were finished. What has not ends for them a moment later, and
    /// they are told that it was [taken back](crate::broadcast::StopReason::Withdrawn).
    pub fn unpublish(&self, name: &str) {
        self.registry().unpublish(name);
    }

    /// The session with a peer: the one that is there, whichever side began it, or a new one.
    ///
    /// However many ask at once there is one session, and when both sides dial at the same time they end with the same
    /// one. A peer that was started anew, and dials before its old session here has timed out, replaces it at once; only
    /// where two processes share one key can there be two sessions with a peer, and the newer one is given.
    ///
    /// A peer that does not answer is given up after ten seconds. One that does may take its time until it lets this side
    /// in, as when a person decides there: that is waited for until the connection is lost; put a time limit around it
    /// where it is not wanted. Cancel safe: dropping the future of the one who dials leaves the work to the next.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, addr: impl Into<EndpointAddr>) -> Result<MoqSession, ConnectError> {
        self.connect_boxed(addr.into()).await
    }

    /// Boxed, so that the whole of MoQ is not compiled again into every crate that connects.
    fn connect_boxed(&self, addr: EndpointAddr) -> BoxFuture<'_, Result<MoqSession, ConnectError>> {
        Box::pin(connect::connect(self.registry(), addr))
    }

    /// Sessions that peers begin and that were let in, from now on until the transport is shut down.
    pub fn incoming(&self) -> NewSessions {
        let begun = NewSessions::of(self.sessions(), true);
        let incoming = begun.filter_incoming();
        NewSessions {
            sessions: incoming
                .take_until(self.stopping().cancelled_owned())
                .boxed(),
        }
    }

    /// From now on, asks about each session that a peer begins before the peer is told anything.
    ///
    /// Whom the [`Policy`] refuses is not asked about; neither is a peer that this side dials at the same moment, which
    /// is let in. Calling it again takes over from who called it before. When what this gives is dropped, as when the task
    /// that looks at them has failed, nobody is let in any more, until this or
    /// [`admit_everyone`](Self::admit_everyone) is called.
    ///
    /// ```no_run
    /// # use iroh_live::{Moq, transport::CloseCode};
    /// # async fn example(moq: Moq, is_friend: impl Fn(iroh_live::iroh::EndpointId) -> bool) {
    /// let mut incoming = moq.admission();
    /// while let Some(session) = incoming.next().await {
    ///     if is_friend(session.remote_id()) {
    ///         if let Ok(session) = session.accept().await {
    ///             println!("{} is here", session.remote_id());
    ///         }
    ///     } else {
    ///         session.reject(CloseCode::REFUSED, "friends only");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn admission(&self) -> IncomingSessions {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let registry = self.registry();
        let mut admission = lock(&registry.admission);
        // After a shutdown there is nobody to ask about.
        *admission = (!registry.stopping.is_cancelled()).then_some(sender);
        IncomingSessions { receiver }
    }

    /// Ends [`admission`](Self::admission): from now on whom the [`Policy`] allows comes in without a question. Those who wait
    /// to be looked at wait on.
    pub fn admit_everyone(&self) {
        lock(&self.registry().admission).take();
    }

    /// The sessions that are alive, as they change. To have one in the list does not keep it.
    pub fn sessions(&self) -> watch::Receiver<Vec<MoqSession>> {
        self.registry().sessions.subscribe()
    }

    /// All sessions, those that there are first and then those that begin, whichever side begins them.
    pub(crate) fn all_sessions(&self) -> NewSessions {
        NewSessions::of(self.sessions(), false)
    }

    /// Ends all sessions, giving them a moment to deliver what was written, and all publications. Nothing new begins.
    ///
    /// Safe to call again, and to be cancelled and called again.
    pub async fn shutdown(&self) {
        let registry = self.registry();
        let drained = registry.stop().into_iter().map(|session| async move {
            if timeout(DRAIN_TIMEOUT, session.drain()).await.is_err() {
                debug!(peer = %session.remote_id().fmt_short(), "not all was delivered");
            }
            session.close(CloseCode::DONE, "shut down");
        });
        futures_util::future::join_all(drained).await;
        registry.shutdown.cancel();
        registry.tasks.finish().await;
        registry.forget_policy();
    }

    /// A handle that does not keep the transport.
    pub(crate) fn downgrade(&self) -> WeakMoq {
        WeakMoq {
            registry: Arc::downgrade(self.registry()),
        }
    }

    /// Cancelled when a shutdown begins.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.registry().stopping.clone()
    }
}

/// The transport for what goes on by itself, and does not keep it.
#[derive(Debug, Clone)]
pub(crate) struct WeakMoq {
    registry: Weak<Registry>,
}

impl WeakMoq {
    /// See [`Moq::connect`]. Ends when the transport is shut down, or the last handle on it dropped.
    pub(crate) async fn connect(&self, addr: EndpointAddr) -> Result<MoqSession, ConnectError> {
        let registry = self.registry.upgrade().ok_or(ConnectError::Shutdown)?;
        connect::connect(&registry, addr).await
    }

    /// Whether it was shut down, or the last handle on it dropped: there will be no sessions any more.
    pub(crate) fn is_stopped(&self) -> bool {
        let registry = self.registry.upgrade();
        registry.is_none_or(|registry| registry.stopping.is_cancelled() || registry.is_offline())
    }
}

impl ProtocolHandler for Moq {
    async fn on_accepting(&self, accepting: Accepting) -> Result<Connection, AcceptError> {
        let limiter = self.registry().limiter.clone();
        let address = accepting.remote_addr();
        let accepted = accepting.await;
        limiter.handshake_over(address);
        Ok(accepted?)
    }

    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let span = session_span(connection.remote_id(), true);
        let accepting = accept::accept(self.registry(), connection).instrument(span);
        // A panic in here would end the router, and with it every session and what else is mounted there.
        if AssertUnwindSafe(accepting).catch_unwind().await.is_err() {
            error!("a session was lost to a panic");
        }
        Ok(())
    }

    async fn shutdown(&self) {
        Moq::shutdown(self).await;
    }
}

/// Sessions as they begin; see [`Moq::incoming`]. A [`Stream`] too.
///
/// However slowly it is read, none is left out that has not ended meanwhile.
pub struct NewSessions {
    sessions: BoxStream<'static, MoqSession>,
}

impl std::fmt::Debug for NewSessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSessions").finish_non_exhaustive()
    }
}

impl NewSessions {
    /// The next session; `None` when the transport was shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<MoqSession> {
        self.sessions.next().await
    }

    /// Those in the list, or those that are not in it yet if `new`.
    fn of(mut list: watch::Receiver<Vec<MoqSession>>, new: bool) -> Self {
        let last = |list: &mut watch::Receiver<Vec<MoqSession>>| {
            list.borrow_and_update()
                .last()
                .map_or(0, MoqSession::number)
        };
        let seen = if new { last(&mut list) } else { 0 };
        let sessions = futures_util::stream::unfold((list, seen), |(mut list, seen)| async move {
            loop {
                let next = {
                    let sessions = list.borrow_and_update();
                    let at = sessions.partition_point(|session| session.number() <= seen);
                    sessions.get(at).cloned()
                };
                if let Some(session) = next {
                    let seen = session.number();
                    return Some((session, (list, seen)));
                }
                list.changed().await.ok()?;
            }
        });
        Self {
            sessions: sessions.fuse().boxed(),
        }
    }

    /// Those that peers began, in handles that keep them.
    fn filter_incoming(self) -> BoxStream<'static, MoqSession> {
        let incoming = |session: MoqSession| async move {
            session.is_incoming().then(|| session.held()).flatten()
        };
        self.sessions.filter_map(incoming).boxed()
    }
}

impl Stream for NewSessions {
    type Item = MoqSession;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MoqSession>> {
        self.sessions.poll_next_unpin(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::endpoint::EndpointConfig;

    #[tokio::test]
    async fn after_a_shutdown_nothing_keeps_the_endpoint_and_its_port() {
        let endpoint = EndpointConfig::local().bind().await.unwrap();
        let moq = Moq::new(endpoint);
        let registry = moq.registry().clone();
        moq.shutdown().await;
        drop(moq);
        assert!(registry.tasks.finish().now_or_never().is_some());
    }
}
