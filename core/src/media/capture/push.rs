//! Frames and samples that the program pushes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gst::prelude::*;

use super::pipeline::{CaptureTime, Tap};
use crate::media::sample::nanoseconds;

/// A frame could not be pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The source was replaced, or its broadcast is gone.
    #[error("nobody takes frames of this source any more")]
    Closed,
    /// The frame is not as large as its format says.
    #[error("the frame has {got} bytes, but its format says {expected}")]
    Size {
        /// Bytes that were pushed.
        got: usize,
        /// Bytes of a frame, or of a sample of all channels.
        expected: usize,
    },
    /// It was not captured after the one before.
    #[error("the frame was not captured after the one before; it was dropped")]
    Order,
}

/// Between a pusher and the broadcast that takes what it pushes.
#[derive(Debug)]
pub(in crate::media) struct PushChannel {
    caps: gst::Caps,
    clock: gst::Clock,
    /// One moment by the program's clock and by the system's, as GStreamer has it.
    anchor: (Instant, i64),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tap: Option<Tap>,
    closed: bool,
    ended: bool,
    /// When the last frame was captured; of audio, when it ends.
    last: Option<Instant>,
}

impl PushChannel {
    fn new(caps: gst::Caps) -> Arc<Self> {
        let clock = gst::SystemClock::obtain();
        let anchor = (Instant::now(), nanoseconds(clock.time()));
        Arc::new(Self {
            caps,
            clock,
            anchor,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn attach(self: Arc<Self>, tap: Tap) -> Attached {
        let ended = {
            let mut state = self.state();
            state.tap = Some(tap.clone());
            state.ended
        };
        if ended {
            tap.ended();
        }
        Attached(self)
    }

    /// By the system's clock, which never steps as wall-clock time does.
    fn time(&self, captured: Instant) -> CaptureTime {
        let (instant, time) = self.anchor;
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let captured = match captured.checked_duration_since(instant) {
            Some(since) => time.saturating_add(nanos(since)),
            None => time.saturating_sub(nanos(instant.duration_since(captured))),
        };
        CaptureTime {
            captured,
            now: nanoseconds(self.clock.time()),
        }
    }

    fn deliver(&self, mut buffer: gst::Buffer, captured: Instant) -> Result<(), PushError> {
        let tap = {
            let state = self.state();
            if state.closed {
                return Err(PushError::Closed);
            }
            state.tap.clone()
        };
        // Not given to a broadcast yet: it is as with a camera that is not switched on.
        let Some(tap) = tap else { return Ok(()) };
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::NONE);
            buffer.set_dts(gst::ClockTime::NONE);
        }
        if tap.frame(&self.caps, &buffer, self.time(captured)) {
            Ok(())
        } else {
            Err(PushError::Closed)
        }
    }

    fn end(&self) {
        let tap = {
            let mut state = self.state();
            state.ended = true;
            state.tap.clone()
        };
        if let Some(tap) = tap {
            tap.ended();
        }
    }
}

/// Somebody takes what is pushed, as long as this lives.
#[derive(Debug)]
pub(in crate::media) struct Attached(Arc<PushChannel>);

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.tap = None;
        state.closed = true;
    }
}

/// The end of a channel that pushes. Dropping it ends the source.
#[derive(Debug)]
struct PushEnd(Arc<PushChannel>);

impl PushEnd {
    fn new(caps: Result<gst::Caps, gst::glib::BoolError>) -> (Self, Arc<PushChannel>) {
        // Formats that have no caps have no media either.
        let channel = PushChannel::new(caps.unwrap_or_else(|_| gst::Caps::new_empty()));
        (Self(channel.clone()), channel)
    }

    /// Pushes what was captured from then until `end`, unless it is late after what came last.
    fn push(
        &self,
        buffer: gst::Buffer,
        captured: Instant,
        end: Instant,
        is_late: impl FnOnce(Instant) -> bool,
    ) -> Result<(), PushError> {
        {
            let mut state = self.0.state();
            if state.last.is_some_and(is_late) {
                return Err(PushError::Order);
            }
            state.last = Some(end);
        }
        self.0.deliver(buffer, captured)
    }
}

impl Drop for PushEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Pushes pictures; made by [`VideoSource::push`](super::VideoSource::push). Dropping it ends the source.
#[derive(Debug)]
pub struct VideoPusher {
    info: gst_video::VideoInfo,
    end: PushEnd,
}

impl VideoPusher {
    pub(super) fn new(info: gst_video::VideoInfo) -> (Self, Arc<PushChannel>) {
        let (end, channel) = PushEnd::new(info.to_caps());
        (Self { info, end }, channel)
    }

    /// What the pictures look like.
    pub fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    /// Pushes a picture that was captured now. Never waits: a picture that comes too soon for an encoder is dropped.
    ///
    /// A `Vec<u8>` or other owned bytes become a buffer with `gst::Buffer::from_slice`.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), PushError> {
        self.push_at(buffer, Instant::now())
    }

    /// Pushes a picture that was captured at that time.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_at(&self, buffer: gst::Buffer, captured: Instant) -> Result<(), PushError> {
        // Planes of the program's own layout are described by a meta.
        if buffer.size() < self.info.size() && buffer.meta::<gst_video::VideoMeta>().is_none() {
            return Err(PushError::Size {
                got: buffer.size(),
                expected: self.info.size(),
            });
        }
        let is_late = |last| captured <= last;
        self.end.push(buffer, captured, captured, is_late)
    }
}

/// Pushes sound; made by [`AudioSource::push`](super::AudioSource::push). Dropping it ends the source.
#[derive(Debug)]
pub struct AudioPusher {
    info: gst_audio::AudioInfo,
    end: PushEnd,
}

/// Sound may be said to begin so much before the end of what came before: clocks shake.
const OVERLAP: Duration = Duration::from_millis(100);

impl AudioPusher {
    pub(super) fn new(info: gst_audio::AudioInfo) -> (Self, Arc<PushChannel>) {
        let (end, channel) = PushEnd::new(info.to_caps());
        (Self { info, end }, channel)
    }

    /// What the samples look like.
    pub fn info(&self) -> &gst_audio::AudioInfo {
        &self.info
    }

    /// Pushes samples that were captured until now. Never waits.
    ///
    /// How they lie beside those before is smoothed: they follow without a gap, and slowly come to lie where they were
    /// captured. Where that is far off, as after a pause, there is a gap.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), PushError> {
        let duration = self.duration(&buffer)?;
        let now = Instant::now();
        let begun = now.checked_sub(duration).unwrap_or(now);
        self.end.push(buffer, begun, now, |_| false)
    }

    /// Pushes samples, the first of which was captured at that time.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_at(&self, buffer: gst::Buffer, captured: Instant) -> Result<(), PushError> {
        let duration = self.duration(&buffer)?;
        let is_late = |last| captured + OVERLAP < last;
        self.end
            .push(buffer, captured, captured + duration, is_late)
    }

    fn duration(&self, buffer: &gst::Buffer) -> Result<Duration, PushError> {
        let frame = usize::try_from(self.info.bpf()).unwrap_or(1).max(1);
        if buffer.size() == 0 || !buffer.size().is_multiple_of(frame) {
            return Err(PushError::Size {
                got: buffer.size(),
                expected: frame,
            });
        }
        let samples = (buffer.size() / frame) as u64;
        Ok(Duration::from_nanos(
            samples.saturating_mul(1_000_000_000) / u64::from(self.info.rate().max(1)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broadcast::{MediaKind, Timeline},
        media::capture::{FrameSink, SourceError},
    };

    /// Puts what it gets on a timeline, as a broadcast does, at a wall-clock time that can be set.
    #[derive(Default)]
    struct Recorder {
        timeline: Mutex<Timeline>,
        wall: Mutex<Duration>,
        timestamps: Mutex<Vec<Duration>>,
    }

    impl FrameSink for Recorder {
        fn frame(&self, _: u64, _: &gst::Caps, _: &gst::Buffer, time: CaptureTime) -> bool {
            let wall = *self.wall.lock().unwrap();
            let (timestamp, _) = self
                .timeline
                .lock()
                .unwrap()
                .timestamp(time.captured, Some(time.now), wall)
                .unwrap();
            self.timestamps.lock().unwrap().push(timestamp);
            true
        }

        fn ended(&self, _: u64) {}

        fn failed(&self, _: u64, _: SourceError) {}
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_no_picture() {
        crate::media::init().unwrap();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 16, 16)
            .build()
            .unwrap();
        let (pusher, channel) = VideoPusher::new(info);
        let recorder = Arc::new(Recorder::default());
        let sink: Arc<dyn FrameSink> = recorder.clone();
        let _attached = channel.attach(Tap {
            kind: MediaKind::Video,
            generation: 0,
            sink: Arc::downgrade(&sink),
        });
        let start = Instant::now();
        for (number, wall) in [(0, 1000), (1, 1000), (2, 5000), (3, 200)] {
            *recorder.wall.lock().unwrap() = Duration::from_secs(wall);
            let frame = gst::Buffer::from_slice(vec![0; 256]);
            pusher
                .push_at(frame, start + number * Duration::from_millis(40))
                .unwrap();
        }
        let timestamps = recorder.timestamps.lock().unwrap();
        for pair in timestamps.windows(2) {
            assert_eq!(pair[1] - pair[0], Duration::from_millis(40));
        }
    }

    #[test]
    fn a_picture_of_before_the_source_was_made_is_older() {
        crate::media::init().unwrap();
        let channel = PushChannel::new(gst::Caps::new_empty());
        let (instant, time) = channel.anchor;
        let second = Duration::from_secs(1);
        assert_eq!(
            channel.time(instant - second).captured,
            time - 1_000_000_000
        );
        assert_eq!(
            channel.time(instant + second).captured,
            time + 1_000_000_000
        );
        assert!(channel.time(instant).now >= time);
    }
}
