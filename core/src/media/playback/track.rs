//! One track that plays: reads, decodes, and mends what breaks.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

use super::{
    branch::{Branch, Output, Plan, Progress},
    control::TrackControl,
    decode::{Attempts, package},
    error::PlaybackError,
    player::Player,
    reports::{Failure, Part, Report},
};
use crate::{
    media::{
        caps::same_codec,
        receive::{RenditionConfig, RenditionError, RenditionReader, feed::FeedEnd},
    },
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

/// What happened to a branch.
enum Outcome {
    Finished,
    Lost(PlaybackError),
    Failed(Failure),
}

/// Plays until the publisher ends the track (`Ok`) or it cannot go on.
pub(super) async fn play(
    player: &Player,
    control: &TrackControl,
    output: Output,
) -> Result<(), PlaybackError> {
    let mut retired = JoinSet::new();
    let result = follow(player, control, output, &mut retired).await;
    // To the end they show what they have.
    while retired.join_next().await.is_some() {}
    result
}

/// Plays in one branch after another. Those in `retired` have only to show what they have.
async fn follow(
    player: &Player,
    control: &TrackControl,
    output: Output,
    retired: &mut JoinSet<()>,
) -> Result<(), PlaybackError> {
    let open = || open(player, control);
    let Some(mut reader) = open().await? else {
        return Ok(());
    };
    control.reads(&reader).map_err(PlaybackError::Source)?;
    let mut decoding: Option<Decoding> = None;
    let mut device = Device::default();
    while let Some(caps) = reader.stream().await? {
        let decoding = match &mut decoding {
            Some(decoding) if same_codec(&decoding.caps, &caps) => decoding,
            other => other.insert(Decoding::new(player, &caps).await?),
        };
        let decoder = decoding.current();
        let plan = Plan {
            caps: caps.clone(),
            decoder: decoder.clone(),
            output: output.clone(),
            latency: player.latency(),
            volume: control.volume(),
        };
        let (outcome, progress) = match player.branch(plan).await {
            Ok(mut branch) => {
                control.plays(&branch, &decoder);
                decoding.attempts.begin();
                let progress = branch.progress();
                let outcome = run(player, &mut branch, &mut reader, &mut decoding.attempts).await;
                control.stops();
                match outcome {
                    Outcome::Finished if reader.switches() => {
                        // Shows what it has while the next one begins.
                        while retired.try_join_next().is_some() {}
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
        control.failed();
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
            reader = again;
            control.reads(&reader).map_err(PlaybackError::Source)?;
        }
    }
    Ok(())
}

/// Begins to read the track; `None` if the broadcast ends without it.
async fn open(
    player: &Player,
    control: &TrackControl,
) -> Result<Option<RenditionReader>, RenditionError> {
    let config = RenditionConfig {
        kind: control.kind,
        quality: control.quality(),
        latency: player.config.latency,
        candidates: player.candidates,
        hardware: player.config.hardware,
    };
    RenditionReader::open(&player.broadcast, config, control.history.clone()).await
}

/// Feeds a branch until there is no more, or it fails.
async fn run(
    player: &Player,
    branch: &mut Branch,
    reader: &mut RenditionReader,
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
    let epoch = reader.epoch();
    let (feed, reports) = branch.parts();
    let now = || player.running_time();
    let decoder = |reason: &str| {
        Outcome::Failed(Failure {
            part: Part::Decoder,
            reason: reason.to_owned(),
        })
    };
    tokio::select! {
        end = feed.run(reader, &player.clock, epoch, &now) => match end {
            FeedEnd::Finished => Outcome::Finished,
            FeedEnd::Lost(error) => Outcome::Lost(error.into()),
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
    let _ = tokio::task::spawn_blocking(move || branch.stop()).await;
}

/// The decoders for a stream, and how they do.
struct Decoding {
    caps: gst::Caps,
    candidates: Vec<String>,
    attempts: Attempts,
}

impl Decoding {
    async fn new(player: &Player, caps: &gst::Caps) -> Result<Self, PlaybackError> {
        let (candidates, hardware) = (player.candidates, player.config.hardware);
        let of = caps.clone();
        // Looking at a decoder may load the library that it is in.
        let found = tokio::task::spawn_blocking(move || candidates(&of, hardware));
        let candidates = match found.await.map_err(JoinError::try_into_panic) {
            Ok(candidates) => candidates,
            Err(Ok(panic)) => return Err(PlaybackError::of_panic(panic)),
            // The runtime is about to end.
            Err(Err(_)) => Vec::new(),
        };
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
