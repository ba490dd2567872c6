//! One pad of the sink: a parser where one is needed, and an appsink that writes to a track.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    EncodedFrame,
    broadcast::{LocalTrack, MediaKind, TrackReservation, WriteError},
    media::caps::{self, Codec},
};

use super::{Sync, imp};

/// So many buffers in a row that nothing comes of are no stream that begins in the middle: they are something else.
const UNPARSABLE: u64 = 1200;

pub(super) struct Pad {
    pub(super) ghost: gst::GhostPad,
    appsink: gst_app::AppSink,
    state: Mutex<PadState>,
    frames: AtomicU64,
    bytes: AtomicU64,
    /// Buffers that came in since a frame was published.
    fruitless: AtomicU64,
}

#[derive(Default)]
struct PadState {
    parser: Option<gst::Element>,
    codec: Option<Codec>,
    /// Holds this pad's place in the first catalog.
    reservation: Option<TrackReservation>,
    track: Option<LocalTrack>,
    /// The caps that the track was described by.
    caps: Option<gst::Caps>,
    /// The publisher's count of moves of the timeline when the last frame was written.
    moves: u32,
    discont: bool,
    ended: bool,
    /// Why nothing more comes from this pad.
    failure: Option<String>,
}

impl Pad {
    pub(super) fn new(
        sink: &imp::IrohLiveSink,
        template: &gst::PadTemplate,
        name: &str,
    ) -> Result<Arc<Self>, glib::BoolError> {
        let appsink = gst_app::AppSink::builder()
            .name(format!("{name}-appsink"))
            // A pad without data must not keep the pipeline from starting.
            .async_(false)
            .sync(false)
            .enable_last_sample(false)
            .qos(false)
            .build();
        // Video from before the segment is what later frames refer to; audio from there is dropped below.
        appsink.set_drop_out_of_segment(false);
        let ghost = gst::GhostPad::builder_from_template(template)
            .name(name)
            .query_function(|pad, parent, query| {
                imp::IrohLiveSink::catch_panic_pad_function(
                    parent,
                    || false,
                    |_| sink_query(pad, parent, query),
                )
            })
            .event_function(|pad, parent, event| {
                imp::IrohLiveSink::catch_panic_pad_function(
                    parent,
                    || false,
                    |sink| sink.sink_event(pad, parent, event),
                )
            })
            .chain_function(|pad, parent, buffer| {
                imp::IrohLiveSink::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |sink| {
                        let flow = gst::ProxyPad::chain_default(pad, parent, buffer);
                        sink.isolate(pad, flow)
                    },
                )
            })
            .chain_list_function(|pad, parent, list| {
                imp::IrohLiveSink::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |sink| {
                        let flow = gst::ProxyPad::chain_list_default(pad, parent, list);
                        sink.isolate(pad, flow)
                    },
                )
            })
            .build();
        let pad = Arc::new(Self {
            ghost,
            appsink,
            state: Mutex::default(),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            fruitless: AtomicU64::new(0),
        });
        let (weak, element) = (Arc::downgrade(&pad), sink.weak_element());
        let (eos_weak, eos_element) = (weak.clone(), element.clone());
        pad.appsink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |appsink| {
                    let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let (Some(pad), Some(element)) = (weak.upgrade(), element.upgrade()) else {
                        return Err(gst::FlowError::Flushing);
                    };
                    imp::IrohLiveSink::of(&element).write(&pad, &sample)
                })
                .eos(move |_| {
                    if let (Some(pad), Some(element)) = (eos_weak.upgrade(), eos_element.upgrade())
                    {
                        pad.finish();
                        imp::IrohLiveSink::of(&element).pad_ended();
                    }
                })
                .build(),
        );
        Ok(pad)
    }

    /// Puts the pad's elements into the bin and links them.
    pub(super) fn add_to(&self, bin: &gst::Bin) -> Result<(), glib::BoolError> {
        bin.add(&self.appsink)?;
        self.target(self.appsink.static_pad("sink"))?;
        self.appsink.sync_state_with_parent()
    }

    /// Takes the pad's elements out of the bin.
    pub(super) fn remove_from(&self, bin: &gst::Bin) {
        let _ = self.target(None);
        let parser = self.state().parser.take();
        for element in parser.iter().chain([self.appsink.upcast_ref()]) {
            // Stops for good before it leaves, whatever the bin does in the meantime.
            element.set_locked_state(true);
            let _ = element.set_state(gst::State::Null);
            let _ = bin.remove(element);
        }
    }

    /// Links what is right for `caps` behind the pad.
    ///
    /// # Errors
    /// An error message for the bus.
    pub(super) fn configure(
        &self,
        bin: &gst::Bin,
        caps: &gst::CapsRef,
        sync: Sync,
    ) -> Result<(), gst::ErrorMessage> {
        let pad = self.ghost.name();
        let codec = Codec::of(caps).map_err(|reason| {
            gst::error_msg!(gst::StreamError::WrongType, ("Pad {pad}: {reason}"))
        })?;
        self.appsink.set_sync(match sync {
            Sync::True => true,
            Sync::False => false,
            Sync::Auto => !self.upstream_is_live(),
        });
        if self.state().codec == Some(codec) {
            return Ok(());
        }
        let failed = |error: glib::BoolError| {
            gst::error_msg!(gst::CoreError::Negotiation, ("Pad {pad}: {error}"))
        };
        self.target(None).map_err(failed)?;
        let old = self.state().parser.take();
        if let Some(old) = old {
            let _ = old.set_state(gst::State::Null);
            let _ = bin.remove(&old);
        }
        let appsink_pad = self.appsink.static_pad("sink");
        match codec.parser() {
            None => {
                self.appsink.set_caps(None);
                self.target(appsink_pad).map_err(failed)?;
            }
            Some(factory) => {
                let parser = gst::ElementFactory::make(factory).build().map_err(|_| {
                    gst::error_msg!(
                        gst::CoreError::MissingPlugin,
                        ("Pad {pad}: the element {factory} is missing: install gstreamer1.0-plugins-bad and gstreamer1.0-plugins-good")
                    )
                })?;
                for (name, value) in codec.parser_settings() {
                    if parser.has_property(name) {
                        parser.set_property_from_str(name, value);
                    }
                }
                self.appsink.set_caps(Some(&codec.wire_caps()));
                bin.add(&parser).map_err(failed)?;
                parser.link(&self.appsink).map_err(failed)?;
                parser.sync_state_with_parent().map_err(failed)?;
                self.target(parser.static_pad("sink")).map_err(failed)?;
                self.state().parser = Some(parser);
            }
        }
        let mut state = self.state();
        state.codec = Some(codec);
        state.caps = None;
        Ok(())
    }

    /// Counts a buffer that came in. Returns whether too many came that nothing can be made of.
    pub(super) fn is_fruitless(&self) -> bool {
        self.fruitless.fetch_add(1, Ordering::Relaxed) == UNPARSABLE
    }

    /// Whether this pad has the element among its own.
    pub(super) fn owns(&self, element: &gst::Object) -> bool {
        self.appsink.upcast_ref::<gst::Object>() == element
            || self
                .state()
                .parser
                .as_ref()
                .is_some_and(|parser| parser.upcast_ref::<gst::Object>() == element)
    }

    fn upstream_is_live(&self) -> bool {
        let mut query = gst::query::Latency::new();
        self.ghost.peer_query(&mut query) && query.result().0
    }

    fn target(&self, target: Option<gst::Pad>) -> Result<(), glib::BoolError> {
        self.ghost.set_target(target.as_ref())
    }

    /// Never held while elements change state or pads are linked.
    fn state(&self) -> MutexGuard<'_, PadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run: the pad's track will be part of its broadcast.
    pub(super) fn begin(&self, reservation: TrackReservation) {
        let parser = self.state().parser.clone();
        let codec = self.state().codec;
        *self.state() = PadState {
            parser,
            codec,
            reservation: Some(reservation),
            ..PadState::default()
        };
    }

    /// Ends a run, without telling viewers that it was meant to end.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.reservation = None;
        state.track = None;
        state.caps = None;
    }

    /// Upstream ended, or the pad goes away: viewers get the track's end.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.reservation = None;
        state.ended = true;
        if let Some(track) = &mut state.track
            && let Err(error) = track.finish()
        {
            gst::debug!(imp::CAT, obj = self.ghost, "end of track: {error}");
        }
    }

    /// Nothing more comes from this pad, as its stream is broken.
    ///
    /// Returns the reason if it was in order until now.
    pub(super) fn fail(&self, reason: &str) -> Option<String> {
        let mut state = self.state();
        if state.ended {
            return None;
        }
        let reason = state
            .failure
            .get_or_insert_with(|| reason.to_owned())
            .clone();
        drop(state);
        self.finish();
        Some(reason)
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    pub(super) fn stats(&self) -> gst::Structure {
        let state = self.state();
        gst::Structure::builder("track")
            .field(
                "name",
                state.track.as_ref().map_or("", |track| track.name()),
            )
            .field("frames", self.frames.load(Ordering::Relaxed))
            .field("bytes", self.bytes.load(Ordering::Relaxed))
            .field(
                "watched",
                state.track.as_ref().is_some_and(LocalTrack::is_watched),
            )
            .build()
    }

    /// Writes a frame to the track, describing the track first where that is due.
    pub(super) fn write(
        &self,
        sink: &imp::IrohLiveSink,
        sample: &gst::Sample,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let (Some(buffer), Some(segment), Some(new_caps)) =
            (sample.buffer_owned(), sample.segment(), sample.caps())
        else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let mut state = self.state();
        let state = &mut *state;
        let Some(codec) = state
            .codec
            .filter(|_| state.failure.is_none() && !state.ended)
        else {
            return Ok(gst::FlowSuccess::Ok);
        };
        if caps::is_header(codec, &buffer) || buffer.size() == 0 {
            return Ok(gst::FlowSuccess::Ok);
        }
        let flags = buffer.flags();
        state.discont |= flags.contains(gst::BufferFlags::DISCONT);
        let keyframe = !codec.is_video() || !flags.contains(gst::BufferFlags::DELTA_UNIT);
        let Some(publisher) = sink.publisher() else {
            return Err(gst::FlowError::Flushing);
        };
        let now = sink.running_time();
        let running_time = match (
            buffer.pts().or(buffer.dts()),
            segment.downcast_ref::<gst::ClockTime>(),
        ) {
            (Some(time), Some(segment)) => segment.to_running_time_full(time),
            // A stream without timestamps, as raw Annex B from a file: it is shown when it comes.
            _ => now.map(gst::Signed::Positive),
        };
        let Some(running_time) = running_time else {
            gst::debug!(imp::CAT, obj = self.ghost, "dropped a frame without a time");
            return Ok(gst::FlowSuccess::Ok);
        };
        if !codec.is_video() && running_time.is_negative() {
            // Before the beginning of the segment. Video of that kind is kept, as later frames refer to it.
            return Ok(gst::FlowSuccess::Ok);
        }
        let Some((timestamp, moves)) = publisher.timestamp(running_time, now) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let payload = iroh_live::media::sample::payload(buffer).ok_or(gst::FlowError::Error)?;
        if state.caps.as_deref() != Some(new_caps) {
            if !keyframe {
                // What the frame is becomes known with the next key frame only.
                return Ok(gst::FlowSuccess::Ok);
            }
            match codec.describe(new_caps, &payload) {
                Err(reason) if codec.is_video() => {
                    gst::debug!(
                        imp::CAT,
                        obj = self.ghost,
                        "waiting for a key frame: {reason}"
                    );
                    return Ok(gst::FlowSuccess::Ok);
                }
                Err(reason) => {
                    state.failure = Some(reason);
                    return Err(gst::FlowError::Error);
                }
                Ok(config) => {
                    gst::info!(imp::CAT, obj = self.ghost, "track: {config:?}");
                    let described = match &mut state.track {
                        Some(track) => track.set_config(config),
                        None => sink
                            .publish_track(state.reservation.take(), self, codec, config)
                            .map(|track| state.track = Some(track)),
                    };
                    if let Err(error) = described {
                        state.failure = Some(error.to_string());
                        return Err(gst::FlowError::Error);
                    }
                    state.caps = Some(new_caps.to_owned());
                }
            }
        }
        let Some(track) = &mut state.track else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let size = payload.len() as u64;
        let mut frame = EncodedFrame::new(timestamp, payload, keyframe);
        frame.discontinuity = std::mem::replace(&mut state.moves, moves) != moves;
        match track.write(frame) {
            Ok(()) => {
                self.fruitless.store(0, Ordering::Relaxed);
                self.frames.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
            }
            Err(WriteError::NoKeyframe) => {
                gst::debug!(
                    imp::CAT,
                    obj = self.ghost,
                    "dropped a frame before the first key frame"
                );
            }
            Err(WriteError::Ended) => return Err(gst::FlowError::Eos),
            Err(error @ WriteError::GroupTooLarge) => {
                // Said once for each group, as what follows has no key frame.
                gst::element_imp_warning!(
                    sink,
                    gst::StreamError::Encode,
                    (
                        "Pad {}: {error}. Frames are dropped until the next key frame",
                        self.ghost.name()
                    )
                );
            }
            Err(error) => {
                gst::warning!(
                    imp::CAT,
                    obj = self.ghost,
                    "frame at {timestamp:?}: {error}"
                );
            }
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

/// A pad takes audio and video alike, whatever its name: `queue ! stream.` names neither, and gst-launch links it to
/// the first template.
fn sink_query(
    pad: &gst::GhostPad,
    parent: Option<&impl IsA<gst::Object>>,
    query: &mut gst::QueryRef,
) -> bool {
    let all = || {
        let mut all = caps::sink_caps(MediaKind::Video);
        all.merge(caps::sink_caps(MediaKind::Audio));
        all
    };
    match query.view_mut() {
        gst::QueryViewMut::Caps(query) => {
            let all = all();
            let result = match query.filter_owned() {
                Some(filter) => filter.intersect_with_mode(&all, gst::CapsIntersectMode::First),
                None => all,
            };
            query.set_result(&result);
            true
        }
        gst::QueryViewMut::AcceptCaps(query) => {
            let accepted = query.caps().can_intersect(&all());
            query.set_result(accepted);
            true
        }
        _ => gst::Pad::query_default(pad, parent, query),
    }
}
