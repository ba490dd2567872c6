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
///
/// A restart reaches one track after the other. Until it has reached a track, that one may still give frames that count from
/// where the clock was before; each track that goes through restarts has its [`Restarts`] for that.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// What is added to clock time to make wall-clock time, nanoseconds.
    offset: Option<i128>,
    /// Whether the offset has to be looked at again.
    stale: bool,
    /// How often clock time began anew.
    restarts: u32,
    /// What it did so for last.
    cause: Option<u32>,
    /// Whether no frame has come since.
    restarted: bool,
    /// The latest timestamp so far, nanoseconds.
    latest: i128,
    /// Counts the times that the timeline was moved.
    moves: u32,
}

/// The restarts of a [`Timeline`] that a track has gone through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restarts {
    count: u32,
    /// What the latest of its own was for.
    cause: Option<u32>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            offset: None,
            stale: true,
            restarts: 0,
            cause: None,
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

    /// For a track that begins now.
    pub fn restarts(&self) -> Restarts {
        Restarts {
            count: self.restarts,
            cause: None,
        }
    }

    /// Says that the clock counts from zero again for a track, as after a seek: what comes of it now lies after all that came
    /// before.
    ///
    /// `cause` is a number that tells one seek from another, as GStreamer's sequence number does: with the same one, other
    /// tracks follow instead of moving the timeline again.
    pub fn restart(&mut self, track: &mut Restarts, cause: u32) {
        let follows = self.cause == Some(cause) && track.cause != Some(cause);
        if !follows {
            self.restarts = self.restarts.wrapping_add(1);
            self.cause = Some(cause);
            self.restarted = true;
        }
        track.count = self.restarts;
        track.cause = Some(cause);
    }

    /// The same as [`timestamp`](Self::timestamp), for a track that goes through restarts. None also for a frame of before a
    /// restart that other tracks went through already.
    pub fn timestamp_of(
        &mut self,
        track: &mut Restarts,
        time: i64,
        now: Option<i64>,
        wall: Duration,
    ) -> Option<(Duration, u32)> {
        if track.count != self.restarts {
            if self.restarted {
                // Nothing has come after the restart, so that the clock need not have begun anew yet.
                return self.place(time);
            }
            // A track that no seek reaches goes on with the clock, as a camera does beside a file that is played again.
            let slack = i64::try_from(SLACK.as_nanos()).unwrap_or(i64::MAX);
            if now.is_none_or(|now| time > now.saturating_add(slack)) {
                return None;
            }
            track.count = self.restarts;
        }
        self.timestamp(time, now, wall)
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
        self.place(time)
    }

    /// Puts a time where the offset has it.
    fn place(&mut self, time: i64) -> Option<(Duration, u32)> {
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
        let mut track = timeline.restarts();
        timeline.restart(&mut track, 1);
        let after = timeline.timestamp(0, Some(SECOND), at(122.0));
        assert_eq!(after, Some((at(121.0), 1)));
        // Sent ahead of its time, and begun anew: still after all that was before.
        let ahead = timeline.timestamp(60 * SECOND, Some(SECOND), at(122.0));
        assert_eq!(ahead, Some((at(181.0), 1)));
        timeline.restart(&mut track, 1);
        let after = timeline.timestamp(0, Some(SECOND), at(122.0));
        assert_eq!(after, Some((at(181.001), 2)));
        // The other track follows.
        let other = timeline.timestamp(SECOND, Some(SECOND), at(122.0));
        assert_eq!(other, Some((at(182.001), 2)));
    }

    #[test]
    fn a_seek_that_reaches_one_track_after_the_other_moves_the_timeline_once() {
        let mut timeline = Timeline::new();
        let [mut first, mut second] = [timeline.restarts(), timeline.restarts()];
        for track in [&mut first, &mut second] {
            let before = timeline.timestamp_of(track, 20 * SECOND, Some(20 * SECOND), at(120.0));
            assert_eq!(before, Some((at(120.0), 0)));
        }
        timeline.restart(&mut first, 7);
        // The other has not noticed yet, and the clock goes on until there is something to play.
        let late = timeline.timestamp_of(&mut second, 21 * SECOND, Some(21 * SECOND), at(121.0));
        assert_eq!(late, Some((at(121.0), 0)));
        let after = timeline.timestamp_of(&mut first, 0, Some(0), at(122.0));
        assert_eq!(after, Some((at(122.0), 1)));
        // What it gives now is of the time before.
        let stale = timeline.timestamp_of(&mut second, 22 * SECOND, Some(0), at(122.0));
        assert_eq!(stale, None);
        timeline.restart(&mut second, 7);
        let after = timeline.timestamp_of(&mut second, 0, Some(SECOND), at(123.0));
        assert_eq!(after, Some((at(122.0), 1)));
        // The next seek is another, whichever it reaches first.
        timeline.restart(&mut second, 8);
        timeline.restart(&mut first, 8);
        for track in [&mut first, &mut second] {
            let after = timeline.timestamp_of(track, 0, Some(0), at(130.0));
            assert_eq!(after, Some((at(130.0), 2)));
        }
        // So is the same one that comes to the same track again.
        timeline.restart(&mut first, 8);
        let after = timeline.timestamp_of(&mut first, 0, Some(0), at(140.0));
        assert_eq!(after, Some((at(140.0), 3)));
    }

    #[test]
    fn a_track_that_no_seek_reaches_goes_on() {
        let mut timeline = Timeline::new();
        let [mut file, mut camera] = [timeline.restarts(), timeline.restarts()];
        timeline.timestamp_of(&mut file, 20 * SECOND, Some(20 * SECOND), at(120.0));
        timeline.restart(&mut file, 7);
        timeline.timestamp_of(&mut file, 0, Some(0), at(121.0));
        let live = timeline.timestamp_of(&mut camera, SECOND, Some(SECOND), at(122.0));
        assert_eq!(live, Some((at(122.0), 1)));
        // Should the seek come yet, it has moved the timeline already.
        timeline.restart(&mut camera, 7);
        let live = timeline.timestamp_of(&mut camera, 2 * SECOND, Some(2 * SECOND), at(123.5));
        assert_eq!(live, Some((at(123.0), 1)));
        // One that begins now knows of it, and may be reached by it too.
        let mut late = timeline.restarts();
        timeline.restart(&mut late, 7);
        let new = timeline.timestamp_of(&mut late, 3 * SECOND, Some(3 * SECOND), at(124.0));
        assert_eq!(new, Some((at(124.0), 1)));
    }

    #[test]
    fn nothing_lies_before_the_zero_of_the_broadcast() {
        let mut timeline = Timeline::new();
        assert_eq!(timeline.timestamp(0, None, at(1.0)), Some((at(1.0), 0)));
        assert_eq!(timeline.timestamp(-2 * SECOND, None, at(1.0)), None);
    }
}
