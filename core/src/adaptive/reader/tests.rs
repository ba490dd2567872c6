use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    LocalBroadcast,
    broadcast::{
        Activity, Incarnation, Lasting, LocalTrack, Upstream, VideoConfig, catalog::VideoCodec,
    },
};

const FRAME: Duration = Duration::from_millis(200);

async fn rig() -> (LocalBroadcast, LocalTrack, AdaptiveReader) {
    let local = LocalBroadcast::new();
    let track = local.publish_track("video", VideoConfig::new(VideoCodec::VP8));
    let remote = RemoteBroadcast::new("test".to_owned(), local.consume());
    let reader = remote.adaptive(AdaptiveConfig::default()).await;
    (local, track.expect("new"), reader.expect("there"))
}

fn frame(n: u32) -> EncodedFrame {
    EncodedFrame::new(FRAME * n, [0].as_slice(), n == 0)
}

async fn next(reader: &mut AdaptiveReader) -> AdaptiveFrame {
    reader.next().await.expect("open").expect("not the end")
}

/// Who recovers a clock subtracts what is held: a frame must not seem to have come when the one before it did.
#[tokio::test(start_paused = true)]
async fn what_comes_just_when_it_is_asked_for_was_not_held() {
    let (_local, mut track, mut reader) = rig().await;
    for n in 0..20 {
        // As a caller does that has other things to wait for as well.
        for _ in 0..50 {
            let nothing = tokio::time::timeout(FRAME / 50, reader.next()).await;
            assert!(nothing.is_err(), "{n}");
        }
        track.write(frame(n)).expect("open");
        assert_eq!(next(&mut reader).await.held, Duration::ZERO, "{n}");
    }
    let report = reader.control().status().borrow().report;
    assert!(report.healthy, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_a_busy_caller_is_not_blamed_on_the_network() {
    let (_local, mut track, mut reader) = rig().await;
    for n in 0..40 {
        track.write(frame(n)).expect("open");
        // Now and then the caller does something else first.
        let busy = if n % 8 == 7 {
            FRAME / 2
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(busy).await;
        next(&mut reader).await;
        let report = reader.control().status().borrow().report;
        assert_eq!(report.lateness, Duration::ZERO, "{n}");
        let nothing = tokio::time::timeout(FRAME - busy, reader.next()).await;
        assert!(nothing.is_err(), "{n}");
    }
}

/// When the one that is watched ends, another one is opened: of a broadcast that is over as well, if that was its end.
#[tokio::test(start_paused = true)]
async fn a_broadcast_that_ends_while_another_rendition_is_opened_has_ended() {
    let local = LocalBroadcast::new();
    let publish = |name: &str, bitrate| {
        let mut config = VideoConfig::new(VideoCodec::VP8);
        config.bitrate = Some(bitrate);
        local.publish_track(name, config).expect("new")
    };
    let (mut low, _high) = (publish("low", 100_000), publish("high", 500_000));
    let found = RemoteBroadcast::new("test".to_owned(), local.consume());
    let mut catalog = found.catalog().await.expect("there");
    let catalog = catalog.next().await.expect("sound").map(Arc::new);
    let incarnation = Incarnation {
        catalog,
        ..found.incarnation().expect("it is there")
    };
    let (upstream, seen) = watch::channel(Upstream::Present(incarnation));
    let subscription = CancellationToken::new().drop_guard();
    let lasting = Lasting::new(seen, Activity::default(), subscription);
    let remote = RemoteBroadcast::lasting("test".to_owned(), lasting);
    let reader = remote.adaptive(AdaptiveConfig::default()).await;
    let mut reader = reader.expect("there");
    low.write(frame(0)).expect("open");
    assert_eq!(next(&mut reader).await.rendition.name, "low");
    low.finish().expect("open");
    upstream.send_replace(Upstream::Absent);
    let nothing = tokio::time::timeout(FRAME, reader.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert!(matches!(
        reader.attempt,
        Some(Attempt {
            state: AttemptState::Opening(_),
            ..
        })
    ));
    upstream.send_replace(Upstream::Ended(tokio::time::Instant::now()));
    let end = reader.next().await.expect("no error");
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_it_is_one_of_the_readers_of_the_session_that_is_used_now() {
    let (upstream, seen) = watch::channel(Upstream::Absent);
    let subscription = CancellationToken::new().drop_guard();
    let lasting = Lasting::new(seen, Activity::default(), subscription);
    let remote = RemoteBroadcast::lasting("test".to_owned(), lasting);
    let mut reader = None;
    for number in 0..2 {
        let local = LocalBroadcast::new();
        let mut track = local
            .publish_track("cam", VideoConfig::new(VideoCodec::VP8))
            .expect("new");
        let found = RemoteBroadcast::new("test".to_owned(), local.consume());
        let mut catalog = found.catalog().await.expect("there");
        let incarnation = Incarnation {
            number,
            catalog: catalog.next().await.expect("sound").map(Arc::new),
            ..found.incarnation().expect("it is there")
        };
        let readers = incarnation.readers.clone();
        upstream.send_replace(Upstream::Present(incarnation));
        if reader.is_none() {
            let opened = remote.adaptive(AdaptiveConfig::default()).await;
            reader = Some(opened.expect("there"));
        }
        let reader = reader.as_mut().expect("opened");
        for n in 0..50 {
            track.write(frame(n)).expect("open");
            next(reader).await;
            tokio::time::advance(FRAME).await;
        }
        assert!(readers.join().others() > 0, "{number}");
        upstream.send_replace(Upstream::Absent);
    }
}
