//! What keeps a track from being published, or a frame from being written.

/// A track could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishTrackError {
    /// The name is taken by another track of this broadcast.
    #[error("the broadcast already has a track named {0:?}; choose another name")]
    Duplicate(String),
    /// A video track cannot become an audio track, nor the other way round.
    #[error("track {0:?} cannot change between audio and video; publish another track")]
    Kind(String),
    /// The broadcast has ended.
    #[error("the broadcast has ended; make a new one")]
    Ended,
    /// The catalog refused the description.
    #[error("the catalog does not take the track's description: {0}")]
    Catalog(#[source] moq_mux::Error),
}

/// A frame could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A track begins with a key frame; the frame was dropped.
    #[error("no key frame yet: the frame cannot be decoded and was dropped")]
    NoKeyframe,
    /// The timestamp lies before media that was sent already; the frame was dropped.
    #[error("the timestamp lies before an earlier group of pictures; the frame was dropped")]
    Rewind,
    /// The group of pictures is larger than what a group can carry (32 MiB or 8192 frames).
    #[error(
        "the group of pictures is larger than 32 MiB or 8192 frames; set the encoder to a shorter key frame interval"
    )]
    GroupTooLarge,
    /// The track or the broadcast has ended.
    #[error("the track has ended")]
    Ended,
    /// Anything else.
    #[error("the frame could not be written: {0}")]
    Mux(#[source] moq_mux::Error),
}

impl From<moq_mux::Error> for WriteError {
    fn from(error: moq_mux::Error) -> Self {
        use moq_lite::Error as Net;
        match error {
            moq_mux::Error::MissingKeyframe(_) => Self::NoKeyframe,
            moq_mux::Error::TimestampRewind(_) => Self::Rewind,
            moq_mux::Error::Moq(Net::GroupTooLarge | Net::FrameTooLarge) => Self::GroupTooLarge,
            moq_mux::Error::Moq(Net::Closed | Net::Cancel | Net::Dropped) => Self::Ended,
            error => Self::Mux(error),
        }
    }
}
