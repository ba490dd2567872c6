//! The first catalog of a broadcast, which waits for what was announced.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moq_mux::catalog::Reserved;

use crate::broadcast::extension::{CatalogExtension, CatalogProducer};

/// How long the first catalog waits for tracks that were announced but not described yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds the first catalog back while a track is announced that has no configuration yet, so that viewers see all tracks
/// at once.
#[derive(Default)]
pub(super) struct FirstCatalog(Mutex<State>);

#[derive(Default)]
struct State {
    /// The tracks that were announced and are not described.
    awaited: usize,
    /// Nothing is published as long as this is held.
    held: Option<Reserved<CatalogExtension>>,
    since: Option<Instant>,
}

impl FirstCatalog {
    /// A track is announced.
    pub(super) fn announce(&self, catalog: &CatalogProducer) {
        let mut state = self.state();
        let first_ever = state.since.is_none();
        let since = *state.since.get_or_insert_with(Instant::now);
        state.awaited += 1;
        if first_ever || (state.held.is_none() && since.elapsed() < PATIENCE) {
            state.held = Some(catalog.reserve());
        }
    }

    /// A track that was announced is described, or will not come.
    pub(super) fn resolve(&self) {
        let mut state = self.state();
        state.awaited = state.awaited.saturating_sub(1);
        state.release();
    }

    /// Lets the catalog go if it has waited long enough.
    pub(super) fn release_if_due(&self) {
        let mut state = self.state();
        if state.held.is_some() {
            state.release();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets the catalog go when nothing is missing from it any more, or when it has waited long enough.
    fn release(&mut self) {
        let late = self.since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if self.awaited == 0 || late {
            self.held = None;
        }
    }
}
