//! The transport: iroh connections as MoQ sessions, one with each peer.

mod moq;
mod path;
mod policy;
mod quic;

use std::time::Duration;

use iroh::endpoint::QuicTransportConfig;
pub use moq::{ConnectError, Moq, MoqSession, PublishError, SubscribeError, close_code};
pub use path::{PathInfo, PathKind};
pub use policy::{Ask, Policy};

/// The ALPNs that are offered and accepted, newest first.
pub fn alpns() -> impl Iterator<Item = &'static [u8]> {
    moq_lite::ALPNS.iter().map(|alpn| alpn.as_bytes())
}

/// MoQ opens a stream for each group; audio has one a packet, and every track of every broadcast counts.
const MAX_STREAMS: u32 = 10_000;

/// How long a peer may be silent before it counts as gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// QUIC settings for live media. An endpoint that is made elsewhere should be given these.
pub fn quic_config() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(MAX_STREAMS.into())
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .build()
}
