//! What a pad writes to: its track in one run of the broadcast.

use std::time::Duration;

use gst::glib::translate::IntoGlib;
use iroh_live::{
    LocalBroadcast,
    broadcast::{LocalTrack, Restarts, TrackReservation, WriteError},
    media::{
        caps::Codec,
        encode::{TrackWriter, TrackWriterError},
    },
};

/// What became of a buffer.
#[derive(Debug)]
pub(super) enum Written {
    Published,
    /// Published, but something is missing before it, and what is in order begins with the next key frame.
    PublishedAfterGap,
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

impl From<TrackWriterError> for Written {
    fn from(error: TrackWriterError) -> Self {
        match error {
            // That is about one buffer.
            TrackWriterError::Memory => Self::Dropped(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

pub(super) struct Track {
    broadcast: LocalBroadcast,
    /// Holds a place in the first catalog until it is known what the pad carries.
    reservation: Option<TrackReservation>,
    writer: Option<TrackWriter>,
    restarts: Restarts,
    /// The count of moves of the timeline at the last frame that decoding can begin with.
    moves: u32,
    /// Whether the next frame has to be such a one.
    interrupted: bool,
    /// Whether something was lost within the group.
    gap: bool,
}

impl Track {
    pub(super) fn new(broadcast: &LocalBroadcast) -> Self {
        Self {
            broadcast: broadcast.clone(),
            reservation: Some(broadcast.reserve_track()),
            writer: None,
            restarts: broadcast.restarts(),
            moves: 0,
            interrupted: false,
            gap: false,
        }
    }

    pub(super) fn is_part_of(&self, broadcast: &LocalBroadcast) -> bool {
        self.broadcast.is_same(broadcast)
    }

    /// Says what the pad carries from now on, and what the track is called.
    ///
    /// A track that carried something else is taken back: viewers get another in its place.
    pub(super) fn set_codec(&mut self, codec: Codec, name: &str) {
        let same = |writer: &TrackWriter| writer.codec() == codec && writer.name() == name;
        if !self.writer.as_ref().is_some_and(same) {
            // Dropped first, as it may have the name.
            self.writer = None;
            self.writer = Some(
                TrackWriter::new(&self.broadcast, codec, name)
                    .with_reservation(self.reservation.take()),
            );
        }
    }

    pub(super) fn is_watched(&self) -> bool {
        let writer = self.writer.as_ref();
        writer
            .and_then(TrackWriter::track)
            .is_some_and(LocalTrack::is_watched)
    }

    /// When a buffer is presented, as the broadcast counts, and how often its timeline was moved so far.
    pub(super) fn timestamp(&mut self, time: i64, now: Option<i64>) -> Option<(Duration, u32)> {
        self.broadcast.timestamp_of(&mut self.restarts, time, now)
    }

    /// Writes a buffer that is neither empty nor a header.
    pub(super) fn write(
        &mut self,
        caps: &gst::Caps,
        buffer: gst::Buffer,
        (timestamp, moves): (Duration, u32),
    ) -> Written {
        let Some(writer) = &mut self.writer else {
            return Written::Dropped("its caps are not known".into());
        };
        let flags = buffer.flags();
        if flags.contains(gst::BufferFlags::DISCONT) {
            writer.set_discontinuity();
            self.gap = true;
        }
        if !writer.codec().is_video() || !flags.contains(gst::BufferFlags::DELTA_UNIT) {
            self.interrupted = false;
            self.gap = false;
            // After a pause nothing is missing, so that the group goes on; that time has passed is said with the next one.
            self.moves = moves;
        } else if self.interrupted {
            return Written::NeedsKeyframe("what it refers to was before a seek".into());
        }
        let frame = match writer.frame(caps, buffer, timestamp, self.moves) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Written::NeedsKeyframe("the stream is not described yet".into()),
            Err(error) => return error.into(),
        };
        let Some(track) = writer.track_mut() else {
            return Written::Ended;
        };
        match track.write(frame) {
            Ok(()) if self.gap => Written::PublishedAfterGap,
            Ok(()) => Written::Published,
            Err(error @ WriteError::NoKeyframe) => Written::NeedsKeyframe(error.to_string()),
            Err(WriteError::Ended) => Written::Ended,
            Err(error @ WriteError::GroupTooLarge) => Written::TooLarge(error.to_string()),
            Err(error) => Written::Dropped(error.to_string()),
        }
    }

    /// Says that what comes next does not continue what came before, and, if time begins anew with it, for which seek.
    pub(super) fn flushed(&mut self, restart: Option<gst::Seqnum>) {
        match restart {
            Some(seek) => {
                self.broadcast.restart(&mut self.restarts, seek.into_glib());
            }
            None => self.broadcast.resume(),
        }
        self.interrupted = true;
        if let Some(writer) = &mut self.writer {
            writer.set_discontinuity();
        }
    }

    /// Viewers get the track's end.
    ///
    /// # Errors
    /// If the end could not be marked; the track is over in any case.
    pub(super) fn finish(&mut self) -> Result<(), WriteError> {
        self.reservation = None;
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        writer.give_up_reservation();
        writer.track_mut().map_or(Ok(()), LocalTrack::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_cannot_be_read_is_no_end_of_its_stream() {
        let written = Written::from(TrackWriterError::Memory);
        assert!(matches!(written, Written::Dropped(_)), "{written:?}");
    }
}
