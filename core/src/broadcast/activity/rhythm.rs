//! How regularly the frames of a track come, and when that has stopped.

use std::time::{Duration, Instant};

/// However regular the frames, a network may hold them up for this long.
const LEAST: Duration = Duration::from_millis(300);
/// With frames at an ordinary rate that come one by one, what stops for longer than this has stopped.
const ORDINARY: Duration = Duration::from_millis(800);
/// Frames that are no further apart than this on average come at an ordinary rate.
const ORDINARY_INTERVAL: Duration = Duration::from_millis(200);
/// In this time the longest interval is forgotten to a third, if there is none like it.
const FORGET: Duration = Duration::from_secs(30);
/// Before so many intervals have been seen, nothing is known of the rhythm.
const KNOWN: u32 = 5;
/// What is not known yet has stopped after this.
const UNKNOWN: Duration = Duration::from_secs(3);
/// A track that nobody has waited for in this time says nothing.
const IDLE: Duration = Duration::from_secs(1);

/// The rhythm of a track, as a plain state machine. Only time in which somebody waited for a frame counts: a reader that is
/// not asked receives nothing.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    /// Whether a frame has come.
    begun: bool,
    /// Whether one is expected before.
    expected: bool,
    intervals: u32,
    /// Smoothed, in seconds.
    mean: f64,
    /// The smoothed distance of the intervals from that, in seconds.
    jitter: f64,
    /// The longest interval, in seconds, forgotten with time: frames may come in bursts, or when the picture changes.
    longest: f64,
    /// For how long a frame has been waited for since the last, up to when the waiting was interrupted.
    waited: Duration,
    /// Since when a frame is waited for now.
    waiting: Option<Instant>,
    /// When nobody waited any more.
    rested: Option<Instant>,
}

impl Rhythm {
    /// That of a track of a broadcast that media came of before: it is expected to go on.
    pub(super) fn expected() -> Self {
        Self {
            expected: true,
            ..Self::default()
        }
    }

    /// Somebody begins to wait for a frame.
    pub(super) fn wait(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    /// Nobody waits any more.
    pub(super) fn rest(&mut self, now: Instant) {
        self.waited = self.silence(now);
        self.waiting = None;
        self.rested = Some(now);
    }

    /// A frame came.
    pub(super) fn frame(&mut self, now: Instant) {
        if self.begun {
            // A pause of the network is no rhythm, and a new rhythm is taken up step by step.
            let limit = self.limit() * 2;
            let interval = self.silence(now).min(limit).as_secs_f64();
            if self.intervals == 0 {
                self.mean = interval;
            }
            let off = (interval - self.mean).abs();
            self.mean += (interval - self.mean) / 8.0;
            self.jitter += (off - self.jitter) / 4.0;
            let kept = (-interval / FORGET.as_secs_f64()).exp();
            self.longest = (self.longest * kept).max(interval);
            self.intervals = self.intervals.saturating_add(1);
        }
        self.begun = true;
        self.waited = Duration::ZERO;
        self.waiting = self.waiting.map(|_| now);
    }

    /// What comes next has nothing to do with what was before.
    pub(super) fn reset(&mut self) {
        *self = Self {
            waiting: self.waiting,
            ..Self::default()
        };
    }

    /// Whether frames that came have stopped; `None` where none has come yet and none is expected, or
    /// nobody waits for any.
    pub(super) fn is_late(&self, now: Instant) -> Option<bool> {
        let rests = |since: Instant| now.saturating_duration_since(since) >= IDLE;
        if !(self.begun || self.expected) || self.waiting.is_none() && self.rested.is_none_or(rests)
        {
            return None;
        }
        Some(self.silence(now) >= self.limit())
    }

    /// For how long a frame has been waited for.
    fn silence(&self, now: Instant) -> Duration {
        let waiting = self
            .waiting
            .map(|since| now.saturating_duration_since(since));
        self.waited + waiting.unwrap_or_default()
    }

    /// What the rhythm explains.
    fn limit(&self) -> Duration {
        if self.intervals < KNOWN {
            return UNKNOWN;
        }
        let bursts = Duration::from_secs_f64(1.5 * self.longest);
        let mut regular = Duration::from_secs_f64(2.0 * self.mean + 4.0 * self.jitter);
        if self.mean <= ORDINARY_INTERVAL.as_secs_f64() {
            regular = regular.min(ORDINARY);
        }
        regular.max(bursts).max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A rhythm of frames at these times, which is always waited for.
    fn rhythm(begin: Instant, times: impl IntoIterator<Item = u64>) -> (Rhythm, Instant) {
        let mut rhythm = Rhythm::default();
        let mut last = begin;
        rhythm.wait(begin);
        for at in times {
            last = begin + ms(at);
            rhythm.frame(last);
        }
        (rhythm, last)
    }

    /// After how many milliseconds without a frame it has stopped.
    fn stops_after(rhythm: &Rhythm, last: Instant) -> u64 {
        (0..60_000)
            .step_by(10)
            .find(|after| rhythm.is_late(last + ms(*after)) == Some(true))
            .expect("within a minute")
    }

    #[test]
    fn regular_frames_have_stopped_within_a_second_and_not_at_once() {
        for interval in [10, 20, 33, 100, 200] {
            let (rhythm, last) = rhythm(Instant::now(), (0..50).map(|n| n * interval));
            let after = stops_after(&rhythm, last);
            assert!((300..=800).contains(&after), "{interval}: {after}");
        }
    }

    #[test]
    fn frames_that_come_in_bursts_have_not_stopped_between_two() {
        for (burst, every) in [(10, 500), (30, 500), (30, 1000), (47, 1000), (60, 1000)] {
            let times = (0..20 * burst).map(|n| n / burst * every + n % burst);
            let (rhythm, last) = rhythm(Instant::now(), times);
            let gap = every - burst;
            let after = stops_after(&rhythm, last);
            assert!(
                (gap + 50..=2 * gap).contains(&after),
                "{burst} {every}: {after}"
            );
        }
    }

    #[test]
    fn a_picture_that_changes_now_and_then_has_not_stopped_in_between() {
        // For a second, and then not for five.
        let times = (0..300).map(|n| n / 30 * 6000 + n % 30 * 33);
        let (rhythm, last) = rhythm(Instant::now(), times);
        assert_eq!(rhythm.is_late(last + ms(5043)), Some(false));
        assert!(stops_after(&rhythm, last) < 10_000);
    }

    #[test]
    fn a_pause_of_the_network_is_forgotten() {
        let begin = Instant::now();
        let (mut rhythm, mut last) = rhythm(begin, (0..50).map(|n| n * 33));
        last += ms(2000);
        rhythm.frame(last);
        for _ in 0..1800 {
            last += ms(33);
            rhythm.frame(last);
        }
        assert!(stops_after(&rhythm, last) <= 500);
    }

    #[test]
    fn a_picture_every_five_seconds_has_not_stopped_after_six() {
        let (rhythm, last) = rhythm(Instant::now(), (0..20).map(|n| n * 5000));
        let after = stops_after(&rhythm, last);
        assert!((6000..=15_000).contains(&after), "{after}");
    }

    #[test]
    fn an_outage_is_no_rhythm_and_a_slower_one_is_learnt() {
        let begin = Instant::now();
        let (mut rhythm, last) = rhythm(begin, (0..50).map(|n| n * 33));
        rhythm.frame(last + ms(20_000));
        assert!(stops_after(&rhythm, last + ms(20_000)) <= 2000);
        let mut last = last + ms(20_000);
        for _ in 0..30 {
            last += ms(2000);
            rhythm.frame(last);
        }
        assert_eq!(rhythm.is_late(last + ms(2100)), Some(false));
    }

    #[test]
    fn only_time_in_which_somebody_waits_counts() {
        let begin = Instant::now();
        let (mut rhythm, last) = rhythm(begin, (0..50).map(|n| n * 33));
        rhythm.rest(last);
        assert_eq!(rhythm.is_late(last + ms(900)), Some(false));
        assert_eq!(rhythm.is_late(last + ms(5000)), None, "nobody asks");
        rhythm.wait(last + ms(5000));
        assert_eq!(rhythm.is_late(last + ms(5100)), Some(false));
        // However often the waiting is interrupted.
        let mut now = last + ms(5000);
        for _ in 0..10 {
            now += ms(100);
            rhythm.rest(now);
            rhythm.wait(now);
        }
        assert_eq!(rhythm.is_late(now), Some(true));
    }

    #[test]
    fn before_the_first_frame_and_after_a_pause_nothing_has_stopped() {
        let begin = Instant::now();
        let mut rhythm = Rhythm::default();
        rhythm.wait(begin);
        assert_eq!(rhythm.is_late(begin + ms(60_000)), None);
        rhythm.frame(begin);
        assert_eq!(rhythm.is_late(begin + ms(1000)), Some(false));
        rhythm.reset();
        assert_eq!(rhythm.is_late(begin + ms(60_000)), None);
        // Unless it is known that media came.
        let mut rhythm = Rhythm::expected();
        rhythm.wait(begin);
        assert_eq!(rhythm.is_late(begin + ms(1000)), Some(false));
        assert_eq!(rhythm.is_late(begin + UNKNOWN), Some(true));
    }
}
