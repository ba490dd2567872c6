//! A broadcast of a peer, with the session that carries it.

use tokio::sync::watch;

use crate::{
    broadcast::RemoteBroadcast,
    signals::{NetStats, NetworkSignals, spawn_signal_producer, spawn_stats_recorder},
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
///
/// Signals and statistics are taken until the session ends.
#[derive(Debug)]
pub struct Subscription {
    session: MoqSession,
    broadcast: RemoteBroadcast,
    signals: watch::Receiver<NetworkSignals>,
    stats: NetStats,
}

impl Subscription {
    pub(crate) fn new(session: MoqSession, broadcast: RemoteBroadcast) -> Self {
        let shutdown = session.ended();
        let stats = NetStats::new();
        spawn_stats_recorder(session.connection(), stats.clone(), shutdown.clone());
        Self {
            signals: spawn_signal_producer(session.connection(), shutdown),
            session,
            broadcast,
            stats,
        }
    }

    /// The session with the publisher.
    pub fn session(&self) -> &MoqSession {
        &self.session
    }

    /// The broadcast.
    pub fn broadcast(&self) -> &RemoteBroadcast {
        &self.broadcast
    }

    /// The state of the network, every 200 ms.
    pub fn signals(&self) -> &watch::Receiver<NetworkSignals> {
        &self.signals
    }

    /// Statistics, for a display.
    pub fn stats(&self) -> &NetStats {
        &self.stats
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (MoqSession, RemoteBroadcast, watch::Receiver<NetworkSignals>) {
        (self.session, self.broadcast, self.signals)
    }
}
