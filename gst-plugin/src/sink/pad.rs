//! One pad of the sink: a parser where one is needed, and an appsink that writes to a track.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    LocalBroadcast,
    broadcast::MediaKind,
    media::{
        caps::{Codec, is_header},
        encode::{encoded_sink, parser},
        sample,
    },
};

use super::{
    caps, eos,
    keyframes::{self, KeyframeRequests},
    latency,
    preroll::Preroll,
    stall::{self, Stall},
    track::{Track, Written},
};
use crate::log::SINK as CAT;

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// What a pad needs of the element that it belongs to.
pub(super) trait Host: ElementImpl {
    /// The broadcast of this run.
    fn broadcast(&self) -> Option<LocalBroadcast>;

    /// Whether to wait on the clock where upstream does not.
    fn waits_on_clock(&self) -> bool;

    /// Names the track of a pad, by [`Pad::name_track`], so that no two have one name.
    fn name_track(&self, pad: &Pad, kind: MediaKind);

    /// A stream begins at the pad, perhaps after the end of another.
    fn pad_begins(&self, pad: &Pad);

    /// Nothing more comes from the pad for now.
    fn pad_ended(&self);

    /// Nothing will come of what flows into the pad. Returns whether others go on.
    fn pad_failed(&self, pad: &Pad, code: gst::StreamError, reason: &str) -> bool;
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
    /// What the track is called.
    name: Option<String>,
    /// None while there is no broadcast.
    track: Option<Track>,
    keyframes: KeyframeRequests,
    stall: Stall,
    /// Why the last frame was dropped, if it was.
    dropped: Option<String>,
    latency_checked: bool,
    preroll: Preroll,
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
            appsink: {
                let appsink = encoded_sink();
                appsink.set_property("name", format!("{name}-appsink"));
                appsink
            },
            state: Mutex::default(),
        });
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
                        (Some(pad), Some(host)) => pad.take(&*host, sample),
                        _ => Err(gst::FlowError::Flushing),
                    }
                })
                .eos(move |_| {
                    if let (Some(pad), Some(host)) = (ends.0.upgrade(), ends.1.upgrade()) {
                        let waiting = pad.state().preroll.take();
                        for sample in waiting {
                            let _ = pad.write(&*host, &sample);
                        }
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
        // Its thread is out of the pad only now, and may have linked another parser on its way.
        let late = self.state().parser.take();
        if let Some(late) = late {
            let _ = late.set_state(gst::State::Null);
            let _ = bin.remove(&late);
        }
        self.end();
    }

    /// Begins a run, or begins anew within one: the pad's track will be part of the broadcast.
    pub(super) fn begin(&self, broadcast: &LocalBroadcast) {
        let mut track = Track::new(broadcast);
        let mut state = self.state();
        if let (Some(codec), Some(name)) = (state.codec, &state.name) {
            track.set_codec(codec, name);
        }
        *state = State {
            parser: state.parser.take(),
            codec: state.codec,
            name: state.name.take(),
            track: Some(track),
            frames: state.frames,
            bytes: state.bytes,
            ..State::default()
        };
    }

    /// Ends a run, without telling viewers that it was meant to end.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.track = None;
        // Their memory may belong to a pool of upstream.
        state.preroll = Preroll::default();
    }

    /// What the track is called, if that is known.
    pub(super) fn track_name(&self) -> Option<String> {
        self.state().name.clone()
    }

    pub(super) fn name_track(&self, name: String) {
        self.state().name = Some(name);
    }

    /// Upstream ended, or the pad goes away: viewers get the track's end.
    fn finish(&self) {
        let mut state = self.state();
        state.ended = true;
        if let Some(Err(error)) = state.track.as_mut().map(Track::finish) {
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

    /// Whether the pad's track is one of this broadcast.
    pub(super) fn is_part_of(&self, broadcast: &LocalBroadcast) -> bool {
        let state = self.state();
        let track = state.track.as_ref();
        track.is_some_and(|track| track.is_part_of(broadcast))
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
            .field("name", state.name.as_deref().unwrap_or_default())
            .field("frames", state.frames)
            .field("bytes", state.bytes)
            .field(
                "watched",
                state.track.as_ref().is_some_and(Track::is_watched),
            )
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
                if let Err((code, reason)) = self.configure(host, caps.caps()) {
                    // Said once: what comes is dropped, so that upstream has nothing to complain of.
                    self.give_up(host, code, &reason);
                    return true;
                }
                pass(event)
            }
            gst::EventView::StreamStart(_) => {
                if self.has_ended() {
                    eos::reopen(&self.ghost);
                }
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
                let restart = flush.resets_time().then(|| event.seqnum());
                let passed = pass(event);
                self.flushed(host, restart);
                passed
            }
            _ => pass(event),
        }
    }

    /// What comes now does not continue what came before.
    fn flushed<H: Host>(&self, host: &H, restart: Option<gst::Seqnum>) {
        if self.has_failed() {
            // Upstream may do better this time.
            self.state().failure = None;
        }
        host.pad_begins(self);
        let mut state = self.state();
        if let Some(track) = &mut state.track {
            track.flushed(restart);
        }
        state.stall = Stall::default();
        state.preroll = Preroll::default();
    }

    /// Links what is right for `caps` behind the pad.
    ///
    /// # Errors
    /// What is wrong, and how to mend it.
    fn configure<H: Host>(
        &self,
        host: &H,
        caps: &gst::CapsRef,
    ) -> Result<(), (gst::StreamError, String)> {
        let codec =
            Codec::of(caps).map_err(|reason| (gst::StreamError::WrongType, reason.to_string()))?;
        self.appsink
            .set_sync(host.waits_on_clock() && !latency::of_upstream(&self.ghost).0);
        if self.state().codec == Some(codec) {
            return Ok(());
        }
        let bin = host.obj();
        let bin = bin.upcast_ref::<gst::Element>().downcast_ref::<gst::Bin>();
        let linked = bin
            .ok_or_else(|| glib::bool_error!("the element is no bin"))
            .and_then(|bin| self.link(bin, codec));
        linked.map_err(|error| (gst::StreamError::Failed, error.to_string()))?;
        host.name_track(self, codec.kind());
        let mut state = self.state();
        let state = &mut *state;
        state.codec = Some(codec);
        if let (Some(track), Some(name)) = (&mut state.track, &state.name) {
            track.set_codec(codec, name);
        }
        Ok(())
    }

    fn link(&self, bin: &gst::Bin, codec: Codec) -> Result<(), glib::BoolError> {
        if self.state().released {
            return Err(glib::bool_error!("the pad was released"));
        }
        self.target(None)?;
        let old = self.state().parser.take();
        if let Some(old) = old {
            let _ = old.set_state(gst::State::Null);
            let _ = bin.remove(&old);
        }
        let parser =
            parser(codec, &self.appsink).map_err(|missing| glib::bool_error!("{missing}"))?;
        let Some(parser) = parser else {
            return self.target(self.appsink.static_pad("sink"));
        };
        bin.add(&parser)?;
        parser.link(&self.appsink)?;
        parser.sync_state_with_parent()?;
        self.target(parser.static_pad("sink"))?;
        self.state().parser = Some(parser);
        Ok(())
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
        if self.give_up(host, gst::StreamError::Decode, &stall::with_mend(&reason)) {
            Ok(gst::FlowSuccess::Ok)
        } else {
            Err(gst::FlowError::Error)
        }
    }

    /// Takes nothing more of this stream. Returns whether other pads go on.
    fn give_up<H: Host>(&self, host: &H, code: gst::StreamError, reason: &str) -> bool {
        let others = host.pad_failed(self, code, reason);
        // At its start and after a flush the pipeline waits for a buffer, or for an end as this is.
        if others && let Some(pad) = self.appsink.static_pad("sink") {
            pad.send_event(gst::event::Eos::new());
        }
        others
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
        let complaint = stall::complaint(&self.ghost.name(), reason.as_deref());
        gst::element_imp_warning!(host, gst::StreamError::Decode, ("{complaint}"));
    }

    /// Takes a sample of the appsink.
    fn take<H: Host>(&self, host: &H, sample: gst::Sample) -> Flow {
        let samples = {
            let mut state = self.state();
            state.preroll.push(sample);
            // What lies before the segment does not wait for the pipeline to play, and only then it is known what time it is.
            let plays = self.appsink.current_state() == gst::State::Playing;
            if !plays && !state.preroll.is_full() {
                return Ok(gst::FlowSuccess::Ok);
            }
            state.preroll.take()
        };
        samples
            .into_iter()
            .try_fold(gst::FlowSuccess::Ok, |_, sample| self.write(host, &sample))
    }

    /// Writes a frame to the track.
    fn write<H: Host>(&self, host: &H, sample: &gst::Sample) -> Flow {
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let element = host.obj();
        let now = element.upcast_ref::<gst::Element>().current_running_time();
        let now = now.map(sample::nanoseconds);
        // A stream without timestamps, as raw Annex B from a file, is shown when it comes.
        let time = match buffer.pts().or(buffer.dts()) {
            Some(_) => sample::running_time(sample),
            None => now,
        };
        let Some(time) = time else {
            gst::debug!(CAT, obj = self.ghost, "dropped a frame without a time");
            return Ok(gst::FlowSuccess::Ok);
        };
        let size = buffer.size() as u64;
        let written = {
            let mut state = self.state();
            let state = &mut *state;
            let (Some(codec), Some(track)) = (state.codec, &mut state.track) else {
                return Ok(gst::FlowSuccess::Ok);
            };
            let over = state.failure.is_some() || state.ended;
            // Audio from before the segment. Video from there is kept, as later frames refer to it.
            let early = !codec.is_video() && time < 0;
            if over || early || size == 0 || is_header(codec, &buffer) {
                return Ok(gst::FlowSuccess::Ok);
            }
            let Some(timestamp) = track.timestamp(time, now) else {
                gst::debug!(
                    CAT,
                    obj = self.ghost,
                    "dropped a frame of {time} ns, at {now:?}"
                );
                state.dropped = Some("its timestamps are of the time before a seek".into());
                return Ok(gst::FlowSuccess::Ok);
            };
            gst::trace!(
                CAT,
                obj = self.ghost,
                "{time} ns, at {now:?}, as {timestamp:?}"
            );
            let written = track.write(&caps, buffer, timestamp);
            if matches!(written, Written::Published | Written::PublishedAfterGap) {
                state.frames += 1;
                state.bytes += size;
            }
            written
        };
        self.written(host, written)
    }

    /// What follows from what became of a frame.
    fn written<H: Host>(&self, host: &H, written: Written) -> Flow {
        match written {
            Written::Published | Written::PublishedAfterGap => {
                let gap = matches!(written, Written::PublishedAfterGap);
                let (ask, check_latency) = {
                    let mut state = self.state();
                    let ask = state.keyframes.published(gap, Instant::now());
                    state.stall.published();
                    state.dropped = None;
                    let first = !std::mem::replace(&mut state.latency_checked, true);
                    (ask, first)
                };
                if ask {
                    keyframes::request(&self.ghost);
                }
                if check_latency && let Some(complaint) = latency::complaint(&self.ghost) {
                    gst::element_imp_warning!(host, gst::StreamError::Encode, ("{complaint}"));
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
}

fn ghost_pad<H: Host>(template: &gst::PadTemplate, name: &str, weak: &Weak<Pad>) -> gst::GhostPad {
    let (events, buffers, lists) = (weak.clone(), weak.clone(), weak.clone());
    gst::GhostPad::builder_from_template(template)
        .name(name)
        .query_function(|pad, parent, query| {
            H::catch_panic_pad_function(parent, || false, |_| caps::query(pad, parent, query))
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
