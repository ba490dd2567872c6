//! Letting peers in.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::{Connection, ConnectionError};
use moq_lite::{Server, server::Handshake};
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, warn};

use super::{
    admission::{Decision, PendingAdmission},
    beside,
    carriers::Carrier,
    close::CloseCode,
    error::AcceptSessionError,
    limiter::Place,
    limits::{Limit, LimitGuard},
    lock, now,
    peer::{Peer, Turn},
    quic::QuicSession,
    registry::Registry,
    session::{MoqSession, session_span},
};

/// A peer that has connected must speak MoQ within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the peer is told by a side that ends.
const SHUT_DOWN: &[u8] = b"shut down";

/// Lets a peer in that has connected, and stays with it.
pub(super) async fn accept(registry: &Arc<Registry>, connection: Connection) {
    if registry.stopping.is_cancelled() {
        connection.close(CloseCode::DONE.into(), SHUT_DOWN);
        return;
    }
    if !registry.may_connect(connection.remote_id()) {
        debug!("refused");
        connection.close(CloseCode::REFUSED.into(), b"not allowed");
        return;
    }
    let evict = |reason: &str| registry.evict(reason);
    let Some(mut place) = registry.limiter.enter(&connection, evict).await else {
        return;
    };
    let mut pending = None;
    let outcome = tokio::select! {
        outcome = enter(registry, &connection, &mut place, &mut pending) => outcome,
        error = connection.closed() => Err(AcceptSessionError::Gone(error)),
        () = registry.stopping.cancelled() => {
            connection.close(CloseCode::DONE.into(), SHUT_DOWN);
            Err(AcceptSessionError::Shutdown)
        }
    };
    if let Err(error) = &outcome {
        debug!(%error, "no session");
        // Where something is wrong with the peer; otherwise it is closed already, and the first word counts.
        connection.close(CloseCode::VIOLATION.into(), error.to_string().as_bytes());
    }
    if let Some(pending) = pending {
        pending.resolve(outcome);
    }
    connection.closed().await;
    drop(connection);
    place.leave().await;
}

/// Waits until the program lets the peer in, or this side wants a session with it.
async fn decided(
    registry: &Registry,
    peer: &Peer,
    guard: &LimitGuard,
    asked: &mut PendingAdmission,
) -> Result<(), AcceptSessionError> {
    let connection = guard.connection();
    let decision = tokio::select! {
        decision = asked.decision() => decision,
        () = tokio::time::sleep(registry.limiter.limits().admission) => {
            guard.exceed(Limit::Admission);
            return Err(AcceptSessionError::Gone(connection.closed().await));
        }
        () = peer.wanted() => Decision::Accept,
    };
    if let Decision::Reject { code, reason } = decision {
        connection.close(code.into(), reason.as_bytes());
        return Err(AcceptSessionError::Gone(connection.closed().await));
    }
    Ok(())
}

async fn enter(
    registry: &Arc<Registry>,
    connection: &Connection,
    place: &mut Place,
    pending: &mut Option<PendingAdmission>,
) -> Result<MoqSession, AcceptSessionError> {
    let number = registry.next_connection();
    let peer = registry.peer(connection.remote_id());
    let guard = registry.limiter.guard(connection.clone());
    let quic = QuicSession::new(guard.clone());
    let leases = quic.leases();
    let server = Server::new();
    let handshake = within(HANDSHAKE_TIMEOUT, server.accept_request(now(), quic)).await?;
    let hop = handshake.peer_hop();
    let mut paused = Paused {
        registry,
        connection,
        handshake: Some(handshake),
    };
    let mut asked = None;
    // A peer that goes on with a session was let in when that began.
    if peer.continued(hop).is_none() {
        let evict = |reason: &str| registry.evict(reason);
        if !place.hold_to_limit(connection, evict).await {
            return Err(AcceptSessionError::Gone(connection.closed().await));
        }
        asked = ask(registry, connection)?;
    }
    if let Some(asked) = asked {
        decided(registry, &peer, &guard, pending.insert(asked)).await?;
    }
    let turn = peer.turn(number, hop).await;
    let span = session_span(connection.remote_id(), true);
    let origins = match &turn {
        Turn::Join(session) => session.origins().clone(),
        _ => registry.origins(&span),
    };
    let handshake = paused
        .handshake
        .take()
        .ok_or(AcceptSessionError::Shutdown)?;
    let handshake = handshake
        .with_publisher(&origins.local)
        .with_subscriber(origins.remote.clone());
    let (moq, driver) = within(HANDSHAKE_TIMEOUT, handshake.ok()).await?;
    if let Some(gone) = connection.close_reason() {
        // The peer left while it was decided about; what was written to it has gone nowhere.
        return Err(AcceptSessionError::Gone(gone));
    }
    registry.drive_session(driver, &guard, &origins, &span);
    let carrier = Carrier::new(guard, leases, moq, true);
    if let Turn::Join(session) = turn {
        let link = carrier.link.clone();
        if !session.join(carrier) {
            link.close(CloseCode::SUPERSEDED, "the session has ended");
            return Err(AcceptSessionError::Gone(connection.closed().await));
        }
        beside::end_dead(&session, &link);
        return Ok(session);
    }
    let session = registry.session(carrier, origins, hop);
    if let Turn::Primary(claim) = turn {
        claim.establish(&session);
    }
    if !registry.register(&session, &peer) {
        return Err(AcceptSessionError::Shutdown);
    }
    beside::stay(registry, &peer, &session);
    Ok(session)
}

/// A handshake that the peer waits for. Where nothing comes of it, the peer is told why.
struct Paused<'a> {
    registry: &'a Registry,
    connection: &'a Connection,
    handshake: Option<Handshake<QuicSession>>,
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        let Some(handshake) = self.handshake.take() else {
            return;
        };
        // The first to close it says why.
        if self.registry.stopping.is_cancelled() {
            self.connection.close(CloseCode::DONE.into(), SHUT_DOWN);
        }
        handshake.close(moq_lite::Error::Cancel);
    }
}

/// Asks the program about a session, if it wants to be asked.
fn ask(
    registry: &Registry,
    connection: &Connection,
) -> Result<Option<PendingAdmission>, AcceptSessionError> {
    let Some(admission) = lock(&registry.admission).clone() else {
        return Ok(None);
    };
    let (pending, incoming) = PendingAdmission::new(connection.clone());
    match admission.try_send(incoming) {
        Ok(()) => Ok(Some(pending)),
        Err(mpsc::error::TrySendError::Closed(_)) => {
            warn!("refused: nobody looks at the sessions that begin any more");
            connection.close(CloseCode::REFUSED.into(), b"not taken");
            Err(AcceptSessionError::Gone(ConnectionError::LocallyClosed))
        }
        Err(mpsc::error::TrySendError::Full(_)) => {
            connection.close(CloseCode::BUSY.into(), b"too many are waiting");
            Err(AcceptSessionError::Gone(ConnectionError::LocallyClosed))
        }
    }
}

async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = Result<T, moq_lite::Error>>,
) -> Result<T, AcceptSessionError> {
    timeout(limit, handshake)
        .await
        .map_err(|_| moq_lite::Error::Timeout)
        .flatten()
        .map_err(AcceptSessionError::Handshake)
}
