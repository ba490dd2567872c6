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

use common::{addr, guarded, live, media, soon, with_key};
use iroh_live::{
    CloseCode, DisconnectReason, EncodedFrame, MoqSession, Policy, RemoteBroadcast,
    broadcast::{
        EncodedReader, LocalTrack, ReadError, StopReason, VideoConfig, catalog::VideoCodec,
    },
    iroh::SecretKey,
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

/// The same while somebody writes.
async fn end_while_written(reader: EncodedReader, track: &mut LocalTrack) -> ReadError {
    let writing = async {
        loop {
            track.write(frame()).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        error = end_of(reader) => error,
        () = writing => unreachable!(),
    }
}

async fn reader_of(seen: &RemoteBroadcast, track: &str) -> EncodedReader {
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let reading = seen.subscribe(track, &config, Duration::ZERO);
    let mut reader = soon("a reader", reading).await.unwrap();
    assert!(soon("a frame", reader.next()).await.unwrap().is_some());
    reader
}

/// What the peer announces, when that is all that `wanted` says.
async fn announces(session: &MoqSession, wanted: &[&str]) {
    let settled = async {
        while session.announced() != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(&format!("{wanted:?}"), settled).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_can_still_be_taken_away() {
    for forbidden in [true, false] {
        let (host, guest) = (live().await, live().await);
        let allowed = Arc::new(AtomicBool::new(true));
        let asked = allowed.clone();
        let moq = host.transport();
        moq.set_policy(Policy::authorizer(move |_, name| {
            name != Some("film") || asked.load(Ordering::Relaxed)
        }));
        let (old, mut track) = media("old");
        track.write(frame()).unwrap();
        host.publish("film", &old).unwrap();
        let session = soon("session", guest.transport().connect(addr(&host)))
            .await
            .unwrap();
        let seen = soon("film", session.subscribe("film")).await.unwrap();
        let reader = reader_of(&seen, "old").await;
        let (new, _new_track) = media("new");
        host.publish("film", &new).unwrap();
        soon("hidden", seen.closed()).await;
        let wanted = if forbidden {
            allowed.store(false, Ordering::Relaxed);
            moq.enforce_policy();
            StopReason::NotAllowed
        } else {
            moq.unpublish("film");
            StopReason::Withdrawn
        };
        let error = end_while_written(reader, &mut track).await;
        assert!(
            matches!(error, ReadError::Stopped(reason) if reason == wanted),
            "{error:?}"
        );
        announces(&session, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_out_of_date_lets_nobody_watch() {
    let (host, guest) = (live().await, live().await);
    let session = soon("session", guest.transport().connect(addr(&host)))
        .await
        .unwrap();
    let allowed = Arc::new(AtomicBool::new(true));
    let (asked, asking) = std::sync::mpsc::channel();
    let (answer, answering) = std::sync::mpsc::channel::<()>();
    let (state, first) = (allowed.clone(), std::sync::Mutex::new(Some(answering)));
    let moq = host.transport().clone();
    moq.set_policy(Policy::authorizer(move |_, name| {
        let answer = name != Some("film") || state.load(Ordering::Relaxed);
        let held = first.lock().unwrap().take_if(|_| name == Some("film"));
        if let Some(answering) = held {
            asked.send(()).unwrap();
            answering.recv().unwrap();
        }
        answer
    }));
    let (film, _film_track) = media("film");
    let (other, _other_track) = media("other");
    let publisher = moq.clone();
    let publishing = std::thread::spawn(move || publisher.publish("film", &film));
    asking.recv().unwrap();
    // The program has said that it may, and thinks better of it before anything comes of that.
    allowed.store(false, Ordering::Relaxed);
    moq.enforce_policy();
    answer.send(()).unwrap();
    publishing.join().unwrap().unwrap();
    moq.publish("other", &other).unwrap();
    announces(&session, &["other"]).await;
    moq.set_policy(Policy::Everyone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_panics_is_a_no_and_harms_nobody_else() {
    let (first, second) = (live().await, live().await);
    let key = SecretKey::generate();
    let evil_id = key.public();
    let evil = with_key(key, Policy::Everyone).await;
    let host = guarded(Policy::authorizer(move |peer, _| {
        assert_ne!(peer, evil_id, "as the test wants it");
        true
    }))
    .await;
    let (movie, _track) = media("movie");
    host.publish("movie", &movie).unwrap();
    let watching = soon("movie", first.subscribe(addr(&host), "movie"))
        .await
        .unwrap();
    let refused = soon("refused", evil.transport().connect(addr(&host))).await;
    assert!(
        matches!(refused, Err(ConnectError::Refused { .. })),
        "{refused:?}"
    );
    soon("movie", second.subscribe(addr(&host), "movie"))
        .await
        .unwrap();
    assert!(watching.session().is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_those_on_the_wire() {
    let (host, guest) = (live().await, live().await);
    let asked = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let names = asked.clone();
    host.transport()
        .set_policy(Policy::authorizer(move |_, name| {
            names.lock().unwrap().extend(name.map(str::to_owned));
            true
        }));
    let (first, _first_track) = media("first");
    let (second, _second_track) = media("second");
    host.publish("cam//front", &first).unwrap();
    host.publish("/cam/front", &second).unwrap();
    let seen = soon("cam", guest.subscribe(addr(&host), "cam/front/"))
        .await
        .unwrap();
    announces(seen.session(), &["cam/front"]).await;
    let mut catalog = soon("catalog", seen.broadcast().catalog()).await.unwrap();
    let catalog = soon("catalog", catalog.next()).await.unwrap().unwrap();
    let tracks: Vec<_> = catalog.video.renditions.into_keys().collect();
    assert_eq!(tracks, ["second"]);
    let at_host = host.transport().sessions().borrow()[0].clone();
    soon("asked for", at_host.requested("cam//front")).await;
    assert_eq!(*asked.lock().unwrap(), HashSet::from(["cam/front".into()]));
    host.transport().unpublish("cam/front//");
    announces(seen.session(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_anew_is_to_be_asked_for_anew() {
    let (host, guest) = (live().await, live().await);
    let (movie, _track) = media("movie");
    host.publish("movie", &movie).unwrap();
    let session = soon("session", guest.transport().connect(addr(&host)))
        .await
        .unwrap();
    let watch = async || {
        let seen = soon("movie", session.subscribe("movie")).await.unwrap();
        let mut catalog = soon("catalog", seen.catalog()).await.unwrap();
        soon("catalog", catalog.next()).await.unwrap().unwrap();
    };
    watch().await;
    let at_host = host.transport().sessions().borrow()[0].clone();
    soon("asked for", at_host.requested("movie")).await;
    host.transport().unpublish("movie");
    announces(&session, &[]).await;
    host.publish("movie", &movie).unwrap();
    announces(&session, &["movie"]).await;
    let again = tokio::time::timeout(Duration::from_millis(300), at_host.requested("movie"));
    assert!(again.await.is_err(), "nobody has asked for it");
    watch().await;
    soon("asked for", at_host.requested("movie")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_go_of_what_decides() {
    let host = live().await;
    let kept = Arc::new(());
    // A function that has the transport in hand keeps it, and itself with it.
    let within = (kept.clone(), host.clone());
    host.transport().set_policy(Policy::authorizer(move |_, _| {
        let _ = &within;
        true
    }));
    assert_eq!(Arc::strong_count(&kept), 2);
    soon("shutdown", host.shutdown()).await;
    assert_eq!(Arc::strong_count(&kept), 1);
}
