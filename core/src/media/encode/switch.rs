//! Which of a track's encoders may write. Plain state.

use std::time::Duration;

/// Lets one encoder write after the other, each from a key frame on: nothing of it can be decoded before.
///
/// The one before goes on until that key frame is there, so that none of its frames is lost.
#[derive(Debug, Default)]
pub(super) struct EncoderSwitch {
    /// Numbers given out so far.
    issued: u64,
    current: Option<u64>,
    successor: Option<Successor>,
}

#[derive(Debug)]
struct Successor {
    number: u64,
    /// It takes over with a key frame that was captured then or later; what it has from before, the one before it has too.
    from: Duration,
}

impl EncoderSwitch {
    /// A number for an encoder, which may not write yet.
    pub(super) fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// That encoder writes, from its first key frame on. What earlier ones still have is not taken.
    pub(super) fn begin(&mut self, number: u64) {
        self.current = None;
        self.hand_over(number, Duration::ZERO);
    }

    /// That encoder writes from its first key frame on that was captured at `from` or later. The one before has the frames
    /// until there, and writes them.
    pub(super) fn hand_over(&mut self, number: u64, from: Duration) {
        self.successor = Some(Successor { number, from });
    }

    /// The encoder that writes last: the one that takes over, or else the one that writes.
    pub(super) fn latest(&self) -> Option<u64> {
        let successor = self.successor.as_ref().map(|successor| successor.number);
        successor.or(self.current)
    }

    /// Whether an encoder takes over that has not made its key frame yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.successor.is_some()
    }

    /// Whether the frame of that encoder is taken.
    pub(super) fn admit(&mut self, number: u64, keyframe: bool, timestamp: Duration) -> bool {
        let takes_over = keyframe
            && self
                .successor
                .as_ref()
                .is_some_and(|next| next.number == number && next.from <= timestamp);
        if takes_over {
            self.current = Some(number);
            self.successor = None;
        }
        self.current == Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_encoder_begins_with_a_key_frame() {
        let mut switch = EncoderSwitch::default();
        let first = switch.issue();
        assert!(!switch.admit(first, true, ms(0)), "not yet");
        switch.begin(first);
        assert!(!switch.admit(first, false, ms(10)));
        assert!(switch.admit(first, true, ms(20)));
        assert!(switch.admit(first, false, ms(30)));
        // It failed: what is still inside is not taken.
        let second = switch.issue();
        switch.begin(second);
        assert!(!switch.admit(first, false, ms(40)));
        assert!(!switch.admit(first, true, ms(50)));
        assert!(!switch.admit(second, false, ms(60)));
        assert!(switch.admit(second, true, ms(70)));
    }

    #[test]
    fn the_one_before_goes_on_until_the_next_has_a_key_frame_of_its_own_time() {
        let mut switch = EncoderSwitch::default();
        let (old, new) = (switch.issue(), switch.issue());
        switch.begin(old);
        assert!(switch.admit(old, true, ms(0)));
        assert!(!switch.admit(new, true, ms(0)), "beside the old one");
        switch.hand_over(new, ms(40));
        assert!(switch.is_waiting());
        assert_eq!(switch.latest(), Some(new));
        // The new one is two frames behind.
        assert!(!switch.admit(new, false, ms(10)));
        assert!(switch.admit(old, false, ms(30)), "nothing is lost");
        assert!(!switch.admit(new, true, ms(20)), "the old one had it");
        assert!(!switch.admit(new, false, ms(50)), "cannot be decoded");
        assert!(switch.admit(new, true, ms(60)));
        assert!(!switch.is_waiting());
        assert!(switch.admit(new, false, ms(70)));
        assert!(!switch.admit(old, false, ms(50)), "too late");
    }
}
