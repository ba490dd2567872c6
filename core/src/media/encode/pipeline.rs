//! One encoder at work: a pipeline from raw frames to the frames of a track.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gst::{glib, prelude::*};

use super::{
    parse::{encoded_sink, parser},
    track::RenditionTrack,
};
use crate::media::{caps::Codec, capture, encoder::Tuned, sample};

/// So many frames without anything coming of them, and the encoder hangs.
const SILENCE: u64 = 300;

/// Raw video that may wait for an encoder. More only makes the picture older.
const VIDEO_BACKLOG: u64 = 2;

/// Raw audio that may wait.
const AUDIO_BACKLOG: gst::ClockTime = gst::ClockTime::from_mseconds(500);

/// What an encoder is to do.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::media) struct Job {
    /// The rendition's name, which is its track's.
    pub name: String,
    /// What the encoder gets: scaled, converted.
    pub target: gst::Caps,
    /// Frames a second, of video: what the encoder is told, and what it gets at most.
    pub framerate: Option<gst::Fraction>,
    /// Bits a second.
    pub bitrate: u64,
    pub speech: bool,
}

/// How an encoder does.
#[derive(Debug, Default)]
struct Health {
    failure: Mutex<Option<String>>,
    /// Frames that came out.
    produced: AtomicU64,
    /// Frames that went in since.
    silent: AtomicU64,
}

impl Health {
    fn fail(&self, reason: String) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
    }
}

/// An encoder at work. Dropping it stops it, without waiting.
#[derive(Debug)]
pub(in crate::media) struct Encoder {
    pipeline: gst::Pipeline,
    input: gst_app::AppSrc,
    tuned: Tuned,
    /// Of what goes in.
    caps: Option<gst::Caps>,
    framerate: Option<gst::Fraction>,
    /// What the encoder's own timestamps count from.
    zero: Duration,
    health: Arc<Health>,
}

impl Encoder {
    /// Starts an encoder. Frames that go in begin at `zero`.
    ///
    /// # Errors
    /// Why it does not start, for people.
    pub fn start(
        factory: &gst::ElementFactory,
        job: &Job,
        zero: Duration,
        track: &Arc<RenditionTrack>,
    ) -> Result<Self, String> {
        let framerate = job.framerate.map_or(30, |rate| {
            u32::try_from((rate.numer() + rate.denom() - 1) / rate.denom().max(1)).unwrap_or(30)
        });
        let tuned = Tuned::make(factory, job.bitrate, framerate, job.speech)
            .map_err(|error| error.to_string())?;
        let health = Arc::new(Health::default());
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
            input.set_max_buffers(VIDEO_BACKLOG);
        } else {
            input.set_max_time(AUDIO_BACKLOG);
        }
        let sink = sink(zero, track, &health);
        let encoder = Self {
            pipeline,
            input,
            tuned,
            caps: None,
            framerate: job.framerate,
            zero,
            health,
        };
        encoder
            .assemble(track.codec(), job, sink)
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
        job: &Job,
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
            .property("caps", &job.target)
            .build()?;
        row.push(filter);
        row.push(self.tuned.element.clone());
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
        let failure = self
            .health
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        failure.or_else(|| {
            (self.health.silent.load(Ordering::Relaxed) >= SILENCE)
                .then(|| format!("nothing came of {SILENCE} frames"))
        })
    }

    /// Frames that came out so far.
    pub fn produced(&self) -> u64 {
        self.health.produced.load(Ordering::Relaxed)
    }

    pub fn set_bitrate(&self, bitrate: u64) {
        self.tuned.set_bitrate(bitrate);
    }

    /// Gives it a frame.
    pub fn push(&mut self, caps: &gst::Caps, buffer: &gst::Buffer, time: Duration, keyframe: bool) {
        if self.caps.as_ref() != Some(caps) {
            self.caps = Some(caps.clone());
            let mut caps = caps.clone();
            if let Some(framerate) = self.framerate {
                caps.make_mut().set("framerate", framerate);
            }
            self.input.set_caps(Some(&caps));
        }
        if keyframe {
            self.tuned.force_keyframe();
        }
        let time = u64::try_from(time.saturating_sub(self.zero).as_nanos()).unwrap_or(u64::MAX - 1);
        // The memory is shared with the other renditions, only what is said of it is copied.
        let mut buffer = buffer.copy();
        {
            let buffer = buffer.make_mut();
            buffer.set_pts(gst::ClockTime::from_nseconds(time));
            buffer.set_dts(gst::ClockTime::NONE);
        }
        if self.framerate.is_some() {
            // Of sound, silence may well be nothing.
            self.health.silent.fetch_add(1, Ordering::Relaxed);
        }
        // Refused only while it stops; the reason is on its bus then.
        let _ = self.input.push_buffer(buffer);
    }

    /// No more frames: what is inside comes out, and then the track ends.
    pub fn end(&self) {
        let _ = self.input.end_of_stream();
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        capture::stop(&self.pipeline);
    }
}

fn sink(zero: Duration, track: &Arc<RenditionTrack>, health: &Arc<Health>) -> gst_app::AppSink {
    let sink = encoded_sink();
    let number = track.next_encoder();
    let (track, health, end) = (track.clone(), health.clone(), track.clone());
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                health.produced.fetch_add(1, Ordering::Relaxed);
                health.silent.store(0, Ordering::Relaxed);
                let time = sample::running_time(&sample).and_then(|time| {
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
            .eos(move |_| end.finish())
            .build(),
    );
    sink
}
