//! What a peer can make this side keep has limits, which are settings, and who goes over one is told.

use std::time::Duration;

use iroh_live::{
    DisconnectReason, Live, Moq,
    endpoint::EndpointConfig,
    iroh::{Endpoint, protocol::Router},
    transport::{CloseCode, ConnectError, Limit, Limits, alpns},
};

async fn endpoint() -> Endpoint {
    let mut config = EndpointConfig::local();
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config.bind().await.expect("there are free ports")
}

async fn live(limits: Limits) -> Live {
    Live::builder(endpoint().await)
        .limits(limits)
        .with_router()
        .spawn()
}

async fn eventually(what: &str, look: impl Fn() -> bool) {
    let looking = async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(30), looking).await;
    assert!(looked.is_ok(), "did not come about: {what}");
}

#[tokio::test]
async fn whoever_has_too_many_connections_is_told_and_counted() {
    let mut limits = Limits::default();
    limits.connections_per_peer = 2;
    let live = live(limits).await;
    let peer = endpoint().await;
    let mut kept = Vec::new();
    for number in 0..4 {
        let alpn = alpns().next().expect("there is one");
        let connection = peer.connect(live.endpoint().addr(), alpn).await;
        let connection = connection.expect("the handshake is let pass");
        if number >= 2 {
            let end = connection.closed().await.to_string();
            assert!(end.contains("too many connections of one peer"), "{end}");
        }
        kept.push(connection);
    }
    assert!(kept[..2].iter().all(|kept| kept.close_reason().is_none()));
    let counts = live.transport().limits_exceeded();
    assert_eq!(counts.get(&Limit::ConnectionsPerPeer), Some(&2));
    live.shutdown().await;
}

#[tokio::test]
async fn when_there_is_no_place_the_oldest_that_watches_nothing_makes_room() {
    let mut limits = Limits::default();
    limits.connections = 2;
    let live = live(limits).await;
    let mut peers = Vec::new();
    for number in 0..3 {
        let moq = Moq::new(endpoint().await);
        let session = moq.connect(live.endpoint().addr()).await;
        let session = session.unwrap_or_else(|error| panic!("{number}: {error}"));
        eventually("the session to be known", || {
            live.transport().sessions().borrow().len() == 2.min(number + 1)
        })
        .await;
        peers.push((moq, session));
    }
    let end = peers[0].1.disconnected().await;
    assert_eq!(end.reason, DisconnectReason::RemoteClose);
    assert_eq!(end.code, Some(CloseCode::LIMIT));
    assert!(peers[1].1.is_alive() && peers[2].1.is_alive());
    live.shutdown().await;
}

#[tokio::test]
async fn when_nobody_can_make_room_a_dialer_learns_it() {
    let mut limits = Limits::default();
    limits.connections = 0;
    let live = live(limits).await;
    let moq = Moq::new(endpoint().await);
    let error = moq.connect(live.endpoint().addr()).await.err();
    assert!(
        matches!(error, Some(ConnectError::Full { .. })),
        "{error:?}"
    );
    live.shutdown().await;
}

#[tokio::test]
async fn nobody_waits_for_ever_to_be_admitted() {
    let mut limits = Limits::default();
    limits.admission = Duration::from_millis(200);
    let live = live(limits).await;
    // It is never looked at.
    let _incoming = live.transport().admission();
    let moq = Moq::new(endpoint().await);
    let error = moq.connect(live.endpoint().addr()).await.err();
    assert!(
        matches!(error, Some(ConnectError::Full { .. })),
        "{error:?}"
    );
    assert_eq!(
        live.transport().limits_exceeded().get(&Limit::Admission),
        Some(&1)
    );
    live.shutdown().await;
}

#[tokio::test]
async fn a_router_of_ones_own_can_limit_handshakes_too() {
    let mut limits = Limits::default();
    limits.handshakes = 0;
    let live = Live::builder(endpoint().await).limits(limits).spawn();
    let filter = live.transport().incoming_filter();
    let router = Router::builder(live.endpoint().clone()).incoming_filter(filter);
    let router = live.register_protocols(router).spawn();
    let moq = Moq::new(endpoint().await);
    let error = moq.connect(live.endpoint().addr()).await.err();
    assert!(
        matches!(error, Some(ConnectError::Full { .. })),
        "{error:?}"
    );
    assert!(live.transport().limits_exceeded()[&Limit::Handshakes] > 0);
    router.shutdown().await.expect("it stops");
    live.shutdown().await;
}
