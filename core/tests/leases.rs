//! What needs a session keeps it, and nothing else does.

mod common;

use std::time::Duration;

use common::{addr, guarded, live, media, soon};
use iroh_live::{
    CloseCode, DisconnectReason, EncodedFrame, Policy,
    broadcast::{VideoConfig, catalog::VideoCodec},
};

#[tokio::test(flavor = "multi_thread")]
async fn zapping_leaves_one_connection_and_handles_keep_what_they_need() {
    let viewer = live().await;
    let mut publishers = Vec::new();
    for _ in 0..20 {
        let publisher = live().await;
        let (movie, track) = media("movie");
        publisher.publish("movie", &movie).unwrap();
        publishers.push((publisher, movie, track));
    }
    let mut current = None;
    for (publisher, ..) in &publishers {
        let subscription = soon("movie", viewer.subscribe(addr(publisher), "movie"))
            .await
            .unwrap();
        current = Some(subscription);
    }
    let mut sessions = viewer.transport().sessions();
    let one = sessions.wait_for(|sessions| sessions.len() == 1);
    soon("one session", one).await.unwrap();
    let (last, ..) = &publishers[19];
    assert_eq!(
        sessions.borrow()[0].remote_id(),
        last.endpoint().id(),
        "the one that is watched"
    );
    // Each part of a subscription keeps it, and so does what reads from it.
    let (session, broadcast, _signals) = current.unwrap().into_parts();
    drop(session);
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let reader = soon(
        "a reader",
        broadcast.subscribe("movie", &config, Duration::ZERO),
    )
    .await
    .unwrap();
    drop(broadcast);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sessions.borrow_and_update().len(), 1);
    drop(reader);
    soon("none", sessions.wait_for(Vec::is_empty))
        .await
        .unwrap();
    // Both sides let go.
    for (publisher, ..) in &publishers {
        let mut sessions = publisher.transport().sessions();
        soon("none", sessions.wait_for(Vec::is_empty))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_while_the_peer_watches_on_it() {
    let (dialer, other) = (live().await, live().await);
    let (movie, _track) = media("movie");
    dialer.publish("movie", &movie).unwrap();
    soon("session", dialer.transport().connect(addr(&other)))
        .await
        .unwrap();
    // Nobody here has the session in hand any more.
    let watching = soon("movie", other.subscribe(addr(&dialer), "movie"))
        .await
        .unwrap();
    assert!(watching.session().is_incoming());
    let mut catalog = soon("catalog", watching.broadcast().catalog())
        .await
        .unwrap();
    soon("catalog", catalog.next()).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(watching.session().is_alive());
    let session = watching.session().clone();
    drop((catalog, watching));
    let end = soon("the end", session.disconnected()).await;
    assert_eq!(end.code, Some(CloseCode::UNUSED));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_live_closes_its_sessions() {
    for router in [true, false] {
        let (publisher, viewer) = (live().await, live().await);
        let (movie, _track) = media("movie");
        publisher.publish("movie", &movie).unwrap();
        let address = addr(&publisher);
        let (dropped, kept) = if router {
            (publisher, viewer)
        } else {
            (viewer, publisher)
        };
        let viewer = if router { &kept } else { &dropped };
        let subscription = soon("movie", viewer.subscribe(address, "movie"))
            .await
            .unwrap();
        let mut sessions = kept.transport().sessions();
        let there = sessions.wait_for(|sessions| !sessions.is_empty());
        let session = soon("session", there).await.unwrap()[0].clone();
        let clone = dropped.clone();
        drop(dropped);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(session.is_alive(), "there is another clone");
        drop(clone);
        let end = soon("closed", session.disconnected()).await;
        assert_eq!(end.reason, DisconnectReason::RemoteClose, "{end}");
        assert_eq!(end.code, Some(CloseCode::DONE));
        drop(subscription);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_stays_while_the_peer_watches_what_was_replaced() {
    let (dialer, other) = (live().await, live().await);
    let (old, mut track) = media("old");
    dialer.publish("movie", &old).unwrap();
    soon("session", dialer.transport().connect(addr(&other)))
        .await
        .unwrap();
    let session = soon("session", other.transport().connect(addr(&dialer)))
        .await
        .unwrap();
    let watching = soon("movie", session.subscribe("movie")).await.unwrap();
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let reading = watching.subscribe("old", &config, Duration::ZERO);
    let mut reader = soon("a reader", reading).await.unwrap();
    let mut write = || {
        let frame = EncodedFrame::new(Duration::from_secs(1), &b"frame"[..], true);
        track.write(frame).unwrap();
    };
    write();
    soon("a frame", reader.next()).await.unwrap().unwrap();
    let (new, _new_track) = media("new");
    dialer.publish("movie", &new).unwrap();
    for _ in 0..60 {
        write();
        soon("a frame", reader.next()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(session.is_alive());
    drop(reader);
    let end = soon("the end", session.disconnected()).await;
    assert_eq!(end.code, Some(CloseCode::UNUSED));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_delivered_before_the_session_ends() {
    let dialer = live().await;
    let (movie, mut track) = media("movie");
    dialer.publish("movie", &movie).unwrap();
    let (viewer_is_at, viewer) = tokio::sync::oneshot::channel();
    let (has_begun, begun) = tokio::sync::oneshot::channel();
    let viewing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let viewing = async {
            let viewer = live().await;
            let mut incoming = viewer.transport().incoming();
            viewer_is_at.send(addr(&viewer)).unwrap();
            let session = soon("session", incoming.next()).await.unwrap();
            let watching = soon("movie", session.subscribe("movie")).await.unwrap();
            let config = VideoConfig::new(VideoCodec::VP8).into();
            let reading = watching.subscribe("movie", &config, Duration::from_secs(30));
            let mut reader = soon("a reader", reading).await.unwrap();
            soon("a frame", reader.next()).await.unwrap().unwrap();
            has_begun.send(()).unwrap();
            // Nothing gets here for longer than a session stays that nobody needs.
            std::thread::sleep(Duration::from_secs(4));
            let mut frames = 0;
            while soon("a frame", reader.next()).await.unwrap().is_some() {
                frames += 1;
            }
            drop((reader, watching));
            let end = soon("the end", session.disconnected()).await;
            (frames, end.code)
        };
        runtime.unwrap().block_on(viewing)
    });
    let session = dialer.transport().connect(viewer.await.unwrap());
    let session = soon("session", session).await.unwrap();
    let mut frame = |number: u64| {
        let time = Duration::from_millis(number * 40);
        let frame = EncodedFrame::new(time, vec![0; 10_000], number == 0);
        track.write(frame).unwrap();
    };
    frame(0);
    soon("the viewer", begun).await.unwrap();
    (1..=100).for_each(frame);
    track.finish().unwrap();
    drop((track, movie, session));
    let viewed = tokio::task::spawn_blocking(|| viewing.join().unwrap());
    let (frames, end) = soon("the viewer", viewed).await.unwrap();
    assert_eq!(frames, 100);
    assert_eq!(end, Some(CloseCode::UNUSED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_take_its_time_to_say_what_the_peer_may_watch() {
    let other = live().await;
    let dialer = guarded(Policy::authorizer(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        true
    }))
    .await;
    let (movie, _track) = media("movie");
    dialer.publish("movie", &movie).unwrap();
    let session = soon("session", dialer.transport().connect(addr(&other)))
        .await
        .unwrap();
    assert!(session.is_alive());
}
