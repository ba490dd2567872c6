//! What the fuzz targets in `fuzz/` call: what is made of bytes that a peer has sent, on the way that they take. Built with
//! `--cfg fuzzing` alone.

use std::time::Duration;

use bytes::Bytes;
use moq_lite::{Timestamp, broadcast, track};

use crate::broadcast::{
    CatalogGuard, Container, Readable, RemoteBroadcast, TrackConfig, VideoConfig,
    catalog::VideoCodec,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("there is a clock");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A track with these groups of frames, which then ends, and who reads it.
fn publish(name: &str, groups: &[Vec<&[u8]>]) -> (broadcast::Producer, track::Producer) {
    let broadcast = broadcast::Info::new().produce();
    let track = broadcast
        .create_track(name, None)
        .expect("the first of its name");
    for frames in groups {
        let Ok(mut group) = track.append_group() else {
            break;
        };
        for frame in frames {
            let frame = Bytes::copy_from_slice(frame);
            if group.write_frame(Timestamp::ZERO, frame).is_err() {
                break;
            }
        }
        let _ = group.finish();
    }
    (broadcast, track)
}

/// A catalog and its changes: a line is a frame, an empty one begins another group.
pub fn catalog(data: &[u8]) {
    let mut groups = vec![Vec::new()];
    for line in data.split(|byte| *byte == b'\n') {
        match (line, groups.last_mut()) {
            ([], _) | (_, None) => groups.push(Vec::new()),
            (line, Some(group)) => group.push(line),
        }
    }
    let mut guard = CatalogGuard::default();
    guard.limits.pause = Duration::ZERO;
    run(async {
        // Each alone, as only the newest is read.
        for group in &groups {
            let (broadcast, track) =
                publish(hang::Catalog::DEFAULT_NAME, std::slice::from_ref(group));
            let remote = RemoteBroadcast::new("fuzzed".to_owned(), broadcast.consume())
                .with_catalog_guard(guard.clone());
            let Ok(mut watch) = remote.catalog().await else {
                return;
            };
            let _ = track.finish();
            while let Ok(Some(catalog)) = watch.next().await {
                let _ = Readable::of(&catalog);
            }
        }
    });
}

/// The frames of a track: the first byte says which container, for CMAF an initialisation segment follows with its length,
/// then frames with their lengths, of which 255 begins another group.
pub fn container(data: &[u8]) {
    fn take(data: &mut &[u8], length: usize) -> Bytes {
        let (taken, rest) = data.split_at(length.min(data.len()));
        *data = rest;
        Bytes::copy_from_slice(taken)
    }
    let Some((kind, mut data)) = data.split_first() else {
        return;
    };
    let mut config = VideoConfig::new(VideoCodec::VP8);
    config.container = match kind % 3 {
        0 => Container::Legacy,
        1 => Container::Loc,
        _ => {
            let length = take(&mut data, 2)
                .iter()
                .fold(0, |l, b| l << 8 | usize::from(*b));
            let init = take(&mut data, length);
            Container::Cmaf { init }
        }
    };
    let mut groups = vec![Vec::new()];
    while let Some((length, rest)) = data.split_first() {
        data = rest;
        if *length == u8::MAX {
            groups.push(Vec::new());
            continue;
        }
        let (frame, rest) = data.split_at(usize::from(*length).min(data.len()));
        data = rest;
        groups.last_mut().expect("there is one").push(frame);
    }
    let (broadcast, track) = publish("video", &groups);
    let remote = RemoteBroadcast::new("fuzzed".to_owned(), broadcast.consume());
    run(async {
        let config = TrackConfig::Video(config);
        let reading = remote.subscribe("video", &config, Duration::from_secs(10));
        let Ok(mut reader) = reading.await else {
            return;
        };
        let _ = track.finish();
        while let Ok(Some(_)) = reader.next().await {}
    });
}
