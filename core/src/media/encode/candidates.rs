//! Which of the encoders that could do it is used. Plain state, with time passed in.

use std::time::Duration;

/// An encoder that failed is left alone for so long: twice as long each time, up to [`LONGEST_HOLD`].
///
/// What failed may have been a device that somebody else uses, or one that has no session left.
const FIRST_HOLD: Duration = Duration::from_secs(10);
const LONGEST_HOLD: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
pub(super) struct Candidates<T> {
    list: Vec<Candidate<T>>,
}

#[derive(Debug, Clone)]
struct Candidate<T> {
    what: T,
    /// How often it failed since it last worked.
    failures: u32,
    /// It is not tried before this.
    hold: Option<Duration>,
}

impl<T: Clone> Candidates<T> {
    /// The best first.
    pub(super) fn new(list: impl IntoIterator<Item = T>) -> Self {
        Self {
            list: list
                .into_iter()
                .map(|what| Candidate {
                    what,
                    failures: 0,
                    hold: None,
                })
                .collect(),
        }
    }

    /// The best that may be tried now, and its place, of those that are not to be `left_out`.
    pub(super) fn best(&self, now: Duration, left_out: impl Fn(&T) -> bool) -> Option<(usize, T)> {
        self.better_than(self.list.len(), now, left_out)
    }

    /// The same, only of those that are better than the one at `current`.
    pub(super) fn better_than(
        &self,
        current: usize,
        now: Duration,
        left_out: impl Fn(&T) -> bool,
    ) -> Option<(usize, T)> {
        self.list
            .iter()
            .take(current)
            .enumerate()
            .find(|(_, candidate)| {
                candidate.hold.is_none_or(|hold| hold <= now) && !left_out(&candidate.what)
            })
            .map(|(at, candidate)| (at, candidate.what.clone()))
    }

    /// That one did not start, or broke before it had done anything.
    pub(super) fn failed(&mut self, at: usize, now: Duration) {
        if let Some(candidate) = self.list.get_mut(at) {
            let hold = FIRST_HOLD * 2u32.saturating_pow(candidate.failures.min(8));
            candidate.hold = Some(now + hold.min(LONGEST_HOLD));
            candidate.failures += 1;
        }
    }

    /// That one works.
    pub(super) fn worked(&mut self, at: usize) {
        if let Some(candidate) = self.list.get_mut(at) {
            candidate.failures = 0;
            candidate.hold = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn none(_: &&str) -> bool {
        false
    }

    #[test]
    fn a_failure_makes_room_for_the_next_and_is_forgiven_after_a_while() {
        let mut candidates = Candidates::new(["hardware", "software"]);
        assert_eq!(candidates.best(secs(0), none), Some((0, "hardware")));
        candidates.failed(0, secs(0));
        assert_eq!(candidates.best(secs(1), none), Some((1, "software")));
        assert_eq!(candidates.better_than(1, secs(9), none), None, "in use");
        assert_eq!(
            candidates.better_than(1, secs(10), none),
            Some((0, "hardware"))
        );
        candidates.failed(0, secs(10));
        assert_eq!(
            candidates.better_than(1, secs(29), none),
            None,
            "twice as long"
        );
        assert_eq!(
            candidates.better_than(1, secs(30), none),
            Some((0, "hardware"))
        );
        candidates.worked(0);
        assert_eq!(
            candidates.better_than(0, secs(31), none),
            None,
            "the best is in use"
        );
        candidates.failed(0, secs(40));
        assert_eq!(candidates.best(secs(50), none), Some((0, "hardware")));
    }

    #[test]
    fn it_ends_when_none_is_left_and_is_never_given_up_for_good() {
        let mut candidates = Candidates::new(["one", "two"]);
        candidates.failed(0, secs(0));
        candidates.failed(1, secs(0));
        assert_eq!(candidates.best(secs(1), none), None);
        let mut now = secs(0);
        for _ in 0..100 {
            candidates.failed(0, now);
            candidates.failed(1, now);
            now += LONGEST_HOLD;
            assert!(candidates.best(now, none).is_some());
        }
        assert_eq!(Candidates::<u8>::new([]).best(now, |_| false), None);
    }

    #[test]
    fn what_is_left_out_is_passed_over_however_long_it_is_ago() {
        let candidates = Candidates::new(["hangs", "works"]);
        let hangs = |what: &&str| *what == "hangs";
        assert_eq!(candidates.best(secs(900), hangs), Some((1, "works")));
        assert_eq!(candidates.better_than(1, secs(900), hangs), None);
    }
}
