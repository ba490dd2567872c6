//! One encoder at work: a pipeline from raw frames to the frames of a track.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use gst::{glib, prelude::*};

use super::{
    parse::{encoded_sink, parser},
    sample_clock::SampleClock,
    track::RenditionTrack,
};
use crate::media::{
    caps::Codec,
    encoder::{EncoderSettings, NO_KEYFRAME_DUE, RateChange, Tuned},
    ladder::plan::RenditionSpec,
    sample,
};

/// Raw frames of video that wait for an encoder. More only makes the picture older.
pub(super) const VIDEO_BACKLOG: usize = 2;

/// Raw audio that waits.
pub(super) const AUDIO_BACKLOG: Duration = Duration::from_millis(500);

/// A captured frame on its way into an encoder.
#[derive(Debug, Clone)]
pub(super) struct RawFrame {
    pub caps: gst::Caps,
    pub buffer: gst::Buffer,
    /// When it was captured.
    pub time: Duration,
    /// Whether it is to become a key frame.
    pub keyframe: bool,
}

/// How long an encoder may take to give its last frames.
const LAST_FRAMES: Duration = Duration::from_secs(10);

/// How an encoder does.
#[derive(Debug)]
struct Health {
    failure: Mutex<Option<String>>,
    /// Frames that came out.
    produced: AtomicU64,
    /// Says that nothing more comes out.
    over: mpsc::SyncSender<()>,
}

impl Health {
    fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (over, is_over) = mpsc::sync_channel(1);
        let health = Self {
            failure: Mutex::default(),
            produced: AtomicU64::default(),
            over,
        };
        (Arc::new(health), is_over)
    }

    /// Nothing more comes out.
    fn end(&self) {
        // Where it was said before it need not be said again.
        let _ = self.over.try_send(());
    }

    fn fail(&self, reason: String) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
        self.end();
    }
}

/// An encoder at work. Dropping it stops it, without waiting.
#[derive(Debug)]
pub(super) struct EncoderPipeline {
    pipeline: gst::Pipeline,
    input: gst_app::AppSrc,
    tuned: Tuned,
    /// Of what goes in.
    caps: Option<gst::Caps>,
    framerate: Option<gst::Fraction>,
    /// What the encoder's own timestamps count from.
    zero: Duration,
    /// Of sound: where samples lie by their number, and how far that is from when they were captured.
    samples: SampleClock,
    offset: Arc<AtomicI64>,
    /// Which of the track's encoders it is; see [`RenditionTrack::issue_number`].
    number: u64,
    /// From which timestamp on a picture is to become a key frame.
    keyframe_due: Arc<AtomicU64>,
    health: Arc<Health>,
    /// Hears of the end, or of a failure.
    is_over: mpsc::Receiver<()>,
}

impl EncoderPipeline {
    /// Starts an encoder. Frames that go in begin at `zero`; `number` says which of the track's encoders it is.
    ///
    /// # Errors
    /// Why it does not start, for people.
    pub fn start(
        factory: &gst::ElementFactory,
        spec: &RenditionSpec,
        zero: Duration,
        track: &Arc<RenditionTrack>,
        number: u64,
    ) -> Result<Self, String> {
        let target = spec.target.structure(0);
        let length = |name| u32::try_from(target?.get::<i32>(name).ok()?).ok();
        let tuned = Tuned::make(
            factory,
            EncoderSettings {
                codec: track.codec(),
                size: length("width").zip(length("height")),
                framerate: spec.frames_a_second(),
                bitrate: spec.bitrate,
                speech: spec.speech,
            },
        )?;
        let (health, is_over) = Health::new();
        let pipeline = gst::Pipeline::new();
        if let Some(bus) = pipeline.bus() {
            let health = health.clone();
            bus.set_sync_handler(move |_, message| {
                if let gst::MessageView::Error(error) = message.view() {
                    let debug = error.debug().unwrap_or_default();
                    health.fail(format!("{} ({debug})", error.error()));
                }
                gst::BusSyncReply::Drop
            });
        }
        let input = gst_app::AppSrc::builder()
            .format(gst::Format::Time)
            .is_live(true)
            .max_bytes(0)
            .leaky_type(gst_app::AppLeakyType::Downstream)
            .build();
        if track.codec().is_video() {
            input.set_max_buffers(VIDEO_BACKLOG as u64);
        } else {
            input.set_max_time(gst::ClockTime::from_mseconds(
                AUDIO_BACKLOG.as_millis() as u64
            ));
        }
        let offset = Arc::new(AtomicI64::new(0));
        let keyframe_due = Arc::new(AtomicU64::new(NO_KEYFRAME_DUE));
        if track.codec().is_video() {
            tuned.force_keyframe_at(keyframe_due.clone());
        }
        let sink = sink(zero, track, number, offset.clone(), &health);
        let encoder = Self {
            pipeline,
            input,
            tuned,
            caps: None,
            framerate: spec.framerate,
            zero,
            samples: SampleClock::default(),
            offset,
            number,
            keyframe_due,
            health,
            is_over,
        };
        encoder
            .assemble(track.codec(), spec, sink)
            .map_err(|error| error.to_string())?;
        // From the encoder on, so that a device that cannot be opened shows at once.
        if encoder.pipeline.set_state(gst::State::Playing).is_err() {
            return Err(encoder
                .failure()
                .unwrap_or_else(|| "it does not start".into()));
        }
        Ok(encoder)
    }

    fn assemble(
        &self,
        codec: Codec,
        spec: &RenditionSpec,
        sink: gst_app::AppSink,
    ) -> Result<(), glib::BoolError> {
        let mut row: Vec<gst::Element> = vec![self.input.clone().upcast()];
        let converters: &[&str] = if codec.is_video() {
            &["videoconvertscale"]
        } else {
            &["audioconvert", "audioresample"]
        };
        for name in converters {
            row.push(gst::ElementFactory::make(name).build()?);
        }
        let filter = gst::ElementFactory::make("capsfilter")
            .property("caps", &spec.target)
            .build()?;
        row.push(filter);
        if let Some(upload) = self.tuned.upload() {
            row.push(gst::ElementFactory::make(upload).build()?);
        }
        row.push(self.tuned.element.clone());
        if let Some(caps) = self.tuned.output_caps() {
            let filter = gst::ElementFactory::make("capsfilter")
                .property("caps", caps)
                .build()?;
            row.push(filter);
        }
        if let Some(parser) =
            parser(codec, &sink).map_err(|missing| glib::bool_error!("{missing}"))?
        {
            row.push(parser);
        }
        row.push(sink.upcast());
        self.pipeline.add_many(&row)?;
        gst::Element::link_many(&row)
    }

    /// What the element is called, as `x264enc`.
    pub fn name(&self) -> String {
        let factory = self.tuned.element.factory();
        factory.map_or_else(String::new, |factory| factory.name().into())
    }

    /// Why it fails, if it does.
    pub fn failure(&self) -> Option<String> {
        self.health
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Which of the track's encoders it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it is for pictures.
    pub fn encodes_video(&self) -> bool {
        self.framerate.is_some()
    }

    /// Says that it does not work.
    pub fn fail(&self, reason: String) {
        self.health.fail(reason);
    }

    /// What makes the element that encodes.
    pub fn factory(&self) -> Option<gst::ElementFactory> {
        self.tuned.element.factory()
    }

    /// What it costs to change the bit rate.
    pub fn rate_change(&self) -> RateChange {
        self.tuned.rate_change()
    }

    /// Frames that came out so far.
    pub fn produced(&self) -> u64 {
        self.health.produced.load(Ordering::Relaxed)
    }

    pub fn set_bitrate(&self, bitrate: u64) {
        self.tuned.set_bitrate(bitrate);
    }

    /// Gives it a frame.
    pub fn push(&mut self, frame: RawFrame) {
        let RawFrame {
            caps,
            buffer: shared,
            time,
            keyframe,
        } = frame;
        if self.caps.as_ref() != Some(&caps) {
            let mut input = caps.clone();
            if let Some(framerate) = self.framerate {
                input.make_mut().set("framerate", framerate);
            }
            self.input.set_caps(Some(&input));
            self.caps = Some(caps);
        }
        let mut time =
            i64::try_from(time.saturating_sub(self.zero).as_nanos()).unwrap_or(i64::MAX - 1);
        if let Some(duration) = self.caps.as_ref().and_then(|caps| duration(caps, &shared)) {
            let placed = self.samples.place(time, duration);
            time = placed.counted;
            self.offset.store(placed.offset, Ordering::Release);
        }
        let time = time.max(0).unsigned_abs();
        if keyframe {
            self.keyframe_due.store(time, Ordering::Release);
        }
        // The memory is shared with the other renditions, only what is said of it is copied.
        let mut buffer = shared.copy();
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::from_nseconds(time));
            buffer.set_dts(gst::ClockTime::NONE);
        }
        // Refused only while it stops; the reason is on its bus then.
        let _ = self.input.push_buffer(buffer);
    }

    /// Stops it, and waits until its device is free.
    pub fn stop(self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }

    /// Waits until what is inside has come out, ends the track, and stops it.
    pub fn finish(self, track: &RenditionTrack) {
        self.end();
        if self.is_over.recv_timeout(LAST_FRAMES).is_err() {
            tracing::warn!(track = track.name(), "the encoder keeps its last frames");
        }
        track.finish();
        self.stop();
    }

    /// No more frames: what is inside comes out, and then the track ends.
    pub fn end(&self) {
        let _ = self.input.end_of_stream();
    }
}

impl Drop for EncoderPipeline {
    fn drop(&mut self) {
        // Whoever lets go of it last may be one of its threads.
        self.pipeline.call_async(|pipeline| {
            let _ = pipeline.set_state(gst::State::Null);
        });
    }
}

/// How long samples last, nanoseconds; none for pictures.
fn duration(caps: &gst::Caps, buffer: &gst::Buffer) -> Option<i64> {
    let info = gst_audio::AudioInfo::from_caps(caps).ok()?;
    let samples = buffer.size() as u64 / u64::from(info.bpf()).max(1);
    i64::try_from(samples.saturating_mul(1_000_000_000) / u64::from(info.rate()).max(1)).ok()
}

fn sink(
    zero: Duration,
    track: &Arc<RenditionTrack>,
    number: u64,
    offset: Arc<AtomicI64>,
    health: &Arc<Health>,
) -> gst_app::AppSink {
    let sink = encoded_sink();
    let (track, health) = (track.clone(), health.clone());
    let (ended, over) = (track.clone(), health.clone());
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                health.produced.fetch_add(1, Ordering::Relaxed);
                let time = sample::running_time(&sample).and_then(|time| {
                    let time = time.saturating_add(offset.load(Ordering::Acquire));
                    let nanos = Duration::from_nanos(time.unsigned_abs());
                    if time < 0 {
                        zero.checked_sub(nanos)
                    } else {
                        zero.checked_add(nanos)
                    }
                });
                if let (Some(time), Some(caps), Some(buffer)) =
                    (time, sample.caps_owned(), sample.buffer_owned())
                {
                    drop(sample);
                    track.write(number, &caps, buffer, time);
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                ended.encoder_ended(number);
                over.end();
            })
            .build(),
    );
    sink
}
