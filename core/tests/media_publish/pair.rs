//! A publisher, a viewer, and waiting for what they do.

use std::{future::Future, time::Duration};

use iroh_live::{
    EncodedFrame, Live, LocalBroadcast, RemoteBroadcast, TrackConfig,
    broadcast::{Catalog, EncodedReader},
    endpoint::EndpointConfig,
    media::{
        LocalVideo, PublishMediaError, RenditionInfo, SourceStatus, VideoEncoder, VideoPreset,
        VideoSource,
    },
};
use tokio::sync::watch;

/// Generous: a limit for what hangs, not a measure of speed.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// Waits until it is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// So that those who could do something wrong have the time to.
pub async fn a_while() {
    tokio::time::sleep(Duration::from_millis(1200)).await;
}

pub async fn live() -> Live {
    let endpoint = EndpointConfig::local().bind().await.expect("an endpoint");
    Live::builder(endpoint).with_router().spawn()
}

/// A publisher and a viewer, who see each other only over the network.
pub struct Pair {
    pub local: LocalBroadcast,
    pub remote: RemoteBroadcast,
    pub publisher: Live,
    pub viewer: Live,
    pub name: String,
}

impl Pair {
    pub async fn new() -> Self {
        let (publisher, viewer) = (live().await, live().await);
        let local = LocalBroadcast::new();
        let name = format!("stream-{}", publisher.endpoint().id().fmt_short());
        publisher.publish(name.as_str(), &local).expect("published");
        let subscription = viewer.subscribe(publisher.endpoint().addr(), name.as_str());
        let subscription = soon("subscription", subscription).await.expect("found");
        let (_, remote, _) = subscription.into_parts();
        Self {
            local,
            remote,
            publisher,
            viewer,
            name,
        }
    }

    /// Publishes a small test card, and gives its rendition's name.
    pub fn test_card(&self, encoder: impl Into<VideoEncoder>) -> (LocalVideo, String) {
        let (video, preset) = (self.local.video(), small(200_000));
        video
            .set_source(VideoSource::test(), encoder, [preset])
            .unwrap();
        (video, preset.name())
    }

    /// The first catalog that is as it should be.
    pub async fn catalog(&self, mut good: impl FnMut(&Catalog) -> bool) -> Catalog {
        let mut catalogs = soon("catalog", self.remote.catalog()).await.expect("one");
        loop {
            let catalog = soon("a catalog that is as it should be", catalogs.next()).await;
            let catalog = catalog.expect("sound").expect("not the end");
            if good(&catalog) {
                return catalog;
            }
        }
    }

    pub async fn video(&self, name: &str) -> EncodedReader {
        let catalog = self
            .catalog(|catalog| catalog.video.renditions.contains_key(name))
            .await;
        let config = TrackConfig::Video(catalog.video.renditions[name].clone());
        self.read(name, &config).await
    }

    pub async fn audio(&self, name: &str) -> EncodedReader {
        let catalog = self
            .catalog(|catalog| catalog.audio.renditions.contains_key(name))
            .await;
        let config = TrackConfig::Audio(catalog.audio.renditions[name].clone());
        self.read(name, &config).await
    }

    pub async fn read(&self, name: &str, config: &TrackConfig) -> EncodedReader {
        let reader = self.remote.subscribe(name, config, Duration::from_secs(2));
        soon("track", reader).await.expect("there")
    }

    pub async fn close(self) {
        self.viewer.shutdown().await;
        self.publisher.shutdown().await;
    }
}

pub async fn next(reader: &mut EncodedReader) -> EncodedFrame {
    soon("frame", reader.next())
        .await
        .expect("sound")
        .expect("not the end")
}

/// A small picture that costs little to encode.
pub fn small(bitrate: u64) -> VideoPreset {
    VideoPreset::Custom {
        width: 160,
        height: 120,
        framerate: 30,
        bitrate,
    }
}

pub fn rendition(video: &LocalVideo, name: &str) -> RenditionInfo {
    let found = video.renditions().into_iter().find(|r| r.name == name);
    found.unwrap_or_else(|| panic!("no rendition {name}"))
}

/// Waits for the end of a source.
pub async fn ended(mut status: watch::Receiver<SourceStatus>) {
    let ended = status.wait_for(|status| matches!(status, SourceStatus::Ended));
    soon("told of the end", ended).await.unwrap();
}

/// Waits for a failure of a source or what becomes of it.
pub async fn failed(mut status: watch::Receiver<SourceStatus>) -> PublishMediaError {
    let failed = status.wait_for(|status| matches!(status, SourceStatus::Failed(_)));
    match &*soon("told of the failure", failed).await.unwrap() {
        SourceStatus::Failed(error) => error.clone(),
        status => panic!("{status:?}"),
    }
}

/// The H.264 NAL unit types of an access unit.
pub fn nal_types(data: &[u8]) -> Vec<u8> {
    data.windows(4)
        .filter(|window| window[..3] == [0, 0, 1])
        .map(|window| window[3] & 31)
        .collect()
}
