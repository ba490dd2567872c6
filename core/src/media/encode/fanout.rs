//! What one source of a broadcast becomes: from captured frames to renditions.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::sync::watch;

use super::{rendition::Rendition, track::RenditionTrack};
use crate::{
    broadcast::{LocalBroadcast, MediaKind, TrackReservation},
    media::{
        caps::Codec,
        capture::{CaptureTime, Intake, Origin, Running, SourceError, Tap},
        encoder::Wanted,
        ladder::{gate::share, plan::Plan},
        publish::{CapturedFrame, PublishMediaError, RenditionInfo, SetSourceError, SourceStatus},
    },
};

#[derive(Debug)]
pub(in crate::media) struct Hub {
    kind: MediaKind,
    broadcast: LocalBroadcast,
    state: Mutex<State>,
    /// Held while the source is changed, so that one change is done before the next.
    switch: Mutex<()>,
    status: watch::Sender<SourceStatus>,
    preview: watch::Sender<Option<CapturedFrame>>,
}

#[derive(Debug)]
struct State {
    /// Counts sources; what comes from an earlier one is not taken.
    epoch: u64,
    running: Option<Running>,
    setting: Option<Setting>,
    renditions: Vec<Rendition>,
    /// Places in the first catalog, until it is known what there is.
    reservations: Vec<TrackReservation>,
    /// Of what is captured.
    caps: Option<gst::Caps>,
    started: bool,
    ended: bool,
    /// The source failed; what it says of its end after that means nothing.
    failed: bool,
    enabled: bool,
    limit: Option<u64>,
    /// Which renditions were watched when the bit rate was shared out.
    shared: Option<(Option<u64>, Vec<bool>)>,
    last: Option<Duration>,
}

/// What the program asked for.
#[derive(Debug, Clone)]
pub(in crate::media) struct Setting {
    pub codec: Codec,
    pub candidates: Vec<gst::ElementFactory>,
    pub plan: Plan,
}

impl Setting {
    /// There have to be presets, each of which makes a track of its own, and an encoder.
    pub fn new(plan: Plan, encoder: &Wanted) -> Result<Self, SetSourceError> {
        let mut names = plan.names();
        if names.is_empty() {
            return Err(SetSourceError::NoPreset);
        }
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SetSourceError::SamePreset(pair[0].clone()));
        }
        Ok(Self {
            codec: encoder.codec,
            candidates: encoder.candidates()?,
            plan,
        })
    }
}

impl Hub {
    pub fn new(kind: MediaKind, broadcast: LocalBroadcast) -> Arc<Self> {
        Arc::new(Self {
            kind,
            broadcast,
            state: Mutex::new(State {
                epoch: 0,
                running: None,
                setting: None,
                renditions: Vec::new(),
                reservations: Vec::new(),
                caps: None,
                started: false,
                ended: false,
                failed: false,
                enabled: true,
                limit: None,
                shared: None,
                last: None,
            }),
            switch: Mutex::default(),
            status: watch::Sender::new(SourceStatus::Idle),
            preview: watch::Sender::new(None),
        })
    }

    /// Never held while a source is started or stopped: the threads of the source want it too.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switch(&self) -> MutexGuard<'_, ()> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    pub fn preview(&self) -> watch::Receiver<Option<CapturedFrame>> {
        self.preview.subscribe()
    }

    /// Takes another source, in place of the one that is there.
    pub fn set(self: &Arc<Self>, origin: Origin, setting: Setting) -> Result<(), SetSourceError> {
        let _switch = self.switch();
        let names = setting.plan.names();
        let format = setting.plan.format();
        let (epoch, old, gone) = {
            let mut state = self.state();
            state.epoch += 1;
            let same = !state.ended
                && state
                    .setting
                    .as_ref()
                    .is_some_and(|old| old.codec == setting.codec);
            let (mut kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut state.renditions)
                .into_iter()
                .partition(|rendition| same && names.contains(&rendition.job.name));
            for rendition in &mut kept {
                rendition.set_candidates(setting.candidates.clone());
            }
            state.reservations = names
                .iter()
                .filter(|name| !kept.iter().any(|kept| kept.job.name == **name))
                .map(|_| self.broadcast.reserve_track())
                .collect();
            state.renditions = kept;
            state.setting = Some(setting);
            state.caps = None;
            state.started = false;
            state.ended = false;
            state.failed = false;
            state.shared = None;
            (state.epoch, state.running.take(), gone)
        };
        for rendition in &gone {
            rendition.track.withdraw();
        }
        drop(gone);
        if let Some(old) = old {
            old.stop();
        }
        self.broadcast.resume();
        self.status.send_replace(SourceStatus::Starting);
        let intake: Arc<dyn Intake> = self.clone();
        let tap = Tap {
            kind: self.kind,
            epoch,
            intake: Arc::downgrade(&intake),
        };
        match origin.start(tap, format) {
            Ok(running) => {
                self.state().running = Some(running);
                Ok(())
            }
            Err(error) => {
                self.state().reservations.clear();
                self.status
                    .send_replace(SourceStatus::Failed(PublishMediaError::Source(
                        error.clone(),
                    )));
                Err(SetSourceError::Source(error))
            }
        }
    }

    /// Takes another source for the same tracks.
    pub fn replace(self: &Arc<Self>, origin: Origin) -> Result<(), SetSourceError> {
        let setting = self.state().setting.clone();
        self.set(origin, setting.ok_or(SetSourceError::NotSet)?)
    }

    /// Lets go of the source, and ends the tracks.
    pub fn stop(&self) {
        let _switch = self.switch();
        let (old, gone) = {
            let mut state = self.state();
            state.epoch += 1;
            state.setting = None;
            state.reservations.clear();
            state.caps = None;
            (state.running.take(), std::mem::take(&mut state.renditions))
        };
        for rendition in &gone {
            rendition.track.withdraw();
        }
        if let Some(old) = old {
            old.stop();
        }
        self.status.send_replace(SourceStatus::Idle);
    }

    pub fn set_enabled(&self, enabled: bool) {
        let mut state = self.state();
        state.enabled = enabled;
        if self.kind == MediaKind::Video {
            for rendition in &mut state.renditions {
                rendition.set_enabled(enabled);
            }
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.state().enabled
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        self.state().limit = limit;
    }

    pub fn renditions(&self) -> Vec<RenditionInfo> {
        let state = self.state();
        state
            .renditions
            .iter()
            .map(|rendition| RenditionInfo {
                name: rendition.job.name.clone(),
                config: rendition.track.config(),
                encoder: rendition.encoder(),
                nominal: rendition.job.bitrate,
                bitrate: rendition.bitrate(),
                watched: rendition.track.is_watched(),
                frames_encoded: rendition.track.encoded.load(Ordering::Relaxed),
                frames_sent: rendition.track.sent.load(Ordering::Relaxed),
                bytes_sent: rendition.track.bytes.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// Makes the renditions what the source's caps want.
    fn configure(&self, state: &mut State, caps: &gst::Caps) {
        let Some(setting) = state.setting.clone() else {
            return;
        };
        let existing: Vec<_> = state
            .renditions
            .iter()
            .map(|rendition| rendition.job.name.clone())
            .collect();
        let jobs = match setting.plan.jobs(caps, &existing) {
            Ok(jobs) => jobs,
            Err(error) => {
                self.status
                    .send_replace(SourceStatus::Failed(PublishMediaError::Source(error)));
                return;
            }
        };
        for job in jobs {
            let known = state
                .renditions
                .iter_mut()
                .find(|rendition| rendition.job.name == job.name);
            match known {
                Some(rendition) => rendition.change(job),
                None => {
                    let track = RenditionTrack::new(
                        &self.broadcast,
                        state.reservations.pop(),
                        setting.codec,
                        job.name.clone(),
                        job.bitrate,
                    );
                    let mut rendition = Rendition::new(job, track, setting.candidates.clone());
                    rendition.set_enabled(state.enabled || self.kind == MediaKind::Audio);
                    state.renditions.push(rendition);
                }
            }
        }
        // Presets that the source has no pixels for hold up no catalog.
        state.reservations.clear();
        state.shared = None;
    }

    /// Gives each rendition its part of the bit rate, when there is another part to give.
    fn share_out(state: &mut State) {
        let watched: Vec<_> = state.renditions.iter().map(Rendition::is_wanted).collect();
        let now = (state.limit, watched);
        if state.shared.as_ref() == Some(&now) {
            return;
        }
        let wishes: Vec<_> = state
            .renditions
            .iter()
            .zip(&now.1)
            .filter(|(_, watched)| **watched)
            .map(|(rendition, _)| rendition.job.bitrate)
            .collect();
        let mut parts = share(now.0, &wishes).into_iter();
        for (rendition, watched) in state.renditions.iter_mut().zip(&now.1) {
            if *watched && let Some(part) = parts.next() {
                rendition.set_bitrate(part);
            }
        }
        state.shared = Some(now);
    }

    fn show(&self, caps: &gst::Caps, buffer: &gst::Buffer, timestamp: Duration) {
        if self.kind == MediaKind::Audio {
            return;
        }
        if self.preview.receiver_count() > 0 {
            self.preview.send_replace(Some(CapturedFrame {
                caps: caps.clone(),
                buffer: buffer.clone(),
                timestamp,
            }));
        } else if self.preview.borrow().is_some() {
            // The frame goes back to the camera.
            self.preview.send_replace(None);
        }
    }
}

impl Intake for Hub {
    fn frame(&self, epoch: u64, caps: &gst::Caps, buffer: &gst::Buffer, time: CaptureTime) -> bool {
        let mut state = self.state();
        if state.epoch != epoch {
            return false;
        }
        let Some((timestamp, moves)) = self.broadcast.timestamp(time.captured, Some(time.now))
        else {
            return true;
        };
        if self.kind == MediaKind::Video && state.last.is_some_and(|last| timestamp <= last) {
            return true;
        }
        state.last = Some(timestamp);
        if !std::mem::replace(&mut state.started, true) {
            self.status.send_replace(SourceStatus::Running);
        }
        self.show(caps, buffer, timestamp);
        if state.caps.as_ref() != Some(caps) {
            state.caps = Some(caps.clone());
            self.configure(&mut state, caps);
        }
        let silence = (self.kind == MediaKind::Audio && !state.enabled)
            .then(|| silent(caps, buffer))
            .flatten();
        let buffer = silence.as_ref().unwrap_or(buffer);
        Self::share_out(&mut state);
        for rendition in &mut state.renditions {
            rendition.track.moves.store(moves, Ordering::Relaxed);
            let failure = match rendition.frame(caps, buffer, timestamp) {
                Err(reason) => Some(PublishMediaError::Encoder {
                    rendition: rendition.job.name.clone(),
                    reason,
                }),
                Ok(()) => rendition
                    .track
                    .failure()
                    .map(|source| PublishMediaError::Track {
                        rendition: rendition.job.name.clone(),
                        source,
                    }),
            };
            if let Some(failure) = failure {
                // Said once: a track that cannot be published stays so.
                self.status.send_if_modified(|status| {
                    let known = matches!(status, SourceStatus::Failed(_));
                    if !known {
                        *status = SourceStatus::Failed(failure);
                    }
                    !known
                });
            }
        }
        true
    }

    fn ended(&self, epoch: u64) {
        {
            let mut state = self.state();
            if state.epoch != epoch || state.failed {
                return;
            }
            state.ended = true;
            state.reservations.clear();
            for rendition in &mut state.renditions {
                rendition.end();
            }
        }
        self.status.send_replace(SourceStatus::Ended);
    }

    fn failed(&self, epoch: u64, error: SourceError) {
        {
            let mut state = self.state();
            // What follows from the first failure is no news.
            if state.epoch != epoch || std::mem::replace(&mut state.failed, true) {
                return;
            }
            state.reservations.clear();
            if let Some(last) = state.last {
                for rendition in &state.renditions {
                    rendition.track.pause(last);
                }
            }
        }
        tracing::warn!(%error, "the source failed");
        self.status
            .send_replace(SourceStatus::Failed(PublishMediaError::Source(error)));
    }
}

/// As much silence as a buffer has sound.
fn silent(caps: &gst::Caps, buffer: &gst::Buffer) -> Option<gst::Buffer> {
    let info = gst_audio::AudioInfo::from_caps(caps).ok()?;
    let mut silence = gst::Buffer::with_size(buffer.size()).ok()?;
    {
        let silence = silence.get_mut()?;
        silence.set_duration(buffer.duration());
        let mut map = silence.map_writable().ok()?;
        info.format_info().fill_silence(&mut map);
    }
    Some(silence)
}
