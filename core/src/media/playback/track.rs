//! One track that plays: reads, decodes, and mends what breaks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

use super::{
    PlaybackError,
    branch::{Branch, Failure, Output, Plan, Progress, set_volume},
    decode::{Attempts, package},
    player::{Part, Player, Report},
    shown::Shown,
    source::{Source, same_codec},
};
use crate::{
    adaptive::{AdaptiveControl, AdaptiveError, MediaKind, Quality, Rendition},
    media::receive::feed::FeedEnd,
    retry::Backoff,
};

/// How often a decoder is looked at.
const TICK: Duration = Duration::from_millis(500);

/// What is still in the pipeline at the end may take this much longer than the latency.
const DRAIN: Duration = Duration::from_secs(5);

/// Before a decoder that gave nothing is made anew.
const PAUSE: Duration = Duration::from_millis(100);

/// How many times an audio device is tried that was never there.
const DEVICE_TRIES: u32 = 5;

/// What the program sets, and what it sees, of a track.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kind: MediaKind,
    state: Mutex<State>,
    /// Given once, when the program wants the track.
    pub(super) wanted: Notify,
}

#[derive(Debug)]
struct State {
    quality: Quality,
    control: Option<AdaptiveControl>,
    shown: Shown,
    volume: (f64, bool),
    element: Option<gst::Element>,
    decoder: Option<String>,
    failures: u64,
}

impl Shared {
    pub(super) fn new(kind: MediaKind, quality: Quality) -> Self {
        Self {
            kind,
            state: Mutex::new(State {
                quality,
                control: None,
                shown: Shown::default(),
                volume: (1.0, false),
                element: None,
                decoder: None,
                failures: 0,
            }),
            wanted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn quality(&self) -> Quality {
        self.state().quality.clone()
    }

    pub(super) fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        let mut state = self.state();
        if let Some(control) = &state.control {
            control.set_quality(quality.clone())?;
        }
        state.quality = quality;
        Ok(())
    }

    pub(super) fn volume(&self) -> (f64, bool) {
        self.state().volume
    }

    pub(super) fn set_volume(&self, change: impl FnOnce(&mut (f64, bool))) {
        let mut state = self.state();
        change(&mut state.volume);
        if let Some(element) = &state.element {
            set_volume(element, state.volume);
        }
    }

    pub(super) fn rendition(&self) -> Option<Arc<Rendition>> {
        self.state().shown.rendition()
    }

    /// From a frame that was captured then on, this rendition is read.
    pub(super) fn begins(&self, captured: Option<SystemTime>, rendition: Arc<Rendition>) {
        self.state().shown.begins(captured, rendition);
    }

    /// The program gets a frame that was captured then.
    pub(super) fn handed_out(&self, captured: Option<SystemTime>) {
        self.state().shown.handed_out(captured);
    }

    pub(super) fn decoder(&self) -> Option<String> {
        self.state().decoder.clone()
    }

    pub(super) fn failures(&self) -> u64 {
        self.state().failures
    }

    fn reads(&self, source: &Source) {
        self.state().control = Some(source.control());
    }

    fn plays(&self, branch: &Branch, decoder: &str) {
        let mut state = self.state();
        state.decoder = Some(decoder.to_owned());
        state.element = branch.volume();
        if let Some(element) = &state.element {
            // It may have been changed since the branch was planned.
            set_volume(element, state.volume);
        }
    }

    fn stops(&self) {
        let mut state = self.state();
        state.element = None;
        state.decoder = None;
    }
}

/// What happened to a branch.
enum Outcome {
    Finished,
    Lost(PlaybackError),
    Failed(Failure),
}

/// Plays until the publisher ends the track (`Ok`) or it cannot go on.
pub(super) async fn play(
    player: &Player,
    shared: &Arc<Shared>,
    output: Output,
) -> Result<(), PlaybackError> {
    let open = || Source::open(player, shared);
    let Some(mut source) = open().await? else {
        return Ok(());
    };
    shared.reads(&source);
    let mut decoding: Option<Decoding> = None;
    let mut device = Device::default();
    let mut retired = JoinSet::new();
    while let Some(caps) = source.stream().await? {
        let decoding = match &mut decoding {
            Some(decoding) if same_codec(&decoding.caps, &caps) => decoding,
            other => other.insert(Decoding::new(player, &caps)?),
        };
        let decoder = decoding.current();
        let plan = Plan {
            caps: caps.clone(),
            decoder: decoder.clone(),
            output: output.clone(),
            latency: player.latency(),
            volume: shared.volume(),
        };
        let (outcome, progress) = match player.branch(plan).await {
            Ok(mut branch) => {
                shared.plays(&branch, &decoder);
                let progress = branch.progress();
                let outcome = run(player, &mut branch, &mut source, &mut decoding.attempts).await;
                shared.stops();
                match outcome {
                    Outcome::Finished if source.switches() => {
                        // Shows what it has while the next one begins.
                        retired.spawn(drain(branch, player.config.latency));
                        continue;
                    }
                    Outcome::Finished => {
                        drain(branch, player.config.latency).await;
                        return Ok(());
                    }
                    outcome => {
                        dispose(branch).await;
                        (outcome, Some(progress))
                    }
                }
            }
            Err(failure) => (Outcome::Failed(failure), None),
        };
        let failure = match outcome {
            Outcome::Failed(failure) => failure,
            Outcome::Lost(error) => return Err(error),
            Outcome::Finished => return Ok(()),
        };
        tracing::info!(decoder, part = ?failure.part, reason = failure.reason, "a part of the playback failed");
        shared.state().failures += 1;
        let decoded = progress.as_ref().map_or(0, Progress::decoded);
        let fed = progress.as_ref().map_or(0, Progress::fed);
        match failure.part {
            Part::Decoder => {
                decoding.failed(decoded, failure.reason)?;
                tokio::time::sleep(PAUSE).await;
            }
            Part::Output => device.failed(decoded, failure.reason).await?,
        }
        if decoded == 0 && fed > 0 {
            // The key frame is gone. Opening the track again brings it again, which may be sooner than the next.
            let Some(again) = open().await? else {
                return Ok(());
            };
            source = again;
            shared.reads(&source);
        }
    }
    Ok(())
}

/// Feeds a branch until there is no more, or it fails.
async fn run(
    player: &Player,
    branch: &mut Branch,
    source: &mut Source,
    attempts: &mut Attempts,
) -> Outcome {
    let progress = branch.progress();
    let stuck = async {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            if attempts.progress(progress.fed(), progress.decoded(), player.now()) {
                break;
            }
        }
    };
    let (subscribed, zero) = (source.subscribed, source.zero);
    let (feed, reports) = branch.parts();
    let now = || player.running_time();
    let decoder = |reason: &str| {
        Outcome::Failed(Failure {
            part: Part::Decoder,
            reason: reason.to_owned(),
        })
    };
    tokio::select! {
        end = feed.run(source, subscribed, &player.timeline, zero, &now) => match end {
            FeedEnd::Finished => Outcome::Finished,
            FeedEnd::Lost(error) => Outcome::Lost(error),
            FeedEnd::Downstream => decoder("it takes no more"),
        },
        report = reports.recv() => match report {
            Some(Report::Failed(failure)) => Outcome::Failed(failure),
            Some(Report::Ended) | None => decoder("it ended by itself"),
        },
        () = stuck => decoder("it gives nothing"),
    }
}

/// Lets a branch play what it has, and takes it away.
async fn drain(mut branch: Branch, latency: Duration) {
    branch.end();
    let (_, reports) = branch.parts();
    // Whether it ends or fails: there is no more to come.
    let _ = tokio::time::timeout(latency + DRAIN, ended(reports)).await;
    dispose(branch).await;
}

async fn ended(reports: &mut mpsc::UnboundedReceiver<Report>) {
    let _ = reports.recv().await;
}

/// Stopping waits for threads.
async fn dispose(branch: Branch) {
    let _ = tokio::task::spawn_blocking(move || drop(branch)).await;
}

/// The decoders for a stream, and how they do.
struct Decoding {
    caps: gst::Caps,
    candidates: Vec<String>,
    attempts: Attempts,
}

impl Decoding {
    fn new(player: &Player, caps: &gst::Caps) -> Result<Self, PlaybackError> {
        let candidates = (player.candidates)(caps, player.config.hardware);
        if candidates.is_empty() {
            let (codec, package) = package(caps);
            return Err(PlaybackError::MissingDecoder { codec, package });
        }
        Ok(Self {
            caps: caps.clone(),
            attempts: Attempts::new(candidates.len()),
            candidates,
        })
    }

    fn current(&self) -> String {
        self.candidates
            .get(self.attempts.current())
            .cloned()
            .unwrap_or_default()
    }

    fn failed(&mut self, decoded: u64, reason: String) -> Result<(), PlaybackError> {
        if self.attempts.failed(decoded) {
            return Ok(());
        }
        let (codec, package) = package(&self.caps);
        Err(PlaybackError::Decoder {
            codec,
            package,
            tried: self.candidates.join(", "),
            reason,
        })
    }
}

/// How the audio device does.
#[derive(Default)]
struct Device {
    backoff: Backoff,
    tries: u32,
    worked: bool,
}

impl Device {
    /// Waits before the next try. One that was there before is waited for, as somebody may plug it in again.
    async fn failed(&mut self, decoded: u64, reason: String) -> Result<(), PlaybackError> {
        if decoded > 1 {
            self.worked = true;
            self.backoff.succeeded();
        }
        self.tries += 1;
        if !self.worked && self.tries >= DEVICE_TRIES {
            return Err(PlaybackError::Output(reason));
        }
        if self.tries == 1 {
            tracing::warn!(reason, "the audio device does not play; it is tried again");
        }
        tokio::time::sleep(self.backoff.next(rand::random())).await;
        Ok(())
    }
}
