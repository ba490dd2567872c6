//! The transport: iroh connections as MoQ sessions, one with each peer.

mod accept;
mod admission;
mod beside;
mod call_slot;
mod carriers;
mod close;
mod congestion;
mod connect;
mod error;
mod grant;
mod grants;
mod limiter;
mod limits;
mod link;
mod liveness;
mod moq;
mod name;
mod origins;
mod path;
mod peer;
mod policy;
mod quic;
mod quota;
mod reach;
mod registry;
mod remote_end;
mod session;
mod sync;
mod tasks;

use std::{sync::Arc, time::Duration};

pub use admission::{IncomingSession, IncomingSessions};
pub(crate) use call_slot::RESERVED_NAME;
pub use close::{CloseCode, Disconnect, DisconnectReason};
pub use error::{AcceptSessionError, BroadcastError, ConnectError, PublishError};
use iroh::endpoint::QuicTransportConfig;
pub use limits::{Limit, Limits};
pub(crate) use link::Link;
pub use link::TrafficBytes;
pub(crate) use moq::WeakMoq;
pub use moq::{Moq, NewSessions};
pub use path::{PathChange, PathChanges, PathInfo, PathKind};
pub use policy::{Authorizer, Policy};
#[cfg(test)]
pub(crate) use quic::QuicSession;
pub use session::MoqSession;
use sync::{lock, now};

/// The ALPNs that are offered and accepted, newest first.
pub fn alpns() -> impl Iterator<Item = &'static [u8]> {
    moq_lite::ALPNS.iter().map(|alpn| alpn.as_bytes())
}

/// How long a peer may be silent before it counts as gone.
///
/// A hand-over of a mobile phone takes up to ten seconds, and loses no session; a peer that is gone is given up within
/// fifteen. QUIC counts from the last packet that came, or from the first one after it that asks for an answer:
///
/// * A peer that vanishes is missed after this and [`PATH_KEEP_ALIVE`], 14.5 s: whoever has nothing to send asks for an
///   answer by then, which begins the count anew, once. That a path of several is idle counts the same way.
/// * A path that is dead for ten seconds has been counting for those and at most a round trip before them, as each side
///   had an answer to what it sent until then. Whatever else is lost, each side sends something every [`KEEP_ALIVE`], so
///   that a packet comes through a second and a way later: 11 s and two round trips, which may take 0.75 s each.
const IDLE_TIMEOUT: Duration = Duration::from_millis(12_500);

/// How long a connection may be silent before this side asks the peer for an answer.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The same of each path of a connection.
const PATH_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What a round trip is taken for before one was measured: a lost first packet is sent again after three of them. The
/// usual 333 ms are for the worst of paths, where sending twice for nothing does no harm.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// QUIC settings for live media. An endpoint that is made elsewhere should be given these.
///
/// The congestion controller is BBR3, which follows what the path delivers, corrected for streams that are slower than
/// their path. CUBIC, the default of QUIC libraries, takes each lost packet for congestion and halts a stream on a path
/// that merely loses. 720p30 at 2.5 Mbit/s with a key frame every two seconds, milliseconds from publisher to viewer and
/// the share of frames that did not come; medians of five runs each, in turns, on a busy machine:
///
/// | path, each way | CUBIC p50, p99 | missing | here p50, p99 | missing |
/// |---|---|---|---|---|
/// | 25 ms, 1 % lost | 363, 928 | 18 % | 36, 155 | 0 |
/// | 50 ms, 2 % lost | 1199, 2761 | 72 % | 77, 246 | 0 |
/// | 25 ms, 2 % lost in bursts of 5 | 60, 1146 | 30 % | 32, 150 | 0 |
/// | 20 ms, at most 4 Mbit/s | 41, 166 | 0 | 50, 279 | 0.2 % |
/// | 20 ms, at most 2 Mbit/s | 633, 916 | 24 % | 572, 996 | 28 % |
pub fn quic_config() -> QuicTransportConfig {
    quic_config_with(&Limits::default())
}

/// The same, with other limits than the usual ones.
pub fn quic_config_with(limits: &Limits) -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(limits.request_streams.into())
        .max_concurrent_uni_streams(limits.group_streams.into())
        .receive_window(limits.receive_window.into())
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(PATH_KEEP_ALIVE)
        .congestion_controller_factory(Arc::new(congestion::Config::default()))
        .build()
}
