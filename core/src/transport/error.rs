//! What can go wrong with sessions.

use std::time::Duration;

use iroh::endpoint::ConnectionError;
use moq_lite::{SessionError, StreamError};
use noq_proto::TransportErrorCode;

use super::close::{CloseCode, Disconnect, close_code_of, close_reason};

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
    /// Calls use the name.
    #[error("the name {0:?} is what calls use; choose another one")]
    Reserved(String),
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
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
    /// Nobody answered in this time.
    #[error(
        "nobody answered within {} s: the peer is switched off, or there is no way to it from this network",
        .0.as_secs()
    )]
    NoAnswer(Duration),
    /// The connection could not be completed.
    #[error("the connection failed: {0}")]
    Connecting(#[source] iroh::endpoint::ConnectingError),
    /// Somebody else answers at the address: one whose key is not the one that the address names.
    #[error(
        "somebody else answers at that address: the ticket is mistyped, or the publisher has a new key and so a new ticket"
    )]
    WrongIdentity(#[source] iroh::endpoint::ConnectingError),
    /// The peer took the connection and speaks no version of MoQ that is known here.
    #[error("the peer does not speak MoQ as it should: {0}")]
    Handshake(#[source] moq_lite::Error),
    /// The peer does not let us connect.
    #[error("the peer refused the connection{}: ask it for access", because(.reason))]
    Refused {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// The peer is in another call.
    #[error("the peer is busy{}: try again later", because(.reason))]
    Busy {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// The peer takes no more connections for now, or no more of this side.
    #[error("the peer takes no more connections{}: try again later", because(.reason))]
    Full {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// The peer took the connection, and closed it instead of answering.
    #[error("the peer closed the connection instead of answering: {0}")]
    Closed(#[source] ConnectionError),
    /// The transport was shut down.
    #[error("the transport is shut down")]
    Shutdown,
}

fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

/// The alert of TLS for a certificate of another key than the one that was dialled: `unknown_ca`.
const UNKNOWN_CA: u8 = 48;

impl ConnectError {
    /// What the end of a handshake means.
    pub(super) fn connecting(error: iroh::endpoint::ConnectingError) -> Self {
        use iroh::endpoint::ConnectingError;
        match &error {
            ConnectingError::ConnectionError {
                source: ConnectionError::TransportError(cause),
                ..
            } if cause.code == TransportErrorCode::crypto(UNKNOWN_CA) => Self::WrongIdentity(error),
            ConnectingError::ConnectionError {
                source: ConnectionError::ConnectionClosed(close),
                ..
            } if close.error_code == TransportErrorCode::CONNECTION_REFUSED => Self::Full {
                reason: String::new(),
            },
            _ => Self::Connecting(error),
        }
    }

    /// What the end of a connection means to whoever waits for an answer on it.
    pub(super) fn ended(error: ConnectionError) -> Self {
        let reason = close_reason(&error);
        match close_code_of(&error) {
            Some(CloseCode::REFUSED) => Self::Refused { reason },
            Some(CloseCode::BUSY) => Self::Busy { reason },
            Some(CloseCode::LIMIT) => Self::Full { reason },
            // Nobody has the connection yet but MoQ, which closes it for what the peer sends.
            _ if matches!(error, ConnectionError::LocallyClosed) => {
                Self::Handshake(SessionError::ProtocolViolation.into())
            }
            _ => Self::Closed(error),
        }
    }
}

/// An incoming session was not taken, though this side wanted it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptSessionError {
    /// The peer left before it was let in.
    #[error("the peer left before it was let in: {0}")]
    Gone(#[source] ConnectionError),
    /// The peer does not speak MoQ as it should.
    #[error("the peer does not speak MoQ as it should: {0}")]
    Handshake(#[source] moq_lite::Error),
    /// The transport was shut down.
    #[error("the transport is shut down")]
    Shutdown,
}

/// A broadcast could not be had from a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The peer says that it has no broadcast of that name.
    #[error("the peer has no broadcast named {0:?}")]
    NotFound(String),
    /// The peer does not let us watch it.
    #[error("the peer refused access to the broadcast {0:?}")]
    NotAllowed(String),
    /// The session ended.
    #[error("{0}")]
    Session(Disconnect),
    /// Anything else.
    #[error("the broadcast cannot be had: {0}")]
    Failed(#[source] moq_lite::Error),
}

impl BroadcastError {
    pub(super) fn new(name: &str, error: moq_lite::Error) -> Self {
        use moq_lite::Error;
        match error {
            Error::NotFound | Error::Stream(StreamError::NotFound | StreamError::Unroutable) => {
                Self::NotFound(name.to_owned())
            }
            Error::Unauthorized | Error::Session(SessionError::Unauthorized) => {
                Self::NotAllowed(name.to_owned())
            }
            error => Self::Failed(error),
        }
    }
}
