//! What comes out of an `irohlivesrc`, recorded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gst::{glib, prelude::*};

use crate::{LOCAL, Pipe};

/// A buffer that came.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its presentation time, which in these pipelines is running time.
    pub pts: Option<gst::ClockTime>,
    /// The pipeline's running time when it came.
    pub arrival: Option<gst::ClockTime>,
    /// Its flags.
    pub flags: gst::BufferFlags,
    /// Its bytes.
    pub data: Bytes,
}

impl Frame {
    /// Whether decoding can begin here.
    pub fn is_key(&self) -> bool {
        !self.flags.contains(gst::BufferFlags::DELTA_UNIT)
    }
}

/// What a pad gave, in its order.
#[derive(Debug, Clone)]
pub enum Item {
    /// A serialised event.
    Event(gst::Event),
    /// A buffer.
    Frame(Frame),
}

/// All that a pad gave.
#[derive(Debug, Clone, Default)]
pub struct PadLog {
    /// The pad's name.
    pub name: String,
    /// Events and buffers.
    pub items: Vec<Item>,
    /// Whether the element took the pad away again.
    pub removed: bool,
}

impl PadLog {
    /// The buffers.
    pub fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.items.iter().filter_map(|item| match item {
            Item::Frame(frame) => Some(frame),
            Item::Event(_) => None,
        })
    }

    /// The events.
    pub fn events(&self) -> impl Iterator<Item = &gst::Event> {
        self.items.iter().filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Frame(_) => None,
        })
    }

    /// The caps that came, in their order.
    pub fn caps(&self) -> Vec<gst::Caps> {
        self.events()
            .filter_map(|event| match event.view() {
                gst::EventView::Caps(caps) => Some(caps.caps_owned()),
                _ => None,
            })
            .collect()
    }

    /// Whether the pad's stream has ended.
    pub fn has_ended(&self) -> bool {
        self.events()
            .any(|event| event.type_() == gst::EventType::Eos)
    }
}

#[derive(Default)]
struct Log {
    pads: Vec<PadLog>,
    /// `pad-added`, `pad-removed` with the pad's name, `no-more-pads`, in their order.
    signals: Vec<String>,
    /// The nicks of the property `status`, each time that it was notified.
    statuses: Vec<String>,
}

/// A pipeline with an `irohlivesrc` called `s`, each of whose pads is recorded.
pub struct Viewer {
    /// The pipeline.
    pub pipe: Pipe,
    /// The `irohlivesrc`.
    pub src: gst::Element,
    log: Arc<Mutex<Log>>,
}

impl Viewer {
    /// Starts to watch `ticket` and records all pads as they are.
    pub fn start(ticket: &str) -> Self {
        let viewer = Self::new(ticket, "", |_| Some(String::new()));
        viewer.pipe.play();
        viewer
    }

    /// Makes the pipeline but does not start it. `properties` are the source's; `behind` says for the name of a pad
    /// what to put behind it (a description such as `avdec_h264 ! videoconvert`, which may be empty), whose output is
    /// recorded, or that the pad stays unlinked.
    ///
    /// # Panics
    /// If the descriptions are wrong.
    pub fn new(
        ticket: &str,
        properties: &str,
        behind: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let pipe = Pipe::parse(&format!("irohlivesrc name=s {LOCAL} {properties}"));
        let src = pipe.element("s");
        src.set_property("ticket", ticket);
        let log = Arc::new(Mutex::new(Log::default()));

        let (weak, kept) = (pipe.pipeline.downgrade(), log.clone());
        src.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else {
                return;
            };
            lock(&kept)
                .signals
                .push(format!("pad-added {}", pad.name()));
            let number = {
                let mut log = lock(&kept);
                log.pads.push(PadLog {
                    name: pad.name().into(),
                    ..PadLog::default()
                });
                log.pads.len() - 1
            };
            if let Some(description) = behind(&pad.name())
                && let Err(error) = attach(&pipeline, pad, &description, &kept, number)
            {
                // A panic could not unwind from here.
                gst::element_error!(pipeline, gst::CoreError::Pad, ("{error}"));
            }
        });
        let (weak, kept) = (pipe.pipeline.downgrade(), log.clone());
        src.connect_pad_removed(move |_, pad| {
            let number = {
                let mut log = lock(&kept);
                log.signals.push(format!("pad-removed {}", pad.name()));
                let number = log.pads.iter().rposition(|known| known.name == pad.name());
                if let Some(number) = number {
                    log.pads[number].removed = true;
                }
                number
            };
            if let (Some(pipeline), Some(number)) = (weak.upgrade(), number)
                && let Some(bin) = pipeline.by_name(&format!("behind-{number}"))
            {
                bin.set_locked_state(true);
                let _ = bin.set_state(gst::State::Null);
                let _ = pipeline.remove(&bin);
            }
        });
        let kept = log.clone();
        src.connect_no_more_pads(move |_| lock(&kept).signals.push("no-more-pads".into()));
        let kept = log.clone();
        src.connect_notify(Some("status"), move |src, _| {
            lock(&kept).statuses.push(nick(src, "status"));
        });
        Self { pipe, src, log }
    }

    /// What the pads gave so far, in the order in which they were added.
    pub fn pads(&self) -> Vec<PadLog> {
        lock(&self.log).pads.clone()
    }

    /// Lets go of what the pads gave that are gone, and of the messages.
    pub fn forget(&self) {
        self.pipe.forget();
        let mut log = lock(&self.log);
        for pad in log.pads.iter_mut().filter(|pad| pad.removed) {
            pad.items = Vec::new();
        }
    }

    /// What the pad called `name` gave so far; the latest one, if there were several.
    pub fn pad(&self, name: &str) -> Option<PadLog> {
        lock(&self.log)
            .pads
            .iter()
            .rfind(|pad| pad.name == name)
            .cloned()
    }

    /// How many buffers the pad called `name` gave so far.
    pub fn count(&self, name: &str) -> usize {
        let log = lock(&self.log);
        let pad = log.pads.iter().rfind(|pad| pad.name == name);
        pad.map_or(0, |pad| pad.frames().count())
    }

    /// `pad-added NAME`, `pad-removed NAME` and `no-more-pads`, in the order in which the signals came.
    pub fn signals(&self) -> Vec<String> {
        lock(&self.log).signals.clone()
    }

    /// Each value of the property `status` that was notified so far.
    pub fn statuses(&self) -> Vec<String> {
        lock(&self.log).statuses.clone()
    }

    /// Waits until the pad called `name` has given at least `count` buffers, and says what it gave.
    pub fn wait_frames(&self, name: &str, count: usize) -> PadLog {
        self.pipe.wait(&format!("{count} buffers on {name}"), || {
            (self.count(name) >= count)
                .then(|| self.pad(name))
                .flatten()
        })
    }

    /// Waits until the pad called `name` gives more buffers than it has at the time of the call: for a publisher that goes
    /// on by itself. What a test publishes by hand may have come before the call, so that count comes from the test, with
    /// [`wait_frames`](Self::wait_frames).
    pub fn wait_more_frames(&self, name: &str, more: usize) -> PadLog {
        self.wait_frames(name, self.count(name) + more)
    }

    /// Waits until the property `status` has had these values, in this order, whatever came between them.
    pub fn wait_statuses(&self, expected: &[&str]) {
        self.pipe.wait(&format!("{expected:?}"), || {
            let log = lock(&self.log);
            let mut seen = log.statuses.iter();
            let all = expected
                .iter()
                .all(|expected| seen.any(|status| status == expected));
            all.then_some(())
        });
    }

    /// Waits until the property `status` has this value.
    pub fn wait_status(&self, status: &str) {
        self.pipe.wait(&format!("status={status}"), || {
            (nick(&self.src, "status") == status).then_some(())
        });
    }
}

/// The nick of an enum property's value.
///
/// # Panics
/// If the property is no enum.
pub fn nick(element: &gst::Element, property: &str) -> String {
    let value = element.property_value(property);
    let (_, value) = glib::EnumValue::from_value(&value).expect("the property is an enum");
    value.nick().to_owned()
}

/// Puts `description` and a recording sink behind a pad.
fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    description: &str,
    log: &Arc<Mutex<Log>>,
    number: usize,
) -> Result<(), glib::Error> {
    // A sink that waits for its first buffer would keep the whole pipeline out of PLAYING.
    let sink = "appsink name=record async=false sync=false enable-last-sample=false";
    let filter = if description.is_empty() { "" } else { " ! " };
    let bin = gst::parse::bin_from_description(&format!("{description}{filter}{sink}"), true)?;
    let sink = bin.by_name("record").and_downcast::<gst_app::AppSink>();
    let sink = sink.expect("the description ends in one");
    let weak = pipeline.downgrade();
    let kept = log.clone();
    sink.static_pad("sink")
        .expect("an appsink has a pad")
        .add_probe(
            gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER,
            move |_, info| {
                let item = match &info.data {
                    Some(gst::PadProbeData::Event(event)) => Item::Event(event.clone()),
                    Some(gst::PadProbeData::Buffer(buffer)) => Item::Frame(Frame {
                        pts: buffer.pts(),
                        arrival: weak
                            .upgrade()
                            .and_then(|pipeline| pipeline.current_running_time()),
                        flags: buffer.flags(),
                        data: bytes_of(buffer),
                    }),
                    _ => return gst::PadProbeReturn::Ok,
                };
                lock(&kept).pads[number].items.push(item);
                gst::PadProbeReturn::Ok
            },
        );
    // What was recorded need not be kept a second time.
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(|sink| {
                sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    bin.set_property("name", format!("behind-{number}"));
    pipeline.add(&bin).expect("the bin is new");
    bin.sync_state_with_parent().expect("the elements start");
    let first = bin
        .static_pad("sink")
        .expect("the description begins with a filter");
    pad.link(&first).map(drop).map_err(|error| {
        let caps = pad.current_caps();
        glib::Error::new(
            gst::CoreError::Negotiation,
            &format!("{error:?}: {caps:?} to {description}"),
        )
    })
}

/// A buffer's bytes.
///
/// # Panics
/// If its memory cannot be read.
pub fn bytes_of(buffer: &gst::BufferRef) -> Bytes {
    let map = buffer.map_readable().expect("the memory can be read");
    Bytes::copy_from_slice(&map)
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
