//! The pipeline that all tracks of a broadcast play in: one clock, one timeline.

use std::time::{Duration, Instant};

use gst::{glib, prelude::*};

use super::{
    branch::{Branch, Plan},
    config::{PlaybackConfig, Synchronisation},
    reports::{Failure, Part, Reports},
};
use crate::{
    RemoteBroadcast,
    media::receive::{Candidates, PlayoutClock},
};

/// A pipeline that plays. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) broadcast: RemoteBroadcast,
    pub(super) config: PlaybackConfig,
    pub(super) candidates: Candidates,
    pub(super) clock: PlayoutClock,
    pipeline: gst::Pipeline,
    reports: Reports,
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
        let reports = Reports::default();
        let bus = pipeline
            .bus()
            .ok_or_else(|| glib::bool_error!("the pipeline has no bus"))?;
        let (listening, weak) = (reports.clone(), pipeline.downgrade());
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Latency(_) = message.view() {
                // Not here: this is a thread of the pipeline.
                if let Some(pipeline) = weak.upgrade() {
                    pipeline.call_async(|pipeline| {
                        let _ = pipeline.recalculate_latency();
                    });
                }
            } else {
                listening.route(message);
            }
            gst::BusSyncReply::Drop
        });
        let player = Self {
            clock: PlayoutClock::new(config.latency),
            broadcast,
            config,
            candidates,
            pipeline,
            reports,
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
        let (pipeline, reports) = (self.pipeline.clone(), self.reports.clone());
        let started =
            tokio::task::spawn_blocking(move || Branch::start(&pipeline, &reports, &plan)).await;
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
