//! What can go wrong with playback.

use std::any::Any;

use gst::glib;

use super::decode::package;
use crate::{
    adaptive::AdaptiveError,
    broadcast::CatalogError,
    media::{InitError, receive::RenditionError},
    subscription::SubscribeError,
};

/// Playback could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// GStreamer could not be started.
    #[error(transparent)]
    Init(#[from] InitError),
    /// There is no catalog that says what there is to play.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The broadcast ended before it had a track.
    #[error("the broadcast ended before there was anything to play")]
    Ended,
    /// The pipeline could not be made.
    #[error("the pipeline that plays cannot be made: {0}")]
    Pipeline(#[source] glib::BoolError),
    /// Called outside of a tokio runtime.
    #[error("playback needs a tokio runtime: call this in one")]
    Runtime(#[source] tokio::runtime::TryCurrentError),
    /// The backend takes no sound.
    #[error("the audio backend is AudioBackend::none(): choose another one to get an audio track")]
    NoAudio,
}

/// [`Live::subscribe_media`](crate::Live::subscribe_media) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeMediaError {
    /// The broadcast cannot be had.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// It cannot be played.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// A track stopped otherwise than by its publisher's will.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaybackError {
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The connection was lost, or the rendition that is asked for is not there.
    #[error(transparent)]
    Source(AdaptiveError),
    /// The catalog describes something that is not known here.
    #[error("track {track:?} cannot be played: {reason}")]
    Unplayable {
        /// The track.
        track: String,
        /// What is not known.
        reason: String,
    },
    /// Nothing that is installed decodes it.
    #[error("no decoder for {codec}: install {package} (that is its name on Debian and Ubuntu)")]
    MissingDecoder {
        /// The codec.
        codec: &'static str,
        /// The package that has a decoder.
        package: &'static str,
    },
    /// All decoders failed, again and again.
    #[error(
        "the {codec} stream cannot be decoded: {reason} (tried: {tried}); it is damaged, or another decoder is needed, as {package} has"
    )]
    Decoder {
        /// The codec.
        codec: &'static str,
        /// The package of Debian and Ubuntu that has a decoder.
        package: &'static str,
        /// The decoders.
        tried: String,
        /// What the last one said.
        reason: String,
    },
    /// Something panicked, which may be the program's own [`Decoders`](super::Decoders).
    #[error(
        "playback came upon a panic and stopped: {0}; if it is not of the program's own Decoders, it is a bug"
    )]
    Panic(String),
    /// The output does not work.
    #[error("nothing can be played on this output: {0}; choose another AudioBackend")]
    Output(String),
}

impl PlaybackError {
    /// Says what a panic said.
    pub(super) fn of_panic(panic: Box<dyn Any + Send>) -> Self {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Self::Panic(said.unwrap_or_else(|| "it does not say why".to_owned()))
    }
}

impl From<RenditionError> for PlaybackError {
    fn from(error: RenditionError) -> Self {
        match error {
            RenditionError::Catalog(error) => Self::Catalog(error),
            RenditionError::Read(error) => Self::Source(error),
            RenditionError::Unplayable(left_out) => Self::Unplayable {
                track: left_out.track,
                reason: left_out.reason,
            },
            RenditionError::NoDecoder(caps) => {
                let (codec, package) = package(&caps);
                Self::MissingDecoder { codec, package }
            }
        }
    }
}
