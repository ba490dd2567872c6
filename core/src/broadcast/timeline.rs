//! One timeline for the tracks of a broadcast: a clock's time as wall-clock time.

use std::time::Duration;

/// The wall clock may be this far from what the media clock says before the timeline is moved.
const SLACK: Duration = Duration::from_millis(100);

/// Turns the time of a media clock, which counts from anywhere, into a broadcast's timestamps.
///
/// One offset serves all tracks, so they stay together as well as they were captured. It is fixed when the first
/// timestamp is made, and looked at again only after [`resume`](Self::resume), as after a pause in which the clock stood
/// still.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// What is added to clock time to make wall-clock time, nanoseconds.
    offset: Option<i128>,
    /// Whether the offset has to be looked at again.
    stale: bool,
    /// Counts the times that the timeline was moved.
    moves: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            offset: None,
            stale: true,
            moves: 0,
        }
    }
}

impl Timeline {
    /// A timeline that begins with the first timestamp.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the clock stood still for a while, so that the two times have come apart.
    pub fn resume(&mut self) {
        self.stale = true;
    }

    /// A time of the media clock as a timestamp, and how often the timeline was moved so far: when that count changes,
    /// the frame does not continue the one before it.
    ///
    /// `time` and `now` are nanoseconds of the media clock, `now` the present, if the clock runs yet. `wall` is the
    /// present as [`LocalBroadcast::now`](crate::LocalBroadcast::now) gives it. None for what lies before the
    /// broadcast's zero.
    pub fn timestamp(
        &mut self,
        time: i64,
        now: Option<i64>,
        wall: Duration,
    ) -> Option<(Duration, u32)> {
        if std::mem::take(&mut self.stale) || self.offset.is_none() {
            let reference = i128::from(now.unwrap_or(time.max(0)));
            let fresh = nanos(wall) - reference;
            match self.offset {
                None => self.offset = Some(fresh),
                // Only forwards: viewers take a timeline that goes back for a broken one.
                Some(old) if fresh > old + nanos(SLACK) => {
                    self.offset = Some(fresh);
                    self.moves += 1;
                }
                Some(_) => {}
            }
        }
        let timestamp = self.offset? + i128::from(time);
        let timestamp = u64::try_from(timestamp).ok()?;
        Some((Duration::from_nanos(timestamp), self.moves))
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn one_offset_serves_all_tracks() {
        let mut timeline = Timeline::new();
        let first = timeline.timestamp(5 * SECOND, Some(6 * SECOND), at(100.0));
        assert_eq!(first, Some((at(99.0), 0)));
        // The wall clock has gone on by more than the media clock: a thread was late, nothing else.
        let second = timeline.timestamp(6 * SECOND, Some(7 * SECOND), at(101.5));
        assert_eq!(second, Some((at(100.0), 0)));
        // Before the clock's zero, as frames before a segment are.
        let early = timeline.timestamp(-SECOND, None, at(101.5));
        assert_eq!(early, Some((at(93.0), 0)));
    }

    #[test]
    fn a_pause_moves_the_timeline_forwards_only() {
        let mut timeline = Timeline::new();
        timeline.timestamp(0, Some(0), at(100.0));
        timeline.resume();
        assert_eq!(
            timeline.timestamp(SECOND, Some(SECOND), at(111.0)),
            Some((at(111.0), 1))
        );
        timeline.resume();
        assert_eq!(
            timeline.timestamp(2 * SECOND, Some(2 * SECOND), at(105.0)),
            Some((at(112.0), 1)),
            "the wall clock was set back"
        );
        timeline.resume();
        assert_eq!(
            timeline.timestamp(3 * SECOND, Some(3 * SECOND), at(113.05)),
            Some((at(113.0), 1)),
            "within the slack"
        );
    }

    #[test]
    fn nothing_lies_before_the_zero_of_the_broadcast() {
        let mut timeline = Timeline::new();
        assert_eq!(timeline.timestamp(0, None, at(1.0)), Some((at(1.0), 0)));
        assert_eq!(timeline.timestamp(-2 * SECOND, None, at(1.0)), None);
    }
}
