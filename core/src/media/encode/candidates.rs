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

    /// The best that may be tried now, and its place; only a better one than that at `than`, if one is in use.
    pub(super) fn choose(&self, now: Duration, than: Option<usize>) -> Option<(usize, T)> {
        self.list
            .iter()
            .take(than.unwrap_or(usize::MAX))
            .enumerate()
            .find(|(_, candidate)| candidate.hold.is_none_or(|hold| hold <= now))
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

    #[test]
    fn a_failure_makes_room_for_the_next_and_is_forgiven_after_a_while() {
        let mut candidates = Candidates::new(["hardware", "software"]);
        assert_eq!(candidates.choose(secs(0), None), Some((0, "hardware")));
        candidates.failed(0, secs(0));
        assert_eq!(candidates.choose(secs(1), None), Some((1, "software")));
        assert_eq!(candidates.choose(secs(9), Some(1)), None, "in use");
        assert_eq!(candidates.choose(secs(10), Some(1)), Some((0, "hardware")));
        candidates.failed(0, secs(10));
        assert_eq!(candidates.choose(secs(29), Some(1)), None, "twice as long");
        assert_eq!(candidates.choose(secs(30), Some(1)), Some((0, "hardware")));
        candidates.worked(0);
        assert_eq!(
            candidates.choose(secs(31), Some(0)),
            None,
            "the best is in use"
        );
        candidates.failed(0, secs(40));
        assert_eq!(candidates.choose(secs(50), None), Some((0, "hardware")));
    }

    #[test]
    fn it_ends_when_none_is_left_and_is_never_given_up_for_good() {
        let mut candidates = Candidates::new(["one", "two"]);
        candidates.failed(0, secs(0));
        candidates.failed(1, secs(0));
        assert_eq!(candidates.choose(secs(1), None), None);
        let mut now = secs(0);
        for _ in 0..100 {
            candidates.failed(0, now);
            candidates.failed(1, now);
            now += LONGEST_HOLD;
            assert!(candidates.choose(now, None).is_some());
        }
        assert_eq!(Candidates::<u8>::new([]).choose(now, None), None);
    }
}
