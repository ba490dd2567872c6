//! What the arrival of a track's frames says of the download path.

use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

/// A frame counts as late beyond half of the player's budget, so that something can be done before the other half is used
/// up; and beyond something in between these. Less is the jitter of a common path.
const LATE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(150));
/// Frames that stay this late mean trouble even when the delay grows no more: the queue is as full as it gets.
const BEHIND: Duration = Duration::from_secs(1);
/// No frame for so long, where frames came before, means trouble.
const STALLED: Duration = Duration::from_secs(2);
/// The same where the last frame was late already: not a link that is gone, but one that is full.
const CHOKED: Duration = Duration::from_millis(700);
/// So many skipped groups within [`SKIP_WINDOW`] mean trouble. One alone may be the publisher's own pause.
const SKIPS: u32 = 2;
const SKIP_WINDOW: Duration = Duration::from_secs(4);
/// The delay has to grow by this from one slice of time to the next, and again, to count as growing: a path that became
/// longer makes it grow once.
const GROWTH: i64 = 20_000_000;
/// The slices that are compared: short ones find a link that is far too thin soon, long ones one that is by 2 %.
const SLICES: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1200)];
/// Frames are remembered as long as three of the longest slices.
const MEMORY: Duration = Duration::from_millis(3600);
/// The delay is compared with the smallest in this time. Longer than a queue takes to build, short enough that a new
/// path is soon taken as it is.
const BASE_WINDOW: Duration = Duration::from_secs(10);
const BASE_STEP: Duration = Duration::from_millis(500);
/// The rate is that of the last second.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Lost packets make single frames late again and again: this share of them, in each of four slices of 500 ms.
const UNSTEADY: f64 = 0.2;
const UNSTEADY_SLICE: Duration = Duration::from_millis(500);
/// The delay of the path is that of the frames of this time.
const DELAY_WINDOW: Duration = Duration::from_millis(300);
/// A timestamp this far from what the frames before let expect is of another timeline.
const JUMP: i64 = 10_000_000_000;

/// Measures a track as its frames arrive. A plain state machine: time is passed in, counted from any fixed point.
///
/// The *transit* of a frame is its arrival minus its timestamp; its *lateness* is how much its transit exceeds the
/// smallest in ten seconds. As timestamps are those of the capture, a queue anywhere between the publisher's encoder
/// and this machine shows in it, whatever holds the frames up, while the way back plays no part.
///
/// A link that is too thin makes lateness grow on and on. A path that merely became longer makes it grow once, and lost
/// packets make single frames late: so it is the smallest transit of a slice of time that is looked at, and it has to
/// grow over two slices in a row (the trend of the one-way delay, as in Google's congestion control for real-time
/// traffic; the minimum of an interval as the sign of a standing queue, as in CoDel, RFC 8289).
#[derive(Debug, Clone)]
pub struct DownloadMeter {
    /// Beyond this a frame is late.
    late: Duration,
    frames: VecDeque<Arrival>,
    /// Smallest transits of slices of [`BASE_STEP`], by their beginning.
    base: VecDeque<(Duration, i64)>,
    skips: VecDeque<Duration>,
    highest: Option<i64>,
    first: Option<Duration>,
    last: Option<Duration>,
    interval: Option<Duration>,
    last_key: Option<i64>,
    key_interval: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: Duration,
    bytes: usize,
    /// The newest timestamp by then.
    highest: i64,
    /// None for frames that were reordered: their transit says something of the encoder.
    transit: Option<Transit>,
}

/// The transit of a frame, as far as it is known: it may have been waiting when it was looked for.
#[derive(Debug, Clone, Copy)]
struct Transit {
    least: i64,
    most: i64,
}

impl Transit {
    /// That of the fastest frame.
    fn fastest(transits: impl Iterator<Item = Self>) -> Option<Self> {
        transits.reduce(|a, b| Self {
            least: a.least.min(b.least),
            most: a.most.min(b.most),
        })
    }

    /// By how much it exceeds another one at least.
    fn above(self, other: Self) -> i64 {
        self.least.saturating_sub(other.most)
    }
}

impl Default for DownloadMeter {
    fn default() -> Self {
        Self::new()
    }
}

/// What [`DownloadMeter`] found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct DownloadReport {
    /// What was received in the last second, bits per second.
    pub rate: u64,
    /// The bitrate of the track, bits per second: what belongs to a second of it, however fast it came. `None` until a second
    /// of it is there.
    pub bitrate: Option<u64>,
    /// How much later than the fastest of the last ten seconds the fastest frame of the last 400 ms was.
    pub lateness: Duration,
    /// Groups that were skipped in the last four seconds.
    pub skipped: u32,
    /// For how long a frame has been overdue.
    pub stalled: Duration,
    /// The time from one key frame to the next, as last seen.
    pub key_interval: Option<Duration>,
    /// Why the track does not get through as it should; `None` when it does.
    pub congestion: Option<Congestion>,
    /// Whether nothing at all is wrong: a precondition for asking more of the path.
    pub healthy: bool,
}

/// How a track fails to get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// Each frame is later than those before: more is sent than gets through.
    Growing,
    /// All frames are late by a second or more.
    Behind,
    /// Groups were skipped, as they were too late.
    Skipping,
    /// Frames are late again and again, as packets are lost and sent anew.
    Unsteady,
    /// Nothing comes any more.
    Stalled,
}

impl DownloadMeter {
    /// A meter that has seen no frame, for a player that waits for 300 ms.
    pub fn new() -> Self {
        Self::with_budget(LATE.1 * 2)
    }

    /// A meter that has seen no frame, for a player that shows frames that are late by up to `budget`.
    pub fn with_budget(budget: Duration) -> Self {
        Self {
            late: (budget / 2).clamp(LATE.0, LATE.1),
            frames: VecDeque::new(),
            base: VecDeque::new(),
            skips: VecDeque::new(),
            highest: None,
            first: None,
            last: None,
            interval: None,
            last_key: None,
            key_interval: None,
        }
    }

    /// What comes next has nothing to do with what was before.
    pub(super) fn restart(&mut self) {
        *self = Self::with_budget(self.late * 2);
    }

    /// Takes note of a frame, in decode order.
    ///
    /// `timestamp` is the publisher's; `arrival` must not go back. `skipped` says that groups are missing before it.
    pub fn observe(
        &mut self,
        timestamp: Duration,
        bytes: usize,
        keyframe: bool,
        skipped: bool,
        arrival: Duration,
    ) {
        self.observe_within(timestamp, bytes, keyframe, skipped, arrival..=arrival);
    }

    /// The same for a frame of which it is only known that it arrived within `arrival`.
    ///
    /// It never counts as earlier than it can have been, as all others would be late against it; nor as later.
    pub(super) fn observe_within(
        &mut self,
        timestamp: Duration,
        bytes: usize,
        keyframe: bool,
        skipped: bool,
        arrival: RangeInclusive<Duration>,
    ) {
        let (earliest, latest) = arrival.into_inner();
        let at = self.last.map_or(latest, |last| latest.max(last));
        let stamp = nanos(timestamp);
        let transit = Transit {
            least: nanos(earliest).saturating_sub(stamp),
            most: nanos(at).saturating_sub(stamp),
        };
        if self.is_elsewhere(stamp, transit) {
            self.restart();
        }
        if skipped && self.last.is_some() {
            self.skips.push_back(at);
        }
        let advances = self.highest.is_none_or(|highest| stamp > highest);
        if advances {
            if let Some(highest) = self.highest {
                let step = duration(stamp - highest);
                let known = self.interval.unwrap_or(step);
                self.interval = Some((known * 7 + step) / 8);
            }
            self.highest = Some(stamp);
            self.note_base(at, transit.most);
        }
        if keyframe {
            if let Some(last) = self.last_key.filter(|last| stamp > *last) {
                self.key_interval = Some(duration(stamp - last));
            }
            self.last_key = Some(stamp);
        }
        self.first.get_or_insert(at);
        self.last = Some(at);
        self.frames.push_back(Arrival {
            at,
            bytes,
            highest: self.highest.unwrap_or(stamp),
            transit: advances.then_some(transit),
        });
        while let Some(frame) = self.frames.front()
            && frame.at + MEMORY < at
        {
            self.frames.pop_front();
        }
        while let Some(skip) = self.skips.front()
            && *skip + SKIP_WINDOW < at
        {
            self.skips.pop_front();
        }
    }

    /// How much later than the fastest frame of late a frame with this timestamp is when it arrives at `arrival`.
    pub fn lateness(&self, timestamp: Duration, arrival: Duration) -> Duration {
        let transit = nanos(arrival).saturating_sub(nanos(timestamp));
        self.base_transit().map_or(Duration::ZERO, |base| {
            duration(transit.saturating_sub(base))
        })
    }

    /// The state of things at `now`.
    pub fn report(&self, now: Duration) -> DownloadReport {
        let Some(last) = self.last else {
            return DownloadReport::default();
        };
        let stalled = now
            .saturating_sub(last)
            .saturating_sub(self.interval.unwrap_or_default() * 2);
        let newest = self.fastest(now, SLICES[0], 0).or(self.latest_transit());
        let lateness = match (newest, self.base_transit()) {
            (Some(newest), Some(base)) => duration(newest.least.saturating_sub(base)),
            _ => Duration::ZERO,
        };
        let skipped = self.skipped(now);
        let congestion = self.congestion(now, lateness, stalled, skipped);
        let healthy = congestion.is_none()
            && lateness < self.late
            && skipped == 0
            && stalled < self.late * 3
            && self.unsteady_slices(now) < 2;
        DownloadReport {
            rate: self.rate(now),
            bitrate: self.bitrate(),
            lateness,
            skipped,
            stalled,
            key_interval: self.key_interval,
            congestion,
            healthy,
        }
    }

    fn congestion(
        &self,
        now: Duration,
        lateness: Duration,
        stalled: Duration,
        skipped: u32,
    ) -> Option<Congestion> {
        // Against the frames just before, as a path that became longer is no sign of a full link.
        let since = self.last.unwrap_or_default().saturating_sub(CHOKED * 2);
        let before = self.frames.iter().filter(|frame| frame.at >= since);
        let fastest = Transit::fastest(before.filter_map(|frame| frame.transit));
        let patience = match self.latest_transit().zip(fastest) {
            Some((latest, fastest)) if duration(latest.above(fastest)) >= self.late => CHOKED,
            _ => STALLED,
        };
        if stalled >= patience {
            return Some(Congestion::Stalled);
        }
        if skipped >= SKIPS {
            return Some(Congestion::Skipping);
        }
        if lateness >= self.late && SLICES.iter().any(|slice| self.grows(now, *slice)) {
            return Some(Congestion::Growing);
        }
        if self.is_behind(now) {
            return Some(Congestion::Behind);
        }
        (self.unsteady_slices(now) == 4).then_some(Congestion::Unsteady)
    }

    /// Whether a frame belongs to another timeline than those before.
    fn is_elsewhere(&self, stamp: i64, transit: Transit) -> bool {
        let back = self
            .highest
            .is_some_and(|highest| highest.saturating_sub(stamp) > JUMP / 4);
        let jumped = self
            .latest_transit()
            .is_some_and(|latest| latest.above(transit) > JUMP);
        back || jumped
    }

    fn note_base(&mut self, at: Duration, transit: i64) {
        match self.base.back_mut() {
            Some((begin, min)) if at < *begin + BASE_STEP => *min = (*min).min(transit),
            _ => self.base.push_back((at, transit)),
        }
        while self
            .base
            .front()
            .is_some_and(|(begin, _)| *begin + BASE_WINDOW < at)
        {
            self.base.pop_front();
        }
    }

    fn base_transit(&self) -> Option<i64> {
        self.base.iter().map(|(_, min)| *min).min()
    }

    fn latest_transit(&self) -> Option<Transit> {
        self.frames.iter().rev().find_map(|frame| frame.transit)
    }

    /// The transits of the frames that came in the slice of time `back` slices ago.
    fn transits(&self, now: Duration, slice: Duration, back: u32) -> impl Iterator<Item = Transit> {
        let end = now.saturating_sub(slice * back);
        let begin = now.saturating_sub(slice * (back + 1));
        self.frames
            .iter()
            .filter(move |frame| frame.at > begin && frame.at <= end)
            .filter_map(|frame| frame.transit)
    }

    fn fastest(&self, now: Duration, slice: Duration, back: u32) -> Option<Transit> {
        Transit::fastest(self.transits(now, slice, back))
    }

    fn grows(&self, now: Duration, slice: Duration) -> bool {
        let of = |back| self.fastest(now, slice, back);
        match (of(2), of(1), of(0)) {
            (Some(first), Some(second), Some(third)) => {
                second.above(first) >= GROWTH && third.above(second) >= GROWTH
            }
            _ => false,
        }
    }

    /// Whether every frame is very late, and no backlog is draining.
    fn is_behind(&self, now: Duration) -> bool {
        let Some(base) = self.base_transit() else {
            return false;
        };
        let window = now.saturating_sub(BEHIND + BEHIND / 2);
        let mut frames = self
            .frames
            .iter()
            .filter(|frame| frame.at >= window)
            .filter_map(|frame| {
                Some((
                    frame.at,
                    duration(frame.transit?.least.saturating_sub(base)),
                ))
            });
        let Some(first) = frames.next() else {
            return false;
        };
        let mut last = first;
        let all_late = first.1 >= BEHIND
            && frames.all(|frame| {
                last = frame;
                frame.1 >= BEHIND
            });
        all_late && last.0 - first.0 >= BEHIND / 2 && last.1 + self.late / 3 >= first.1
    }

    /// In how many of the last four slices a good share of the frames, but not all, was late.
    fn unsteady_slices(&self, now: Duration) -> usize {
        let Some(fastest) = self.fastest(now, UNSTEADY_SLICE * 4, 0) else {
            return 0;
        };
        let limit = fastest.most.saturating_add(nanos(self.late));
        (0..4)
            .filter(|back| {
                let transits = || self.transits(now, UNSTEADY_SLICE, *back);
                let late = transits().filter(|transit| transit.least > limit).count();
                // Where all are late something else is going on: a backlog drains, or the path became longer.
                late < transits().count() && late as f64 >= UNSTEADY * transits().count() as f64
            })
            .count()
    }

    fn skipped(&self, now: Duration) -> u32 {
        let recent = self.skips.iter().filter(|at| **at + SKIP_WINDOW >= now);
        recent.count().try_into().unwrap_or(u32::MAX)
    }

    fn rate(&self, now: Duration) -> u64 {
        let Some(first) = self.first else { return 0 };
        let begin = now.saturating_sub(RATE_WINDOW).max(first);
        let bytes: usize = self
            .frames
            .iter()
            .filter(|frame| frame.at > begin)
            .map(|frame| frame.bytes)
            .sum();
        let seconds = (now - begin).max(RATE_WINDOW / 4).as_secs_f64();
        (bytes as f64 * 8.0 / seconds) as u64
    }
}

impl DownloadMeter {
    /// The timestamp of the newest key frame.
    pub(super) fn last_key(&self) -> Option<Duration> {
        self.last_key.map(duration)
    }

    /// By how much the path takes longer than at best, now: the lateness of the middle one of the latest frames. One that
    /// came for the second time says nothing of it. `None` when none comes.
    pub(super) fn delay(&self, now: Duration) -> Option<Duration> {
        let base = self.base_transit()?;
        let transits = self.transits(now, DELAY_WINDOW, 0);
        let mut late: Vec<_> = transits
            .map(|transit| transit.least.saturating_sub(base))
            .collect();
        let middle = late.len() / 2;
        (!late.is_empty()).then(|| duration(*late.select_nth_unstable(middle).1))
    }

    /// When a rendition of the same picture whose last key frame had the timestamp `last` could bring its next one, if
    /// its key frames are as far apart as those of this one; after `now`.
    pub(super) fn next_key(&self, last: Duration, now: Duration) -> Option<Duration> {
        let interval = nanos(self.key_interval?);
        let arrival = nanos(last).saturating_add(self.base_transit()?);
        let missed = nanos(now).saturating_sub(arrival).max(0);
        let intervals = missed.checked_div(interval)?.saturating_add(1);
        let next = arrival.saturating_add(intervals.saturating_mul(interval));
        u64::try_from(next).ok().map(Duration::from_nanos)
    }

    fn bitrate(&self) -> Option<u64> {
        let first = self.frames.front()?;
        let last = self.frames.back()?;
        let span = duration(last.highest - first.highest);
        if span < RATE_WINDOW {
            return None;
        }
        let bytes: usize = self.frames.iter().skip(1).map(|frame| frame.bytes).sum();
        Some((bytes as f64 * 8.0 / span.as_secs_f64()) as u64)
    }
}

fn nanos(duration: Duration) -> i64 {
    duration.as_nanos().try_into().unwrap_or(i64::MAX)
}

/// Zero for what is negative.
fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests;
