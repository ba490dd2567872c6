//! From the tracks of a broadcast to frames on one local timeline.

pub mod feed;
mod playout;
