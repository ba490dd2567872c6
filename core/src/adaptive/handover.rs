//! From one rendition to another without a gap and without a doubled frame.

use std::{collections::VecDeque, time::Duration};

use crate::broadcast::EncodedFrame;

/// A timestamp this far back is no reordered frame but another timeline.
pub(super) const JUMP: Duration = Duration::from_secs(10);

/// A key frame that was missed by no more than this still serves: what was shown since is quickly decoded again.
const MISSED: Duration = Duration::from_millis(300);

/// A frame, and when it was there to be handed out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arrived {
    pub frame: EncodedFrame,
    pub at: Duration,
}

/// How patient a handover is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long a frame of the old rendition may be held back for a key frame of the new one.
    pub hold: Duration,
    /// How far the old rendition may fall behind the new one before it is left.
    pub lag: Duration,
    /// Whether frames may be handed out that are to be decoded and not shown.
    pub decode_only: bool,
}

/// Joins two renditions of one picture while both are received. A plain state machine: time is passed in.
///
/// The new one takes over at its first key frame that is newer than everything handed out: up to there the old one's
/// frames are handed out, from there on the new one's. So that the key frame is not missed by a hair (it is larger, and
/// comes later, than the old one's frame of the same moment), frames of the old one are held back while the new one lags
/// behind, as long as they are no later for it than `hold`.
///
/// A key frame that was missed by little all the same, as on a path with jitter, serves where frames may be handed out
/// that are to be decoded only: those up to what was handed out.
///
/// When the old one ends, or falls behind by more than `lag`, the picture would stand still until that key frame. Then
/// the new one takes over from the key frame before: its frames up to what was handed out are to be decoded only.
///
/// Assumes that the timestamps of both come of one clock, as those of a broadcast do, and that nothing after a key frame
/// needs what was before it. With B-frames and key frames at different moments in both, the old one's last few may be
/// missing.
#[derive(Debug)]
pub(super) struct Handover {
    patience: Patience,
    /// The newest timestamp that was handed out.
    played: Option<Duration>,
    old: VecDeque<Held>,
    old_ended: bool,
    /// How far apart the old one's frames are, while they come in the order in which they are shown.
    interval: Option<Duration>,
    /// The newest timestamp of the old one.
    newest: Option<Duration>,
    /// Whether frames of the old one came after others that are shown later.
    reorders: bool,
    /// The new one's frames from the last key frame on that is not newer than what was handed out.
    before: Vec<Arrived>,
    /// The new one's frames from the first key frame on that is newer than what was handed out.
    fresh: Vec<Arrived>,
    /// The newest timestamp of the new one.
    seen: Option<Duration>,
}

#[derive(Debug)]
struct Held {
    frame: Arrived,
    until: Duration,
}

/// What a handover does next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Hand out this frame of the old rendition.
    Frame(Arrived),
    /// The new rendition takes over, with these frames first; those that are not newer than what was handed out are to be
    /// decoded only.
    Cut(Vec<Arrived>),
    /// Wait for a frame of either, or until this moment.
    Wait(Option<Duration>),
}

impl Handover {
    /// A handover from a rendition of which frames up to `played` were handed out.
    pub fn new(patience: Patience, played: Option<Duration>) -> Self {
        Self {
            patience,
            played,
            old: VecDeque::new(),
            old_ended: false,
            interval: None,
            newest: None,
            reorders: false,
            before: Vec::new(),
            fresh: Vec::new(),
            seen: None,
        }
    }

    /// A frame of the old rendition came, this much later than it could have.
    pub fn push_old(&mut self, frame: Arrived, lateness: Duration) {
        let timestamp = frame.frame.timestamp;
        if let Some(newest) = self.newest {
            self.reorders |= timestamp < newest;
            self.interval = timestamp.checked_sub(newest).filter(|_| !self.reorders);
        }
        self.newest = self.newest.max(Some(timestamp));
        let until = frame.at + self.patience.hold.saturating_sub(lateness);
        self.old.push_back(Held { frame, until });
    }

    /// The old rendition has no more frames.
    pub fn end_old(&mut self) {
        self.old_ended = true;
    }

    /// A frame of the new rendition came.
    pub fn push_new(&mut self, arrived: Arrived) {
        let frame = &arrived.frame;
        self.seen = self.seen.max(Some(frame.timestamp));
        let begins = frame.keyframe && Some(frame.timestamp) > self.played;
        if begins || !self.fresh.is_empty() {
            self.fresh.push(arrived);
        } else if self.patience.decode_only {
            if frame.keyframe || frame.discontinuity {
                self.before.clear();
            }
            if frame.keyframe || !self.before.is_empty() {
                self.before.push(arrived);
            }
        }
    }

    /// The frames of the old rendition that were held back, when the new one is given up.
    pub fn abandon(self) -> impl Iterator<Item = Arrived> {
        self.old.into_iter().map(|held| held.frame)
    }

    /// What to do at `now`; to be asked until it says to wait.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.has_caught_up() {
            return self.cut(false);
        }
        let begin = self.fresh.first().map(|first| first.frame.timestamp);
        let Some(held) = self.old.front() else {
            return self.without_old();
        };
        let timestamp = held.frame.frame.timestamp;
        let due = match begin {
            Some(begin) if timestamp >= begin => {
                return self.cut(true);
            }
            // The key frame is there: everything before it is due.
            Some(_) => true,
            None => self.seen >= Some(timestamp) || now >= held.until || self.old_ended,
        };
        if !due {
            return Step::Wait(Some(held.until));
        }
        match self.old.pop_front() {
            Some(held) => {
                self.played = self.played.max(Some(held.frame.frame.timestamp));
                Step::Frame(held.frame)
            }
            None => Step::Wait(None),
        }
    }

    /// Whether the new one goes on where the old one is, from a key frame that was missed by little.
    fn has_caught_up(&self) -> bool {
        let ends = self.before.first().zip(self.before.last());
        self.fresh.is_empty()
            && ends
                .zip(self.played)
                .is_some_and(|((first, last), played)| {
                    last.frame.timestamp > played
                        && played.saturating_sub(first.frame.timestamp) <= MISSED
                })
    }

    /// Whether to wait for the old rendition any longer.
    fn without_old(&mut self) -> Step {
        let elsewhere = self
            .seen
            .zip(self.played)
            .is_some_and(|(seen, played)| seen + JUMP < played);
        if self.old_ended && elsewhere {
            // The publisher began anew: nothing of this was shown.
            self.played = None;
            self.fresh.append(&mut self.before);
        }
        let (Some(seen), Some(played)) = (self.seen, self.played) else {
            // Nothing of the old one, or nothing of the new one yet.
            return if self.played.is_none() && !self.fresh.is_empty() {
                self.cut(true)
            } else {
                Step::Wait(None)
            };
        };
        let next = self.fresh.first().zip(self.interval);
        if next.is_some_and(|(first, interval)| first.frame.timestamp <= played + interval * 3 / 2)
        {
            // It goes on where the old one is.
            return self.cut(true);
        }
        let ahead = seen.saturating_sub(played);
        let left = self.old_ended || ahead > self.patience.lag;
        let able = !self.fresh.is_empty() || !self.before.is_empty();
        if left && able && seen > played {
            return self.cut(false);
        }
        Step::Wait(None)
    }

    /// `clean` says that the old rendition has brought everything up to the key frame.
    fn cut(&mut self, clean: bool) -> Step {
        let mut frames = std::mem::take(&mut self.fresh);
        if !clean && !self.before.is_empty() {
            frames.splice(..0, self.before.drain(..));
        } else if let Some(first) = frames.first_mut() {
            // Nor has it where its own next frame says that something is missing before.
            let torn = self
                .old
                .front()
                .is_some_and(|held| held.frame.frame.discontinuity);
            first.frame.discontinuity = !clean || torn;
        }
        if let Some(first) = frames.first_mut()
            && Some(first.frame.timestamp) <= self.played
        {
            // Whatever was missing before it was not to be shown.
            first.frame.discontinuity = false;
        }
        Step::Cut(frames)
    }
}

#[cfg(test)]
mod tests;
