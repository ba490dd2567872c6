//! The tasks of the transport.

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Tasks that are waited for at the end, in the runtime that the transport was made in.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    runtime: Handle,
}

impl Tasks {
    /// Must be called in a tokio runtime.
    pub(super) fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            runtime: Handle::current(),
        }
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.runtime);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until all are done. Cancel safe.
    pub(super) async fn finish(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
