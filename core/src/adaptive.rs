//! Follows the network: the rendition that a viewer watches, the bitrate that a publisher encodes at.
//!
//! **A viewer** reads a broadcast through [`RemoteBroadcast::adaptive`], which hands out the frames of whichever
//! rendition is best for now, as one stream:
//!
//! * [`DownloadMeter`] says how the frames get through. All it knows comes from the download path: when each frame
//!   arrived against when it was captured, how many bytes, which groups never came. Loss is not seen as such by a
//!   receiver of QUIC; it shows as frames that are late again and again, or as groups that are skipped.
//! * [`Selector`] decides on that, and on what the peer says that it can deliver (MoQ's PROBE, which carries the rate of
//!   the sender's congestion controller).
//! * A switch opens the new rendition beside the old one and takes over at its first key frame, without a gap and
//!   without a doubled frame. While it climbs, the new one has the lower priority, so that it takes nothing from the
//!   picture, until it shows that the network carries the new one, if not both: then the new one is served first, from its
//!   next key frame on. While it falls, the old one has the lower priority. Both together are received for a few seconds at
//!   most: then the switch is given up, and counts as a failure.
//! * Where the publisher says that it fits its pictures to this viewer, as in a call, the viewer takes the best that it can
//!   decode and leaves the rate to the publisher, unless next to nothing gets through.
//! * The readers on one session know of each other: what the peer can deliver is for all of them, and one at a time
//!   tries a better rendition.
//!
//! **A publisher** gives [`EncoderRate`] the signals of a connection and sets its encoder to what comes out.
//!
//! Each of these is a plain state machine with time passed in, and can be used by itself.
//!
//! [`RemoteBroadcast::adaptive`]: crate::RemoteBroadcast::adaptive

mod arrival;
mod attempt;
mod cooldown;
mod encoder;
mod handover;
mod interface;
mod ladder;
mod meter;
mod output;
mod publisher_control;
mod quality;
mod reader;
mod select;
mod share;
#[cfg(test)]
mod simulation;

pub use crate::broadcast::{MediaKind, Rendition};
pub use encoder::EncoderRate;
pub use interface::{
    AdaptiveConfig, AdaptiveControl, AdaptiveError, AdaptiveFrame, AdaptiveStatus,
};
pub use meter::{Congestion, DownloadMeter, DownloadReport};
pub use quality::{Quality, Rung};
pub use reader::AdaptiveReader;
pub use select::{Decision, Measured, Selector};
