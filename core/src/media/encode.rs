//! From raw media to the tracks of a broadcast: one encoder a rendition, fed from one source.
//!
//! What ends a pipeline that publishes, and writes what comes out of it to a track, can be used by itself:
//! [`encoded_sink`], [`parser`] and [`TrackWriter`].

pub(super) mod fanout;
mod parse;
pub(super) mod pipeline;
mod rendition;
mod track;
mod writer;

pub use parse::{MissingParser, encoded_sink, parser};
pub use writer::{TrackWriter, TrackWriterError};
