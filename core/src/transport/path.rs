//! How a peer is reached.

use std::time::Duration;

use iroh::{TransportAddr, endpoint::Connection};

/// Whether packets go straight to the peer or through a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PathKind {
    /// No path is in use yet.
    #[default]
    None,
    /// Straight to the peer's address.
    Direct,
    /// Through a relay server, end-to-end encrypted.
    Relayed,
}

impl PathKind {
    /// `none`, `direct` or `relayed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

impl std::fmt::Display for PathKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The path that carries the media at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PathInfo {
    /// Direct or relayed.
    pub kind: PathKind,
    /// The peer's address on it, or the relay's URL.
    pub address: String,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// The congestion controller's estimate of what the path carries towards the peer, bits per second.
    pub rate: Option<u64>,
    /// Congestion window, bytes.
    pub cwnd: u64,
    /// Packets sent on it.
    pub sent_packets: u64,
    /// Packets that were lost on it.
    pub lost_packets: u64,
    /// Times that the congestion controller saw congestion on it.
    pub congestion_events: u64,
}

impl PathInfo {
    pub(crate) fn of(connection: &Connection) -> Self {
        let paths = connection.paths();
        let Some(path) = paths.iter().find(|path| path.is_selected()) else {
            return Self::default();
        };
        let stats = path.stats();
        let (kind, address) = match path.remote_addr() {
            TransportAddr::Relay(url) => (PathKind::Relayed, url.to_string()),
            TransportAddr::Ip(address) => (PathKind::Direct, address.to_string()),
            other => (PathKind::Direct, format!("{other:?}")),
        };
        Self {
            kind,
            address,
            rtt: stats.rtt,
            rate: stats.bandwidth_estimate,
            cwnd: stats.cwnd,
            sent_packets: stats.sent_packets,
            lost_packets: stats.lost_packets,
            congestion_events: stats.congestion_events,
        }
    }
}
