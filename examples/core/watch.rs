//! Watches a broadcast: in a window, or as a PNG where there is no display.
//!
//!     cargo run --release -p iroh-live --example watch iroh-live:…
//!
//! The sound goes to the system's default output, in sync with the picture.

use anyhow::{Context, Result};
use gst::prelude::*;
use iroh_live::{
    Live, LiveTicket,
    media::{AudioBackend, PlaybackConfig, VideoFrame},
};

const PNG: &str = "watch.png";

#[tokio::main]
async fn main() -> Result<()> {
    let ticket = std::env::args().nth(1).context("usage: watch TICKET")?;
    let ticket: LiveTicket = ticket.parse()?;
    let live = Live::from_env().await?.spawn();
    let audio_backend = AudioBackend::default();
    let config = PlaybackConfig::default();
    let subscriber = live.subscriber_of(&ticket).spawn();
    let mut state = subscriber.state();
    tokio::spawn(async move {
        while state.changed().await.is_ok() {
            println!("{}", *state.borrow_and_update());
        }
    });
    // It waits for the publisher, and what plays goes on when that was away.
    let playing = subscriber.broadcast().media(&audio_backend, config);
    let tracks = playing.await?;

    let video = tracks
        .video
        .as_ref()
        .context("the broadcast has no video")?;
    let mut window = None;
    let mut frames = 0_u64;
    while let Some(frame) = video.next_frame().await? {
        if frames == 0 {
            println!("{}x{}", frame.width(), frame.height());
            window = Window::open(&frame).ok();
        }
        match &window {
            Some(window) => window.show(&frame)?,
            None if frames.is_multiple_of(30) => {
                std::fs::write(PNG, frame.png()?)?;
                println!("no display: the picture is in {PNG}");
            }
            None => {}
        }
        frames += 1;
    }
    println!("the broadcast has ended after {frames} frames");
    live.shutdown().await;
    Ok(())
}

/// A window of GStreamer's. The frames come at their time: it shows them when they come.
struct Window {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
}

impl Window {
    fn open(first: &VideoFrame) -> Result<Self> {
        let display = ["DISPLAY", "WAYLAND_DISPLAY"];
        display
            .iter()
            .find_map(std::env::var_os)
            .context("no display")?;
        let source = gst_app::AppSrc::builder()
            .caps(&first.caps().to_owned())
            .is_live(true)
            .build();
        let behind = gst::parse::bin_from_description(
            "queue leaky=downstream max-size-buffers=2 ! videoconvert ! autovideosink sync=false",
            true,
        )?;
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref(), behind.upcast_ref::<gst::Element>()])?;
        source.link(&behind)?;
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, source })
    }

    fn show(&self, frame: &VideoFrame) -> Result<()> {
        self.source.push_sample(frame.sample())?;
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
