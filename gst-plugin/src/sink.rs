//! `irohlivesink`: publishes what is linked to it.

use gst::{glib, prelude::*};

mod caps;
mod imp;
mod keyframes;
mod latency;
mod pad;
mod publisher;
mod settings;
mod stall;
mod status;
mod track;

pub use status::Status;

glib::wrapper! {
    /// Publishes encoded audio and video, peer to peer, and gives out a ticket to watch it with.
    pub struct IrohLiveSink(ObjectSubclass<imp::IrohLiveSink>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "irohlivesink",
        gst::Rank::NONE,
        IrohLiveSink::static_type(),
    )
}
