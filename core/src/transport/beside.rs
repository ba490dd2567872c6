//! What stays with a session: dials another connection beside the one that it has when nothing comes from the peer, and
//! ends what is not needed of the two.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::sleep;
use tracing::{Instrument, debug};

use super::{
    carriers::Carrier,
    close::CloseCode,
    error::ConnectError,
    link::Link,
    liveness::{Action, IDLE_LOOK, LOOK, Liveness},
    now,
    peer::Peer,
    reach::{CloseGuard, begin, reach},
    registry::Registry,
    session::MoqSession,
};

/// How long two connections of a session stay side by side at least, and at most, so that all that is read goes over from one
/// to the other.
const OVERLAP: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// So many round trips are enough for that: what is there has to be announced on the new connection, asked for, and sent.
const OVERLAP_ROUNDS: u32 = 4;

/// How often to look meanwhile whether the peer was started anew.
const GLANCE: Duration = Duration::from_millis(20);

/// How long the others stay beside a connection with this round trip.
fn overlap(rtt: Duration) -> Duration {
    (rtt * OVERLAP_ROUNDS).clamp(OVERLAP.0, OVERLAP.1)
}

type Dialing = BoxFuture<'static, Result<Carrier, ConnectError>>;

/// Stays with a session that is in use until it has ended.
pub(super) fn stay(registry: &Arc<Registry>, peer: &Arc<Peer>, session: &MoqSession) {
    let session = session.unheld();
    let span = session.span().clone();
    let staying = watch(Arc::downgrade(registry), peer.clone(), session);
    registry.tasks.spawn(staying.instrument(span));
}

async fn watch(registry: Weak<Registry>, peer: Arc<Peer>, session: MoqSession) {
    let mut liveness = Liveness::new(now(), received(&session));
    let mut dialing: Option<Dialing> = None;
    let mut known = Vec::new();
    let ended = session.disconnected();
    tokio::pin!(ended);
    loop {
        // This side needs what it has dialled, or reads from.
        let needed = !session.is_incoming() || session.is_read();
        let dialed = async {
            match &mut dialing {
                Some(dialing) => dialing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = &mut ended => return,
            dialed = dialed => {
                dialing = None;
                match dialed {
                    Ok(carrier) => {
                        liveness.established();
                        take_over(&peer, &session, carrier, &known);
                    }
                    Err(error) => {
                        debug!(%error, "no connection beside the silent one");
                        liveness.failed(now());
                    }
                }
            }
            () = sleep(if needed { LOOK } else { IDLE_LOOK }) => {
                match liveness.look(now(), received(&session), needed) {
                    Action::Nothing => {}
                    Action::Abandon => dialing = None,
                    Action::Dial => {
                        let Some(registry) = registry.upgrade() else { return };
                        debug!("the peer is silent, and dialled beside");
                        known = session.carriers().ids();
                        dialing = Some(dial(registry, peer.clone(), session.clone()).boxed());
                    }
                }
            }
        }
    }
}

/// The packets that have come so far.
fn received(session: &MoqSession) -> u64 {
    let carriers = session.carriers().all();
    carriers
        .iter()
        .map(|carrier| carrier.link.traffic().received_packets)
        .sum()
}

/// Dials another connection for a session.
async fn dial(
    registry: Arc<Registry>,
    peer: Arc<Peer>,
    session: MoqSession,
) -> Result<Carrier, ConnectError> {
    let connection = reach(&registry.endpoint, &peer.address()).await?;
    let guard = CloseGuard::new(&peer, &connection);
    let carrier = begin(
        &registry,
        &peer,
        &connection,
        session.origins(),
        session.span(),
    )
    .await?;
    guard.disarm();
    Ok(carrier)
}

/// Lets a connection that this side has dialled carry the session, and ends the others a moment later. Which there were when
/// the dial began is `known`.
fn take_over(peer: &Arc<Peer>, session: &MoqSession, carrier: Carrier, known: &[usize]) {
    let (link, hop) = (carrier.link.clone(), session.remote_hop());
    if !session.join(carrier.clone()) {
        return link.close(CloseCode::SUPERSEDED, "the session has ended");
    }
    let (session, known, ours_preferred) =
        (session.unheld(), known.to_vec(), peer.ours_preferred());
    session.clone().spawn(async move {
        let overlap = overlap(link.path().rtt);
        let over = sleep(overlap);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                // There is nothing to go over to: what was read has ended with the old one.
                () = sleep(GLANCE) => if session.was_started_anew(hop) { break },
            }
        }
        let mut others = session.carriers().all();
        others.retain(|other| other.link.id() != link.id() && other.link.is_alive());
        let is_new = |other: &Carrier| !known.contains(&other.link.id());
        if !ours_preferred && others.iter().any(|other| is_new(other) && other.incoming) {
            return end(carrier, overlap).await;
        }
        // It may have been lost again meanwhile.
        if link.is_alive() {
            // Nothing is read from those that were silent any more.
            for silent in others.extract_if(.., |other| !is_new(other)) {
                let reason = "nothing came any more, and another connection is in use";
                silent.link.close(CloseCode::SUPERSEDED, reason);
            }
            let ending = others.into_iter().map(|other| end(other, overlap));
            futures_util::future::join_all(ending).await;
        }
    });
}

/// Ends a connection that may be in use, when all has gone over to another one in the time of `overlap`.
async fn end(carrier: Carrier, overlap: Duration) {
    carrier.drain();
    sleep(overlap).await;
    let reason = "another connection is in use";
    carrier.link.close(CloseCode::SUPERSEDED, reason);
}

/// The peer has dialled another connection of a session. It ends the others; where it cannot reach this side on them, they
/// end here.
pub(super) fn end_dead(session: &MoqSession, joined: &Link) {
    let (session, joined) = (session.unheld(), joined.clone());
    session.clone().spawn(async move {
        sleep(overlap(joined.path().rtt)).await;
        for carrier in session.carriers().all() {
            let link = carrier.link;
            if link.id() != joined.id() && !link.responds().await && joined.is_alive() {
                let dead = "it does not answer, and another connection is in use";
                link.close(CloseCode::SUPERSEDED, dead);
            }
        }
    });
}

#[cfg(test)]
mod tests;
