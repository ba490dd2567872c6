//! Asking upstream for a key frame.

use std::time::{Duration, Instant};

use gst::prelude::*;

/// A request that brought nothing is made again after this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// When upstream is asked: at once where one is missing, then now and then, as encoders may be busy and cameras deaf.
#[derive(Debug, Default)]
pub(super) struct KeyframeRequests {
    last: Option<Instant>,
}

impl KeyframeRequests {
    /// A frame came that is of no use without a key frame. Returns whether to ask for one.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }

    /// A frame was published, perhaps after a gap in its group. Returns whether to ask for a key frame.
    pub(super) fn published(&mut self, gap: bool, now: Instant) -> bool {
        if !gap {
            self.last = None;
        }
        gap && self.is_due(now)
    }
}

/// Sends the request out of a sink pad.
pub(super) fn request(pad: &impl IsA<gst::Pad>) {
    let event = gst_video::UpstreamForceKeyUnitEvent::builder()
        .all_headers(true)
        .build();
    // Files and deaf cameras refuse it.
    let _ = pad.push_event(event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_at_once_and_again_each_second_until_answered() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut requests = KeyframeRequests::default();
        let due: Vec<_> = (0..75)
            .map(|frame| frame * 33)
            .filter(|time| requests.is_due(at(*time)))
            .collect();
        assert_eq!(due, [0, 1023, 2046]);
        assert!(!requests.published(false, at(2400)));
        assert!(requests.is_due(at(2500)));
        assert!(!requests.published(false, at(2510)));
        let due = [2520, 2553, 3519, 3553].map(|time| requests.published(true, at(time)));
        assert_eq!(due, [true, false, false, true]);
    }
}
