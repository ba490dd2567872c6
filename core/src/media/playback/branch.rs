//! What plays one track in the pipeline: appsrc, decoder, output, in a bin that is made anew when the decoder fails.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use gst::{glib, prelude::*};
use tokio::sync::mpsc;

use super::{
    config::VideoOutput,
    drift,
    error::PlaybackError,
    frame::{AudioSamples, VideoFrame},
    queue::FrameQueue,
    reports::{Failure, Part, Report, Reports},
};
use crate::media::receive::feed::{Feed, is_hidden};

/// Frames that are decoded ahead of the one that waits for its time. Few, as a hardware decoder's pool is small.
const DECODED_AHEAD: u32 = 3;

/// What an audio device buffers, in microseconds: all of it is delay.
const DEVICE_BUFFER: i64 = 60_000;
/// In what portions it takes it.
const DEVICE_PERIOD: i64 = 10_000;

pub(super) type VideoQueue = FrameQueue<VideoFrame, PlaybackError>;
pub(super) type SampleQueue = FrameQueue<AudioSamples, PlaybackError>;

/// Where a track ends.
#[derive(Debug, Clone)]
pub(super) enum Output {
    Frames(Arc<VideoQueue>, VideoOutput),
    Samples(Arc<SampleQueue>),
    /// A description of a sink.
    Device(String),
}

/// What a branch is made of.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) caps: gst::Caps,
    pub(super) decoder: String,
    pub(super) output: Output,
    /// How long the sinks wait; none: they do not.
    pub(super) latency: Option<gst::ClockTime>,
    pub(super) volume: (f64, bool),
}

/// A track in the pipeline. Dropping it takes it out, in a while; [`Branch::stop`] waits for that.
#[derive(Debug)]
pub(super) struct Branch {
    pipeline: gst::Pipeline,
    routes: Reports,
    bin: gst::Bin,
    feed: Feed,
    volume: Option<gst::Element>,
    reports: mpsc::UnboundedReceiver<Report>,
    fed: Arc<AtomicU64>,
    decoded: Arc<AtomicU64>,
    stopped: bool,
}

impl Branch {
    /// Makes a branch, and starts it. Blocks for as long as a decoder or a device takes to open.
    pub(super) fn start(
        pipeline: &gst::Pipeline,
        routes: &Reports,
        plan: &Plan,
    ) -> Result<Self, Failure> {
        let decoder = gst::parse::bin_from_description(&plan.decoder, true)
            .map_err(|error| Failure::new(Part::Decoder, &error))?;
        let output = plan.output.make(plan.latency)?;
        let built =
            Self::assemble(pipeline, routes, plan, decoder, output).map_err(|error| Failure {
                part: Part::Decoder,
                reason: error.to_string(),
            })?;
        built.run()
    }

    fn assemble(
        pipeline: &gst::Pipeline,
        routes: &Reports,
        plan: &Plan,
        decoder: gst::Bin,
        (output, volume): (gst::Bin, Option<gst::Element>),
    ) -> Result<Self, glib::BoolError> {
        let video = matches!(plan.output, Output::Frames(..));
        let bin = gst::Bin::new();
        let appsrc = gst_app::AppSrc::builder()
            .is_live(true)
            .format(gst::Format::Time)
            .stream_type(gst_app::AppStreamType::Stream)
            .max_bytes(0)
            .caps(&plan.caps)
            .build();
        let latency = plan.latency.unwrap_or_default();
        appsrc.set_latency(latency, gst::ClockTime::NONE);
        bin.add(&appsrc)?;
        bin.add_many([decoder.upcast_ref::<gst::Element>(), output.upcast_ref()])?;
        gst::Element::link_many([
            appsrc.upcast_ref::<gst::Element>(),
            decoder.upcast_ref(),
            output.upcast_ref(),
        ])?;
        let pad = |name: &str| {
            decoder
                .static_pad(name)
                .ok_or_else(|| glib::bool_error!("{}: no pad {name}", plan.decoder))
        };
        let (sink, src) = (pad("sink")?, pad("src")?);
        let (fed, decoded) = (count(&sink), count(&src));
        src.add_probe(gst::PadProbeType::BUFFER, |_, info| {
            if info.buffer().is_some_and(|buffer| is_hidden(buffer)) {
                return gst::PadProbeReturn::Drop;
            }
            gst::PadProbeReturn::Ok
        });
        if let Some(volume) = &volume {
            set_volume(volume, plan.volume);
        }
        let reports = routes.add(&bin, &output);
        let branch = Self {
            pipeline: pipeline.clone(),
            routes: routes.clone(),
            bin,
            feed: Feed::new(appsrc, video).skipping(latency).hiding_backlog(),
            volume,
            reports,
            fed,
            decoded,
            stopped: false,
        };
        pipeline.add(&branch.bin)?;
        Ok(branch)
    }

    fn run(mut self) -> Result<Self, Failure> {
        if let Err(error) = self.bin.sync_state_with_parent() {
            // What the element said about it is better than that there was something.
            while let Ok(report) = self.reports.try_recv() {
                if let Report::Failed(failure) = report {
                    return Err(failure);
                }
            }
            return Err(Failure::new(Part::Decoder, &error));
        }
        // The new sinks do not know yet how long to wait.
        let _ = self.pipeline.recalculate_latency();
        Ok(self)
    }

    /// What it is fed by, and what the pipeline says of it.
    pub(super) fn parts(&mut self) -> (&Feed, &mut mpsc::UnboundedReceiver<Report>) {
        (&self.feed, &mut self.reports)
    }

    /// Says that nothing will follow; [`Report::Ended`] comes when all has been played.
    pub(super) fn end(&self) {
        let _ = self.feed.appsrc().end_of_stream();
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            fed: self.fed.clone(),
            decoded: self.decoded.clone(),
        }
    }

    /// The element that sets the volume, if there is one.
    pub(super) fn volume(&self) -> Option<gst::Element> {
        self.volume.clone()
    }
}

/// What went into the decoder, and what came out.
pub(super) struct Progress {
    fed: Arc<AtomicU64>,
    decoded: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn fed(&self) -> u64 {
        self.fed.load(Ordering::Relaxed)
    }

    pub(super) fn decoded(&self) -> u64 {
        self.decoded.load(Ordering::Relaxed)
    }
}

impl Branch {
    /// Takes it out. Waits for its threads: not for a thread of the runtime.
    pub(super) fn stop(mut self) {
        self.retire();
        take_out(&self.pipeline, &self.bin);
        self.stopped = true;
    }

    /// Nothing is heard of it any more.
    fn retire(&mut self) {
        self.routes.remove(&self.bin);
        self.bin.set_locked_state(true);
    }
}

/// Not every task that has one comes to its end.
impl Drop for Branch {
    fn drop(&mut self) {
        if !self.stopped {
            self.retire();
            let bin = self.bin.clone();
            self.pipeline
                .call_async(move |pipeline| take_out(pipeline, &bin));
        }
    }
}

fn take_out(pipeline: &gst::Pipeline, bin: &gst::Bin) {
    let _ = bin.set_state(gst::State::Null);
    let _ = pipeline.remove(bin);
}

/// Counts the buffers that pass.
fn count(pad: &gst::Pad) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    count
}

pub(super) fn set_volume(element: &gst::Element, (volume, muted): (f64, bool)) {
    element.set_property("volume", volume);
    element.set_property("mute", muted);
}

impl Output {
    /// The end of the branch, and the element in it that sets the volume.
    fn make(
        &self,
        latency: Option<gst::ClockTime>,
    ) -> Result<(gst::Bin, Option<gst::Element>), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Part::Output, &error);
        let description = match self {
            Self::Frames(_, output) => {
                let mut description = String::new();
                if latency.is_some() {
                    // Decodes on while the sink waits.
                    description = format!(
                        "queue max-size-buffers={DECODED_AHEAD} max-size-bytes=0 max-size-time=0 ! "
                    );
                }
                if let VideoOutput::Format(_) = output {
                    description.push_str("videoconvert ! ");
                }
                description.push_str("appsink name=sink");
                description
            }
            Self::Samples(_) => format!("{} ! appsink name=sink", sound()),
            Self::Device(device) => format!("{} ! audioconvert ! {device}", sound()),
        };
        let bin =
            gst::parse::bin_from_description(&description, true).map_err(|error| failed(&error))?;
        let volume = bin.by_name("volume");
        let pad = bin
            .by_name("drift")
            .and_then(|drift| drift.static_pad("src"));
        if let Some(pad) = pad
            && latency.is_some()
        {
            drift::correct(&pad);
        }
        if let Self::Device(_) = self {
            tune(&bin, latency.is_some());
            return Ok((bin, volume));
        }
        let sink = bin
            .by_name("sink")
            .and_then(|sink| sink.downcast::<gst_app::AppSink>().ok())
            .ok_or_else(|| failed(&"appsink cannot be made: install gstreamer1.0-plugins-base"))?;
        sink.set_property("sync", latency.is_some());
        // A live source needs no preroll.
        sink.set_property("async", false);
        sink.set_property("enable-last-sample", false);
        // The latency is what the program asked for: what a frame takes to be decoded is within it.
        sink.set_property("processing-deadline", 0u64);
        sink.set_property("max-buffers", 1u32);
        sink.set_caps(Some(&self.caps()));
        if let Some(pad) = sink.static_pad("sink") {
            allow_strides(&pad);
        }
        let callbacks = gst_app::AppSinkCallbacks::builder();
        let callbacks = match self {
            Self::Frames(queue, _) => {
                let queue = queue.clone();
                callbacks.new_sample(move |sink| {
                    if let Some(frame) = VideoFrame::new(pull(sink)?) {
                        let (captured, at) = (frame.captured(), frame.running_time());
                        queue.push(frame, captured, at);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
            }
            Self::Samples(queue) => {
                let queue = queue.clone();
                callbacks.new_sample(move |sink| {
                    if let Some(samples) = AudioSamples::new(pull(sink)?) {
                        let (captured, at) = (samples.captured(), samples.running_time());
                        queue.push(samples, captured, at);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
            }
            Self::Device(_) => callbacks,
        };
        sink.set_callbacks(callbacks.build());
        Ok((bin, volume))
    }

    /// What the program takes.
    fn caps(&self) -> gst::Caps {
        match self {
            Self::Frames(_, VideoOutput::System) => gst::Caps::new_empty_simple("video/x-raw"),
            Self::Frames(_, VideoOutput::Native) => {
                gst::Caps::builder("video/x-raw").any_features().build()
            }
            Self::Frames(_, VideoOutput::Format(format)) => gst::Caps::builder("video/x-raw")
                .field("format", format.to_str())
                .build(),
            Self::Samples(_) | Self::Device(_) => gst::Caps::builder("audio/x-raw")
                .field("format", gst_audio::AUDIO_FORMAT_F32.to_str())
                .field("layout", "interleaved")
                .build(),
        }
    }
}

/// What sound goes through on the way to an output.
fn sound() -> String {
    format!(
        "audioconvert ! audio/x-raw,format={},layout=interleaved ! identity name=drift
         ! audioresample ! volume name=volume",
        gst_audio::AUDIO_FORMAT_F32.to_str()
    )
}

fn pull(sink: &gst_app::AppSink) -> Result<gst::Sample, gst::FlowError> {
    sink.pull_sample().map_err(|_| gst::FlowError::Eos)
}

/// Tells decoders that any stride will do, as otherwise they copy each frame into one without gaps.
fn allow_strides(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
        if let Some(query) = info.query_mut()
            && let gst::QueryViewMut::Allocation(allocation) = query.view_mut()
        {
            allocation.add_allocation_meta::<gst_video::VideoMeta>(None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// Sets the sinks in the bin, those that are there and those that a sink that chooses brings later.
fn tune(bin: &gst::Bin, sync: bool) {
    let tune = move |element: &gst::Element| {
        let class = element.object_class();
        let set = |name: &str, value: glib::Value| {
            let takes = class.find_property(name).is_some_and(|spec| {
                spec.value_type() == value.type_()
                    && spec.flags().contains(glib::ParamFlags::WRITABLE)
            });
            if takes {
                element.set_property_from_value(name, &value);
            }
        };
        if element.has_property("sync") {
            set("sync", sync.to_value());
            set("async", false.to_value());
        }
        if element.has_property("slave-method") {
            // The device has a clock of its own. The default is to jump by up to 40 ms, which clicks.
            element.set_property_from_str("slave-method", "resample");
        }
        if element.has_property("buffer-time") {
            set("buffer-time", DEVICE_BUFFER.to_value());
            set("latency-time", DEVICE_PERIOD.to_value());
        }
    };
    for element in bin.iterate_recurse().into_iter().flatten() {
        tune(&element);
    }
    bin.connect_deep_element_added(move |_, _, element| tune(element));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_audio_sink_follows_the_clock_by_resampling() {
        gst::init().unwrap();
        let output = Output::Device("pulsesink name=device".to_owned());
        let (bin, _) = output
            .make(Some(gst::ClockTime::from_mseconds(200)))
            .unwrap();
        let device = bin.by_name("device").unwrap();
        let method = device.property_value("slave-method");
        let (_, method) = glib::EnumValue::from_value(&method).unwrap();
        assert_eq!(method.nick(), "resample");
    }

    #[tokio::test]
    async fn dropping_a_branch_does_not_wait_for_its_threads() {
        gst::init().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.set_state(gst::State::Playing).unwrap();
        let plan = Plan {
            caps: gst::Caps::new_empty_simple("video/x-raw"),
            // Each frame keeps its thread for two seconds, and only then can it be stopped.
            decoder: "identity sleep-time=2000000".to_owned(),
            output: Output::Frames(Arc::new(FrameQueue::new(1)), VideoOutput::System),
            latency: None,
            volume: (1.0, false),
        };
        let branch = Branch::start(&pipeline, &Reports::default(), &plan).unwrap();
        let buffer = gst::Buffer::from_slice([0u8; 16]);
        branch.feed.appsrc().push_buffer(buffer).unwrap();
        let progress = branch.progress();
        while progress.fed() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(branch);
        // Its thread is asleep: whoever had waited for it would find it gone.
        assert_eq!(pipeline.children().len(), 1);
        let gone = async {
            while !pipeline.children().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(30), gone);
        gone.await.expect("it is taken out");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
