//! From one rendition to another without a gap and without a doubled frame.

use std::{collections::VecDeque, time::Duration};

use super::reader::JUMP;

use crate::broadcast::EncodedFrame;

/// A key frame that was missed by no more than this still serves: what was shown since is quickly decoded again.
const MISSED: Duration = Duration::from_millis(300);

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
    /// The new one's frames from the last key frame on that is not newer than what was handed out.
    before: Vec<EncodedFrame>,
    /// The new one's frames from the first key frame on that is newer than what was handed out.
    fresh: Vec<EncodedFrame>,
    /// The newest timestamp of the new one.
    seen: Option<Duration>,
}

#[derive(Debug)]
struct Held {
    frame: EncodedFrame,
    until: Duration,
}

/// What a handover does next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Hand out this frame of the old rendition.
    Frame(EncodedFrame),
    /// The new rendition takes over, with these frames first; those that are not newer than what was handed out are to be
    /// decoded only.
    Cut(Vec<EncodedFrame>),
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
            before: Vec::new(),
            fresh: Vec::new(),
            seen: None,
        }
    }

    /// A frame of the old rendition came, this much later than it could have.
    pub fn push_old(&mut self, frame: EncodedFrame, lateness: Duration, arrival: Duration) {
        let until = arrival + self.patience.hold.saturating_sub(lateness);
        self.old.push_back(Held { frame, until });
    }

    /// The old rendition has no more frames.
    pub fn end_old(&mut self) {
        self.old_ended = true;
    }

    /// A frame of the new rendition came.
    pub fn push_new(&mut self, frame: EncodedFrame) {
        self.seen = self.seen.max(Some(frame.timestamp));
        let begins = frame.keyframe && Some(frame.timestamp) > self.played;
        if begins || !self.fresh.is_empty() {
            self.fresh.push(frame);
        } else if self.patience.decode_only {
            if frame.keyframe || frame.discontinuity {
                self.before.clear();
            }
            if frame.keyframe || !self.before.is_empty() {
                self.before.push(frame);
            }
        }
    }

    /// The frames of the old rendition that were held back, when the new one is given up.
    pub fn abandon(self) -> impl Iterator<Item = EncodedFrame> {
        self.old.into_iter().map(|held| held.frame)
    }

    /// What to do at `now`; to be asked until it says to wait.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.has_caught_up() {
            return self.cut(false);
        }
        let begin = self.fresh.first().map(|frame| frame.timestamp);
        let Some(held) = self.old.front() else {
            return self.without_old();
        };
        let timestamp = held.frame.timestamp;
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
                self.played = self.played.max(Some(held.frame.timestamp));
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
                    last.timestamp > played && played.saturating_sub(first.timestamp) <= MISSED
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
                .is_some_and(|held| held.frame.discontinuity);
            first.discontinuity = !clean || torn;
        }
        if let Some(first) = frames.first_mut()
            && Some(first.timestamp) <= self.played
        {
            // Whatever was missing before it was not to be shown.
            first.discontinuity = false;
        }
        Step::Cut(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        hold: Duration::from_millis(100),
        lag: Duration::from_millis(300),
        decode_only: true,
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Frames 30 ms apart; the payload says of which rendition.
    fn frame(of: &'static str, n: u64, keyframe: bool) -> EncodedFrame {
        EncodedFrame::new(ms(30 * n), of.as_bytes(), keyframe)
    }

    fn handover(played: u64) -> Handover {
        Handover::new(PATIENCE, Some(ms(30 * played)))
    }

    /// Everything that can be handed out at `now`, as the numbers of the frames, and the frames of the cut.
    fn drain(handover: &mut Handover, now: Duration) -> (Vec<u64>, Option<Vec<EncodedFrame>>) {
        let mut out = Vec::new();
        loop {
            match handover.step(now) {
                Step::Frame(frame) => out.push(frame.timestamp.as_millis() as u64 / 30),
                Step::Cut(frames) => return (out, Some(frames)),
                Step::Wait(_) => return (out, None),
            }
        }
    }

    fn numbers(frames: &[EncodedFrame]) -> Vec<u64> {
        frames
            .iter()
            .map(|frame| frame.timestamp.as_millis() as u64 / 30)
            .collect()
    }

    #[test]
    fn the_new_one_takes_over_at_its_key_frame_and_nothing_is_missing_or_doubled() {
        let mut handover = handover(20);
        // The group that is under way: too old.
        for n in 5..=22 {
            handover.push_new(frame("new", n, n == 5));
        }
        handover.push_old(frame("old", 21, false), Duration::ZERO, ms(0));
        handover.push_old(frame("old", 22, false), Duration::ZERO, ms(0));
        assert_eq!(drain(&mut handover, ms(0)), (vec![21, 22], None));
        // Both go on; the new one's next group begins at 25.
        for n in 23..=27 {
            handover.push_new(frame("new", n, n == 25));
        }
        assert_eq!(
            drain(&mut handover, ms(0)),
            (vec![], None),
            "23 and 24 are the old one's"
        );
        for n in 23..=26 {
            handover.push_old(frame("old", n, false), Duration::ZERO, ms(0));
        }
        let (out, cut) = drain(&mut handover, ms(0));
        assert_eq!(out, [23, 24]);
        let cut = cut.expect("the cut");
        assert_eq!(numbers(&cut), [25, 26, 27]);
        assert!(
            cut.iter()
                .all(|frame| frame.payload == "new" && !frame.discontinuity)
        );
    }

    #[test]
    fn a_key_frame_that_was_missed_by_little_still_serves() {
        let mut handover = handover(10);
        handover.push_new(frame("new", 6, true));
        handover.push_new(frame("new", 10, false));
        handover.push_old(frame("old", 11, false), Duration::ZERO, ms(0));
        assert_eq!(drain(&mut handover, ms(0)), (vec![], None));
        handover.push_new(frame("new", 11, false));
        let (out, cut) = drain(&mut handover, ms(0));
        let cut = cut.expect("the cut");
        assert_eq!((out, numbers(&cut)), (vec![], vec![6, 10, 11]));
        assert!(cut.iter().all(|frame| !frame.discontinuity));
    }

    #[test]
    fn a_key_frame_that_comes_a_little_later_is_not_missed() {
        let mut handover = handover(10);
        handover.push_new(frame("new", 0, true));
        handover.push_new(frame("new", 10, false));
        // The old one's frame of the same moment is there first.
        handover.push_old(frame("old", 11, false), Duration::ZERO, ms(330));
        assert_eq!(handover.step(ms(330)), Step::Wait(Some(ms(430))));
        handover.push_new(frame("new", 11, true));
        let (out, cut) = drain(&mut handover, ms(380));
        assert_eq!((out, numbers(&cut.unwrap())), (vec![], vec![11]));
    }

    #[test]
    fn no_frame_is_held_longer_than_allowed_and_late_ones_not_at_all() {
        let mut handover = handover(10);
        handover.push_old(frame("old", 11, false), ms(0), ms(330));
        handover.push_old(frame("old", 12, false), ms(40), ms(400));
        handover.push_old(frame("old", 13, false), ms(140), ms(530));
        assert_eq!(drain(&mut handover, ms(429)).0, [0; 0]);
        assert_eq!(drain(&mut handover, ms(430)).0, [11]);
        assert_eq!(drain(&mut handover, ms(530)).0, [12, 13]);
    }

    #[test]
    fn when_the_old_one_ends_the_new_one_begins_where_it_was_and_only_decodes_what_was_shown() {
        let mut handover = handover(10);
        for n in 0..=10 {
            handover.push_new(frame("new", n, n % 8 == 0));
        }
        handover.push_old(frame("old", 11, false), Duration::ZERO, ms(0));
        handover.end_old();
        assert_eq!(
            drain(&mut handover, ms(0)),
            (vec![11], None),
            "nothing new to show yet"
        );
        handover.push_new(frame("new", 11, false));
        assert_eq!(drain(&mut handover, ms(0)).1, None);
        handover.push_new(frame("new", 12, false));
        let cut = drain(&mut handover, ms(0)).1.expect("the cut");
        assert_eq!(numbers(&cut), [8, 9, 10, 11, 12]);
        assert!(cut.iter().all(|frame| !frame.discontinuity));
    }

    #[test]
    fn an_old_one_that_falls_behind_is_left() {
        let mut handover = handover(25);
        for n in 8..=35 {
            handover.push_new(frame("new", n, n == 8));
        }
        assert_eq!(drain(&mut handover, ms(0)).1, None, "300 ms behind");
        handover.push_new(frame("new", 36, false));
        let cut = drain(&mut handover, ms(0)).1.expect("the cut");
        assert_eq!(numbers(&cut), (8..=36).collect::<Vec<_>>());
    }

    #[test]
    fn a_gap_that_cannot_be_helped_is_marked() {
        let mut handover = handover(10);
        for n in 15..=21 {
            handover.push_new(frame("new", n, n == 15));
        }
        let cut = drain(&mut handover, ms(0)).1.expect("the cut");
        assert_eq!(numbers(&cut)[0], 15);
        assert!(cut[0].discontinuity);
    }

    #[test]
    fn what_the_old_one_lost_before_the_key_frame_is_marked() {
        for lost in [false, true] {
            let mut handover = handover(20);
            handover.push_new(frame("new", 25, true));
            let mut next = frame("old", 25, true);
            next.discontinuity = lost;
            handover.push_old(next, Duration::ZERO, ms(0));
            let cut = drain(&mut handover, ms(0)).1.expect("the cut");
            assert_eq!(numbers(&cut), [25]);
            assert_eq!(cut[0].discontinuity, lost);
        }
    }

    #[test]
    fn without_decoding_only_the_next_key_frame_is_waited_for() {
        let patience = Patience {
            decode_only: false,
            ..PATIENCE
        };
        let mut handover = Handover::new(patience, Some(ms(300)));
        for n in 8..=30 {
            handover.push_new(frame("new", n, n == 8));
        }
        handover.end_old();
        assert_eq!(drain(&mut handover, ms(9000)), (vec![], None));
        handover.push_new(frame("new", 31, true));
        let cut = drain(&mut handover, ms(9000)).1.expect("the cut");
        assert_eq!(numbers(&cut), [31]);
        assert!(cut[0].discontinuity);
    }

    #[test]
    fn before_anything_was_shown_any_key_frame_will_do() {
        let mut handover = Handover::new(PATIENCE, None);
        assert_eq!(handover.step(ms(0)), Step::Wait(None));
        handover.push_new(frame("new", 3, false));
        assert_eq!(handover.step(ms(0)), Step::Wait(None));
        handover.push_new(frame("new", 4, true));
        assert!(matches!(handover.step(ms(0)), Step::Cut(frames) if numbers(&frames) == [4]));
    }

    #[test]
    fn a_publisher_that_began_anew_with_an_earlier_time_is_followed() {
        let mut handover = handover(1000);
        handover.end_old();
        handover.push_new(frame("new", 3, true));
        handover.push_new(frame("new", 4, false));
        assert_eq!(numbers(&drain(&mut handover, ms(0)).1.unwrap()), [3, 4]);
    }

    #[test]
    fn a_group_that_was_cut_short_is_not_decoded() {
        let mut handover = handover(10);
        handover.push_new(frame("new", 4, true));
        let mut torn = frame("new", 8, false);
        torn.discontinuity = true;
        handover.push_new(torn);
        handover.end_old();
        handover.push_new(frame("new", 11, false));
        assert_eq!(drain(&mut handover, ms(0)).1, None);
    }

    #[test]
    fn what_was_held_back_is_not_lost_when_the_switch_is_given_up() {
        let mut handover = handover(10);
        handover.push_old(frame("old", 11, false), Duration::ZERO, ms(0));
        handover.push_old(frame("old", 12, false), Duration::ZERO, ms(0));
        assert_eq!(handover.step(ms(0)), Step::Wait(Some(ms(100))));
        let frames: Vec<_> = handover.abandon().collect();
        assert_eq!(numbers(&frames), [11, 12]);
    }

    #[test]
    fn frames_that_were_reordered_before_the_key_frame_are_handed_out() {
        let mut handover = handover(10);
        handover.push_new(frame("new", 14, true));
        for n in [13, 11, 12] {
            handover.push_old(frame("old", n, false), Duration::ZERO, ms(0));
        }
        assert_eq!(drain(&mut handover, ms(0)).0, [13, 11, 12]);
        handover.push_old(frame("old", 14, true), Duration::ZERO, ms(0));
        assert_eq!(numbers(&drain(&mut handover, ms(0)).1.unwrap()), [14]);
    }
}
