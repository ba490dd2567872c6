//! From raw media to the tracks of a broadcast: one encoder a rendition, fed from one source.

pub(super) mod fanout;
pub(super) mod pipeline;
mod rendition;
mod writer;
