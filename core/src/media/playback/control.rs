//! What the program sets, and what it sees, of a track.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;

use super::branch::{Branch, set_volume};
use crate::{
    adaptive::{AdaptiveControl, AdaptiveError, Quality},
    broadcast::{MediaKind, Rendition},
    media::receive::{RenditionHistory, RenditionReader},
};

/// What the program sets, and what it sees, of a track.
#[derive(Debug)]
pub(super) struct TrackControl {
    pub(super) kind: MediaKind,
    pub(super) history: Arc<RenditionHistory>,
    state: Mutex<State>,
    /// Given once, when the program wants the track.
    pub(super) wanted: Notify,
}

#[derive(Debug)]
struct State {
    quality: Quality,
    control: Option<AdaptiveControl>,
    volume: (f64, bool),
    element: Option<gst::Element>,
    decoder: Option<String>,
    failures: u64,
}

impl TrackControl {
    pub(super) fn new(kind: MediaKind, quality: Quality) -> Self {
        Self {
            kind,
            history: Arc::default(),
            state: Mutex::new(State {
                quality,
                control: None,
                volume: (1.0, false),
                element: None,
                decoder: None,
                failures: 0,
            }),
            wanted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn quality(&self) -> Quality {
        self.state().quality.clone()
    }

    pub(super) fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        let mut state = self.state();
        if let Some(control) = &state.control {
            control.set_quality(quality.clone())?;
        }
        state.quality = quality;
        Ok(())
    }

    pub(super) fn volume(&self) -> (f64, bool) {
        self.state().volume
    }

    pub(super) fn set_volume(&self, change: impl FnOnce(&mut (f64, bool))) {
        let mut state = self.state();
        change(&mut state.volume);
        if let Some(element) = &state.element {
            set_volume(element, state.volume);
        }
    }

    pub(super) fn rendition(&self) -> Option<Arc<Rendition>> {
        self.history.rendition()
    }

    /// The program gets a frame that was captured then.
    pub(super) fn handed_out(&self, captured: Option<SystemTime>) {
        self.history.handed_out(captured);
    }

    pub(super) fn decoder(&self) -> Option<String> {
        self.state().decoder.clone()
    }

    pub(super) fn failed(&self) {
        self.state().failures += 1;
    }

    pub(super) fn failures(&self) -> u64 {
        self.state().failures
    }

    pub(super) fn reads(&self, reader: &RenditionReader) {
        self.state().control = Some(reader.control());
    }

    pub(super) fn plays(&self, branch: &Branch, decoder: &str) {
        let mut state = self.state();
        state.decoder = Some(decoder.to_owned());
        state.element = branch.volume();
        if let Some(element) = &state.element {
            // It may have been changed since the branch was planned.
            set_volume(element, state.volume);
        }
    }

    pub(super) fn stops(&self) {
        let mut state = self.state();
        state.element = None;
        state.decoder = None;
    }
}
