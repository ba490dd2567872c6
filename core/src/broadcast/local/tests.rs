use hang::catalog::VideoConfig;

use super::*;
use crate::broadcast::{EncodedFrame, RemoteBroadcast, cache::CAPACITY, catalog::VideoCodec};

/// The most that is kept of ten groups a second while a viewer reads all of them, bytes.
async fn kept_at(bytes_a_second: usize) -> u64 {
    let broadcast = LocalBroadcast::new();
    let config = TrackConfig::from(VideoConfig::new(VideoCodec::VP8));
    let mut track = broadcast.publish_track("video", config.clone()).unwrap();
    let remote = RemoteBroadcast::new("test".to_owned(), broadcast.consume());
    let mut catalog = remote.catalog().await.unwrap();
    catalog.next().await.unwrap();
    let mut reader = remote
        .subscribe("video", &config, Duration::from_secs(1))
        .await
        .unwrap();
    let start = Instant::now();
    let mut most = 0;
    for number in 0..1000 {
        let time = Duration::from_millis(10 * number);
        let frame = EncodedFrame::new(time, vec![0; bytes_a_second / 100], number % 10 == 0);
        track.write_at(frame, start + time).unwrap();
        assert!(reader.next().await.unwrap().is_some());
        most = most.max(broadcast.shared.pool.used());
    }
    most
}

#[tokio::test]
async fn what_is_kept_for_viewers_stays_within_its_budget() {
    // Up to 50 Mbit/s by the bytes, above that by the time.
    for (bytes_a_second, limit) in [
        (2 << 20, CAPACITY + (1 << 20)),
        (6 << 20, 2 * CAPACITY),
        (25 << 20, 75 << 20),
    ] {
        let kept = kept_at(bytes_a_second).await;
        assert!(
            kept < limit,
            "{kept} bytes kept of {bytes_a_second} a second"
        );
    }
}

#[tokio::test]
async fn what_fits_the_budget_is_kept_for_viewers_that_lag() {
    let broadcast = LocalBroadcast::new();
    let config = TrackConfig::from(VideoConfig::new(VideoCodec::VP8));
    let mut track = broadcast.publish_track("video", config.clone()).unwrap();
    let remote = RemoteBroadcast::new("test".to_owned(), broadcast.consume());
    let start = Instant::now();
    let mut reader = remote
        .subscribe("video", &config, Duration::from_secs(10))
        .await
        .unwrap();
    for number in 0..4 {
        let time = Duration::from_secs(number);
        let frame = EncodedFrame::new(time, vec![0; 1 << 18], true);
        track.write_at(frame, start + time).unwrap();
    }
    for number in 0..4 {
        let frame = reader.next().await.unwrap().unwrap();
        assert_eq!(frame.timestamp, Duration::from_secs(number));
    }
}
