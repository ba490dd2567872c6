//! One rendition: when it is encoded, by which encoder, and what happens when that fails.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    bitrate::BitrateSteps,
    candidates::Candidates,
    closing::Closing,
    opening::{OpenRequest, Opening},
    pipeline::{EncoderPipeline, RawFrame},
    status::{PublishMediaError, RenditionInfo},
    track::RenditionTrack,
    watchdog::Watchdog,
};
use crate::media::{
    encoder::RateChange,
    ladder::{
        gate::{Gate, GateInput, Pacer, Step},
        plan::RenditionSpec,
    },
};

/// An encoder that made so many frames before it failed may be started again; one that did not is no good.
const PROVEN_FRAMES: u64 = 100;

/// An encoder that nobody needed for so long is closed: devices have few sessions.
const IDLE: Duration = Duration::from_secs(10);

/// How long an encoder that was replaced may take to give its last frames.
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Rendition {
    pub spec: RenditionSpec,
    pub track: Arc<RenditionTrack>,
    candidates: Candidates<gst::ElementFactory>,
    active: Option<Active>,
    /// The next encoder, as long as it is not open.
    opening: Option<Opening>,
    /// The next encoder, open, beside an active one. It gets frames too, and takes over when something comes of them.
    next: Option<Active>,
    /// The encoder that was active before, and when it was given its last frame. It is open until its last frame is out.
    previous: Option<(Active, Duration)>,
    /// Encoders that are being closed.
    closing: Option<Closing>,
    /// Those that did not open in time, as long as they still do not.
    hanging: Vec<(gst::ElementFactory, Closing)>,
    gate: Gate,
    pacer: Option<Pacer>,
    /// What the encoder is to be told, bits a second.
    bitrate: u64,
    /// Since when nobody has needed the encoder.
    idle: Option<Duration>,
    /// What the last encoder that failed said.
    failure: String,
    /// No encoder can be had for now.
    stopped: bool,
    /// The source came to its end.
    ended: bool,
    /// Nothing comes of it any more, for this reason.
    failed: Option<PublishMediaError>,
}

/// An encoder that works.
#[derive(Debug)]
struct Active {
    candidate: usize,
    encoder: EncoderPipeline,
    watchdog: Watchdog,
    steps: BitrateSteps,
}

impl Active {
    fn push(&mut self, frame: RawFrame) {
        // Of sound, silence may well be nothing.
        let stuck =
            self.encoder.encodes_video() && self.watchdog.feed(self.encoder.produced(), frame.time);
        if stuck {
            self.encoder.fail("it takes pictures and gives none".into());
        }
        self.encoder.push(frame);
    }
}

impl Rendition {
    pub fn new(
        spec: RenditionSpec,
        track: Arc<RenditionTrack>,
        candidates: Vec<gst::ElementFactory>,
    ) -> Self {
        Self {
            pacer: pacer(&spec),
            bitrate: spec.bitrate,
            spec,
            track,
            candidates: Candidates::new(candidates),
            active: None,
            opening: None,
            next: None,
            previous: None,
            closing: None,
            hanging: Vec::new(),
            gate: Gate::default(),
            idle: None,
            failure: String::new(),
            stopped: false,
            ended: false,
            failed: None,
        }
    }

    /// Another source, or another picture of the same: the track goes on.
    pub fn change(&mut self, spec: RenditionSpec) {
        self.gate = Gate::default();
        self.track.set_discontinuity();
        if self.spec != spec {
            self.pacer = pacer(&spec);
            self.bitrate = spec.bitrate;
            self.spec = spec;
            self.close();
        }
    }

    /// Other encoders from now on.
    pub fn set_candidates(&mut self, candidates: Vec<gst::ElementFactory>) {
        self.candidates = Candidates::new(candidates);
        self.close();
        self.gate = Gate::default();
        self.stopped = false;
    }

    /// Whether nothing comes of it any more. Its track is over then.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some() || self.track.failure().is_some()
    }

    /// Whether no encoder can be had for now.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Why nothing comes of it, for now or any more.
    pub fn problem(&self) -> Option<PublishMediaError> {
        let stopped = || self.stopped.then(|| self.encoder_error());
        self.failed.clone().or_else(stopped)
    }

    fn encoder_error(&self) -> PublishMediaError {
        PublishMediaError::Encoder {
            rendition: self.spec.name.clone(),
            reason: self.failure.clone(),
        }
    }

    /// Whether somebody watches it, so that it takes part of the bit rate.
    pub fn is_wanted(&self) -> bool {
        !self.stopped && self.failed.is_none() && self.track.is_enabled() && self.track.is_watched()
    }

    pub fn set_bitrate(&mut self, bitrate: u64) {
        self.bitrate = bitrate;
    }

    /// As it stands.
    pub fn snapshot(&self) -> RenditionSnapshot {
        let active = self.active.as_ref();
        RenditionSnapshot {
            name: self.spec.name.clone(),
            track: self.track.clone(),
            encoder: active.map(|active| active.encoder.name()),
            nominal: self.spec.bitrate,
            bitrate: active.map_or(self.bitrate, |active| active.steps.applied()),
        }
    }

    /// Takes a captured frame.
    pub fn frame(&mut self, caps: &gst::Caps, buffer: &gst::Buffer, time: Duration) {
        if self.failed.is_some() {
            return;
        }
        if self.pacer.as_mut().is_some_and(|pacer| !pacer.keeps(time)) {
            return;
        }
        if let Some(source) = self.track.failure() {
            self.fail(PublishMediaError::Track {
                rendition: self.spec.name.clone(),
                source,
            });
            return;
        }
        self.take_opened(time);
        self.look_after(time);
        let can_encode =
            self.active.is_some() || self.opening.is_some() || self.best_candidate(time).is_some();
        if !can_encode {
            self.stopped = true;
            if !self.track.is_described() {
                // None has ever worked.
                self.fail(self.encoder_error());
                return;
            }
        }
        let step = self.gate.step(
            time,
            GateInput {
                described: self.track.is_described(),
                wanted: can_encode && self.track.is_enabled() && self.track.is_watched(),
                group: self.track.group(),
                viewers: self.track.viewers_joined(),
            },
        );
        match step {
            Step::Skip | Step::Pause => {
                if step == Step::Pause {
                    self.track.pause(time);
                }
                let since = *self.idle.get_or_insert(time);
                if time.saturating_sub(since) >= IDLE {
                    self.close();
                }
            }
            Step::Encode { keyframe } => {
                self.idle = None;
                self.encode(RawFrame {
                    caps: caps.clone(),
                    buffer: buffer.clone(),
                    time,
                    keyframe,
                });
            }
        }
    }

    /// Nothing comes of it any more.
    fn fail(&mut self, error: PublishMediaError) {
        self.failed = Some(error);
        self.close();
        self.track.withdraw();
    }

    fn encode(&mut self, frame: RawFrame) {
        let now = frame.time;
        if self.active.is_some() {
            if let Some(next) = &mut self.next {
                next.push(frame.clone());
            }
            if let Some(active) = &mut self.active {
                active.push(frame);
            }
            self.improve(now);
            return;
        }
        if self.opening.is_none() {
            let Some((candidate, factory)) = self.best_candidate(now) else {
                return;
            };
            let number = self.track.issue_number();
            self.track.begin_encoder(number);
            self.open(candidate, factory, now, number);
        }
        if let Some(opening) = &self.opening {
            opening.push(frame);
        }
    }

    /// Tells the encoder its bit rate, replaces it where it cannot be told, and opens a better one.
    fn improve(&mut self, now: Duration) {
        let Some(active) = &mut self.active else {
            return;
        };
        let change = active.encoder.rate_change();
        if change != RateChange::Rebuild
            && let Some(bitrate) = active.steps.step(change, self.bitrate, now)
        {
            active.encoder.set_bitrate(bitrate);
        }
        if self.opening.is_some() || self.next.is_some() || self.previous.is_some() {
            return;
        }
        let better = self
            .candidates
            .better_than(active.candidate, now, |factory| {
                is_hanging(&self.hanging, factory)
            });
        if let Some((candidate, factory)) = better {
            let number = self.track.issue_number();
            self.open(candidate, factory, now, number);
        } else if change == RateChange::Rebuild
            && active.steps.step(change, self.bitrate, now).is_some()
            && let Some(factory) = active.encoder.factory()
        {
            let candidate = active.candidate;
            let number = self.track.issue_number();
            self.open(candidate, factory, now, number);
        }
    }

    /// Begins to open an encoder, of that number among those of the track.
    fn open(
        &mut self,
        candidate: usize,
        factory: gst::ElementFactory,
        zero: Duration,
        number: u64,
    ) {
        let request = OpenRequest {
            factory,
            spec: RenditionSpec {
                bitrate: self.bitrate,
                ..self.spec.clone()
            },
            zero,
            track: self.track.clone(),
            number,
            after: self.closing.take(),
        };
        self.opening = Some(Opening::start(candidate, request));
    }

    /// Takes the encoder that was opened; the next one where it was not.
    fn take_opened(&mut self, now: Duration) {
        let Some(opening) = &self.opening else {
            return;
        };
        let result = opening.result();
        let hangs = result.is_none() && opening.hangs(now);
        if result.is_none() && !hangs {
            return;
        }
        let Some(opening) = self.opening.take() else {
            return;
        };
        let (candidate, bitrate) = (opening.candidate, opening.bitrate);
        let waiting = opening.take_waiting();
        let result = result.unwrap_or_else(|| {
            let factory = opening.factory.clone();
            let closing = Closing::start("close-encoder", move || opening.close());
            self.hanging.push((factory, closing));
            Err("it does not open".to_owned())
        });
        match result {
            Ok(encoder) => {
                let opened = Active {
                    candidate,
                    watchdog: Watchdog::new(encoder.encodes_video()),
                    encoder,
                    steps: BitrateSteps::new(bitrate, now),
                };
                if self.active.is_some() {
                    self.next = Some(opened);
                } else {
                    self.active = Some(opened);
                }
            }
            Err(error) => {
                tracing::info!(
                    track = self.track.name(),
                    candidate,
                    error,
                    "the encoder does not start; the next one is tried"
                );
                self.failure = error;
                self.candidates.failed(candidate, now);
                for frame in waiting {
                    self.encode(frame);
                }
            }
        }
    }

    /// Looks whether the encoder still works, and whether the next one does.
    fn look_after(&mut self, now: Duration) {
        if let Some(next) = self.next.take() {
            if let Some(failure) = next.encoder.failure() {
                tracing::info!(track = self.track.name(), failure, "no better encoder");
                self.candidates.failed(next.candidate, now);
                self.close_encoder(Some(next), None);
            } else if next.encoder.produced() > 0 {
                // Its key frame is that which the gate asks for now; the one before has got all frames until here.
                self.track.hand_over(next.encoder.number(), now);
                self.gate = Gate::default();
                if let Some(previous) = self.active.replace(next) {
                    previous.encoder.end();
                    self.previous = Some((previous, now));
                }
            } else {
                self.next = Some(next);
            }
        }
        let drained = |(_, since): &mut (Active, Duration)| {
            !self.track.awaits_encoder() || now.saturating_sub(*since) >= DRAIN
        };
        if let Some((previous, _)) = self.previous.take_if(drained) {
            self.close_encoder(Some(previous), None);
        }
        let Some(active) = &mut self.active else {
            return;
        };
        let produced = active.encoder.produced();
        if produced > 0 {
            self.stopped = false;
        }
        if let Some(failure) = active.encoder.failure() {
            tracing::warn!(
                track = self.track.name(),
                encoder = active.encoder.name(),
                failure,
                "the encoder failed"
            );
            if produced < PROVEN_FRAMES {
                self.candidates.failed(active.candidate, now);
            }
            self.failure = failure;
            self.close();
            self.gate = Gate::default();
            self.track.set_discontinuity();
        } else if produced >= PROVEN_FRAMES {
            self.candidates.worked(active.candidate);
        }
    }

    /// Closes all encoders.
    pub fn close(&mut self) {
        let (active, opening) = (self.active.take(), self.opening.take());
        self.close_others();
        self.close_encoder(active, opening);
    }

    /// Closes the encoder that was active before, and the one that would have been next.
    fn close_others(&mut self) {
        let previous = self.previous.take().map(|(previous, _)| previous);
        for encoder in [previous, self.next.take()] {
            self.close_encoder(encoder, None);
        }
    }

    /// Closes an encoder, and one that is being opened.
    fn close_encoder(&mut self, active: Option<Active>, opening: Option<Opening>) {
        if opening.is_none() && active.is_none() {
            return;
        }
        self.close_by(move || {
            if let Some(active) = active {
                active.encoder.stop();
            }
            if let Some(opening) = opening {
                opening.close();
            }
        });
    }

    fn close_by(&mut self, close: impl FnOnce() + Send + 'static) {
        let before = self.closing.take();
        self.closing = Some(Closing::start("close-encoder", move || {
            close();
            if let Some(before) = before {
                before.join();
            }
        }));
    }

    /// The source came to its end: the track ends when the encoder has given its last frames, and the encoder is closed.
    pub fn end(&mut self) {
        self.close_others();
        let track = self.track.clone();
        match (self.active.take(), self.opening.take()) {
            (Some(active), _) => self.close_by(move || active.encoder.finish(&track)),
            (None, Some(opening)) => self.close_by(move || opening.finish(&track)),
            // The thread that closes the encoder sees to it.
            (None, None) if self.ended => {}
            (None, None) => track.finish(),
        }
        self.ended = true;
    }

    /// Ends it for good. Gives its track, to be withdrawn when the encoders are closed.
    pub fn into_closing(mut self) -> (Arc<RenditionTrack>, Option<Closing>) {
        self.end();
        (self.track, self.closing)
    }

    /// The best encoder that may be tried now, and its place.
    fn best_candidate(&mut self, now: Duration) -> Option<(usize, gst::ElementFactory)> {
        self.hanging.retain(|(_, closing)| !closing.is_done());
        self.candidates
            .best(now, |factory| is_hanging(&self.hanging, factory))
    }
}

/// What is known of a rendition, for those who only look: a slow encoder holds up none of them.
#[derive(Debug)]
pub(super) struct RenditionSnapshot {
    name: String,
    track: Arc<RenditionTrack>,
    encoder: Option<String>,
    nominal: u64,
    bitrate: u64,
}

impl RenditionSnapshot {
    pub fn info(&self) -> RenditionInfo {
        let track = &self.track;
        RenditionInfo {
            name: self.name.clone(),
            catalog_name: track.catalog_name(),
            config: track.config(),
            encoder: self.encoder.clone(),
            nominal: self.nominal,
            bitrate: self.bitrate,
            watched: track.is_watched(),
            frames_encoded: track.encoded.load(Ordering::Relaxed),
            frames_sent: track.sent.load(Ordering::Relaxed),
            bytes_sent: track.bytes.load(Ordering::Relaxed),
        }
    }
}

fn is_hanging(hanging: &[(gst::ElementFactory, Closing)], factory: &gst::ElementFactory) -> bool {
    let mut hanging = hanging.iter();
    hanging.any(|(element, closing)| element == factory && !closing.is_done())
}

fn pacer(spec: &RenditionSpec) -> Option<Pacer> {
    spec.framerate.map(|_| Pacer::new(spec.frames_a_second()))
}
