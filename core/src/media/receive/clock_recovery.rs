//! Maps a publisher's timestamps to local time, for everything a viewer plays of one broadcast.
//!
//! The *transit* of a frame is its arrival on the local clock minus its timestamp on the
//! publisher's clock: the delay of encoder and path plus the unknown, huge and slowly changing
//! difference (*skew*) of the two clocks. Queues only ever add to the delay, so the smallest
//! transit seen lately is what a track has when nothing holds it up.
//!
//! That differs between tracks: an audio encoder gives a frame away after 20 ms, a video encoder
//! that looks ahead after one or two seconds. **The slowest track decides**: a frame is mapped to
//! `timestamp + offset`, with `offset` following the largest of the tracks' minima. So all tracks
//! are in sync and on time; the frames of the faster ones wait in the sinks. The viewer's
//! `latency` budget is *not* added here, sinks do that; it serves as the threshold beyond which a
//! frame comes too late to be shown.
//!
//! What is assumed:
//!
//! * all tracks of the broadcast are stamped by one clock, at capture. They share one [`ClockRecovery`],
//!   so whatever it does to the offset leaves them in sync with each other;
//! * the budget covers the jitter and the reordering of B-frames: both make some frames of a track
//!   later than its fastest. It need not cover what one track is slower than another;
//! * the local clock is monotonic, and runs within some 0.1 % of the publisher's.
//!
//! The method is an old one: NTP's clock filter trusts the sample with the smallest delay
//! (RFC 5905, section 10), and Fober, Orlarey and Letz ("Real Time Clock Skew Estimation over
//! Network Delays", GRAME 2005) recover a media clock from the minimum over a sliding window, as
//! RTP receivers do. The jitter statistic is that of RFC 3550, section 6.4.1.

mod minima;

use std::time::Duration;

use minima::{FallingMinimum, QUIET_BURST, WINDOW, Window};

const MS: i64 = 1_000_000;

/// Acquisition is over after this in any case: nobody waits longer for the first picture.
const SETTLE_MAX: u64 = 300 * MS as u64;
/// A fall of the minimum below this is not worth waiting for.
const EPSILON: i64 = 5 * MS;

/// A track that has no frame for so long rests, as a screen that is shared and does not change. Nothing is known of its
/// delay but how much longer that was than the others'; so long it still decides. When its subscription ended, it decides
/// no more.
const RESTS: u64 = WINDOW;
/// A track that rests for longer is forgotten.
const FORGOTTEN: u64 = 300_000 * MS as u64;
/// How far the local clock may go back: frames that were held back come with the time of their arrival.
const CLOCK_BACK: u64 = 10_000 * MS as u64;
/// Time without any frame proves nothing: of the time between two frames, more is not counted.
const GAP: u64 = SETTLE_MAX;
/// The offset changes by 1/200 of the media time that passes (0.5 %, 5 ms per second): ten times
/// any plausible skew, and too little to be heard.
const SLEW: i64 = 200;
/// Upwards, errors below this are corrected in proportion: a window without a fast frame then
/// hardly counts, but a skew does (500 ppm lag by 5 ms). Downwards there is no such doubt.
const SLEW_FULL: i64 = 50 * MS;
/// The most media time credited to one frame, so that a gap does not become a jump.
const SLEW_GAP: i64 = 1000 * MS;

/// Tracks earlier than this make the offset step down instead of slewing. Of what is left to
/// the slew, at most 15 ms remain after 3 s: half a frame of video.
const EARLY: i64 = 30 * MS;
/// The longest wait for the end of a draining backlog before a step down.
const EARLY_MAX: u64 = 1000 * MS as u64;
/// The least lateness that makes the offset step up, however small the budget is: just above
/// one frame of video and the usual tolerance of sinks.
const LATE_MIN: i64 = 40 * MS;
/// So many jitter estimates are jitter: uniform delays reach three times their mean difference.
const JITTERS: i64 = 3;
/// Every frame of a track has to be too late for this long, and for [`CONFIRM_FRAMES`], before a
/// step up. The picture stands still meanwhile; but a stall that ends within it needs no step.
const CONFIRM: u64 = 1000 * MS as u64;
const CONFIRM_FRAMES: u32 = 10;
/// While the minimum of the late frames still falls by this, a backlog drains: not a new delay.
const DRAIN: i64 = 50 * MS;
/// But a picture that stands still for longer is worse than steps up and back down.
const DRAIN_MAX: u64 = 4000 * MS as u64;
/// Frames this early in their track, or back in it by this and as late, have another timeline.
const JUMP: i64 = 2000 * MS;
/// So do those that are back by this, and by twice what the encoder has reordered frames by so far.
const REORDERED: i64 = 500 * MS;
/// So do tracks that are slower than the fastest by more than this: no encoder's delay explains it.
const SPREAD: i64 = 10_000 * MS;
/// The tracks remembered; the oldest is forgotten. This bounds the memory, not the broadcast.
const TRACKS: usize = 32;

/// What an observed frame did to the mapping.
#[must_use = "sinks have to be told of a discontinuity"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjustment {
    /// Nothing, or a slew too slow to notice: mapped time is continuous.
    Steady,
    /// The delay of the path changed, or another track is the slowest now, and the offset stepped;
    /// the observed frame and all after it, of every track, are mapped anew. The next buffer of
    /// each track is a discontinuity.
    Stepped {
        /// The change of the offset in nanoseconds: positive when latency was added.
        by: i64,
    },
    /// The publisher's timeline jumped. What was known is void, and acquisition begins again with
    /// the observed frame. The next buffer of each track is a discontinuity.
    Reanchored,
}

/// The one timeline of a broadcast: see the [module documentation](self).
///
/// For every frame, [`observe`](Self::observe) it, hold it until [`acquired`](Self::acquired),
/// then [`map`](Self::map) its timestamp. The first buffer after each acquisition or reconnection
/// is a discontinuity, as is what an [`Adjustment`] says to be one.
#[derive(Clone, Debug)]
pub struct ClockRecovery {
    latency: i64,
    phase: Phase,
    /// The offset before a reconnection, until the new transits confirm or refute it.
    prior: Option<i64>,
    /// The number of tracks before a reconnection, and until when the offset waits for as many.
    before: (usize, u64),
    offset: i64,
    tracks: Vec<Track>,
    /// The tracks are early beyond [`EARLY`]: waits for the minimum, so as to step down once.
    early: Option<FallingMinimum>,
    /// The highest timestamp: its advance is the media time the slew rate refers to. Referring to
    /// media time makes mapped time monotonic wherever timestamps are.
    head: i64,
    /// The local time of the last frame, and the time that had passed by then, but for gaps. All
    /// else refers to the latter.
    arrival: u64,
    time: u64,
    jitter: i64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting,
    Acquiring { since: u64 },
    Steady,
}

#[derive(Clone, Debug)]
struct Track {
    id: u32,
    highest: i64,
    /// The transit of the frame with the highest timestamp.
    transit: i64,
    /// By how much frames were back, as B-frames are.
    reordered: i64,
    /// When its last frame came.
    seen: u64,
    /// Whether its subscription ended.
    ended: bool,
    /// How much longer its delay is than that of the fastest, while it rests.
    extra: Option<i64>,
    window: Window,
    /// It is new, and its frames may be a backlog: waits for the minimum.
    new: Option<FallingMinimum>,
    /// All its frames are too late: waits for the confirmation of a step up.
    late: Option<FallingMinimum>,
}

impl ClockRecovery {
    /// A timeline that has seen no frame yet, for sinks with this latency budget.
    pub fn new(latency: Duration) -> Self {
        Self {
            latency: clamp(latency.as_nanos()),
            phase: Phase::Waiting,
            prior: None,
            before: (0, 0),
            offset: 0,
            tracks: Vec::new(),
            early: None,
            head: 0,
            arrival: 0,
            time: 0,
            jitter: 0,
        }
    }

    /// Sets the latency budget, at any time. It does not move the offset: the source has to post
    /// its new latency for the sinks to apply.
    pub fn set_latency(&mut self, latency: Duration) {
        self.latency = clamp(latency.as_nanos());
    }

    /// The latency budget in nanoseconds.
    pub fn latency(&self) -> i64 {
        self.latency
    }

    /// The subscription with this number has ended: soon it decides no more.
    pub fn unsubscribed(&mut self, track: u32) {
        if let Some(track) = self.tracks.iter_mut().find(|other| other.id == track) {
            track.ended = true;
        }
    }

    /// Takes note of a frame, in decode order within its track.
    ///
    /// `track` is any number for one subscription to one track. Subscribing again starts with a
    /// key frame that may be seconds old, so it takes a new number. `timestamp` is in nanoseconds
    /// of the publisher's clock, `arrival` in nanoseconds of the local clock.
    ///
    /// While acquiring, the offset follows the minima freely, without an event. A track that
    /// appears later moves it after 80 ms, or 300 ms after the last of a backlog.
    pub fn observe(&mut self, track: u32, timestamp: u64, arrival: u64) -> Adjustment {
        let timestamp = clamp(timestamp);
        let transit = transit(timestamp, arrival);
        self.conclude(arrival);
        self.time = self.time_at(arrival);
        if arrival > self.arrival || arrival < self.arrival.saturating_sub(CLOCK_BACK) {
            self.arrival = arrival;
        }
        self.rest(track);

        let jumped = self.jumped(track, timestamp, transit);
        if jumped.is_some() || matches!(self.phase, Phase::Waiting) {
            self.phase = Phase::Acquiring { since: self.time };
            self.tracks.clear();
            self.early = None;
            self.head = timestamp;
        }
        let index = self.record(track, timestamp, transit);
        if let Some(reordered) = jumped {
            // If it was none after all, it is not taken for one again.
            self.tracks[index].reordered = reordered;
            self.offset = transit;
            return Adjustment::Reanchored;
        }
        let advance = timestamp.saturating_sub(self.head).clamp(0, SLEW_GAP);
        self.head = self.head.max(timestamp);

        if let Some(prior) = self.prior
            && (-SPREAD..=self.tolerance()).contains(&transit.saturating_sub(prior))
        {
            // One frame on time is proof that the old offset still holds. Being fast is on time.
            self.prior = None;
            self.phase = Phase::Steady;
            self.offset = prior;
            return Adjustment::Steady;
        }
        if matches!(self.phase, Phase::Acquiring { .. }) {
            self.offset = self.target();
        } else if self.step_up(index, transit) || self.step_down() {
            self.early = None;
            let by = self.target().saturating_sub(self.offset);
            self.offset = self.offset.saturating_add(by);
            return Adjustment::Stepped { by };
        } else {
            self.slew(advance);
        }
        Adjustment::Steady
    }

    /// The local time in nanoseconds, negative if before the clock's zero, at which the frame with
    /// this timestamp counts as having been on time. Sinks add the latency budget to it.
    pub fn map(&self, timestamp: u64) -> i64 {
        clamp(timestamp).saturating_add(self.offset)
    }

    /// Whether the offset can be relied on at local time `now` (nanoseconds): there was a frame,
    /// and the backlog that a viewer who joins late gets first has been received, or has taken too
    /// long to be waited for.
    ///
    /// This becomes true by the passing of time: 20 ms after the first frame of each track, 80 ms
    /// after the last of a backlog, but at most 300 ms after the first frame of all.
    pub fn acquired(&self, now: u64) -> bool {
        let now = self.time_at(now);
        // With an offset that may still hold, a backlog gets all the time there is.
        let known = || self.prior.is_none() && self.tracks.iter().all(|track| track.known(now));
        match self.phase {
            Phase::Waiting => false,
            Phase::Acquiring { since } => now - since >= SETTLE_MAX || known(),
            Phase::Steady => true,
        }
    }

    /// Says that the connection was lost and is there again, at local time `now` (nanoseconds).
    ///
    /// The offset stays if the new transits agree with it within the budget: at once with the
    /// first frame on time. If there is none within 300 ms, the offset is acquired anew.
    pub fn reconnected(&mut self, now: u64) {
        self.conclude(now);
        if matches!(self.phase, Phase::Steady) {
            self.prior = Some(self.offset);
            self.before = (self.tracks.len().max(self.missing()), self.time + RESTS);
        }
        self.phase = Phase::Waiting;
        self.tracks.clear();
    }

    /// Local time minus the publisher's time, in nanoseconds, as now applied by [`map`](Self::map).
    #[cfg(test)]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// How much later than on time a frame arrived, in nanoseconds, negative if earlier. Beyond
    /// the latency budget it is too late for a synchronised sink. The frames of a track that is
    /// faster than the slowest are always early.
    #[cfg(test)]
    pub fn lateness(&self, timestamp: u64, arrival: u64) -> i64 {
        transit(clamp(timestamp), arrival).saturating_sub(self.offset)
    }

    /// The interarrival jitter of RFC 3550, section 6.4.1: the smoothed difference of the transits
    /// of successive frames of a track. Reordered frames (B-frames) and jumps do not count.
    pub fn jitter(&self) -> Duration {
        Duration::from_nanos(self.jitter.unsigned_abs())
    }

    /// The lateness in nanoseconds that a new track may have without a step: it leaves most of the
    /// budget. But after a reconnection the new tracks are those from before.
    fn slack(&self) -> i64 {
        let share = if self.missing() == 0 { 3 } else { 1 };
        (self.latency / share)
            .max(LATE_MIN)
            .max(JITTERS * self.jitter)
    }

    /// The lateness in nanoseconds that the path's jitter or the budget account for; all of the
    /// budget would leave nothing for the frames that come later than most. A budget that the
    /// jitter exceeds loses frames, but would not lose fewer by following the jitter.
    fn tolerance(&self) -> i64 {
        (self.latency / 10 * 9).max(self.slack())
    }

    /// The time at local time `now`. What a clock that was wrong once did to it is forgotten.
    fn time_at(&self, now: u64) -> u64 {
        self.time + now.saturating_sub(self.arrival).min(GAP)
    }

    /// The number of tracks to wait for after a reconnection.
    fn missing(&self) -> usize {
        match self.phase {
            Phase::Steady if self.time < self.before.1 => self.before.0,
            _ => 0,
        }
    }

    /// A track counts if its delay is known by then: now, or at the end of the acquisition. If it
    /// is none's by then, all count.
    fn deadline(&self) -> u64 {
        let Phase::Acquiring { since } = self.phase else {
            return 0;
        };
        let end = since + SETTLE_MAX;
        let any = self.tracks.iter().any(|track| track.known(end));
        if any { end } else { u64::MAX }
    }

    /// What the offset should be: the delay of the slowest track.
    fn target(&self) -> i64 {
        let deadline = self.deadline();
        let tracks = self.tracks.iter().filter(|track| track.known(deadline));
        // The slowest may not be back yet.
        let held = (tracks.clone().count() < self.missing()).then_some(self.offset);
        let active = tracks.clone().filter(|track| track.extra.is_none());
        let fastest = active.map(|track| track.window.min()).min();
        let fastest = fastest.unwrap_or(self.offset);
        let minima = tracks.map(|track| match track.extra {
            Some(extra) => fastest.saturating_add(extra),
            None => track.window.min(),
        });
        let limit = fastest.saturating_add(SPREAD);
        let slowest = minima.filter(|min| *min <= limit).max();
        slowest.max(held).unwrap_or(self.offset)
    }

    /// Takes note of tracks that have no frames any more, and of one that has them again.
    fn rest(&mut self, awake: u32) {
        let time = self.time;
        self.tracks.retain(|track| {
            let limit = if track.ended { RESTS } else { FORGOTTEN };
            time - track.seen <= limit
        });
        let active = self.tracks.iter().filter(|track| track.extra.is_none());
        let others = active.filter(|track| time - track.seen <= RESTS);
        let Some(fastest) = others.map(|track| track.window.min()).min() else {
            return;
        };
        for track in &mut self.tracks {
            if track.id == awake {
                if let Some(extra) = track.extra.take() {
                    track.window = Window::new(fastest.saturating_add(extra), time);
                    track.late = None;
                }
            } else if time - track.seen > RESTS && track.extra.is_none() {
                track.extra = Some(track.window.min().saturating_sub(fastest));
            }
        }
    }

    /// Whether a frame belongs to another timeline than the frames before, and by how much it went back, if so.
    ///
    /// A backlog, however old, goes on where its track was; only another timeline goes back.
    /// Without going back, lateness is a matter for the confirmation of a step.
    fn jumped(&self, id: u32, timestamp: i64, transit: i64) -> Option<i64> {
        let steady = matches!(self.phase, Phase::Steady);
        let Some(track) = self.tracks.iter().find(|track| track.id == id) else {
            return (steady && transit.saturating_sub(self.offset) < -SPREAD).then_some(0);
        };
        let late = transit.saturating_sub(track.window.min());
        let back = track.highest - timestamp;
        let known = steady && track.new.is_none();
        let limit = REORDERED.max(2 * track.reordered).min(JUMP);
        if back > JUMP && late > JUMP || known && back > limit && late > limit {
            return Some(back.min(JUMP));
        }
        (known && late < -JUMP).then_some(0)
    }

    /// Updates the track and the jitter, and returns the track's index.
    fn record(&mut self, id: u32, timestamp: i64, transit: i64) -> usize {
        let found = self.tracks.iter().position(|track| track.id == id);
        let index = found.unwrap_or_else(|| {
            self.tracks
                .drain(..self.tracks.len().saturating_sub(TRACKS - 1));
            self.tracks.push(Track {
                id,
                highest: timestamp,
                transit,
                reordered: 0,
                seen: self.time,
                ended: false,
                extra: None,
                window: Window::new(transit, self.time),
                new: Some(FallingMinimum::new(transit, self.time)),
                late: None,
            });
            self.tracks.len() - 1
        });
        let track = &mut self.tracks[index];
        track.seen = self.time;
        track.window.push(transit, self.time);
        if let Some(new) = &mut track.new {
            new.push(transit, self.time, EPSILON);
        }
        if timestamp > track.highest {
            let difference = transit.saturating_sub(track.transit).saturating_abs();
            if difference <= JUMP {
                self.jitter += (difference - self.jitter) / 16;
            }
            track.highest = timestamp;
            track.transit = transit;
        } else {
            let back = (track.highest - timestamp).min(JUMP);
            track.reordered = track.reordered.max(back);
        }
        index
    }

    /// Ends the acquisition if its time is over.
    fn conclude(&mut self, now: u64) {
        if matches!(self.phase, Phase::Acquiring { .. }) && self.acquired(now) {
            let deadline = self.deadline();
            for track in &mut self.tracks {
                track.new.take_if(|new| new.end() <= deadline);
            }
            self.phase = Phase::Steady;
            self.prior = None;
            self.before = (0, 0);
        }
    }

    /// Whether to step up for the track that a frame just came of: when every frame comes too late
    /// to be shown, a slew would freeze the picture for minutes.
    fn step_up(&mut self, index: usize, transit: i64) -> bool {
        let (offset, time) = (self.offset, self.time);
        let (slack, tolerance) = (self.slack(), self.tolerance());
        let track = &mut self.tracks[index];
        if let Some(new) = &track.new {
            // More patience than while acquiring: a backlog's next flight would undo the step.
            let quiet = if new.burst() { SETTLE_MAX } else { QUIET_BURST };
            if time - new.fell < quiet && time - new.since < DRAIN_MAX {
                return false;
            }
            track.new = None;
            let min = track.window.min();
            return self.target().min(min).saturating_sub(offset) > slack;
        }
        if transit.saturating_sub(offset) <= tolerance {
            track.late = None;
            return false;
        }
        let late = track
            .late
            .get_or_insert_with(|| FallingMinimum::new(transit, time));
        late.push(transit, time, DRAIN);
        let confirmed = time - late.fell >= CONFIRM && late.frames >= CONFIRM_FRAMES;
        if !confirmed && time - late.since < DRAIN_MAX {
            return false;
        }
        // The path is that of all tracks: one step for all that have as many late frames.
        let frames = late.frames.min(CONFIRM_FRAMES);
        for track in &mut self.tracks {
            if let Some(late) = track.late.take_if(|late| late.frames >= frames) {
                track.window = Window::new(late.min, time);
            }
        }
        self.target() > offset
    }

    /// Whether to step down.
    ///
    /// No frame is early by accident, so there is nothing to confirm, and one discontinuity is
    /// better than a latency that stays up for a minute. Only the end of a draining backlog is
    /// awaited, to step once instead of with each frame; early frames are shown all the same.
    fn step_down(&mut self) -> bool {
        let (target, time) = (self.target(), self.time);
        if target.saturating_sub(self.offset) >= -EARLY {
            self.early = None;
            return false;
        }
        let early = self
            .early
            .get_or_insert_with(|| FallingMinimum::new(target, time));
        early.push(target, time, EPSILON);
        time - early.fell >= QUIET_BURST || time - early.since >= EARLY_MAX
    }

    /// Moves the offset towards the target, by what `advance` of media time allows.
    fn slew(&mut self, advance: i64) {
        let error = self.target().saturating_sub(self.offset);
        let limit = advance / SLEW;
        let rise = error.clamp(0, SLEW_FULL) * limit / SLEW_FULL;
        self.offset = self.offset.saturating_add(error.clamp(-limit, rise));
    }
}

/// Nanoseconds as a signed number. What does not fit is no time but garbage.
fn clamp(nanoseconds: impl TryInto<i64>) -> i64 {
    nanoseconds.try_into().unwrap_or(i64::MAX)
}

/// The difference of two numbers that are not negative: it cannot overflow.
fn transit(timestamp: i64, arrival: u64) -> i64 {
    clamp(arrival) - timestamp
}

impl Track {
    /// Whether its delay is known at this time, if its minimum falls no more.
    fn known(&self, time: u64) -> bool {
        self.new.as_ref().is_none_or(|new| new.end() <= time)
    }
}

#[cfg(test)]
mod tests;
