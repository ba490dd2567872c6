//! From raw media to the tracks of a broadcast: one encoder a rendition, fed from one source.
//!
//! What ends a pipeline that publishes, and writes what comes out of it to a track, can be used by itself:
//! [`encoded_sink`], [`parser`] and [`TrackWriter`].

mod bitrate;
mod candidates;
mod closing;
pub(super) mod fanout;
mod opening;
mod parse;
mod pipeline;
mod rendition;
mod sample_clock;
mod status;
mod switch;
mod track;
mod watchdog;
mod writer;

pub use parse::{MissingParser, encoded_sink, parser};
pub use status::{
    CapturedFrame, Preview, PublishMediaError, RenditionInfo, SetSourceError, SourceStatus,
};
pub use writer::{TrackWriter, TrackWriterError};
