//! Encoders that are slow to open, fail for a while, or are not there.
#![cfg(feature = "media")]

mod device;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use device::Device;
use iroh_live::{
    EncodedFrame, Live, LocalBroadcast, TrackConfig,
    broadcast::EncodedReader,
    endpoint::EndpointConfig,
    media::{
        LocalVideo, PublishMediaError, RenditionInfo, SourceStatus, VideoCodec, VideoEncoder,
        VideoPreset, VideoPusher, VideoSource,
    },
};

/// Generous: a limit for what hangs, not a measure of speed.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn small() -> VideoPreset {
    VideoPreset::Custom {
        width: 160,
        height: 120,
        framerate: 30,
        bitrate: 200_000,
    }
}

fn rendition(video: &LocalVideo) -> Option<RenditionInfo> {
    video.renditions().pop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_slow_to_open_holds_up_nobody() {
    let _turn = device::register(Device::Slow).await;
    let local = LocalBroadcast::new();
    let video = local.video();
    let mut preview = video.preview();
    video
        .set_source(
            VideoSource::test(),
            VideoCodec::Vp8.by(device::NAME),
            [small()],
        )
        .unwrap();
    // The source goes on, and what asks for the state gets an answer.
    let mut last = Duration::ZERO;
    for _ in 0..10 {
        let frame = soon("a captured frame", preview.next_frame())
            .await
            .unwrap();
        assert!(frame.timestamp() > last);
        last = frame.timestamp();
        let asked = video.clone();
        let answer = tokio::task::spawn_blocking(move || {
            asked.set_bitrate_limit(Some(100_000));
            rendition(&asked)
        });
        let info = soon("an answer", answer).await.unwrap();
        assert_eq!(info.and_then(|info| info.encoder), None);
    }
    device::set(Device::Free);
    let name = small().name();
    until("described", || {
        local.catalog().video.renditions.contains_key(&name)
    })
    .await;
    until("at work", || {
        rendition(&video).unwrap().encoder.as_deref() == Some(device::NAME)
    })
    .await;
    video.stop();
}

/// Pushes pictures, each captured so much later than the one before, until it is so.
async fn push_until(pusher: &VideoPusher, step: Duration, mut is_so: impl FnMut() -> bool) {
    let mut captured = Instant::now();
    until("what pictures bring about", || {
        captured += step;
        let picture = gst::Buffer::from_slice(vec![0; pusher.info().size()]);
        pusher.push_at(picture, captured).expect("in order");
        is_so()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_never_opens_is_given_up() {
    let _turn = device::register(Device::Slow).await;
    let local = LocalBroadcast::new();
    let video = local.video();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 160, 120);
    let (pusher, source) = VideoSource::push(info.fps(30).build().unwrap());
    video
        .set_source(source, VideoCodec::Vp8.by(device::NAME), [small()])
        .unwrap();
    let (status, mut seconds) = (video.status(), 0);
    push_until(&pusher, Duration::from_secs(1), || {
        seconds += 1;
        matches!(*status.borrow(), SourceStatus::Failed(_))
    })
    .await;
    match &*status.borrow() {
        SourceStatus::Failed(PublishMediaError::Encoder { reason, .. }) => {
            assert!(reason.contains("does not open"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(seconds >= 10, "{seconds} s are nothing for a device");
    // Nobody waits for a device that hangs.
    let stopping = video.clone();
    let stopped = tokio::task::spawn_blocking(move || stopping.stop());
    soon("the end", stopped).await.unwrap();
    device::set(Device::Free);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_is_closed_with_its_source() {
    let _turn = device::register(Device::Free).await;
    let local = LocalBroadcast::new();
    let video = local.video();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 160, 120);
    let (pusher, source) = VideoSource::push(info.fps(30).build().unwrap());
    video
        .set_source(source, VideoCodec::Vp8.by(device::NAME), [small()])
        .unwrap();
    push_until(&pusher, Duration::from_millis(33), || {
        rendition(&video).is_some_and(|info| info.encoder.is_some())
    })
    .await;
    assert_eq!(device::open(), 1);
    drop(pusher);
    until("closed", || device::open() == 0).await;
    assert!(matches!(*video.status().borrow(), SourceStatus::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendition_without_an_encoder_begins_anew_with_another_source() {
    let _turn = device::register(Device::Busy).await;
    let local = LocalBroadcast::new();
    let video = local.video();
    video
        .set_source(
            VideoSource::test(),
            VideoCodec::Vp8.by(device::NAME),
            [small()],
        )
        .unwrap();
    let mut status = video.status();
    let failed = status.wait_for(|status| matches!(status, SourceStatus::Failed(_)));
    match &*soon("a failure", failed).await.unwrap() {
        SourceStatus::Failed(PublishMediaError::Encoder { reason, .. }) => {
            assert!(reason.contains("no session left"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    device::set(Device::Free);
    video.replace_source(VideoSource::test()).unwrap();
    let name = small().name();
    until("described", || {
        local.catalog().video.renditions.contains_key(&name)
    })
    .await;
    assert!(matches!(*video.status().borrow(), SourceStatus::Running));
    video.stop();
}

/// An encoder that nobody needs gives its session back, and is there again when somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_sleeps_is_closed() {
    let _turn = device::register(Device::Free).await;
    let local = LocalBroadcast::new();
    let video = local.video();
    video
        .set_source(
            VideoSource::test(),
            VideoCodec::Vp8.by(device::NAME),
            [small()],
        )
        .unwrap();
    let begin = Instant::now();
    until("at work", || {
        rendition(&video).is_some_and(|info| info.encoder.is_some())
    })
    .await;
    until("closed", || rendition(&video).unwrap().encoder.is_none()).await;
    assert!(begin.elapsed() > Duration::from_secs(5), "not at once");
    assert!(matches!(*video.status().borrow(), SourceStatus::Running));
    video.stop();
}

async fn live() -> Live {
    let endpoint = EndpointConfig::local().bind().await.expect("an endpoint");
    Live::builder(endpoint).with_router().spawn()
}

/// A picture that is watched.
struct Watched {
    video: LocalVideo,
    reader: EncodedReader,
    last: Duration,
    lives: [Live; 2],
    _local: LocalBroadcast,
}

impl Watched {
    async fn new(encoder: impl Into<VideoEncoder>) -> Self {
        let (publisher, viewer) = (live().await, live().await);
        let local = LocalBroadcast::new();
        publisher.publish("stream", &local).unwrap();
        let video = local.video();
        video
            .set_source(VideoSource::test(), encoder, [small()])
            .unwrap();
        let name = small().name();
        until("described", || {
            local.catalog().video.renditions.contains_key(&name)
        })
        .await;
        let subscription = viewer.subscribe(publisher.endpoint().addr(), "stream");
        let (_, remote, _) = soon("subscription", subscription)
            .await
            .unwrap()
            .into_parts();
        let config = TrackConfig::Video(local.catalog().video.renditions[&name].clone());
        let reader = remote.subscribe(&name, &config, Duration::from_secs(2));
        let reader = soon("track", reader).await.unwrap();
        Self {
            video,
            reader,
            last: Duration::ZERO,
            lives: [publisher, viewer],
            _local: local,
        }
    }

    /// Encoded in software, as the device is busy.
    async fn beside_a_device_that_is_busy() -> Self {
        let mut watched = Self::new(VideoCodec::Vp8).await;
        watched.frame().await;
        assert_eq!(watched.encoder().as_deref(), Some("vp8enc"));
        watched
    }

    fn encoder(&self) -> Option<String> {
        rendition(&self.video).unwrap().encoder
    }

    /// Each frame follows the one before it, without a hole.
    async fn frame(&mut self) -> EncodedFrame {
        let frame = soon("frame", self.reader.next()).await.unwrap().unwrap();
        let step = frame.timestamp.saturating_sub(self.last);
        assert!(frame.timestamp > self.last);
        assert!(
            self.last.is_zero() || step < Duration::from_secs(1),
            "{step:?}"
        );
        self.last = frame.timestamp;
        frame
    }

    /// The device's encoder of that number takes over, with a key frame, and goes on.
    async fn hand_over(&mut self, number: u8) {
        let first = soon("handing over", async {
            loop {
                let frame = self.frame().await;
                if device::maker(&frame.payload) == Some(number) {
                    break frame;
                }
            }
        })
        .await;
        assert!(first.keyframe, "what it made before cannot be decoded");
        for _ in 0..30 {
            let frame = self.frame().await;
            assert_eq!(device::maker(&frame.payload), Some(number));
        }
    }

    async fn close(self) {
        assert!(matches!(
            *self.video.status().borrow(),
            SourceStatus::Running
        ));
        for live in &self.lives {
            live.shutdown().await;
        }
    }
}

/// A device that had no session left takes over when it has one, while the picture goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_busy_takes_over_later() {
    let _turn = device::register(Device::Busy).await;
    let mut watched = Watched::beside_a_device_that_is_busy().await;
    device::set(Device::Free);
    watched.hand_over(1).await;
    assert_eq!(watched.encoder().as_deref(), Some(device::NAME));
    watched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_breaks_when_it_is_tried_again_disturbs_nobody() {
    let _turn = device::register(Device::Busy).await;
    let mut watched = Watched::beside_a_device_that_is_busy().await;
    device::set(Device::Broken);
    let mut after = 0;
    while after < 30 {
        watched.frame().await;
        assert_eq!(watched.encoder().as_deref(), Some("vp8enc"));
        after += u64::from(device::BROKE.load(std::sync::atomic::Ordering::Relaxed));
    }
    watched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_cannot_be_told_another_bit_rate_is_replaced() {
    let _turn = device::register(Device::Free).await;
    let mut watched = Watched::new(VideoCodec::Vp8.by(device::NAME)).await;
    watched.hand_over(1).await;
    assert_eq!(rendition(&watched.video).unwrap().bitrate, 200_000);
    watched.video.set_bitrate_limit(Some(60_000));
    watched.hand_over(2).await;
    assert_eq!(*device::OPENED.lock().unwrap(), [200_000, 60_000]);
    assert_eq!(rendition(&watched.video).unwrap().bitrate, 60_000);
    watched.close().await;
}

/// The bit rate is the one that the encoder has, also while another cannot be opened.
#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_cannot_be_replaced_keeps_its_bit_rate() {
    let _turn = device::register(Device::Free).await;
    let mut watched = Watched::new(VideoCodec::Vp8.by(device::NAME)).await;
    watched.hand_over(1).await;
    device::set(Device::Busy);
    watched.video.set_bitrate_limit(Some(60_000));
    let begin = watched.last;
    while watched.last - begin < Duration::from_secs(5) {
        let frame = watched.frame().await;
        assert_eq!(device::maker(&frame.payload), Some(1));
        assert_eq!(rendition(&watched.video).unwrap().bitrate, 200_000);
    }
    watched.close().await;
}

/// Where there is no other, an encoder that fails is waited for: viewers have the picture again when it works.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_encoder_is_tried_again_when_it_fails() {
    let _turn = device::register(Device::Free).await;
    let mut watched = Watched::new(VideoCodec::Vp8.by(device::NAME)).await;
    watched.frame().await;
    device::set(Device::Broken);
    let mut status = watched.video.status();
    let failed = status.wait_for(|status| matches!(status, SourceStatus::Failed(_)));
    match &*soon("a failure", failed).await.unwrap() {
        SourceStatus::Failed(PublishMediaError::Encoder { reason, .. }) => {
            assert!(reason.contains("broken"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(watched._local.catalog().video.renditions.len(), 1);
    device::set(Device::Free);
    let works = status.wait_for(|status| matches!(status, SourceStatus::Running));
    soon("it works again", works).await.unwrap();
    let last = device::OPENED.lock().unwrap().len() as u8;
    soon("frames", async {
        while let Some(frame) = watched.reader.next().await.unwrap() {
            if device::maker(&frame.payload) == Some(last) {
                assert!(frame.keyframe);
                return;
            }
        }
        panic!("the track ended");
    })
    .await;
    watched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_that_cannot_be_published_costs_nothing_and_begins_anew_with_another_source() {
    let _turn = device::register(Device::Free).await;
    let local = LocalBroadcast::new();
    let config =
        iroh_live::broadcast::VideoConfig::new(iroh_live::broadcast::catalog::VideoCodec::VP8);
    let other = local.publish_track(small().name(), config).unwrap();
    let video = local.video();
    let encoder = VideoCodec::Vp8.by(device::NAME);
    video
        .set_source(VideoSource::test(), encoder, [small()])
        .unwrap();
    let mut status = video.status();
    let failed = status.wait_for(|status| {
        matches!(
            status,
            SourceStatus::Failed(PublishMediaError::Track { .. })
        )
    });
    soon("a failure", failed).await.unwrap();
    assert_eq!(rendition(&video).unwrap().encoder, None, "for nobody");
    drop(other);
    video.replace_source(VideoSource::test()).unwrap();
    until("described", || {
        rendition(&video).is_some_and(|info| info.config.is_some())
    })
    .await;
    assert!(matches!(*video.status().borrow(), SourceStatus::Running));
    video.stop();
}
