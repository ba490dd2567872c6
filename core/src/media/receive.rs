//! From the tracks of a broadcast to frames on one local timeline.

pub mod feed;
mod playable;
mod playout;

pub use playable::Playable;
