//! Where the source logs to.

use std::sync::LazyLock;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "irohlivesrc",
        gst::DebugColorFlags::empty(),
        Some("iroh-live: watching"),
    )
});
