//! Why the broadcast is not there, in words for the user.

use std::time::Duration;

use gst::glib;
use iroh_live::{
    LossReason, SubscribeError,
    broadcast::CatalogError,
    iroh::EndpointId,
    transport::{BroadcastError, ConnectError},
};

/// What to say to somebody whose publisher may have been started with another key.
const NEW_TICKET: &str = "A publisher that was started anew may have a new ticket";

const NOTHING: &str = "Nothing of the broadcast can be played";

pub(super) enum Failure {
    /// Nothing to be done about it.
    Fatal(glib::Error),
    /// The broadcast is over, and had nothing to play.
    Empty(glib::Error),
}

impl Failure {
    /// The publisher does not let this side watch.
    pub(super) fn refused(error: &SubscribeError, name: &str, own: EndpointId) -> Self {
        let text = match error {
            SubscribeError::Connect(ConnectError::Refused { .. }) => {
                format!("The publisher refuses this viewer. Ask for access for {own}")
            }
            SubscribeError::Broadcast(BroadcastError::NotAllowed(_)) => format!(
                "The publisher does not let this viewer watch {name:?}. Ask for access for {own}"
            ),
            error => capitalised(&error.to_string()),
        };
        Self::Fatal(glib::Error::new(gst::ResourceError::NotAuthorized, &text))
    }

    /// It cannot be had, or was given up.
    pub(super) fn failed(error: &SubscribeError, name: &str) -> Self {
        match error {
            SubscribeError::GaveUp { after, reason } => Self::given_up(&lost(reason, name), *after),
            SubscribeError::Catalog(
                error @ (CatalogError::NotFound(_) | CatalogError::Malformed(_)),
            ) => Self::Fatal(glib::Error::new(
                gst::StreamError::Format,
                &format!(
                    "{}. Ask the publisher what it publishes with",
                    capitalised(&error.to_string())
                ),
            )),
            error => Self::read(&error.to_string()),
        }
    }

    pub(super) fn read(reason: &str) -> Self {
        let error = glib::Error::new(gst::ResourceError::Read, &capitalised(reason));
        Self::Fatal(error)
    }

    /// It was given up for this.
    pub(super) fn given_up(error: &glib::Error, after: Duration) -> Self {
        let millis = after.as_millis();
        let more = format!("Gave up after {millis} ms, as the property timeout says");
        Self::Fatal(extended(error, &more))
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
}

/// Why the broadcast is not there.
pub(super) fn lost(reason: &LossReason, name: &str) -> glib::Error {
    use gst::ResourceError as Code;
    let cause = || capitalised(&reason.cause());
    match reason {
        LossReason::Stopped => glib::Error::new(Code::Read, "The publisher stopped"),
        LossReason::NotPublished => absent(name),
        LossReason::Unreachable(_) => {
            glib::Error::new(Code::NotFound, &format!("{}. {NEW_TICKET}", cause()))
        }
        LossReason::WrongIdentity => glib::Error::new(Code::NotFound, &cause()),
        LossReason::Busy(_) | LossReason::Full(_) => glib::Error::new(Code::Busy, &cause()),
        LossReason::Failed(_) => glib::Error::new(Code::OpenRead, &cause()),
        _ => glib::Error::new(Code::Read, &cause()),
    }
}

pub(super) fn absent(name: &str) -> glib::Error {
    glib::Error::new(
        gst::ResourceError::NotFound,
        &format!("The publisher has no broadcast named {name:?}"),
    )
}

/// The publisher has these broadcasts, and not the one that is wanted.
pub(super) fn waiting(name: &str, published: &[String]) -> glib::Error {
    let published = match published {
        [] => "It has none at the moment".to_owned(),
        names => format!("It has: {}", names.join(", ")),
    };
    glib::Error::new(
        gst::ResourceError::NotFound,
        &format!(
            "The publisher is there, but has no broadcast named {name:?}. {published}. Waiting for it to appear"
        ),
    )
}

/// It was lost for this reason, and is tried again.
pub(super) fn again(reason: &LossReason, name: &str) -> glib::Error {
    let more = match reason {
        LossReason::Replaced => "Going over to that",
        _ => "Trying again until it is there",
    };
    extended(&lost(reason, name), more)
}

/// The same with these words after it. Every domain of such errors is one of ours.
fn extended(error: &glib::Error, more: &str) -> glib::Error {
    let text = format!("{}. {more}", error.message());
    if let Some(code) = error.kind::<gst::ResourceError>() {
        glib::Error::new(code, &text)
    } else if let Some(code) = error.kind::<gst::StreamError>() {
        glib::Error::new(code, &text)
    } else {
        glib::Error::new(gst::ResourceError::Failed, &text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_words_keep_the_code() {
        let error = again(&LossReason::Stopped, "stream");
        assert!(error.matches(gst::ResourceError::Read));
        assert_eq!(
            error.message(),
            "The publisher stopped. Trying again until it is there"
        );
        let error = again(&LossReason::Replaced, "stream");
        assert_eq!(
            error.message(),
            "The publisher has put another broadcast in its place. Going over to that"
        );
    }
}
