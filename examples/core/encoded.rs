//! Encoded frames without GStreamer: a program that has an encoder of its own, or none at all.
//!
//!     cargo run --release -p iroh-live --no-default-features --example encoded publish movie.ivf
//!     cargo run --release -p iroh-live --no-default-features --example encoded watch iroh-live:… copy.ivf
//!
//! IVF is the simplest file there is for encoded video: a header, then each frame with its size and time. VP8 and VP9
//! come in it (`ffmpeg -i movie.mp4 -c:v libvpx movie.ivf`).

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use iroh_live::{
    EncodedFrame, Live, LiveTicket, LocalBroadcast, TrackConfig,
    broadcast::{VideoConfig, catalog::VideoCodec},
};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["publish", file] => publish(file).await,
        ["watch", ticket, file] => watch(ticket, file).await,
        _ => bail!("usage: encoded publish FILE.ivf | encoded watch TICKET FILE.ivf"),
    }
}

async fn publish(file: &str) -> Result<()> {
    let mut file = BufReader::new(File::open(file).with_context(|| format!("cannot open {file}"))?);
    let mut header = [0; 32];
    file.read_exact(&mut header)
        .context("the file is too short")?;
    ensure!(header.starts_with(b"DKIF"), "this is no IVF file");
    let codec = match &header[8..12] {
        b"VP80" => VideoCodec::VP8,
        b"VP90" => "vp09.00.10.08".parse()?,
        other => bail!("{} is neither VP8 nor VP9", String::from_utf8_lossy(other)),
    };
    let mut config = VideoConfig::new(codec.clone());
    config.coded_width = Some(u16::from_le_bytes([header[12], header[13]]).into());
    config.coded_height = Some(u16::from_le_bytes([header[14], header[15]]).into());
    let number = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let unit = f64::from(number(20)) / f64::from(number(16).max(1));

    let live = Live::from_env().await?.with_router().spawn();
    let broadcast = LocalBroadcast::new();
    live.publish("movie", &broadcast)?;
    let mut track = broadcast.publish_track("video", config)?;
    println!("{}", LiveTicket::new(live.endpoint().addr(), "movie"));

    // Timestamps are wall-clock time, so that viewers can say how old a frame is.
    let (start, begun) = (LocalBroadcast::now(), tokio::time::Instant::now());
    let mut head = [0; 12];
    while file.read_exact(&mut head).is_ok() {
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let time = u64::from_le_bytes([
            head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11],
        ]);
        let time = Duration::try_from_secs_f64(time as f64 * unit)?;
        let mut frame = Vec::new();
        file.by_ref().take(size.into()).read_to_end(&mut frame)?;
        let keyframe = match codec {
            VideoCodec::VP8 => frame.first().is_some_and(|byte| byte & 1 == 0),
            // Frame marker 2 (two bits), profile 0, show_existing_frame 0, frame_type 0.
            _ => frame.first().is_some_and(|byte| byte >> 2 == 0b10_0000),
        };
        tokio::time::sleep_until(begun + time).await;
        track.write(EncodedFrame::new(start + time, frame, keyframe))?;
    }
    track.finish()?;
    broadcast.finish();
    // Viewers get what was written before the sessions close.
    live.shutdown().await;
    Ok(())
}

async fn watch(ticket: &str, file: &str) -> Result<()> {
    let ticket: LiveTicket = ticket.parse()?;
    let live = Live::from_env().await?.spawn();
    let subscription = live.subscribe(ticket.addr().clone(), ticket.name()).await?;
    let mut catalog = subscription.broadcast().catalog().await?;
    let catalog = catalog.next().await?.context("the broadcast has ended")?;
    let (name, config) = catalog
        .video
        .renditions
        .first_key_value()
        .context("it has no video")?;
    let fourcc = match config.codec {
        VideoCodec::VP8 => b"VP80",
        VideoCodec::VP9(_) => b"VP90",
        ref other => bail!("{other} does not go into an IVF file"),
    };

    let mut out = File::create(file).with_context(|| format!("cannot write {file}"))?;
    let size = |n: Option<u32>| u16::try_from(n.unwrap_or(0)).unwrap_or(0).to_le_bytes();
    out.write_all(b"DKIF\0\0\x20\0")?;
    out.write_all(fourcc)?;
    out.write_all(&size(config.coded_width))?;
    out.write_all(&size(config.coded_height))?;
    // Times are in units of a microsecond; how many frames there will be is not known.
    out.write_all(
        &[
            1_000_000_u32.to_le_bytes(),
            1_u32.to_le_bytes(),
            [0; 4],
            [0; 4],
        ]
        .concat(),
    )?;

    let track = TrackConfig::from(config.clone());
    let patience = Duration::from_secs(1);
    let mut reader = subscription
        .broadcast()
        .subscribe(name, &track, patience)
        .await?;
    let (mut first, mut frames) = (None, 0);
    while let Some(frame) = reader.next().await? {
        let time = frame
            .timestamp
            .saturating_sub(*first.get_or_insert(frame.timestamp));
        out.write_all(&u32::try_from(frame.payload.len())?.to_le_bytes())?;
        out.write_all(&u64::try_from(time.as_micros())?.to_le_bytes())?;
        out.write_all(&frame.payload)?;
        frames += 1;
    }
    println!("{frames} frames");
    live.shutdown().await;
    Ok(())
}
