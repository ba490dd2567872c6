//! How a peer is reached.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use iroh::{
    TransportAddr,
    endpoint::{Connection, PathEventStream, WeakConnectionHandle},
};

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
    /// Whether `other` says something of the same path, at another time.
    pub(crate) fn is_same_path(&self, other: &Self) -> bool {
        self.kind == other.kind && self.address == other.address
    }

    pub(crate) fn of(connection: &Connection) -> Self {
        let paths = connection.paths();
        let Some(path) = paths.iter().find(|path| path.is_selected()) else {
            return Self::default();
        };
        let stats = path.stats();
        let PathChange { kind, address } = PathChange::to(path.remote_addr());
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

/// Another path is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathChange {
    /// Direct or relayed.
    pub kind: PathKind,
    /// The peer's address on it, or the relay's URL.
    pub address: String,
}

impl PathChange {
    fn to(address: &TransportAddr) -> Self {
        let (kind, address) = match address {
            TransportAddr::Relay(url) => (PathKind::Relayed, url.to_string()),
            TransportAddr::Ip(address) => (PathKind::Direct, address.to_string()),
            other => (PathKind::Direct, format!("{other:?}")),
        };
        Self { kind, address }
    }
}

/// The paths that a session takes, one after the other; see [`MoqSession::path_changes`](super::MoqSession::path_changes). A
/// [`Stream`] too.
pub struct PathChanges {
    /// What carries the session, one after the other.
    connections: BoxStream<'static, Connection>,
    /// The latest of these.
    watched: Option<Watched>,
    last: Option<PathChange>,
}

/// A connection that is not kept open.
struct Watched {
    connection: WeakConnectionHandle,
    events: PathEventStream,
}

impl std::fmt::Debug for PathChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PathChanges")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl PathChanges {
    /// Those of each connection until the next one comes.
    pub(super) fn over(connections: impl Stream<Item = Connection> + Send + 'static) -> Self {
        Self {
            // Its end may be asked for again.
            connections: connections.fuse().boxed(),
            watched: None,
            last: None,
        }
    }

    /// The path in use at first, then each other one that comes to be used; `None` when the session has ended.
    ///
    /// Whoever asks seldom sees the latest change, not each. Cancel safe.
    pub async fn next(&mut self) -> Option<PathChange> {
        StreamExt::next(self).await
    }
}

impl Stream for PathChanges {
    type Item = PathChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PathChange>> {
        loop {
            match self.connections.poll_next_unpin(cx) {
                Poll::Ready(Some(connection)) => {
                    self.watched = Some(Watched {
                        // Before the path in use is looked at, so that no change is missed.
                        events: connection.path_events(),
                        connection: connection.weak_handle(),
                    });
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.watched.is_none() => return Poll::Pending,
                Poll::Pending => {}
            }
            let selected = self.watched.as_ref().and_then(|watched| {
                let connection = watched.connection.upgrade()?;
                let paths = connection.paths();
                let selected = paths.iter().find(|path| path.is_selected())?;
                Some(PathChange::to(selected.remote_addr()))
            });
            if selected.is_some() && selected != self.last {
                self.last.clone_from(&selected);
                return Poll::Ready(selected);
            }
            let Some(watched) = &mut self.watched else {
                continue;
            };
            if ready!(watched.events.poll_next_unpin(cx)).is_none() {
                self.watched = None;
            }
        }
    }
}
