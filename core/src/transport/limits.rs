//! What a peer can make this side keep, and what happens to a peer that wants more.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use iroh::endpoint::Connection;
use moq_lite::StreamError;
use tracing::warn;

use super::{
    close::CloseCode,
    quota::Bucket,
    sync::{lock, now},
};
use crate::broadcast::CatalogLimits;

/// What a peer can make this side keep. Settings of [`LiveBuilder::limits`](crate::LiveBuilder::limits),
/// [`Moq::with_limits`](super::Moq::with_limits) and [`EndpointConfig::limits`](crate::endpoint::EndpointConfig::limits).
///
/// Who goes over one of them is told with [`CloseCode::LIMIT`](super::CloseCode::LIMIT) and a sentence, closed, logged and
/// [counted](super::Moq::limits_exceeded). What QUIC limits cannot be exceeded: the peer waits, and knows.
///
/// ```
/// # use iroh_live::transport::Limits;
/// let mut limits = Limits::default();
/// // A machine that serves many: each peer that is connected costs about 200 kB.
/// limits.connections = 2000;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections that peers have begun, in all; 128. When there are so many, one more takes the place of the oldest whose
    /// peer watches nothing and is in no call, and is refused where there is none, unless a session that there is goes over
    /// to it. More than a few a second are then refused before they have said who they are.
    pub connections: usize,
    /// Those of them that are one peer's; 16. More than one come of several processes with one key, and of connections that
    /// were lost and have not timed out.
    pub connections_per_peer: usize,
    /// Connections whose handshake is under way; 128. From the half of it on an address has to show that it is the sender's
    /// own, from then on they are refused; one address gets no more than half.
    pub handshakes: usize,
    /// How long a peer may wait for its admission; 10 minutes, in which a person may decide. How many may is a constant, 64.
    pub admission: Duration,
    /// Names that a peer announces; 512. Each costs about 3.5 kB.
    pub announces: usize,
    /// Requests that have to be refused, as for names that are not there: so many at once, 256, and afterwards so many in
    /// a minute.
    pub refused_requests: u32,
    /// Bytes of a connection that were received and not read yet, on all streams; 16 MiB. QUIC's. It bounds what can be
    /// received in a round trip.
    pub receive_window: u32,
    /// Requests of a peer that are under way: each is a stream in both directions; 256. QUIC's.
    pub request_streams: u32,
    /// Groups of a peer that are under way: each is a stream to this side, and of sound each packet is one; 1024. QUIC's.
    pub group_streams: u32,
    /// Bytes of a message of MoQ, which is not a frame; 128 KiB.
    pub message_bytes: usize,
    /// Bytes of a frame; 8 MiB.
    pub frame_bytes: usize,
    /// Bytes of all groups of a peer that are under way; 40 MiB. A group is what comes between two key frames. MoQ itself
    /// takes groups of 32 MiB, which is a second of 268 Mbit/s, and of no more than 8192 frames; the next one may begin while
    /// the end of one is still on its way.
    pub group_bytes: usize,
    /// Catalogs.
    pub catalog: CatalogLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            connections_per_peer: 16,
            handshakes: 128,
            admission: Duration::from_secs(600),
            announces: 512,
            refused_requests: 256,
            receive_window: 16 << 20,
            request_streams: 256,
            group_streams: 1024,
            message_bytes: 128 << 10,
            frame_bytes: 8 << 20,
            group_bytes: 40 << 20,
            catalog: CatalogLimits::default(),
        }
    }
}

/// A limit that a peer went over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::connections`].
    Connections,
    /// [`Limits::connections_per_peer`].
    ConnectionsPerPeer,
    /// [`Limits::handshakes`].
    Handshakes,
    /// [`Limits::admission`].
    Admission,
    /// [`Limits::announces`].
    Announces,
    /// [`Limits::refused_requests`].
    RefusedRequests,
    /// [`Limits::message_bytes`].
    MessageBytes,
    /// [`Limits::frame_bytes`].
    FrameBytes,
    /// [`Limits::group_bytes`].
    GroupBytes,
    /// [`Limits::catalog`].
    Catalog,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connections => "too many peers are connected",
            Self::ConnectionsPerPeer => "too many connections of one peer",
            Self::Handshakes => "too many connections begin at once",
            Self::Admission => "nobody has decided about the connection",
            Self::Announces => "too many broadcasts are announced",
            Self::RefusedRequests => "too many requests for what is not there",
            Self::MessageBytes => "a message is too long",
            Self::FrameBytes => "a frame is too large",
            Self::GroupBytes => "groups are too large: more key frames are needed",
            Self::Catalog => "a catalog is too large",
        })
    }
}

/// How often each limit was gone over.
#[derive(Debug, Default)]
pub(super) struct LimitCounts(Mutex<BTreeMap<Limit, u64>>);

impl LimitCounts {
    pub(super) fn add(&self, limit: Limit) -> u64 {
        let mut counts = lock(&self.0);
        let count = counts.entry(limit).or_default();
        *count += 1;
        *count
    }

    pub(super) fn all(&self) -> BTreeMap<Limit, u64> {
        lock(&self.0).clone()
    }
}

/// Holds one connection to the limits.
pub(crate) struct LimitGuard {
    connection: Connection,
    pub(super) limits: Arc<Limits>,
    counts: Arc<LimitCounts>,
    refused: Mutex<Bucket>,
    exceeded: Arc<OnceLock<Limit>>,
    /// Bytes of control messages that were read in this turn.
    turn: AtomicUsize,
    /// Bytes of groups that are under way.
    groups: AtomicUsize,
}

impl LimitGuard {
    pub(super) fn new(
        connection: Connection,
        limits: Arc<Limits>,
        counts: Arc<LimitCounts>,
    ) -> Arc<Self> {
        let refused = Bucket::new(limits.refused_requests, Duration::from_secs(60));
        Arc::new(Self {
            connection,
            limits,
            counts,
            refused: Mutex::new(refused),
            exceeded: Arc::default(),
            turn: AtomicUsize::new(0),
            groups: AtomicUsize::new(0),
        })
    }

    /// The peer has gone over a limit: it is told, and closed.
    pub(crate) fn exceed(&self, limit: Limit) {
        if self.connection.close_reason().is_some() || self.exceeded.set(limit).is_err() {
            return;
        }
        let sentence = limit.to_string();
        self.connection
            .close(CloseCode::LIMIT.into(), sentence.as_bytes());
        let count = self.counts.add(limit);
        let peer = self.connection.remote_id();
        warn!(peer = %peer.fmt_short(), count, "closed: {sentence}");
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where it is said which limit the peer was closed for.
    pub(super) fn exceeded(&self) -> Arc<OnceLock<Limit>> {
        self.exceeded.clone()
    }

    /// A request of the peer was refused.
    pub(super) fn request_refused(&self) {
        self.request_refused_at(now());
    }

    fn request_refused_at(&self, now: Instant) {
        if !lock(&self.refused).take(now) {
            self.exceed(Limit::RefusedRequests);
        }
    }

    /// So many bytes have come of control messages, behind so many of an unfinished one. False where that is too many.
    pub(super) fn message(&self, waiting: usize, size: usize) -> bool {
        self.turn.fetch_add(size, Ordering::Relaxed);
        let whole = waiting.saturating_add(size);
        self.within(whole <= self.limits.message_bytes, Limit::MessageBytes)
    }

    /// So many bytes of a frame are still to come.
    pub(super) fn frame(&self, remaining: usize) -> bool {
        self.within(remaining <= self.limits.frame_bytes, Limit::FrameBytes)
    }

    /// So many more bytes have come of a group that is under way. False where that is too many.
    pub(super) fn group_grew(&self, size: usize) -> bool {
        let all = self.groups.fetch_add(size, Ordering::Relaxed) + size;
        self.within(all <= self.limits.group_bytes, Limit::GroupBytes)
    }

    /// A group of which so many bytes have come is under way no more.
    pub(super) fn group_over(&self, size: usize) {
        self.groups.fetch_sub(size, Ordering::Relaxed);
    }

    /// This side has stopped a group, with this code.
    pub(super) fn group_stopped(&self, code: u32) {
        match StreamError::from_code(code) {
            StreamError::FrameTooLarge => self.exceed(Limit::FrameBytes),
            StreamError::GroupTooLarge => self.exceed(Limit::GroupBytes),
            _ => {}
        }
    }

    fn within(&self, is: bool, limit: Limit) -> bool {
        if !is {
            self.exceed(limit);
        }
        is
    }

    /// Whether so many control messages were read that others should have their turn before more are.
    pub(super) fn end_turn(&self) -> bool {
        /// About a thousand of the shortest announcements.
        const TURN: usize = 16 << 10;
        let over = self.turn.load(Ordering::Relaxed) >= TURN;
        if over {
            self.turn.store(0, Ordering::Relaxed);
        }
        over
    }
}
