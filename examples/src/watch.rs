//! Watches a ticket, and says every second how well.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use gst::{glib, prelude::*};

use crate::{
    both::Publisher,
    narrator::{self, Narrator},
    pipeline::{self, Event},
    report::{Kind, Moment, Statistics},
    say,
    snapshot::Snapshots,
};

/// After a publisher's end, for so many seconds without a frame the end is waited for.
const PATIENCE: u32 = 3;

/// Said once, when there is a delay below zero.
const AHEAD: &str = "\
(A delay below zero: the frames of a file are sent in the order of decoding, so many before their time. If this is no \
file, the clocks of the two machines differ.)";

/// What the threads that handle frames, and the one that prints, share.
#[derive(Default)]
struct Viewer {
    statistics: Mutex<Statistics>,
    /// What the sinks wait beyond running time, in nanoseconds.
    latency: AtomicU64,
    snapshots: Mutex<Option<Snapshots>>,
}

/// Watches until the broadcast ends, somebody ends it, or something cannot be mended by waiting.
///
/// `publisher` is the other process, if this one has started it.
pub fn run(ticket: &str, local: bool, publisher: Option<Publisher>) -> Result<()> {
    let pipeline = gst::Pipeline::new();
    let source = pipeline::element("irohlivesrc")?;
    source.set_property("ticket", ticket);
    if local {
        pipeline::stay_local(&source, publisher.is_some());
    }
    pipeline.add(&source)?;
    source.add_property_notify_watch(Some("status"), true);
    source.add_property_notify_watch(Some("path-type"), true);

    let viewer = Arc::new(Viewer::default());
    let (weak, shared) = (pipeline.downgrade(), viewer.clone());
    source.connect_pad_added(move |source, pad| {
        let Some(pipeline) = weak.upgrade() else {
            return;
        };
        if let Err(error) = show(&pipeline, pad, &shared) {
            gst::element_error!(source, gst::CoreError::MissingPlugin, ("{error}"));
        }
    });
    let weak = pipeline.downgrade();
    source.connect_pad_removed(move |_, pad| {
        // The publisher took this track away; others may come.
        if let Some(branch) = weak
            .upgrade()
            .and_then(|pipeline| pipeline.by_name(&pad.name()))
        {
            let _ = branch.set_state(gst::State::Null);
            let _ = weak.upgrade().map(|pipeline| pipeline.remove(&branch));
        }
    });

    let mut console = Console {
        viewer,
        pipeline: pipeline.downgrade(),
        publisher,
        narrator: Narrator::default(),
        path: "none".into(),
        since: Instant::now(),
        silence: 0,
        is_catching_up: true,
        is_explained: false,
    };
    pipeline::run(&pipeline, move |event| {
        let step = match event {
            Event::Interrupt => return ControlFlow::Break(Ok(())),
            Event::Message(message) => match message.view() {
                gst::MessageView::Eos(_) => return ControlFlow::Break(Ok(())),
                gst::MessageView::PropertyNotify(notify) => console.property(notify),
                gst::MessageView::Element(_) => missing_decoder(message),
                _ => Ok(()),
            },
            Event::Second => match console.second() {
                ControlFlow::Continue(step) => step,
                ControlFlow::Break(end) => return ControlFlow::Break(end),
            },
        };
        match step {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Err(error)),
        }
    })
}

/// What is printed.
struct Console {
    viewer: Arc<Viewer>,
    pipeline: glib::WeakRef<gst::Pipeline>,
    /// The other process, if this one has started it.
    publisher: Option<Publisher>,
    narrator: Narrator,
    /// The kind of path to the publisher.
    path: String,
    /// When the last report was made.
    since: Instant,
    /// For so many seconds nothing has come.
    silence: u32,
    /// What comes first is the group of pictures that had begun: all at once, and late.
    is_catching_up: bool,
    is_explained: bool,
}

impl Console {
    fn property(&mut self, notify: &gst::message::PropertyNotify) -> Result<()> {
        match notify.get() {
            (_, "status", Some(status)) => self.narrator.says(&nick(status)).map_or(Ok(()), say),
            (_, "path-type", Some(kind)) => {
                self.path = nick(kind);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A second has passed; breaks when the other process is gone.
    fn second(&mut self) -> ControlFlow<Result<()>, Result<()>> {
        self.viewer.ask_latency(&self.pipeline);
        let elapsed = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        let report = self.viewer.statistics().report(elapsed);
        self.silence = if report.is_silent() {
            self.silence + 1
        } else {
            0
        };
        if let Some(end) = self.publisher.as_mut().and_then(Publisher::ended)
            // After a proper end the last frames are still on the way to the sinks, and then EOS comes.
            && (end.is_err() || self.silence > PATIENCE)
        {
            return ControlFlow::Break(end);
        }
        let was_catching_up = std::mem::replace(&mut self.is_catching_up, report.is_silent());
        ControlFlow::Continue(if report.is_silent() {
            narrator::of_silence(self.silence).map_or(Ok(()), say)
        } else if was_catching_up {
            Ok(())
        } else {
            if report.is_ahead() && !std::mem::replace(&mut self.is_explained, true) {
                eprintln!("{AHEAD}");
            }
            say(format_args!("{report}  {}", self.path))
        })
    }
}

/// Puts a decoder and a sink behind a pad of the source.
fn show(pipeline: &gst::Pipeline, pad: &gst::Pad, viewer: &Arc<Viewer>) -> Result<()> {
    let numbered = pad.name();
    let (word, _) = numbered.split_once('_').context("pads are numbered")?;
    let kind = match word {
        "video" => Kind::Video,
        _ => Kind::Audio,
    };
    let shown = |element: &gst::Element| element.name().starts_with(word);
    if pipeline.children().iter().any(shown) {
        eprintln!("There is also {numbered}, which is not shown here.");
        return Ok(());
    }
    let display = has_display();
    // autovideosink tries all there are, and DirectFB, which no desktop uses, crashes where there is no screen.
    if let Some(directfb) = gst::Registry::get().lookup_feature("dfbvideosink") {
        directfb.set_rank(gst::Rank::NONE);
    }
    let branch = pipeline::branch(match (kind, display) {
        (Kind::Video, true) => {
            "queue name=input ! decodebin3 ! videoconvert ! autovideosink name=sink"
        }
        (Kind::Audio, true) => {
            "queue name=input ! decodebin3 ! audioconvert ! audioresample ! autoaudiosink name=sink"
        }
        // They keep time like a screen and a loudspeaker.
        (Kind::Video, false) => "queue name=input ! decodebin3 ! fakesink sync=true name=sink",
        (Kind::Audio, false) => {
            "queue name=input ! decodebin3 ! fakesink sync=true enable-last-sample=false name=sink"
        }
    })?;
    branch.set_property("name", &numbered);
    let sink = branch.by_name("sink").context("the branch has a sink")?;
    let rendered = sink.static_pad("sink").context("the sink has a pad")?;
    viewer.count_received(pad, kind);
    viewer.count_shown(&rendered, kind, pipeline);
    if kind == Kind::Video && !display {
        *lock(&viewer.snapshots) = Some(Snapshots::start(sink.downgrade()));
    }
    pipeline.add(&branch)?;
    branch.sync_state_with_parent()?;
    let input = branch
        .static_pad("sink")
        .context("the branch has an input")?;
    pad.link(&input)
        .map_err(|error| anyhow!("{numbered} could not be linked: {error}"))?;
    Ok(())
}

impl Viewer {
    fn statistics(&self) -> MutexGuard<'_, Statistics> {
        lock(&self.statistics)
    }

    /// Counts what comes out of the source, and compares its capture time with the time now.
    ///
    /// Both times are those of the system clocks of two machines: on one machine the difference is exact, between two
    /// it is as good as their clocks.
    fn count_received(self: &Arc<Self>, pad: &gst::Pad, kind: Kind) {
        let viewer = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                let delay = captured(buffer).and_then(|captured| {
                    i64::try_from(unix_now())
                        .ok()?
                        .checked_sub_unsigned(captured)
                });
                viewer
                    .statistics()
                    .received(kind, buffer.size() as u64, delay);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Notes for each decoded frame how long after its capture the sink renders it.
    ///
    /// From this follows the lip-sync offset: sound and picture of one moment are in sync if they are rendered equally
    /// long after their capture. So it is the sound's time minus that of the picture; above zero the sound comes late.
    fn count_shown(self: &Arc<Self>, pad: &gst::Pad, kind: Kind, pipeline: &gst::Pipeline) {
        let (viewer, pipeline) = (self.clone(), pipeline.downgrade());
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let moment = info.buffer().and_then(|buffer| {
                let segment = pad.sticky_event::<gst::event::Segment>(0)?;
                let segment = segment.segment().downcast_ref::<gst::ClockTime>()?;
                Some(Moment {
                    captured: captured(buffer)?,
                    now: unix_now(),
                    now_running: pipeline.upgrade()?.current_running_time()?.nseconds(),
                    running_time: segment.to_running_time(buffer.pts()?)?.nseconds(),
                    latency: viewer.latency.load(Ordering::Relaxed),
                })
            });
            if let Some(moment) = moment {
                viewer.statistics().shown(kind, moment.shown_after());
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn ask_latency(&self, pipeline: &glib::WeakRef<gst::Pipeline>) {
        let mut query = gst::query::Latency::new();
        if pipeline
            .upgrade()
            .is_some_and(|pipeline| pipeline.query(&mut query))
        {
            let (_, latency, _) = query.result();
            self.latency.store(latency.nseconds(), Ordering::Relaxed);
        }
    }
}

/// The capture time that irohlivesrc gives each buffer, and decoders hand on: nanoseconds since 1970.
fn captured(buffer: &gst::BufferRef) -> Option<u64> {
    buffer
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .find(|meta| {
            meta.reference()
                .structure(0)
                .is_some_and(|caps| caps.name() == "timestamp/x-unix")
        })
        .map(|meta| meta.timestamp().nseconds())
}

fn unix_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// The short name of a value of an enumeration.
fn nick(value: &glib::Value) -> String {
    glib::EnumValue::from_value(value)
        .map_or_else(String::new, |(_, value)| value.nick().to_owned())
}

/// Names the package with the decoders, as the error that follows says only that something is missing.
fn missing_decoder(message: &gst::Message) -> Result<()> {
    match gst_pbutils::MissingPluginMessage::parse(message) {
        Ok(missing) => Err(anyhow!(
            "A {} is missing; on Debian and Ubuntu: apt install gstreamer1.0-libav",
            missing.description()
        )),
        Err(_) => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
