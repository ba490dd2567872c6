//! What the property `stats` of the elements is made of.
//!
//! Structures in structures, with a field for each pad and each peer: that can be read in every language. An array could
//! not, as Python reads no GstValueArray without gst-python. (Python has to keep a structure for as long as it looks at what
//! is in it: PyGObject does not.)

use iroh_live::transport::{MoqSession, PathInfo, TrafficBytes};

/// The fields of [`with_path`], for the descriptions of the properties.
macro_rules! path_fields {
    () => {
        "path-type (none, direct or relayed), address, round-trip-time (ns), send-rate (bit/s, 0 if unknown), \
         packets-sent, packets-lost (of this path), version, and whether it is reached or not bytes-sent, bytes-received \
         (all so far, over all connections and paths); all numbers are of 64 bit without sign"
    };
}
pub(crate) use path_fields;

/// Adds what has gone to a peer and come from it, and how it is reached, with `path-type=none` and nothing else if it is not.
pub(crate) fn with_path(
    structure: gst::structure::Builder,
    session: Option<&MoqSession>,
    traffic: TrafficBytes,
) -> gst::structure::Builder {
    let structure = structure
        .field("bytes-sent", traffic.sent)
        .field("bytes-received", traffic.received);
    let Some(session) = session else {
        return structure.field("path-type", PathInfo::default().kind.as_str());
    };
    let path = session.path();
    structure
        .field("path-type", path.kind.as_str())
        .field("address", path.address)
        .field("round-trip-time", nanos(path.rtt))
        .field("send-rate", path.rate.unwrap_or(0))
        .field("packets-sent", path.sent_packets)
        .field("packets-lost", path.lost_packets)
        .field("version", session.version().to_string())
}

/// One structure with a field for each of `parts`, such as the pads of an element.
pub(crate) fn nested(
    name: &str,
    parts: impl IntoIterator<Item = (String, gst::Structure)>,
) -> gst::Structure {
    let mut all = gst::Structure::new_empty(name);
    for (name, part) in parts {
        all.set(name, part);
    }
    all
}

/// A time as GStreamer counts it.
pub(crate) fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pads_and_peers_can_be_fields() {
        gst::init().unwrap();
        for field in ["video_0", &"7f".repeat(32), &"ab".repeat(32)] {
            let part = gst::Structure::builder("track")
                .field("frames", 7_u64)
                .build();
            let all = nested("tracks", [(field.to_owned(), part.clone())]);
            assert_eq!(all.get::<gst::Structure>(field).unwrap(), part);
            // As gst-launch-1.0 and logs write it.
            let read: gst::Structure = all.to_string().parse().unwrap();
            assert_eq!(read.get::<gst::Structure>(field).unwrap(), part);
        }
    }
}
