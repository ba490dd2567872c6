//! One rendition: when it is encoded, by which encoder, and what happens when that fails.

use std::{sync::Arc, time::Duration};

use super::{
    pipeline::{Encoder, Job},
    track::RenditionTrack,
};
use crate::media::ladder::gate::{Gate, Pacer, Situation, Step};

/// An encoder that made so many frames before it failed may be started again; one that did not is no good.
const SOUND: u64 = 100;

#[derive(Debug)]
pub(in crate::media) struct Rendition {
    pub job: Job,
    pub track: Arc<RenditionTrack>,
    candidates: Vec<gst::ElementFactory>,
    /// Of the candidates, the one in use.
    at: usize,
    encoder: Option<Encoder>,
    gate: Gate,
    pacer: Option<Pacer>,
    enabled: bool,
    /// What the encoder was told last, bits a second.
    bitrate: u64,
    dead: bool,
}

impl Rendition {
    pub fn new(job: Job, track: Arc<RenditionTrack>, candidates: Vec<gst::ElementFactory>) -> Self {
        Self {
            pacer: pacer(&job),
            bitrate: job.bitrate,
            job,
            track,
            candidates,
            at: 0,
            encoder: None,
            gate: Gate::default(),
            enabled: true,
            dead: false,
        }
    }

    /// Another source, or another picture of the same: the track goes on.
    pub fn change(&mut self, job: Job) {
        self.gate = Gate::default();
        self.track.set_discontinuity();
        if self.job != job {
            self.pacer = pacer(&job);
            self.bitrate = job.bitrate;
            self.encoder = None;
            self.job = job;
        }
    }

    /// Other encoders from now on.
    pub fn set_candidates(&mut self, candidates: Vec<gst::ElementFactory>) {
        if self.candidates != candidates {
            self.candidates = candidates;
            self.at = 0;
            self.encoder = None;
            self.gate = Gate::default();
        }
        self.dead = false;
    }

    /// Whether frames are sent at all.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        self.track.set_open(enabled);
    }

    /// Whether somebody watches it, so that it takes part of the bit rate.
    pub fn is_wanted(&self) -> bool {
        !self.dead && self.enabled && self.track.is_watched()
    }

    pub fn set_bitrate(&mut self, bitrate: u64) {
        if self.bitrate != bitrate {
            self.bitrate = bitrate;
            if let Some(encoder) = &self.encoder {
                encoder.set_bitrate(bitrate);
            }
        }
    }

    pub fn bitrate(&self) -> u64 {
        self.bitrate
    }

    /// The element that encodes, if one does.
    pub fn encoder(&self) -> Option<String> {
        self.encoder.as_ref().map(Encoder::name)
    }

    /// Takes a captured frame.
    ///
    /// # Errors
    /// Once, when no encoder is left: what the last one said.
    pub fn frame(
        &mut self,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        time: Duration,
    ) -> Result<(), String> {
        if self.dead {
            return Ok(());
        }
        if self.pacer.as_mut().is_some_and(|pacer| !pacer.keeps(time)) {
            return Ok(());
        }
        let mut last = String::new();
        if let Some(encoder) = &self.encoder
            && let Some(failure) = encoder.failure()
        {
            tracing::warn!(
                track = self.track.name(),
                encoder = encoder.name(),
                failure,
                "the encoder failed"
            );
            if encoder.produced() < SOUND {
                self.at += 1;
            }
            last = failure;
            self.encoder = None;
            self.gate = Gate::default();
            self.track.set_discontinuity();
        }
        let step = self.gate.step(
            time,
            Situation {
                described: self.track.is_described(),
                wanted: self.enabled && self.track.is_watched(),
                group: self.track.group(),
                viewers: self.track.viewer_changes(),
            },
        );
        match step {
            Step::Skip => Ok(()),
            Step::Pause => {
                self.track.pause(time);
                Ok(())
            }
            Step::Encode { keyframe } => match self.running(time, last) {
                Ok(encoder) => {
                    encoder.push(caps, buffer, time, keyframe);
                    Ok(())
                }
                Err(error) => {
                    self.dead = true;
                    self.track.withdraw();
                    Err(error)
                }
            },
        }
    }

    /// The encoder, which is started where it is not there; the next one where it does not start.
    fn running(&mut self, zero: Duration, mut last: String) -> Result<&mut Encoder, String> {
        while self.encoder.is_none() {
            let Some(factory) = self.candidates.get(self.at) else {
                return Err(last);
            };
            let job = Job {
                bitrate: self.bitrate,
                ..self.job.clone()
            };
            match Encoder::start(factory, &job, zero, &self.track) {
                Ok(encoder) => self.encoder = Some(encoder),
                Err(error) => {
                    tracing::info!(
                        encoder = %gst::prelude::GstObjectExt::name(factory),
                        error,
                        "the encoder does not start; the next one is tried"
                    );
                    last = error;
                    self.at += 1;
                }
            }
        }
        self.encoder.as_mut().ok_or(last)
    }

    /// The source came to its end.
    pub fn end(&mut self) {
        match &self.encoder {
            Some(encoder) => encoder.end(),
            None => self.track.finish(),
        }
    }
}

fn pacer(job: &Job) -> Option<Pacer> {
    let rate = job.framerate?;
    let rate = (rate.numer() + rate.denom() - 1) / rate.denom().max(1);
    Some(Pacer::new(u32::try_from(rate).unwrap_or(30)))
}
