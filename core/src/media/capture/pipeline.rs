//! The pipeline that captures: a source, what decodes it where that is needed, and an appsink for each kind of media.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gst::{glib, prelude::*};

use super::{
    buffering::Buffering,
    error::{SourceError, make},
    input::{Input, elements},
};
use crate::{
    broadcast::MediaKind,
    media::{
        ladder::plan::CaptureFormat,
        sample::{nanoseconds, running_time},
    },
};

/// When something was captured, and the present, both by the system's clock, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(in crate::media) struct CaptureTime {
    pub captured: i64,
    pub now: i64,
}

/// Takes what is captured. Called from the threads that capture; does not wait.
pub(in crate::media) trait FrameSink: Send + Sync {
    /// A frame. `generation` says of which source. Returns whether that source is still the one.
    fn frame(
        &self,
        generation: u64,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        time: CaptureTime,
    ) -> bool;
    /// The source came to its end.
    fn ended(&self, generation: u64);
    /// Nothing more comes.
    fn failed(&self, generation: u64, error: SourceError);
}

/// Where captured media of one kind goes.
#[derive(Clone)]
pub(in crate::media) struct Tap {
    pub kind: MediaKind,
    /// Of the source, which what it brings is told with.
    pub generation: u64,
    pub sink: Weak<dyn FrameSink>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap")
            .field("kind", &self.kind)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Tap {
    pub fn frame(&self, caps: &gst::Caps, buffer: &gst::Buffer, time: CaptureTime) -> bool {
        self.sink
            .upgrade()
            .is_some_and(|sink| sink.frame(self.generation, caps, buffer, time))
    }

    pub fn ended(&self) {
        if let Some(sink) = self.sink.upgrade() {
            sink.ended(self.generation);
        }
    }

    pub fn failed(&self, error: SourceError) {
        if let Some(sink) = self.sink.upgrade() {
            sink.failed(self.generation, error);
        }
    }
}

/// A pipeline that captures. Dropping it stops it, without waiting.
#[derive(Debug)]
pub(in crate::media) struct Capture {
    pipeline: Option<gst::Pipeline>,
    /// Lives as long as the pipeline, which knows it weakly.
    router: Arc<Router>,
}

impl Capture {
    /// Starts to capture.
    pub fn start(input: Input, taps: Vec<Tap>, format: CaptureFormat) -> Result<Self, SourceError> {
        crate::media::init()?;
        let deinterlace = matches!(input, Input::Camera(_) | Input::File(_) | Input::Uri(_));
        let row = elements(input, format)?;
        let pipeline = gst::Pipeline::new();
        // The same clock for all sources of the machine, so that what they give can be aligned.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        let router = Arc::new(Router {
            pipeline: pipeline.downgrade(),
            buffering: Buffering::new(),
            deinterlace,
            state: Mutex::new(RouterState {
                free: taps.clone(),
                starting: true,
                failure: None,
            }),
            taps,
        });
        let reports = Arc::downgrade(&router);
        if let Some(bus) = pipeline.bus() {
            bus.set_sync_handler(move |_, message| {
                if let Some(router) = reports.upgrade() {
                    router.handle_message(message);
                }
                gst::BusSyncReply::Drop
            });
        }
        // From here on it is stopped wherever this ends.
        let capture = Self {
            pipeline: Some(pipeline.clone()),
            router: router.clone(),
        };
        pipeline.add_many(&row)?;
        gst::Element::link_many(&row)?;
        if let Some(last) = row.last() {
            router.watch(last);
        }
        let started = pipeline.set_state(gst::State::Playing);
        let failure = {
            let mut state = router.state();
            state.starting = false;
            state.failure.take()
        };
        match (failure, started) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(SourceError::Start(error)),
            (None, Ok(_)) => Ok(capture),
        }
        .inspect_err(|_| router.buffering.stop(&pipeline))
    }

    /// Stops it, and waits until its device is closed.
    pub fn stop(mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            self.router.buffering.stop(&pipeline);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            let buffering = self.router.buffering.clone();
            // Whoever lets go of it last may be one of its threads.
            pipeline.call_async(move |pipeline| buffering.stop(pipeline));
        }
    }
}

/// Brings what a source gives to those who want it.
#[derive(Debug)]
struct Router {
    pipeline: glib::WeakRef<gst::Pipeline>,
    buffering: Arc<Buffering>,
    deinterlace: bool,
    taps: Vec<Tap>,
    state: Mutex<RouterState>,
}

#[derive(Debug)]
struct RouterState {
    /// Those that got nothing yet.
    free: Vec<Tap>,
    starting: bool,
    failure: Option<SourceError>,
}

impl Router {
    fn state(&self) -> MutexGuard<'_, RouterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what an element gives, now and later.
    fn watch(self: &Arc<Self>, element: &gst::Element) {
        let weak = Arc::downgrade(self);
        element.connect_pad_added(move |_, pad| {
            if let Some(router) = weak.upgrade() {
                router.route(pad);
            }
        });
        for pad in element.src_pads() {
            self.route(&pad);
        }
    }

    fn route(self: &Arc<Self>, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src || pad.is_linked() {
            return;
        }
        if let Err(error) = self.try_route(pad) {
            self.fail(error);
        }
    }

    fn try_route(self: &Arc<Self>, pad: &gst::Pad) -> Result<(), SourceError> {
        let Some(pipeline) = self.pipeline.upgrade() else {
            return Ok(());
        };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let row = match self.kind_of(&caps) {
            Some(kind) => {
                let tap = {
                    let mut state = self.state();
                    let at = state.free.iter().position(|tap| tap.kind == kind);
                    at.map(|at| state.free.remove(at))
                };
                match tap {
                    Some(tap) => self.branch(&tap)?,
                    // Nobody wants it; it is played to nobody, or its source would wait.
                    None => {
                        let sink = make("fakesink", "libgstreamer1.0-0")?;
                        sink.set_property("sync", true);
                        sink.set_property("async", false);
                        vec![sink]
                    }
                }
            }
            None if is_media(&caps) => {
                vec![make("decodebin", "gstreamer1.0-plugins-base")?]
            }
            None => {
                return Err(SourceError::NotRaw {
                    caps: caps.to_string(),
                });
            }
        };
        pipeline.add_many(&row)?;
        gst::Element::link_many(&row)?;
        if let [only] = row.as_slice()
            && only
                .factory()
                .is_some_and(|factory| factory.name() == "decodebin")
        {
            self.watch(only);
        }
        for element in row.iter().rev() {
            element.sync_state_with_parent()?;
        }
        let sink = row
            .first()
            .and_then(|first| first.static_pad("sink"))
            .ok_or_else(|| glib::bool_error!("an element without an input"))?;
        pad.link(&sink).map_err(|_| SourceError::NotRaw {
            caps: caps.to_string(),
        })?;
        Ok(())
    }

    /// Whether it is raw media, and which.
    fn kind_of(&self, caps: &gst::Caps) -> Option<MediaKind> {
        if caps.is_any()
            && let [only] = self.taps.as_slice()
        {
            return Some(only.kind);
        }
        caps.iter().find_map(|caps| match caps.name().as_str() {
            "video/x-raw" => Some(MediaKind::Video),
            "audio/x-raw" => Some(MediaKind::Audio),
            _ => None,
        })
    }

    /// What brings raw media to its tap.
    fn branch(&self, tap: &Tap) -> Result<Vec<gst::Element>, SourceError> {
        let mut row = Vec::new();
        if self.taps.len() > 1 {
            row.push(make("queue", "libgstreamer1.0-0")?);
        }
        let name = match tap.kind {
            MediaKind::Video => {
                if self.deinterlace
                    && let Ok(element) = gst::ElementFactory::make("deinterlace").build()
                {
                    row.push(element);
                }
                "video/x-raw"
            }
            MediaKind::Audio => {
                row.push(make("audioconvert", "gstreamer1.0-plugins-base")?);
                "audio/x-raw"
            }
        };
        let raw = gst::Caps::builder(name);
        let caps = match tap.kind {
            // Where the source can choose, what encoders take as it is.
            MediaKind::Video => {
                let formats = gst::List::new(["I420", "NV12", "YV12", "YUY2", "UYVY"]);
                let mut caps = raw.field("format", formats).build();
                caps.merge(gst::Caps::builder(name).build());
                caps
            }
            MediaKind::Audio => raw.field("layout", "interleaved").build(),
        };
        let sink = gst_app::AppSink::builder()
            .caps(&caps)
            .enable_last_sample(false)
            .qos(false)
            .build();
        pace(&sink);
        if tap.kind == MediaKind::Video {
            take_any_layout(&sink);
        }
        let (samples, end) = (tap.clone(), tap.clone());
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    deliver(sink, &sample, &samples);
                    Ok(gst::FlowSuccess::Ok)
                })
                .eos(move |_| end.ended())
                .build(),
        );
        row.push(sink.upcast());
        Ok(row)
    }

    fn handle_message(&self, message: &gst::Message) {
        match message.view() {
            gst::MessageView::Error(error) => self.fail(SourceError::Element {
                element: error
                    .src()
                    .map(|source| source.name().into())
                    .unwrap_or_default(),
                source: error.error(),
                debug: error.debug().map(Into::into),
            }),
            gst::MessageView::StreamCollection(message) => {
                // What the source has in all is known, so it is known what will never come.
                let types = message
                    .stream_collection()
                    .iter()
                    .fold(gst::StreamType::empty(), |types, stream| {
                        types | stream.stream_type()
                    });
                self.fail_unserved(|kind| {
                    !types.contains(match kind {
                        MediaKind::Video => gst::StreamType::VIDEO,
                        MediaKind::Audio => gst::StreamType::AUDIO,
                    })
                });
            }
            gst::MessageView::Buffering(message) => {
                if let Some(pipeline) = self.pipeline.upgrade() {
                    self.buffering.report(&pipeline, message.percent());
                }
            }
            gst::MessageView::Eos(_) => self.fail_unserved(|_| true),
            _ => {}
        }
    }

    /// Those for whom nothing will come are told so.
    fn fail_unserved(&self, hopeless: impl Fn(MediaKind) -> bool) {
        let missed: Vec<_> = {
            let mut state = self.state();
            let (missed, free) = std::mem::take(&mut state.free)
                .into_iter()
                .partition(|tap| hopeless(tap.kind));
            state.free = free;
            missed
        };
        for tap in missed {
            tap.failed(SourceError::Nothing(match tap.kind {
                MediaKind::Video => "pictures",
                MediaKind::Audio => "sound",
            }));
        }
    }

    fn fail(&self, error: SourceError) {
        {
            let mut state = self.state();
            if state.starting {
                state.failure.get_or_insert(error);
                return;
            }
        }
        for tap in &self.taps {
            tap.failed(error.clone());
        }
    }
}

/// Whether it may be something that can be decoded.
fn is_media(caps: &gst::Caps) -> bool {
    caps.is_any()
        || caps.iter().any(|caps| {
            ["video/", "audio/", "image/", "application/"]
                .iter()
                .any(|prefix| caps.name().starts_with(prefix))
        })
}

/// Lets a sink wait on the clock where its source does not: a file is paced, a camera is not delayed.
fn pace(sink: &gst_app::AppSink) {
    let Some(pad) = sink.static_pad("sink") else {
        return;
    };
    let weak = sink.downgrade();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        if let Some(event) = info.event()
            && event.type_() == gst::EventType::Caps
            && let Some(sink) = weak.upgrade()
        {
            let mut query = gst::query::Latency::new();
            if pad.peer_query(&mut query) {
                sink.set_sync(!query.result().0);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Says that pictures may have any layout in memory, as a meta describes it: who makes them copies them otherwise, from
/// the strides of a device to those that are usual.
fn take_any_layout(sink: &gst_app::AppSink) {
    let Some(pad) = sink.static_pad("sink") else {
        return;
    };
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(query) = query.view_mut()
        {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

fn deliver(sink: &gst_app::AppSink, sample: &gst::Sample, tap: &Tap) {
    let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
        return;
    };
    let (Some(clock), Some(base)) = (sink.clock(), sink.base_time()) else {
        return;
    };
    let now = nanoseconds(clock.time());
    // Without timestamps it is of the present.
    let captured = running_time(sample).map_or(now, |time| nanoseconds(base).saturating_add(time));
    tap.frame(&caps, &buffer, CaptureTime { captured, now });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_taken_in_any_layout() {
        crate::media::init().unwrap();
        let sink = gst_app::AppSink::builder().build();
        take_any_layout(&sink);
        let caps = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 100, 100)
            .build()
            .unwrap()
            .to_caps()
            .unwrap();
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        source.link(&sink.static_pad("sink").unwrap()).unwrap();
        let mut query = gst::query::Allocation::new(Some(&caps), true);
        assert!(source.peer_query(&mut query));
        assert!(
            query
                .find_allocation_meta::<gst_video::VideoMeta>()
                .is_some()
        );
    }
}
