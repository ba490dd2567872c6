//! One track of the source: reads frames, stamps them, pushes them into an appsrc behind a pad.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gst::{glib, prelude::*};
use iroh_live::{
    EncodedFrame, RemoteBroadcast, TrackConfig,
    broadcast::{EncodedReader, ReadError, SubscribeTrackError},
    playout::{Event, Playout},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::imp::CAT;

/// More than this is not kept for a pad that does not take its data.
const MAX_QUEUED_BYTES: u64 = 64 << 20;

/// How often frames that are held while the timeline is being found are looked at.
const HOLD_TICK: Duration = Duration::from_millis(4);

/// What all tracks of a broadcast share.
pub(super) struct Timeline {
    playout: Mutex<Playout>,
    /// Counts the jumps of the mapping; each track flags a discontinuity when it has changed.
    jumps: AtomicU32,
    /// Numbers the subscriptions, for the playout to tell them apart.
    subscriptions: AtomicU32,
}

impl Timeline {
    pub(super) fn new(latency: Duration) -> Self {
        Self {
            playout: Mutex::new(Playout::new(latency)),
            jumps: AtomicU32::new(0),
            subscriptions: AtomicU32::new(0),
        }
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Playout) -> T) -> T {
        f(&mut self.playout.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins anew, as after a pause.
    pub(super) fn restart(&self, latency: Duration) {
        self.with(|playout| *playout = Playout::new(latency));
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection is back. What is mapped from now on is a discontinuity.
    pub(super) fn reconnected(&self, now: u64) {
        self.with(|playout| playout.reconnected(now));
        self.jumps.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct Track {
    /// Its name in the catalog.
    pub(super) name: String,
    pub(super) ghost: gst::GhostPad,
    pub(super) stream: gst::Stream,
    appsrc: gst_app::AppSrc,
    config: Mutex<TrackConfig>,
    /// Caps that hold from the next key frame on: the catalog is ahead of the frames.
    next_caps: Mutex<Option<gst::Caps>>,
    linked: watch::Sender<bool>,
    ended: AtomicBool,
    frames: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
}

/// How reading a track ended.
pub(super) enum End {
    /// The publisher ended the track.
    Finished,
    /// The pad takes no more data.
    Downstream,
    /// The publisher or the connection is gone.
    Lost(ReadError),
    /// The publisher does not give the track.
    Refused(SubscribeTrackError),
}

impl Track {
    pub(super) fn new(
        template: &gst::PadTemplate,
        pad_name: &str,
        name: &str,
        config: &TrackConfig,
        caps: &gst::Caps,
        latency: gst::ClockTime,
        ids: (&str, gst::GroupId),
    ) -> Result<Arc<Self>, glib::BoolError> {
        let appsrc = gst_app::AppSrc::builder()
            .name(format!("{pad_name}-appsrc"))
            .is_live(true)
            .format(gst::Format::Time)
            .stream_type(gst_app::AppStreamType::Stream)
            .max_bytes(0)
            .caps(caps)
            .build();
        appsrc.set_latency(latency, gst::ClockTime::NONE);
        let (stream_id, group) = ids;
        let kind = match config {
            TrackConfig::Video(_) => gst::StreamType::VIDEO,
            TrackConfig::Audio(_) => gst::StreamType::AUDIO,
        };
        let stream = gst::Stream::new(Some(stream_id), Some(caps), kind, gst::StreamFlags::SELECT);
        if let Some(tags) = tags(config) {
            stream.set_tags(Some(&tags));
        }
        let stream_start = gst::event::StreamStart::builder(stream_id)
            .group_id(group)
            .stream(stream.clone())
            .build();
        let src = appsrc
            .static_pad("src")
            .ok_or_else(|| glib::bool_error!("appsrc has no pad"))?;
        let own = stream_start.clone();
        src.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(event) = info.event()
                && event.type_() == gst::EventType::StreamStart
            {
                // appsrc would give each pad a group of its own.
                info.data = Some(gst::PadProbeData::Event(own.clone()));
            }
            gst::PadProbeReturn::Ok
        });
        let ghost = gst::GhostPad::builder_from_template(template)
            .name(pad_name)
            .build();
        // So that whoever handles pad-added finds the caps on the pad.
        ghost.set_active(true)?;
        ghost.store_sticky_event(&stream_start).ok();
        ghost.store_sticky_event(&gst::event::Caps::new(caps)).ok();
        let track = Arc::new(Self {
            name: name.to_owned(),
            ghost,
            stream,
            appsrc,
            config: Mutex::new(config.clone()),
            next_caps: Mutex::default(),
            linked: watch::Sender::new(false),
            ended: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        });
        if let Some(tags) = tags(config) {
            track.appsrc.send_event(gst::event::Tag::new(tags));
        }
        for (signal, linked) in [("linked", true), ("unlinked", false)] {
            let weak = Arc::downgrade(&track);
            track.ghost.connect(signal, false, move |_| {
                if let Some(track) = weak.upgrade() {
                    track.linked.send_replace(linked);
                }
                None
            });
        }
        Ok(track)
    }

    pub(super) fn add_to(&self, bin: &gst::Bin) -> Result<(), glib::BoolError> {
        bin.add(&self.appsrc)?;
        // Not before, as adding an element to a bin unlinks its pads.
        self.ghost
            .set_target(self.appsrc.static_pad("src").as_ref())?;
        self.appsrc.sync_state_with_parent()?;
        bin.add_pad(&self.ghost)
    }

    pub(super) fn remove_from(&self, bin: &gst::Bin) {
        self.appsrc.set_locked_state(true);
        let _ = self.appsrc.set_state(gst::State::Null);
        let _ = self.ghost.set_active(false);
        // It may not have been added yet.
        if self.ghost.parent().as_ref() == Some(bin.upcast_ref()) {
            let _ = bin.remove_pad(&self.ghost);
        }
        let _ = self.ghost.set_target(None::<&gst::Pad>);
        let _ = bin.remove(&self.appsrc);
    }

    /// Says on the pad what belongs to the broadcast, in front of the next frame.
    pub(super) fn send_collection(&self, collection: &gst::StreamCollection) {
        self.appsrc
            .send_event(gst::event::StreamCollection::new(collection));
    }

    pub(super) fn set_latency(&self, latency: gst::ClockTime) {
        self.appsrc.set_latency(latency, gst::ClockTime::NONE);
    }

    pub(super) fn is_video(&self) -> bool {
        self.config().is_video()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn config(&self) -> TrackConfig {
        self.config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a new description, which reaches downstream as caps in front of the next key frame.
    pub(super) fn update(&self, config: &TrackConfig, caps: &gst::Caps) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        if self.appsrc.caps().as_ref() != Some(caps) {
            gst::info!(CAT, obj = self.ghost, "caps: {caps}");
            self.stream.set_caps(Some(caps));
            *self.next_caps() = Some(caps.clone());
        }
    }

    fn next_caps(&self) -> MutexGuard<'_, Option<gst::Caps>> {
        self.next_caps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            gst::info!(CAT, obj = self.ghost, "end of stream");
            let _ = self.appsrc.end_of_stream();
        }
    }

    /// Waits a moment for what was pushed to leave, so that a pad that goes away has given its end.
    ///
    /// Blocks; not for the state change, where nobody takes data any more.
    pub(super) fn drain(&self, cancel: &CancellationToken) {
        let deadline = std::time::Instant::now() + Duration::from_millis(500);
        let eos = || {
            self.ghost.sticky_event::<gst::event::Eos<_>>(0).is_some() || !self.ghost.is_linked()
        };
        while !eos() && !cancel.is_cancelled() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn stats(&self) -> gst::Structure {
        gst::Structure::builder("track")
            .field("pad", self.ghost.name())
            .field("name", self.name.as_str())
            .field("frames", self.frames.load(Ordering::Relaxed))
            .field("bytes", self.bytes.load(Ordering::Relaxed))
            .field("discontinuities", self.skipped.load(Ordering::Relaxed))
            .build()
    }

    /// Reads the track for as long as the pipeline plays and the pad is linked.
    pub(super) async fn read(
        &self,
        broadcast: RemoteBroadcast,
        timeline: &Timeline,
        max_age: Duration,
        zero: Option<SystemTime>,
        mut playing: watch::Receiver<bool>,
        running_time: impl Fn() -> Option<gst::ClockTime>,
    ) -> End {
        let mut linked = self.linked.subscribe();
        loop {
            // Nothing is downloaded for a pad that nobody takes data from.
            if playing.wait_for(|playing| *playing).await.is_err()
                || linked.wait_for(|linked| *linked).await.is_err()
            {
                return End::Downstream;
            }
            if !*playing.borrow() {
                continue;
            }
            let config = self.config();
            let mut reader = match broadcast.subscribe(&self.name, &config, max_age).await {
                Ok(reader) => reader,
                Err(error) => return End::Refused(error),
            };
            let mut stamper = Stamper {
                track: self,
                timeline,
                zero,
                number: timeline.subscriptions.fetch_add(1, Ordering::Relaxed),
                video: config.is_video(),
                held: Vec::new(),
                jumps: None,
                needs_key: config.is_video(),
            };
            let flow = tokio::select! {
                flow = stamper.run(&mut reader, &running_time) => flow,
                _ = playing.wait_for(|playing| !*playing) => continue,
                _ = linked.wait_for(|linked| !*linked) => continue,
            };
            return flow;
        }
    }
}

/// Gives the frames of one subscription their times.
struct Stamper<'a> {
    track: &'a Track,
    timeline: &'a Timeline,
    zero: Option<SystemTime>,
    number: u32,
    video: bool,
    /// Frames that wait for the timeline to be found.
    held: Vec<EncodedFrame>,
    /// The timeline's count of jumps at the last buffer; `None` before the first.
    jumps: Option<u32>,
    needs_key: bool,
}

impl Stamper<'_> {
    async fn run(
        &mut self,
        reader: &mut EncodedReader,
        running_time: &impl Fn() -> Option<gst::ClockTime>,
    ) -> End {
        let mut tick = tokio::time::interval(HOLD_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let flow = tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => self.frame(frame, running_time()),
                    Ok(None) => {
                        let _ = self.release();
                        return End::Finished;
                    }
                    Err(error) => {
                        let _ = self.release();
                        return End::Lost(error);
                    }
                },
                _ = tick.tick(), if !self.held.is_empty() => self.release_if_acquired(running_time()),
            };
            if flow.is_err() {
                return End::Downstream;
            }
        }
    }

    fn frame(
        &mut self,
        frame: EncodedFrame,
        now: Option<gst::ClockTime>,
    ) -> Result<(), gst::FlowError> {
        // Without a clock nothing can be timed; the state change to PLAYING brings it.
        let Some(now) = now else { return Ok(()) };
        let event = self
            .timeline
            .with(|playout| playout.observe(self.number, nanos(frame.timestamp), now.nseconds()));
        match event {
            Event::Steady => {}
            Event::Stepped { by } => {
                gst::info!(
                    CAT,
                    obj = self.track.ghost,
                    "the delay of the path changed: {} ms",
                    by / 1_000_000
                );
                self.timeline.jumps.fetch_add(1, Ordering::Relaxed);
            }
            Event::Reanchored => {
                gst::info!(
                    CAT,
                    obj = self.track.ghost,
                    "the publisher's timeline jumped"
                );
                self.timeline.jumps.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.held.push(frame);
        self.release_if_acquired(Some(now))
    }

    fn release_if_acquired(&mut self, now: Option<gst::ClockTime>) -> Result<(), gst::FlowError> {
        let now = now.unwrap_or_default().nseconds();
        if self.timeline.with(|playout| playout.acquired(now)) {
            return self.release();
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), gst::FlowError> {
        for frame in std::mem::take(&mut self.held) {
            self.push(frame)?;
        }
        Ok(())
    }

    fn push(&mut self, frame: EncodedFrame) -> Result<(), gst::FlowError> {
        let track = self.track;
        if track.appsrc.current_level_bytes() > MAX_QUEUED_BYTES {
            if !self.needs_key {
                gst::warning!(
                    CAT,
                    obj = track.ghost,
                    "downstream is too slow: frames are dropped"
                );
            }
            self.needs_key = true;
            self.jumps = None;
            return Ok(());
        }
        if self.needs_key && !frame.keyframe {
            return Ok(());
        }
        let pts = self
            .timeline
            .with(|playout| playout.map(nanos(frame.timestamp)));
        let pts = match u64::try_from(pts) {
            Ok(pts) => gst::ClockTime::from_nseconds(pts),
            // From before this pipeline began to run: a decoder needs the picture, nobody needs the sound.
            Err(_) if self.video => gst::ClockTime::ZERO,
            Err(_) => return Ok(()),
        };
        let jumps = self.timeline.jumps.load(Ordering::Relaxed);
        let discont = self.jumps.replace(jumps) != Some(jumps) || frame.discontinuity;
        self.needs_key = false;
        if frame.keyframe
            && let Some(caps) = track.next_caps().take()
        {
            track.appsrc.set_caps(Some(&caps));
        }
        let size = frame.payload.len() as u64;
        let mut buffer = gst::Buffer::from_slice(frame.payload);
        let buffer_mut = buffer.make_mut();
        buffer_mut.set_pts(pts);
        if !frame.keyframe {
            buffer_mut.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        if discont {
            buffer_mut.set_flags(gst::BufferFlags::DISCONT);
            track.skipped.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(captured) = self.zero.and_then(|zero| {
            let time = zero.checked_add(frame.timestamp)?;
            time.duration_since(UNIX_EPOCH).ok()
        }) {
            gst::ReferenceTimestampMeta::add(
                buffer_mut,
                &unix_caps(),
                gst::ClockTime::from_nseconds(nanos(captured)),
                gst::ClockTime::NONE,
            );
        }
        track.appsrc.push_buffer(buffer)?;
        track.frames.fetch_add(1, Ordering::Relaxed);
        track.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }
}

/// The reference of the capture time that each buffer carries: nanoseconds since 1970-01-01 UTC.
fn unix_caps() -> gst::Caps {
    static CAPS: std::sync::LazyLock<gst::Caps> =
        std::sync::LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-unix"));
    CAPS.clone()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What the catalog says of a track beside its caps.
fn tags(config: &TrackConfig) -> Option<gst::TagList> {
    let (label, bitrate) = match config {
        TrackConfig::Video(config) => (config.label.as_deref(), config.bitrate),
        TrackConfig::Audio(config) => (config.label.as_deref(), config.bitrate),
    };
    let mut list = gst::TagList::new();
    let tags = list.make_mut();
    if let Some(label) = label {
        tags.add::<gst::tags::Title>(&label, gst::TagMergeMode::Replace);
    }
    if let Some(bitrate) = bitrate.and_then(|bitrate| u32::try_from(bitrate).ok()) {
        tags.add::<gst::tags::MaximumBitrate>(&bitrate, gst::TagMergeMode::Replace);
    }
    (list.n_tags() > 0).then_some(list)
}
