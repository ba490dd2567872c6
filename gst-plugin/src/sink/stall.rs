//! Noticing that nothing comes of what flows into a pad.

use std::time::{Duration, Instant};

/// Longer than groups of pictures are: a stream that is joined in the middle gives nothing until the next one.
const LIMIT: Duration = Duration::from_secs(20);

/// Of a gap between two buffers no more than this is counted: in a pause nothing is to be expected.
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// Counts the time in which buffers came and no frame was published.
///
/// Time and not buffers: a buffer may be a frame, a slice of one, or a few bytes.
#[derive(Debug, Default)]
pub(super) struct Stall {
    last: Option<Instant>,
    lasted: Duration,
    reported: bool,
}

impl Stall {
    /// A buffer came in. Returns true once, when it has been going on for too long.
    pub(super) fn buffer(&mut self, now: Instant) -> bool {
        if let Some(last) = self.last.replace(now) {
            self.lasted += now.saturating_duration_since(last).min(LONGEST_GAP);
        }
        self.lasted >= LIMIT && !std::mem::replace(&mut self.reported, true)
    }

    /// A frame was published.
    pub(super) fn published(&mut self) {
        self.lasted = Duration::ZERO;
        self.reported = false;
    }
}

/// Says of a pad that nothing comes of what flows into it, and why the last frame was dropped.
pub(super) fn complaint(pad: &str, dropped: Option<&str>) -> String {
    let reason = dropped.unwrap_or(
        "no frame is found in it; look whether it is what its caps say, or put a parser before the pad",
    );
    format!(
        "Nothing has come of what flows into pad {pad} for a while: {reason}. It is taken as soon as it is in order"
    )
}

/// Says what helps against a stream that nothing can be made of.
pub(super) fn with_mend(reason: &str) -> String {
    format!("{reason}. Put a parser before the pad, or look at what comes into it")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buffers in an even distance. Returns when the stall was reported, in seconds.
    fn reports(stall: &mut Stall, start: Instant, distance: Duration, count: u32) -> Vec<u64> {
        (0..count)
            .map(|number| distance * number)
            .filter(|time| stall.buffer(start + *time))
            .map(|time| time.as_secs())
            .collect()
    }

    #[test]
    fn reported_once_however_the_stream_is_cut() {
        let start = Instant::now();
        // Frames, slices, and bytes.
        for (distance, count) in [(40_000, 2000), (4_000, 20_000), (100, 800_000)] {
            let distance = Duration::from_micros(distance);
            let mut stall = Stall::default();
            assert_eq!(reports(&mut stall, start, distance, count), [20]);
        }
    }

    #[test]
    fn a_camera_with_long_groups_is_waited_for() {
        let start = Instant::now();
        let frame = Duration::from_millis(40);
        let mut stall = Stall::default();
        for group in 0..10 {
            let begin = start + 475 * frame * group;
            assert!(reports(&mut stall, begin, frame, 475).is_empty());
            stall.published();
        }
    }

    #[test]
    fn a_pause_counts_for_nothing() {
        let start = Instant::now();
        let mut stall = Stall::default();
        for minute in 0..15 {
            assert!(!stall.buffer(start + Duration::from_secs(60 * minute)));
        }
    }

    #[test]
    fn a_second_stall_is_reported_too() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut stall = Stall::default();
        assert_eq!(reports(&mut stall, start, second, 60), [20]);
        stall.published();
        assert_eq!(
            reports(&mut stall, start + 60 * second, second, 60).len(),
            1
        );
    }
}
