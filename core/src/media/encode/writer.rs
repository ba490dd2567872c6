//! What comes out of an encoder, on its way into a track.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use moq_lite::track::Demand;

use crate::{
    broadcast::{
        EncodedFrame, LocalBroadcast, LocalTrack, PublishTrackError, TrackConfig, TrackReservation,
        WriteError,
    },
    media::caps::{self, Codec},
};

/// The track of a rendition, which comes into being with the first frame, and outlives encoders and sources.
pub(in crate::media) struct Output {
    codec: Codec,
    name: String,
    /// What the catalog says, bits a second.
    bitrate: u64,
    broadcast: LocalBroadcast,
    /// Known when the track is.
    demand: OnceLock<Demand>,
    /// Whether frames may be sent; not so while the source is switched off.
    open: AtomicBool,
    /// Whether the next frame continues the one before.
    broken: AtomicBool,
    /// Which encoder may write, of those that there were.
    encoder: AtomicU64,
    /// How often the timeline was moved.
    pub moves: AtomicU32,
    /// Frames that came out of encoders.
    pub encoded: AtomicU64,
    /// Frames that went into the track.
    pub sent: AtomicU64,
    /// Bytes that went into the track.
    pub bytes: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reservation: Option<TrackReservation>,
    track: Option<LocalTrack>,
    /// The caps that the track was described by.
    caps: Option<gst::Caps>,
    config: Option<TrackConfig>,
    /// When the last key frame that was sent was captured.
    group: Option<Duration>,
    /// The count of moves at the last frame.
    moves: u32,
    ended: bool,
    failure: Option<Arc<PublishTrackError>>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Output {
    pub fn new(
        broadcast: &LocalBroadcast,
        reservation: Option<TrackReservation>,
        codec: Codec,
        name: String,
        bitrate: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            codec,
            name,
            bitrate,
            broadcast: broadcast.clone(),
            demand: OnceLock::new(),
            open: AtomicBool::new(true),
            broken: AtomicBool::new(false),
            encoder: AtomicU64::new(0),
            moves: AtomicU32::new(0),
            encoded: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            state: Mutex::new(State {
                reservation,
                ..State::default()
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether viewers can find the track.
    pub fn is_described(&self) -> bool {
        self.demand.get().is_some()
    }

    pub fn is_watched(&self) -> bool {
        self.demand.get().is_some_and(Demand::is_used)
    }

    /// Another encoder writes from now on. Returns its number; what earlier ones still have is not taken.
    pub fn next_encoder(&self) -> u64 {
        // Under the lock, so that none of them is writing.
        let _state = self.state();
        self.encoder.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// When the key frame was captured that viewers begin with.
    pub fn group(&self) -> Option<Duration> {
        self.state().group
    }

    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Release);
    }

    /// Says that the next frame does not continue the one before.
    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// What the catalog says.
    pub fn config(&self) -> Option<TrackConfig> {
        self.state().config.clone()
    }

    /// Why the track could not be published.
    pub fn failure(&self) -> Option<Arc<PublishTrackError>> {
        self.state().failure.clone()
    }

    /// Says that nothing comes for now.
    pub fn pause(&self, at: Duration) {
        let mut state = self.state();
        state.group = None;
        if let Some(track) = &mut state.track
            && let Err(error) = track.pause(at)
        {
            tracing::debug!(track = self.name, %error, "pause");
        }
    }

    /// Ends the track: viewers learn that it was meant to end.
    pub fn finish(&self) {
        let mut state = self.state();
        state.reservation = None;
        state.ended = true;
        if let Some(track) = &mut state.track
            && let Err(error) = track.finish()
        {
            tracing::debug!(track = self.name, %error, "end");
        }
    }

    /// Takes the track out of the catalog.
    pub fn withdraw(&self) {
        self.finish();
        self.state().track = None;
    }

    /// Takes a frame that the encoder of that number made. `timestamp` says when it was captured.
    pub fn write(
        &self,
        encoder: u64,
        frame_caps: &gst::Caps,
        buffer: gst::Buffer,
        timestamp: Duration,
    ) {
        if caps::is_header(self.codec, &buffer) || buffer.size() == 0 {
            return;
        }
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let keyframe =
            !self.codec.is_video() || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let Some(payload) = caps::payload(buffer) else {
            return;
        };
        let mut state = self.state();
        let state = &mut *state;
        if state.ended || state.failure.is_some() || self.encoder.load(Ordering::Relaxed) != encoder
        {
            return;
        }
        if state.caps.as_ref() != Some(frame_caps) {
            // What the frame is becomes known with a key frame only.
            if !keyframe || !self.describe(state, frame_caps, &payload) {
                return;
            }
        }
        let Some(track) = &mut state.track else {
            return;
        };
        if !self.open.load(Ordering::Acquire) || !track.is_watched() {
            return;
        }
        let size = payload.len() as u64;
        let moves = self.moves.load(Ordering::Relaxed);
        let mut frame = EncodedFrame::new(timestamp, payload, keyframe);
        frame.discontinuity = std::mem::replace(&mut state.moves, moves) != moves
            || (keyframe && self.broken.swap(false, Ordering::AcqRel));
        match track.write(frame) {
            Ok(()) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
                if keyframe {
                    state.group = Some(timestamp);
                }
            }
            Err(error) => {
                if track.needs_keyframe() {
                    state.group = None;
                }
                if matches!(error, WriteError::Ended) {
                    state.ended = true;
                }
                tracing::debug!(track = self.name, %error, "a frame was dropped");
            }
        }
    }

    /// Describes the track, publishing it where that was not done yet. Returns whether it is described.
    fn describe(&self, state: &mut State, frame_caps: &gst::Caps, payload: &[u8]) -> bool {
        let mut config = match self.codec.describe(frame_caps, payload) {
            Ok(config) => config,
            Err(reason) => {
                tracing::debug!(track = self.name, reason, "not described yet");
                return false;
            }
        };
        match &mut config {
            TrackConfig::Video(config) => config.bitrate = Some(self.bitrate),
            TrackConfig::Audio(config) => config.bitrate = Some(self.bitrate),
        }
        let described = match (&mut state.track, state.reservation.take()) {
            (Some(track), _) => track.set_config(config.clone()),
            (None, Some(place)) => place
                .publish(self.name.as_str(), config.clone())
                .map(|track| state.track = Some(track)),
            (None, None) => self
                .broadcast
                .publish_track(self.name.as_str(), config.clone())
                .map(|track| state.track = Some(track)),
        };
        match described {
            Ok(()) => {
                state.caps = Some(frame_caps.clone());
                state.config = Some(config);
                if let Some(track) = &state.track {
                    let _ = self.demand.set(track.demand());
                }
                true
            }
            Err(error) => {
                state.failure = Some(Arc::new(error));
                false
            }
        }
    }
}
