//! Caps and the catalog: how a stream is brought into the form that travels, and how that is described.
//!
//! On the wire H.264 and H.265 are Annex B with parameter sets before each key frame, one access unit a frame; AV1 is an
//! OBU stream, one temporal unit a frame; VP8, VP9, Opus, MP3 and raw AAC and FLAC frames are what their encoders emit.

mod decode;
mod describe;
mod table;

pub use decode::{same_codec, track_caps};
pub use describe::is_header;
pub use table::{Codec, Parser, Reason, sink_caps, src_caps};
