//! When a rendition is encoded, and when a key frame is due. Plain state, with time passed in.

use std::time::Duration;

/// Key frames that viewers cause are at least this far apart.
const KEYFRAME_SPACING: Duration = Duration::from_millis(500);

/// How often a track that sleeps says so; see [`LocalTrack::pause`](crate::broadcast::LocalTrack::pause).
const PAUSE_SPACING: Duration = Duration::from_millis(500);

/// What happens with a captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::media) enum Step {
    /// It is encoded, as a key frame or as the encoder likes.
    Encode { keyframe: bool },
    /// Nothing is done with it.
    Skip,
    /// Nothing is done with it, and the track says that it pauses.
    Pause,
}

/// What is known of a rendition when a frame is captured.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::media) struct GateInput {
    /// Whether the track is described, so that viewers can find it.
    pub described: bool,
    /// Whether anybody watches it, and it may be sent.
    pub wanted: bool,
    /// When the last key frame was captured that was sent; none if a key frame has to come next.
    pub group: Option<Duration>,
    /// How often somebody has come to watch so far.
    pub viewers: u64,
}

#[derive(Debug, Default)]
pub(in crate::media) struct Gate {
    awake: bool,
    /// Nothing was asked for before this.
    asked: Option<Duration>,
    paused: Option<Duration>,
    /// The subscriptions that a key frame was sent for.
    served: u64,
}

impl Gate {
    /// What happens with the frame that was captured at `now`.
    pub(in crate::media) fn step(&mut self, now: Duration, input: GateInput) -> Step {
        let GateInput {
            described,
            wanted,
            group,
            viewers,
        } = input;
        if described && !wanted {
            self.served = viewers;
            let due = self
                .paused
                .is_none_or(|paused| now.saturating_sub(paused) >= PAUSE_SPACING);
            if std::mem::take(&mut self.awake) || due {
                self.paused = Some(now);
                return Step::Pause;
            }
            return Step::Skip;
        }
        let woken = !std::mem::replace(&mut self.awake, true);
        self.paused = None;
        let rested = self
            .asked
            .is_none_or(|asked| now.saturating_sub(asked) >= KEYFRAME_SPACING);
        let newcomer = viewers != self.served;
        let old = group.is_none_or(|group| now.saturating_sub(group) >= KEYFRAME_SPACING);
        // Without a group nothing can be sent: the encoder did not hear, or its key frame was dropped.
        let keyframe = woken || (rested && old && (newcomer || group.is_none()));
        if keyframe {
            self.asked = Some(now);
        }
        if keyframe || !old {
            self.served = viewers;
        }
        Step::Encode { keyframe }
    }
}

/// Keeps a rendition from having more frames a second than it should.
#[derive(Debug)]
pub(in crate::media) struct Pacer {
    interval: Duration,
    next: Option<Duration>,
}

impl Pacer {
    /// `framerate` is frames a second at most.
    pub(in crate::media) fn new(framerate: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / framerate.max(1),
            next: None,
        }
    }

    /// Whether the frame that was captured at `now` is one of those to keep.
    pub(in crate::media) fn keeps(&mut self, now: Duration) -> bool {
        let Some(next) = self.next else {
            self.next = Some(now + self.interval);
            return true;
        };
        // Clocks of cameras shake.
        if now + self.interval / 4 < next && next.saturating_sub(now) <= self.interval * 2 {
            return false;
        }
        let steady = next + self.interval;
        self.next = Some(if steady > now && steady - now <= self.interval * 2 {
            steady
        } else {
            now + self.interval
        });
        true
    }
}

/// What each rendition gets of a total, bits a second, where each wants so much at most.
///
/// All are cut by the same factor; none gets less than a trickle that keeps a picture moving.
pub(in crate::media) fn share(limit: Option<u64>, wishes: &[u64]) -> Vec<u64> {
    const TRICKLE: u64 = 30_000;
    let total: u128 = wishes.iter().map(|wish| u128::from(*wish)).sum();
    wishes
        .iter()
        .map(|wish| match limit {
            Some(limit) if u128::from(limit) < total => {
                let part = u128::from(*wish) * u128::from(limit) / total;
                u64::try_from(part)
                    .unwrap_or(u64::MAX)
                    .max(TRICKLE.min(*wish))
            }
            _ => *wish,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const WATCHED: GateInput = GateInput {
        described: true,
        wanted: true,
        group: None,
        viewers: 1,
    };

    #[test]
    fn it_is_encoded_until_it_is_described_and_then_sleeps() {
        let mut gate = Gate::default();
        let learning = GateInput::default();
        assert_eq!(
            gate.step(ms(0), learning),
            Step::Encode { keyframe: true },
            "the first frame"
        );
        assert_eq!(
            gate.step(ms(33), learning),
            Step::Encode { keyframe: false }
        );
        let idle = GateInput {
            described: true,
            ..learning
        };
        assert_eq!(gate.step(ms(66), idle), Step::Pause);
        assert_eq!(gate.step(ms(100), idle), Step::Skip);
        assert_eq!(gate.step(ms(600), idle), Step::Pause, "says so again");
    }

    #[test]
    fn the_first_viewer_gets_a_key_frame_at_once() {
        let mut gate = Gate::default();
        let idle = GateInput {
            described: true,
            ..GateInput::default()
        };
        gate.step(ms(0), idle);
        assert_eq!(gate.step(ms(33), WATCHED), Step::Encode { keyframe: true });
        let going = GateInput {
            group: Some(ms(33)),
            ..WATCHED
        };
        for at in (66..10_000).step_by(33) {
            assert_eq!(
                gate.step(ms(at), going),
                Step::Encode { keyframe: false },
                "at {at}: nobody asks for one"
            );
        }
    }

    #[test]
    fn later_viewers_get_one_unless_the_group_is_young() {
        let mut gate = Gate::default();
        gate.step(ms(0), WATCHED);
        let second = GateInput {
            group: Some(ms(0)),
            viewers: 2,
            ..WATCHED
        };
        assert_eq!(
            gate.step(ms(100), second),
            Step::Encode { keyframe: false },
            "the group that is there serves"
        );
        assert_eq!(
            gate.step(ms(700), second),
            Step::Encode { keyframe: false },
            "it has served"
        );
        let third = GateInput {
            viewers: 3,
            ..second
        };
        assert_eq!(gate.step(ms(733), third), Step::Encode { keyframe: true });
        assert_eq!(
            gate.step(ms(766), third),
            Step::Encode { keyframe: false },
            "it is on its way"
        );
    }

    #[test]
    fn a_key_frame_that_does_not_come_is_asked_for_again() {
        let mut gate = Gate::default();
        assert_eq!(gate.step(ms(0), WATCHED), Step::Encode { keyframe: true });
        assert_eq!(
            gate.step(ms(400), WATCHED),
            Step::Encode { keyframe: false }
        );
        assert_eq!(gate.step(ms(500), WATCHED), Step::Encode { keyframe: true });
    }

    #[test]
    fn half_of_sixty_is_thirty() {
        let mut pacer = Pacer::new(30);
        let kept = (0..600)
            .filter(|n| {
                // A sixtieth of a second, shaken by up to 4 ms.
                let jitter = (n * 7 % 5) * 1000;
                pacer.keeps(Duration::from_micros(n * 16_667 + jitter))
            })
            .count();
        assert!((298..=302).contains(&kept), "{kept}");
    }

    #[test]
    fn slower_sources_lose_nothing() {
        let mut pacer = Pacer::new(30);
        assert!((0..100).all(|n| pacer.keeps(Duration::from_micros(n * 33_367))));
        // A jump either way does not stop it.
        assert!(pacer.keeps(ms(100_000)));
        assert!(pacer.keeps(ms(5_000)));
    }

    #[test]
    fn what_there_is_is_shared_by_size() {
        let wishes = [2_000_000, 500_000];
        assert_eq!(share(None, &wishes), wishes);
        assert_eq!(share(Some(9_000_000), &wishes), wishes);
        assert_eq!(share(Some(1_000_000), &wishes), [800_000, 200_000]);
        assert_eq!(share(Some(0), &wishes), [30_000, 30_000]);
        assert!(share(Some(1), &[]).is_empty());
    }
}
