//! One track of the source: an appsrc behind a pad.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use gst::{glib, prelude::*};
use iroh_live::{TrackConfig, broadcast::MediaKind, media::receive::feed::Feed};
use tokio::sync::watch;

use super::category::CAT;

pub(super) struct Track {
    /// Its name in the catalog.
    pub(super) name: String,
    pub(super) kind: MediaKind,
    pub(super) ghost: gst::GhostPad,
    pub(super) stream: gst::Stream,
    feed: Feed,
    /// None where the pad is there for its end alone.
    config: Mutex<Option<TrackConfig>>,
    link: watch::Sender<Link>,
    ended: AtomicBool,
    /// The publisher has begun it anew after its end.
    restarted: AtomicBool,
    delays: Delays,
    /// The latest timestamp read, plus one; in nanoseconds.
    read_until: AtomicU64,
}

/// Whether the pad is linked, and how often it has been: a link that is another one begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    pub(super) linked: bool,
    count: u64,
    /// The pad is gone for good.
    pub(super) removed: bool,
}

/// How late a frame may be before it is of no use, in nanoseconds.
#[derive(Default)]
struct Delays {
    /// As the user wants it.
    max_lag: AtomicU64,
    /// As the sinks wait for each other.
    pipeline: AtomicU64,
}

impl Delays {
    fn longest(&self) -> gst::ClockTime {
        let [a, b] = [&self.max_lag, &self.pipeline].map(|delay| delay.load(Ordering::Relaxed));
        gst::ClockTime::from_nseconds(a.max(b))
    }
}

/// What a pad is made of.
pub(super) struct PadSpec<'a> {
    pub(super) template: &'a gst::PadTemplate,
    pub(super) pad_name: &'a str,
    /// The track's name in the catalog.
    pub(super) name: &'a str,
    pub(super) kind: MediaKind,
    pub(super) config: Option<&'a TrackConfig>,
    pub(super) caps: Option<&'a gst::Caps>,
    pub(super) stream_id: &'a str,
    pub(super) group: gst::GroupId,
}

impl Track {
    pub(super) fn new(spec: &PadSpec) -> Result<Arc<Self>, glib::BoolError> {
        let appsrc = gst_app::AppSrc::builder()
            .name(format!("{}-appsrc", spec.pad_name))
            .is_live(true)
            .format(gst::Format::Time)
            .stream_type(gst_app::AppStreamType::Stream)
            .max_bytes(0)
            .build();
        appsrc.set_caps(spec.caps);
        let stream = stream(spec);
        let stream_start = gst::event::StreamStart::builder(spec.stream_id)
            .group_id(spec.group)
            .stream(stream.clone())
            .build();
        begin_with(&appsrc, stream_start.clone())?;
        let resuming = Arc::new(AtomicBool::new(false));
        let ghost = ghost(spec, &stream_start, resuming.clone())?;
        let track = Arc::new(Self {
            name: spec.name.to_owned(),
            kind: spec.kind,
            ghost,
            stream,
            feed: Feed::new(appsrc, spec.kind == MediaKind::Video),
            config: Mutex::new(spec.config.cloned()),
            link: watch::Sender::default(),
            ended: AtomicBool::new(false),
            restarted: AtomicBool::new(false),
            delays: Delays::default(),
            read_until: AtomicU64::new(0),
        });
        if let Some(tags) = spec.config.and_then(tags) {
            track.feed.appsrc().send_event(gst::event::Tag::new(tags));
        }
        track.watch_links(resuming);
        track.watch_latency();
        Ok(track)
    }

    fn watch_links(self: &Arc<Self>, resuming: Arc<AtomicBool>) {
        let weak = Arc::downgrade(self);
        self.ghost.connect("linked", false, move |_| {
            weak.upgrade()?.link.send_modify(|link| {
                link.linked = true;
                link.count += 1;
            });
            None
        });
        let weak = Arc::downgrade(self);
        self.ghost.connect("unlinked", false, move |_| {
            // Whoever is linked next has none of what came before.
            resuming.store(true, Ordering::Relaxed);
            weak.upgrade()?.link.send_modify(|link| link.linked = false);
            None
        });
    }

    fn watch_latency(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.ghost
            .add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
                if let Some(track) = weak.upgrade()
                    && let Some(gst::EventView::Latency(event)) = info.event().map(|e| e.view())
                {
                    let latency = event.latency().nseconds();
                    track.delays.pipeline.store(latency, Ordering::Relaxed);
                    track.feed.set_latency(track.delays.longest());
                }
                gst::PadProbeReturn::Ok
            });
    }

    pub(super) fn add_to(&self, bin: &gst::Bin) -> Result<(), glib::BoolError> {
        bin.add(self.feed.appsrc())?;
        // Not before, as adding an element to a bin unlinks its pads.
        self.ghost
            .set_target(self.feed.appsrc().static_pad("src").as_ref())?;
        self.feed.appsrc().sync_state_with_parent()?;
        bin.add_pad(&self.ghost)
    }

    pub(super) fn remove_from(&self, bin: &gst::Bin) {
        self.link.send_modify(|link| link.removed = true);
        self.feed.appsrc().set_locked_state(true);
        let _ = self.feed.appsrc().set_state(gst::State::Null);
        let _ = self.ghost.set_active(false);
        // It may not have been added yet.
        if self.ghost.parent().as_ref() == Some(bin.upcast_ref()) {
            let _ = bin.remove_pad(&self.ghost);
        }
        let _ = self.ghost.set_target(None::<&gst::Pad>);
        let _ = bin.remove(self.feed.appsrc());
    }

    /// Says on the pad what belongs to the broadcast, in front of the next frame.
    pub(super) fn send_collection(&self, collection: &gst::StreamCollection) {
        self.feed
            .appsrc()
            .send_event(gst::event::StreamCollection::new(collection));
    }

    /// What the LATENCY query is answered with, and how far the pipeline may fall behind before frames are skipped.
    pub(super) fn set_latency(&self, latency: gst::ClockTime, max_lag: gst::ClockTime) {
        self.feed
            .appsrc()
            .set_latency(latency, gst::ClockTime::NONE);
        let max_lag = max_lag.nseconds();
        self.delays.max_lag.store(max_lag, Ordering::Relaxed);
        self.feed.set_latency(self.delays.longest());
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn config(&self) -> Option<TrackConfig> {
        lock(&self.config).clone()
    }

    /// Of what it carries.
    pub(super) fn caps(&self) -> Option<gst::Caps> {
        self.stream.caps()
    }

    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    pub(super) fn note_read(&self, timestamp: Duration) {
        let nanos = u64::try_from(timestamp.as_nanos()).unwrap_or(u64::MAX);
        self.read_until
            .fetch_max(nanos.saturating_add(1), Ordering::Relaxed);
    }

    /// Whether a frame with this timestamp is later than all that were read.
    pub(super) fn is_newer(&self, timestamp: Duration) -> bool {
        timestamp.as_nanos() >= u128::from(self.read_until.load(Ordering::Relaxed))
    }

    /// The publisher has begun the track anew, which wants another pad: this one has given its end.
    pub(super) fn set_restarted(&self) {
        self.restarted.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_restarted(&self) -> bool {
        self.restarted.load(Ordering::Relaxed)
    }

    /// Takes a new description, which reaches downstream as caps in front of the next key frame.
    pub(super) fn update(&self, config: &TrackConfig, caps: &gst::Caps) {
        *lock(&self.config) = Some(config.clone());
        if self.feed.set_caps(caps) {
            gst::info!(CAT, obj = self.ghost, "caps: {caps}");
            self.stream.set_caps(Some(caps));
        }
    }

    /// Ends the pad's stream after what was pushed. Again has an effect only where the appsrc had not started.
    pub(super) fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            gst::info!(CAT, obj = self.ghost, "end of stream");
        }
        let _ = self.feed.appsrc().end_of_stream();
    }

    /// Whether what was pushed has left, with the end after it; or nobody takes it.
    pub(super) fn has_given_end(&self) -> bool {
        self.ghost.sticky_event::<gst::event::Eos<_>>(0).is_some() || !self.ghost.is_linked()
    }

    pub(super) fn stats(&self) -> gst::Structure {
        let stats = self.feed.stats();
        gst::Structure::builder("track")
            .field("name", self.name.as_str())
            .field("frames", stats.frames)
            .field("bytes", stats.bytes)
            .field("discontinuities", stats.discontinuities)
            .build()
    }
}

fn stream(spec: &PadSpec) -> gst::Stream {
    let kind = match spec.kind {
        MediaKind::Video => gst::StreamType::VIDEO,
        MediaKind::Audio => gst::StreamType::AUDIO,
    };
    let stream = gst::Stream::new(
        Some(spec.stream_id),
        spec.caps,
        kind,
        gst::StreamFlags::SELECT,
    );
    if let Some(tags) = spec.config.and_then(tags) {
        stream.set_tags(Some(&tags));
    }
    stream
}

/// Has the stream begin with this event: appsrc would give each pad a group of its own.
fn begin_with(appsrc: &gst_app::AppSrc, event: gst::Event) -> Result<(), glib::BoolError> {
    let src = appsrc
        .static_pad("src")
        .ok_or_else(|| glib::bool_error!("appsrc has no pad"))?;
    src.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info.event().map(|event| event.type_()) == Some(gst::EventType::StreamStart) {
            info.data = Some(gst::PadProbeData::Event(event.clone()));
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

fn ghost(
    spec: &PadSpec,
    stream_start: &gst::Event,
    resuming: Arc<AtomicBool>,
) -> Result<gst::GhostPad, glib::BoolError> {
    let ghost = gst::GhostPad::builder_from_template(spec.template)
        .name(spec.pad_name)
        .proxy_pad_chain_function(move |pad, parent, buffer| {
            forward(pad, parent, buffer, &resuming)
        })
        .build();
    // So that whoever handles pad-added finds the caps on the pad.
    ghost.set_active(true)?;
    ghost.store_sticky_event(stream_start).ok();
    if let Some(caps) = spec.caps {
        ghost.store_sticky_event(&gst::event::Caps::new(caps)).ok();
    }
    Ok(ghost)
}

/// Passes a buffer on. That nobody takes it is no reason for the appsrc to stop, nor for an error: a pad may be unlinked
/// or its peer be stopped while it plays, and linked again.
///
/// For several pads a flow combiner does that; for the last one it would return an error, though nothing is pushed
/// for long: an unlinked pad is not read.
fn forward(
    pad: &gst::ProxyPad,
    parent: Option<&gst::Object>,
    mut buffer: gst::Buffer,
    resuming: &AtomicBool,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    if resuming.load(Ordering::Relaxed) {
        if buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            return Ok(gst::FlowSuccess::Ok);
        }
        buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        resuming.store(false, Ordering::Relaxed);
    }
    match gst::ProxyPad::chain_default(pad, parent, buffer) {
        Err(gst::FlowError::NotLinked | gst::FlowError::Flushing) => {
            resuming.store(true, Ordering::Relaxed);
            Ok(gst::FlowSuccess::Ok)
        }
        flow => flow,
    }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
