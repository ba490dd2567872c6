//! One session with a peer: both dial, one starts anew, some are refused, all is shut down.

mod common;

use std::{collections::HashSet, time::Duration};

use common::{addr, live, media, soon, two_keys, with_key};
use futures_util::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use iroh_live::{
    DisconnectReason, IncomingSession, Live, LocalBroadcast, MoqSession, Policy,
    iroh::{
        EndpointAddr, EndpointId, SecretKey,
        address_lookup::{AddressLookup, Error as LookupError, Item},
    },
    transport::{
        AcceptSessionError, BroadcastError, CloseCode, ConnectError, IncomingSessions, PathKind,
        PublishError,
    },
};
use tokio::runtime::Runtime;

/// Whether both ends are of the same connection. Addresses alone do not tell, so each sends the other a broadcast.
async fn are_the_same(a: &MoqSession, b: &MoqSession) -> bool {
    assert_ne!(a.is_incoming(), b.is_incoming(), "two connections");
    let (of_a, _a) = media("a");
    let (of_b, _b) = media("b");
    a.publish("from-a", &of_a).unwrap();
    b.publish("from-b", &of_b).unwrap();
    soon("a's", b.subscribe("from-a")).await.unwrap();
    soon("b's", a.subscribe("from-b")).await.unwrap();
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_dial_at_once_they_end_with_the_same_session() {
    for round in 0..30 {
        let (a, b) = (live().await, live().await);
        let (of_a, _a) = media("a");
        let (of_b, _b) = media("b");
        a.publish("all-of-a", &of_a).unwrap();
        b.publish("all-of-b", &of_b).unwrap();
        // Some begin a moment later, so that every order of events comes about.
        let dial = |from: Live, to: Live, late: u64| async move {
            tokio::time::sleep(Duration::from_micros(late)).await;
            from.transport().connect(addr(&to)).await
        };
        let both = async {
            tokio::join!(
                dial(a.clone(), b.clone(), (round % 6) * 700),
                dial(b.clone(), a.clone(), (round % 5) * 700),
                dial(a.clone(), b.clone(), 500),
            )
        };
        let (at_a, at_b, again) = soon("sessions", both).await;
        let (at_a, at_b, again) = (at_a.unwrap(), at_b.unwrap(), again.unwrap());
        assert_eq!(
            at_a.connection().stable_id(),
            again.connection().stable_id()
        );
        assert!(are_the_same(&at_a, &at_b).await, "round {round}");
        soon("published", at_a.subscribe("all-of-b")).await.unwrap();
        soon("published", at_b.subscribe("all-of-a")).await.unwrap();
        // What lost is gone, and nobody counts it.
        for side in [&a, &b] {
            let mut sessions = side.transport().sessions();
            let one = sessions.wait_for(|sessions| sessions.len() == 1);
            soon("one session", one).await.unwrap();
        }
        assert!(at_a.is_alive() && at_b.is_alive());
        tokio::join!(a.shutdown(), b.shutdown());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_peer_began_is_used() {
    let (a, b) = (live().await, live().await);
    let mut incoming = b.transport().incoming();
    let at_a = soon("session", a.transport().connect(addr(&b)))
        .await
        .unwrap();
    let at_b = soon("incoming", incoming.next()).await.unwrap();
    let dialed = soon("session", b.transport().connect(addr(&a)))
        .await
        .unwrap();
    assert_eq!(
        dialed.connection().stable_id(),
        at_b.connection().stable_id()
    );
    assert!(at_a.is_alive());
}

/// A peer that can be made to vanish without a word, as when it is switched off.
struct Mortal {
    runtime: Option<Runtime>,
    live: Live,
}

impl Mortal {
    async fn start(key: SecretKey) -> Self {
        let runtime = Runtime::new().unwrap();
        let starting = runtime.spawn(with_key(key, Policy::Everyone));
        let live = soon("an endpoint", starting).await.unwrap();
        Self {
            runtime: Some(runtime),
            live,
        }
    }

    async fn connect(&self, to: &Live) -> Result<MoqSession, ConnectError> {
        let (live, to) = (self.live.clone(), addr(to));
        let runtime = self.runtime.as_ref().unwrap();
        let dialing = runtime.spawn(async move { live.transport().connect(to).await });
        soon("the mortal dials", dialing).await.unwrap()
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // Its sockets stay open, and nobody reads or writes on them.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A peer that had a session vanishes and comes again with the same key. `survivor` and `mortal` are the keys.
async fn starts_anew([survivor, mortal]: [SecretKey; 2], survivor_dials: bool) {
    let survivor = with_key(survivor, Policy::Everyone).await;
    let first = Mortal::start(mortal.clone()).await;
    if survivor_dials {
        soon("session", survivor.transport().connect(addr(&first.live)))
            .await
            .unwrap();
    } else {
        first.connect(&survivor).await.unwrap();
    }
    let mut sessions = survivor.transport().sessions();
    let old = soon("old", sessions.wait_for(|sessions| !sessions.is_empty()))
        .await
        .unwrap()[0]
        .clone();
    drop(first);
    let mut incoming = survivor.transport().incoming();
    let second = Mortal::start(mortal).await;
    assert!(old.is_alive(), "nobody can know yet");
    let began = std::time::Instant::now();
    second.connect(&survivor).await.unwrap();
    let new = soon("the new session", incoming.next()).await.unwrap();
    assert_eq!(
        soon("old", old.closed()).await,
        DisconnectReason::TransportError
    );
    // That the old one timed out by itself would prove nothing.
    assert!(began.elapsed() < Duration::from_secs(8));
    let used = soon("session", survivor.transport().connect(addr(&second.live)))
        .await
        .unwrap();
    assert_eq!(used.connection().stable_id(), new.connection().stable_id());
    let (movie, _track) = media("movie");
    survivor.publish("movie", &movie).unwrap();
    let (live, to) = (second.live.clone(), addr(&survivor));
    let runtime = second.runtime.as_ref().unwrap();
    let watching = runtime.spawn(async move { live.subscribe(to, "movie").await.map(drop) });
    soon("movie", watching).await.unwrap().unwrap();
    survivor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_starts_anew_replaces_its_dead_session() {
    let keys = two_keys();
    let turned = [keys[1].clone(), keys[0].clone()];
    tokio::join!(
        starts_anew(keys.clone(), true),
        starts_anew(keys, false),
        starts_anew(turned.clone(), true),
        starts_anew(turned, false),
    );
}

/// Two processes have the same key by mistake, or by a setting that both find.
async fn twins_are_served([ours, theirs]: [SecretKey; 2], dials: bool) {
    let host = with_key(ours, Policy::Everyone).await;
    let (movie, _track) = media("movie");
    host.publish("movie", &movie).unwrap();
    let twins = [
        with_key(theirs.clone(), Policy::Everyone).await,
        with_key(theirs, Policy::Everyone).await,
    ];
    if dials {
        soon("session", host.transport().connect(addr(&twins[0])))
            .await
            .unwrap();
    }
    let mut watching = Vec::new();
    for twin in &twins {
        watching.push(
            soon("twin", twin.subscribe(addr(&host), "movie"))
                .await
                .unwrap(),
        );
    }
    // Longer than anybody is asked whether he lives.
    tokio::time::sleep(Duration::from_millis(800)).await;
    for sub in &watching {
        assert!(sub.session().is_alive());
    }
    assert_eq!(host.transport().sessions().borrow().len(), 2);
    // When the one that is used ends, the other one is.
    twins[1].shutdown().await;
    let mut sessions = host.transport().sessions();
    soon("one", sessions.wait_for(|sessions| sessions.len() == 1))
        .await
        .unwrap();
    let (private, _track) = media("private");
    let left = soon("session", host.transport().connect(addr(&twins[0])))
        .await
        .unwrap();
    left.publish("private", &private).unwrap();
    soon("private", watching[0].session().subscribe("private"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_lives_outlasts_another_connection_of_its_peer() {
    let keys = two_keys();
    let turned = [keys[1].clone(), keys[0].clone()];
    tokio::join!(
        twins_are_served(keys.clone(), true),
        twins_are_served(keys, false),
        twins_are_served(turned.clone(), true),
        twins_are_served(turned, false),
    );
}

/// Lets the program at `live` look at the next session.
async fn asked(admission: &mut IncomingSessions) -> IncomingSession {
    soon("an incoming session", admission.next()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_can_be_looked_at_before_they_see_anything() {
    let (host, guest) = (live().await, live().await);
    let (movie, _track) = media("movie");
    host.publish("movie", &movie).unwrap();
    let mut admission = host.transport().admission();
    let mut let_in = host.transport().incoming();
    let watch = || guest.subscribe(addr(&host), "movie");

    for (code, busy) in [(CloseCode::REFUSED, false), (CloseCode::BUSY, true)] {
        let rejecting = async {
            let session = asked(&mut admission).await;
            assert_eq!(session.remote_id(), guest.endpoint().id());
            assert_eq!(session.path().kind, PathKind::Direct);
            session.reject(code, "not you");
        };
        let (refused, ()) = soon("refusal", async { tokio::join!(watch(), rejecting) }).await;
        use iroh_live::SubscribeError::Connect;
        match refused.unwrap_err() {
            Connect(ConnectError::Refused { reason }) if !busy => assert_eq!(reason, "not you"),
            Connect(ConnectError::Busy { reason }) if busy => assert_eq!(reason, "not you"),
            error => panic!("{error}"),
        }
    }
    // To drop it is to refuse it.
    let dropping = async { drop(asked(&mut admission).await) };
    let (refused, ()) = soon("refusal", async { tokio::join!(watch(), dropping) }).await;
    assert!(refused.is_err());
    // Nobody was let in so far, and while one waits, it sees nothing.
    assert!(let_in.next().now_or_never().is_none());
    let watching = watch();
    tokio::pin!(watching);
    let session = tokio::select! {
        session = asked(&mut admission) => session,
        _ = &mut watching => panic!("nobody let it in"),
    };
    let early = tokio::time::timeout(Duration::from_millis(300), &mut watching).await;
    assert!(early.is_err());
    let (subscription, session) = soon("in", async {
        tokio::join!(&mut watching, session.accept())
    })
    .await;
    assert_eq!(session.unwrap().remote_id(), guest.endpoint().id());
    assert!(subscription.unwrap().session().is_alive());
    assert!(let_in.next().now_or_never().is_some());
    // With nobody to look at them they stay outside, until the program says otherwise.
    drop(admission);
    let other = live().await;
    let refused = soon("refusal", other.transport().connect(addr(&host))).await;
    assert!(
        matches!(refused, Err(ConnectError::Refused { .. })),
        "{refused:?}"
    );
    host.transport().admit_everyone();
    soon("session", other.transport().connect(addr(&host)))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_one_dials_need_not_be_asked_about() {
    let (a, b) = (live().await, live().await);
    let mut admissions = [a.transport().admission(), b.transport().admission()];
    let both = async {
        tokio::join!(
            a.transport().connect(addr(&b)),
            b.transport().connect(addr(&a))
        )
    };
    let (at_a, at_b) = soon("sessions", both).await;
    assert!(are_the_same(&at_a.unwrap(), &at_b.unwrap()).await);
    for admission in &mut admissions {
        // What waits there has been decided; to drop or refuse it changes nothing.
        while let Ok(Some(session)) =
            tokio::time::timeout(Duration::from_millis(50), admission.next()).await
        {
            session.reject(CloseCode::REFUSED, "too late");
        }
    }
    let sessions = a.transport().sessions();
    assert!(sessions.borrow().iter().all(MoqSession::is_alive));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_leaves_before_being_let_in_is_gone() {
    let (host, guest) = (live().await, live().await);
    let mut admission = host.transport().admission();
    let session = {
        let dialing = guest.transport().connect(addr(&host));
        tokio::pin!(dialing);
        tokio::select! {
            session = asked(&mut admission) => session,
            _ = &mut dialing => panic!("nobody let it in"),
        }
    };
    // The dial was dropped.
    soon("gone", session.gone()).await;
    let error = soon("gone", session.accept()).await.unwrap_err();
    assert!(matches!(error, AcceptSessionError::Gone(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn not_found_is_said_when_the_peer_says_so() {
    let (publisher, viewer) = (live().await, live().await);
    let (movie, _track) = media("movie");
    publisher.publish("movie", &movie).unwrap();
    let session = soon("session", viewer.transport().connect(addr(&publisher)))
        .await
        .unwrap();
    soon("movie", session.subscribe("movie")).await.unwrap();
    // The branch is offered, but there is nothing there.
    let error = soon("not found", session.subscribe("movie/trailer"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, BroadcastError::NotFound(name) if name == "movie/trailer"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_at_the_address_is_told_from_nobody() {
    let (dialer, other) = (live().await, live().await);
    let mut mistyped = addr(&other);
    mistyped.id = SecretKey::generate().public();
    let error = soon("an answer", dialer.transport().connect(mistyped))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::WrongIdentity(_)), "{error:?}");
    assert!(error.to_string().contains("mistyped"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_what_is_on_its_way() {
    let (host, guest) = (live().await, live().await);
    let mut admission = host.transport().admission();
    let dialing = guest.transport().connect(addr(&host));
    tokio::pin!(dialing);
    let session = tokio::select! {
        session = asked(&mut admission) => session,
        _ = &mut dialing => panic!("nobody let it in"),
    };
    let (told, ()) = soon("shutdown", async {
        tokio::join!(&mut dialing, host.shutdown())
    })
    .await;
    match told.unwrap_err() {
        ConnectError::Closed(told) => {
            assert!(told.to_string().contains("shut down"), "{told}");
        }
        error => panic!("{error}"),
    }
    assert!(session.accept().await.is_err());
    assert!(soon("the screen's end", admission.next()).await.is_none());
    // A second time does no harm, and nothing begins afterwards.
    soon("shutdown", host.shutdown()).await;
    let after = soon("dial", host.transport().connect(addr(&guest))).await;
    assert!(matches!(after, Err(ConnectError::Shutdown)), "{after:?}");
    assert!(matches!(
        host.publish("movie", &LocalBroadcast::new()),
        Err(PublishError::Shutdown)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_blamed_for_an_endpoint_that_the_program_closes() {
    let (host, guest, other) = (live().await, live().await, live().await);
    let session = soon("session", guest.transport().connect(addr(&host)))
        .await
        .unwrap();
    let mut admission = other.transport().admission();
    let dialing = guest.transport().connect(addr(&other));
    tokio::pin!(dialing);
    let _waiting = tokio::select! {
        session = asked(&mut admission) => session,
        _ = &mut dialing => panic!("nobody let it in"),
    };
    let (dialed, ()) = soon("closed", async {
        tokio::join!(&mut dialing, guest.endpoint().close())
    })
    .await;
    assert!(matches!(dialed, Err(ConnectError::Shutdown)), "{dialed:?}");
    let end = soon("the end", session.disconnected()).await;
    assert_eq!(end.reason, DisconnectReason::LocalClose, "{end}");
    assert!(end.message.contains("endpoint"), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_sessions_hears_of_the_shutdown() {
    let host = live().await;
    let mut incoming = host.transport().incoming();
    let handle = host.clone();
    let waiting = tokio::spawn(async move {
        while incoming.next().await.is_some() {}
        drop(handle);
    });
    soon("shutdown", host.shutdown()).await;
    soon("the end", waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_is_given_up_takes_nothing_from_the_other_side() {
    // Now and then the dial is faster than the one who gives it up.
    for _ in 0..50 {
        let (a, b) = (live().await, live().await);
        let (movie, _track) = media("movie");
        a.publish("movie", &movie).unwrap();
        let mut at_b = b.transport().sessions();
        let mut dialing = Box::pin(a.transport().connect(addr(&b)));
        let half_done = tokio::select! {
            biased;
            there = at_b.wait_for(|sessions| !sessions.is_empty()) => there.is_ok(),
            _ = &mut dialing => false,
        };
        if !half_done {
            continue;
        }
        // The other side has let this one in, which does not know it yet.
        let mut watching = Box::pin(b.subscribe(addr(&a), "movie"));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut watching);
        assert!(early.await.is_err(), "nothing is offered yet");
        drop(dialing);
        soon("movie", watching).await.unwrap();
        return;
    }
    panic!("no dial was given up half done");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_tells_the_peer_whatever_else_has_failed() {
    let (host, guest) = (live().await, live().await);
    let session = soon("session", guest.transport().connect(addr(&host)))
        .await
        .unwrap();
    // The sessions outlive the transport's own end; the endpoint is closed behind the back of the rest.
    let endpoint = host.endpoint().clone();
    tokio::join!(
        soon("shutdown", host.shutdown()),
        soon("close", endpoint.close())
    );
    assert_eq!(
        soon("told", session.closed()).await,
        DisconnectReason::RemoteClose
    );
    assert!(host.endpoint().is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_and_the_signals_of_a_session() {
    let (a, b) = (live().await, live().await);
    let session = soon("session", a.transport().connect(addr(&b)))
        .await
        .unwrap();
    let mut path = session.path_changes();
    let first = soon("path", path.next()).await.unwrap();
    assert_eq!(first.kind, PathKind::Direct);
    assert_eq!(first.address, session.path().address);
    let mut signals = session.signals();
    let measured = *signals.borrow();
    assert!(!measured.rtt.is_zero(), "{measured:?}");
    assert_eq!(measured.path, PathKind::Direct);
    soon("signals", signals.changed()).await.unwrap();
    // What the peer says that it can send comes from its own congestion controller.
    let told = signals.wait_for(|signals| signals.download_bandwidth.is_some_and(|rate| rate > 0));
    soon("the peer's view", told).await.unwrap();
    let stats = session.stats().snapshot();
    assert_eq!(stats.path.address, first.address);
    session.close(CloseCode::DONE, "done");
    while soon("the path's end", path.next()).await.is_some() {}
    while soon("the signals' end", signals.changed()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn dialling_ends_though_the_session_that_won_does_too() {
    for round in 0..40 {
        let (a, b) = (live().await, live().await);
        // One of the two dials wins, and is closed at once.
        let hostile = b.clone();
        let closing = tokio::spawn(async move {
            let mut sessions = hostile.transport().sessions();
            loop {
                for session in &*sessions.borrow_and_update() {
                    session.close(CloseCode::REFUSED, "not you");
                }
                if sessions.changed().await.is_err() {
                    return;
                }
            }
        });
        let dialling = async {
            tokio::join!(a.transport().connect(addr(&b)), async {
                tokio::time::sleep(Duration::from_micros(round * 150)).await;
                b.transport().connect(addr(&a)).await
            })
        };
        // Whether there was a session or none: that both know is what counts.
        let _ = soon("an answer", dialling).await;
        closing.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_seldom_sees_all_sessions_that_there_are() {
    const MANY: usize = 70;
    let host = live().await;
    let mut incoming = host.transport().incoming();
    let guests: Vec<_> = futures_util::future::join_all((0..MANY).map(|_| live())).await;
    let dialled = guests
        .iter()
        .map(|guest| guest.transport().connect(addr(&host)));
    let dialled = soon("sessions", futures_util::future::join_all(dialled)).await;
    assert!(dialled.iter().all(Result::is_ok));
    let mut all = host.transport().sessions();
    let all = all.wait_for(|sessions| sessions.len() == MANY);
    soon("sessions", all).await.unwrap();
    let mut seen = HashSet::new();
    for _ in 0..MANY {
        let session = soon("a session", incoming.next()).await.unwrap();
        assert!(seen.insert(session.remote_id()), "one twice");
    }
}

/// Looks addresses up, and never finds one.
#[derive(Debug)]
struct Silent;

impl AddressLookup for Silent {
    fn resolve(&self, _: EndpointId) -> Option<BoxStream<'static, Result<Item, LookupError>>> {
        Some(stream::pending().boxed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_for_an_address_has_a_limit() {
    let dialer = live().await;
    dialer.endpoint().address_lookup().unwrap().add(Silent);
    let nowhere = EndpointAddr::new(SecretKey::generate().public());
    let error = soon("an end", dialer.transport().connect(nowhere))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer(_)), "{error:?}");
}
