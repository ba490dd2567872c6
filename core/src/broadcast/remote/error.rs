//! What can go wrong with what is read.

use crate::broadcast::{
    catalog_reader,
    stop::StopReason,
    upstream::{SharedError, UpstreamError},
};

/// The catalog could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The publisher has no catalog under the name that players expect.
    #[error("the broadcast has no catalog: it is not published by a player of the MoQ family")]
    NotFound(#[source] moq_lite::Error),
    /// The catalog is not valid JSON, or not a catalog.
    #[error("the catalog of the broadcast cannot be understood: {0}")]
    Malformed(#[source] moq_mux::Error),
    /// The catalog is more than [`CatalogLimits`](crate::broadcast::CatalogLimits) allow, in the way that is said.
    #[error("the catalog of the broadcast is not read: {0}")]
    TooLarge(String),
    /// The publisher stopped it.
    #[error(transparent)]
    Stopped(StopReason),
    /// The connection was lost, or the publisher left.
    #[error("the catalog came to an abrupt end: {0}")]
    Transport(#[source] moq_lite::Error),
    /// The subscription has failed, and looks for the broadcast no longer.
    #[error("{0}")]
    Subscription(#[source] SharedError),
}

impl CatalogError {
    pub(super) fn transport(error: moq_lite::Error) -> Self {
        match StopReason::of(&error) {
            Some(reason) => Self::Stopped(reason),
            None => Self::Transport(error),
        }
    }
}

impl From<catalog_reader::Failure> for CatalogError {
    fn from(failure: catalog_reader::Failure) -> Self {
        match failure {
            catalog_reader::Failure::Exceeded(how) => Self::TooLarge(how),
            catalog_reader::Failure::Other(error) => error.into(),
        }
    }
}

impl From<moq_mux::Error> for CatalogError {
    fn from(error: moq_mux::Error) -> Self {
        match net_error(&error) {
            Some(error @ moq_lite::Error::NotFound) => Self::NotFound(error),
            Some(error) => Self::transport(error),
            None => Self::Malformed(error),
        }
    }
}

impl From<UpstreamError> for CatalogError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Stopped(reason) => Self::Stopped(reason),
            UpstreamError::Other(error) => Self::Subscription(error),
        }
    }
}

/// A track could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeTrackError {
    /// The catalog describes a container that nobody here can read.
    #[error("the container of track {name:?} cannot be read: {source}")]
    Container {
        /// The track.
        name: String,
        /// What is wrong with it.
        source: moq_mux::Error,
    },
    /// The publisher stopped it.
    #[error("track {name:?} cannot be had: {reason}")]
    Stopped {
        /// The track.
        name: String,
        /// Why.
        reason: StopReason,
    },
    /// The publisher does not have the track, or the connection was lost.
    #[error("track {name:?} cannot be had: {source}")]
    Transport {
        /// The track.
        name: String,
        /// Why.
        source: moq_lite::Error,
    },
    /// The publisher has ended the broadcast.
    #[error("track {name:?} cannot be had: the broadcast has ended")]
    Ended {
        /// The track.
        name: String,
    },
    /// The subscription has failed, and looks for the broadcast no longer.
    #[error("track {name:?} cannot be had: {source}")]
    Subscription {
        /// The track.
        name: String,
        /// Why.
        source: SharedError,
    },
}

impl SubscribeTrackError {
    pub(super) fn transport(name: &str, source: moq_lite::Error) -> Self {
        let name = name.to_owned();
        match StopReason::of(&source) {
            Some(reason) => Self::Stopped { name, reason },
            None => Self::Transport { name, source },
        }
    }

    pub(super) fn upstream(name: &str, error: UpstreamError) -> Self {
        let name = name.to_owned();
        match error {
            UpstreamError::Stopped(reason) => Self::Stopped { name, reason },
            UpstreamError::Other(source) => Self::Subscription { name, source },
        }
    }
}

/// A track ended otherwise than by its publisher's will.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The publisher sent what is no frame.
    #[error("the track carries something that is no media: {0}")]
    Malformed(#[source] moq_mux::Error),
    /// The publisher stopped it.
    #[error(transparent)]
    Stopped(StopReason),
    /// The connection was lost, or the publisher left without ending the track.
    #[error("the track came to an abrupt end: {0}")]
    Transport(#[source] moq_lite::Error),
    /// The publisher has come back, and has the track no more or with another description: the catalog says what to
    /// read instead.
    #[error("the publisher has come back without track {0:?} as it was")]
    Changed(String),
    /// The subscription has failed, and looks for the broadcast no longer.
    #[error("{0}")]
    Subscription(#[source] SharedError),
}

impl From<moq_mux::Error> for ReadError {
    fn from(error: moq_mux::Error) -> Self {
        match net_error(&error) {
            Some(error) => match StopReason::of(&error) {
                Some(reason) => Self::Stopped(reason),
                None => Self::Transport(error),
            },
            None => Self::Malformed(error),
        }
    }
}

impl From<UpstreamError> for ReadError {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Stopped(reason) => Self::Stopped(reason),
            UpstreamError::Other(error) => Self::Subscription(error),
        }
    }
}

impl From<SubscribeTrackError> for ReadError {
    fn from(error: SubscribeTrackError) -> Self {
        match error {
            SubscribeTrackError::Container { source, .. } => Self::Malformed(source),
            SubscribeTrackError::Stopped { reason, .. } => Self::Stopped(reason),
            SubscribeTrackError::Transport { source, .. } => Self::Transport(source),
            SubscribeTrackError::Ended { .. } => Self::Transport(moq_lite::Error::Closed),
            SubscribeTrackError::Subscription { source, .. } => Self::Subscription(source),
        }
    }
}

/// The transport error inside an error of the layers above it; none if what was received makes no sense.
fn net_error(error: &moq_mux::Error) -> Option<moq_lite::Error> {
    match error {
        moq_mux::Error::Moq(error)
        | moq_mux::Error::Json(moq_json::Error::Net(error))
        | moq_mux::Error::Hang(hang::Error::Moq(error)) => match error {
            moq_lite::Error::Decode(_) | moq_lite::Error::BoundsExceeded(_) => None,
            error => Some(error.clone()),
        },
        _ => None,
    }
}
