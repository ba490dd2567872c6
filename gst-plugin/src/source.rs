//! `irohlivesrc`: watches a ticket.

use gst::{glib, prelude::*};

mod imp;
mod pads;
mod session;
mod track;

glib::wrapper! {
    /// Watches a broadcast, peer to peer, by its ticket.
    pub struct IrohLiveSrc(ObjectSubclass<imp::IrohLiveSrc>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy, gst::URIHandler;
}

/// What the element is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveSrcStatus")]
pub enum Status {
    /// Not started.
    #[default]
    #[enum_value(name = "Not started", nick = "idle")]
    Idle,
    /// On the way to the publisher.
    #[enum_value(name = "Connecting to the publisher", nick = "connecting")]
    Connecting,
    /// The publisher is there, the broadcast not yet.
    #[enum_value(name = "Connected, waiting for the broadcast", nick = "waiting")]
    Waiting,
    /// Media comes.
    #[enum_value(name = "Connected to the broadcast", nick = "connected")]
    Connected,
    /// The connection was lost or could not be made; it is tried again.
    #[enum_value(name = "Without connection, trying again", nick = "reconnecting")]
    Reconnecting,
    /// The publisher ended the broadcast.
    #[enum_value(name = "The publisher ended the broadcast", nick = "ended")]
    Ended,
    /// Given up.
    #[enum_value(name = "Failed", nick = "failed")]
    Failed,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "irohlivesrc",
        gst::Rank::PRIMARY,
        IrohLiveSrc::static_type(),
    )
}
