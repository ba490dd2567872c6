//! Holds all connections of an endpoint to its limits.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh::{
    EndpointId,
    endpoint::{Connection, Incoming, IncomingAddr},
    protocol::IncomingFilterOutcome,
};
use moq_lite::origin;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};

use super::{
    IDLE_TIMEOUT,
    close::CloseCode,
    limits::{Limit, LimitCounts, LimitGuard, Limits},
    lock, now,
    quota::{Attempts, Bucket, Full, Places},
};

/// How many connections may wait at a time for the place of another that is closed for them, and how long.
const WAITING: usize = 8;
const FREED_TIMEOUT: Duration = Duration::from_secs(4);

/// How many may come at once when there is no place, and afterwards so many in a time. Each costs a handshake, and for a
/// minute what is known of how it was reached.
const LATECOMERS: u32 = 16;
const LATECOMERS_PERIOD: Duration = Duration::from_secs(8);

/// How long a connection that has ended still costs what it did: QUIC keeps it for three times its time-out.
const DRAINING: Duration = Duration::from_secs(1);

pub(super) struct Limiter {
    limits: Arc<Limits>,
    counts: Arc<LimitCounts>,
    handshakes: Mutex<Attempts<Source>>,
    places: Mutex<Places<EndpointId>>,
    /// Of those that come when there is no place, these are let in, to take one or to be told.
    latecomers: Mutex<Bucket>,
    /// A place was given back.
    freed: Notify,
    /// For those who wait for one.
    waiting: Semaphore,
}

/// Who begins a handshake, as far as is known by then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    Ip(IpAddr),
    Relayed(EndpointId),
    Other,
}

impl From<IncomingAddr> for Source {
    fn from(address: IncomingAddr) -> Self {
        match address {
            IncomingAddr::Ip(address) => Self::Ip(network(address.ip())),
            IncomingAddr::Relay { endpoint_id, .. } => Self::Relayed(endpoint_id),
            _ => Self::Other,
        }
    }
}

/// The address, without the part that whoever has an address of IPv6 can choose.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => address.into(),
            None => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        },
    }
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::new(limits),
            counts: Arc::default(),
            // A handshake that goes no further ends when nothing comes any more.
            handshakes: Mutex::new(Attempts::new(IDLE_TIMEOUT)),
            places: Mutex::default(),
            latecomers: Mutex::new(Bucket::new(LATECOMERS, LATECOMERS_PERIOD)),
            freed: Notify::new(),
            waiting: Semaphore::new(WAITING),
        })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn counts(&self) -> BTreeMap<Limit, u64> {
        self.counts.all()
    }

    /// Holds a connection to the limits, whoever has begun it.
    pub(super) fn guard(&self, connection: Connection) -> Arc<LimitGuard> {
        LimitGuard::new(connection, self.limits.clone(), self.counts.clone())
    }

    /// Whether a connection may begin.
    pub(super) fn filter(&self, incoming: &Incoming) -> IncomingFilterOutcome {
        let full = lock(&self.places).taken() >= self.limits.connections;
        if full && !lock(&self.latecomers).take(now()) {
            self.exceeded(Limit::Connections, None);
            return IncomingFilterOutcome::Reject;
        }
        let source = Source::from(incoming.remote_addr());
        let most = self.limits.handshakes;
        let mut handshakes = lock(&self.handshakes);
        let now = now();
        if handshakes.pending(now) >= most / 2 && !incoming.remote_addr_validated() {
            return IncomingFilterOutcome::Retry;
        }
        if handshakes
            .begin(source, most, most.div_ceil(2), now)
            .is_ok()
        {
            return IncomingFilterOutcome::Accept;
        }
        drop(handshakes);
        self.exceeded(Limit::Handshakes, None);
        IncomingFilterOutcome::Reject
    }

    /// A handshake is over, in one way or the other.
    pub(super) fn handshake_over(&self, address: IncomingAddr) {
        lock(&self.handshakes).end(&address.into());
    }

    /// A place for a connection that a peer has begun. `evict` closes one that nobody needs, if there is one. Where there
    /// is none, the connection is closed. A peer that has a place gets one beyond the limit, as its session may go over to
    /// this connection; where it does not, see [`Place::hold_to_limit`].
    pub(super) async fn enter(
        self: &Arc<Self>,
        connection: &Connection,
        evict: impl Fn(&str) -> bool,
    ) -> Option<Place> {
        let mut place = self.take(connection);
        if matches!(place, Err(Full::All)) {
            self.make_room(evict).await;
            place = self.take(connection);
        }
        let limit = match place {
            Ok(place) => return Some(place),
            Err(Full::All) => Limit::Connections,
            Err(Full::Own) => Limit::ConnectionsPerPeer,
        };
        self.refuse(limit, connection);
        None
    }

    fn take(self: &Arc<Self>, connection: &Connection) -> Result<Place, Full> {
        let peer = connection.remote_id();
        let (most, own) = (self.limits.connections, self.limits.connections_per_peer);
        let mut places = lock(&self.places);
        let mut taken = places.take(peer, most, own);
        let beyond = taken == Err(Full::All) && places.has(&peer);
        if beyond {
            taken = places.take(peer, most.saturating_mul(2).max(own), own);
        }
        taken.map(|()| Place {
            limiter: self.clone(),
            peer,
            beyond,
        })
    }

    /// Closes a connection that nobody needs, if there is one, and waits for its place.
    async fn make_room(&self, evict: impl Fn(&str) -> bool) {
        let freed = self.freed.notified();
        if let Ok(_waiting) = self.waiting.try_acquire()
            && evict(&Limit::Connections.to_string())
        {
            let _ = tokio::time::timeout(FREED_TIMEOUT, freed).await;
        }
    }

    fn refuse(&self, limit: Limit, connection: &Connection) {
        self.exceeded(limit, Some(connection.remote_id()));
        connection.close(CloseCode::LIMIT.into(), limit.to_string().as_bytes());
    }

    fn exceeded(&self, limit: Limit, peer: Option<EndpointId>) {
        let count = self.counts.add(limit);
        let peer = peer.map(|peer| peer.fmt_short().to_string());
        // Thousands may come.
        if count.is_power_of_two() {
            warn!(peer, count, "refused: {limit}");
        } else {
            debug!(peer, count, "refused: {limit}");
        }
    }
}

/// The place of a connection, until this is dropped, or [left](Self::leave).
pub(super) struct Place {
    limiter: Arc<Limiter>,
    peer: EndpointId,
    /// There was none within the limit.
    beyond: bool,
}

impl Place {
    /// The connection begins a session of its own, for which there has to be a place within the limit. False where there is
    /// none: the connection is closed. Cancel safe.
    pub(super) async fn hold_to_limit(
        &mut self,
        connection: &Connection,
        evict: impl Fn(&str) -> bool,
    ) -> bool {
        let limiter = &self.limiter;
        let fits = || lock(&limiter.places).taken() <= limiter.limits.connections;
        if self.beyond && !fits() {
            limiter.make_room(evict).await;
            if !fits() {
                limiter.refuse(Limit::Connections, connection);
                return false;
            }
        }
        self.beyond = false;
        true
    }

    /// The connection has ended. Returns when the place is free.
    pub(super) async fn leave(self) {
        tokio::time::sleep(DRAINING).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.limiter.places).give_back(&self.peer);
        self.limiter.freed.notify_one();
    }
}

/// Counts what a peer announces. Ends when it is too much, and the peer has been closed for it.
pub(super) async fn count_announces(remote: origin::Consumer, guard: &LimitGuard) {
    let mut announced = remote.with_hidden(true).announced();
    let mut names = HashSet::new();
    while let Some(update) = announced.next().await {
        if !update.kind.is_active() {
            names.remove(&update.prefix);
        } else if names.insert(update.prefix) && names.len() > guard.limits.announces {
            return guard.exceed(Limit::Announces);
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_network_of_ipv6_is_one() {
        let same = |a: &str, b: &str| {
            let of = |text: &str| network(text.parse().expect("an address"));
            of(a) == of(b)
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:1:2:3"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    }
}
