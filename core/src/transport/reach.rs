//! Dialling: a connection to a peer, and MoQ on it.

use std::{sync::Arc, time::Duration};

use iroh::{
    Endpoint, EndpointAddr, TransportAddr,
    endpoint::{ConnectOptions, Connection, ConnectionError},
};
use moq_lite::Client;
use tokio::time::{Instant, timeout_at};
use tracing::{Span, debug};

use super::{
    alpns, carriers::Carrier, close::CloseCode, error::ConnectError, now, origins::Origins,
    peer::Peer, quic::QuicSession, registry::Registry,
};

/// How long a peer that does not answer is dialled.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one handshake may take: more than a round trip on the worst of paths. In this time QUIC leaves no gap longer
/// than 1.2 s between two attempts to get through; later ones are twice as long and more.
const REACH_AGAIN: Duration = Duration::from_secs(3);

/// How many addresses of a peer are dialled, and how many relays: a ticket may come from anybody, and must not make this
/// side send packets to half the world.
const MAX_ADDRESSES: usize = 32;
const MAX_RELAYS: usize = 4;

/// The same address with no more ways to the peer than are tried.
pub(super) fn limited(address: EndpointAddr) -> EndpointAddr {
    let mut relays = 0;
    let mut others = 0;
    let ways = address.addrs.into_iter().filter(|way| {
        let (count, most) = match way {
            TransportAddr::Relay(_) => (&mut relays, MAX_RELAYS),
            _ => (&mut others, MAX_ADDRESSES),
        };
        *count += 1;
        *count <= most
    });
    EndpointAddr::from_parts(address.id, ways.collect::<Vec<_>>())
}

/// Connects. Until there is an answer, it begins anew every now and then: QUIC tries less and less often, and would sleep
/// through the moment at which the peer can be reached again.
pub(super) async fn reach(
    endpoint: &Endpoint,
    address: &EndpointAddr,
) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + REACH_TIMEOUT;
    while Instant::now() < deadline {
        let mut alpns = alpns();
        let first = alpns.next().unwrap_or_default();
        let options =
            ConnectOptions::new().with_additional_alpns(alpns.map(<[u8]>::to_vec).collect());
        let connecting = endpoint.connect_with_opts(address.clone(), first, options);
        // It looks for addresses, which may take as long as it likes.
        let Ok(connecting) = timeout_at(deadline, connecting).await else {
            break;
        };
        let connecting = connecting.map_err(ConnectError::Unreachable)?;
        let again = deadline.min(Instant::now() + REACH_AGAIN);
        match timeout_at(again, connecting).await {
            Ok(connected) => return connected.map_err(ConnectError::connecting),
            Err(_) => debug!("no answer yet"),
        }
    }
    Err(ConnectError::NoAnswer(REACH_TIMEOUT))
}

/// Begins MoQ on a connection that this side has dialled, and waits until the peer has let this side in.
pub(super) async fn begin(
    registry: &Arc<Registry>,
    peer: &Peer,
    connection: &Connection,
    origins: &Origins,
    span: &Span,
) -> Result<Carrier, ConnectError> {
    let limits = registry.limiter.guard(connection.clone());
    let quic = QuicSession::new(limits.clone());
    let answered = quic.answered();
    let client = Client::new()
        .with_publisher(&origins.local)
        .with_subscriber(origins.remote.clone());
    let handshake = async {
        let (moq, driver) = client
            .connect(now(), quic)
            .await
            .map_err(ConnectError::Handshake)?;
        // Goes before the session does, which would tell the peer something else.
        let guard = CloseGuard::new(peer, connection);
        registry.drive_session(driver, &limits, origins, span);
        // Most versions of MoQ let the dialer begin before the peer has said anything. A person may have to decide there.
        answered.await;
        guard.disarm();
        Ok(moq)
    };
    let ended = |reason| match reason {
        ConnectionError::LocallyClosed | ConnectionError::TransportError(_)
            if registry.is_offline() =>
        {
            ConnectError::Shutdown
        }
        reason => ConnectError::ended(reason),
    };
    let moq = tokio::select! {
        answered = handshake => answered.map_err(|error| match connection.close_reason() {
            Some(reason) => ended(reason),
            None => error,
        })?,
        reason = connection.closed() => return Err(ended(reason)),
    };
    Ok(Carrier::new(limits, moq, false))
}

/// Closes a connection that was dialled, unless a session was made of it.
pub(super) struct CloseGuard<'a> {
    peer: &'a Peer,
    connection: Option<&'a Connection>,
}

impl<'a> CloseGuard<'a> {
    pub(super) fn new(peer: &'a Peer, connection: &'a Connection) -> Self {
        Self {
            peer,
            connection: Some(connection),
        }
    }

    pub(super) fn disarm(mut self) {
        self.connection = None;
    }
}

impl Drop for CloseGuard<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection else {
            return;
        };
        let (code, reason) = if self.peer.is_connected() {
            (CloseCode::SUPERSEDED, &b"another connection is in use"[..])
        } else {
            // The peer may have it as its session already, and need one: it then dials.
            (CloseCode::UNUSED, &b"given up"[..])
        };
        connection.close(code.into(), reason);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use iroh::SecretKey;

    use super::*;

    #[test]
    fn a_ticket_cannot_make_this_side_dial_half_the_world() {
        let ways = (0..1000_u16)
            .map(|port| TransportAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        let relays = (0..10).map(|number| {
            let url = format!("https://relay-{number}.example.org").parse();
            TransportAddr::Relay(url.expect("it is one"))
        });
        let id = SecretKey::generate().public();
        let address = EndpointAddr::from_parts(id, ways.chain(relays).collect::<Vec<_>>());
        let limited = limited(address);
        assert_eq!(limited.ip_addrs().count(), MAX_ADDRESSES);
        assert_eq!(limited.relay_urls().count(), MAX_RELAYS);
    }
}
