//! Broadcasts over real connections on the loopback interface.

mod common;

use std::time::Duration;

use common::{addr, live, soon};
use iroh_live::{
    CloseCode, EncodedFrame, LocalBroadcast, RemoteBroadcast, TrackConfig,
    broadcast::{
        AudioConfig, EncodedReader, LocalTrack, PublishTrackError, VideoConfig,
        catalog::{AudioCodec, VideoCodec},
    },
};

fn vp8() -> TrackConfig {
    VideoConfig::new(VideoCodec::VP8).into()
}

fn opus() -> TrackConfig {
    AudioConfig::new(AudioCodec::Opus, 48_000, 2).into()
}

fn frame(n: u64, keyframe: bool, size: usize) -> EncodedFrame {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(size.max(8), n as u8);
    EncodedFrame::new(Duration::from_millis(1000 + n * 10), payload, keyframe)
}

fn number(frame: &EncodedFrame) -> u64 {
    u64::from_be_bytes(frame.payload[..8].try_into().unwrap())
}

async fn reader(broadcast: &RemoteBroadcast, name: &str, config: &TrackConfig) -> EncodedReader {
    soon(
        "subscribe",
        broadcast.subscribe(name, config, Duration::from_secs(5)),
    )
    .await
    .expect("a reader")
}

async fn next(reader: &mut EncodedReader) -> Option<EncodedFrame> {
    soon("a frame", reader.next())
        .await
        .expect("a frame or the end")
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_all_sizes_arrive_as_they_were_written() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    let mut track = broadcast.publish_track("video_0", vp8()).unwrap();
    publisher.publish("movie", &broadcast).unwrap();
    let remote = soon("subscribe", viewer.subscribe(addr(&publisher), "movie"))
        .await
        .unwrap();
    let mut reader = reader(remote.broadcast(), "video_0", &vp8()).await;
    // Far more than a flow control window, and frames of next to nothing.
    let sizes = [8, 9, 1200, 70_000, 3_000_000, 8, 5_000_000, 100];
    for (n, size) in sizes.into_iter().enumerate() {
        track.write(frame(n as u64, n % 3 == 0, size)).unwrap();
    }
    track.finish().unwrap();
    for (n, size) in sizes.into_iter().enumerate() {
        let got = next(&mut reader).await.expect("not the end yet");
        assert_eq!(got, frame(n as u64, n % 3 == 0, size));
    }
    assert_eq!(next(&mut reader).await, None);
    publisher.shutdown().await;
    viewer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_viewer_begins_with_the_key_frame_of_the_current_group() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    let mut track = broadcast.publish_track("video_0", vp8()).unwrap();
    publisher.publish("movie", &broadcast).unwrap();
    for n in 0..25 {
        track.write(frame(n, n % 10 == 0, 100)).unwrap();
    }
    let remote = soon("subscribe", viewer.subscribe(addr(&publisher), "movie"))
        .await
        .unwrap();
    let config = vp8();
    let subscribe = remote
        .broadcast()
        .subscribe("video_0", &config, Duration::ZERO);
    let mut reader = soon("subscribe", subscribe).await.unwrap();
    let first = next(&mut reader).await.unwrap();
    assert_eq!((number(&first), first.keyframe), (20, true));
    assert_eq!(number(&next(&mut reader).await.unwrap()), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_catalog_has_all_tracks_that_were_announced() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    let (video, audio) = (broadcast.reserve_track(), broadcast.reserve_track());
    publisher.publish("movie", &broadcast).unwrap();
    let remote = soon("subscribe", viewer.subscribe(addr(&publisher), "movie"))
        .await
        .unwrap();
    let mut catalog = soon("catalog", remote.broadcast().catalog()).await.unwrap();
    let mut video = video.publish("video_0", vp8()).unwrap();
    let audio = audio.publish("audio_0", opus()).unwrap();
    let first = soon("catalog", catalog.next()).await.unwrap().unwrap();
    assert_eq!(
        first.video.renditions.len() + first.audio.renditions.len(),
        2
    );
    // A track that goes leaves the catalog; the end of the broadcast ends it.
    video.finish().unwrap();
    drop(video);
    let second = soon("catalog", catalog.next()).await.unwrap().unwrap();
    assert!(second.video.renditions.is_empty());
    drop(audio);
    broadcast.finish();
    while soon("catalog", catalog.next()).await.unwrap().is_some() {}
}

/// Begins a track with a frame of that number, and reads it as a viewer that finds it in the catalog. Nothing else is there.
async fn begin_and_read(
    broadcast: &LocalBroadcast,
    remote: &RemoteBroadcast,
    n: u64,
) -> (LocalTrack, EncodedReader) {
    let mut track = broadcast.publish_track("video", vp8()).unwrap();
    assert_eq!(track.name(), "video");
    let mut catalogs = soon("catalog", remote.catalog()).await.unwrap();
    loop {
        let catalog = soon("the track", catalogs.next()).await.unwrap().unwrap();
        let listed: Vec<_> = catalog.video.renditions.into_keys().collect();
        if listed == [track.catalog_name()] {
            break;
        }
    }
    let mut reader = reader(remote, track.catalog_name(), &vp8()).await;
    track.write(frame(n, true, 10)).unwrap();
    assert_eq!(number(&next(&mut reader).await.expect("a frame")), n);
    (track, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_that_is_gone_and_begins_again_is_seen_at_once() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    publisher.publish("again", &broadcast).unwrap();
    let subscription = viewer.subscribe(addr(&publisher), "again");
    let subscription = soon("subscribe", subscription).await.unwrap();
    let remote = subscription.broadcast();
    for n in 0..3 {
        let (mut track, mut reader) = begin_and_read(&broadcast, remote, n).await;
        track.finish().unwrap();
        let taken = broadcast.publish_track("video", vp8());
        assert!(matches!(taken, Err(PublishTrackError::Duplicate(_))));
        drop(track);
        assert_eq!(next(&mut reader).await, None, "its end is its own");
    }
    // So is one that breaks off.
    for n in 3..6 {
        let _broken_off = begin_and_read(&broadcast, remote, n).await;
    }
    publisher.shutdown().await;
    viewer.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_that_is_never_described_does_not_hold_up_the_catalog() {
    let broadcast = LocalBroadcast::new();
    let (video, _never) = (broadcast.reserve_track(), broadcast.reserve_track());
    let mut video = video.publish("video_0", vp8()).unwrap();
    let (publisher, viewer) = (live().await, live().await);
    publisher.publish("movie", &broadcast).unwrap();
    let remote = soon("subscribe", viewer.subscribe(addr(&publisher), "movie"))
        .await
        .unwrap();
    let mut catalog = soon("catalog", remote.broadcast().catalog()).await.unwrap();
    let writing = async {
        for n in 0.. {
            video.write(frame(n, true, 10)).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = writing => unreachable!(),
        first = soon("catalog", catalog.next()) => {
            assert_eq!(first.unwrap().unwrap().video.renditions.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_at_once_there_is_one_session() {
    let (publisher, viewer) = (live().await, live().await);
    let asked = (0..8).map(|_| viewer.transport().connect(addr(&publisher)));
    let sessions = soon("sessions", futures_util::future::join_all(asked)).await;
    let ids: Vec<_> = sessions
        .iter()
        .map(|session| session.as_ref().unwrap().connection().stable_id())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_session_is_not_handed_out() {
    let (publisher, viewer) = (live().await, live().await);
    let first = soon("session", viewer.transport().connect(addr(&publisher)))
        .await
        .unwrap();
    first.close(CloseCode::DONE, "done");
    soon("closed", first.closed()).await;
    let second = soon("session", viewer.transport().connect(addr(&publisher)))
        .await
        .unwrap();
    assert!(second.is_alive());
    assert_ne!(
        first.connection().stable_id(),
        second.connection().stable_id()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_a_name_again_replaces_what_was_there() {
    let (publisher, viewer) = (live().await, live().await);
    let (old, new) = (LocalBroadcast::new(), LocalBroadcast::new());
    let _old_track = old.publish_track("old", vp8()).unwrap();
    let _new_track = new.publish_track("new", vp8()).unwrap();
    publisher.publish("movie", &old).unwrap();
    publisher.publish("movie", &new).unwrap();
    // The end of the old one must not take the new one away.
    old.finish();
    drop((old, _old_track));
    let remote = soon("subscribe", viewer.subscribe(addr(&publisher), "movie"))
        .await
        .unwrap();
    let mut catalog = soon("catalog", remote.broadcast().catalog()).await.unwrap();
    let catalog = soon("catalog", catalog.next()).await.unwrap().unwrap();
    assert!(catalog.video.renditions.contains_key("new"), "{catalog:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_is_waited_for() {
    let (publisher, viewer) = (live().await, live().await);
    let there = LocalBroadcast::new();
    publisher.publish("there", &there).unwrap();
    let session = soon("session", viewer.transport().connect(addr(&publisher)))
        .await
        .unwrap();
    let waiting = session.subscribe("later");
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "nothing is there to be had");
    assert_eq!(session.announced(), ["there"]);
    let later = LocalBroadcast::new();
    publisher.publish("later", &later).unwrap();
    assert_eq!(soon("subscribe", waiting).await.unwrap().name(), "later");
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_packets_and_names_of_every_kind_travel() {
    let (publisher, viewer) = (live().await, live().await);
    for name in ["a b", "über/straße", "50%", "what?", &"x".repeat(200)] {
        let broadcast = LocalBroadcast::new();
        let mut track = broadcast.publish_track("audio_0", opus()).unwrap();
        publisher.publish(name, &broadcast).unwrap();
        let remote = soon("subscribe", viewer.subscribe(addr(&publisher), name))
            .await
            .unwrap();
        let mut reader = reader(remote.broadcast(), "audio_0", &opus()).await;
        // Groups race each other: what is written before the subscription has reached the publisher may be overtaken.
        track.write(frame(0, true, 80)).unwrap();
        let mut seen = vec![number(&next(&mut reader).await.unwrap())];
        for n in 1..20 {
            track.write(frame(n, true, 80)).unwrap();
        }
        track.finish().unwrap();
        while let Some(frame) = next(&mut reader).await {
            assert!(frame.keyframe);
            seen.push(number(&frame));
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_delivers_what_was_written_and_tells_the_peer() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    let mut track = broadcast.publish_track("video_0", vp8()).unwrap();
    publisher.publish("movie", &broadcast).unwrap();
    let remote = soon("subscribe", viewer.subscribe(addr(&publisher), "movie"))
        .await
        .unwrap();
    let mut reader = reader(remote.broadcast(), "video_0", &vp8()).await;
    track.write(frame(0, true, 20_000)).unwrap();
    next(&mut reader).await.unwrap();
    for n in 1..50 {
        track.write(frame(n, false, 20_000)).unwrap();
    }
    track.finish().unwrap();
    broadcast.finish();
    let reading = tokio::spawn(async move {
        let mut count = 1;
        while let Ok(Some(_)) = reader.next().await {
            count += 1;
        }
        count
    });
    soon("shutdown", publisher.shutdown()).await;
    assert_eq!(soon("frames", reading).await.unwrap(), 50);
    soon("closed", remote.session().closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_cannot_have_no_name() {
    let live = live().await;
    assert!(live.publish("", &LocalBroadcast::new()).is_err());
    assert!(live.publish("/", &LocalBroadcast::new()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_takes_the_name_of_another_is_not_spliced_into_it() {
    let (publisher, viewer) = (live().await, live().await);
    for round in 0..20 {
        let name = format!("movie {round}");
        let write = |track: &mut LocalTrack, n, of: u64| {
            let mut frame = frame(n, n % 5 == 0, 16);
            let mut payload = n.to_be_bytes().to_vec();
            payload.extend(of.to_be_bytes());
            frame.payload = payload.into();
            track.write(frame).unwrap();
        };
        let whose =
            |frame: &EncodedFrame| u64::from_be_bytes(frame.payload[8..].try_into().unwrap());
        let (first, second) = (LocalBroadcast::new(), LocalBroadcast::new());
        let mut old = first.publish_track("film", vp8()).unwrap();
        let mut new = second.publish_track("film", vp8()).unwrap();
        publisher.publish(&name, &first).unwrap();
        let connecting = viewer.transport().connect(addr(&publisher));
        let session = soon("session", connecting).await.unwrap();
        let watching = soon("subscribe", session.subscribe(&name)).await.unwrap();
        let mut reader = reader(&watching, "film", &vp8()).await;
        for n in 0..5 {
            write(&mut old, n, 1);
            assert_eq!(whose(&next(&mut reader).await.unwrap()), 1);
        }
        publisher.publish(&name, &second).unwrap();
        // Whoever watches the old one goes on, and learns that it has gone.
        for n in 5..60 {
            write(&mut old, n, 1);
            write(&mut new, n, 2);
            let frame = next(&mut reader).await.unwrap();
            assert_eq!((number(&frame), whose(&frame)), (n, 1), "round {round}");
        }
        soon("the old one has gone", watching.closed()).await;
        let watching = soon("subscribe", session.subscribe(&name)).await.unwrap();
        let mut reader = self::reader(&watching, "film", &vp8()).await;
        write(&mut new, 60, 2);
        assert_eq!(whose(&next(&mut reader).await.unwrap()), 2);
        publisher.transport().unpublish(&name);
    }
}
