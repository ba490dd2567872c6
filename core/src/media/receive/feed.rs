//! Encoded frames into a pipeline: reads a track, gives its frames their times, pushes them into an appsrc.

use std::{
    future::Future,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gst::prelude::*;

use super::playout::{ClockedTrack, PlayoutClock};
use crate::{
    EncodedFrame,
    broadcast::{EncodedReader, ReadError},
};

/// More than this is not kept for a pipeline that does not take its data.
const MAX_QUEUED_BYTES: u64 = 64 << 20;

/// A decoder that has more than this before it, and whose next frame is as much too late, is too slow for the stream.
const BEHIND: gst::ClockTime = gst::ClockTime::from_seconds(1);

/// Frames that wait in the queue for less than this came late themselves: what fills the queue is the network, which
/// delivers in a burst what it has held up.
const WAITING: gst::ClockTime = gst::ClockTime::from_mseconds(500);

/// However short the latency, packets overtake each other by as much: the least age at which a group is skipped.
pub const MIN_AGE: Duration = Duration::from_millis(50);

/// How often frames that are held while the clock is being recovered are looked at.
const HOLD_TICK: Duration = Duration::from_millis(4);

/// A frame for a [`Feed`].
#[derive(Debug)]
pub struct FeedFrame {
    /// The frame.
    pub frame: EncodedFrame,
    /// The caps that hold from this frame on, if they are new. Only with a key frame.
    pub caps: Option<gst::Caps>,
    /// Whether it is to be decoded and not shown.
    pub decode_only: bool,
    /// For how long it was held back after it had arrived. The network has no part in that.
    pub held: Duration,
    /// Whether it is the first of another subscription, as of another rendition: that has a delay of its own.
    pub begins: bool,
}

impl From<EncodedFrame> for FeedFrame {
    fn from(frame: EncodedFrame) -> Self {
        Self {
            frame,
            caps: None,
            decode_only: false,
            held: Duration::ZERO,
            begins: false,
        }
    }
}

/// Where the frames of a [`Feed`] come from.
pub trait FrameSource {
    /// Why there may be no more.
    type Error;

    /// The next frame in decode order; `None` when there will be none. Has to be cancel safe.
    fn next_frame(&mut self)
    -> impl Future<Output = Result<Option<FeedFrame>, Self::Error>> + Send;

    /// The pipeline is too slow for what it is given: frames are left out up to the next key frame.
    fn overrun(&mut self) {}
}

impl FrameSource for EncodedReader {
    type Error = ReadError;

    async fn next_frame(&mut self) -> Result<Option<FeedFrame>, ReadError> {
        Ok(self.next().await?.map(FeedFrame::from))
    }
}

/// How a feed ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum FeedEnd<E> {
    /// There are no more frames.
    Finished,
    /// The pipeline takes no more data.
    Downstream,
    /// The publisher or the connection is gone.
    Lost(E),
}

/// What went through a feed since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedStats {
    /// Frames pushed.
    pub frames: u64,
    /// Bytes pushed.
    pub bytes: u64,
    /// Frames that were flagged as a discontinuity; the first one is.
    pub discontinuities: u64,
}

/// Feeds one track into an appsrc.
///
/// A buffer's PTS is running time, as the [`PlayoutClock`] maps it. Buffers carry DISCONT and DELTA_UNIT where they are due,
/// and a reference timestamp (`timestamp/x-unix`) that says when they were captured, where the broadcast knows. A
/// frame's bytes are not copied.
#[derive(Debug)]
pub struct Feed {
    appsrc: gst_app::AppSrc,
    video: bool,
    /// A frame that is so many nanoseconds late is of no use; the largest number: every frame is.
    latency: AtomicU64,
    /// Whether what is too late at the beginning is decoded, but not shown.
    hides_backlog: bool,
    /// Caps that hold from the next key frame on: the catalog is ahead of the frames.
    next_caps: Mutex<Option<gst::Caps>>,
    frames: AtomicU64,
    bytes: AtomicU64,
    discontinuities: AtomicU64,
}

impl Feed {
    /// A feed into `appsrc`, which has caps, is live, and works in time.
    pub fn new(appsrc: gst_app::AppSrc, video: bool) -> Self {
        Self {
            appsrc,
            video,
            latency: AtomicU64::new(u64::MAX),
            hides_backlog: false,
            next_caps: Mutex::default(),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            discontinuities: AtomicU64::new(0),
        }
    }

    /// Goes on at the next key frame when the pipeline is slower than the stream, rather than to fall further behind.
    ///
    /// `latency` is that of the sinks.
    pub fn skipping(self, latency: gst::ClockTime) -> Self {
        self.set_latency(latency);
        self
    }

    /// Changes from which lateness on the feed is [`skipping`](Self::skipping).
    pub fn set_latency(&self, latency: gst::ClockTime) {
        self.latency.store(latency.nseconds(), Ordering::Relaxed);
    }

    /// Begins with a picture and goes on with what is live.
    ///
    /// A subscription brings the group that is under way from its key frame on, which may be seconds old. All of that is
    /// too late and would be shown as fast as it is decoded; so of what is too late only the key frame is shown, and the
    /// rest is to be decoded only.
    pub(in crate::media) fn hiding_backlog(mut self) -> Self {
        self.hides_backlog = true;
        self
    }

    /// The appsrc.
    pub fn appsrc(&self) -> &gst_app::AppSrc {
        &self.appsrc
    }

    /// Changes the caps in front of the next key frame. Returns whether they are new.
    pub fn set_caps(&self, caps: &gst::Caps) -> bool {
        let new = self.appsrc.caps().as_ref() != Some(caps);
        *self.next_caps() = new.then(|| caps.clone());
        new
    }

    fn next_caps(&self) -> MutexGuard<'_, Option<gst::Caps>> {
        self.next_caps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What went through so far.
    pub fn stats(&self) -> FeedStats {
        FeedStats {
            frames: self.frames.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            discontinuities: self.discontinuities.load(Ordering::Relaxed),
        }
    }

    /// Reads `source` and pushes what it gives, beginning with a key frame. Pushes no end of stream.
    ///
    /// Each call is a subscription of its own to `clock`. `epoch` is the wall-clock time of the broadcast's timestamp zero;
    /// `running_time` gives the pipeline's, or none while it has no clock, in which time frames are lost. Cancel safe: what
    /// was read was pushed, or is left out by the next call, which begins with a key frame again.
    pub async fn run<S: FrameSource>(
        &self,
        source: &mut S,
        clock: &PlayoutClock,
        epoch: Option<SystemTime>,
        running_time: &impl Fn() -> Option<gst::ClockTime>,
    ) -> FeedEnd<S::Error> {
        let mut stamper = Stamper {
            feed: self,
            clock,
            track: clock.subscription(),
            epoch,
            held: Vec::new(),
            untimed_caps: None,
            incarnation: None,
            jumps: None,
            needs_key: self.video,
            dropped: false,
            residence: Residence::default(),
            backlog: self.hides_backlog.then_some(Backlog::default()),
            rhythm: Rhythm::default(),
        };
        let mut tick = tokio::time::interval(HOLD_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let flow = tokio::select! {
                frame = source.next_frame() => match frame {
                    Ok(Some(frame)) => stamper.frame(frame, running_time()),
                    Ok(None) => {
                        let _ = stamper.release(None);
                        return FeedEnd::Finished;
                    }
                    Err(error) => {
                        let _ = stamper.release(None);
                        return FeedEnd::Lost(error);
                    }
                },
                _ = tick.tick(), if !stamper.held.is_empty() => stamper.release_if_acquired(running_time()),
            };
            if std::mem::take(&mut stamper.dropped) {
                source.overrun();
            }
            if flow.is_err() {
                return FeedEnd::Downstream;
            }
        }
    }

    /// The timestamp of the frame that leaves the queue next, where `pts` is that of the frame that comes into it.
    fn head(&self, pts: gst::ClockTime) -> gst::ClockTime {
        pts.saturating_sub(self.appsrc.current_level_time())
    }

    /// Whether more waits than is of use.
    fn overrun(&self, now: Option<gst::ClockTime>, pts: gst::ClockTime) -> bool {
        if self.appsrc.current_level_bytes() > MAX_QUEUED_BYTES {
            return true;
        }
        let latency = self.latency.load(Ordering::Relaxed);
        let Some(now) = now.filter(|_| latency != u64::MAX) else {
            return false;
        };
        let queued = self.appsrc.current_level_time();
        let useful = self
            .head(pts)
            .saturating_add(gst::ClockTime::from_nseconds(latency));
        queued > BEHIND && now > useful.saturating_add(BEHIND)
    }
}

/// For how long frames wait in the queue before the pipeline, measured on one at a time.
#[derive(Debug, Default)]
struct Residence {
    /// The timestamp of the frame that is followed, and when it was pushed.
    followed: Option<(gst::ClockTime, gst::ClockTime)>,
    /// How long the last one waited, or this one has by now.
    last: gst::ClockTime,
}

impl Residence {
    fn pushed(&mut self, pts: gst::ClockTime, now: gst::ClockTime) {
        self.followed.get_or_insert((pts, now));
    }

    /// `head` is the timestamp of the frame that leaves the queue next.
    fn update(&mut self, head: gst::ClockTime, now: gst::ClockTime) {
        let Some((pts, pushed)) = self.followed else {
            return;
        };
        let waited = now.saturating_sub(pushed);
        if head > pts {
            self.followed = None;
            self.last = waited;
        } else {
            self.last = self.last.max(waited);
        }
    }

    fn is_long(&self) -> bool {
        self.last >= WAITING
    }
}

/// Gives the frames of one subscription their times.
struct Stamper<'a> {
    feed: &'a Feed,
    clock: &'a PlayoutClock,
    track: ClockedTrack,
    epoch: Option<SystemTime>,
    /// Frames that wait for the clock to be recovered.
    held: Vec<FeedFrame>,
    /// Caps that came with a frame that could not be timed: they hold for what follows.
    untimed_caps: Option<gst::Caps>,
    /// Of the last frame.
    incarnation: Option<u64>,
    /// The clock's count of jumps at the last buffer; `None` before the first.
    jumps: Option<u32>,
    needs_key: bool,
    /// Whether frames were left out for a pipeline that is too slow, since that was asked last.
    dropped: bool,
    residence: Residence,
    /// What is too late at the beginning; `None` once frames are in time.
    backlog: Option<Backlog>,
    /// When the next sound is due.
    rhythm: Rhythm,
}

/// The frames that come too late to be shown before the first that comes in time.
#[derive(Debug, Default)]
struct Backlog {
    /// When it began.
    since: Option<gst::ClockTime>,
}

impl Backlog {
    /// A path that brings no more than real time does not catch up: then a late picture is better than none.
    const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(1);

    /// Whether a frame that is due then, in nanoseconds of running time, belongs to it and is not to be shown; `None`: it is over.
    fn hides(&mut self, due: i64, now: gst::ClockTime) -> Option<bool> {
        if i64::try_from(now.nseconds()).is_ok_and(|now| due >= now) {
            return None;
        }
        let Some(since) = self.since else {
            self.since = Some(now);
            return Some(false);
        };
        (now < since + Self::LIMIT).then_some(true)
    }
}

/// How far apart the packets of a track of sound are, and when the next one is due.
#[derive(Debug, Default)]
struct Rhythm {
    last: Option<gst::ClockTime>,
    step: Option<gst::ClockTime>,
}

impl Rhythm {
    /// No decoder makes up sound for longer than this that anybody wants to hear.
    const CONCEALED: gst::ClockTime = gst::ClockTime::from_mseconds(120);

    /// Takes note of a packet; `skipped` says that others are missing before it. Returns from when and for how long.
    fn gap(
        &mut self,
        pts: gst::ClockTime,
        skipped: bool,
    ) -> Option<(gst::ClockTime, gst::ClockTime)> {
        let distance = pts.checked_sub(self.last.replace(pts)?)?;
        if !skipped {
            self.step = Some(distance);
            return None;
        }
        let step = self.step?;
        let gap = distance.checked_sub(step)?;
        (gap > step / 2 && gap <= Self::CONCEALED).then_some((pts - gap, gap))
    }

    /// What comes next has nothing to do with what was before.
    fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Stamper<'_> {
    fn frame(
        &mut self,
        mut frame: FeedFrame,
        now: Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        let incarnation = frame.frame.incarnation;
        let another = self.incarnation.replace(incarnation) != Some(incarnation);
        if frame.begins || another {
            self.track = self.clock.subscription();
        }
        // Without a clock nothing can be timed; the state change to PLAYING brings it.
        let Some(now) = now else {
            self.untimed_caps = frame.caps.or(self.untimed_caps.take());
            return Ok(());
        };
        let untimed = self.untimed_caps.take();
        frame.caps = frame.caps.or(untimed);
        self.clock.enter(incarnation, now);
        let held = gst::ClockTime::try_from(frame.held).unwrap_or(gst::ClockTime::MAX);
        self.track
            .observe(frame.frame.timestamp, now.saturating_sub(held));
        self.held.push(frame);
        self.release_if_acquired(Some(now))
    }

    fn release_if_acquired(&mut self, now: Option<gst::ClockTime>) -> Result<(), gst::FlowError> {
        if self.clock.is_acquired(now.unwrap_or_default()) {
            return self.release(now);
        }
        Ok(())
    }

    fn release(&mut self, now: Option<gst::ClockTime>) -> Result<(), gst::FlowError> {
        for frame in std::mem::take(&mut self.held) {
            self.push(frame, now)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        FeedFrame {
            frame,
            caps,
            mut decode_only,
            ..
        }: FeedFrame,
        now: Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        let feed = self.feed;
        if let Some(caps) = caps {
            // Also if this frame is left out.
            feed.set_caps(&caps);
        }
        let on_time = self.clock.map(frame.timestamp);
        let mapped = u64::try_from(on_time).map(gst::ClockTime::from_nseconds);
        let incoming = mapped.unwrap_or_default();
        if let Some(now) = now {
            self.residence.update(feed.head(incoming), now);
        }
        if feed.overrun(now, incoming) {
            self.overrun();
            return Ok(());
        }
        if self.needs_key && !frame.keyframe {
            return Ok(());
        }
        let pts = match mapped {
            Ok(pts) => pts,
            // From before this pipeline began to run: a decoder needs the picture, nobody needs the sound.
            Err(_) if feed.video => gst::ClockTime::ZERO,
            Err(_) => return Ok(()),
        };
        let jumps = self.clock.jumps();
        let jumped = self.jumps.replace(jumps) != Some(jumps);
        if jumped {
            self.residence = Residence::default();
        }
        if let Some(now) = now {
            self.residence.pushed(pts, now);
        }
        self.needs_key = false;
        if frame.keyframe
            && let Some(caps) = feed.next_caps().take()
        {
            feed.appsrc.set_caps(Some(&caps));
        }
        if !feed.video {
            self.fill(pts, frame.discontinuity, jumped);
        }
        if let Some(backlog) = &mut self.backlog
            && !decode_only
        {
            let due = on_time.saturating_add(self.clock.latency());
            match backlog.hides(due, now.unwrap_or_default()) {
                Some(hidden) => decode_only = hidden,
                None => self.backlog = None,
            }
        }
        let size = frame.payload.len() as u64;
        let discont = jumped || frame.discontinuity;
        let captured = self
            .epoch
            .and_then(|epoch| epoch.checked_add(frame.timestamp));
        let buffer = buffer(frame, pts, decode_only, discont, captured);
        feed.appsrc.push_buffer(buffer)?;
        feed.discontinuities
            .fetch_add(u64::from(discont), Ordering::Relaxed);
        feed.frames.fetch_add(1, Ordering::Relaxed);
        feed.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Leaves out all up to the next key frame.
    fn overrun(&mut self) {
        if !self.needs_key {
            tracing::warn!(
                element = %self.feed.appsrc.name(),
                "downstream is too slow: frames are dropped"
            );
            self.dropped = self.residence.is_long();
        }
        self.needs_key = true;
        self.jumps = None;
    }

    /// Says where packets are missing, so that a decoder makes up for them.
    fn fill(&mut self, pts: gst::ClockTime, skipped: bool, jumped: bool) {
        if jumped {
            self.rhythm.reset();
        }
        if let Some((from, duration)) = self.rhythm.gap(pts, skipped) {
            let gap = gst::event::Gap::builder(from).duration(duration).build();
            self.feed.appsrc.send_event(gap);
        }
    }
}

/// A frame as the pipeline gets it. Its bytes are not copied.
fn buffer(
    frame: EncodedFrame,
    pts: gst::ClockTime,
    decode_only: bool,
    discont: bool,
    captured: Option<SystemTime>,
) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(frame.payload);
    let buffer_mut = buffer.make_mut();
    let none = gst::ClockTime::NONE;
    buffer_mut.set_pts(pts);
    if !frame.keyframe {
        buffer_mut.set_flags(gst::BufferFlags::DELTA_UNIT);
    }
    if decode_only {
        buffer_mut.set_flags(gst::BufferFlags::DECODE_ONLY);
        // The flag does not get through most decoders; this does.
        gst::ReferenceTimestampMeta::add(buffer_mut, &HIDDEN, gst::ClockTime::ZERO, none);
    }
    if discont {
        buffer_mut.set_flags(gst::BufferFlags::DISCONT);
    }
    if let Some(captured) = captured.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
        let captured = gst::ClockTime::try_from(captured).unwrap_or(gst::ClockTime::MAX);
        gst::ReferenceTimestampMeta::add(buffer_mut, &UNIX, captured, none);
    }
    buffer
}

/// The reference of the capture time that each buffer carries: nanoseconds since 1970-01-01 UTC.
static UNIX: LazyLock<gst::Caps> =
    LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-unix"));

/// The reference of a time that means nothing, on what is to be decoded only.
static HIDDEN: LazyLock<gst::Caps> =
    LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-iroh-live-hidden"));

fn reference(buffer: &gst::BufferRef, caps: &gst::Caps) -> Option<gst::ClockTime> {
    let mut metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    let meta = metas.find(|meta| meta.reference() == &**caps)?;
    Some(meta.timestamp())
}

/// When what a buffer carries was captured, if that is known.
pub fn captured(buffer: &gst::BufferRef) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(reference(buffer, &UNIX)?.into())
}

/// Whether what a decoder made of a buffer was to be decoded only.
pub(in crate::media) fn is_hidden(buffer: &gst::BufferRef) -> bool {
    reference(buffer, &HIDDEN).is_some()
}

#[cfg(test)]
mod tests;
