//! What can go wrong with sessions, and the codes that tell a peer why one ended.

use std::time::Duration;

use iroh::endpoint::ConnectionError;
use moq_lite::{SessionError, StreamError};
use noq_proto::TransportErrorCode;

/// Application close codes that tell a peer why a session ended.
///
/// Codes below 64 are those of the MoQ drafts, so that peers of other makes understand them.
pub mod close_code {
    /// The normal end.
    pub const DONE: u32 = 0;
    /// The peer may not connect; MoQ's own code for a lack of authorization.
    pub const REFUSED: u32 = 2;
    /// The peer may connect, but not now: who it calls is in another call.
    pub const BUSY: u32 = 0x101;
    /// Another connection between the same two peers is used instead of this one.
    pub const SUPERSEDED: u32 = 0x102;
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
    /// The peer took the connection and then said nothing.
    #[error("the peer took the connection, but did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
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
            _ => Self::Connecting(error),
        }
    }

    /// What the end of a connection means to whoever waits for an answer on it.
    pub(super) fn ended(error: ConnectionError) -> Self {
        let reason = close_reason(&error);
        match close_code_of(&error) {
            Some(close_code::REFUSED) => Self::Refused { reason },
            Some(close_code::BUSY) => Self::Busy { reason },
            _ => Self::Closed(error),
        }
    }
}

/// The application code that the peer closed a connection with.
pub(crate) fn close_code_of(error: &ConnectionError) -> Option<u32> {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            u32::try_from(close.error_code.into_inner()).ok()
        }
        _ => None,
    }
}

/// What the peer said when it closed a connection.
pub(crate) fn close_reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        _ => String::new(),
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
pub enum SubscribeError {
    /// The peer says that it has no broadcast of that name.
    #[error("the peer has no broadcast named {0:?}")]
    NotFound(String),
    /// The peer does not let us watch it.
    #[error("the peer refused access to the broadcast {0:?}")]
    Refused(String),
    /// The session ended.
    #[error("the session ended: {0}")]
    Session(#[source] moq_lite::Error),
}

impl SubscribeError {
    pub(super) fn new(name: &str, error: moq_lite::Error) -> Self {
        use moq_lite::Error;
        match error {
            Error::NotFound | Error::Stream(StreamError::NotFound) => {
                Self::NotFound(name.to_owned())
            }
            Error::Unauthorized | Error::Session(SessionError::Unauthorized) => {
                Self::Refused(name.to_owned())
            }
            error => Self::Session(error),
        }
    }
}

/// Why a session or a call ended.
///
/// Derived from the close reason of the QUIC connection, and from what this side did.
///
/// ```
/// # mod shown {
/// pub enum DisconnectReason {
///     LocalClose,
///     RemoteClose,
///     TransportError,
/// }
/// # }
/// # use iroh_live::DisconnectReason;
/// # fn same(reason: DisconnectReason) -> shown::DisconnectReason {
/// #     match reason {
/// #         DisconnectReason::LocalClose => shown::DisconnectReason::LocalClose,
/// #         DisconnectReason::RemoteClose => shown::DisconnectReason::RemoteClose,
/// #         DisconnectReason::TransportError => shown::DisconnectReason::TransportError,
/// #     }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// This side closed it.
    LocalClose,
    /// The peer closed it.
    RemoteClose,
    /// The connection was lost, or replaced by a new one after it was. A peer that vanishes without a word is given up
    /// within fifteen seconds.
    TransportError,
}

impl From<&ConnectionError> for DisconnectReason {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::LocalClose,
            ConnectionError::ApplicationClosed(_)
                if close_code_of(error) != Some(close_code::SUPERSEDED) =>
            {
                Self::RemoteClose
            }
            _ => Self::TransportError,
        }
    }
}
