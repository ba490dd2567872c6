//! Admission: looking at the sessions that peers begin before they are let in.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use iroh::{EndpointId, endpoint::Connection};
use tokio::sync::{mpsc, oneshot};

use super::{close::CloseCode, error::AcceptSessionError, path::PathInfo, session::MoqSession};

/// How many sessions may wait to be looked at; more are turned away.
pub(super) const MAX_WAITING: usize = 64;

/// The sessions that peers begin, to be let in or refused one by one; see [`Moq::admission`](super::Moq::admission). A
/// [`Stream`] too.
///
/// When this is dropped, those that still wait are refused, and so are later ones, until
/// [`admission`](super::Moq::admission) is called again or [`admit_everyone`](super::Moq::admit_everyone).
#[derive(Debug)]
pub struct IncomingSessions {
    pub(super) receiver: mpsc::Receiver<IncomingSession>,
}

impl IncomingSessions {
    /// The next session; `None` when the transport was shut down or [`admission`](super::Moq::admission) was called again.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<IncomingSession> {
        self.receiver.recv().await
    }
}

impl Stream for IncomingSessions {
    type Item = IncomingSession;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<IncomingSession>> {
        self.receiver.poll_recv(cx)
    }
}

/// A session that a peer has begun, and that is neither taken nor refused yet.
///
/// The peer has proven who it is and has been told nothing. It is refused when this is dropped.
#[derive(Debug)]
pub struct IncomingSession {
    connection: Connection,
    decision: oneshot::Sender<Decision>,
    outcome: oneshot::Receiver<Result<MoqSession, AcceptSessionError>>,
}

/// What the program says.
#[derive(Debug)]
pub(super) enum Decision {
    Accept,
    Reject { code: CloseCode, reason: String },
}

/// The side of the transport.
pub(super) struct PendingAdmission {
    decision: oneshot::Receiver<Decision>,
    outcome: oneshot::Sender<Result<MoqSession, AcceptSessionError>>,
}

impl PendingAdmission {
    pub(super) fn new(connection: Connection) -> (Self, IncomingSession) {
        let (decision, decided) = oneshot::channel();
        let (outcome, result) = oneshot::channel();
        let pending = Self {
            decision: decided,
            outcome,
        };
        let session = IncomingSession {
            connection,
            decision,
            outcome: result,
        };
        (pending, session)
    }

    /// Waits for the program. Cancel safe.
    pub(super) async fn decision(&mut self) -> Decision {
        (&mut self.decision).await.unwrap_or(Decision::Reject {
            code: CloseCode::REFUSED,
            reason: "not taken".into(),
        })
    }

    pub(super) fn resolve(self, outcome: Result<MoqSession, AcceptSessionError>) {
        // The program need not wait for it.
        let _ = self.outcome.send(outcome);
    }
}

impl IncomingSession {
    /// Who it is.
    pub fn remote_id(&self) -> EndpointId {
        self.connection.remote_id()
    }

    /// How the peer is reached at the moment.
    pub fn path(&self) -> PathInfo {
        PathInfo::of(&self.connection)
    }

    /// Waits until the peer has left, so that nobody need be asked about it any longer. Cancel safe.
    pub async fn gone(&self) {
        self.connection.closed().await;
    }

    /// Lets the peer in: it sees what is published, as far as the [`Policy`](super::Policy) allows.
    ///
    /// Not cancel safe: the peer is in when the future was polled once.
    ///
    /// # Errors
    /// See [`AcceptSessionError`].
    pub async fn accept(self) -> Result<MoqSession, AcceptSessionError> {
        // Fails where the transport has decided already; it tells so below.
        let _ = self.decision.send(Decision::Accept);
        let connection = self.connection;
        match self.outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(connection
                .close_reason()
                .map_or(AcceptSessionError::Shutdown, AcceptSessionError::Gone)),
        }
    }

    /// Sends the peer away; it is told `code` and `reason`.
    ///
    /// Of [`CloseCode::REFUSED`] and [`CloseCode::BUSY`] a dialer makes errors of their own. Does nothing where this
    /// side dialled the peer meanwhile, and so has taken the session already.
    pub fn reject(self, code: CloseCode, reason: &str) {
        let reason = reason.to_owned();
        // Fails where the peer has left.
        let _ = self.decision.send(Decision::Reject { code, reason });
    }
}
