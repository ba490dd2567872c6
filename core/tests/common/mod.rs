//! What several tests need.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{future::Future, time::Duration};

use iroh_live::{
    Live, LocalBroadcast, Policy,
    broadcast::{LocalTrack, VideoConfig, catalog::VideoCodec},
    endpoint::EndpointConfig,
    iroh::{EndpointAddr, SecretKey},
};

/// Generous: a limit for what hangs, not a measure of speed.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// An endpoint of the loopback interface that takes what comes.
pub async fn live() -> Live {
    guarded(Policy::Everyone).await
}

pub async fn guarded(policy: Policy) -> Live {
    with_key(SecretKey::generate(), policy).await
}

pub async fn with_key(key: SecretKey, policy: Policy) -> Live {
    let mut config = EndpointConfig::local();
    config.secret_key = Some(key);
    let endpoint = config.bind().await.expect("an endpoint");
    Live::builder(endpoint).policy(policy).with_router().spawn()
}

/// Two keys, that of the smaller id first.
pub fn two_keys() -> [SecretKey; 2] {
    let mut keys = [SecretKey::generate(), SecretKey::generate()];
    keys.sort_by_key(SecretKey::public);
    keys
}

pub fn addr(live: &Live) -> EndpointAddr {
    live.endpoint().addr()
}

/// A broadcast with one track, whose name says who it is of.
pub fn media(name: &str) -> (LocalBroadcast, LocalTrack) {
    let broadcast = LocalBroadcast::new();
    let track = broadcast
        .publish_track(name, VideoConfig::new(VideoCodec::VP8))
        .expect("a track");
    (broadcast, track)
}
