//! GStreamer elements that publish and watch live media, peer to peer, over iroh.
//!
//! `irohlivesink` publishes what is linked to it and gives out a ticket; `irohlivesrc` watches a ticket.

mod endpoint;
mod log;
mod notifier;
mod runtime;
mod settings;
pub mod sink;
pub mod source;
mod stats;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), gst::glib::BoolError> {
    sink::register(plugin)?;
    source::register(plugin)
}

gst::plugin_define!(
    irohlive,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    // GStreamer 1.22 loads no plugin with a licence string that it does not know; the crates are MIT OR Apache-2.0.
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "https://crates.io/crates/iroh-live",
    env!("BUILD_REL_DATE")
);
