//! Whether a pipeline ends that was asked to before any pad was linked.

use std::time::Duration;

use gst::prelude::*;

/// When to look whether a pipeline can end that was asked to before any pad was linked.
pub(super) const EMPTY_END_LIMIT: Duration = Duration::from_secs(3);

/// A sink of the pipeline that `element` is in, which has not ended and will not: on the way to it is a pad that nothing
/// feeds, as that of a decodebin3 that had no data, or of an element that waits for a pad of the other kind.
pub(super) fn stuck_sink(element: &gst::Element) -> Option<gst::Element> {
    let mut top = element.clone().upcast::<gst::Object>();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    let elements = top.downcast::<gst::Bin>().ok()?.iterate_recurse();
    elements.into_iter().flatten().find(|element| {
        element.element_flags().contains(gst::ElementFlags::SINK)
            && !element.is::<gst::Bin>()
            && element
                .sink_pads()
                .iter()
                .any(|pad| !has_ended(pad) && is_cut_off(pad, &mut Vec::new()))
    })
}

fn has_ended(pad: &gst::Pad) -> bool {
    pad.sticky_event::<gst::event::Eos<_>>(0).is_some()
}

/// Whether nothing is linked to this sink pad, or to one of those that it is fed by.
fn is_cut_off(pad: &gst::Pad, seen: &mut Vec<gst::Pad>) -> bool {
    let Some(peer) = pad.peer() else {
        return true;
    };
    if seen.contains(&peer) {
        return false;
    }
    seen.push(peer.clone());
    let feeding = peer.iterate_internal_links();
    feeding
        .into_iter()
        .flatten()
        .any(|pad| is_cut_off(&pad, seen))
}
