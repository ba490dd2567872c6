//! What a connection has carried, as MoQ asks for it.

use std::time::Duration;

use iroh::endpoint::Connection;
use moq_lite::web_transport_trait::Stats;

/// A snapshot for the session's own bandwidth bookkeeping; pairs are bytes and packets.
pub(super) struct QuicStats {
    sent: (u64, u64),
    received: (u64, u64),
    lost: (u64, u64),
    rtt: Option<Duration>,
    rate: Option<u64>,
}

impl QuicStats {
    pub(super) fn of(connection: &Connection) -> Self {
        let stats = connection.stats();
        let path = connection
            .paths()
            .iter()
            .find(|path| path.is_selected())
            .map(|path| path.stats());
        Self {
            sent: (stats.udp_tx.bytes, stats.sent_packets),
            received: (stats.udp_rx.bytes, stats.udp_rx.datagrams),
            lost: (stats.lost_bytes, stats.lost_packets),
            rtt: path.as_ref().map(|path| path.rtt),
            rate: path.and_then(|path| path.bandwidth_estimate),
        }
    }
}

impl Stats for QuicStats {
    fn bytes_sent(&self) -> Option<u64> {
        Some(self.sent.0)
    }
    fn packets_sent(&self) -> Option<u64> {
        Some(self.sent.1)
    }
    fn bytes_received(&self) -> Option<u64> {
        Some(self.received.0)
    }
    fn packets_received(&self) -> Option<u64> {
        Some(self.received.1)
    }
    fn bytes_lost(&self) -> Option<u64> {
        Some(self.lost.0)
    }
    fn packets_lost(&self) -> Option<u64> {
        Some(self.lost.1)
    }
    fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
    /// The congestion controller's own estimate; a window over a round trip is a limit, not a rate.
    fn estimated_send_rate(&self) -> Option<u64> {
        self.rate
    }
}
