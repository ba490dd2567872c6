//! One pad of the sink: a parser where one is needed, and an appsink that writes to a track.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    LocalBroadcast,
    broadcast::{LocalTrack, MediaKind, PublishTrackError, TrackConfig, TrackReservation},
    media::{
        caps::{self, Codec},
        sample,
    },
};

use super::{
    keyframes::{self, KeyframeRequests},
    stall::Stall,
    track::{Incoming, Track, Written},
};
use crate::log::SINK as CAT;

/// Upstream that holds back more than this is spoken of: nobody wants that of a live stream.
const LONGEST_LATENCY: gst::ClockTime = gst::ClockTime::from_mseconds(500);

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// What a pad needs of the element that it belongs to.
pub(super) trait Host: ElementImpl {
    /// The broadcast of this run.
    fn broadcast(&self) -> Option<LocalBroadcast>;

    /// Whether to wait on the clock where upstream does not.
    fn waits_on_clock(&self) -> bool;

    /// Makes the track of the pad called `pad`.
    fn publish_track(
        &self,
        pad: &str,
        config: TrackConfig,
    ) -> Result<LocalTrack, PublishTrackError>;

    /// A stream begins at the pad, perhaps after the end of another.
    fn pad_begins(&self, pad: &Pad);

    /// Nothing more comes from the pad for now.
    fn pad_ended(&self);

    /// Nothing will come of what flows into the pad. Returns whether others go on.
    fn pad_failed(&self, pad: &Pad, reason: &str) -> bool;
}

pub(super) struct Pad {
    pub(super) ghost: gst::GhostPad,
    appsink: gst_app::AppSink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    parser: Option<gst::Element>,
    codec: Option<Codec>,
    track: Track,
    keyframes: KeyframeRequests,
    stall: Stall,
    /// Why the last frame was dropped, if it was.
    dropped: Option<String>,
    latency_checked: bool,
    ended: bool,
    released: bool,
    /// Why nothing more comes from this pad.
    failure: Option<String>,
    frames: u64,
    bytes: u64,
}

impl Pad {
    pub(super) fn new<H: Host>(host: &H, template: &gst::PadTemplate, name: &str) -> Arc<Self> {
        let pad = Arc::new_cyclic(|weak| Self {
            ghost: ghost_pad::<H>(template, name, weak),
            appsink: gst_app::AppSink::builder()
                .name(format!("{name}-appsink"))
                // A pad without data must not keep the pipeline from starting.
                .async_(false)
                .sync(false)
                .enable_last_sample(false)
                .qos(false)
                .build(),
            state: Mutex::default(),
        });
        // Video from before the segment is what later frames refer to; audio from there is dropped below.
        pad.appsink.set_drop_out_of_segment(false);
        let (samples, ends, unlinked) = (
            (Arc::downgrade(&pad), host.ref_counted().downgrade()),
            (Arc::downgrade(&pad), host.ref_counted().downgrade()),
            host.ref_counted().downgrade(),
        );
        pad.appsink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    match (samples.0.upgrade(), samples.1.upgrade()) {
                        (Some(pad), Some(host)) => pad.write(&*host, &sample),
                        _ => Err(gst::FlowError::Flushing),
                    }
                })
                .eos(move |_| {
                    if let (Some(pad), Some(host)) = (ends.0.upgrade(), ends.1.upgrade()) {
                        pad.finish();
                        host.pad_ended();
                    }
                })
                .build(),
        );
        pad.ghost.connect_unlinked(move |_, _| {
            // It may be the last that the others waited for.
            if let Some(host) = unlinked.upgrade() {
                host.pad_ended();
            }
        });
        pad
    }

    /// Puts the pad's elements into the bin and links them.
    pub(super) fn add_to(&self, bin: &gst::Bin) -> Result<(), glib::BoolError> {
        bin.add(&self.appsink)?;
        self.target(self.appsink.static_pad("sink"))?;
        self.appsink.sync_state_with_parent()
    }

    /// Stops for good and takes the pad's elements out of the bin.
    pub(super) fn remove_from(&self, bin: &gst::Bin) {
        self.finish();
        let parser = {
            let mut state = self.state();
            state.released = true;
            state.parser.take()
        };
        // The appsink first: a thread that waits in it for the clock or for the pipeline to play has the pad's lock.
        let elements = [self.appsink.upcast_ref()].into_iter().chain(&parser);
        for element in elements.clone() {
            element.set_locked_state(true);
            let _ = element.set_state(gst::State::Null);
        }
        let _ = self.ghost.set_active(false);
        let _ = self.target(None);
        for element in elements {
            let _ = bin.remove(element);
        }
        self.end();
    }

    /// Begins a run, or begins anew within one: the pad's track will be part of the broadcast.
    pub(super) fn begin(&self, reservation: TrackReservation) {
        let mut state = self.state();
        *state = State {
            parser: state.parser.take(),
            codec: state.codec,
            track: Track::new(reservation),
            frames: state.frames,
            bytes: state.bytes,
            ..State::default()
        };
    }

    /// Ends a run, without telling viewers that it was meant to end.
    pub(super) fn end(&self) {
        self.state().track = Track::default();
    }

    /// Upstream ended, or the pad goes away: viewers get the track's end.
    fn finish(&self) {
        let mut state = self.state();
        state.ended = true;
        if let Err(error) = state.track.finish() {
            gst::debug!(CAT, obj = self.ghost, "end of track: {error}");
        }
    }

    /// Nothing more comes from this pad, as its stream is broken.
    ///
    /// Returns the reason if it was in order until now.
    pub(super) fn fail(&self, reason: &str) -> Option<String> {
        let reason = {
            let mut state = self.state();
            if state.ended {
                return None;
            }
            state
                .failure
                .get_or_insert_with(|| reason.to_owned())
                .clone()
        };
        self.finish();
        Some(reason)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.state().failure.is_some()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Whether this pad has the element among its own.
    pub(super) fn owns(&self, element: &gst::Object) -> bool {
        let parser = self.state().parser.clone();
        self.appsink.upcast_ref::<gst::Object>() == element
            || parser.is_some_and(|parser| parser.upcast_ref::<gst::Object>() == element)
    }

    pub(super) fn stats(&self) -> gst::Structure {
        let state = self.state();
        gst::Structure::builder("track")
            .field("name", state.track.name())
            .field("frames", state.frames)
            .field("bytes", state.bytes)
            .field("watched", state.track.is_watched())
            .build()
    }

    fn target(&self, target: Option<gst::Pad>) -> Result<(), glib::BoolError> {
        self.ghost.set_target(target.as_ref())
    }

    /// Never held while elements change state, pads are linked, or anything is posted.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event<H: Host>(&self, host: &H, parent: Option<&gst::Object>, event: gst::Event) -> bool {
        gst::log!(CAT, obj = self.ghost, "{event:?}");
        let pass = |event| gst::Pad::event_default(&self.ghost, parent, event);
        match event.view() {
            gst::EventView::Caps(caps) => {
                if let Err(message) = self.configure(host, caps.caps()) {
                    // Said once: what comes is dropped, so that upstream has nothing to complain of.
                    if self.fail("its caps were refused").is_some() {
                        host.post_error_message(message);
                    }
                    return true;
                }
                pass(event)
            }
            gst::EventView::StreamStart(_) => {
                host.pad_begins(self);
                pass(event)
            }
            gst::EventView::FlushStart(_) => {
                // Like any sink that waits on the clock it loses its state, so that time begins anew when the first buffer
                // after the flush is there.
                self.appsink.set_async(true);
                let passed = pass(event);
                self.appsink.set_async(false);
                passed
            }
            gst::EventView::FlushStop(flush) => {
                let resets_time = flush.resets_time();
                let passed = pass(event);
                self.flushed(host, resets_time);
                passed
            }
            _ => pass(event),
        }
    }

    /// What comes now does not continue what came before.
    fn flushed<H: Host>(&self, host: &H, resets_time: bool) {
        if self.has_failed() {
            // Upstream may do better this time.
            self.state().failure = None;
        }
        host.pad_begins(self);
        if let Some(broadcast) = host.broadcast() {
            if resets_time {
                broadcast.restart();
            } else {
                broadcast.resume();
            }
        }
        let mut state = self.state();
        state.track.interrupt();
        state.stall = Stall::default();
    }

    /// Links what is right for `caps` behind the pad.
    ///
    /// # Errors
    /// An error message for the bus.
    fn configure<H: Host>(&self, host: &H, caps: &gst::CapsRef) -> Result<(), gst::ErrorMessage> {
        let pad = self.ghost.name();
        let codec = Codec::of(caps).map_err(|reason| {
            gst::error_msg!(gst::StreamError::WrongType, ("Pad {pad}: {reason}"))
        })?;
        self.appsink
            .set_sync(host.waits_on_clock() && !self.upstream_latency().0);
        if self.state().codec == Some(codec) {
            return Ok(());
        }
        let bin = host.obj();
        let bin = bin.upcast_ref::<gst::Element>().downcast_ref::<gst::Bin>();
        let linked = bin
            .ok_or_else(|| glib::bool_error!("the element is no bin"))
            .and_then(|bin| self.link(bin, codec));
        linked.map_err(|error| {
            gst::error_msg!(gst::CoreError::Negotiation, ("Pad {pad}: {error}"))
        })?;
        let mut state = self.state();
        state.codec = Some(codec);
        state.track.forget_caps();
        Ok(())
    }

    fn link(&self, bin: &gst::Bin, codec: Codec) -> Result<(), glib::BoolError> {
        self.target(None)?;
        let old = self.state().parser.take();
        if let Some(old) = old {
            let _ = old.set_state(gst::State::Null);
            let _ = bin.remove(&old);
        }
        let Some(factory) = codec.parser() else {
            self.appsink.set_caps(None);
            return self.target(self.appsink.static_pad("sink"));
        };
        let parser = gst::ElementFactory::make(factory).build().map_err(|_| {
            glib::bool_error!(
                "the element {factory} is missing: install gstreamer1.0-plugins-bad and gstreamer1.0-plugins-good"
            )
        })?;
        for (name, value) in codec.parser_settings() {
            if parser.has_property(name) {
                parser.set_property_from_str(name, value);
            }
        }
        self.appsink.set_caps(Some(&codec.wire_caps()));
        bin.add(&parser)?;
        parser.link(&self.appsink)?;
        parser.sync_state_with_parent()?;
        self.target(parser.static_pad("sink"))?;
        self.state().parser = Some(parser);
        Ok(())
    }

    /// Whether upstream is live, and for how long it holds back what it gives.
    fn upstream_latency(&self) -> (bool, gst::ClockTime) {
        let mut query = gst::query::Latency::new();
        if !self.ghost.peer_query(&mut query) {
            return (false, gst::ClockTime::ZERO);
        }
        let (live, min, _) = query.result();
        (live, min)
    }

    /// Takes what flows in, and keeps what is wrong with it from stopping the other pads.
    fn chain<H: Host>(&self, host: &H, push: impl FnOnce() -> Flow) -> Flow {
        if self.has_failed() {
            return Ok(gst::FlowSuccess::Ok);
        }
        let reason = match push() {
            Err(gst::FlowError::Error) => "the stream cannot be parsed".to_owned(),
            Err(gst::FlowError::NotNegotiated) => format!(
                "its caps do not fit ({})",
                self.ghost
                    .current_caps()
                    .map_or("there are none".into(), |caps| caps.to_string())
            ),
            // A demuxer goes on with what is still linked.
            Err(gst::FlowError::Flushing) if self.state().released => {
                return Err(gst::FlowError::NotLinked);
            }
            flow => {
                self.report_stall(host);
                return flow;
            }
        };
        if !host.pad_failed(self, &reason) {
            return Err(gst::FlowError::Error);
        }
        // After a flush the pipeline waits for a buffer, or for an end as this is.
        if let Some(pad) = self.appsink.static_pad("sink") {
            pad.send_event(gst::event::Eos::new());
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// Says so if buffers come and come, and nothing is made of them. They are taken all the same: it may be that a key
    /// frame comes at last.
    fn report_stall<H: Host>(&self, host: &H) {
        let reason = {
            let mut state = self.state();
            if state.ended || !state.stall.buffer(Instant::now()) {
                return;
            }
            state.dropped.clone()
        };
        keyframes::request(&self.ghost);
        gst::element_imp_warning!(
            host,
            gst::StreamError::Decode,
            (
                "Nothing has come of what flows into pad {} for a while: {}. It is taken as soon as it is in order",
                self.ghost.name(),
                reason.as_deref().unwrap_or(
                    "no frame is found in it; look whether it is what its caps say, or put a parser before the pad"
                )
            )
        );
    }

    /// Writes a frame to the track.
    fn write<H: Host>(&self, host: &H, sample: &gst::Sample) -> Flow {
        let (Some(buffer), Some(segment), Some(frame_caps), Some(broadcast)) = (
            sample.buffer_owned(),
            sample.segment(),
            sample.caps(),
            host.broadcast(),
        ) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let codec = self.state().codec;
        let Some(codec) = codec.filter(|codec| !caps::is_header(*codec, &buffer)) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let element = host.obj();
        let now = element.upcast_ref::<gst::Element>().current_running_time();
        let Some(time) = running_time(&buffer, segment, now) else {
            gst::debug!(CAT, obj = self.ghost, "dropped a frame without a time");
            return Ok(gst::FlowSuccess::Ok);
        };
        if buffer.size() == 0 || (!codec.is_video() && time < 0) {
            // Audio from before the segment. Video from there is kept, as later frames refer to it.
            return Ok(gst::FlowSuccess::Ok);
        }
        let now = now.and_then(|now| i64::try_from(now.nseconds()).ok());
        let Some((timestamp, moves)) = broadcast.timestamp(time, now) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let flags = buffer.flags();
        let frame = Incoming {
            codec,
            caps: frame_caps,
            payload: sample::payload(buffer).ok_or(gst::FlowError::Error)?,
            timestamp,
            moves,
            is_keyframe: !codec.is_video() || !flags.contains(gst::BufferFlags::DELTA_UNIT),
            is_discontinuity: flags.contains(gst::BufferFlags::DISCONT),
        };
        let written = {
            let mut state = self.state();
            if state.failure.is_some() || state.ended {
                return Ok(gst::FlowSuccess::Ok);
            }
            let name = self.ghost.name();
            state
                .track
                .write(frame, |config| host.publish_track(&name, config))
        };
        self.written(host, written)
    }

    /// What follows from what became of a frame.
    fn written<H: Host>(&self, host: &H, written: Written) -> Flow {
        match written {
            Written::Published(size) => {
                let check_latency = {
                    let mut state = self.state();
                    state.frames += 1;
                    state.bytes += size;
                    state.keyframes.answered();
                    state.stall.published();
                    state.dropped = None;
                    !std::mem::replace(&mut state.latency_checked, true)
                };
                if check_latency {
                    self.report_latency(host);
                }
            }
            Written::NeedsKeyframe(reason) => {
                gst::debug!(CAT, obj = self.ghost, "a frame is dropped: {reason}");
                let ask = {
                    let mut state = self.state();
                    state.dropped = Some(reason);
                    state.keyframes.is_due(Instant::now())
                };
                if ask {
                    keyframes::request(&self.ghost);
                }
            }
            Written::Dropped(reason) => {
                gst::warning!(CAT, obj = self.ghost, "a frame is dropped: {reason}");
                self.state().dropped = Some(reason);
            }
            Written::TooLarge(reason) => {
                keyframes::request(&self.ghost);
                gst::element_imp_warning!(
                    host,
                    gst::StreamError::Encode,
                    (
                        "Pad {}: {reason}. Frames are dropped until the next key frame",
                        self.ghost.name()
                    )
                );
            }
            Written::Ended => return Err(gst::FlowError::Eos),
            Written::Failed(reason) => {
                self.state().failure = Some(reason);
                return Err(gst::FlowError::Error);
            }
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn report_latency<H: Host>(&self, host: &H) {
        let (live, latency) = self.upstream_latency();
        gst::debug!(
            CAT,
            obj = self.ghost,
            "upstream: live {live}, latency {latency}"
        );
        if live && latency >= LONGEST_LATENCY {
            gst::element_imp_warning!(
                host,
                gst::StreamError::Encode,
                (
                    "What comes into pad {} is held back for {} ms before it gets here, and viewers see it that much later. Most often that is an encoder that looks ahead, or a jitter buffer: set tune=zerolatency on x264enc, a smaller latency on rtspsrc",
                    self.ghost.name(),
                    latency.mseconds()
                )
            );
        }
    }
}

/// When a frame is presented, in nanoseconds of the pipeline's running time.
fn running_time(
    buffer: &gst::BufferRef,
    segment: &gst::Segment,
    now: Option<gst::ClockTime>,
) -> Option<i64> {
    let nanos = |time: gst::ClockTime| i64::try_from(time.nseconds()).unwrap_or(i64::MAX);
    let time = buffer.pts().or(buffer.dts());
    match (time, segment.downcast_ref::<gst::ClockTime>()) {
        (Some(time), Some(segment)) => match segment.to_running_time_full(time)? {
            gst::Signed::Positive(time) => Some(nanos(time)),
            gst::Signed::Negative(time) => Some(-nanos(time)),
        },
        // A stream without timestamps, as raw Annex B from a file: it is shown when it comes.
        _ => now.map(nanos),
    }
}

fn ghost_pad<H: Host>(template: &gst::PadTemplate, name: &str, weak: &Weak<Pad>) -> gst::GhostPad {
    let (events, buffers, lists) = (weak.clone(), weak.clone(), weak.clone());
    gst::GhostPad::builder_from_template(template)
        .name(name)
        .query_function(|pad, parent, query| {
            H::catch_panic_pad_function(parent, || false, |_| sink_query(pad, parent, query))
        })
        .event_function(move |_, parent, event| {
            H::catch_panic_pad_function(
                parent,
                || false,
                |host| {
                    events
                        .upgrade()
                        .is_some_and(|pad| pad.event(host, parent, event))
                },
            )
        })
        .chain_function(move |ghost, parent, buffer| {
            H::catch_panic_pad_function(
                parent,
                || Err(gst::FlowError::Error),
                |host| {
                    let pad = buffers.upgrade().ok_or(gst::FlowError::NotLinked)?;
                    pad.chain(host, || gst::ProxyPad::chain_default(ghost, parent, buffer))
                },
            )
        })
        .chain_list_function(move |ghost, parent, list| {
            H::catch_panic_pad_function(
                parent,
                || Err(gst::FlowError::Error),
                |host| {
                    let pad = lists.upgrade().ok_or(gst::FlowError::NotLinked)?;
                    pad.chain(host, || {
                        gst::ProxyPad::chain_list_default(ghost, parent, list)
                    })
                },
            )
        })
        .build()
}

/// A pad takes audio and video alike, whatever its name.
fn sink_query(
    pad: &gst::GhostPad,
    parent: Option<&gst::Object>,
    query: &mut gst::QueryRef,
) -> bool {
    gst::log!(CAT, obj = pad, "{query:?}");
    match query.view_mut() {
        gst::QueryViewMut::Caps(query) => {
            let all = all_caps();
            let result = match query.filter_owned() {
                Some(filter) => filter.intersect_with_mode(&all, gst::CapsIntersectMode::First),
                None => all,
            };
            query.set_result(&result);
            true
        }
        gst::QueryViewMut::AcceptCaps(query) => {
            let accepted = query.caps().can_intersect(&all_caps());
            query.set_result(accepted);
            true
        }
        _ => gst::Pad::query_default(pad, parent, query),
    }
}

/// What any pad takes.
pub(super) fn all_caps() -> gst::Caps {
    let mut all = caps::sink_caps(MediaKind::Video);
    all.merge(caps::sink_caps(MediaKind::Audio));
    all
}
