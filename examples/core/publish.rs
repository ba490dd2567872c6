//! Publishes a test card with a running clock and a tone, or a file, in two sizes; prints the ticket.
//!
//!     cargo run --release -p iroh-live --example publish [movie.mp4]

use anyhow::Result;
use iroh_live::{
    Live, LocalBroadcast,
    media::{
        AudioCodec, AudioPreset, AudioSource, MediaSource, VideoCodec, VideoPreset, VideoSource,
    },
    util::{SECRET_ENV, secret_key_in_env},
};

#[tokio::main]
async fn main() -> Result<()> {
    let live = Live::from_env().await?.with_router().spawn();
    let broadcast = LocalBroadcast::new();
    let (video, audio) = match std::env::args().nth(1) {
        Some(file) => MediaSource::file(file).split(),
        None => (VideoSource::test(), AudioSource::test()),
    };
    // Two sizes from one capture: viewers take what their network carries. What nobody watches is not encoded.
    let presets = [VideoPreset::P720, VideoPreset::P180];
    broadcast
        .video()
        .set_source(video, VideoCodec::H264, presets)?;
    broadcast
        .audio()
        .set(audio, AudioCodec::Opus, [AudioPreset::Hq])?;
    live.publish("stream", &broadcast)?;
    println!("{}", live.ticket("stream").await?);
    if secret_key_in_env()?.is_none() {
        eprintln!(
            "To be found with the same ticket next time: export {SECRET_ENV}=$(openssl rand -hex 32)"
        );
    }

    tokio::signal::ctrl_c().await?;
    live.shutdown().await;
    Ok(())
}
