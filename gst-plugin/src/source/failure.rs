//! Why the way to the broadcast ended, in words for the user.

use gst::glib;
use iroh_live::{
    broadcast::CatalogError,
    iroh::{EndpointId, endpoint::ConnectionError},
    transport::{ConnectError, SubscribeError, close_code},
};

/// What to say to somebody whose publisher may have been started with another key.
const NEW_TICKET: &str = "A publisher that was started anew may have a new ticket";

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
    pub(super) fn subscribing(error: &SubscribeError, name: &str, own: EndpointId) -> Self {
        match error {
            SubscribeError::Refused(_) => Self::Fatal(glib::Error::new(
                gst::ResourceError::NotAuthorized,
                &format!(
                    "The publisher does not let this viewer watch {name:?}. Ask for access for {own}"
                ),
            )),
            SubscribeError::NotFound(_) => Self::absent(name),
            error => Self::lost(&error.to_string()),
        }
    }

    pub(super) fn absent(name: &str) -> Self {
        Self::Again(glib::Error::new(
            gst::ResourceError::NotFound,
            &format!("The publisher has no broadcast named {name:?}"),
        ))
    }

    pub(super) fn catalog(error: CatalogError) -> Self {
        match error {
            CatalogError::Transport(error) => Self::lost(&error.to_string()),
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
    pub(super) fn closed(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close)
                if close.error_code == close_code::DONE.into() =>
            {
                Self::stopped()
            }
            ConnectionError::TimedOut => Self::lost("nothing came from it any more"),
            error => Self::lost(&error.to_string()),
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

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
