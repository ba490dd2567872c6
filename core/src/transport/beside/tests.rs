//! A session over two connections, on the loopback interface.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    EncodedFrame, Live, LocalBroadcast, RemoteBroadcast, TrackConfig,
    broadcast::{EncodedReader, VideoConfig, catalog::VideoCodec},
    endpoint::EndpointConfig,
    transport::{Limits, TrafficBytes, peer::Peer},
};

/// Generous: a limit for what hangs, not a measure of speed.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(Duration::from_secs(30), future).await;
    done.unwrap_or_else(|_| panic!("timed out: {what}"))
}

async fn live() -> Live {
    live_with(EndpointConfig::local(), Limits::default()).await
}

async fn live_with(config: EndpointConfig, limits: Limits) -> Live {
    let endpoint = config.bind().await.unwrap();
    Live::builder(endpoint).limits(limits).with_router().spawn()
}

/// Two that are connected, each with its handle on the session.
struct Pair {
    lives: [Live; 2],
    sessions: [MoqSession; 2],
}

impl Pair {
    /// The first one dials.
    async fn connected() -> Self {
        Self::connect([live().await, live().await]).await
    }

    async fn connect(lives: [Live; 2]) -> Self {
        let mut incoming = lives[1].transport().incoming();
        let to = lives[1].endpoint().addr();
        let dialed = soon("session", lives[0].transport().connect(to)).await;
        let taken = soon("session", incoming.next()).await;
        Self {
            sessions: [dialed.unwrap(), taken.unwrap()],
            lives,
        }
    }

    fn registry(&self, side: usize) -> &Arc<Registry> {
        self.lives[side].transport().registry()
    }

    fn peer(&self, side: usize) -> Arc<Peer> {
        self.registry(side).peer(self.sessions[side].remote_id())
    }

    /// Dials beside, as one does who hears nothing, and lets the new connection take over.
    async fn dial_beside(&self, side: usize) {
        let known = self.sessions[side].carriers().ids();
        let (registry, peer) = (self.registry(side).clone(), self.peer(side));
        peer.set_address(self.lives[1 - side].endpoint().addr());
        let session = &self.sessions[side];
        let dialed = dial(registry, peer.clone(), session.clone());
        let carrier = soon("another connection", dialed).await.unwrap();
        take_over(&peer, session, carrier, &known);
    }

    /// Waits until each side has one connection and none of `old`.
    async fn have_one(&self, old: [&[usize]; 2]) {
        for (session, old) in self.sessions.iter().zip(old) {
            let one = async {
                loop {
                    let ids = session.carriers().ids();
                    if ids.len() == 1 && !old.contains(&ids[0]) {
                        break;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            soon("one connection", one).await;
            assert!(session.is_alive());
        }
    }

    fn ids(&self) -> [Vec<usize>; 2] {
        self.sessions.each_ref().map(|s| s.carriers().ids())
    }
}

fn vp8() -> TrackConfig {
    VideoConfig::new(VideoCodec::VP8).into()
}

/// Writes numbered frames until it is dropped: every tenth is a key frame.
fn feed(broadcast: &LocalBroadcast) -> tokio::task::JoinHandle<()> {
    let mut track = broadcast.publish_track("film", vp8()).unwrap();
    tokio::spawn(async move {
        for number in 0_u64.. {
            let time = Duration::from_millis(number * 5);
            let payload = number.to_be_bytes().to_vec();
            if track
                .write(EncodedFrame::new(time, payload, number % 10 == 0))
                .is_err()
            {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    })
}

async fn film(broadcast: &RemoteBroadcast) -> EncodedReader {
    let config = vp8();
    let subscribing = broadcast.subscribe("film", &config, Duration::from_secs(5));
    soon("film", subscribing).await.unwrap()
}

/// Reads numbered frames, none of which may be missing or come twice, until `stop`. Says how many there were.
async fn read_all(mut reader: EncodedReader, stop: CancellationToken) -> u64 {
    let mut last = None;
    let mut count = 0;
    while !stop.is_cancelled() {
        let frame = soon("a frame", reader.next()).await;
        let frame = frame.expect("sound").expect("not the end");
        let number = u64::from_be_bytes(frame.payload[..].try_into().unwrap());
        if let Some(last) = last.replace(number) {
            assert_eq!(number, last + 1, "after {count} frames");
        }
        assert!(!frame.discontinuity);
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn tracks_go_on_from_one_connection_to_the_other_without_a_gap() {
    let pair = Pair::connected().await;
    let movie = LocalBroadcast::new();
    let feeding = feed(&movie);
    // The side that was dialled publishes, and then the other one.
    pair.lives[1].publish("movie", &movie).unwrap();
    pair.lives[0].publish("movie", &movie).unwrap();
    let stop = CancellationToken::new();
    let mut reading = Vec::new();
    for session in &pair.sessions {
        let remote = soon("movie", session.subscribe("movie")).await.unwrap();
        let reader = film(&remote).await;
        reading.push(tokio::spawn(read_all(reader, stop.clone())));
    }
    for side in [0, 0, 1, 0, 1] {
        let old = pair.ids();
        pair.dial_beside(side).await;
        pair.have_one([&old[0], &old[1]]).await;
    }
    stop.cancel();
    for reading in reading {
        let count = reading.await.unwrap();
        assert!(count > 100, "{count} frames");
    }
    feeding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_dial_beside_at_once_one_connection_is_left() {
    let pair = Pair::connected().await;
    let movie = LocalBroadcast::new();
    let feeding = feed(&movie);
    let stop = CancellationToken::new();
    let mut reading = Vec::new();
    for (publisher, viewer) in [(0, 1), (1, 0)] {
        pair.lives[publisher].publish("movie", &movie).unwrap();
        let subscribing = pair.sessions[viewer].subscribe("movie");
        let remote = soon("movie", subscribing).await.unwrap();
        let reader = film(&remote).await;
        reading.push(tokio::spawn(read_all(reader, stop.clone())));
    }
    for late in [0, 0, 0, 1, 2, 3, 5, 10] {
        let old = pair.ids();
        let other = async {
            sleep(Duration::from_millis(late)).await;
            // Who hears something again does not dial.
            if pair.ids()[1] == old[1] {
                pair.dial_beside(1).await;
            }
        };
        tokio::join!(pair.dial_beside(0), other);
        pair.have_one([&old[0], &old[1]]).await;
    }
    stop.cancel();
    for reading in reading {
        reading.await.unwrap();
    }
    feeding.abort();
    for live in &pair.lives {
        assert_eq!(live.transport().sessions().borrow().len(), 1);
    }
}

#[test]
fn two_connections_overlap_for_some_round_trips() {
    let of = |ms| overlap(Duration::from_millis(ms)).as_millis();
    assert_eq!([of(0), of(40), of(300), of(5000)], [500, 500, 1200, 2000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_gone_over_a_session_is_counted_over_all_its_connections() {
    let pair = Pair::connected().await;
    let mut last = [TrafficBytes::default(); 2];
    for round in 0..3 {
        let old = pair.ids();
        for (session, last) in pair.sessions.iter().zip(&mut last) {
            let (now, link) = (session.traffic(), session.link().traffic().bytes());
            let before = std::mem::replace(last, now);
            assert!(now.received > before.received && now.sent > before.sent);
            assert_eq!(now.received > link.received, round > 0, "{now:?} {link:?}");
        }
        pair.dial_beside(0).await;
        pair.have_one([&old[0], &old[1]]).await;
    }
    // The statistics show the same.
    let (session, stats) = (&pair.sessions[0], pair.sessions[0].stats());
    let shown = async {
        while stats.snapshot().traffic.received < last[0].received {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("statistics", shown).await;
    assert!(stats.snapshot().traffic.sent <= session.traffic().sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_go_on_after_the_runtime_of_who_asked_first() {
    let pair = Pair::connected().await;
    let session = pair.sessions[0].clone();
    let asking = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async { session.signals() })
    });
    let mut signals = tokio::task::spawn_blocking(|| asking.join().unwrap())
        .await
        .unwrap();
    for _ in 0..3 {
        soon("signals", signals.changed()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_many_connections_of_one_session_keeps_a_few() {
    let pair = Pair::connected().await;
    let mut links = Vec::new();
    for _ in 0..10 {
        let (registry, peer) = (pair.registry(0).clone(), pair.peer(0));
        let dialed = dial(registry, peer, pair.sessions[0].clone());
        links.push(soon("another connection", dialed).await.unwrap());
    }
    let few = async {
        while links.iter().filter(|link| link.link.is_alive()).count() > 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon("a few connections", few).await;
    assert!(pair.sessions[1].carriers().ids().len() <= 3);
    assert_eq!(pair.lives[1].transport().sessions().borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_dialled_beside_a_peer_that_has_lost_the_session_ends_it() {
    for offers in [true, false] {
        // The peer has dialled, and would have ended it.
        let pair = Pair::connected().await;
        let movie = LocalBroadcast::new();
        if offers {
            pair.lives[0].publish("movie", &movie).unwrap();
        } else {
            pair.sessions[0].publish("movie", &movie).unwrap();
        }
        let remote = soon("movie", pair.sessions[1].subscribe("movie")).await;
        let mut incoming = pair.lives[0].transport().incoming();
        // For the peer it is a new session, as where it was started anew: it knows nothing of this end, which has announced
        // nothing.
        pair.dial_beside(1).await;
        let theirs = soon("session", incoming.next()).await.unwrap().unheld();
        let Pair { lives, sessions } = pair;
        let [old, ours] = sessions;
        let ours_unheld = ours.unheld();
        soon("the end of the old one", old.closed()).await;
        assert!(ours.is_alive() && theirs.is_alive());
        drop((ours, remote));
        soon("the end", ours_unheld.closed()).await;
        let end = soon("the end", theirs.disconnected()).await;
        assert_eq!(end.code, Some(CloseCode::UNUSED));
        drop(lives);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_dialled_beside_leaves_the_end_to_the_peer_that_is_still_the_same() {
    let pair = Pair::connected().await;
    let movie = LocalBroadcast::new();
    // Each knows of the other that it is still the same by what it announces.
    for live in &pair.lives {
        live.publish("movie", &movie).unwrap();
    }
    let mut remotes = Vec::new();
    for session in &pair.sessions {
        remotes.push(soon("movie", session.subscribe("movie")).await);
    }
    let old = pair.ids();
    pair.dial_beside(1).await;
    pair.have_one([&old[0], &old[1]]).await;
    let [theirs, ours] = pair.sessions;
    let ours_unheld = ours.unheld();
    drop((ours, remotes));
    // Longer than what nobody needs is kept.
    sleep(Duration::from_secs(5)).await;
    assert!(ours_unheld.is_alive());
    drop(theirs);
    soon("the end", ours_unheld.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_over_to_another_connection_where_there_is_no_place_for_more_peers() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let full = live_with(EndpointConfig::local(), limits).await;
    let movie = LocalBroadcast::new();
    let feeding = feed(&movie);
    full.publish("movie", &movie).unwrap();
    let pair = Pair::connect([live().await, full]).await;
    let remote = soon("movie", pair.sessions[0].subscribe("movie")).await;
    // From now on the session cannot make room for somebody else.
    let stop = CancellationToken::new();
    let reading = tokio::spawn(read_all(film(&remote.unwrap()).await, stop.clone()));
    soon("a request", pair.sessions[1].requested("movie")).await;
    for _ in 0..3 {
        let old = pair.ids();
        pair.dial_beside(0).await;
        pair.have_one([&old[0], &old[1]]).await;
    }
    let to = pair.lives[1].endpoint().addr();
    let other = live().await;
    let refused = soon("an answer", other.transport().connect(to)).await;
    assert!(matches!(refused, Err(ConnectError::Full { .. })));
    // Nor is there a place for another session of the same peer.
    let mut config = EndpointConfig::local();
    config.secret_key = Some(pair.lives[0].endpoint().secret_key().clone());
    let twin = live_with(config, Limits::default()).await;
    let to = pair.lives[1].endpoint().addr();
    let refused = soon("an answer", twin.transport().connect(to)).await;
    assert!(matches!(refused, Err(ConnectError::Full { .. })));
    stop.cancel();
    assert!(reading.await.unwrap() > 0);
    feeding.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_session_that_there_is_does_not_take_away_where_the_peer_is() {
    let pair = Pair::connected().await;
    let known = pair.peer(0).address();
    assert!(!known.is_empty());
    let again = pair.lives[0].transport().connect(known.id);
    assert!(soon("it", again).await.unwrap().is_same(&pair.sessions[0]));
    assert_eq!(pair.peer(0).address(), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_closed_does_not_go_on_over_a_connection_that_comes_later() {
    let pair = Pair::connected().await;
    pair.sessions[1].close(CloseCode::DONE, "enough");
    let (registry, peer) = (pair.registry(0).clone(), pair.peer(0));
    // The peer may take it for a session of its own, as the one that it says it belongs to is over.
    let dialed = dial(registry, peer.clone(), pair.sessions[0].clone());
    if let Ok(carrier) = soon("another connection", dialed).await {
        let link = carrier.link.clone();
        soon("the end", pair.sessions[0].closed()).await;
        take_over(&peer, &pair.sessions[0], carrier, &[]);
        soon("the end of the connection", link.closed()).await;
    }
    let late = pair.sessions[0].subscribe("movie").await.map(drop);
    assert!(matches!(
        late,
        Err(crate::transport::BroadcastError::Session(_))
    ));
}
