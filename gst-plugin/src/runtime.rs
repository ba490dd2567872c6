//! The one tokio runtime of the plugin.

use std::{future::Future, sync::OnceLock};

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

/// Runs `future` to its end on the calling thread, which must not be one of the runtime's.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, gst::ErrorMessage> {
    let runtime = runtime()?;
    // An application may call into GStreamer from a thread of a runtime of its own, where blocking is an error.
    if tokio::runtime::Handle::try_current().is_ok() {
        return Ok(tokio::task::block_in_place(|| runtime.block_on(future)));
    }
    Ok(runtime.block_on(future))
}
