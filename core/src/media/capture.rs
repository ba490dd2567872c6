//! Where pictures and sound come from.

mod buffering;
mod device;
mod error;
mod input;
mod pipeline;
mod push;
mod source;
mod split;

pub use error::SourceError;
pub(super) use pipeline::{CaptureTime, FrameSink, Tap};
pub use push::{AudioPusher, PushError, VideoPusher};
pub use source::{AudioSource, MediaSource, VideoSource};
pub(super) use source::{RunningSource, SourceKind};
