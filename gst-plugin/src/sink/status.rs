//! The property `status`.

use gst::glib;

/// What an `irohlivesink` does at the moment.
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
