//! The calls that peers make.

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use iroh::EndpointId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CALL_BROADCAST_NAME, Call, CallError};
use crate::{
    LocalBroadcast, RemoteBroadcast,
    transport::{Moq, MoqSession, close_code},
};

/// What says to a caller that the call is declined, on a session that is not closed for it, as it carries more: the
/// offer of a name that begins so. What follows is different each time.
const BUSY_NAME: &str = "call-busy/";
const REFUSED_NAME: &str = "call-refused/";

/// The calls that peers make; see [`Call::incoming`].
pub struct IncomingCalls {
    sessions: watch::Receiver<Vec<MoqSession>>,
    known: Vec<MoqSession>,
    ringing: FuturesUnordered<BoxFuture<'static, Option<IncomingCall>>>,
    stopping: CancellationToken,
}

impl std::fmt::Debug for IncomingCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingCalls").finish_non_exhaustive()
    }
}

/// A peer that calls, and is neither answered nor turned away yet. To drop it is to let it ring: it is
/// not given again.
#[derive(Debug)]
pub struct IncomingCall {
    session: MoqSession,
    remote: RemoteBroadcast,
}

/// How a call is declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// There is another call; the caller gets [`CallError::Busy`].
    Busy,
    /// The caller is not wanted, and gets [`CallError::Refused`].
    Refuse,
}

impl IncomingCalls {
    pub(super) fn new(moq: &Moq) -> Self {
        Self {
            sessions: moq.sessions(),
            known: Vec::new(),
            ringing: FuturesUnordered::new(),
            stopping: moq.stopping(),
        }
    }

    /// The next call, each given once; `None` when the transport was shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<IncomingCall> {
        loop {
            self.known.retain(MoqSession::is_alive);
            for session in &*self.sessions.borrow_and_update() {
                if !self.known.iter().any(|known| known.is_same(session)) {
                    self.known.push(session.clone());
                    self.ringing.push(Box::pin(ring(session.clone(), None)));
                }
            }
            let rung = tokio::select! {
                () = self.stopping.cancelled() => return None,
                changed = self.sessions.changed() => {
                    changed.ok()?;
                    continue;
                }
                Some(rung) = self.ringing.next() => rung,
            };
            if let Some(call) = rung {
                let (session, remote) = (call.session.clone(), call.remote.clone());
                self.ringing.push(Box::pin(ring(session, Some(remote))));
                return Some(call);
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
        let remote = session.find(CALL_BROADCAST_NAME).await.ok()?;
        if !session.is_alive() {
            // What was offered on it can still be found for a moment.
            return None;
        }
        if session.is_in_call() {
            // It is the answer to a call of this side.
            last = Some(remote);
        } else {
            return Some(IncomingCall { session, remote });
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
    /// See [`CallError`].
    pub async fn accept(self, local: LocalBroadcast) -> Result<Call, CallError> {
        Call::accept(self.session, local).await
    }

    /// Turns the caller away, who hears of it at once.
    ///
    /// A session that carries nothing else is closed, and the caller is told `reason`. Must be called in a tokio runtime.
    pub fn decline(self, how: Decline, reason: &str) {
        let Self { session, remote } = self;
        if session.is_in_call() {
            return;
        }
        let (code, name) = match how {
            Decline::Busy => (close_code::BUSY, BUSY_NAME),
            Decline::Refuse => (close_code::REFUSED, REFUSED_NAME),
        };
        if !session.is_held() {
            session.close(code, reason);
            return;
        }
        let name = format!("{name}{:016x}", rand::random::<u64>());
        let sign = LocalBroadcast::new();
        // Fails on a session that has ended, and then there is nobody to be told.
        if session.publish_counted(name, &sign, false).is_ok() {
            tokio::spawn(async move {
                remote.closed().await;
                drop(sign);
            });
        }
    }
}

/// Waits until the peer declines a call on a session that stays. What was offered `before` was not about this call.
pub(super) async fn declined(session: &MoqSession, before: &[String]) -> CallError {
    let sign = |name: &str| name.starts_with(BUSY_NAME) || name.starts_with(REFUSED_NAME);
    let name = session
        .offers(|name| sign(name) && !before.iter().any(|known| known == name))
        .await;
    let reason = String::new();
    if name.starts_with(BUSY_NAME) {
        CallError::Busy { reason }
    } else {
        CallError::Refused { reason }
    }
}
