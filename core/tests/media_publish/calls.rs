//! Who fits the bitrate to the network.

use std::time::Duration;

use iroh_live::{
    AdaptiveConfig, Call, LocalBroadcast, RemoteBroadcast,
    media::{VideoCodec, VideoSource},
};

use super::pair::{live, small, soon, until};

/// Waits until the publisher says that it fits its pictures to this viewer, or does not.
async fn adapts(broadcast: &RemoteBroadcast, wanted: bool) {
    let mut catalogs = soon("catalog", broadcast.catalog()).await.unwrap();
    soon("what is said", async {
        loop {
            let catalog = catalogs.next().await.unwrap().expect("not the end");
            if catalog.ext.iroh_live.adapts_video == wanted {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_call_the_publisher_says_that_it_follows_the_network_and_the_viewer_leaves_it_to_it() {
    let (caller, callee, third) = (live().await, live().await, live().await);
    let mine = LocalBroadcast::new();
    let presets = [small(400_000), small(100_000)];
    let best = presets[0].name();
    let video = mine.video();
    video
        .set_source(VideoSource::test(), VideoCodec::H264, presets)
        .unwrap();
    until("described", || mine.catalog().video.renditions.len() == 2).await;
    assert!(!mine.catalog().ext.iroh_live.adapts_video);

    let mut incoming = Call::incoming(&callee);
    let dialing = Call::dial(&caller, callee.endpoint().addr(), mine.clone());
    let (dialed, accepted) = tokio::join!(soon("dialled", dialing), async {
        let ringing = soon("a call", incoming.next()).await.unwrap();
        ringing.accept(LocalBroadcast::new()).await
    });
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap());
    adapts(accepted.remote(), true).await;
    let reader = accepted.remote().adaptive(AdaptiveConfig::default());
    let mut reader = soon("reader", reader).await.unwrap();
    // At once, where a viewer that is on its own begins with the smallest.
    let first = soon("a frame", reader.next()).await.unwrap().unwrap();
    assert_eq!(first.rendition.name, best);
    let watching = tokio::spawn(async move { while let Ok(Some(_)) = reader.next().await {} });

    // With two viewers it is theirs to choose.
    caller.publish("open", &mine).unwrap();
    let subscribing = third.subscribe(caller.endpoint().addr(), "open");
    let subscription = soon("subscribe", subscribing).await.unwrap();
    let other = subscription
        .broadcast()
        .adaptive(AdaptiveConfig::default().with_max_age(Duration::from_secs(2)));
    let mut other = soon("reader", other).await.unwrap();
    soon("a frame", other.next()).await.unwrap().unwrap();
    adapts(accepted.remote(), false).await;
    drop((other, subscription));
    adapts(accepted.remote(), true).await;

    // After the call nobody follows anything.
    dialed.close();
    soon("the end", accepted.closed()).await;
    until("nothing is said", || {
        !mine.catalog().ext.iroh_live.adapts_video
    })
    .await;
    watching.abort();
    for live in [caller, callee, third] {
        live.shutdown().await;
    }
}
