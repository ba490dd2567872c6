//! The calls that peers make.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use iroh::EndpointId;

use super::{
    decline::{Decline, decline},
    error::CallError,
    handle::Call,
    line::CALL_BROADCAST_NAME,
};
use crate::{
    Live, LocalBroadcast, RemoteBroadcast,
    transport::{BroadcastError, Moq, MoqSession, NewSessions},
};

/// The calls that peers make; see [`Call::incoming`]. A [`Stream`] too.
pub struct IncomingCalls {
    calls: BoxStream<'static, IncomingCall>,
}

impl std::fmt::Debug for IncomingCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingCalls").finish_non_exhaustive()
    }
}

/// A peer that calls, and is neither answered nor turned away yet. It is declined when this is dropped.
#[derive(Debug)]
pub struct IncomingCall {
    session: MoqSession,
    remote: RemoteBroadcast,
    /// Neither taken nor declined yet.
    ringing: bool,
}

impl Call {
    /// The calls that peers make from now on, on sessions that begin and on those that are there already.
    ///
    /// ```no_run
    /// # use iroh_live::{Call, Live, LocalBroadcast, call::Decline};
    /// # async fn example(live: Live, local: LocalBroadcast) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut calls = Call::incoming(&live);
    /// let mut current: Option<Call> = None;
    /// while let Some(ringing) = calls.next().await {
    ///     if current.as_ref().is_some_and(|call| !call.has_ended()) {
    ///         ringing.decline(Decline::Busy, "in a call");
    ///     } else {
    ///         current = Some(ringing.accept(local.clone()).await?);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn incoming(live: &Live) -> IncomingCalls {
        IncomingCalls::new(live.transport())
    }
}

impl IncomingCalls {
    fn new(moq: &Moq) -> Self {
        let stopping = moq.stopping();
        let ringing = Ringing {
            sessions: moq.all_sessions(),
            waiting: FuturesUnordered::new(),
        };
        let calls = futures_util::stream::unfold(ringing, |mut ringing| async move {
            let call = ringing.next().await?;
            Some((call, ringing))
        });
        Self {
            calls: calls.take_until(stopping.cancelled_owned()).fuse().boxed(),
        }
    }

    /// The next call, each given once; `None` when the transport was shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<IncomingCall> {
        self.calls.next().await
    }
}

impl Stream for IncomingCalls {
    type Item = IncomingCall;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<IncomingCall>> {
        self.calls.poll_next_unpin(cx)
    }
}

/// All sessions, and what is waited for on each.
struct Ringing {
    sessions: NewSessions,
    waiting: FuturesUnordered<BoxFuture<'static, Option<IncomingCall>>>,
}

impl Ringing {
    async fn next(&mut self) -> Option<IncomingCall> {
        loop {
            let call = tokio::select! {
                session = self.sessions.next() => {
                    self.waiting.push(Box::pin(ring(session?, None)));
                    continue;
                }
                Some(call) = self.waiting.next() => call,
            };
            if let Some(call) = call {
                let (session, remote) = (call.session.clone(), call.remote.clone());
                self.waiting.push(Box::pin(ring(session, Some(remote))));
                if let Some(call) = call.held() {
                    return Some(call);
                }
            }
        }
    }
}

/// Waits for a call on a session, after `last`; `None` when the session has ended.
async fn ring(session: MoqSession, mut last: Option<RemoteBroadcast>) -> Option<IncomingCall> {
    loop {
        if let Some(last) = last.take() {
            last.closed().await;
        }
        let remote = match session.resolve(CALL_BROADCAST_NAME).await {
            Ok(remote) => remote,
            Err(BroadcastError::Session(_)) => return None,
            // It offers the branch and has no call there, or has hung up meanwhile. There may be one later.
            Err(_) => {
                let offered = session.wait_for_name(|name| name == CALL_BROADCAST_NAME);
                tokio::select! {
                    _ = offered => continue,
                    _ = session.disconnected() => return None,
                }
            }
        };
        if !session.is_alive() {
            // What was offered on it can still be found for a moment.
            return None;
        }
        if session.call().is_taken() || session.call().was_with(&remote) {
            // It is the answer to a call of this side.
            last = Some(remote);
        } else {
            return Some(IncomingCall {
                session,
                remote,
                ringing: false,
            });
        }
    }
}

impl IncomingCall {
    /// Who calls.
    pub fn remote_id(&self) -> EndpointId {
        self.session.remote_id()
    }

    /// The session that the call comes on.
    pub fn session(&self) -> &MoqSession {
        &self.session
    }

    /// The caller's media, for a look at who it is before it is answered.
    pub fn remote(&self) -> &RemoteBroadcast {
        &self.remote
    }

    /// Waits until the caller has hung up, so that it need not ring any longer. Cancel safe.
    pub async fn gave_up(&self) {
        self.remote.closed().await;
    }

    /// Takes the call. Cancel safe: dropping the future hangs up.
    ///
    /// # Errors
    /// [`CallError::Ended`] if the caller has hung up meanwhile; else see [`CallError`].
    pub async fn accept(mut self, local: LocalBroadcast) -> Result<Call, CallError> {
        self.ringing = false;
        Call::join(self.session.clone(), local, Some(self.remote.clone())).await
    }

    /// Turns the caller away, who hears of it at once.
    ///
    /// A session that carries nothing else is closed, and the caller is told `reason`. Must be called in a tokio runtime,
    /// as must dropping it.
    pub fn decline(mut self, how: Decline, reason: &str) {
        self.turn_away(how, reason);
    }

    fn turn_away(&mut self, how: Decline, reason: &str) {
        let hung_up = self.remote.is_closed();
        if !std::mem::replace(&mut self.ringing, false) || hung_up || self.session.call().is_taken()
        {
            return;
        }
        decline(&self.session, &self.remote, how, reason);
    }

    /// The same with handles that keep the session. `None` when it has ended.
    fn held(self) -> Option<Self> {
        let session = self.session.held()?;
        Some(Self {
            remote: session.keep(self.remote.clone()),
            session,
            ringing: true,
        })
    }
}

impl Drop for IncomingCall {
    fn drop(&mut self) {
        self.turn_away(Decline::Refuse, "not taken");
    }
}

#[cfg(test)]
mod tests {
    use moq_lite::{Client, Error, Hop, origin, time};

    use super::*;
    use crate::{
        endpoint::EndpointConfig,
        transport::{QuicSession, alpns},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_caller_that_has_offered_the_branch_before_rings() {
        let endpoint = EndpointConfig::local().bind().await.unwrap();
        let called = Live::builder(endpoint).with_router().spawn();
        let mut calls = Call::incoming(&called);
        let waiting = tokio::spawn(async move { calls.next().await });

        // A peer that offers all names, as a relay does, and has none of a call.
        let (origin, driver) = origin::Producer::new(origin::Config::new(Hop::random()));
        tokio::spawn(time::run(driver));
        let branch = origin.dynamic("", origin::Route::default()).unwrap();
        let endpoint = EndpointConfig::local().bind().await.unwrap();
        let alpn = alpns().next().unwrap();
        let connecting = endpoint.connect(called.endpoint().addr(), alpn);
        let quic = QuicSession::of(connecting.await.unwrap());
        let now = tokio::time::Instant::now().into_std();
        let client = Client::new().with_publisher(&origin);
        let (_session, driver) = client.connect(now, quic).await.unwrap();
        tokio::spawn(time::run(driver));
        let looked_for = branch.requested_broadcast().await.unwrap();
        assert_eq!(looked_for.path().as_str(), CALL_BROADCAST_NAME);
        looked_for.reject(Error::NotFound);
        // Until it has been heard that there is none.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;

        let _call = origin
            .publish(CALL_BROADCAST_NAME, origin::Route::default())
            .unwrap();
        let ringing = tokio::time::timeout(std::time::Duration::from_secs(30), waiting);
        let call = ringing.await.expect("it rings").unwrap().unwrap();
        assert_eq!(call.remote_id(), endpoint.id());
    }
}
