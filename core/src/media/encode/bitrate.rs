//! When an encoder is given another bit rate. Plain state, with time passed in.

use std::time::Duration;

use crate::media::encoder::RateChange;

/// What is less than this share of what the encoder has is wanted because the link is full.
const URGENT: f64 = 0.75;

/// The bit rate that an encoder has, and since when.
#[derive(Debug)]
pub(super) struct BitrateSteps {
    applied: u64,
    at: Duration,
}

impl BitrateSteps {
    /// Of an encoder that is opened at `now` with that bit rate.
    pub(super) fn new(bitrate: u64, now: Duration) -> Self {
        Self {
            applied: bitrate,
            at: now,
        }
    }

    /// The bit rate that the encoder has.
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// The bit rate to tell the encoder now, if it is another one and worth what the change costs.
    ///
    /// Where another encoder has to be opened for it, this one keeps what it has.
    pub(super) fn step(&mut self, change: RateChange, wanted: u64, now: Duration) -> Option<u64> {
        let share = wanted as f64 / self.applied.max(1) as f64;
        let (least, soonest, often) = match change {
            RateChange::Seamless => (0.0, 0, 0),
            RateChange::KeyFrame => (0.1, 1, 5),
            RateChange::Rebuild => (0.25, 3, 15),
        };
        let spacing = Duration::from_secs(if share < URGENT { soonest } else { often });
        let due = now.saturating_sub(self.at) >= spacing;
        if wanted == self.applied || (share - 1.0).abs() < least || !due {
            return None;
        }
        if change != RateChange::Rebuild {
            self.applied = wanted;
        }
        self.at = now;
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is applied while the rate goes up by 8 % every 200 ms for a minute, and how often.
    fn climb(change: RateChange) -> (u64, usize) {
        let mut steps = BitrateSteps::new(100_000, Duration::ZERO);
        let (mut wanted, mut applied, mut count) = (100_000_f64, 100_000, 0);
        for tick in 0..300 {
            wanted = (wanted * 1.08).min(2_000_000.0);
            let now = Duration::from_millis(200 * tick);
            if let Some(bitrate) = steps.step(change, wanted as u64, now) {
                (applied, count) = (bitrate, count + 1);
                if change == RateChange::Rebuild {
                    steps = BitrateSteps::new(bitrate, now);
                }
            }
        }
        (applied, count)
    }

    #[test]
    fn changes_that_cost_a_key_frame_are_few() {
        let (applied, count) = climb(RateChange::Seamless);
        assert_eq!(applied, 2_000_000);
        assert!(count > 35, "{count}");
        let (applied, count) = climb(RateChange::KeyFrame);
        assert_eq!(applied, 2_000_000);
        assert!(count <= 13, "{count}");
        let (applied, count) = climb(RateChange::Rebuild);
        assert_eq!(applied, 2_000_000);
        assert!(count <= 5, "{count}");
    }

    #[test]
    fn a_full_link_is_answered_soon() {
        let secs = Duration::from_secs_f64;
        for (change, soonest) in [
            (RateChange::Seamless, 0.1),
            (RateChange::KeyFrame, 1.0),
            (RateChange::Rebuild, 3.0),
        ] {
            let mut steps = BitrateSteps::new(1_000_000, secs(0.0));
            let at = (1..100)
                .map(|tick| secs(f64::from(tick) / 10.0))
                .find(|now| steps.step(change, 500_000, *now).is_some());
            assert_eq!(at, Some(secs(soonest)), "{change:?}");
        }
        let mut steps = BitrateSteps::new(1_000_000, secs(0.0));
        assert_eq!(
            steps.step(RateChange::KeyFrame, 950_000, secs(9.0)),
            None,
            "not worth a key frame"
        );
    }

    #[test]
    fn an_encoder_that_has_to_be_replaced_keeps_its_bit_rate_until_it_is() {
        let secs = Duration::from_secs;
        let mut steps = BitrateSteps::new(1_000_000, secs(0));
        let step =
            |steps: &mut BitrateSteps, at| steps.step(RateChange::Rebuild, 500_000, secs(at));
        assert_eq!(step(&mut steps, 3), Some(500_000));
        assert_eq!(steps.applied(), 1_000_000);
        assert_eq!(step(&mut steps, 5), None, "it may be on its way");
        assert_eq!(step(&mut steps, 6), Some(500_000), "it came to nothing");
    }
}
