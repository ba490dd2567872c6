//! A call: two peers that publish to each other, and to nobody else.

use iroh::{EndpointAddr, endpoint::ConnectionError};
use tokio::sync::watch;

use crate::{
    Live, LocalBroadcast, RemoteBroadcast,
    signals::NetworkSignals,
    subscription::Subscription,
    transport::{self, ConnectError, MoqSession, PublishError, close_code},
};

/// The name of the broadcast of either side.
pub const CALL_BROADCAST_NAME: &str = "call";

/// A call could not be made or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer is away, or there is no way to it, or it refuses to be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer is there, but ended the session instead of taking the call.
    #[error("the call was not taken: {0}")]
    NotTaken(#[source] transport::SubscribeError),
    /// This side's media could not be offered.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Why a call or a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// This side closed it.
    LocalClose,
    /// The peer closed it.
    RemoteClose,
    /// The connection was lost.
    TransportError,
}

impl From<&ConnectionError> for DisconnectReason {
    fn from(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::LocalClose,
            ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
                Self::RemoteClose
            }
            _ => Self::TransportError,
        }
    }
}

/// A call with one peer. Ends when either side closes it, not when it is dropped.
#[derive(Debug)]
pub struct Call {
    local: LocalBroadcast,
    subscription: Subscription,
}

impl Call {
    /// Calls a peer, and waits until it has taken the call.
    ///
    /// A peer that does not take it is waited for; put a time limit around it. Cancel safe.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn dial(
        live: &Live,
        remote: impl Into<EndpointAddr>,
        local: LocalBroadcast,
    ) -> Result<Self, CallError> {
        let session = live.transport().connect(remote).await?;
        Self::join(session, local).await
    }

    /// Takes a call on a session that a peer began; see [`Moq::incoming`](crate::transport::Moq::incoming).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn accept(session: MoqSession, local: LocalBroadcast) -> Result<Self, CallError> {
        Self::join(session, local).await
    }

    async fn join(session: MoqSession, local: LocalBroadcast) -> Result<Self, CallError> {
        session.publish(CALL_BROADCAST_NAME, &local)?;
        let remote = session
            .subscribe(CALL_BROADCAST_NAME)
            .await
            .map_err(CallError::NotTaken)?;
        Ok(Self {
            local,
            subscription: Subscription::new(session, remote),
        })
    }

    /// This side's media.
    pub fn local(&self) -> &LocalBroadcast {
        &self.local
    }

    /// The peer's media.
    pub fn remote(&self) -> &RemoteBroadcast {
        self.subscription.broadcast()
    }

    /// The session that carries the call.
    pub fn session(&self) -> &MoqSession {
        self.subscription.session()
    }

    /// The state of the network, every 200 ms.
    pub fn signals(&self) -> watch::Receiver<NetworkSignals> {
        self.subscription.signals().clone()
    }

    /// Ends the call; the peer hears of it at once.
    pub fn close(&self) {
        self.session().close(close_code::DONE, "call ended");
    }

    /// Waits until the call has ended, and says why. Cancel safe.
    pub async fn closed(&self) -> DisconnectReason {
        DisconnectReason::from(&self.session().closed().await)
    }
}
