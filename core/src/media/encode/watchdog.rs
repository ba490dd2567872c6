//! Whether an encoder is stuck. Plain state, with time passed in.

use std::time::Duration;

/// An encoder of pictures that has been given so many for so long, and gave nothing, is stuck.
const VIDEO_STALL: (u64, Duration) = (30, Duration::from_secs(3));

/// The same of sound, until it has given something; after that, silence may well be nothing.
const AUDIO_STALL: (u64, Duration) = (30, Duration::from_secs(10));

#[derive(Debug)]
pub(super) struct Watchdog {
    video: bool,
    /// Frames that came out when it was last looked.
    produced: u64,
    /// Frames that went in since one came out, and when the first did.
    fed: u64,
    since: Duration,
}

impl Watchdog {
    pub(super) fn new(video: bool) -> Self {
        Self {
            video,
            produced: 0,
            fed: 0,
            since: Duration::ZERO,
        }
    }

    /// A frame goes in at `now`; so many came out so far. Returns whether the encoder is stuck.
    pub(super) fn feed(&mut self, produced: u64, now: Duration) -> bool {
        if self.produced != produced || self.fed == 0 {
            self.produced = produced;
            self.fed = 0;
            self.since = now;
        }
        self.fed += 1;
        let (frames, time) = match (self.video, produced) {
            (true, _) => VIDEO_STALL,
            (false, 0) => AUDIO_STALL,
            (false, _) => return false,
        };
        self.fed > frames && now.saturating_sub(self.since) >= time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_and_nothing_out_for_three_seconds_is_a_stall() {
        let mut watchdog = Watchdog::new(true);
        let at = |frame: u64| Duration::from_millis(1000 + 100 * frame);
        // Pictures of a slow source come out one by one.
        assert!((0..100).all(|frame| !watchdog.feed(frame, at(frame * 50))));
        let mut watchdog = Watchdog::new(true);
        let stuck = (0..).find(|frame| watchdog.feed(5, at(*frame)));
        assert_eq!(stuck, Some(30));
        // Many at once are no reason either.
        let mut watchdog = Watchdog::new(true);
        assert!((0..200).all(|_| !watchdog.feed(0, at(0))));
        assert!(!watchdog.feed(1, at(100)), "something came");
    }

    #[test]
    fn sound_may_be_silent_once_there_was_some() {
        let at = |packet: u64| Duration::from_millis(20 * packet);
        let mut watchdog = Watchdog::new(false);
        let stuck = (0..).find(|packet| watchdog.feed(0, at(*packet)));
        assert_eq!(stuck, Some(500), "ten seconds");
        let mut watchdog = Watchdog::new(false);
        assert!((0..3000).all(|packet| !watchdog.feed(1, at(packet))));
    }
}
