//! One session with a peer, whichever side dials, and when both do.
//!
//! Two connections between the same two peers can meet, and both sides have to choose the same one without asking each
//! other. The rules:
//!
//! * The connection that the peer with the smaller id dials is the *preferred* one.
//! * The side that prefers what the other one dials takes it at once, and gives up its own.
//! * The side that prefers its own lets the other's wait, unanswered, until its own is decided; before it has shaken
//!   hands on its own, which the other side then cannot have taken, it takes the other's instead.
//! * A dialer hands out nothing before the other side has answered. So a connection that loses was never used, and
//!   nothing can be lost with it. The dialer closes it, when the session that won works.
//! * Nobody dials who has a session that speaks. So a connection that comes when there is one already either was on its
//!   way when the session began, and its dialer closes it; or says that the other side has lost the session, as when it
//!   was started anew; or is of a second process with the same key. The old session is asked whether it still lives, to
//!   tell.
//!
//! Who hears nothing on a session that it has dialled, reads from or has a call on dials another connection *beside* it (see [`liveness`](super::liveness)), and the session
//! goes on over both, as either may be the one that delivers:
//!
//! * It is taken for one of the session if it says so, by the random number that each end has for a session. That of a
//!   process that was started anew does not, and begins a session of its own, by the rules above.
//! * Who has dialled it ends the others half a second after it has begun, or four round trips, when what was read of the
//!   peer has gone over to it. Who was dialled ends those that do not answer.
//! * Both sides may dial beside. Each takes what the other has dialled, and when that has come first, gives up its own.
//!   When both are there, who prefers the other's ends its own.

use iroh::{EndpointAddr, EndpointId};
use moq_lite::Hop;
use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::Instrument;

use super::{lock, session::MoqSession};

/// How far this side is with dialling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Dialing {
    #[default]
    No,
    /// There is no connection yet; the peer does not know of it.
    Reaching,
    /// The peer may have taken it already.
    Committed,
}

/// What to do with a connection that the peer dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Use it from now on.
    Take,
    /// Look again when something has changed.
    Wait,
    /// Use it if the session that there is does not answer any more.
    Probe,
    /// A newer one is used.
    Superseded,
}

/// What decides.
#[derive(Debug, Clone, Copy)]
struct Arbitration {
    /// What this side dials is preferred.
    ours_preferred: bool,
    dialing: Dialing,
    /// Whether there is a session, and if so whether the peer began it.
    session: Option<bool>,
    /// The newest connection of the peer that was taken.
    newest: u64,
}

impl Arbitration {
    fn verdict(self, number: u64) -> Verdict {
        if number < self.newest {
            return Verdict::Superseded;
        }
        if !self.ours_preferred {
            return Verdict::Take;
        }
        match (self.dialing, self.session) {
            (Dialing::Committed, _) => Verdict::Wait,
            (_, Some(false)) => Verdict::Probe,
            _ => Verdict::Take,
        }
    }
}

/// The sessions with one peer: the one in use, and those that may come to be.
#[derive(Debug)]
pub(super) struct Peer {
    ours_preferred: bool,
    state: watch::Sender<State>,
    /// Held by the one who dials.
    dial: Mutex<()>,
    /// Where it was dialled last.
    address: std::sync::Mutex<EndpointAddr>,
}

#[derive(Debug, Default)]
struct State {
    /// The one in use.
    session: Option<MoqSession>,
    /// All that have not ended.
    all: Vec<MoqSession>,
    dialing: Dialing,
    /// Connections of the peer that are taken and not sessions yet.
    claims: usize,
    /// How many wait for the session to show that it lives.
    probes: usize,
    newest: u64,
}

impl State {
    fn live(&self) -> Option<&MoqSession> {
        self.session.as_ref().filter(|session| session.is_alive())
    }

    fn unsettled(&self) -> bool {
        self.claims > 0 || self.probes > 0
    }
}

/// What a connection of the peer may do now.
pub(super) enum Turn<'a> {
    /// Become the session that is used.
    Primary(Claim<'a>),
    /// Become one that is used when the other ends.
    Secondary,
    /// Carry a session that there is.
    Join(MoqSession),
}

impl Peer {
    pub(super) fn new(own: EndpointId, peer: EndpointId) -> Self {
        Self {
            ours_preferred: own < peer,
            state: watch::Sender::default(),
            dial: Mutex::default(),
            address: std::sync::Mutex::new(peer.into()),
        }
    }

    /// Where to dial it when it is silent: where it was dialled last, or else nowhere in particular.
    pub(super) fn address(&self) -> EndpointAddr {
        lock(&self.address).clone()
    }

    pub(super) fn set_address(&self, address: EndpointAddr) {
        *lock(&self.address) = address;
    }

    /// What this side dials is preferred.
    pub(super) fn ours_preferred(&self) -> bool {
        self.ours_preferred
    }

    /// The session that another connection of the peer belongs to, by the `hop` that it says it with.
    pub(super) fn continued(&self, hop: Option<Hop>) -> Option<MoqSession> {
        let all = self.state.borrow().all.clone();
        // A peer that does not say it may have been started anew.
        all.into_iter()
            .find(|session| hop.is_some() && session.is_alive() && session.remote_hop() == hop)
    }

    /// Waits for a session that is known to live.
    pub(super) async fn session(&self) -> MoqSession {
        let mut state = self.state.subscribe();
        loop {
            let settled = state.wait_for(|state| !state.unsettled() && state.live().is_some());
            match settled.await.map(|state| state.live().cloned()) {
                Ok(Some(session)) => return session,
                // It died between the two looks.
                Ok(None) => {}
                // The sender is in `self`.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Waits for the turn to dial, which comes when there is no session and none about to be. Cancel safe.
    pub(super) async fn dial(&self) -> Dial<'_> {
        let turn = self.dial.lock().await;
        self.advance(Dialing::Reaching).await;
        Dial {
            peer: self,
            _turn: turn,
        }
    }

    /// Waits until there is no session and none about to be, and takes the next step of dialling. Cancel safe.
    async fn advance(&self, step: Dialing) {
        let mut changes = self.state.subscribe();
        let free = |state: &State| !state.unsettled() && state.live().is_none();
        loop {
            // The sender is in `self`.
            let _ = changes.wait_for(free).await.map(drop);
            let taken = self.state.send_if_modified(|state| {
                let free = free(state);
                if free {
                    state.dialing = step;
                }
                free
            });
            if taken {
                return;
            }
        }
    }

    /// Waits until this side wants a session with the peer, which then needs no admission.
    pub(super) async fn wanted(&self) {
        let mut state = self.state.subscribe();
        // The sender is in `self`.
        let _ = state
            .wait_for(|state| state.dialing != Dialing::No)
            .await
            .map(drop);
    }

    /// Waits for the turn of a connection that the peer dialled, the `number`th that came in, and of whose session it says
    /// that its end has this `hop`. Cancel safe.
    pub(super) async fn turn(&self, number: u64, hop: Option<Hop>) -> Turn<'_> {
        let mut changes = self.state.subscribe();
        loop {
            if let Some(session) = self.continued(hop) {
                return Turn::Join(session);
            }
            changes.mark_unchanged();
            let mut verdict = Verdict::Wait;
            let mut old = None;
            self.state.send_if_modified(|state| {
                verdict = self.arbitration(state).verdict(number);
                match verdict {
                    Verdict::Take => {
                        state.claims += 1;
                        state.newest = number;
                    }
                    Verdict::Probe => {
                        state.probes += 1;
                        old = state.live().cloned();
                    }
                    Verdict::Wait | Verdict::Superseded => return false,
                }
                true
            });
            match verdict {
                Verdict::Take => return Turn::Primary(Claim { peer: self, number }),
                Verdict::Superseded => return Turn::Secondary,
                Verdict::Probe => {
                    let probing = Probing(self);
                    if let Some(old) = old {
                        if let Some(patience) = old.carriers().answers().await {
                            drop(probing);
                            // A connection that was on its way when the session began is closed meanwhile.
                            tokio::time::sleep(patience).await;
                            return Turn::Secondary;
                        }
                        old.abandon("it does not answer, and its peer connects anew");
                    }
                }
                // The sender is in `self`.
                Verdict::Wait => drop(changes.changed().await),
            }
        }
    }

    fn arbitration(&self, state: &State) -> Arbitration {
        Arbitration {
            ours_preferred: self.ours_preferred,
            dialing: state.dialing,
            session: state.live().map(MoqSession::is_incoming),
            newest: state.newest,
        }
    }

    /// Takes note of a session that is there, until it is forgotten.
    pub(super) fn remember(&self, session: &MoqSession) {
        self.state.send_modify(|state| {
            state.all.push(session.clone());
            // One that was to wait for another to end, which it has meanwhile.
            if state.live().is_none() {
                state.session = Some(session.clone());
            }
        });
    }

    /// Lets go of a session that has ended, for another one that is there, if there is one.
    pub(super) fn forget(&self, ended: &MoqSession) {
        self.state.send_if_modified(|state| {
            state.all.retain(|session| !session.is_same(ended));
            let used = state.session.as_ref().is_some_and(|s| s.is_same(ended));
            if used {
                state.session = state.all.last().cloned();
            }
            used
        });
    }

    /// Whether there is a session.
    pub(super) fn is_connected(&self) -> bool {
        self.state.borrow().live().is_some()
    }

    /// Whether nothing is known that would be missed.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state.borrow();
        state.session.is_none()
            && state.all.is_empty()
            && state.dialing == Dialing::No
            && !state.unsettled()
    }
}

/// The turn to dial. The dial is over when this is dropped.
pub(super) struct Dial<'a> {
    peer: &'a Peer,
    _turn: MutexGuard<'a, ()>,
}

impl Dial<'_> {
    /// Waits until the peer may be let know of the connection, and so take it. Never, if another session comes first.
    pub(super) async fn commit(&self) {
        self.peer.advance(Dialing::Committed).await;
    }

    /// The peer has answered. False if another session came first, which is to be used instead.
    pub(super) fn establish(self, session: &MoqSession) -> bool {
        self.peer.state.send_if_modified(|state| {
            let first = state.live().is_none();
            if first {
                state.session = Some(session.clone());
            }
            first
        })
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        self.peer
            .state
            .send_modify(|state| state.dialing = Dialing::No);
    }
}

/// The turn of a connection that the peer dialled. Given up when this is dropped.
pub(super) struct Claim<'a> {
    peer: &'a Peer,
    number: u64,
}

impl Claim<'_> {
    /// It is a session now, and the one to use unless a newer one is. The one that was used before ends if it does not
    /// answer any more.
    pub(super) fn establish(self, session: &MoqSession) {
        let mut old = None;
        self.peer.state.send_if_modified(|state| {
            let newest = state.newest == self.number;
            if newest {
                old = state.session.replace(session.clone());
            }
            newest
        });
        if let Some(old) = old.filter(MoqSession::is_alive) {
            let probing = async move {
                if old.carriers().answers().await.is_none() {
                    old.abandon("it does not answer, and its peer has connected anew");
                }
            };
            tokio::spawn(probing.in_current_span());
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.peer.state.send_modify(|state| state.claims -= 1);
    }
}

struct Probing<'a>(&'a Peer);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.probes -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ours_preferred: bool, dialing: Dialing, session: Option<bool>) -> Verdict {
        let arbitration = Arbitration {
            ours_preferred,
            dialing,
            session,
            newest: 5,
        };
        assert_eq!(arbitration.verdict(4), Verdict::Superseded);
        arbitration.verdict(6)
    }

    #[test]
    fn the_preferred_connection_is_taken_whatever_there_is() {
        for dialing in [Dialing::No, Dialing::Reaching, Dialing::Committed] {
            for session in [None, Some(false), Some(true)] {
                assert_eq!(verdict(false, dialing, session), Verdict::Take);
            }
        }
    }

    #[test]
    fn the_other_waits_only_for_a_dial_that_the_peer_may_have_taken() {
        assert_eq!(verdict(true, Dialing::No, None), Verdict::Take);
        assert_eq!(verdict(true, Dialing::Reaching, None), Verdict::Take);
        assert_eq!(verdict(true, Dialing::Committed, None), Verdict::Wait);
    }

    #[test]
    fn a_peer_that_connects_again_has_lost_what_it_began_itself() {
        assert_eq!(verdict(true, Dialing::No, Some(true)), Verdict::Take);
        assert_eq!(verdict(true, Dialing::No, Some(false)), Verdict::Probe);
    }
}
