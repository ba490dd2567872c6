//! Live audio and video between two machines, peer to peer, with no server to run.
//!
//! The transport is [iroh]: QUIC with hole punching, so that two machines behind NATs find each other. On top of it
//! media goes as Media over QUIC, in the formats of the `hang` family, so that other players of that family read it.
//!
//! Begin with [`Live`]: [`publish`](Live::publish) a [`LocalBroadcast`] and hand out a [`LiveTicket`];
//! [`subscribe`](Live::subscribe) to a ticket and read a [`RemoteBroadcast`].
#![deny(missing_docs)]

pub mod adaptive;
pub mod broadcast;
pub mod call;
mod dns;
pub mod endpoint;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod live;
#[cfg(feature = "media")]
pub mod media;
pub mod retry;
pub mod signals;
mod subscription;
pub mod ticket;
pub mod transport;
pub mod util;

pub use adaptive::{AdaptiveConfig, AdaptiveReader, Quality};
pub use broadcast::{EncodedFrame, LocalBroadcast, RemoteBroadcast, TrackConfig};
pub use call::{CALL_BROADCAST_NAME, Call, CallError, IncomingCall, IncomingCalls};
pub use iroh;
pub use live::{FromEnvError, Live, LiveBuilder, TicketWatcher};
pub use moq_lite;
pub use signals::{NetStats, NetworkSignals};
pub use subscription::{
    LossReason, SubscribeError, Subscriber, SubscriberBuilder, SubscriberState, Subscription,
};
pub use ticket::{LiveTicket, ParseTicketError};
pub use transport::{
    CloseCode, Disconnect, DisconnectReason, IncomingSession, Moq, MoqSession, Policy,
};
pub use util::{secret_key_from_env, spawn_signal_producer, spawn_stats_recorder};
