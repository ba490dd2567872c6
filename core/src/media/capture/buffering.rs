//! A source that has to wait for its data: the pipeline stands still in the meantime.
//!
//! Otherwise its clock goes on, and what comes afterwards is late by as much, for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::prelude::*;

/// Pauses a pipeline while its source has too little data, and stops it.
#[derive(Debug)]
pub(super) struct Buffering {
    state: Mutex<State>,
    /// Held while the state of the pipeline is changed, which may take a while, so that it is not paused or resumed once it
    /// was stopped.
    switch: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: bool,
    stopped: bool,
}

impl Buffering {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            switch: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switch(&self) -> MutexGuard<'_, ()> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source says how much of what it needs it has. Does not wait; it may come from any thread.
    pub(super) fn report(self: &Arc<Self>, pipeline: &gst::Pipeline, percent: i32) {
        let waiting = percent < 100;
        if std::mem::replace(&mut self.state().waiting, waiting) == waiting {
            return;
        }
        let buffering = self.clone();
        pipeline.call_async(move |pipeline| {
            let _switch = buffering.switch();
            let State { waiting, stopped } = *buffering.state();
            // What is live cannot wait.
            let live = matches!(
                pipeline.state(gst::ClockTime::ZERO).0,
                Ok(gst::StateChangeSuccess::NoPreroll)
            );
            if stopped || live {
                return;
            }
            let state = if waiting {
                gst::State::Paused
            } else {
                gst::State::Playing
            };
            // A failure is on the bus.
            let _ = pipeline.set_state(state);
        });
    }

    /// Stops the pipeline for good, and waits for that.
    pub(super) fn stop(&self, pipeline: &gst::Pipeline) {
        self.state().stopped = true;
        let _switch = self.switch();
        let _ = pipeline.set_state(gst::State::Null);
    }
}
