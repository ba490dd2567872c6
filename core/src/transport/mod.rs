//! The transport: iroh connections as MoQ sessions, one with each peer.

mod egress;
mod error;
mod incoming;
mod moq;
mod path;
mod peer;
mod policy;
mod quic;
mod session;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

#[cfg(feature = "media")]
pub(crate) use egress::subscriptions;
pub use error::{
    AcceptSessionError, ConnectError, DisconnectReason, PublishError, SubscribeError, close_code,
};
pub(crate) use error::{close_code_of, close_reason};
pub use incoming::{IncomingSession, IncomingSessions};
use iroh::endpoint::QuicTransportConfig;
pub use moq::Moq;
use noq_proto::congestion::Bbr3Config;
pub use path::{PathChange, PathChanges, PathInfo, PathKind};
pub use policy::{Ask, Policy};
pub use session::MoqSession;
pub(crate) use session::SessionUse;

/// The ALPNs that are offered and accepted, newest first.
pub fn alpns() -> impl Iterator<Item = &'static [u8]> {
    moq_lite::ALPNS.iter().map(|alpn| alpn.as_bytes())
}

/// MoQ opens a stream for each group; audio has one a packet, and every track of every broadcast counts.
const MAX_STREAMS: u32 = 10_000;

/// How long a peer may be silent before it counts as gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// QUIC settings for live media. An endpoint that is made elsewhere should be given these.
///
/// The congestion controller is BBR3, which follows what the path delivers. CUBIC, the default of QUIC libraries, takes
/// each lost packet for congestion and halts a stream on a path that merely loses: of 720p30 at 2.5 Mbit/s over 50 ms
/// and 2 % loss each way, it delivers a quarter of the frames, 1.2 s late; BBR3 delivers all, 56 ms late.
pub fn quic_config() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(MAX_STREAMS.into())
        .max_concurrent_uni_streams(MAX_STREAMS.into())
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .congestion_controller_factory(Arc::new(Bbr3Config::default()))
        .build()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
