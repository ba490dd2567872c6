//! The session with a peer, dialled where there is none.

use std::sync::Arc;

use iroh::EndpointAddr;
use tracing::Instrument;

use super::{
    beside,
    error::ConnectError,
    peer::Peer,
    reach::{CloseGuard, begin, limited, reach},
    registry::Registry,
    session::{MoqSession, session_span},
};

/// The session with a peer: the one that is there, or a new one. Cancel safe.
pub(super) async fn connect(
    registry: &Arc<Registry>,
    address: EndpointAddr,
) -> Result<MoqSession, ConnectError> {
    let address = limited(address);
    let peer = registry.peer(address.id);
    remember(&peer, &address);
    let span = session_span(address.id, false);
    let connecting = async {
        loop {
            tokio::select! {
                biased;
                // One that ends while it is handed out is not handed out.
                session = peer.session() => if let Some(session) = session.held() {
                    return Ok(session);
                },
                dialed = dial(registry, &peer, &address) => if let Some(session) = dialed? {
                    return Ok(session);
                },
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = registry.stopping.cancelled() => Err(ConnectError::Shutdown),
        session = connecting.instrument(span) => session,
    }
}

/// Takes note of where the peer is, for whoever dials it beside a session. Who asks for a session that there is already may
/// know less than who dialled it.
fn remember(peer: &Peer, address: &EndpointAddr) {
    let mut all = address.clone();
    if peer.is_connected() {
        all.addrs.extend(peer.address().addrs);
    }
    let few = limited(all.clone()) == all;
    peer.set_address(if few { all } else { address.clone() });
}

/// Dials, and waits until the peer has let this side in. None if another session came first, which is to be used instead.
async fn dial(
    registry: &Arc<Registry>,
    peer: &Arc<Peer>,
    address: &EndpointAddr,
) -> Result<Option<MoqSession>, ConnectError> {
    let dial = peer.dial().await;
    let connection = reach(&registry.endpoint, address).await?;
    let guard = CloseGuard::new(peer, &connection);
    dial.commit().await;
    let span = session_span(address.id, false);
    let origins = registry.origins(&span);
    let carrier = begin(registry, peer, &connection, &origins, &span).await?;
    guard.disarm();
    let session = registry.session(carrier, origins, None);
    // From here on, as the program is asked what the peer may watch, and may take its time.
    let held = session.held();
    if !dial.establish(&session) {
        session.abandon("another connection came first");
        return Ok(None);
    }
    if !registry.register(&session, peer) {
        return Err(ConnectError::Shutdown);
    }
    beside::stay(registry, peer, &session);
    // One that ends while it is handed out is not handed out.
    let held = held.filter(MoqSession::is_alive);
    held.map(Some).ok_or_else(|| {
        let reason = session.connection().close_reason();
        let reason = reason.filter(|_| !registry.is_offline());
        reason.map_or(ConnectError::Shutdown, ConnectError::ended)
    })
}
