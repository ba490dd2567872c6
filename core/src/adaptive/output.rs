//! What a reader hands out: frames that strictly continue, whichever rendition they are of.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    handover::{Arrived, JUMP},
    interface::AdaptiveFrame,
};
use crate::broadcast::Rendition;

/// The frames that are to be handed out, and what was. A plain state machine.
#[derive(Debug, Default)]
pub(super) struct Output {
    ready: VecDeque<Arrived>,
    /// The rendition of what is handed out.
    rendition: Option<Arc<Rendition>>,
    /// How the catalog describes it now, from the next key frame on.
    update: Option<Arc<Rendition>>,
    /// Whether the next frame is the first of `rendition`.
    changed: bool,
    /// The newest timestamp that was handed out to be shown.
    played: Option<Duration>,
    cut: Option<Cut>,
}

/// The place where a rendition took over.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// The key frame that it began with. What comes after it and is shown before it needs frames from before it.
    key: Duration,
    /// What had been shown.
    played: Option<Duration>,
}

impl Output {
    /// A frame of the rendition that is handed out.
    pub fn push(&mut self, frame: Arrived) {
        self.ready.push_back(frame);
    }

    /// Another rendition takes over, with these frames. A decoder has to be set up anew, also for the one that was there
    /// before: it has not seen what was between.
    pub fn take_over(&mut self, frames: Vec<Arrived>, rendition: Arc<Rendition>) {
        self.cut = frames.first().map(|first| Cut {
            key: first.frame.timestamp,
            played: self.played,
        });
        self.ready.extend(frames);
        self.rendition = Some(rendition);
        self.update = None;
        self.changed = true;
    }

    /// The catalog describes the rendition anew; `None`: as it is.
    pub fn describe(&mut self, update: Option<Arc<Rendition>>) {
        self.update = update;
    }

    /// The newest timestamp that was handed out to be shown.
    pub fn played(&self) -> Option<Duration> {
        self.played
    }

    /// The rendition of what is handed out; `None` before the first.
    pub fn rendition(&self) -> Option<&Arc<Rendition>> {
        self.rendition.as_ref()
    }

    /// The next frame that is due, if there is one.
    pub fn next(&mut self, now: Duration) -> Option<AdaptiveFrame> {
        loop {
            let Arrived { frame, at } = self.ready.pop_front()?;
            if let Some(cut) = self.cut {
                if frame.timestamp < cut.key && !frame.keyframe {
                    // It needs frames of a group that was not received.
                    continue;
                }
                if frame.keyframe && frame.timestamp > cut.key {
                    self.cut = None;
                }
            }
            let decode_only = self
                .cut
                .is_some_and(|cut| cut.played >= Some(frame.timestamp));
            if frame.keyframe
                && let Some(update) = self.update.take()
            {
                self.changed |= self.rendition.as_ref() != Some(&update);
                self.rendition = Some(update);
            }
            if !decode_only {
                let jumped = self
                    .played
                    .is_some_and(|played| frame.timestamp + JUMP < played);
                self.played = if jumped {
                    Some(frame.timestamp)
                } else {
                    self.played.max(Some(frame.timestamp))
                };
            }
            return Some(AdaptiveFrame {
                frame,
                rendition: self.rendition.clone()?,
                changed: std::mem::take(&mut self.changed),
                decode_only,
                held: now.saturating_sub(at),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EncodedFrame,
        broadcast::{VideoConfig, catalog::VideoCodec},
    };

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn frame(timestamp: u64, keyframe: bool) -> Arrived {
        Arrived {
            frame: EncodedFrame::new(ms(timestamp), [0].as_slice(), keyframe),
            at: ms(timestamp),
        }
    }

    fn rendition(name: &str, width: u32) -> Arc<Rendition> {
        let mut config = VideoConfig::new(VideoCodec::VP8);
        config.coded_width = Some(width);
        Arc::new(Rendition::new(name, config))
    }

    /// What comes out: timestamp, whether it is to be decoded only, and whether it begins something.
    fn drain(output: &mut Output) -> Vec<(u64, bool, bool)> {
        std::iter::from_fn(|| output.next(ms(5000)))
            .map(|next| {
                let timestamp = next.frame.timestamp.as_millis() as u64;
                (timestamp, next.decode_only, next.changed)
            })
            .collect()
    }

    #[test]
    fn what_was_shown_is_decoded_only_after_a_takeover_from_an_old_key_frame() {
        let mut output = Output::default();
        output.take_over(vec![frame(0, true)], rendition("low", 320));
        for n in 1..4 {
            output.push(frame(n * 40, false));
        }
        let all = [
            (0, false, true),
            (40, false, false),
            (80, false, false),
            (120, false, false),
        ];
        assert_eq!(drain(&mut output), all);
        assert_eq!(output.played(), Some(ms(120)));
        let frames = (1..5).map(|n| frame(n * 40, n == 1)).collect();
        output.take_over(frames, rendition("high", 640));
        let all = [
            (40, true, true),
            (80, true, false),
            (120, true, false),
            (160, false, false),
        ];
        assert_eq!(drain(&mut output), all);
        assert_eq!(output.rendition().unwrap().name, "high");
    }

    #[test]
    fn what_is_shown_before_the_key_frame_of_a_takeover_cannot_be_decoded() {
        let mut output = Output::default();
        // Of a group with B-frames: those before the key frame need the group before it.
        let frames = vec![
            frame(200, true),
            frame(160, false),
            frame(240, false),
            frame(400, true),
            frame(360, false),
        ];
        output.take_over(frames, rendition("low", 320));
        let shown: Vec<_> = drain(&mut output).iter().map(|frame| frame.0).collect();
        assert_eq!(shown, [200, 240, 400, 360], "the second group is whole");
    }

    #[test]
    fn a_new_description_holds_from_the_next_key_frame_on() {
        let mut output = Output::default();
        output.take_over(vec![frame(0, true)], rendition("a", 320));
        output.describe(Some(rendition("a", 640)));
        output.push(frame(40, false));
        output.push(frame(80, true));
        let all = [(0, false, true), (40, false, false), (80, false, true)];
        // The first frame is a key frame too: the description was there before it was handed out.
        let first = output.next(ms(0)).unwrap();
        assert!(first.changed);
        assert_eq!(drain(&mut output).len(), all.len() - 1);
        assert_eq!(*output.rendition().unwrap(), rendition("a", 640));
    }

    #[test]
    fn a_frame_says_for_how_long_it_was_held_back() {
        let mut output = Output::default();
        output.take_over(vec![frame(100, true)], rendition("a", 320));
        assert_eq!(output.next(ms(130)).unwrap().held, ms(30));
    }

    #[test]
    fn another_timeline_begins_where_it_begins() {
        let mut output = Output::default();
        output.take_over(vec![frame(60_000, true)], rendition("a", 320));
        drain(&mut output);
        output.push(frame(0, true));
        drain(&mut output);
        assert_eq!(output.played(), Some(ms(0)));
    }
}
