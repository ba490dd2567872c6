//! A viewer that follows the network, over a link that becomes bad and good again: real media through the core crate,
//! encoded in three sizes, of which only what is watched is encoded and sent.
#![cfg(target_os = "linux")]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use iroh_live::{
    Live, LocalBroadcast,
    media::{
        AudioBackend, AudioCodec, AudioPreset, AudioSource, PlaybackConfig, VideoCodec,
        VideoPreset, VideoSource,
    },
};
use iroh_live_tests::{
    core::live,
    link::{Conditions, Link},
    start,
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep, timeout},
};

/// How long the link has when nothing is wrong with it.
const DELAY: Duration = Duration::from_millis(20);

/// When the viewer has to have come down, and when it has to be up again after the link is well.
const DOWN: Duration = Duration::from_secs(15);
const UP: Duration = Duration::from_secs(45);

/// A stretch of media that is judged.
const WINDOW: Duration = Duration::from_secs(3);

/// How far sound and picture may be apart.
const LIP_SYNC: f64 = 0.045;

/// How far the latency may be from what it was before, seconds.
const LATENCY: f64 = 0.05;

/// Noise needs all the bits that it is given.
const NOISE: &str = "videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=30/1";

const fn size(width: u32, height: u32, bitrate: u64) -> VideoPreset {
    VideoPreset::Custom {
        width,
        height,
        framerate: 30,
        bitrate,
    }
}

const LADDER: [VideoPreset; 3] = [
    size(320, 240, 2_000_000),
    size(208, 160, 500_000),
    size(128, 96, 150_000),
];

/// A frame or a piece of sound that came.
#[derive(Debug, Clone, Copy)]
struct Shown {
    at: Instant,
    running: f64,
    captured: f64,
    height: u32,
}

/// All that came, picture and sound.
#[derive(Debug, Clone, Default)]
struct Log {
    video: Vec<Shown>,
    audio: Vec<Shown>,
}

/// A publisher at one end of a link and a viewer at the other.
struct Scene {
    link: Link,
    log: Arc<Mutex<Log>>,
    viewer: Runtime,
    publisher: Runtime,
    _lives: [Live; 2],
    _broadcast: LocalBroadcast,
}

fn seconds(time: Option<SystemTime>) -> f64 {
    let time = time.expect("the broadcast says when it was captured");
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.expect("the clock is set").as_secs_f64()
}

impl Scene {
    /// Begins to publish and to watch. None where there can be no link.
    fn new() -> Option<Self> {
        let link = Link::new(Conditions::delayed(DELAY))?;
        let (publisher, viewer) = (link.a().runtime(), link.b().runtime());
        let (theirs, ours) = (live(&publisher), live(&viewer));
        let address = theirs.endpoint().addr();
        let broadcast = LocalBroadcast::new();
        {
            let _inside = publisher.enter();
            let (video, audio) = (broadcast.video(), broadcast.audio());
            video
                .set_source(VideoSource::description(NOISE), VideoCodec::H264, LADDER)
                .expect("there is an encoder");
            audio
                .set(AudioSource::test(), AudioCodec::Opus, [AudioPreset::Lq])
                .expect("there is an encoder");
            theirs.publish("noise", &broadcast).expect("a good name");
        }
        let log = Arc::new(Mutex::new(Log::default()));
        let (kept, watching) = (log.clone(), ours.clone());
        viewer.spawn(async move {
            let watched = watching.subscribe(address, "noise").await;
            let watched = watched.expect("it is published");
            let config = PlaybackConfig::default();
            let tracks = watched.media(&AudioBackend::samples(), config).await;
            let tracks = tracks.expect("there are decoders");
            let video = tracks.video.expect("it has pictures");
            let audio = tracks.audio.expect("it has sound");
            let shown = |running: Duration, captured, height| Shown {
                at: Instant::now(),
                running: running.as_secs_f64(),
                captured: seconds(captured),
                height,
            };
            loop {
                tokio::select! {
                    frame = video.next_frame() => {
                        let Ok(Some(frame)) = frame else { break };
                        let shown = shown(frame.running_time(), frame.captured(), frame.height());
                        lock(&kept).video.push(shown);
                    }
                    samples = audio.next_samples() => {
                        let Ok(Some(samples)) = samples else { break };
                        if samples.captured().is_none() {
                            // What conceals a packet that never came.
                            continue;
                        }
                        let shown = shown(samples.running_time(), samples.captured(), 0);
                        lock(&kept).audio.push(shown);
                    }
                }
            }
        });
        Some(Self {
            link,
            log,
            viewer,
            publisher,
            _lives: [theirs, ours],
            _broadcast: broadcast,
        })
    }

    /// Waits until the picture has been so for a stretch, at full rate all the time. Returns how long it took.
    fn wait(&self, what: &str, limit: Duration, is: impl Fn(u32) -> bool) -> Duration {
        let begun = Instant::now();
        let came = async {
            loop {
                let recent = self.recent();
                if recent.video.len() >= 80 && recent.video.iter().all(|shown| is(shown.height)) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        // The stretch that is looked at comes on top.
        let came = self
            .publisher
            .block_on(async { timeout(limit + WINDOW, came).await });
        let log = lock(&self.log).clone();
        let heights: Vec<_> = log.video.iter().map(|shown| shown.height).collect();
        assert!(
            came.is_ok(),
            "{what}: not within {limit:?}. Heights so far, and for how many frames: {:?}",
            runs(&heights)
        );
        begun.elapsed()
    }

    /// What came in the last stretch.
    fn recent(&self) -> Log {
        let since = Instant::now() - WINDOW;
        let log = lock(&self.log);
        let recent = |shown: &[Shown]| {
            let first = shown.partition_point(|shown| shown.at < since);
            shown[first..].to_vec()
        };
        Log {
            video: recent(&log.video),
            audio: recent(&log.audio),
        }
    }

    /// Whether all is as it has to be when the link is well; the latency in seconds.
    fn check(&self) -> f64 {
        let recent = self.recent();
        let mapping = |shown: &[Shown]| median(shown, |shown| shown.running - shown.captured);
        let apart = mapping(&recent.video) - mapping(&recent.audio);
        assert!(
            apart.abs() <= LIP_SYNC,
            "sound and picture are {apart} s apart"
        );
        assert!(recent.audio.len() >= 140, "{} packets", recent.audio.len());
        // Running time and time of capture have different zeros, but always the same.
        mapping(&recent.video)
    }

    /// No picture twice, and none that goes back.
    fn end(self) {
        let log = lock(&self.log).clone();
        for pair in log.video.windows(2) {
            assert!(
                pair[0].captured < pair[1].captured,
                "doubled or turned back: {pair:?}"
            );
        }
        self.viewer.shutdown_background();
        self.publisher.shutdown_background();
    }
}

fn median(shown: &[Shown], of: impl Fn(&Shown) -> f64) -> f64 {
    let mut values: Vec<_> = shown.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Which value came how many times in a row.
fn runs(values: &[u32]) -> Vec<(u32, usize)> {
    let chunks = values.chunk_by(|a, b| a == b);
    chunks.map(|chunk| (chunk[0], chunk.len())).collect()
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Well, bad for a while, and well again.
fn down_and_up(bad: Conditions) {
    let _test = start();
    let Some(scene) = Scene::new() else { return };
    scene.wait("the best rendition at first", UP, |height| height == 240);
    let before = scene.check();
    scene.link.set(&bad);
    let down = scene.wait("a smaller rendition", DOWN, |height| height < 240);
    scene.link.set(&Conditions::delayed(DELAY));
    let up = scene.wait("the best rendition again", UP, |height| height == 240);
    println!("down and at full rate after {down:?}, up again after {up:?}");
    let after = scene.check();
    assert!(
        (after - before).abs() <= LATENCY,
        "the latency changed by {} s",
        after - before
    );
    scene.end();
}

#[test]
fn a_quarter_of_all_packets_lost_both_ways() {
    down_and_up(Conditions::delayed(DELAY).losing(0.25));
}

#[test]
fn half_a_megabit_under_a_ladder_of_two() {
    down_and_up(Conditions {
        rate: Some(500_000),
        ..Conditions::delayed(DELAY)
    });
}
