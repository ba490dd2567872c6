//! What can go wrong with a subscription, and what of it another attempt may mend.

use std::{sync::Arc, time::Duration};

use super::loss::LossReason;
use crate::{
    broadcast::{CatalogError, StopReason},
    transport::{BroadcastError, CloseCode, ConnectError, Disconnect, DisconnectReason},
};

/// A subscription could not be made, or not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// No session with the peer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No such broadcast, or no access to it.
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
    /// The broadcast is there and cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The broadcast was not there for as long as the subscription was to wait.
    #[error("gave up after {} ms: {}", after.as_millis(), reason.cause())]
    GaveUp {
        /// For how long it was not there.
        after: Duration,
        /// Why it was not there.
        reason: LossReason,
    },
}

impl SubscribeError {
    /// What the publisher gave as its reason.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        match self {
            Self::Catalog(CatalogError::Stopped(reason)) => Some(*reason),
            _ => None,
        }
    }
}

/// What follows from a failure.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// Another attempt may mend it.
    Again(LossReason),
    /// The publisher does not let this side watch.
    Refused(Arc<SubscribeError>),
    /// Nothing to be done about it.
    Failed(Arc<SubscribeError>),
}

impl From<ConnectError> for Verdict {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused { .. } => Self::Refused(Arc::new(error.into())),
            ConnectError::Shutdown => Self::Failed(Arc::new(error.into())),
            ConnectError::WrongIdentity(_) => Self::Again(LossReason::WrongIdentity),
            ConnectError::Busy { reason } => Self::Again(LossReason::Busy(reason)),
            ConnectError::Full { reason } => Self::Again(LossReason::Full(reason)),
            ConnectError::NoAnswer(limit) => {
                let reason = format!("no answer within {} s", limit.as_secs());
                Self::Again(LossReason::Unreachable(reason))
            }
            ConnectError::Unreachable(error) => {
                Self::Again(LossReason::Unreachable(error.to_string()))
            }
            ConnectError::Connecting(error) => {
                Self::Again(LossReason::Unreachable(error.to_string()))
            }
            error => Self::Again(LossReason::Failed(error.to_string())),
        }
    }
}

impl From<BroadcastError> for Verdict {
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::NotAllowed(_) => Self::Refused(Arc::new(error.into())),
            BroadcastError::NotFound(_) => Self::Again(LossReason::NotPublished),
            BroadcastError::Session(end) => Self::from(&end),
            error => Self::Again(LossReason::Failed(error.to_string())),
        }
    }
}

impl From<&Disconnect> for Verdict {
    fn from(end: &Disconnect) -> Self {
        use DisconnectReason::{LocalClose, RemoteClose, TransportError};
        let message = || end.message.clone();
        Self::Again(match (end.reason, end.code) {
            (RemoteClose, Some(CloseCode::DONE)) => LossReason::Stopped,
            (RemoteClose, Some(CloseCode::REFUSED)) => {
                let reason = message();
                return Self::Refused(Arc::new(ConnectError::Refused { reason }.into()));
            }
            (RemoteClose, Some(CloseCode::BUSY)) => LossReason::Busy(message()),
            (RemoteClose, Some(CloseCode::LIMIT)) => LossReason::Full(message()),
            // It would go over the limit again.
            (LocalClose, Some(CloseCode::LIMIT)) => {
                let error = BroadcastError::Session(end.clone());
                return Self::Failed(Arc::new(error.into()));
            }
            (TransportError, _) => LossReason::ConnectionLost(message()),
            _ => LossReason::ConnectionLost(end.to_string()),
        })
    }
}

impl Verdict {
    /// The catalog broke off, and not with the session.
    pub(super) fn catalog(error: CatalogError) -> Self {
        match error {
            // The connection is there, and the publisher lets go of the broadcast without a word.
            CatalogError::Transport(_) | CatalogError::Stopped(StopReason::Interrupted) => {
                Self::Again(LossReason::Stopped)
            }
            CatalogError::Stopped(StopReason::Withdrawn) => Self::Again(LossReason::Withdrawn),
            error @ CatalogError::Stopped(StopReason::NotAllowed) => {
                Self::Refused(Arc::new(error.into()))
            }
            error => Self::Failed(Arc::new(error.into())),
        }
    }
}
