//! Whether an encoder is stuck. Plain state, with time passed in.

use std::time::Duration;

/// An encoder that has been given so many frames for so long, and gave nothing, is stuck.
const STALL: (u64, Duration) = (30, Duration::from_secs(3));

#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// Frames that came out when it was last looked.
    produced: u64,
    /// Frames that went in since one came out, and when the first did.
    fed: u64,
    since: Duration,
}

impl Watchdog {
    /// A frame goes in at `now`; so many came out so far. Returns whether the encoder is stuck.
    pub(super) fn feed(&mut self, produced: u64, now: Duration) -> bool {
        if self.produced != produced || self.fed == 0 {
            *self = Self {
                produced,
                fed: 0,
                since: now,
            };
        }
        self.fed += 1;
        self.fed > STALL.0 && now.saturating_sub(self.since) >= STALL.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_and_nothing_out_for_three_seconds_is_a_stall() {
        let mut watchdog = Watchdog::default();
        let at = |frame: u64| Duration::from_millis(1000 + 100 * frame);
        // Pictures of a slow source come out one by one.
        assert!((0..100).all(|frame| !watchdog.feed(frame, at(frame * 50))));
        let mut watchdog = Watchdog::default();
        let stuck = (0..).find(|frame| watchdog.feed(5, at(*frame)));
        assert_eq!(stuck, Some(30));
        // Many at once are no reason either.
        let mut watchdog = Watchdog::default();
        assert!((0..200).all(|_| !watchdog.feed(0, at(0))));
        assert!(!watchdog.feed(1, at(100)), "something came");
    }
}
