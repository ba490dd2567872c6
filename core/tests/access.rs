//! Who may watch what, and how it ends for those who may no longer.

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{addr, guarded, live, media, soon};
use iroh_live::{
    CloseCode, DisconnectReason, EncodedFrame, Policy,
    broadcast::{EncodedReader, ReadError, StopReason, VideoConfig, catalog::VideoCodec},
    transport::{ConnectError, PublishError},
};
use tokio::sync::watch;

fn frame() -> EncodedFrame {
    EncodedFrame::new(Duration::from_secs(1), &b"frame"[..], true)
}

/// Reads until the end, and says how it came.
async fn end_of(mut reader: EncodedReader) -> ReadError {
    loop {
        match soon("the end", reader.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it did not end by itself"),
            Err(error) => return error,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_off_the_list_is_cut_off_and_who_is_put_on_it_sees() {
    let guest = live().await;
    let (allowed, list) = watch::channel(HashSet::from([guest.endpoint().id()]));
    let host = guarded(Policy::Only(list)).await;
    let (movie, _track) = media("movie");
    host.publish("movie", &movie).unwrap();
    let watching = soon("subscribe", guest.subscribe(addr(&host), "movie"))
        .await
        .unwrap();
    allowed.send_modify(HashSet::clear);
    let session = watching.session();
    assert_eq!(
        soon("cut off", session.closed()).await,
        DisconnectReason::RemoteClose
    );
    let refused = soon("refused", guest.subscribe(addr(&host), "movie")).await;
    assert!(
        matches!(
            refused,
            Err(iroh_live::SubscribeError::Connect(
                ConnectError::Refused { .. }
            ))
        ),
        "{refused:?}"
    );
    // The host may still dial the guest, who sees nothing on that session until it is on the list.
    let mut incoming = guest.transport().incoming();
    soon("session", host.transport().connect(addr(&guest)))
        .await
        .unwrap();
    let session = soon("session", incoming.next()).await.unwrap();
    let hidden = tokio::time::timeout(Duration::from_millis(300), session.subscribe("movie"));
    assert!(hidden.await.is_err());
    allowed.send_modify(|list| {
        list.insert(guest.endpoint().id());
    });
    soon("movie", session.subscribe("movie")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_to_one_peer_can_be_taken_back() {
    let (a, b, c) = (live().await, live().await, live().await);
    let at_a = soon("session", a.transport().connect(addr(&b)))
        .await
        .unwrap();
    let elsewhere = soon("session", c.transport().connect(addr(&a)))
        .await
        .unwrap();
    let (private, _track) = media("private");
    at_a.publish("private", &private).unwrap();
    let at_b = soon("session", b.transport().connect(addr(&a)))
        .await
        .unwrap();
    let seen = soon("private", at_b.subscribe("private")).await.unwrap();
    assert!(elsewhere.announced().is_empty());
    at_a.unpublish("private");
    soon("taken back", seen.closed()).await;
    at_a.close(CloseCode::DONE, "done");
    assert!(matches!(
        at_a.publish("private", &private),
        Err(PublishError::Ended)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_what_is_taken_back_is_told_so() {
    let (host, guest) = (live().await, live().await);
    let allowed = Arc::new(AtomicBool::new(true));
    let asked = allowed.clone();
    let authorizer =
        move |_, name: Option<&str>| name != Some("film") || asked.load(Ordering::Relaxed);
    host.transport().set_policy(Policy::authorizer(authorizer));
    let mut tracks = Vec::new();
    let mut watching = Vec::new();
    let session = soon("session", guest.transport().connect(addr(&host)));
    let session = session.await.unwrap();
    for name in ["film", "show", "talk"] {
        let (broadcast, mut track) = media(name);
        track.write(frame()).unwrap();
        host.publish(name, &broadcast).unwrap();
        let seen = soon(name, session.subscribe(name)).await.unwrap();
        let config = VideoConfig::new(VideoCodec::VP8).into();
        let reading = seen.subscribe(name, &config, Duration::ZERO);
        let mut reader = soon(name, reading).await.unwrap();
        assert!(soon(name, reader.next()).await.unwrap().is_some());
        tracks.push((broadcast, track));
        watching.push((seen, reader));
    }
    let (_talk, talk) = watching.pop().unwrap();
    let (_show, show) = watching.pop().unwrap();
    let (film_seen, film) = watching.pop().unwrap();

    allowed.store(false, Ordering::Relaxed);
    host.transport().enforce_policy();
    let error = end_of(film).await;
    assert!(
        matches!(error, ReadError::Stopped(StopReason::NotAllowed)),
        "{error:?}"
    );
    assert!(error.to_string().contains("ask it for access"), "{error}");
    soon("film", film_seen.closed()).await;

    host.transport().unpublish("show");
    let error = end_of(show).await;
    assert!(
        matches!(error, ReadError::Stopped(StopReason::Withdrawn)),
        "{error:?}"
    );

    // A publisher that is interrupted is not broken.
    let (_broadcast, track) = tracks.pop().unwrap();
    drop(track);
    let error = end_of(talk).await;
    assert!(
        matches!(error, ReadError::Stopped(StopReason::Interrupted)),
        "{error:?}"
    );

    // The session stays, and what is allowed again is there again.
    assert!(session.is_alive());
    assert_eq!(session.announced(), ["talk"]);
    allowed.store(true, Ordering::Relaxed);
    host.transport().enforce_policy();
    soon("film", guest.subscribe(addr(&host), "film"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_is_delivered_though_it_is_taken_back() {
    let (host, guest) = (live().await, live().await);
    let (movie, mut track) = media("movie");
    host.publish("movie", &movie).unwrap();
    let seen = soon("movie", guest.subscribe(addr(&host), "movie"))
        .await
        .unwrap();
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let reading = seen
        .broadcast()
        .subscribe("movie", &config, Duration::from_secs(5));
    let mut reader = soon("movie", reading).await.unwrap();
    track.write(frame()).unwrap();
    soon("a frame", reader.next()).await.unwrap().unwrap();
    let payload = vec![0; 100_000];
    for _ in 0..100 {
        let large = EncodedFrame::new(Duration::from_secs(1), payload.clone(), false);
        track.write(large).unwrap();
    }
    track.finish().unwrap();
    movie.finish();
    host.transport().unpublish("movie");
    let mut frames = 0;
    while soon("a frame", reader.next()).await.unwrap().is_some() {
        frames += 1;
    }
    assert_eq!(frames, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_may_use_the_transport_when_it_is_asked() {
    let (host, guest) = (live().await, live().await);
    let moq = host.transport().clone();
    let asked = Arc::new(AtomicBool::new(false));
    let (within, note) = (moq.clone(), asked.clone());
    moq.set_policy(Policy::authorizer(move |_, _| {
        note.store(true, Ordering::Relaxed);
        within.unpublish("nothing");
        within.sessions().borrow().len() < 10
    }));
    let (movie, _track) = media("movie");
    soon("publish", async { moq.publish("movie", &movie) })
        .await
        .unwrap();
    soon("movie", guest.subscribe(addr(&host), "movie"))
        .await
        .unwrap();
    assert!(asked.load(Ordering::Relaxed));
    moq.set_policy(Policy::Everyone);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_have_a_name_of_their_own() {
    let (a, b) = (live().await, live().await);
    let (movie, _track) = media("movie");
    let error = a.publish("call", &movie).unwrap_err();
    assert!(matches!(error, PublishError::Reserved(_)), "{error}");
    let session = soon("session", a.transport().connect(addr(&b)))
        .await
        .unwrap();
    let error = session.publish("/call", &movie).unwrap_err();
    assert!(matches!(error, PublishError::Reserved(_)), "{error}");
    session.publish("call/me", &movie).unwrap();
}
