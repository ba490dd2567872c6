//! One timeline for the tracks of a broadcast: a clock's time as wall-clock time.

use std::time::Duration;

/// The wall clock may be this far from what the media clock says before the timeline is moved.
const SLACK: Duration = Duration::from_millis(100);

/// How far behind what came before that lies what comes after a restart.
const STEP: Duration = Duration::from_millis(1);

/// Turns the time of a media clock, which counts from anywhere, into a broadcast's timestamps.
///
/// One offset serves all tracks, so they stay together as well as they were captured. It is fixed when the first
/// timestamp is made, and looked at again only after [`resume`](Self::resume), as after a pause in which the clock stood
/// still, and after [`restart`](Self::restart).
#[derive(Debug, Clone)]
pub struct Timeline {
    /// What is added to clock time to make wall-clock time, nanoseconds.
    offset: Option<i128>,
    /// Whether the offset has to be looked at again.
    stale: bool,
    /// Whether clock time began anew.
    restarted: bool,
    /// The latest timestamp so far, nanoseconds.
    latest: i128,
    /// Counts the times that the timeline was moved.
    moves: u32,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            offset: None,
            stale: true,
            restarted: false,
            latest: 0,
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

    /// Says that the clock counts from zero again, as after a seek: what comes now lies after all that came before.
    pub fn restart(&mut self) {
        self.restarted = true;
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
        let restarted = std::mem::take(&mut self.restarted);
        if std::mem::take(&mut self.stale) || restarted || self.offset.is_none() {
            let reference = i128::from(now.unwrap_or(time.max(0)));
            let fresh = nanos(wall) - reference;
            match self.offset {
                None => self.offset = Some(fresh),
                Some(_) if restarted => {
                    // What was sent ahead of its time, as a file that is not paced, may reach beyond the present.
                    self.offset = Some(fresh.max(self.latest + nanos(STEP)));
                    self.moves += 1;
                }
                // Only forwards: viewers take a timeline that goes back for a broken one.
                Some(old) if fresh > old + nanos(SLACK) => {
                    self.offset = Some(fresh);
                    self.moves += 1;
                }
                Some(_) => {}
            }
        }
        let timestamp = self.offset? + i128::from(time);
        self.latest = self.latest.max(timestamp);
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
    fn a_clock_that_counts_from_zero_again_goes_on_where_it_was() {
        let mut timeline = Timeline::new();
        assert_eq!(
            timeline.timestamp(20 * SECOND, Some(20 * SECOND), at(120.0)),
            Some((at(120.0), 0))
        );
        timeline.restart();
        let after = timeline.timestamp(0, Some(SECOND), at(122.0));
        assert_eq!(after, Some((at(121.0), 1)));
        // Sent ahead of its time, and begun anew: still after all that was before.
        let ahead = timeline.timestamp(60 * SECOND, Some(SECOND), at(122.0));
        assert_eq!(ahead, Some((at(181.0), 1)));
        timeline.restart();
        let after = timeline.timestamp(0, Some(SECOND), at(122.0));
        assert_eq!(after, Some((at(181.001), 2)));
        // The other track follows.
        let other = timeline.timestamp(SECOND, Some(SECOND), at(122.0));
        assert_eq!(other, Some((at(182.001), 2)));
    }

    #[test]
    fn nothing_lies_before_the_zero_of_the_broadcast() {
        let mut timeline = Timeline::new();
        assert_eq!(timeline.timestamp(0, None, at(1.0)), Some((at(1.0), 0)));
        assert_eq!(timeline.timestamp(-2 * SECOND, None, at(1.0)), None);
    }
}
