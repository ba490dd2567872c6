//! What can be read of the element.

use std::collections::BTreeSet;

use gst::{glib, prelude::*};
use iroh_live::iroh::EndpointId;

use crate::stats;

/// The values of the properties.
#[derive(Debug, Default)]
pub(super) struct Readings {
    pub(super) ticket: Option<String>,
    pub(super) status: Status,
    pub(super) viewers: BTreeSet<EndpointId>,
}

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

/// The properties that are read.
pub(super) fn properties() -> [glib::ParamSpec; 4] {
    [
                glib::ParamSpecString::builder("ticket")
                    .nick("Ticket")
                    .blurb("What a viewer needs to watch: iroh-live:…/name. Notified when it is known, when the addresses in it change, and when it is over, in NULL, where it is null. Also posted as an INFO message, and as an ELEMENT message named irohlive-ticket with the fields broadcast and ticket")
                    .read_only()
                    .build(),
                glib::ParamSpecEnum::builder::<Status>("status")
                    .nick("Status")
                    .blurb("What the element does at the moment: waits to be started, learns how it can be reached, publishes, or has ended with its streams")
                    .read_only()
                    .build(),
                glib::ParamSpecUInt::builder("subscribers")
                    .nick("Subscribers")
                    .blurb("How many peers watch the broadcast: those that have asked for it and are still connected")
                    .read_only()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(concat!(
                        "tracks: a structure with a field for each pad, itself a structure: name, frames, bytes, watched. subscribers: one with a field for each peer, named by its id: ",
                        stats::path_fields!()
                    ))
                    .read_only()
                    .build(),
    ]
}
