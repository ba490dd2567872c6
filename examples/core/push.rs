//! Publishes pictures that the program makes itself, as a renderer or a camera's own library would.
//!
//!     cargo run --release -p iroh-live --example push

use std::time::Duration;

use anyhow::Result;
use iroh_live::{
    Live, LocalBroadcast,
    media::{VideoCodec, VideoPreset, VideoSource},
};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;

#[tokio::main]
async fn main() -> Result<()> {
    iroh_live::media::init()?;
    let format = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgbx, WIDTH, HEIGHT)
        .fps(gst::Fraction::new(30, 1))
        .build()?;
    let (pusher, source) = VideoSource::push(format);
    let broadcast = LocalBroadcast::new();
    broadcast
        .video()
        .set_source(source, VideoCodec::Vp8, [VideoPreset::P360])?;

    let live = Live::from_env().await?.with_router().spawn();
    live.publish("pixels", &broadcast)?;
    println!("{}", live.ticket("pixels").await?);

    let mut clock = tokio::time::interval(Duration::from_secs(1) / 30);
    let mut shift = 0_u32;
    // Made once: a new one in each turn of the loop would miss what comes between the turns.
    let ctrl_c = tokio::signal::ctrl_c();
    tokio::pin!(ctrl_c);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = &mut ctrl_c => break,
        }
        shift = shift.wrapping_add(2);
        let pixels: Vec<u8> = (0..HEIGHT)
            .flat_map(|y| {
                (0..WIDTH).flat_map(move |x| [x + shift, y + shift, x ^ y, 0].map(|n| n as u8))
            })
            .collect();
        // The bytes become the buffer: nothing is copied before the encoder.
        pusher.push(gst::Buffer::from_slice(pixels))?;
    }
    live.shutdown().await;
    Ok(())
}
