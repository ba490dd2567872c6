//! Calls, access and signals over the loopback interface.

use std::{collections::HashSet, future::Future, time::Duration};

use iroh_live::{
    Call, CallError, DisconnectReason, EncodedFrame, Live, LocalBroadcast, Policy,
    broadcast::{VideoCodec, VideoConfig},
    endpoint::EndpointConfig,
    iroh::protocol::Router,
    transport::{ConnectError, PathKind},
};
use tokio::sync::watch;

/// Generous: a limit for what hangs, not a measure of speed.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

async fn live(policy: Policy) -> Live {
    let endpoint = EndpointConfig::local().bind().await.expect("an endpoint");
    Live::builder(endpoint).policy(policy).with_router().spawn()
}

/// A broadcast with one track that says who speaks.
fn media(name: &str) -> (LocalBroadcast, iroh_live::broadcast::LocalTrack) {
    let broadcast = LocalBroadcast::new();
    let track = broadcast
        .publish_track(name, VideoConfig::new(VideoCodec::VP8))
        .unwrap();
    (broadcast, track)
}

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
        let session = incoming.recv().await.unwrap();
        Call::accept(session, theirs).await
    };
    let dialing = Call::dial(dialer, acceptor.endpoint().addr(), mine);
    let (dialed, accepted) = soon("call", async { tokio::join!(dialing, accepting) }).await;
    let calls = (dialed.unwrap(), accepted.unwrap());
    assert_eq!(tracks_of(&calls.0).await, ["acceptor"]);
    assert_eq!(tracks_of(&calls.1).await, ["dialer"]);
    drop((my_track, their_track));
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_a_call_see_each_other_and_hear_its_end() {
    let (a, b) = (live(Policy::Everyone).await, live(Policy::Everyone).await);
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
    let (a, b) = (live(Policy::Everyone).await, live(Policy::Everyone).await);
    let c = live(Policy::Everyone).await;
    let (with_b, _b) = both_sides(&a, &b).await;
    let (with_c, _c) = both_sides(&a, &c).await;
    with_b.close();
    soon("end", with_b.closed()).await;
    assert!(with_c.session().is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_ends_a_call_for_the_other_side() {
    let (a, b) = (live(Policy::Everyone).await, live(Policy::Everyone).await);
    let (dialed, _accepted) = both_sides(&a, &b).await;
    soon("shutdown", b.shutdown()).await;
    assert_eq!(
        soon("end", dialed.closed()).await,
        DisconnectReason::RemoteClose
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_on_the_list_is_told_so_until_he_is() {
    let (allowed, list) = watch::channel(HashSet::new());
    let (guarded, guest) = (live(Policy::Only(list)).await, live(Policy::Everyone).await);
    let address = guarded.endpoint().addr();
    // The refusal can come before or after the handshake is done on this side.
    match soon("refusal", guest.transport().connect(address.clone())).await {
        Err(error) => assert!(matches!(error, ConnectError::Refused), "{error}"),
        Ok(session) => {
            let closed = soon("refusal", session.closed()).await;
            assert!(closed.to_string().contains("not allowed"), "{closed}");
        }
    }
    allowed.send_modify(|list| {
        list.insert(guest.endpoint().id());
    });
    let session = soon("session", guest.transport().connect(address))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(session.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_broadcast_that_one_may_not_watch_one_learns_nothing() {
    let policy = Policy::ask(|_, name| name != Some("secret"));
    let (publisher, viewer) = (live(policy).await, live(Policy::Everyone).await);
    let (secret, _secret) = media("secret");
    let (open, _open) = media("open");
    publisher.publish("secret", &secret).unwrap();
    publisher.publish("open", &open).unwrap();
    let session = soon(
        "session",
        viewer.transport().connect(publisher.endpoint().addr()),
    )
    .await
    .unwrap();
    soon("open", session.subscribe("open")).await.unwrap();
    assert_eq!(session.offered(), ["open"]);
    let hidden = tokio::time::timeout(Duration::from_millis(300), session.subscribe("secret"));
    assert!(hidden.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_somebody_who_is_away_fails_or_waits() {
    let (a, gone) = (live(Policy::Everyone).await, live(Policy::Everyone).await);
    let address = gone.endpoint().addr();
    soon("shutdown", gone.shutdown()).await;
    let (mine, _track) = media("dialer");
    let dialing =
        tokio::time::timeout(Duration::from_secs(40), Call::dial(&a, address, mine)).await;
    if let Ok(result) = dialing {
        assert!(matches!(result.unwrap_err(), CallError::Connect(_)));
    }
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
    let viewer = live(Policy::Everyone).await;
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
    track
        .write(EncodedFrame::new(
            Duration::from_secs(1),
            &b"frame"[..],
            true,
        ))
        .unwrap();
    assert!(soon("frame", reader.next()).await.unwrap().is_some());
    let (session, _broadcast, signals) = subscription.into_parts();
    assert!(session.is_alive() && signals.borrow().loss_rate == 0.0);
    router.shutdown().await.unwrap();
}
