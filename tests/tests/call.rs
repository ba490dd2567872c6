//! A call between two machines over a link that becomes thin and wide again: real media both ways through the core
//! crate, whose encoders follow what the link carries.
#![cfg(target_os = "linux")]

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh_live::{
    Call, CallError, DisconnectReason, Live, LocalBroadcast,
    media::{
        AudioBackend, AudioCodec, AudioPreset, AudioSource, VideoCodec, VideoPreset, VideoSource,
    },
};
use iroh_live_tests::{
    core::live,
    link::{Conditions, Link},
    start,
};
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long the link has in all phases.
const DELAY: Duration = Duration::from_millis(20);

/// What the encoders are asked for, and what the link carries when it is thin, bits per second.
const ASKED: u64 = 2_000_000;
const THIN: u32 = 1_000_000;

/// How long it may take until all is as it should be.
const LIMIT: Duration = Duration::from_secs(45);

/// A stretch that is judged, and the pictures and packets of sound in it when nothing is missing.
const WINDOW: Duration = Duration::from_secs(3);
const PICTURES: usize = 90;
const PACKETS: usize = 150;

/// Moves enough to need what it is given.
const SOURCE: &str = "videotestsrc is-live=true pattern=zone-plate kx2=20 ky2=20 kt=3 ! \
    video/x-raw,format=I420,width=640,height=360,framerate=30/1";

const PRESET: VideoPreset = VideoPreset::Custom {
    width: 640,
    height: 360,
    framerate: 30,
    bitrate: ASKED,
};

/// When pictures and packets of sound came.
#[derive(Debug, Default)]
struct Seen {
    pictures: Vec<Instant>,
    packets: Vec<Instant>,
}

/// One who is in the call.
struct Party {
    runtime: Runtime,
    live: Live,
    local: LocalBroadcast,
    /// What came from the other one.
    seen: Arc<Mutex<Seen>>,
}

impl Party {
    fn new(runtime: Runtime) -> Self {
        let live = live(&runtime);
        let local = LocalBroadcast::new();
        {
            let _inside = runtime.enter();
            let source = VideoSource::description(SOURCE);
            let video = local.video().set_source(source, VideoCodec::H264, [PRESET]);
            video.expect("there is an encoder");
            let tone = AudioSource::test();
            let audio = local.audio().set(tone, AudioCodec::Opus, [AudioPreset::Lq]);
            audio.expect("there is an encoder");
        }
        Self {
            runtime,
            live,
            local,
            seen: Arc::default(),
        }
    }

    /// Watches the other one.
    fn watch(&self, call: &Call) {
        let (remote, seen) = (call.remote().clone(), self.seen.clone());
        self.runtime.spawn(async move {
            let samples = AudioBackend::samples();
            let tracks = remote.media(&samples, Default::default()).await;
            let tracks = tracks.expect("there are decoders");
            let video = tracks.video.expect("it has pictures");
            let audio = tracks.audio.expect("it has sound");
            loop {
                tokio::select! {
                    frame = video.next_frame() => {
                        let Ok(Some(_)) = frame else { break };
                        lock(&seen).pictures.push(Instant::now());
                    }
                    samples = audio.next_samples() => {
                        let Ok(Some(_)) = samples else { break };
                        lock(&seen).packets.push(Instant::now());
                    }
                }
            }
        });
    }

    /// How many pictures and packets came in the last stretch.
    fn recent(&self) -> (usize, usize) {
        let since = Instant::now() - WINDOW;
        let seen = lock(&self.seen);
        let recent = |times: &[Instant]| times.len() - times.partition_point(|at| *at < since);
        (recent(&seen.pictures), recent(&seen.packets))
    }

    /// What its encoder is told, bits per second.
    fn bitrate(&self) -> u64 {
        let renditions = self.local.video().renditions();
        renditions.first().expect("one was set").bitrate
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until both have seen and heard all of the other one for a whole stretch, at bit rates that are as they should
/// be.
fn wait(what: &str, parties: &[Party; 2], fits: impl Fn(u64) -> bool) {
    let begun = Instant::now();
    let all = |party: &Party| {
        let (pictures, packets) = party.recent();
        pictures >= PICTURES * 95 / 100 && packets >= PACKETS * 95 / 100 && fits(party.bitrate())
    };
    let came = async {
        while !parties.iter().all(all) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let runtime = &parties[0].runtime;
    let came = runtime.block_on(async { timeout(LIMIT, came).await });
    let now = parties
        .each_ref()
        .map(|party| (party.recent(), party.bitrate()));
    assert!(came.is_ok(), "{what}: not within {LIMIT:?}, but {now:?}");
    println!("{what}: after {:?}, {now:?}", begun.elapsed());
}

#[test]
fn a_call_over_a_thin_link_keeps_moving() {
    let _test = start();
    let Some(link) = Link::new(Conditions::delayed(DELAY)) else {
        return;
    };
    let parties = [link.a(), link.b()].map(|end| Party::new(end.runtime()));
    let [caller, called] = &parties;
    let (mut calls, local) = (Call::incoming(&called.live), called.local.clone());
    let answered = called.runtime.spawn(async move {
        let ringing = calls.next().await.expect("it is not shut down");
        ringing.accept(local).await
    });
    let (live, local) = (caller.live.clone(), caller.local.clone());
    let address = called.live.endpoint().addr();
    let dialled = caller
        .runtime
        .spawn(async move { Call::dial(&live, address, local).await });
    let joined = |runtime: &Runtime, call: JoinHandle<Result<Call, CallError>>| {
        let call = runtime.block_on(call);
        call.expect("it does not panic")
            .expect("they are connected")
    };
    let calling = joined(&caller.runtime, dialled);
    let answering = joined(&called.runtime, answered);
    caller.watch(&calling);
    called.watch(&answering);

    wait("all that was asked for", &parties, |rate| rate == ASKED);
    let thin = Conditions {
        rate: Some(THIN),
        ..Conditions::delayed(DELAY).losing(0.02)
    };
    link.set(&thin);
    // Neither more than the link carries, nor so little that nothing can be seen.
    let carried = u64::from(THIN);
    wait("moving over a thin link", &parties, |rate| rate < carried);
    wait("most of what it carries", &parties, |rate| {
        (carried / 3..carried).contains(&rate)
    });
    link.set(&Conditions::delayed(DELAY));
    wait("all of it again", &parties, |rate| rate == ASKED);

    calling.close();
    let reason = called
        .runtime
        .block_on(async { timeout(LIMIT, answering.closed()).await });
    assert_eq!(reason.ok(), Some(DisconnectReason::RemoteClose));
    for party in parties {
        party.runtime.shutdown_background();
    }
}
