//! What upstream says of its latency.

use gst::prelude::*;

/// Upstream that holds back more than this is spoken of: nobody wants that of a live stream.
const LONGEST: gst::ClockTime = gst::ClockTime::from_mseconds(500);

/// Whether upstream is live, and for how long it holds back what it gives.
pub(super) fn of_upstream(pad: &impl IsA<gst::Pad>) -> (bool, gst::ClockTime) {
    let mut query = gst::query::Latency::new();
    if !pad.peer_query(&mut query) {
        return (false, gst::ClockTime::ZERO);
    }
    let (live, min, _) = query.result();
    (live, min)
}

/// What to say of a live stream that comes late, and how to mend it.
pub(super) fn complaint(pad: &impl IsA<gst::Pad>) -> Option<String> {
    let (live, latency) = of_upstream(pad);
    (live && latency >= LONGEST).then(|| {
        format!(
            "What comes into pad {} is held back for {} ms before it gets here, and viewers see it that much later. Most often that is an encoder that looks ahead, or a jitter buffer: set tune=zerolatency on x264enc, a smaller latency on rtspsrc",
            pad.as_ref().name(),
            latency.mseconds()
        )
    })
}
