//! What `irohlivesrc` makes of its application, of the pipeline behind it and of its publisher: ends, unlinked pads, slow
//! elements, handlers that take their time.

mod application;
mod downstream;
mod ends;
mod tracks;

use gst::prelude::*;
use iroh_live_tests::{Publisher, free_port, secret_key};

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
    x264enc tune=zerolatency key-int-max=15";

const AUDIO: &str = "audiotestsrc is-live=true ! opusenc";

/// A publisher that can be started again and have the same ticket.
fn publisher_at(key: u8, tracks: &str) -> Publisher {
    let publisher = Publisher::new(&format!("{tracks} secret-key={}", secret_key(key)));
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{}", free_port()));
    publisher.pipe.play();
    publisher
}
