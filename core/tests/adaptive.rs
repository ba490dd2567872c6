//! Renditions followed over real connections on the loopback interface.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh_live::{
    CloseCode, EncodedFrame, Live, LocalBroadcast, Quality, RemoteBroadcast, Subscription,
    TrackConfig,
    adaptive::{AdaptiveConfig, AdaptiveError, AdaptiveFrame, AdaptiveReader, MediaKind},
    broadcast::{
        AudioConfig, LocalTrack, VideoConfig,
        catalog::{AudioCodec, VideoCodec},
    },
    endpoint::EndpointConfig,
};
use tokio::time::MissedTickBehavior;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Generous: for what hangs, not a measure of speed.
const LIMIT: Duration = Duration::from_secs(90);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

async fn live() -> Live {
    let endpoint = EndpointConfig::local().bind().await.expect("an endpoint");
    Live::builder(endpoint).with_router().spawn()
}

/// Name, height (none is sound) and bytes of a frame.
const RENDITIONS: [(&str, u32, usize); 6] = [
    ("low", 180, 200),
    ("mid", 360, 800),
    ("high", 720, 2000),
    // Comes later.
    ("best", 1080, 3000),
    ("mono", 0, 80),
    ("stereo", 0, 320),
];
/// No more than a busy machine keeps up with: what comes late is rightly taken for a network that is full.
const INTERVAL: Duration = Duration::from_millis(40);
const FRAMERATE: u32 = 25;
/// Frames from one key frame of the picture to the next.
const GOP: u64 = 12;

fn is_key(number: u64, rendition: usize) -> bool {
    RENDITIONS[rendition].1 == 0 || number.is_multiple_of(GOP)
}

fn config(name: &str, height: u32, size: usize) -> TrackConfig {
    if height == 0 {
        let channels = if name == "mono" { 1 } else { 2 };
        let mut config = AudioConfig::new(AudioCodec::Opus, 48_000, channels);
        config.bitrate = Some(size as u64 * 8 * u64::from(FRAMERATE));
        return config.into();
    }
    let mut config = VideoConfig::new(VideoCodec::VP8);
    config.coded_width = Some(height * 16 / 9);
    config.coded_height = Some(height);
    config.bitrate = Some(size as u64 * 8 * u64::from(FRAMERATE));
    config.framerate = Some(FRAMERATE.into());
    config.into()
}

/// One picture in three sizes and its sound in two, with a frame every 40 ms that says its number and its rendition.
struct Publisher {
    live: Live,
    broadcast: LocalBroadcast,
    tracks: Arc<Mutex<Vec<LocalTrack>>>,
    stop: CancellationToken,
    _writing: AbortOnDropHandle<()>,
}

impl Publisher {
    async fn new() -> Self {
        let live = live().await;
        let broadcast = LocalBroadcast::new();
        let tracks: Vec<_> = RENDITIONS
            .iter()
            .filter(|(name, ..)| *name != "best")
            .map(|(name, height, size)| {
                let config = config(name, *height, *size);
                broadcast.publish_track(*name, config).unwrap()
            })
            .collect();
        let tracks = Arc::new(Mutex::new(tracks));
        live.publish("movie", &broadcast).unwrap();
        let stop = CancellationToken::new();
        let (writing, stopped) = (tracks.clone(), stop.clone());
        let base = LocalBroadcast::now();
        let task = tokio::spawn(async move {
            let mut interval = tokio::time::interval(INTERVAL);
            // What a busy machine held up is made up for: else the publisher would fall behind its own timestamps for ever.
            interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for n in 0u64.. {
                tokio::select! {
                    _ = interval.tick() => {}
                    () = stopped.cancelled() => return,
                }
                for track in writing.lock().unwrap().iter_mut() {
                    let frame = frame(base, n, track.name());
                    if frame.keyframe || !track.needs_keyframe() {
                        track.write(frame).unwrap();
                    }
                }
            }
        });
        Self {
            live,
            broadcast,
            tracks,
            stop,
            _writing: AbortOnDropHandle::new(task),
        }
    }

    async fn viewer(&self) -> (Live, Subscription) {
        let viewer = live().await;
        let subscription = soon(
            "subscribe",
            viewer.subscribe(self.live.endpoint().addr(), "movie"),
        )
        .await
        .unwrap();
        (viewer, subscription)
    }

    /// The renditions that anybody watches.
    fn watched(&self) -> Vec<String> {
        let tracks = self.tracks.lock().unwrap();
        let watched = tracks.iter().filter(|track| track.is_watched());
        watched.map(|track| track.name().to_owned()).collect()
    }

    fn take(&self, name: &str) -> LocalTrack {
        let mut tracks = self.tracks.lock().unwrap();
        let index = tracks.iter().position(|track| track.name() == name);
        tracks.remove(index.unwrap())
    }
}

fn frame(base: Duration, n: u64, name: &str) -> EncodedFrame {
    let index = RENDITIONS
        .iter()
        .position(|(known, ..)| *known == name)
        .unwrap();
    let mut payload = n.to_be_bytes().to_vec();
    payload.push(index as u8);
    payload.resize(RENDITIONS[index].2, 0);
    let timestamp = base + Duration::from_micros(n * INTERVAL.as_micros() as u64);
    EncodedFrame::new(timestamp, payload, is_key(n, index))
}

/// Watches, and sees to it that what is shown strictly continues.
struct Watcher {
    reader: AdaptiveReader,
    last: Option<u64>,
    /// Decoding goes on from this frame.
    decoded: Option<(u64, u8)>,
    shown: u64,
    timestamp: Duration,
}

impl Watcher {
    async fn new(broadcast: &RemoteBroadcast, config: AdaptiveConfig) -> Self {
        let reader = soon("reader", broadcast.adaptive(config)).await.unwrap();
        Self {
            reader,
            last: None,
            decoded: None,
            shown: 0,
            timestamp: Duration::ZERO,
        }
    }

    /// The next frame that is shown; `None` at the end.
    async fn next(&mut self) -> Option<AdaptiveFrame> {
        loop {
            let Ok(frame) = tokio::time::timeout(LIMIT, self.reader.next()).await else {
                self.timed_out("a frame");
            };
            let frame = frame.unwrap()?;
            self.check_decodable(&frame);
            if frame.decode_only {
                assert!(Some(number(&frame)) <= self.last, "it was not shown yet");
                continue;
            }
            let number = number(&frame);
            if let Some(last) = self.last {
                assert_eq!(number, last + 1, "no frame twice, and none missing");
                assert!(!frame.frame.discontinuity);
                assert!(frame.frame.timestamp > self.timestamp);
            }
            self.timestamp = frame.frame.timestamp;
            self.last = Some(number);
            self.shown += 1;
            return Some(frame);
        }
    }

    /// Each rendition begins with a key frame and says so, and within it no frame is left out.
    fn check_decodable(&mut self, frame: &AdaptiveFrame) {
        let (number, index) = (number(frame), frame.frame.payload[8]);
        assert_eq!(frame.rendition.name, RENDITIONS[usize::from(index)].0);
        assert_eq!(frame.frame.payload.len(), RENDITIONS[usize::from(index)].2);
        assert_eq!(frame.frame.keyframe, is_key(number, index.into()));
        match self.decoded {
            Some((last, same)) if same == index && !frame.changed => assert_eq!(number, last + 1),
            _ => assert!(frame.changed && frame.frame.keyframe, "{number} {frame:?}"),
        }
        self.decoded = Some((number, index));
    }

    /// Watches until this holds.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&AdaptiveFrame) -> bool) {
        let watching = async { while !holds(&self.next().await.expect("more")) {} };
        if tokio::time::timeout(LIMIT, watching).await.is_err() {
            self.timed_out(what);
        }
    }

    fn timed_out(&self, what: &str) -> ! {
        let status = self.reader.control().status().borrow().clone();
        panic!("timed out: {what}: {status:?}");
    }

    /// Watches until the rendition of this name is shown.
    async fn until_shown(&mut self, name: &str) {
        self.until(name, |frame| frame.rendition.name == name).await;
    }

    /// Watches until the rendition of this name is shown, and sees to it that it stays: what the program chose does, however
    /// busy the machine is.
    async fn until_kept(&mut self, name: &str) {
        self.until_shown(name).await;
        for _ in 0..GOP {
            assert_eq!(self.next().await.expect("more").rendition.name, name);
        }
    }

    /// Watches until the rendition of this name is the only one that is received.
    async fn until_alone(&mut self, publisher: &Publisher, name: &str) {
        self.until("the others are left", |_| publisher.watched() == [name])
            .await;
    }

    /// Watches up to the beginning of a group: the next key frame is far then. Groups race each other, so who subscribes
    /// at the very moment that one begins may not get the one before.
    async fn mid_group(&mut self) {
        self.until("the middle of a group", |frame| number(frame) % GOP == 5)
            .await;
    }
}

fn number(frame: &AdaptiveFrame) -> u64 {
    u64::from_be_bytes(frame.frame.payload[..8].try_into().unwrap())
}

fn patient() -> AdaptiveConfig {
    AdaptiveConfig::default().with_max_age(Duration::from_secs(4))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_switches_up_and_down_without_a_gap() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let config = patient().with_quality(Quality::Lowest);
    let mut watcher = Watcher::new(subscription.broadcast(), config).await;
    let control = watcher.reader.control();
    watcher.until_kept("low").await;
    for (quality, name) in [
        (Quality::Highest, "high"),
        (Quality::UpTo(400), "mid"),
        (Quality::Named("high".into()), "high"),
        (Quality::Lowest, "low"),
    ] {
        control.set_quality(quality).unwrap();
        watcher.until_kept(name).await;
        let status = control.status().borrow().clone();
        assert_eq!(status.rendition.unwrap().name, name);
        watcher.until_alone(&publisher, name).await;
    }
    let error = control
        .set_quality(Quality::Named("huge".into()))
        .unwrap_err();
    assert!(error.to_string().contains("low, mid, high"), "{error}");
    assert_eq!(control.quality(), Quality::Lowest);
    assert_eq!(control.status().borrow().switches, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_is_followed_as_the_picture_is() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let config = AdaptiveConfig::new(MediaKind::Audio)
        .with_max_age(Duration::from_secs(4))
        .with_quality(Quality::Lowest);
    let mut watcher = Watcher::new(subscription.broadcast(), config).await;
    let control = watcher.reader.control();
    watcher.until_kept("mono").await;
    for (quality, name) in [
        (Quality::Highest, "stereo"),
        (Quality::Named("mono".into()), "mono"),
    ] {
        control.set_quality(quality).unwrap();
        watcher.until_kept(name).await;
        watcher.until_alone(&publisher, name).await;
    }
    control.set_quality(Quality::Auto).unwrap();
    watcher.until_shown("stereo").await;
    watcher.until_alone(&publisher, "stereo").await;
    // It leaves. Packets of before that cannot be had: what is missing is spoken of.
    drop(publisher.take("stereo"));
    let leaves = async {
        let mut last = watcher.last.unwrap();
        loop {
            let frame = watcher.reader.next().await.unwrap().expect("more");
            if frame.decode_only {
                continue;
            }
            let known = number(&frame) == last + 1 || frame.frame.discontinuity;
            assert!(known, "{last}, then {frame:?}");
            last = number(&frame);
            if frame.rendition.name == "mono" {
                break;
            }
        }
    };
    soon("it is left", leaves).await;
    // Nothing here is a picture.
    let picture = Quality::Named("low".into());
    assert!(control.set_quality(picture).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_room_the_best_is_reached_without_a_gap() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let lowest = patient().with_quality(Quality::Lowest);
    let mut watcher = Watcher::new(subscription.broadcast(), lowest).await;
    watcher.until_kept("low").await;
    let control = watcher.reader.control();
    control.set_quality(Quality::Auto).unwrap();
    watcher.until_shown("high").await;
    let status = control.status();
    let healthy = |_: &AdaptiveFrame| {
        let report = status.borrow().report;
        report.healthy && report.rate > 0
    };
    watcher.until("a healthy report", healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendition_that_leaves_is_switched_away_from_without_a_gap() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let best = patient().with_quality(Quality::Highest);
    let mut watcher = Watcher::new(subscription.broadcast(), best).await;
    watcher.until_kept("high").await;
    // It ends as it should.
    watcher.mid_group().await;
    publisher.take("high").finish().unwrap();
    watcher.until_kept("mid").await;
    // It just goes.
    watcher.mid_group().await;
    drop(publisher.take("mid"));
    watcher.until_kept("low").await;
    // A better one comes.
    let (name, height, size) = RENDITIONS[3];
    let description = config(name, height, size);
    let track = publisher
        .broadcast
        .publish_track(name, description)
        .unwrap();
    publisher.tracks.lock().unwrap().push(track);
    watcher.until_kept("best").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_broadcast_is_the_end_of_the_stream() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let mut watcher = Watcher::new(
        subscription.broadcast(),
        patient().with_quality(Quality::Lowest),
    )
    .await;
    watcher.until_kept("low").await;
    publisher.stop.cancel();
    for track in publisher.tracks.lock().unwrap().iter_mut() {
        track.finish().unwrap();
    }
    publisher.broadcast.finish();
    while watcher.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_lost_is_an_error_that_says_so() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    // A subscription would find the publisher again; what a session itself gives ends with it.
    let session = subscription.session();
    let broadcast = soon("subscribe", session.subscribe("movie")).await.unwrap();
    let config = patient().with_quality(Quality::Lowest);
    let mut watcher = Watcher::new(&broadcast, config).await;
    watcher.until_kept("low").await;
    session.close(CloseCode::new(7), "gone");
    let end = async {
        loop {
            match watcher.reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("this is no proper end"),
                Err(error) => break error,
            }
        }
    };
    let error = soon("the end", end).await;
    assert!(
        matches!(error, AdaptiveError::Catalog(_) | AdaptiveError::Read(_)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_on_in_the_same_rendition_when_its_session_was_lost() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let config = patient().with_quality(Quality::UpTo(400));
    let mut reader = Watcher::new(subscription.broadcast(), config).await.reader;
    let loses_sessions = async {
        let mut incarnation = 0;
        while incarnation < 2 {
            let frame = reader.next().await.unwrap().unwrap();
            if frame.frame.incarnation == incarnation && frame.rendition.name == "mid" {
                incarnation += 1;
                let session = subscription.subscriber().session().expect("it is up");
                session.close(CloseCode::new(CloseCode::FIRST_OWN), "for a test");
            } else {
                assert!(incarnation == 0 || frame.rendition.name == "mid");
            }
        }
    };
    soon("it is read on", loses_sessions).await;
    let switches = reader.control().status().borrow().switches;
    assert!(switches <= 1, "{switches}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_there_and_renditions_that_cannot_be_played() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let config = patient().with_quality(Quality::Named("huge".into()));
    let error = soon("reader", subscription.broadcast().adaptive(config))
        .await
        .unwrap_err();
    assert!(
        matches!(error, AdaptiveError::NoSuchRendition { .. }),
        "{error}"
    );
    let config = patient()
        .with_quality(Quality::Highest)
        .with_filter(|rendition| rendition.name != "high");
    let mut watcher = Watcher::new(subscription.broadcast(), config).await;
    watcher.until_kept("mid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_of_a_track_is_counted() {
    let publisher = Publisher::new().await;
    let (_viewer, subscription) = publisher.viewer().await;
    let (name, height, size) = RENDITIONS[0];
    let description = config(name, height, size);
    let subscribing =
        subscription
            .broadcast()
            .subscribe(name, &description, Duration::from_secs(4));
    let mut reader = soon("subscribe", subscribing).await.unwrap();
    assert_eq!(reader.stats().frames, 0);
    for n in 1..=2 * GOP {
        soon("a frame", reader.next()).await.unwrap().unwrap();
        let stats = reader.stats();
        assert_eq!((stats.frames, stats.bytes), (n, n * size as u64));
        assert_eq!(stats.keyframes, n.div_ceil(GOP));
        assert_eq!(stats.discontinuities, 0);
    }
}

/// What is late at the viewer shows in the signals of the session, for the encoders of whoever also sends on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_delay_on_the_way_down_shows_in_the_signals() {
    let (publisher, viewer) = (live().await, live().await);
    let broadcast = LocalBroadcast::new();
    let (name, height, size) = RENDITIONS[0];
    let mut track = broadcast
        .publish_track(name, config(name, height, size))
        .unwrap();
    publisher.publish("movie", &broadcast).unwrap();
    let delay = Arc::new(Mutex::new(Duration::ZERO));
    let wanted = delay.clone();
    let base = LocalBroadcast::now();
    let writing = tokio::spawn(async move {
        for n in 0u64.. {
            let frame = frame(base, n, name);
            let due = frame.timestamp + *wanted.lock().unwrap();
            tokio::time::sleep(due.saturating_sub(LocalBroadcast::now())).await;
            track.write(frame).unwrap();
        }
    });
    let _writing = AbortOnDropHandle::new(writing);
    let subscribing = viewer.subscribe(publisher.endpoint().addr(), "movie");
    let subscription = soon("subscribe", subscribing).await.unwrap();
    let mut watcher = Watcher::new(subscription.broadcast(), patient()).await;
    watcher.until_kept(name).await;
    let mut signals = subscription.signals().clone();
    let watching = tokio::spawn(async move { while watcher.next().await.is_some() {} });
    let _watching = AbortOnDropHandle::new(watching);
    for late in [true, false] {
        *delay.lock().unwrap() = Duration::from_millis(if late { 400 } else { 0 });
        let shows = signals
            .wait_for(|signals| (signals.download_delay > Duration::from_millis(200)) == late);
        soon("it shows", shows).await.unwrap();
    }
}
