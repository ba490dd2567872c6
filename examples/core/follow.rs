//! Follows the network: shows what is known of it, and which rendition is being watched.
//!
//!     cargo run --release -p iroh-live --example publish           # two renditions
//!     cargo run --release -p iroh-live --example follow iroh-live:…

use anyhow::{Context, Result};
use iroh_live::{
    Live, LiveTicket,
    media::{AudioBackend, PlaybackConfig},
};

#[tokio::main]
async fn main() -> Result<()> {
    let ticket = std::env::args().nth(1).context("usage: follow TICKET")?;
    let ticket: LiveTicket = ticket.parse()?;
    let live = Live::from_env().await?.spawn();
    let subscription = live.subscribe(ticket.addr().clone(), ticket.name()).await?;
    // The default quality is the best that the network carries.
    let tracks = subscription
        .media(&AudioBackend::none(), PlaybackConfig::default())
        .await?;
    let video = tracks
        .video
        .as_ref()
        .context("the broadcast has no video")?;

    let mut signals = subscription.signals().clone();
    let mut state = subscription.state();
    let mut watched = None;
    loop {
        tokio::select! {
            frame = video.next_frame() => {
                let Some(frame) = frame? else { break };
                let rendition = video.rendition().map(|rendition| rendition.name.clone());
                if rendition != watched {
                    println!("now {} ({}x{})", rendition.as_deref().unwrap_or("?"), frame.width(), frame.height());
                    watched = rendition;
                }
            }
            Ok(()) = state.changed() => println!("{}", *state.borrow_and_update()),
            changed = signals.changed() => {
                if changed.is_err() {
                    break;
                }
                let now = *signals.borrow_and_update();
                println!(
                    "{}: round trip {:?}, receiving {} kbit/s, the publisher could send {} kbit/s",
                    now.path,
                    now.rtt,
                    now.receive_rate / 1000,
                    now.download_bandwidth.unwrap_or(0) / 1000,
                );
            }
        }
    }
    live.shutdown().await;
    Ok(())
}
