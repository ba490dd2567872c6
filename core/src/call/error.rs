//! What can go wrong with calls.

use crate::transport::{BroadcastError, ConnectError, PublishError};

/// A call could not be made or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer is away, or there is no way to it.
    #[error("the call cannot be put through: {0}")]
    Away(#[source] ConnectError),
    /// The peer does not take calls of this side.
    #[error("the call was refused{}", said(.reason))]
    Refused {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// The peer is in another call.
    #[error("the peer is busy{}: try again later", said(.reason))]
    Busy {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// There is a call with this peer already.
    #[error("there is a call with this peer already: end it first")]
    InCall,
    /// The peer hung up, or was lost, before the call began.
    #[error("the call ended before it began: {0}")]
    Ended(#[source] BroadcastError),
    /// This side's media could not be offered.
    #[error("this side's media cannot be offered: {0}")]
    Publish(#[from] PublishError),
}

fn said(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl From<ConnectError> for CallError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused { reason } => Self::Refused { reason },
            ConnectError::Busy { reason } => Self::Busy { reason },
            error => Self::Away(error),
        }
    }
}
