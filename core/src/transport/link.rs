//! What carries a session: an iroh connection. A session may have several, one after the other or side by side.

use std::{
    ops::Add,
    sync::{Arc, OnceLock},
    time::Duration,
};

use iroh::{
    EndpointId,
    endpoint::{Connection, ConnectionError, WeakConnectionHandle},
};

use noq_proto::TransportErrorCode;

use super::{
    close::{CloseCode, Disconnect},
    limits::Limit,
    path::PathInfo,
};

/// What carries a session. Cheap to clone; it is open for as long as somebody has a clone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    connection: Connection,
    /// The limit that the peer was closed for.
    exceeded: Arc<OnceLock<Limit>>,
}

/// A link that is not kept open.
#[derive(Debug, Clone)]
pub(crate) struct WeakLink(WeakConnectionHandle, Arc<OnceLock<Limit>>);

/// What has gone over a link so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    /// Bytes received, on all paths.
    pub(crate) received_bytes: u64,
    /// Bytes sent, on all paths.
    pub(crate) sent_bytes: u64,
    /// Packets received, on all paths.
    pub(crate) received_packets: u64,
    /// Acknowledgements received, on all paths.
    pub(crate) acknowledgements: u64,
    /// Frames of streams sent.
    pub(crate) stream_frames: u64,
    /// Frames sent that ask the peer for an answer, those of streams too.
    pub(crate) questions: u64,
}

/// Bytes that have gone over a session, with all that QUIC adds and sends again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TrafficBytes {
    /// From the peer.
    pub received: u64,
    /// To the peer.
    pub sent: u64,
}

impl TrafficBytes {
    /// What has come in addition since it was `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
        }
    }
}

impl Add for TrafficBytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            sent: self.sent + other.sent,
        }
    }
}

impl Traffic {
    /// The bytes of it.
    pub(crate) fn bytes(&self) -> TrafficBytes {
        TrafficBytes {
            received: self.received_bytes,
            sent: self.sent_bytes,
        }
    }
}

impl WeakLink {
    /// The link, if somebody keeps it open.
    pub(crate) fn upgrade(&self) -> Option<Link> {
        let connection = self.0.upgrade()?;
        let exceeded = self.1.clone();
        Some(Link {
            connection,
            exceeded,
        })
    }
}

impl From<Connection> for Link {
    fn from(connection: Connection) -> Self {
        Self::new(connection, Arc::default())
    }
}

impl Link {
    /// `exceeded` is where it is said which limit the peer was closed for.
    pub(super) fn new(connection: Connection, exceeded: Arc<OnceLock<Limit>>) -> Self {
        Self {
            connection,
            exceeded,
        }
    }

    /// The peer, who has proven who it is.
    pub(crate) fn remote_id(&self) -> EndpointId {
        self.connection.remote_id()
    }

    /// The QUIC connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A number that no other link of this process has as long as this one is there.
    pub(crate) fn id(&self) -> usize {
        self.connection.stable_id()
    }

    pub(crate) fn weak(&self) -> WeakLink {
        WeakLink(self.connection.weak_handle(), self.exceeded.clone())
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Ends it at once. The peer is told `code` and `reason`. Does nothing where it has ended already.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        if self.is_alive() {
            self.connection.close(code.into(), reason.as_bytes());
        }
    }

    /// Waits until it has ended. Cancel safe.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// How it has ended, if it has; `local` is what this side meant by it, if it has closed it.
    pub(super) fn ended(&self, local: Option<&Disconnect>) -> Option<Disconnect> {
        let error = self.connection.close_reason()?;
        let exceeded = self.exceeded.get();
        let exceeded =
            exceeded.map(|limit| Disconnect::local(CloseCode::LIMIT, &limit.to_string()));
        let local = exceeded.or(local.cloned());
        let local = local.filter(|_| match &error {
            ConnectionError::LocallyClosed => true,
            // What is below it was closed.
            ConnectionError::TransportError(error) => {
                error.code == TransportErrorCode::INTERNAL_ERROR
            }
            _ => false,
        });
        Some(local.unwrap_or_else(|| Disconnect::from(&error)))
    }

    /// How the peer is reached at the moment.
    pub(crate) fn path(&self) -> PathInfo {
        PathInfo::of(&self.connection)
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let stats = self.connection.stats();
        let (sent, received) = (&stats.frame_tx, &stats.frame_rx);
        Traffic {
            received_bytes: stats.udp_rx.bytes,
            sent_bytes: stats.udp_tx.bytes,
            received_packets: stats.udp_rx.datagrams,
            acknowledgements: received.acks + received.path_acks,
            stream_frames: sent.stream,
            // Whatever else asks for an answer goes together with one of these, or follows one that came.
            questions: sent.stream + sent.ping + sent.reset_stream + sent.path_challenge,
        }
    }

    /// How long the peer has to show that it is there.
    pub(super) fn patience(&self) -> Duration {
        (PATIENCE + self.path().rtt * 3).min(LONGEST_PATIENCE)
    }

    /// Whether the other end is still there.
    ///
    /// QUIC acknowledges whatever is received, so something is sent that no version of MoQ minds: a stream that is reset
    /// before anything was written to it, as a group that is cancelled early is.
    pub(super) async fn responds(&self) -> bool {
        let before = self.traffic().acknowledgements;
        let probing = async {
            if let Ok(mut stream) = self.connection.open_uni().await {
                // Fails only on a stream that is closed, and this one was just opened.
                let _ = stream.reset(0u32.into());
            }
            while self.traffic().acknowledgements == before {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            answered = tokio::time::timeout(self.patience(), probing) => answered.is_ok(),
            () = self.closed() => false,
        }
    }
}

/// How long a link has to show that it lives, beside three round trips.
const PATIENCE: Duration = Duration::from_millis(300);

/// And at most.
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);

/// How often to look for the answer.
const LOOK: Duration = Duration::from_millis(10);
