//! Frames and samples that the program pushes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Tap, Time};
use crate::broadcast::LocalBroadcast;

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
    /// The timestamp does not lie after the one before.
    #[error("the timestamp does not lie after that of the frame before; the frame was dropped")]
    Order,
}

/// Between a pusher and the broadcast that takes what it pushes.
#[derive(Debug)]
pub(in crate::media) struct Link {
    caps: gst::Caps,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tap: Option<Tap>,
    closed: bool,
    ended: bool,
    /// When the last frame was captured; of audio, when it ends.
    last: Option<Duration>,
}

impl Link {
    fn new(caps: gst::Caps) -> Arc<Self> {
        Arc::new(Self {
            caps,
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

    fn deliver(&self, mut buffer: gst::Buffer, timestamp: Duration) -> Result<(), PushError> {
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
        if tap.frame(&self.caps, &buffer, Time::Wall(timestamp)) {
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
pub(in crate::media) struct Attached(Arc<Link>);

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.tap = None;
        state.closed = true;
    }
}

/// Pushes pictures; made by [`VideoSource::push`](super::VideoSource::push). Dropping it ends the source.
#[derive(Debug)]
pub struct VideoPusher {
    info: gst_video::VideoInfo,
    link: Arc<Link>,
}

impl VideoPusher {
    pub(super) fn new(info: gst_video::VideoInfo) -> (Self, Arc<Link>) {
        // Formats that have no caps have no pictures either.
        let caps = info.to_caps().unwrap_or_else(|_| gst::Caps::new_empty());
        let link = Link::new(caps);
        (
            Self {
                info,
                link: link.clone(),
            },
            link,
        )
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
        self.push_at(buffer, LocalBroadcast::now())
    }

    /// Pushes a picture that was captured at `timestamp`, in the time of [`LocalBroadcast::now`].
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_at(&self, buffer: gst::Buffer, timestamp: Duration) -> Result<(), PushError> {
        // Planes of the program's own layout are described by a meta.
        if buffer.size() < self.info.size() && buffer.meta::<gst_video::VideoMeta>().is_none() {
            return Err(PushError::Size {
                got: buffer.size(),
                expected: self.info.size(),
            });
        }
        {
            let mut state = self.link.state();
            if state.last.is_some_and(|last| timestamp <= last) {
                return Err(PushError::Order);
            }
            state.last = Some(timestamp);
        }
        self.link.deliver(buffer, timestamp)
    }
}

impl Drop for VideoPusher {
    fn drop(&mut self) {
        self.link.end();
    }
}

/// Pushes sound; made by [`AudioSource::push`](super::AudioSource::push). Dropping it ends the source.
#[derive(Debug)]
pub struct AudioPusher {
    info: gst_audio::AudioInfo,
    link: Arc<Link>,
}

/// Sound that is pushed without a timestamp may drift so far from the clock before a gap is made.
const DRIFT: Duration = Duration::from_millis(100);

impl AudioPusher {
    pub(super) fn new(info: gst_audio::AudioInfo) -> (Self, Arc<Link>) {
        let caps = info.to_caps().unwrap_or_else(|_| gst::Caps::new_empty());
        let link = Link::new(caps);
        (
            Self {
                info,
                link: link.clone(),
            },
            link,
        )
    }

    /// What the samples look like.
    pub fn info(&self) -> &gst_audio::AudioInfo {
        &self.info
    }

    /// Pushes samples that follow those before; the first were captured until now. Never waits.
    ///
    /// Where that would be far from the clock, as after a pause, they are taken as captured until now.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), PushError> {
        let duration = self.duration(&buffer)?;
        let begun = LocalBroadcast::now().saturating_sub(duration);
        let begun = match self.link.state().last {
            Some(last) if last.abs_diff(begun) < DRIFT => last,
            _ => begun,
        };
        self.push_at(buffer, begun)
    }

    /// Pushes samples, the first of which was captured at `timestamp`, in the time of [`LocalBroadcast::now`].
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_at(&self, buffer: gst::Buffer, timestamp: Duration) -> Result<(), PushError> {
        let duration = self.duration(&buffer)?;
        {
            let mut state = self.link.state();
            if state.last.is_some_and(|last| timestamp + DRIFT < last) {
                return Err(PushError::Order);
            }
            state.last = Some(timestamp + duration);
        }
        self.link.deliver(buffer, timestamp)
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

impl Drop for AudioPusher {
    fn drop(&mut self) {
        self.link.end();
    }
}
