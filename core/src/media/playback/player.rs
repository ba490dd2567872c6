//! The pipeline that all tracks of a broadcast play in: one clock, one timeline.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use tokio::sync::mpsc;

use super::{
    PlaybackConfig, Synchronisation,
    branch::{Branch, Failure, Plan},
};
use crate::{RemoteBroadcast, media::receive::feed::Timeline};

/// Which part of a branch a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Decoder,
    Output,
}

/// What the pipeline says of a branch.
#[derive(Debug)]
pub(super) enum Report {
    /// An element cannot go on.
    Failed(Failure),
    /// All has been played.
    Ended,
}

pub(super) type Candidates = fn(&gst::Caps, bool) -> Vec<String>;

/// A pipeline that plays. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) broadcast: RemoteBroadcast,
    pub(super) config: PlaybackConfig,
    pub(super) candidates: Candidates,
    pub(super) timeline: Timeline,
    pipeline: gst::Pipeline,
    branches: Branches,
    started: Instant,
}

impl Player {
    pub(super) fn start(
        broadcast: RemoteBroadcast,
        config: PlaybackConfig,
        candidates: Candidates,
    ) -> Result<Self, glib::BoolError> {
        let pipeline = gst::Pipeline::new();
        // The branches report their own ends, not only all of them together.
        pipeline.set_message_forward(true);
        // Audio devices come and go; the clock stays.
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        let branches = Branches::default();
        let bus = pipeline
            .bus()
            .ok_or_else(|| glib::bool_error!("the pipeline has no bus"))?;
        let (listening, weak) = (branches.clone(), pipeline.downgrade());
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Latency(_) = message.view() {
                // Not here: this is a thread of the pipeline.
                if let Some(pipeline) = weak.upgrade() {
                    pipeline.call_async(|pipeline| {
                        let _ = pipeline.recalculate_latency();
                    });
                }
            } else {
                listening.hear(message);
            }
            gst::BusSyncReply::Drop
        });
        let player = Self {
            timeline: Timeline::new(config.latency),
            broadcast,
            config,
            candidates,
            pipeline,
            branches,
            started: Instant::now(),
        };
        // There is nothing in it yet that could fail.
        player
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| glib::bool_error!("the pipeline does not start"))?;
        Ok(player)
    }

    /// Makes a branch on a thread that may block.
    pub(super) async fn branch(&self, plan: Plan) -> Result<Branch, Failure> {
        let (pipeline, branches) = (self.pipeline.clone(), self.branches.clone());
        let started =
            tokio::task::spawn_blocking(move || Branch::start(&pipeline, &branches, &plan)).await;
        started.unwrap_or_else(|error| {
            Err(Failure {
                part: Part::Decoder,
                reason: error.to_string(),
            })
        })
    }

    #[cfg(test)]
    pub(super) fn pipeline(&self) -> &gst::Pipeline {
        &self.pipeline
    }

    pub(super) fn running_time(&self) -> Option<gst::ClockTime> {
        self.pipeline.current_running_time()
    }

    /// How long the sinks wait for late frames; none: they do not wait for any.
    pub(super) fn latency(&self) -> Option<gst::ClockTime> {
        match self.config.sync {
            Synchronisation::Synced => {
                Some(gst::ClockTime::try_from(self.config.latency).unwrap_or(gst::ClockTime::MAX))
            }
            Synchronisation::Immediate => None,
        }
    }

    /// Time since it was started.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

/// The branches that there are, for messages to find theirs.
#[derive(Debug, Clone, Default)]
pub(super) struct Branches(Arc<Mutex<Vec<Listening>>>);

#[derive(Debug)]
struct Listening {
    bin: glib::WeakRef<gst::Bin>,
    output: glib::WeakRef<gst::Bin>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Branches {
    fn list(&self) -> MutexGuard<'_, Vec<Listening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, bin: &gst::Bin, output: &gst::Bin) -> mpsc::UnboundedReceiver<Report> {
        let (reports, receiver) = mpsc::unbounded_channel();
        self.list().push(Listening {
            bin: bin.downgrade(),
            output: output.downgrade(),
            reports,
        });
        receiver
    }

    pub(super) fn remove(&self, bin: &gst::Bin) {
        self.list()
            .retain(|listening| listening.bin.upgrade().is_some_and(|other| other != *bin));
    }

    /// Passes on what the message says of a branch.
    fn hear(&self, message: &gst::Message) {
        use gst::MessageView;
        let Some(source) = message.src() else { return };
        match message.view() {
            MessageView::Error(error) => {
                let reason = error.error().to_string();
                tracing::debug!(element = %source.name(), %reason, debug = ?error.debug(), "error");
                self.report(source, |part| Report::Failed(Failure { part, reason }));
            }
            MessageView::Warning(warning) => {
                let text = warning.error().to_string();
                tracing::debug!(element = %source.name(), text, debug = ?warning.debug(), "warning");
            }
            MessageView::Element(element) => {
                let ended = element
                    .structure()
                    .filter(|structure| structure.name() == "GstBinForwarded")
                    .and_then(|structure| structure.get::<gst::Message>("message").ok())
                    .filter(|inner| inner.type_() == gst::MessageType::Eos);
                if let Some(source) = ended.as_ref().and_then(|ended| ended.src()) {
                    self.report(source, |_| Report::Ended);
                }
            }
            _ => {}
        }
    }

    fn report(&self, source: &gst::Object, report: impl FnOnce(Part) -> Report) {
        let mut part = Part::Decoder;
        let mut object = Some(source.clone());
        let list = self.list();
        while let Some(at) = object {
            if let Some(listening) = list.iter().find(|listening| is(&listening.bin, &at)) {
                // The branch may be going.
                let _ = listening.reports.send(report(part));
                return;
            }
            if list.iter().any(|listening| is(&listening.output, &at)) {
                part = Part::Output;
            }
            object = at.parent();
        }
    }
}

fn is(weak: &glib::WeakRef<gst::Bin>, object: &gst::Object) -> bool {
    weak.upgrade()
        .is_some_and(|bin| bin.upcast_ref::<gst::Object>() == object)
}
