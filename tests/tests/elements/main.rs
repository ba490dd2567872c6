//! How the two elements behave in a pipeline, by the book of GStreamer.

mod connection;
mod pads;
mod players;
mod time;

use iroh_live_tests::{
    Frame, Item, Publisher,
    media::{NalKind, annex_b},
};

const RAW: &str = "video/x-raw,format=I420,width=160,height=120,framerate=30/1";

const BYTE_STREAM: &str = "video/x-h264,stream-format=byte-stream";

/// Live H.264 with a key frame every half second, and no more than that in front of it.
fn video() -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! {RAW} ! x264enc tune=zerolatency key-int-max=15 ! {BYTE_STREAM}"
    )
}

/// The same with sound beside it.
fn video_and_audio() -> String {
    format!(
        "SINK  {} ! stream.video_0  audiotestsrc is-live=true wave=white-noise ! opusenc ! stream.audio_0",
        video()
    )
}

fn publish_video() -> Publisher {
    Publisher::start(&format!("{} ! SINK", video()))
}

fn types(items: &[Item]) -> Vec<&'static str> {
    items
        .iter()
        .map(|item| match item {
            Item::Event(event) => event.type_().name().as_str(),
            Item::Frame(_) => "buffer",
        })
        .collect()
}

/// What is in an access unit, but for what parsers add and take away.
fn content(data: &[u8]) -> Vec<&[u8]> {
    let mut units = annex_b(data);
    units.retain(|unit| NalKind::h264(unit) == NalKind::Content);
    units
}

fn last_slice(data: &[u8]) -> Vec<u8> {
    content(data)
        .last()
        .map(|unit| unit.to_vec())
        .unwrap_or_default()
}

fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// How many milliseconds after its time a frame came.
fn lateness(frame: &Frame) -> Option<i64> {
    let millis = |time: gst::ClockTime| i64::try_from(time.mseconds()).expect("not that long");
    Some(millis(frame.arrival?) - millis(frame.pts?))
}
