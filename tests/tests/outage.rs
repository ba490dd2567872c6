//! Links through which nothing comes for a while: a hand-over is sat out, a peer that is gone is given up.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use iroh_live::{DisconnectReason, Live, MoqSession, endpoint::EndpointConfig, iroh::SecretKey};
use iroh_live_tests::{
    core::{VIDEO, feed, live, video},
    link::{Conditions, Link},
    start,
};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};

/// A mobile phone changes from one network to another.
const HANDOVER: Duration = Duration::from_secs(10);

/// A peer that says nothing for so long is gone.
const GIVEN_UP: Duration = Duration::from_secs(15);

/// For what takes no time worth mentioning.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_hand_over_loses_no_session_and_who_is_gone_is_given_up() {
    let _test = start();
    let clear = Conditions::delayed(Duration::from_millis(40));
    let Some(link) = Link::new(clear.clone()) else {
        return;
    };
    let runtimes = [link.a().runtime(), link.b().runtime()];
    let [at_a, at_b] = runtimes.each_ref();
    // One pair that sends media, and one that says nothing to each other.
    let publisher = live(at_a);
    let (viewer, idle_a, idle_b) = (live(at_b), live(at_a), live(at_b));
    let _media = {
        let _inside = at_a.enter();
        feed(&publisher, "movie")
    };
    let inside = at_b.enter();
    let address = publisher.endpoint().addr();
    let idle_address = idle_a.endpoint().addr();
    let (movie, idle) = at_b.block_on(async {
        let movie = timeout(LIMIT, viewer.subscribe(address, "movie"));
        let idle = timeout(LIMIT, idle_b.transport().connect(idle_address));
        let (movie, idle) = tokio::join!(movie, idle);
        (
            movie.expect("soon").expect("it is there"),
            idle.expect("soon").expect("it is there"),
        )
    });
    let there = |live: &iroh_live::Live| -> MoqSession {
        let sessions = live.transport().sessions();
        let session = sessions.borrow().first().cloned();
        session.expect("there is a session")
    };
    let sessions = [
        movie.session().clone(),
        idle.clone(),
        there(&publisher),
        there(&idle_a),
    ];
    let mut reader = at_b
        .block_on(async {
            let config = video();
            let subscribing = movie
                .broadcast()
                .subscribe(VIDEO, &config, Duration::from_secs(1));
            timeout(LIMIT, subscribing).await
        })
        .expect("soon")
        .expect("it is there");

    // It begins at any point of what keeps a connection alive.
    for wait in [0, 900, 1700] {
        at_b.block_on(sleep(Duration::from_millis(2000 + wait)));
        link.set(&clear.clone().dead());
        std::thread::sleep(HANDOVER);
        link.set(&clear);
        at_b.block_on(sleep(Duration::from_secs(3)));
        for session in &sessions {
            assert!(session.is_alive(), "{session:?} after {wait} ms");
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            let frame = at_b.block_on(timeout(LIMIT, reader.next()));
            assert!(frame.expect("soon").expect("sound").is_some());
        }
    }

    link.set(&clear.dead());
    let begun = Instant::now();
    let gone = sessions
        .map(|session| at_b.spawn(async move { (session.closed().await, begun.elapsed()) }));
    for gone in gone {
        let gone = at_b.block_on(timeout(GIVEN_UP * 2, gone));
        let (reason, after) = gone.expect("given up").expect("no panic");
        println!("{reason:?} after {after:?}");
        assert_eq!(reason, DisconnectReason::TransportError);
        assert!(after <= GIVEN_UP, "{after:?}");
    }
    drop(inside);
    for runtime in runtimes {
        runtime.shutdown_background();
    }
}

/// A publisher on this port, with this key.
fn publisher(runtime: &Runtime, key: &SecretKey, port: u16) -> Live {
    let mut config = EndpointConfig::local();
    config.secret_key = Some(key.clone());
    config.port = Some(port);
    let open = async {
        let endpoint = config.bind().await.expect("the port is free");
        Live::builder(endpoint).with_router().spawn()
    };
    runtime
        .block_on(runtime.spawn(open))
        .expect("it does not panic")
}

/// A publisher is killed, and started again with its key on the same port.
#[test]
fn a_publisher_that_was_killed_is_found_again_before_the_old_connection_is_given_up() {
    let _test = start();
    let clear = Conditions::delayed(Duration::from_millis(20));
    let Some(link) = Link::new(clear.clone()) else {
        return;
    };
    let at_b = link.b().runtime();
    let viewer = live(&at_b);
    let key = SecretKey::generate();
    let killed = link.a().runtime();
    let first = publisher(&killed, &key, 4433);
    let address = first.endpoint().addr();
    let media = {
        let _inside = killed.enter();
        feed(&first, "movie")
    };
    let _inside = at_b.enter();
    let session = at_b
        .block_on(timeout(LIMIT, viewer.transport().connect(address)))
        .expect("soon")
        .expect("it is there");
    let read = || {
        at_b.block_on(async {
            let movie = timeout(LIMIT, session.subscribe("movie"));
            let movie = movie.await.expect("soon").expect("it is there");
            let config = video();
            let subscribing = movie.subscribe(VIDEO, &config, Duration::from_secs(1));
            let mut reader = timeout(LIMIT, subscribing)
                .await
                .expect("soon")
                .expect("there");
            let frame = timeout(LIMIT, reader.next()).await.expect("soon");
            assert!(frame.expect("sound").is_some());
            (movie, reader)
        })
    };
    let (movie, _reader) = read();
    let before = session.connection().stable_id();

    // It has no time for last words.
    link.set(&clear.clone().dead());
    killed.shutdown_timeout(Duration::from_secs(5));
    drop((first, media));
    link.set(&clear);
    let again = link.a().runtime();
    let second = publisher(&again, &key, 4433);
    let _media = {
        let _inside = again.enter();
        feed(&second, "movie")
    };
    let begun = Instant::now();
    at_b.block_on(timeout(LIMIT, movie.closed()))
        .expect("the old broadcast is given up");
    println!(
        "the old one was given up {:?} after the start",
        begun.elapsed()
    );
    let (_movie, _reader) = read();
    println!("the new one was read {:?} after the start", begun.elapsed());
    assert!(session.is_alive(), "it goes on over another connection");
    assert_ne!(session.connection().stable_id(), before);
    drop(_inside);
    for runtime in [again, at_b] {
        runtime.shutdown_background();
    }
}
