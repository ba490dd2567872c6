//! `irohlivesink`: publishes what is linked to it.

use gst::{glib, prelude::*};

mod imp;
mod pad;
mod publisher;

glib::wrapper! {
    /// Publishes encoded audio and video, peer to peer, and gives out a ticket to watch it with.
    pub struct IrohLiveSink(ObjectSubclass<imp::IrohLiveSink>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

/// Which upstreams wait on the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveSync")]
pub enum Sync {
    /// Files are paced, live sources are not delayed.
    #[default]
    #[enum_value(name = "Wait on the clock unless upstream is live", nick = "auto")]
    Auto,
    /// Always.
    #[enum_value(name = "Always wait on the clock", nick = "true")]
    True,
    /// Never.
    #[enum_value(name = "Never wait: send everything at once", nick = "false")]
    False,
}

/// What the element is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveSinkStatus")]
pub enum Status {
    /// Not started.
    #[default]
    #[enum_value(name = "Not started", nick = "idle")]
    Idle,
    /// The endpoint is open, the ticket not known yet.
    #[enum_value(name = "Learning how it can be reached", nick = "starting")]
    Starting,
    /// The ticket is out.
    #[enum_value(name = "Published: the ticket can be handed out", nick = "published")]
    Published,
    /// Upstream ended, and viewers were told.
    #[enum_value(name = "Ended", nick = "ended")]
    Ended,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "irohlivesink",
        gst::Rank::NONE,
        IrohLiveSink::static_type(),
    )
}
