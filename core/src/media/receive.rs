//! From the tracks of a broadcast to frames on one local timeline.

mod clock_recovery;
pub mod feed;
mod history;
mod playable;
mod playout;
mod renditions;

pub use playable::Playable;
pub use playout::PlayoutClock;
pub(in crate::media) use {
    history::RenditionHistory,
    renditions::{Candidates, RenditionConfig, RenditionError, RenditionReader},
};
