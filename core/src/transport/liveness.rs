//! When a session that says nothing is dialled anew, beside the connection that it has. A plain machine: it is given the
//! time.

use std::time::{Duration, Instant};

/// A session that says nothing for so long is dialled anew. Who is there says something each second, see
/// [`KEEP_ALIVE`](super::KEEP_ALIVE); a round trip may take most of another one.
const SILENCE: Duration = Duration::from_secs(2);

/// How often to look.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// How often to look where the session is not needed, as to whether it is now.
pub(super) const IDLE_LOOK: Duration = MOST_AT_ONCE;

/// How much silence one look can find. A program that was held up itself, or a machine that was asleep, has not looked at
/// what came in the meantime.
const MOST_AT_ONCE: Duration = Duration::from_millis(500);

/// How long after a dial that has failed the next one begins.
const AGAIN: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Dial another connection beside.
    Dial,
    /// Give the dial up: the peer speaks again, or nobody needs it.
    Abandon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialing {
    No,
    Yes,
    /// It has failed, and is tried again then.
    After(Instant),
}

/// Decides when a session is dialled beside the connection that it has.
#[derive(Debug)]
pub(super) struct Liveness {
    looked: Instant,
    /// The packets that had come by then.
    received: u64,
    silence: Duration,
    dialing: Dialing,
}

impl Liveness {
    pub(super) fn new(now: Instant, received: u64) -> Self {
        Self {
            looked: now,
            received,
            silence: Duration::ZERO,
            dialing: Dialing::No,
        }
    }

    /// To be called every [`LOOK`], or [`IDLE_LOOK`]: `received` packets have come so far, and the session is `needed` by this side.
    pub(super) fn look(&mut self, now: Instant, received: u64, needed: bool) -> Action {
        let elapsed = now.saturating_duration_since(self.looked);
        self.looked = now;
        // Fewer have come over the connections that are left, where one has ended.
        if received > std::mem::replace(&mut self.received, received) {
            self.silence = Duration::ZERO;
        } else {
            self.silence += elapsed.min(MOST_AT_ONCE);
        }
        let silent = needed && self.silence >= SILENCE;
        match self.dialing {
            Dialing::Yes if !silent => {
                self.dialing = Dialing::No;
                Action::Abandon
            }
            Dialing::After(at) if silent && now < at => Action::Nothing,
            Dialing::No | Dialing::After(_) if silent => {
                self.dialing = Dialing::Yes;
                Action::Dial
            }
            _ => Action::Nothing,
        }
    }

    /// The dial has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.dialing = Dialing::After(now + AGAIN);
    }

    /// The other connection is there.
    pub(super) fn established(&mut self) {
        self.dialing = Dialing::No;
        self.silence = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for a time, while nothing comes, and gives what is to be done and when.
    fn silent_for(
        liveness: &mut Liveness,
        now: &mut Instant,
        time: Duration,
        needed: bool,
    ) -> Vec<(u128, Action)> {
        let begun = *now;
        let mut actions = Vec::new();
        while *now < begun + time {
            *now += LOOK;
            let action = liveness.look(*now, 7, needed);
            if action != Action::Nothing {
                actions.push((now.duration_since(begun).as_millis(), action));
            }
        }
        actions
    }

    #[test]
    fn a_silent_session_is_dialled_beside_until_it_speaks_again() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now, 7);
        let first = silent_for(&mut liveness, &mut now, SILENCE * 3, true);
        assert_eq!(first, [(2000, Action::Dial)], "one at a time");
        now += LOOK;
        assert_eq!(liveness.look(now, 8, true), Action::Abandon);
        assert_eq!(liveness.look(now + LOOK, 9, true), Action::Nothing);
    }

    #[test]
    fn a_dial_that_fails_is_made_again_a_moment_later() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now, 7);
        silent_for(&mut liveness, &mut now, SILENCE, true);
        liveness.failed(now);
        let again = silent_for(&mut liveness, &mut now, SILENCE, true);
        assert_eq!(again, [(500, Action::Dial)]);
        liveness.failed(now);
        // The peer speaks, and falls silent anew.
        assert_eq!(liveness.look(now, 8, true), Action::Nothing);
        let anew = silent_for(&mut liveness, &mut now, SILENCE * 2, true);
        assert_eq!(anew.last().map(|(_, action)| *action), Some(Action::Dial));
    }

    #[test]
    fn a_new_connection_has_as_long_as_the_first_to_say_something() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now, 7);
        silent_for(&mut liveness, &mut now, SILENCE, true);
        liveness.established();
        let next = silent_for(&mut liveness, &mut now, SILENCE * 2, true);
        assert_eq!(next, [(2000, Action::Dial)]);
    }

    #[test]
    fn a_connection_that_ends_is_no_sign_of_life() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now, 20);
        // Of two connections one is left, over which 7 have come.
        let dialed = silent_for(&mut liveness, &mut now, SILENCE, true);
        assert_eq!(dialed, [(2000, Action::Dial)]);
        now += LOOK;
        assert_eq!(liveness.look(now, 3, true), Action::Nothing);
        assert_eq!(liveness.look(now + LOOK, 4, true), Action::Abandon);
    }

    #[test]
    fn nobody_is_dialled_who_is_not_needed() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now, 7);
        assert_eq!(silent_for(&mut liveness, &mut now, SILENCE * 5, false), []);
        // Who is needed from now on is known to be silent.
        assert_eq!(liveness.look(now + LOOK, 7, true), Action::Dial);
        assert_eq!(liveness.look(now + LOOK, 7, false), Action::Abandon);
    }

    #[test]
    fn a_program_that_was_held_up_takes_nobody_for_silent() {
        let begun = Instant::now();
        let mut liveness = Liveness::new(begun, 7);
        let woken = begun + Duration::from_secs(3600);
        assert_eq!(liveness.look(woken, 7, true), Action::Nothing);
        assert_eq!(liveness.look(woken + LOOK, 8, true), Action::Nothing);
    }
}
