//! A source of pictures and sound that goes to two places.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    error::SourceError,
    input::Input,
    pipeline::{Capture, Tap},
};
use crate::{broadcast::MediaKind, media::ladder::plan::CaptureFormat};

/// A source that two share.
#[derive(Debug)]
pub(in crate::media) struct SplitSource {
    state: Mutex<SplitState>,
}

#[derive(Debug)]
struct SplitState {
    input: Option<Input>,
    taps: Vec<Tap>,
    /// How many have not said yet whether they want something.
    undecided: u8,
    format: CaptureFormat,
    capture: Option<Capture>,
}

impl SplitSource {
    fn state(&self) -> MutexGuard<'_, SplitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a source that two share, with one half for each.
    pub(super) fn halves(input: Input) -> [Half; 2] {
        let shared = Arc::new(Self {
            state: Mutex::new(SplitState {
                input: Some(input),
                taps: Vec::new(),
                undecided: 2,
                format: CaptureFormat::default(),
                capture: None,
            }),
        });
        [MediaKind::Video, MediaKind::Audio].map(|kind| Half {
            shared: shared.clone(),
            kind,
            given: false,
        })
    }

    /// The pipeline, once nobody shares it any more.
    pub(super) fn into_capture(shared: Arc<Self>) -> Option<Capture> {
        let state = Arc::into_inner(shared)?.state.into_inner();
        state.unwrap_or_else(PoisonError::into_inner).capture
    }

    /// One of the two has decided. The last one starts the source.
    fn decide(&self, tap: Option<Tap>, format: Option<CaptureFormat>) -> Result<(), SourceError> {
        let (input, taps, format) = {
            let mut state = self.state();
            state.taps.extend(tap);
            state.undecided = state.undecided.saturating_sub(1);
            if let Some(format) = format {
                state.format = format;
            }
            if state.undecided > 0 || state.taps.is_empty() {
                return Ok(());
            }
            let Some(input) = state.input.take() else {
                return Ok(());
            };
            (input, std::mem::take(&mut state.taps), state.format)
        };
        // Not under the lock: to open a device takes a while.
        match Capture::start(input, taps.clone(), format) {
            Ok(capture) => {
                self.state().capture = Some(capture);
                Ok(())
            }
            Err(error) => {
                for tap in taps {
                    tap.failed(error.clone());
                }
                Err(error)
            }
        }
    }
}

/// One of the two that share a source.
#[derive(Debug)]
pub(in crate::media) struct Half {
    shared: Arc<SplitSource>,
    kind: MediaKind,
    given: bool,
}

impl Half {
    pub(super) fn give(
        mut self,
        tap: Tap,
        format: Option<CaptureFormat>,
    ) -> Result<Arc<SplitSource>, SourceError> {
        debug_assert_eq!(tap.kind, self.kind);
        self.given = true;
        self.shared.decide(Some(tap), format)?;
        Ok(self.shared.clone())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.given {
            // Where it goes wrong the other half hears of it.
            let _ = self.shared.decide(None, None);
        }
    }
}
