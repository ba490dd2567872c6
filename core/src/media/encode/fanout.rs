//! What one source of a broadcast becomes: from captured frames to renditions.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    closing::Closing,
    rendition::{Rendition, RenditionSnapshot},
    status::{
        CapturedFrame, Preview, PublishMediaError, RenditionInfo, SetSourceError, SourceStatus,
    },
    track::RenditionTrack,
};
use crate::{
    broadcast::{LocalBroadcast, MediaKind, TrackReservation},
    media::{
        caps::Codec,
        capture::{CaptureTime, FrameSink, RunningSource, SourceError, SourceKind, Tap},
        encoder::EncoderRequest,
        ladder::{gate::share, plan::Ladder},
    },
};

/// How long it is waited for the last frames of encoders, and for their devices to close. One that hangs is left to itself.
const CLOSING_ENCODERS: Duration = Duration::from_secs(2);

/// How long it is waited for a source to close, as the next one may be of the same device.
const CLOSING_SOURCE: Duration = Duration::from_secs(10);

/// Takes what a source captures, and has it encoded once for each rendition.
///
/// Three locks, taken in this order: `switch` while the source is changed, which may take as long as a device needs; `state`
/// while a frame is handed to the encoders, never while a device is opened or closed; `snapshots` for a moment. The threads
/// that capture want the last two, and who only looks wants the last.
#[derive(Debug)]
pub(in crate::media) struct Fanout {
    kind: MediaKind,
    broadcast: LocalBroadcast,
    state: Mutex<State>,
    /// Held while the source is changed, so that one change is done before the next.
    switch: Mutex<()>,
    snapshots: Mutex<Vec<RenditionSnapshot>>,
    /// Whether the source is switched on.
    enabled: Arc<AtomicBool>,
    /// What all renditions may take together, bits a second.
    limit: Mutex<Option<u64>>,
    status: watch::Sender<SourceStatus>,
    preview: watch::Sender<Option<CapturedFrame>>,
}

#[derive(Debug)]
struct State {
    /// Counts sources; what comes from an earlier one is not taken.
    generation: u64,
    source: Option<RunningSource>,
    /// A source that is being closed.
    closing: Option<Closing>,
    phase: Phase,
    config: Option<FanoutConfig>,
    renditions: Vec<Rendition>,
    /// Places in the first catalog, until it is known what there is.
    reservations: Vec<TrackReservation>,
    /// The limit, and which renditions were watched, when the bit rate was shared out.
    shares: Option<(Option<u64>, Vec<bool>)>,
    /// When the last frame was captured, of whichever source.
    last: Option<Duration>,
}

/// How far the source is.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// None is set.
    Idle,
    /// It is being opened: nothing came yet.
    Starting,
    /// Frames come, of these caps.
    Running(gst::Caps),
    /// It came to its end.
    Ended,
    /// It failed. What it says after that is no news.
    Failed,
}

impl Phase {
    /// Whether frames are taken.
    fn is_open(&self) -> bool {
        matches!(self, Self::Starting | Self::Running(_))
    }
}

/// What the program asked for.
#[derive(Debug, Clone)]
pub(in crate::media) struct FanoutConfig {
    codec: Codec,
    candidates: Vec<gst::ElementFactory>,
    ladder: Ladder,
}

impl FanoutConfig {
    /// There have to be presets, each of which makes a track of its own, and an encoder.
    pub fn new(ladder: Ladder, encoder: &EncoderRequest) -> Result<Self, SetSourceError> {
        let mut names = ladder.names();
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
            ladder,
        })
    }
}

impl State {
    /// Closes the source, if there is one.
    fn close_source(&mut self) {
        if let Some(source) = self.source.take() {
            let before = self.closing.take();
            self.closing = Some(Closing::start("close-source", move || {
                source.stop();
                if let Some(before) = before {
                    before.join();
                }
            }));
        }
    }
}

/// Ends renditions, and waits for them and for the source, all at once, as long as that is worth it.
fn close(source: Option<Closing>, gone: Vec<Rendition>) {
    let begun = Instant::now();
    let gone: Vec<_> = gone.into_iter().map(Rendition::into_closing).collect();
    for (track, closing) in gone {
        if let Some(closing) = closing {
            closing.wait_until(begun + CLOSING_ENCODERS);
        }
        track.withdraw();
    }
    if let Some(source) = source {
        source.wait_until(begun + CLOSING_SOURCE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    pub fn new(kind: MediaKind, broadcast: LocalBroadcast) -> Arc<Self> {
        Arc::new(Self {
            kind,
            broadcast,
            state: Mutex::new(State {
                generation: 0,
                source: None,
                closing: None,
                phase: Phase::Idle,
                config: None,
                renditions: Vec::new(),
                reservations: Vec::new(),
                shares: None,
                last: None,
            }),
            switch: Mutex::default(),
            snapshots: Mutex::default(),
            enabled: Arc::new(AtomicBool::new(true)),
            limit: Mutex::default(),
            status: watch::Sender::new(SourceStatus::Idle),
            preview: watch::Sender::new(None),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn switch(&self) -> MutexGuard<'_, ()> {
        lock(&self.switch)
    }

    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    pub fn preview(&self) -> Preview {
        Preview {
            frames: self.preview.subscribe(),
        }
    }

    /// Takes another source, in place of the one that is there.
    pub fn set(
        self: &Arc<Self>,
        source: SourceKind,
        config: FanoutConfig,
    ) -> Result<(), SetSourceError> {
        let _switch = self.switch();
        let format = config.ladder.format();
        let (generation, closing, gone) = self.prepare(config);
        close(closing, gone);
        self.broadcast.resume();
        self.status.send_replace(SourceStatus::Starting);
        let sink: Arc<dyn FrameSink> = self.clone();
        let tap = Tap {
            kind: self.kind,
            generation,
            sink: Arc::downgrade(&sink),
        };
        match source.start(tap, format) {
            Ok(source) => {
                let mut state = self.state();
                state.source = Some(source);
                if !state.phase.is_open() {
                    // It ended or failed at once.
                    state.close_source();
                }
                Ok(())
            }
            Err(error) => {
                {
                    let mut state = self.state();
                    state.phase = Phase::Failed;
                    state.reservations.clear();
                }
                self.status
                    .send_replace(SourceStatus::Failed(PublishMediaError::Source(
                        error.clone(),
                    )));
                Err(SetSourceError::Source(error))
            }
        }
    }

    /// Makes room for another source. Gives its number, the source before it, which is being closed, and the renditions that it
    /// will not have.
    fn prepare(&self, config: FanoutConfig) -> (u64, Option<Closing>, Vec<Rendition>) {
        let names = config.ladder.names();
        let mut state = self.state();
        state.generation += 1;
        let goes_on = state.phase != Phase::Ended
            && state
                .config
                .as_ref()
                .is_some_and(|old| old.codec == config.codec);
        let same_encoders = state
            .config
            .as_ref()
            .is_some_and(|old| old.candidates == config.candidates);
        // One without an encoder has ended its track, and begins anew.
        let (mut kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut state.renditions)
            .into_iter()
            .partition(|rendition| {
                goes_on && !rendition.has_failed() && names.contains(&rendition.spec.name)
            });
        for rendition in &mut kept {
            if !same_encoders || rendition.is_stopped() {
                rendition.set_candidates(config.candidates.clone());
            }
        }
        state.reservations = names
            .iter()
            .filter(|name| !kept.iter().any(|kept| kept.spec.name == **name))
            .map(|_| self.broadcast.reserve_track())
            .collect();
        state.renditions = kept;
        state.config = Some(config);
        state.phase = Phase::Starting;
        state.shares = None;
        state.close_source();
        self.take_snapshots(&state);
        (state.generation, state.closing.take(), gone)
    }

    /// Takes another source for the same tracks.
    pub fn replace(self: &Arc<Self>, source: SourceKind) -> Result<(), SetSourceError> {
        let config = self.state().config.clone();
        self.set(source, config.ok_or(SetSourceError::NotSet)?)
    }

    /// Lets go of the source, and ends the tracks.
    pub fn stop(&self) {
        let _switch = self.switch();
        let (closing, gone) = {
            let mut state = self.state();
            state.generation += 1;
            state.phase = Phase::Idle;
            state.config = None;
            state.reservations.clear();
            state.close_source();
            let gone = std::mem::take(&mut state.renditions);
            self.take_snapshots(&state);
            (state.closing.take(), gone)
        };
        close(closing, gone);
        self.status.send_replace(SourceStatus::Idle);
    }

    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Release);
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    pub fn set_limit(&self, limit: Option<u64>) {
        *lock(&self.limit) = limit;
    }

    pub fn renditions(&self) -> Vec<RenditionInfo> {
        let snapshots = lock(&self.snapshots);
        snapshots.iter().map(RenditionSnapshot::info).collect()
    }

    fn take_snapshots(&self, state: &State) {
        let snapshots = state.renditions.iter().map(Rendition::snapshot);
        *lock(&self.snapshots) = snapshots.collect();
    }

    fn fail(&self, error: PublishMediaError) {
        self.status.send_replace(SourceStatus::Failed(error));
    }

    /// Makes the renditions what the source's caps want.
    fn configure(&self, state: &mut State, caps: &gst::Caps) {
        let Some(config) = state.config.clone() else {
            return;
        };
        let existing: Vec<_> = state
            .renditions
            .iter()
            .map(|rendition| rendition.spec.name.clone())
            .collect();
        let Ok(specs) = config.ladder.renditions(caps, &existing) else {
            let caps = caps.to_string();
            self.fail(PublishMediaError::Source(SourceError::NotRaw { caps }));
            return;
        };
        for spec in specs {
            let known = state
                .renditions
                .iter_mut()
                .find(|rendition| rendition.spec.name == spec.name);
            match known {
                Some(rendition) => rendition.change(spec),
                None => {
                    let track = RenditionTrack::new(
                        &self.broadcast,
                        state.reservations.pop(),
                        config.codec,
                        spec.name.clone(),
                        spec.bitrate,
                        self.sending(),
                    );
                    let rendition = Rendition::new(spec, track, config.candidates.clone());
                    state.renditions.push(rendition);
                }
            }
        }
        // Presets that the source has no pixels for hold up no catalog.
        state.reservations.clear();
        state.shares = None;
    }

    /// Whether frames are sent: sound that is switched off goes on as silence.
    fn sending(&self) -> Arc<AtomicBool> {
        match self.kind {
            MediaKind::Video => self.enabled.clone(),
            MediaKind::Audio => Arc::new(AtomicBool::new(true)),
        }
    }

    /// Gives each rendition its part of the bit rate, when there is another part to give.
    fn share_out(&self, state: &mut State) {
        let watched: Vec<_> = state.renditions.iter().map(Rendition::is_wanted).collect();
        let now = (*lock(&self.limit), watched);
        if state.shares.as_ref() == Some(&now) {
            return;
        }
        let wishes: Vec<_> = state
            .renditions
            .iter()
            .zip(&now.1)
            .filter(|(_, watched)| **watched)
            .map(|(rendition, _)| rendition.spec.bitrate)
            .collect();
        let mut parts = share(now.0, &wishes).into_iter();
        for (rendition, watched) in state.renditions.iter_mut().zip(&now.1) {
            if *watched && let Some(part) = parts.next() {
                rendition.set_bitrate(part);
            }
        }
        state.shares = Some(now);
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

    /// Has a frame encoded, and says what fails at that.
    fn encode(
        &self,
        state: &mut State,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        timestamp: Duration,
        moves: u32,
    ) {
        for rendition in &mut state.renditions {
            rendition.track.moves.store(moves, Ordering::Relaxed);
            rendition.frame(caps, buffer, timestamp);
        }
        self.take_snapshots(state);
        let problem = state.renditions.iter().find_map(Rendition::problem);
        self.status.send_if_modified(|status| {
            let next = match (&*status, problem) {
                (SourceStatus::Running, Some(problem)) => SourceStatus::Failed(problem),
                // An encoder can be had again.
                (SourceStatus::Failed(PublishMediaError::Encoder { .. }), None) => {
                    SourceStatus::Running
                }
                _ => return false,
            };
            *status = next;
            true
        });
    }
}

impl FrameSink for Fanout {
    fn frame(
        &self,
        generation: u64,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        time: CaptureTime,
    ) -> bool {
        let mut state = self.state();
        if state.generation != generation {
            return false;
        }
        if !state.phase.is_open() {
            return true;
        }
        let Some((timestamp, moves)) = self.broadcast.timestamp(time.captured, Some(time.now))
        else {
            return true;
        };
        if self.kind == MediaKind::Video && state.last.is_some_and(|last| timestamp <= last) {
            return true;
        }
        state.last = Some(timestamp);
        if state.phase == Phase::Starting {
            self.status.send_replace(SourceStatus::Running);
        }
        self.show(caps, buffer, timestamp);
        if !matches!(&state.phase, Phase::Running(known) if known == caps) {
            state.phase = Phase::Running(caps.clone());
            self.configure(&mut state, caps);
        }
        let silence = (self.kind == MediaKind::Audio && !self.is_enabled())
            .then(|| silent(caps, buffer))
            .flatten();
        let buffer = silence.as_ref().unwrap_or(buffer);
        self.share_out(&mut state);
        self.encode(&mut state, caps, buffer, timestamp, moves);
        true
    }

    fn ended(&self, generation: u64) {
        {
            let mut state = self.state();
            if state.generation != generation || !state.phase.is_open() {
                return;
            }
            state.phase = Phase::Ended;
            state.reservations.clear();
            for rendition in &mut state.renditions {
                rendition.end();
            }
            state.close_source();
            self.take_snapshots(&state);
        }
        self.status.send_replace(SourceStatus::Ended);
    }

    fn failed(&self, generation: u64, error: SourceError) {
        {
            let mut state = self.state();
            // What follows from the first failure, or from the end, is no news.
            if state.generation != generation || !state.phase.is_open() {
                return;
            }
            state.phase = Phase::Failed;
            state.reservations.clear();
            let last = state.last;
            for rendition in &mut state.renditions {
                rendition.close();
                if let Some(last) = last {
                    rendition.track.pause(last);
                }
            }
            state.close_source();
            self.take_snapshots(&state);
        }
        tracing::warn!(%error, "the source failed");
        self.fail(PublishMediaError::Source(error));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_looks_or_sets_the_bit_rate_does_not_wait_for_encoders() {
        let fanout = Fanout::new(MediaKind::Video, LocalBroadcast::new());
        let _at_work = fanout.state();
        let (answers, answered) = mpsc::channel();
        let other = fanout.clone();
        std::thread::spawn(move || {
            other.set_limit(Some(100_000));
            other.set_enabled(false);
            let _ = answers.send((other.is_enabled(), other.renditions().len()));
        });
        let answer = answered.recv_timeout(Duration::from_secs(60));
        assert_eq!(answer, Ok((false, 0)));
    }
}
