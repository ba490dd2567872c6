//! Why the way to the broadcast ended, in words for the user.

use gst::glib;
use iroh_live::{
    broadcast::{CatalogError, StopReason},
    iroh::EndpointId,
    transport::{BroadcastError, CloseCode, ConnectError, Disconnect, DisconnectReason},
};

/// What to say to somebody whose publisher may have been started with another key.
const NEW_TICKET: &str = "A publisher that was started anew may have a new ticket";

const NOTHING: &str = "Nothing of the broadcast can be played";

pub(super) enum Failure {
    /// To be tried again.
    Again(glib::Error),
    /// Nothing to be done about it.
    Fatal(glib::Error),
    /// The broadcast is over, and had nothing to play.
    Empty(glib::Error),
}

impl Failure {
    /// The publisher did not let this side connect.
    pub(super) fn connecting(error: &ConnectError, own: EndpointId) -> Self {
        match error {
            ConnectError::Refused { .. } => Self::Fatal(glib::Error::new(
                gst::ResourceError::NotAuthorized,
                &format!("The publisher refuses this viewer. Ask for access for {own}"),
            )),
            ConnectError::WrongIdentity(_) => Self::Again(glib::Error::new(
                gst::ResourceError::NotFound,
                &capitalised(&error.to_string()),
            )),
            ConnectError::Busy { .. } => Self::Again(glib::Error::new(
                gst::ResourceError::Busy,
                &capitalised(&error.to_string()),
            )),
            ConnectError::NoAnswer(limit) => {
                Self::unreachable(&format!("no answer within {} s", limit.as_secs()))
            }
            ConnectError::Unreachable(_) | ConnectError::Connecting(_) => {
                Self::unreachable(&error.to_string())
            }
            error => Self::Again(glib::Error::new(
                gst::ResourceError::OpenRead,
                &capitalised(&error.to_string()),
            )),
        }
    }

    pub(super) fn unreachable(reason: &str) -> Self {
        Self::Again(glib::Error::new(
            gst::ResourceError::NotFound,
            &format!(
                "The publisher cannot be reached: it is switched off, or there is no way to it from this network ({reason}). {NEW_TICKET}"
            ),
        ))
    }

    /// The publisher did not give the broadcast `name`.
    pub(super) fn subscribing(error: &BroadcastError, name: &str, own: EndpointId) -> Self {
        match error {
            BroadcastError::NotAllowed(_) => Self::Fatal(glib::Error::new(
                gst::ResourceError::NotAuthorized,
                &format!(
                    "The publisher does not let this viewer watch {name:?}. Ask for access for {own}"
                ),
            )),
            BroadcastError::NotFound(_) => Self::absent(name),
            BroadcastError::Session(end) => Self::closed(end),
            error => Self::lost(&error.to_string()),
        }
    }

    pub(super) fn absent(name: &str) -> Self {
        Self::Again(glib::Error::new(
            gst::ResourceError::NotFound,
            &format!("The publisher has no broadcast named {name:?}"),
        ))
    }

    /// The publisher ended the broadcast before there was a track to play, for this reason if there were others.
    pub(super) fn empty(reason: Option<String>) -> Self {
        const ENDED: &str = "The publisher ended the broadcast";
        Self::Empty(match reason {
            Some(reason) => codec_not_found(&format!("{ENDED}. {NOTHING}. {reason}")),
            None => glib::Error::new(
                gst::ResourceError::Read,
                &format!("{ENDED}, and there was nothing in it that could be played"),
            ),
        })
    }

    pub(super) fn catalog(error: CatalogError) -> Self {
        match error {
            CatalogError::Transport(error) => Self::lost(&error.to_string()),
            CatalogError::Stopped(StopReason::Interrupted) => Self::stopped(),
            CatalogError::Stopped(StopReason::NotAllowed) => Self::Fatal(glib::Error::new(
                gst::ResourceError::NotAuthorized,
                &capitalised(&error.to_string()),
            )),
            CatalogError::Stopped(reason) => Self::Again(glib::Error::new(
                gst::ResourceError::Read,
                &capitalised(&reason.to_string()),
            )),
            error => Self::Fatal(glib::Error::new(
                gst::StreamError::Format,
                &format!(
                    "{}. Ask the publisher what it publishes with",
                    capitalised(&error.to_string())
                ),
            )),
        }
    }

    /// The session ended.
    pub(super) fn closed(end: &Disconnect) -> Self {
        match (end.reason, end.code) {
            (DisconnectReason::RemoteClose, Some(CloseCode::DONE)) => Self::stopped(),
            (DisconnectReason::TransportError, _) => Self::lost(&end.message),
            _ => Self::lost(&end.to_string()),
        }
    }

    /// The publisher stopped without ending the broadcast.
    pub(super) fn stopped() -> Self {
        Self::Again(glib::Error::new(
            gst::ResourceError::Read,
            "The publisher stopped",
        ))
    }

    pub(super) fn lost(reason: &str) -> Self {
        Self::Again(glib::Error::new(
            gst::ResourceError::Read,
            &format!("The connection to the publisher was lost ({reason})"),
        ))
    }
}

/// The broadcast has tracks, and for this reason none that can be played.
pub(super) fn unplayable(reason: &str) -> glib::Error {
    codec_not_found(&format!("{NOTHING}. {reason}"))
}

fn codec_not_found(text: &str) -> glib::Error {
    glib::Error::new(
        gst::StreamError::CodecNotFound,
        &format!("{text}. Update this plugin, or ask for another codec"),
    )
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
