//! When a rendition that failed is tried again.

use std::time::Duration;

/// The first wait, and the longest.
const FIRST: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(60);
/// A rendition that held for this long, and for twice what it would have to wait, may fail anew.
const HELD: Duration = Duration::from_secs(15);
/// Where the peer says that there is plenty of room, a shorter wait will do, of this at least.
const ROOMY: Duration = Duration::from_secs(4);

/// How long one rendition is left alone after its failures: each makes it wait twice as long. Time is passed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cooldown {
    since: Duration,
    wait: Duration,
}

impl Cooldown {
    /// It failed, after what is known of it; `first` is what it waits at least, by default four seconds.
    pub fn failed(before: Option<Self>, now: Duration, first: Option<Duration>) -> Self {
        let first = first.unwrap_or(FIRST);
        let wait = before.map_or(first, |before| (before.wait * 2).clamp(first, LONGEST));
        Self { since: now, wait }
    }

    /// Whether it may be tried. `roomy` says that the peer can deliver a good deal more: it sees what an experiment here
    /// cannot.
    pub fn is_over(&self, now: Duration, roomy: bool) -> bool {
        let wait = if roomy {
            (self.wait / 4).max(ROOMY).min(self.wait)
        } else {
            self.wait
        };
        now.saturating_sub(self.since) >= wait
    }

    /// Whether it is forgiven: it has been watched for so long.
    pub fn is_forgiven(&self, now: Duration, watched: Duration) -> bool {
        watched.min(now.saturating_sub(self.since)) >= HELD.max(self.wait * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_minute() {
        let mut cooldown = None;
        let mut waits = Vec::new();
        for _ in 0..6 {
            let failed = Cooldown::failed(cooldown, secs(100), None);
            let wait = (0..).find(|wait| failed.is_over(secs(100 + wait), false));
            waits.push(wait.unwrap());
            cooldown = Some(failed);
        }
        assert_eq!(waits, [4, 8, 16, 32, 60, 60]);
        assert!(!cooldown.unwrap().is_over(secs(114), true));
        assert!(cooldown.unwrap().is_over(secs(115), true), "a quarter");
    }

    #[test]
    fn a_rendition_that_held_is_forgiven() {
        let once = Cooldown::failed(None, secs(0), None);
        assert!(!once.is_forgiven(secs(30), secs(14)));
        assert!(once.is_forgiven(secs(30), secs(15)));
        let twice = Cooldown::failed(Some(once), secs(0), None);
        assert!(!twice.is_forgiven(secs(30), secs(15)));
        assert!(twice.is_forgiven(secs(30), secs(16)));
        assert!(!twice.is_forgiven(secs(10), secs(100)), "it failed since");
    }
}
