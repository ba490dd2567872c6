//! Encoded media: a broadcast that is written, a broadcast that is read.
//!
//! A broadcast is a set of tracks and a catalog that describes them, in the format of the `hang` and `moq-mux` crates,
//! so that every player of that family reads it. A track is a sequence of groups; a group of video is a group of
//! pictures and begins with a key frame, a group of audio is one packet, as every packet can be decoded by itself.

mod activity;
#[cfg(feature = "media")]
mod attachment;
mod audience;
mod cache;
mod catalog_reader;
mod container;
mod extension;
mod local;
mod readers;
mod remote;
mod rendition;
mod stop;
mod timeline;
mod track;
mod upstream;
#[cfg(feature = "media")]
mod viewers;

pub(crate) use activity::Activity;
pub(crate) use audience::{Attendance, Audience};
pub(crate) use cache::{RETENTION, pool};
pub(crate) use catalog_reader::CatalogGuard;
pub use catalog_reader::CatalogLimits;
pub use extension::{Catalog, CatalogExtension, IrohLive};
pub use hang::catalog::{AudioConfig, Container, VideoConfig};
pub use local::{LocalBroadcast, LocalTrack, PublishTrackError, TrackReservation, WriteError};
pub(crate) use readers::{ReaderShare, Readers};
pub use remote::{
    CatalogError, CatalogWatch, EncodedReader, ReadError, RemoteBroadcast, SubscribeTrackError,
    TrackStats,
};
pub use rendition::{LeftOut, Readable, Rendition};
pub use stop::StopReason;
pub use timeline::{Restarts, Timeline};
pub use track::{EncodedFrame, MediaKind, TrackConfig};
pub(crate) use upstream::{Incarnation, LAST_FRAMES, Lasting, PeerRate, Upstream, UpstreamError};

/// How a catalog names codecs: with the profile and the level that a stream has, as `avc1.64001f`.
///
/// What media is to be *encoded* with is chosen with the codecs of `media`.
pub mod catalog {
    pub use hang::catalog::{AAC, AV1, AudioCodec, H264, H265, VP9, VideoCodec};
}
