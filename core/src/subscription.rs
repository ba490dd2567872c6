//! A broadcast of a peer, found and found again.

mod actor;
mod error;
mod find;
mod follow;
mod loss;
mod machine;
mod state;
mod subscriber;

pub use error::SubscribeError;
pub use loss::LossReason;
pub use state::SubscriberState;
pub use subscriber::{Subscriber, SubscriberBuilder};
use tokio::sync::watch;

use crate::{
    broadcast::RemoteBroadcast,
    signals::{NetStats, NetworkSignals},
    transport::MoqSession,
};

/// A broadcast of a peer, with the session that carries it.
///
/// It lasts: inside it is a [`Subscriber`], which finds the broadcast again when it was lost, so that what reads from it
/// goes on. A session that this side dialled ends a moment after the last of what needs it is dropped: subscriptions,
/// broadcasts and what reads from them, calls, and handles on the session.
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
    subscriber: Subscriber,
    signals: watch::Receiver<NetworkSignals>,
    stats: NetStats,
}

impl Subscription {
    /// One that goes on with what `builder` describes, which was found on this session.
    pub(crate) fn new(
        builder: SubscriberBuilder,
        session: MoqSession,
        broadcast: RemoteBroadcast,
    ) -> Self {
        let subscriber = builder.spawn_with(session.clone(), broadcast);
        Self {
            signals: subscriber.signals(),
            stats: subscriber.stats(),
            subscriber,
            session,
        }
    }

    /// The session with the publisher that the broadcast was first found on; the one that is used now is
    /// [`Subscriber::session`].
    pub fn session(&self) -> &MoqSession {
        &self.session
    }

    /// The broadcast.
    pub fn broadcast(&self) -> &RemoteBroadcast {
        self.subscriber.broadcast()
    }

    /// What finds the broadcast again when it was lost.
    pub fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// How it stands, as it changes.
    pub fn state(&self) -> watch::Receiver<SubscriberState> {
        self.subscriber.state()
    }

    /// The state of the network, of whichever session is used, and how old the last frame is.
    pub fn signals(&self) -> &watch::Receiver<NetworkSignals> {
        &self.signals
    }

    /// Statistics, for a display.
    pub fn stats(&self) -> &NetStats {
        &self.stats
    }

    /// Takes it apart. The session and the broadcast each keep what they need; the signals keep nothing.
    pub fn into_parts(self) -> (MoqSession, RemoteBroadcast, watch::Receiver<NetworkSignals>) {
        let broadcast = self.subscriber.broadcast().clone();
        (self.session, broadcast, self.signals)
    }
}
