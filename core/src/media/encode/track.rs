//! The track of a rendition: what its encoders make, for those who watch.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use moq_lite::track::Demand;

use super::{
    switch::EncoderSwitch,
    writer::{TrackWriter, TrackWriterError},
};
use crate::{
    broadcast::{LocalBroadcast, LocalTrack, TrackConfig, TrackReservation, WriteError},
    media::caps::Codec,
};

/// The track of a rendition, which comes into being with the first frame, and outlives encoders and sources.
pub(in crate::media) struct RenditionTrack {
    codec: Codec,
    name: String,
    /// Known when the track is.
    demand: OnceLock<Demand>,
    /// Whether frames may be sent; not so while the source is switched off.
    enabled: Arc<AtomicBool>,
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

#[derive(Debug)]
struct State {
    writer: TrackWriter,
    /// Which encoder may write, of those that there were.
    switch: EncoderSwitch,
    /// When the last key frame that was sent was captured.
    group: Option<Duration>,
    ended: bool,
    failure: Option<TrackWriterError>,
}

impl std::fmt::Debug for RenditionTrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenditionTrack")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl RenditionTrack {
    pub fn new(
        broadcast: &LocalBroadcast,
        reservation: Option<TrackReservation>,
        codec: Codec,
        name: String,
        bitrate: u64,
        enabled: Arc<AtomicBool>,
    ) -> Arc<Self> {
        let writer = TrackWriter::new(broadcast, codec, name.as_str())
            .with_reservation(reservation)
            .with_bitrate(bitrate);
        Arc::new(Self {
            codec,
            name,
            demand: OnceLock::new(),
            enabled,
            moves: AtomicU32::new(0),
            encoded: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            state: Mutex::new(State {
                writer,
                switch: EncoderSwitch::default(),
                group: None,
                ended: false,
                failure: None,
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

    /// A number for an encoder, which may not write yet.
    pub fn issue_number(&self) -> u64 {
        self.state().switch.issue()
    }

    /// The encoder of that number writes; what earlier ones still have is not taken.
    pub fn begin_encoder(&self, number: u64) {
        let mut state = self.state();
        state.switch.begin(number);
        state.group = None;
    }

    /// The encoder of that number writes from a key frame on that was captured at `from` or later, which it has to be asked
    /// for; the one before it until then.
    pub fn hand_over(&self, number: u64, from: Duration) {
        let mut state = self.state();
        state.switch.hand_over(number, from);
        state.group = None;
    }

    /// Whether the encoder that took over last has not made its key frame yet.
    pub fn awaits_encoder(&self) -> bool {
        self.state().switch.is_waiting()
    }

    /// The encoder of that number has no more frames. Ends the track, unless another writes after it.
    pub fn encoder_ended(&self, number: u64) {
        let latest = self.state().switch.latest();
        if latest == Some(number) {
            self.finish();
        }
    }

    /// How often somebody has come to watch so far.
    pub fn viewers_joined(&self) -> u64 {
        let mut state = self.state();
        state
            .writer
            .track_mut()
            .map_or(0, LocalTrack::viewers_joined)
    }

    /// When the key frame was captured that viewers begin with.
    pub fn group(&self) -> Option<Duration> {
        self.state().group
    }

    /// Whether frames may be sent.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Says that the next key frame does not continue what was before.
    pub fn set_discontinuity(&self) {
        self.state().writer.set_discontinuity();
    }

    /// What the catalog calls the track; none before it is described.
    pub fn catalog_name(&self) -> Option<String> {
        let state = self.state();
        let track = state.writer.track();
        track.map(|track| track.catalog_name().to_owned())
    }

    /// What the catalog says.
    pub fn config(&self) -> Option<TrackConfig> {
        self.state().writer.config().cloned()
    }

    /// Why nothing can be published.
    pub fn failure(&self) -> Option<TrackWriterError> {
        self.state().failure.clone()
    }

    /// Says that nothing comes for now.
    pub fn pause(&self, at: Duration) {
        let mut state = self.state();
        state.group = None;
        if let Some(track) = state.writer.track_mut()
            && let Err(error) = track.pause(at)
        {
            tracing::debug!(track = self.name, %error, "pause");
        }
    }

    /// Ends the track: viewers learn that it was meant to end.
    pub fn finish(&self) {
        let mut state = self.state();
        state.writer.give_up_reservation();
        state.ended = true;
        if let Some(track) = state.writer.track_mut()
            && let Err(error) = track.finish()
        {
            tracing::debug!(track = self.name, %error, "end");
        }
    }

    /// Takes the track out of the catalog.
    pub fn withdraw(&self) {
        self.finish();
        self.state().writer.withdraw();
    }

    /// Takes a frame that the encoder of that number made. `timestamp` says when it was captured.
    pub fn write(
        &self,
        encoder: u64,
        frame_caps: &gst::Caps,
        buffer: gst::Buffer,
        timestamp: Duration,
    ) {
        self.encoded.fetch_add(1, Ordering::Relaxed);
        let moves = self.moves.load(Ordering::Relaxed);
        let mut state = self.state();
        let state = &mut *state;
        let keyframe = state.writer.is_keyframe(&buffer);
        if state.ended
            || state.failure.is_some()
            || !state.switch.admit(encoder, keyframe, timestamp)
        {
            return;
        }
        let frame = match state.writer.frame(frame_caps, buffer, timestamp, moves) {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(TrackWriterError::Memory) => {
                tracing::debug!(track = self.name, "a frame cannot be read");
                return;
            }
            Err(error) => {
                state.failure = Some(error);
                return;
            }
        };
        let Some(track) = state.writer.track_mut() else {
            return;
        };
        self.demand.get_or_init(|| track.demand());
        if !self.is_enabled() || !track.is_watched() {
            if frame.discontinuity {
                state.writer.set_discontinuity();
            }
            return;
        }
        let (size, keyframe) = (frame.payload.len() as u64, frame.keyframe);
        match track.write(frame) {
            Ok(()) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
                // That of an encoder whose successor is about to write is none to begin with.
                if keyframe && !state.switch.is_waiting() {
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
}
