//! A broadcast of a peer, with the session that carries it.

use tokio::sync::watch;

use crate::{
    broadcast::RemoteBroadcast,
    signals::{NetStats, NetworkSignals},
    transport::{BroadcastError, ConnectError, MoqSession},
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
    Broadcast(#[from] BroadcastError),
}

/// A broadcast of a peer, with the session that carries it.
///
/// Signals and statistics are taken until the session ends. A session that this side dialled ends a moment after the last
/// of what needs it is dropped: subscriptions, broadcasts and what reads from them, calls, and handles on the session.
///
/// ```no_run
/// # async fn example(live: iroh_live::Live, remote_addr: iroh_live::iroh::EndpointAddr)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let sub = live.subscribe(remote_addr, "stream").await?;
/// // Access components
/// sub.session(); // &MoqSession
/// sub.broadcast(); // &RemoteBroadcast
/// sub.signals(); // &watch::Receiver<NetworkSignals>
/// // Decompose
/// let (session, broadcast, signals) = sub.into_parts();
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Subscription {
    session: MoqSession,
    broadcast: RemoteBroadcast,
    signals: watch::Receiver<NetworkSignals>,
    stats: NetStats,
}

impl Subscription {
    pub(crate) fn new(session: MoqSession, broadcast: RemoteBroadcast) -> Self {
        Self {
            signals: session.signals(),
            stats: session.stats(),
            session,
            broadcast,
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

    /// Takes it apart. The session and the broadcast each keep what they need; the signals keep nothing.
    pub fn into_parts(self) -> (MoqSession, RemoteBroadcast, watch::Receiver<NetworkSignals>) {
        (self.session, self.broadcast, self.signals)
    }
}
