//! What comes after EOS.

use gst::prelude::*;

/// Has the elements behind a pad take data again: a sink that had EOS lets nothing in but a flush.
pub(super) fn reopen(pad: &gst::GhostPad) {
    if let Some(target) = pad.target() {
        target.send_event(gst::event::FlushStart::new());
        target.send_event(gst::event::FlushStop::new(false));
    }
}
