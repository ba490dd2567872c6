//! What a pad writes to: a track that is described by its first key frame, and anew when its caps change.

use std::time::Duration;

use iroh_live::{
    EncodedFrame,
    broadcast::{LocalTrack, PublishTrackError, TrackConfig, TrackReservation, WriteError},
    media::caps::Codec,
};

/// A frame on its way into a track.
pub(super) struct Incoming<'a> {
    pub(super) codec: Codec,
    pub(super) caps: &'a gst::CapsRef,
    pub(super) payload: bytes::Bytes,
    pub(super) timestamp: Duration,
    /// How often the timeline was moved so far.
    pub(super) moves: u32,
    pub(super) is_keyframe: bool,
    /// Whether upstream says that something is missing before it.
    pub(super) is_discontinuity: bool,
}

/// What became of a frame.
#[derive(Debug)]
pub(super) enum Written {
    /// So many bytes were taken.
    Published(u64),
    /// Dropped, as decoding cannot begin there; why.
    NeedsKeyframe(String),
    /// Dropped; the next one may be in order.
    Dropped(String),
    /// Dropped, and so is all until the next key frame.
    TooLarge(String),
    /// Nothing more is taken.
    Ended,
    /// Nothing will ever come of this stream.
    Failed(String),
}

/// The track of a pad in one run of its broadcast.
#[derive(Default)]
pub(super) struct Track {
    /// Holds a place in the first catalog.
    pub(super) reservation: Option<TrackReservation>,
    track: Option<LocalTrack>,
    /// The caps that it was described by.
    caps: Option<gst::Caps>,
    /// The count of moves of the timeline when the last frame was written.
    moves: u32,
    /// Whether something is missing before the next frame that decoding can begin with.
    broken: bool,
}

impl Track {
    pub(super) fn new(reservation: TrackReservation) -> Self {
        Self {
            reservation: Some(reservation),
            ..Self::default()
        }
    }

    pub(super) fn name(&self) -> &str {
        self.track.as_ref().map_or("", LocalTrack::name)
    }

    pub(super) fn is_watched(&self) -> bool {
        self.track.as_ref().is_some_and(LocalTrack::is_watched)
    }

    /// Writes a frame, describing the track first where that is due. `publish` makes the track.
    pub(super) fn write(
        &mut self,
        frame: Incoming<'_>,
        publish: impl FnOnce(TrackConfig) -> Result<LocalTrack, PublishTrackError>,
    ) -> Written {
        self.broken |= frame.is_discontinuity;
        if self.caps.as_deref() != Some(frame.caps) {
            // What the frame is becomes known with a key frame only.
            if !frame.is_keyframe {
                return Written::NeedsKeyframe("the stream is not described yet".into());
            }
            if let Err(failed) = self.describe(&frame, publish) {
                return failed;
            }
        }
        let Some(track) = &mut self.track else {
            return Written::Ended;
        };
        let size = frame.payload.len() as u64;
        let mut encoded = EncodedFrame::new(frame.timestamp, frame.payload, frame.is_keyframe);
        encoded.discontinuity = std::mem::replace(&mut self.moves, frame.moves) != frame.moves
            || (frame.is_keyframe && std::mem::take(&mut self.broken));
        match track.write(encoded) {
            Ok(()) => Written::Published(size),
            Err(error @ WriteError::NoKeyframe) => Written::NeedsKeyframe(error.to_string()),
            Err(WriteError::Ended) => Written::Ended,
            Err(error @ WriteError::GroupTooLarge) => Written::TooLarge(error.to_string()),
            Err(error) => Written::Dropped(error.to_string()),
        }
    }

    fn describe(
        &mut self,
        frame: &Incoming<'_>,
        publish: impl FnOnce(TrackConfig) -> Result<LocalTrack, PublishTrackError>,
    ) -> Result<(), Written> {
        let config = frame
            .codec
            .describe(frame.caps, &frame.payload)
            .map_err(|reason| {
                if frame.codec.is_video() {
                    Written::NeedsKeyframe(reason)
                } else {
                    Written::Failed(reason)
                }
            })?;
        let described = match &mut self.track {
            Some(track) => track.set_config(config),
            None => publish(config).map(|track| {
                self.track = Some(track);
                // Given up only now, so that the first catalog has the track in it.
                self.reservation = None;
            }),
        };
        described.map_err(|error| Written::Failed(error.to_string()))?;
        self.caps = Some(frame.caps.to_owned());
        Ok(())
    }

    /// Says that what comes next does not continue what came before.
    pub(super) fn interrupt(&mut self) {
        self.broken = true;
    }

    /// The stream is described anew, whatever its caps.
    pub(super) fn forget_caps(&mut self) {
        self.caps = None;
    }

    /// Viewers get the track's end.
    ///
    /// # Errors
    /// If the end could not be marked; the track is over in any case.
    pub(super) fn finish(&mut self) -> Result<(), WriteError> {
        self.reservation = None;
        self.track.as_mut().map_or(Ok(()), LocalTrack::finish)
    }
}
