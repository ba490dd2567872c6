//! The one tokio runtime of the plugin.

use std::{
    future::Future,
    sync::{OnceLock, mpsc},
};

use tokio::runtime::{Builder, Runtime};

/// The runtime, which lives as long as the process. Its threads send their `tracing` events to GStreamer's log.
pub(crate) fn runtime() -> Result<&'static Runtime, gst::ErrorMessage> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("irohlive")
                .on_thread_start(crate::log::on_thread_start)
                .enable_all()
                .build()
                .ok()
        })
        .as_ref()
        .ok_or_else(|| {
            gst::error_msg!(
                gst::ResourceError::Failed,
                ("No threads could be started: the system is out of threads or memory")
            )
        })
}

/// Runs `future` to its end on a thread of the runtime, and waits for that.
///
/// The caller may be a thread of a runtime of the application's own, of any kind, where tokio lets nobody block on a future:
/// to it this is a call that takes its time. Must not be called from this plugin's runtime.
pub(crate) fn block_on<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, gst::ErrorMessage> {
    let (sender, done) = mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        let _ = sender.send(future.await);
    });
    done.recv().map_err(|_| {
        gst::error_msg!(
            gst::LibraryError::Failed,
            ("The transport failed in a way that it should not: please report it with the log of GST_DEBUG=irohlive*:6")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_is_waited_for_on_any_thread() {
        assert_eq!(block_on(async { 1 }).unwrap(), 1);
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { assert_eq!(block_on(async { 2 }).unwrap(), 2) });
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let task = tokio::task::spawn_local(async { block_on(async { 3 }).unwrap() });
            assert_eq!(task.await.unwrap(), 3);
        });
    }

    #[test]
    fn a_future_that_panics_is_an_error() {
        assert!(block_on(async { panic!("as a test") }).is_err());
    }
}
