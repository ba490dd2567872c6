//! GStreamer itself.

/// GStreamer could not be started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("GStreamer cannot be started: {0}")]
pub struct InitError(#[source] gst::glib::Error);

/// Starts GStreamer, if nobody has yet. Everything here that needs it calls this.
///
/// # Errors
/// [`InitError`], as when its plugins' folder cannot be read.
pub fn init() -> Result<(), InitError> {
    gst::init().map_err(InitError)
}
