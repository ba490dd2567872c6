//! `irohlivesrc`: watches a ticket.

use gst::{glib, prelude::*};

mod category;
mod eos;
mod failure;
mod follow;
mod imp;
mod pad_selection;
mod pads;
mod reader;
mod run;
mod settings;
mod status;
mod track;
mod uri;

pub use status::{PathType, Status};

glib::wrapper! {
    /// Watches a broadcast, peer to peer, by its ticket.
    pub struct IrohLiveSrc(ObjectSubclass<imp::IrohLiveSrc>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy, gst::URIHandler;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "irohlivesrc",
        gst::Rank::PRIMARY,
        IrohLiveSrc::static_type(),
    )
}
