//! A broadcast of a peer, with the session that carries it.

use crate::{
    broadcast::RemoteBroadcast,
    transport::{self, ConnectError, MoqSession},
};

/// A subscription could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// No session with the peer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No such broadcast, or no access to it.
    #[error(transparent)]
    Subscribe(#[from] transport::SubscribeError),
}

/// A broadcast of a peer, with the session that carries it.
#[derive(Debug, Clone)]
pub struct Subscription {
    session: MoqSession,
    broadcast: RemoteBroadcast,
}

impl Subscription {
    pub(crate) fn new(session: MoqSession, broadcast: RemoteBroadcast) -> Self {
        Self { session, broadcast }
    }

    /// The session with the publisher.
    pub fn session(&self) -> &MoqSession {
        &self.session
    }

    /// The broadcast.
    pub fn broadcast(&self) -> &RemoteBroadcast {
        &self.broadcast
    }
}
