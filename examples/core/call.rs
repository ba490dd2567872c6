//! A call between two machines, with a test picture and a tone each way.
//!
//!     cargo run --release -p iroh-live --example call            # waits for a call, prints the ticket
//!     cargo run --release -p iroh-live --example call iroh-live:…   # calls
//!
//! Ctrl-C hangs up.

use anyhow::{Context, Result};
use iroh_live::{
    Call, Live, LiveTicket, LocalBroadcast,
    media::{
        AudioBackend, AudioCodec, AudioPreset, AudioSource, VideoCodec, VideoPreset, VideoSource,
    },
};

#[tokio::main]
async fn main() -> Result<()> {
    let live = Live::from_env().await?.with_router().spawn();
    let local = LocalBroadcast::new();
    local
        .video()
        .set_source(VideoSource::test(), VideoCodec::H264, [VideoPreset::P360])?;
    local
        .audio()
        .set(AudioSource::test(), AudioCodec::Opus, [AudioPreset::Lq])?;

    let call = match std::env::args().nth(1) {
        Some(ticket) => {
            let ticket: LiveTicket = ticket.parse()?;
            Call::dial(&live, ticket.addr().clone(), local).await?
        }
        None => {
            let mut calls = Call::incoming(&live);
            println!("{}", live.ticket("call").await?);
            let ringing = calls.next().await.context("shut down")?;
            ringing.accept(local).await?
        }
    };
    println!("in a call with {}", call.session().remote_id().fmt_short());

    let tracks = call
        .remote()
        .media(&AudioBackend::default(), Default::default())
        .await?;
    let video = tracks.video.as_ref().context("the peer sends no picture")?;
    let signals = call.signals();
    let show = async {
        let mut frames = 0_u64;
        while let Some(frame) = video.next_frame().await? {
            frames += 1;
            if frames.is_multiple_of(30) {
                let signals = *signals.borrow();
                println!(
                    "{frames} frames, {}x{}, round trip {:?}, loss {:.1} %, {}",
                    frame.width(),
                    frame.height(),
                    signals.rtt,
                    signals.loss_rate * 100.0,
                    signals.path,
                );
            }
        }
        anyhow::Ok(())
    };
    let reason = tokio::select! {
        reason = call.closed() => reason,
        result = show => {
            result?;
            call.closed().await
        }
        _ = tokio::signal::ctrl_c() => {
            call.close();
            call.closed().await
        }
    };
    println!("the call has ended: {reason:?}");
    live.shutdown().await;
    Ok(())
}
