//! Pipelines in the test's own process.

use std::sync::{Arc, Mutex};

use gst::{glib, prelude::*};

use crate::{LOCAL, PATIENCE, eventually};

/// A pipeline that keeps the messages it posts, and is stopped when it is dropped.
pub struct Pipe {
    /// The pipeline.
    pub pipeline: gst::Pipeline,
    messages: Arc<Mutex<Vec<gst::Message>>>,
}

impl Pipe {
    /// Makes a pipeline from a `gst-launch-1.0` description.
    ///
    /// # Panics
    /// If the description is wrong.
    pub fn parse(description: &str) -> Self {
        let pipeline = gst::parse::launch(description)
            .unwrap_or_else(|error| panic!("{error}: {description}"));
        let pipeline = match pipeline.downcast::<gst::Pipeline>() {
            Ok(pipeline) => pipeline,
            // One element alone.
            Err(element) => {
                let pipeline = gst::Pipeline::new();
                pipeline.add(&element).expect("the pipeline is empty");
                pipeline
            }
        };
        Self::new(pipeline)
    }

    /// Takes a pipeline over.
    ///
    /// # Panics
    /// If it has no bus.
    pub fn new(pipeline: gst::Pipeline) -> Self {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let kept = messages.clone();
        let bus = pipeline.bus().expect("a pipeline has a bus");
        bus.set_sync_handler(move |_, message| {
            use gst::MessageType as Type;
            // Others would keep alive the elements that posted them.
            let of_interest = [
                Type::Error,
                Type::Warning,
                Type::Eos,
                Type::Latency,
                Type::StreamCollection,
                Type::Element,
            ];
            if of_interest.contains(&message.type_()) {
                kept.lock()
                    .expect("nobody panics with the lock")
                    .push(message.clone());
            }
            gst::BusSyncReply::Drop
        });
        Self { pipeline, messages }
    }

    /// The element of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn element(&self, name: &str) -> gst::Element {
        self.pipeline
            .by_name(name)
            .unwrap_or_else(|| panic!("there is no element {name}"))
    }

    /// Starts.
    ///
    /// # Panics
    /// If the state change fails at once.
    pub fn play(&self) {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            panic!("the pipeline does not start: {:?}", self.error());
        }
    }

    /// Stops; the pipeline can be started again.
    ///
    /// # Panics
    /// If the state change fails.
    pub fn stop(&self) {
        self.pipeline
            .set_state(gst::State::Null)
            .expect("a pipeline can always be stopped");
    }

    /// The messages posted so far: errors, warnings, EOS, latency, stream collections and those of elements.
    ///
    /// # Panics
    /// Never: only if a thread panicked that had them.
    pub fn messages(&self) -> Vec<gst::Message> {
        self.messages
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// Lets go of the messages posted so far, and so of the elements that posted them.
    ///
    /// # Panics
    /// Never: only if a thread panicked that had them.
    pub fn forget(&self) {
        self.messages
            .lock()
            .expect("nobody panics with the lock")
            .clear();
    }

    /// The first error posted so far.
    pub fn error(&self) -> Option<(glib::Error, String)> {
        self.messages()
            .iter()
            .find_map(|message| match message.view() {
                gst::MessageView::Error(error) => {
                    Some((error.error(), error.debug().unwrap_or_default().into()))
                }
                _ => None,
            })
    }

    /// The texts of the warnings posted so far.
    pub fn warnings(&self) -> Vec<String> {
        self.messages()
            .iter()
            .filter_map(|message| match message.view() {
                gst::MessageView::Warning(warning) => Some(warning.error().message().to_owned()),
                _ => None,
            })
            .collect()
    }

    /// Waits for something to come about while the pipeline runs.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`], or if the pipeline posts an error.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        eventually(what, || {
            let found = look();
            if found.is_none()
                && let Some((error, debug)) = self.error()
            {
                panic!("while waiting for this: {what}: {error} ({debug})");
            }
            found
        })
    }

    /// Waits for an error.
    ///
    /// # Panics
    /// If none comes.
    pub fn wait_error(&self) -> glib::Error {
        eventually("an error on the bus", || self.error()).0
    }

    /// Waits for a warning with `part` in it.
    ///
    /// # Panics
    /// If none comes, or an error does.
    pub fn wait_warning(&self, part: &str) -> String {
        self.wait(&format!("a warning with {part:?}"), || {
            self.warnings().into_iter().find(|text| text.contains(part))
        })
    }

    /// Waits until the whole pipeline has ended.
    ///
    /// # Panics
    /// If it does not, or fails.
    pub fn wait_eos(&self) {
        self.wait("the end of the stream", || self.has_ended().then_some(()));
    }

    /// Whether the pipeline has posted EOS.
    pub fn has_ended(&self) -> bool {
        self.messages()
            .iter()
            .any(|message| message.type_() == gst::MessageType::Eos)
    }

    /// The state that the pipeline is in, when it has settled.
    pub fn state(&self) -> gst::State {
        let patience = gst::ClockTime::try_from(PATIENCE).ok();
        self.pipeline.state(patience).1
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A pipeline with an `irohlivesink` called `stream`.
pub struct Publisher {
    /// The pipeline.
    pub pipe: Pipe,
    /// The `irohlivesink`.
    pub sink: gst::Element,
}

impl Publisher {
    /// Makes the pipeline but does not start it. In the description `SINK` stands for the sink, with what it needs to
    /// stay on this machine; further properties may follow, and so may `stream.` in later branches.
    pub fn new(description: &str) -> Self {
        let sink = format!("irohlivesink name=stream {LOCAL} bind-address=127.0.0.1:0");
        let pipe = Pipe::parse(&description.replace("SINK", &sink));
        let sink = pipe.element("stream");
        Self { pipe, sink }
    }

    /// Makes it and starts it.
    pub fn start(description: &str) -> Self {
        let publisher = Self::new(description);
        publisher.pipe.play();
        publisher
    }

    /// Waits for the ticket.
    pub fn ticket(&self) -> String {
        self.pipe.wait("a ticket", || self.sink.property("ticket"))
    }
}
