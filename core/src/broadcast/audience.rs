//! How many peers watch a broadcast.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many peers watch a broadcast. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audience(Arc<AtomicUsize>);

impl Audience {
    /// One more, until what this gives is dropped.
    pub fn join(&self) -> Attendance {
        self.0.fetch_add(1, Ordering::Relaxed);
        Attendance(self.clone())
    }

    #[cfg(feature = "media")]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A peer that watches.
#[derive(Debug)]
pub(crate) struct Attendance(Audience);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
