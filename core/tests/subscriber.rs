//! Subscriptions that last, over real connections on the loopback interface.

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{addr, live, soon};
use iroh_live::{
    CloseCode, EncodedFrame, Live, LocalBroadcast, LossReason, Policy, SubscribeError, Subscriber,
    SubscriberState, TrackConfig,
    broadcast::{
        AudioConfig, EncodedReader, LocalTrack, ReadError, VideoConfig,
        catalog::{AudioCodec, VideoCodec},
    },
    endpoint::EndpointConfig,
    iroh::{EndpointAddr, SecretKey},
};

const AGE: Duration = Duration::from_secs(5);

fn vp8() -> TrackConfig {
    VideoConfig::new(VideoCodec::VP8).into()
}

/// A broadcast that is written to by hand.
struct Movie {
    broadcast: LocalBroadcast,
    track: LocalTrack,
    first: u8,
}

impl Movie {
    /// With one track, whose frames begin with this byte.
    fn new(first: u8) -> Self {
        let broadcast = LocalBroadcast::new();
        let track = broadcast.publish_track("cam", vp8()).expect("a track");
        Self {
            broadcast,
            track,
            first,
        }
    }

    fn publish(&self, live: &Live) {
        live.publish("movie", &self.broadcast).expect("published");
    }

    fn write(&mut self) {
        let frame = EncodedFrame::new(LocalBroadcast::now(), vec![self.first; 100], true);
        self.track.write(frame).expect("written");
    }

    /// Writes frames until `other` is done.
    async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        let writing = async {
            loop {
                self.write();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = writing => unreachable!(),
            done = other => done,
        }
    }
}

async fn wait_state(subscriber: &Subscriber, what: &str, is: impl Fn(&SubscriberState) -> bool) {
    let mut state = subscriber.state();
    let what = format!("{what}; at first it was {:?}", *state.borrow());
    let waiting = soon(&what, state.wait_for(|state| is(state)));
    waiting.await.expect("it goes on");
}

async fn open(subscriber: &Subscriber) -> EncodedReader {
    let config = vp8();
    let opening = subscriber.broadcast().subscribe("cam", &config, AGE);
    soon("the track", opening).await.expect("a reader")
}

/// The next frame that begins with this byte.
async fn frame_of(reader: &mut EncodedReader, first: u8) -> EncodedFrame {
    let reading = async {
        loop {
            let frame = reader.next().await.expect("it lasts").expect("not the end");
            if frame.payload[0] == first {
                return frame;
            }
        }
    };
    soon("a frame", reading).await
}

/// An endpoint of this key at this address, once the one before has let go of it.
async fn at(key: &SecretKey, address: SocketAddr) -> Live {
    loop {
        let mut config = EndpointConfig::local();
        config.secret_key = Some(key.clone());
        config.bind = Some(address);
        match config.bind().await {
            Ok(endpoint) => return Live::builder(endpoint).with_router().spawn(),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn free_address() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("it is bound")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_drops_its_broadcast_and_publishes_it_again_is_read_on() {
    let (publisher, viewer) = (live().await, live().await);
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let mut catalog = subscriber.broadcast().catalog().await.expect("at once");
    let mut reader = open(&subscriber).await;
    let first = movie.during(frame_of(&mut reader, 1)).await;
    assert!(soon("the catalog", catalog.next()).await.unwrap().is_some());
    drop(movie);
    wait_state(&subscriber, "lost", |state| {
        matches!(
            state,
            SubscriberState::Lost {
                reason: LossReason::Stopped,
                ..
            }
        )
    })
    .await;
    let mut again = Movie::new(2);
    again.publish(&publisher);
    let second = again.during(frame_of(&mut reader, 2)).await;
    assert!(second.discontinuity);
    assert_ne!(second.incarnation, first.incarnation);
    let third = again.during(frame_of(&mut reader, 2)).await;
    assert!(!third.discontinuity && third.incarnation == second.incarnation);
    assert!(subscriber.state().borrow().is_up());
    let relisted = soon("the catalog", catalog.next()).await.unwrap().unwrap();
    assert!(relisted.video.renditions.contains_key("cam"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_publisher_closes_is_made_again() {
    let (publisher, viewer) = (live().await, live().await);
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let mut reader = open(&subscriber).await;
    let first = movie.during(frame_of(&mut reader, 1)).await;
    let session = subscriber.session().expect("it is up");
    let shown = async {
        while subscriber.stats().snapshot().traffic.received == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    movie.during(shown).await;
    for session in publisher.transport().sessions().borrow().iter() {
        session.close(CloseCode::new(CloseCode::FIRST_OWN), "for a test");
    }
    soon("the end", session.closed()).await;
    let before = subscriber.stats().snapshot().traffic;
    let next = async {
        loop {
            let frame = frame_of(&mut reader, 1).await;
            if frame.incarnation != first.incarnation {
                return frame;
            }
        }
    };
    assert!(movie.during(next).await.discontinuity);
    assert!(!subscriber.session().expect("it is up").is_same(&session));
    // What has gone over the first one counts on.
    let counted = async {
        loop {
            let now = subscriber.stats().snapshot().traffic;
            assert!(now.received >= before.received && now.sent >= before.sent);
            if now.received > before.received + 1000 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    movie.during(counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_started_again_with_its_key_is_found_again() {
    let (key, address) = (SecretKey::generate(), free_address());
    let viewer = live().await;
    let to = EndpointAddr::new(key.public()).with_ip_addr(address);
    // It need not be there yet.
    let subscriber = viewer.subscriber(to, "movie").spawn();
    let publisher = at(&key, address).await;
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let mut reader = open(&subscriber).await;
    movie.during(frame_of(&mut reader, 1)).await;
    publisher.shutdown().await;
    drop((publisher, movie));
    wait_state(&subscriber, "lost", |state| {
        matches!(state, SubscriberState::Lost { .. })
    })
    .await;
    let publisher = at(&key, address).await;
    let mut movie = Movie::new(2);
    movie.publish(&publisher);
    movie.during(frame_of(&mut reader, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_that_is_replaced_is_followed() {
    let (publisher, viewer) = (live().await, live().await);
    let mut old = Movie::new(1);
    old.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let mut reader = open(&subscriber).await;
    old.during(frame_of(&mut reader, 1)).await;
    let mut new = Movie::new(2);
    new.publish(&publisher);
    // The old one goes on, and is left all the same.
    let reading = new.during(frame_of(&mut reader, 2));
    assert!(old.during(reading).await.discontinuity);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_has_ended() {
    let (publisher, viewer) = (live().await, live().await);
    // Whether its track is read or not.
    for read in [true, false] {
        let mut movie = Movie::new(1);
        movie.publish(&publisher);
        let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
        let mut catalog = subscriber.broadcast().catalog().await.expect("at once");
        soon("the catalog", catalog.next()).await.unwrap().unwrap();
        let mut reader = None;
        if read {
            movie
                .during(frame_of(reader.insert(open(&subscriber).await), 1))
                .await;
        }
        movie.track.finish().expect("it was open");
        movie.broadcast.finish();
        let state = soon("the end", subscriber.closed()).await;
        assert!(matches!(state, SubscriberState::Ended), "{state:?}");
        while soon("the catalog", catalog.next()).await.unwrap().is_some() {}
        if let Some(reader) = &mut reader {
            while soon("the end", reader.next()).await.unwrap().is_some() {}
        }
        let opening = subscriber.broadcast().subscribe("cam", &vp8(), AGE).await;
        assert!(opening.is_err());
        drop(movie);
        // Whoever publishes it again finds nobody who waits.
        let mut again = Movie::new(2);
        again.publish(&publisher);
        again
            .during(tokio::time::sleep(Duration::from_millis(600)))
            .await;
        assert!(!again.broadcast.is_watched());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_and_does_not_try_again() {
    let (host, viewer) = (
        common::guarded(Policy::authorizer(|_, _| false)).await,
        live().await,
    );
    let subscriber = viewer.subscriber(addr(&host), "movie").spawn();
    let state = soon("refused", subscriber.closed()).await;
    assert!(matches!(state, SubscriberState::Refused(_)), "{state:?}");
    let mut catalog = subscriber.broadcast().catalog().await.expect("at once");
    assert!(soon("the catalog", catalog.next()).await.is_err());
    // Later as well.
    let host = live().await;
    let mut movie = Movie::new(1);
    movie.publish(&host);
    let subscriber = viewer.subscriber(addr(&host), "movie").spawn();
    let mut reader = open(&subscriber).await;
    movie.during(frame_of(&mut reader, 1)).await;
    host.transport()
        .set_policy(Policy::authorizer(|_, _| false));
    let state = soon("refused", subscriber.closed()).await;
    assert!(matches!(state, SubscriberState::Refused(_)), "{state:?}");
    let error = soon("refused", async {
        loop {
            if let Err(error) = reader.next().await {
                return error;
            }
        }
    })
    .await;
    assert!(!matches!(error, ReadError::Malformed(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gives_up_after_the_time_that_it_is_told() {
    let viewer = live().await;
    let nobody = EndpointAddr::new(SecretKey::generate().public()).with_ip_addr(free_address());
    let limit = Duration::from_millis(700);
    let subscriber = viewer
        .subscriber(nobody, "movie")
        .give_up_after(limit)
        .spawn();
    let state = soon("given up", subscriber.closed()).await;
    let SubscriberState::Failed(error) = state else {
        panic!("{state:?}");
    };
    let SubscribeError::GaveUp { after, reason } = &*error else {
        panic!("{error}");
    };
    assert!(
        *after >= limit && matches!(reason, LossReason::Unreachable(_)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_publisher_has_instead_is_said() {
    let (publisher, viewer) = (live().await, live().await);
    let garden = Movie::new(1);
    publisher.publish("garden", &garden.broadcast).unwrap();
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    wait_state(&subscriber, "what there is", |state| match state {
        SubscriberState::Waiting { published } => {
            published.as_deref() == Some(&["garden".to_owned()])
        }
        _ => false,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_that_stops_is_said_and_how_old_the_last_frame_is() {
    let (publisher, viewer) = (live().await, live().await);
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let mut reader = open(&subscriber).await;
    let reading = async { while reader.next().await.unwrap().is_some() {} };
    let acting = async {
        movie
            .during(tokio::time::sleep(Duration::from_secs(1)))
            .await;
        assert!(matches!(*subscriber.state().borrow(), SubscriberState::Up));
        wait_state(&subscriber, "stalled", |state| {
            matches!(state, SubscriberState::Stalled { .. })
        })
        .await;
        let mut signals = subscriber.signals();
        let old = |age: Option<Duration>| age.is_some_and(|age| age > Duration::from_secs(1));
        soon("its age", signals.wait_for(|s| old(s.last_frame_age)))
            .await
            .unwrap();
        assert!(
            subscriber
                .stats()
                .snapshot()
                .signals
                .last_frame_age
                .is_some()
        );
        let up = wait_state(&subscriber, "up", |state| {
            matches!(state, SubscriberState::Up)
        });
        movie.during(up).await;
    };
    tokio::select! {
        () = reading => panic!("it goes on"),
        () = acting => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_that_comes_back_in_another_codec_is_not_read_on() {
    let (publisher, viewer) = (live().await, live().await);
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let mut reader = open(&subscriber).await;
    movie.during(frame_of(&mut reader, 1)).await;
    drop(movie);
    let other = LocalBroadcast::new();
    let _track = other
        .publish_track("cam", AudioConfig::new(AudioCodec::Opus, 48_000, 2))
        .unwrap();
    publisher.publish("movie", &other).unwrap();
    let error = soon("the end", reader.next()).await;
    assert!(matches!(error, Err(ReadError::Changed(name)) if name == "cam"));
    assert!(matches!(reader.next().await, Ok(None)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_ends_it_whichever_it_is() {
    let (publisher, viewer) = (live().await, live().await);
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let state = subscriber.state();
    let mut reader = open(&subscriber).await;
    drop(subscriber);
    movie.during(frame_of(&mut reader, 1)).await;
    assert!(state.borrow().is_up());
    drop(reader);
    let mut closed = state.clone();
    soon("closed", closed.wait_for(SubscriberState::is_final))
        .await
        .unwrap();
    let mut sessions = viewer.transport().sessions();
    soon("no session", sessions.wait_for(Vec::is_empty))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_it_ends_what_reads_from_it() {
    let (publisher, viewer) = (live().await, live().await);
    let mut movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    let mut reader = open(&subscriber).await;
    movie.during(frame_of(&mut reader, 1)).await;
    subscriber.clone().close();
    assert!(matches!(
        soon("closed", subscriber.closed()).await,
        SubscriberState::Closed
    ));
    let reading = async { while let Ok(Some(_)) = reader.next().await {} };
    movie.during(soon("the end", reading)).await;
    soon("the end", subscriber.broadcast().closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_does_not_keep_the_transport() {
    let (publisher, viewer) = (live().await, live().await);
    let movie = Movie::new(1);
    movie.publish(&publisher);
    let subscriber = viewer.subscriber(addr(&publisher), "movie").spawn();
    wait_state(&subscriber, "up", SubscriberState::is_up).await;
    drop(viewer);
    let state = soon("the end", subscriber.closed()).await;
    assert!(matches!(state, SubscriberState::Failed(_)), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_whose_catalog_does_not_come_is_given_up() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    let reserved = broadcast.reserve_track();
    publisher.publish("movie", &broadcast).expect("published");
    let limit = Duration::from_millis(400);
    let subscriber = viewer
        .subscriber(addr(&publisher), "movie")
        .give_up_after(limit)
        .spawn();
    let state = soon("given up", subscriber.closed()).await;
    assert!(matches!(state, SubscriberState::Failed(_)), "{state:?}");
    drop(reserved);
}
