//! What goes to GStreamer's log: the debug categories, and `tracing` events of the network stack.
//!
//! The events of the plugin's own threads go to the debug category `irohlive-net`. No global subscriber is installed:
//! that is the application's to choose.

use std::{fmt::Write, sync::LazyLock};

use gst::{glib, prelude::*};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::Interest,
};

/// Publishing.
pub(crate) static SINK: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "irohlivesink",
        gst::DebugColorFlags::empty(),
        Some("iroh-live: publishing"),
    )
});

/// QUIC, hole punching, relays, MoQ.
pub(crate) static NETWORK: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "irohlive-net",
        gst::DebugColorFlags::empty(),
        Some("iroh-live: QUIC, hole punching, relays, MoQ"),
    )
});

/// Sends what the calling thread traces to GStreamer's log, for as long as it lives.
pub(crate) fn on_thread_start() {
    static DISPATCH: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(GstSubscriber));
    // The guard is bound to this thread, which is the runtime's and ends with the process.
    std::mem::forget(tracing::dispatcher::set_default(&DISPATCH));
}

/// The level in GStreamer's scale. The stack's "info" is of interest to its developers only.
fn level(level: &Level) -> gst::DebugLevel {
    match *level {
        Level::ERROR | Level::WARN => gst::DebugLevel::Warning,
        Level::INFO => gst::DebugLevel::Info,
        Level::DEBUG => gst::DebugLevel::Debug,
        Level::TRACE => gst::DebugLevel::Trace,
    }
}

struct GstSubscriber;

impl Subscriber for GstSubscriber {
    fn register_callsite(&self, _: &Metadata<'_>) -> Interest {
        // The threshold can change at any time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && NETWORK.above_threshold(level(metadata.level()))
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = if field.name() == "message" {
                    write!(self.0, " {value:?}")
                } else {
                    write!(self.0, " {}={value:?}", field.name())
                };
            }
        }
        let metadata = event.metadata();
        let mut line = Line(metadata.target().to_owned() + ":");
        event.record(&mut line);
        NETWORK.log(
            None::<&glib::Object>,
            level(metadata.level()),
            glib::GString::from(metadata.file().unwrap_or("")).as_gstr(),
            metadata.module_path().unwrap_or(""),
            metadata.line().unwrap_or(0),
            format_args!("{}", line.0),
        );
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
