//! Calls, access and signals over the loopback interface.

mod common;

use std::time::Duration;

use common::{addr, guarded, live, media, soon};
use iroh_live::{
    Call, CallError, DisconnectReason, EncodedFrame, Live, Policy,
    broadcast::{EncodedReader, LocalTrack, VideoConfig, catalog::VideoCodec},
    call::{Decline, IncomingCalls},
    endpoint::EndpointConfig,
    iroh::protocol::Router,
    transport::{CloseCode, PathKind},
};

async fn tracks_of(call: &Call) -> Vec<String> {
    let mut catalog = soon("catalog", call.remote().catalog()).await.unwrap();
    let catalog = soon("catalog", catalog.next()).await.unwrap().unwrap();
    catalog.video.renditions.into_keys().collect()
}

async fn both_sides(dialer: &Live, acceptor: &Live) -> (Call, Call) {
    let mut incoming = acceptor.transport().incoming();
    let (mine, my_track) = media("dialer");
    let (theirs, their_track) = media("acceptor");
    let accepting = async {
        let session = incoming.next().await.unwrap();
        Call::accept(session, theirs).await
    };
    let dialing = Call::dial(dialer, addr(acceptor), mine);
    let (dialed, accepted) = soon("call", async { tokio::join!(dialing, accepting) }).await;
    let calls = (dialed.unwrap(), accepted.unwrap());
    assert_eq!(tracks_of(&calls.0).await, ["acceptor"]);
    assert_eq!(tracks_of(&calls.1).await, ["dialer"]);
    drop((my_track, their_track));
    calls
}

/// What is written to the track is read.
async fn passes_a_frame(track: &mut LocalTrack, reader: &mut EncodedReader) {
    let frame = EncodedFrame::new(Duration::from_secs(1), &b"frame"[..], true);
    track.write(frame).unwrap();
    assert!(soon("frame", reader.next()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_call_see_each_other_and_hear_its_end() {
    let (a, b) = (live().await, live().await);
    let (dialed, accepted) = both_sides(&a, &b).await;
    let mut signals = dialed.signals();
    soon("signals", signals.wait_for(|s| s.path == PathKind::Direct))
        .await
        .unwrap();
    accepted.close();
    assert_eq!(
        soon("end", accepted.closed()).await,
        DisconnectReason::LocalClose
    );
    assert_eq!(
        soon("end", dialed.closed()).await,
        DisconnectReason::RemoteClose
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_can_talk_to_two_at_once() {
    let (a, b) = (live().await, live().await);
    let c = live().await;
    let (with_b, _b) = both_sides(&a, &b).await;
    let (with_c, _c) = both_sides(&a, &c).await;
    with_b.close();
    soon("end", with_b.closed()).await;
    assert!(with_c.session().is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_a_call_for_the_other_side() {
    let (a, b) = (live().await, live().await);
    let (dialed, _accepted) = both_sides(&a, &b).await;
    soon("shutdown", b.shutdown()).await;
    assert_eq!(
        soon("end", dialed.closed()).await,
        DisconnectReason::RemoteClose
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_broadcast_that_one_may_not_watch_one_learns_nothing() {
    let policy = Policy::authorizer(|_, name| name != Some("secret"));
    let (publisher, viewer) = (guarded(policy).await, live().await);
    let (secret, _secret) = media("secret");
    let (open, _open) = media("open");
    publisher.publish("secret", &secret).unwrap();
    publisher.publish("open", &open).unwrap();
    let session = soon("session", viewer.transport().connect(addr(&publisher)))
        .await
        .unwrap();
    soon("open", session.subscribe("open")).await.unwrap();
    assert_eq!(session.announced(), ["open"]);
    let hidden = tokio::time::timeout(Duration::from_millis(300), session.subscribe("secret"));
    assert!(hidden.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_somebody_who_is_away_says_so() {
    let (a, gone) = (live().await, live().await);
    let address = addr(&gone);
    soon("shutdown", gone.shutdown()).await;
    let (mine, _track) = media("dialer");
    // As long as QUIC tries.
    let dialing = Call::dial(&a, address, mine);
    let result = tokio::time::timeout(Duration::from_secs(60), dialing).await;
    let error = result.expect("it gives up").unwrap_err();
    assert!(matches!(error, CallError::Away(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_or_meets_a_busy_peer_says_so() {
    let refusing = guarded(Policy::authorizer(|_, _| false)).await;
    let caller = live().await;
    let dial = |to: &Live| {
        let (to, caller) = (addr(to), caller.clone());
        async move {
            let (mine, _track) = media("dialer");
            soon("call", Call::dial(&caller, to, mine)).await
        }
    };
    let error = dial(&refusing).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error}");

    // The one who is called may say it when the session is there, or before.
    let called = live().await;
    for screened in [false, true] {
        for code in [CloseCode::REFUSED, CloseCode::BUSY] {
            let mut incoming = called.transport().incoming();
            let mut admission = screened.then(|| called.transport().admission());
            let declining = async {
                match &mut admission {
                    Some(admission) => {
                        let session = admission.next().await.unwrap();
                        session.reject(code, "in a call");
                    }
                    None => incoming.next().await.unwrap().close(code, "in a call"),
                }
            };
            let (error, ()) = tokio::join!(dial(&called), soon("incoming", declining));
            match error.unwrap_err() {
                CallError::Refused { reason } if code == CloseCode::REFUSED => {
                    assert_eq!(reason, "in a call");
                }
                CallError::Busy { reason } if code == CloseCode::BUSY => {
                    assert_eq!(reason, "in a call");
                }
                error => panic!("{error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_call_each_other_at_once_they_are_in_one_call() {
    for round in 0..10_u64 {
        let (a, b) = (live().await, live().await);
        let (of_a, _a) = media("a");
        let (of_b, _b) = media("b");
        let calls = async {
            tokio::join!(Call::dial(&a, addr(&b), of_a), async {
                tokio::time::sleep(Duration::from_micros(round % 5 * 600)).await;
                Call::dial(&b, addr(&a), of_b).await
            })
        };
        let (at_a, at_b) = soon("calls", calls).await;
        let (at_a, at_b) = (at_a.unwrap(), at_b.unwrap());
        assert_eq!(tracks_of(&at_a).await, ["b"], "round {round}");
        assert_eq!(tracks_of(&at_b).await, ["a"], "round {round}");
        at_a.close();
        assert_eq!(
            soon("end", at_b.closed()).await,
            DisconnectReason::RemoteClose
        );
        tokio::join!(a.shutdown(), b.shutdown());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_call_with_a_peer_at_a_time() {
    let (a, b) = (live().await, live().await);
    let (dialed, accepted) = both_sides(&a, &b).await;
    let (again, _track) = media("again");
    let error = soon("second", Call::dial(&a, addr(&b), again.clone()))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::InCall), "{error}");
    assert!(dialed.session().is_alive() && accepted.session().is_alive());
    // And the next one when the first is over.
    drop(accepted);
    assert_eq!(
        soon("end", dialed.closed()).await,
        DisconnectReason::RemoteClose
    );
    both_sides(&a, &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_call_leaves_what_else_the_session_carries() {
    let (a, b) = (live().await, live().await);
    let (movie, mut track) = media("movie");
    b.publish("movie", &movie).unwrap();
    let mut incoming = b.transport().incoming();
    let watching = soon("subscribe", a.subscribe(addr(&b), "movie"))
        .await
        .unwrap();
    let session = soon("session", incoming.next()).await.unwrap();
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let mut reader = soon(
        "reader",
        watching
            .broadcast()
            .subscribe("movie", &config, Duration::ZERO),
    )
    .await
    .unwrap();
    for who_ends in ["dialer", "acceptor"] {
        let (of_a, _a) = media("a");
        let (of_b, _b) = media("b");
        let (dialed, accepted) = soon("call", async {
            tokio::join!(
                Call::dial(&a, addr(&b), of_a),
                Call::accept(session.clone(), of_b)
            )
        })
        .await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        assert_eq!(
            dialed.session().connection().stable_id(),
            watching.session().connection().stable_id()
        );
        let (ends, hears) = match who_ends {
            "dialer" => (&dialed, &accepted),
            _ => (&accepted, &dialed),
        };
        ends.close();
        assert_eq!(
            soon("end", ends.closed()).await,
            DisconnectReason::LocalClose
        );
        assert_eq!(
            soon("end", hears.closed()).await,
            DisconnectReason::RemoteClose
        );
    }
    passes_a_frame(&mut track, &mut reader).await;
    assert!(watching.session().is_alive() && session.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_ring_and_are_answered_or_declined_whatever_the_session_carries() {
    let (a, b) = (live().await, live().await);
    let (movie, _track) = media("movie");
    b.publish("movie", &movie).unwrap();
    let mut calls = Call::incoming(&b);
    // On a session of its own first, then on one that carries more.
    let mut watching = None;
    for shared in [false, true] {
        if shared {
            let sub = soon("subscribe", a.subscribe(addr(&b), "movie"))
                .await
                .unwrap();
            let mut catalog = sub.broadcast().catalog().await.unwrap();
            soon("catalog", catalog.next()).await.unwrap();
            watching = Some(sub);
        }
        for how in [Decline::Busy, Decline::Refuse] {
            let (mine, _a) = media("dialer");
            let declining = async {
                let call = calls.next().await.unwrap();
                assert_eq!(call.remote_id(), a.endpoint().id());
                call.decline(how, "no");
            };
            let dialing = Call::dial(&a, addr(&b), mine);
            let (error, ()) = soon("decline", async { tokio::join!(dialing, declining) }).await;
            match (how, error.unwrap_err()) {
                (Decline::Busy, CallError::Busy { .. })
                | (Decline::Refuse, CallError::Refused { .. }) => {}
                (_, error) => panic!("{error}"),
            }
            let again = tokio::time::timeout(Duration::from_millis(100), calls.next()).await;
            assert!(again.is_err(), "a call that was declined is given again");
        }
        // The next call rings again, and can be hung up before it is answered.
        let (mine, _a) = media("dialer");
        let ringing = {
            let dialing = Call::dial(&a, addr(&b), mine.clone());
            tokio::pin!(dialing);
            tokio::select! {
                call = soon("ring", calls.next()) => call.unwrap(),
                _ = &mut dialing => panic!("nobody has answered"),
            }
        };
        soon("hung up", ringing.gave_up()).await;
        let (theirs, _b) = media("acceptor");
        let accepting = async { calls.next().await.unwrap().accept(theirs).await };
        let dialing = Call::dial(&a, addr(&b), mine);
        let (dialed, accepted) = soon("call", async { tokio::join!(dialing, accepting) }).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        accepted.close();
        assert_eq!(
            soon("end", dialed.closed()).await,
            DisconnectReason::RemoteClose
        );
        assert!(dialed.has_ended() && accepted.has_ended());
    }
    assert!(watching.unwrap().session().is_alive());
    b.shutdown().await;
    assert!(soon("the end", calls.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_is_not_taken_for_the_next_one() {
    let (a, b) = (live().await, live().await);
    let (movie, _track) = media("movie");
    b.publish("movie", &movie).unwrap();
    let mut calls = Call::incoming(&b);
    // On a session that stays.
    let watching = soon("movie", a.subscribe(addr(&b), "movie")).await.unwrap();
    let ring = async |calls: &mut IncomingCalls| {
        let (mine, _track) = media("dialer");
        let dialing = Call::dial(&a, addr(&b), mine);
        tokio::pin!(dialing);
        tokio::select! {
            call = soon("ring", calls.next()) => call.unwrap(),
            _ = &mut dialing => panic!("nobody has answered"),
        }
    };
    let given_up = ring(&mut calls).await;
    soon("given up", given_up.gave_up()).await;
    let (theirs, _theirs) = media("acceptor");
    let error = soon("no call", given_up.accept(theirs.clone()))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Ended(_)), "{error}");
    // Neither is the next one in its way.
    let accepting = async { calls.next().await.unwrap().accept(theirs).await };
    let (mine, _mine) = media("dialer");
    let dialing = Call::dial(&a, addr(&b), mine);
    let (dialed, accepted) = soon("call", async { tokio::join!(dialing, accepting) }).await;
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    assert_eq!(tracks_of(&dialed).await, ["acceptor"]);
    assert_eq!(tracks_of(&accepted).await, ["dialer"]);
    assert!(!dialed.has_ended() && !accepted.has_ended());
    assert!(watching.session().is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_before_the_answer_is_heard() {
    let (a, b) = (live().await, live().await);
    let mut incoming = b.transport().incoming();
    let (mine, _track) = media("dialer");
    let session = {
        let dialing = Call::dial(&a, addr(&b), mine);
        tokio::pin!(dialing);
        tokio::select! {
            session = soon("session", incoming.next()) => session.unwrap(),
            _ = &mut dialing => panic!("nobody has answered"),
        }
    };
    let (theirs, _track) = media("acceptor");
    let error = soon("hung up", Call::accept(session, theirs))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CallError::Ended(_) | CallError::Publish(_)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn protocols_are_mounted_beside_others() {
    let endpoint = EndpointConfig::local().bind().await.unwrap();
    let publisher = Live::builder(endpoint.clone()).spawn();
    let router = publisher
        .register_protocols(Router::builder(endpoint))
        .spawn();
    let (broadcast, mut track) = media("video_0");
    publisher.publish("movie", &broadcast).unwrap();
    let viewer = live().await;
    let subscription = soon(
        "subscribe",
        viewer.subscribe(router.endpoint().addr(), "movie"),
    )
    .await
    .unwrap();
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let reading = subscription
        .broadcast()
        .subscribe("video_0", &config, Duration::ZERO);
    let mut reader = soon("subscribe", reading).await.unwrap();
    passes_a_frame(&mut track, &mut reader).await;
    let (session, _broadcast, signals) = subscription.into_parts();
    assert!(session.is_alive() && signals.borrow().loss_rate == 0.0);
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_of_the_end_may_call_again_at_once() {
    let (a, b) = (live().await, live().await);
    let mut calls = Call::incoming(&b);
    let answering = tokio::spawn(async move {
        let mut answered = Vec::new();
        while let Some(call) = calls.next().await {
            let (theirs, track) = media("acceptor");
            if let Ok(call) = call.accept(theirs).await {
                answered.push((call, track));
            }
        }
    });
    // On a session that stays, and that the next call is made on.
    let (movie, _track) = media("movie");
    b.publish("movie", &movie).unwrap();
    let _watching = soon("movie", a.subscribe(addr(&b), "movie")).await.unwrap();
    for _ in 0..30 {
        let (mine, _track) = media("dialer");
        let call = soon("call", Call::dial(&a, addr(&b), mine)).await.unwrap();
        let again = async {
            let reason = call.closed().await;
            let (mine, track) = media("dialer");
            (reason, Call::dial(&a, addr(&b), mine).await, track)
        };
        let close = async {
            tokio::task::yield_now().await;
            let call = &call;
            tokio::task::block_in_place(|| call.close());
        };
        let ((reason, next, _track), ()) =
            soon("again", async { tokio::join!(again, close) }).await;
        assert_eq!(reason, DisconnectReason::LocalClose);
        next.unwrap().close();
    }
    answering.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_call_says_what_it_is() {
    for watched_before in [false, true] {
        let (a, b) = (live().await, live().await);
        let (movie, _track) = media("movie");
        b.publish("movie", &movie).unwrap();
        if watched_before {
            // Over long ago, and no reason to keep anything.
            let seen = soon("movie", a.subscribe(addr(&b), "movie")).await.unwrap();
            soon("catalog", seen.broadcast().catalog()).await.unwrap();
        }
        let mut calls = Call::incoming(&b);
        let ((mine, _a), (theirs, _b)) = (media("dialer"), media("acceptor"));
        let accepting = async { calls.next().await.unwrap().accept(theirs).await };
        let dialing = Call::dial(&a, addr(&b), mine);
        let (dialed, accepted) = soon("call", async { tokio::join!(dialing, accepting) }).await;
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
        accepted.close();
        let end = soon("end", dialed.disconnected()).await;
        assert_eq!(end.reason, DisconnectReason::RemoteClose);
        assert_eq!(end.code, Some(CloseCode::DONE));
        assert_eq!(end.message, "call ended");
        // One of the two closes what nobody needs, with the same words.
        let end = soon("session", accepted.session().disconnected()).await;
        assert_eq!(end.code, Some(CloseCode::DONE), "{end:?}");
        assert_eq!(end.message, "call ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_taken_is_declined() {
    let (a, b) = (live().await, live().await);
    let mut calls = Call::incoming(&b);
    let (mine, _track) = media("dialer");
    let dropping = async { drop(calls.next().await.unwrap()) };
    let dialing = Call::dial(&a, addr(&b), mine);
    let (error, ()) = soon("decline", async { tokio::join!(dialing, dropping) }).await;
    let error = error.unwrap_err();
    assert!(matches!(error, CallError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_a_session_that_the_peer_needs_no_more_is_put_through() {
    let (caller, called) = (live().await, live().await);
    let (movie, _track) = media("movie");
    caller.publish("movie", &movie).unwrap();
    let mut calls = Call::incoming(&called);
    let watched = soon("movie", called.subscribe(addr(&caller), "movie"))
        .await
        .unwrap();
    let mut sessions = caller.transport().sessions();
    let there = sessions.wait_for(|sessions| !sessions.is_empty());
    let first = soon("session", there).await.unwrap()[0].clone();
    // Nobody picks up before the session that it first comes on is closed.
    drop(watched);
    let picking_up = async {
        let end = first.disconnected().await;
        assert_eq!(end.code, Some(CloseCode::UNUSED), "{end}");
        let (theirs, _track) = media("acceptor");
        calls.next().await.unwrap().accept(theirs).await
    };
    let (mine, _track) = media("dialer");
    let dialing = Call::dial(&caller, addr(&called), mine);
    let (dialed, accepted) = soon("call", async { tokio::join!(dialing, picking_up) }).await;
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    assert!(!dialed.has_ended() && !accepted.has_ended());
}
