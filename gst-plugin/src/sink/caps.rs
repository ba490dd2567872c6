//! What the pads take.

use iroh_live::{broadcast::MediaKind, media::caps::sink_caps};

use crate::log::SINK as CAT;

/// What any pad takes: audio and video alike, whatever its name.
pub(super) fn all() -> gst::Caps {
    let mut all = sink_caps(MediaKind::Video);
    all.merge(sink_caps(MediaKind::Audio));
    all
}

/// Answers a query at a pad.
pub(super) fn query(
    pad: &gst::GhostPad,
    parent: Option<&gst::Object>,
    query: &mut gst::QueryRef,
) -> bool {
    gst::log!(CAT, obj = pad, "{query:?}");
    match query.view_mut() {
        gst::QueryViewMut::Caps(query) => {
            let all = all();
            let result = match query.filter_owned() {
                Some(filter) => filter.intersect_with_mode(&all, gst::CapsIntersectMode::First),
                None => all,
            };
            query.set_result(&result);
            true
        }
        gst::QueryViewMut::AcceptCaps(query) => {
            let accepted = query.caps().can_intersect(&all());
            query.set_result(accepted);
            true
        }
        _ => gst::Pad::query_default(pad, parent, query),
    }
}
