//! What can go wrong with a source.

use std::{path::PathBuf, sync::Arc};

use gst::glib;

/// A source could not be opened, or failed later.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// GStreamer itself does not start.
    #[error(transparent)]
    Init(#[from] crate::media::InitError),
    /// No such device is there.
    #[error(
        "no {what} was found{}; plug one in, or see what there is with `gst-device-monitor-1.0`",
        .name.as_ref().map(|name| format!(" by the name {name:?}")).unwrap_or_default()
    )]
    NoDevice {
        /// `camera` or `microphone`.
        what: &'static str,
        /// The name that was asked for.
        name: Option<String>,
    },
    /// The screen cannot be captured here.
    #[error("the screen cannot be captured: {0}")]
    Screen(&'static str),
    /// An element that is needed is not installed.
    #[error("the GStreamer element {element} is missing: install the package {package}")]
    Missing {
        /// Its name.
        element: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// There is no such file.
    #[error("the file {} cannot be opened: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// The description is no pipeline.
    #[error("the description {description:?} is no pipeline: {source}")]
    Description {
        /// As it was given.
        description: String,
        /// What is wrong with it.
        source: glib::Error,
    },
    /// The source gives nothing of the kind that was asked for.
    #[error("the source gives no {0}")]
    Nothing(&'static str),
    /// The source gives something that cannot be used.
    #[error("the source gives {caps}, which is not raw media and cannot be decoded here")]
    NotRaw {
        /// What it gives.
        caps: String,
    },
    /// An element of the source cannot be used.
    #[error("the source cannot be built: {0}")]
    Build(#[from] glib::BoolError),
    /// The device or the file failed: it was unplugged, say, or is in use by another program.
    #[error("{element} failed: {source}{}", .debug.as_ref().map(|debug| format!(" ({debug})")).unwrap_or_default())]
    Element {
        /// The element that failed.
        element: String,
        /// Why.
        source: glib::Error,
        /// More about it, for those who know the element.
        debug: Option<String>,
    },
    /// The source did not start and said nothing about it.
    #[error("the source does not start")]
    Start(#[source] gst::StateChangeError),
}

/// Makes an element, or says where it is to be had.
pub(super) fn make(
    element: &'static str,
    package: &'static str,
) -> Result<gst::Element, SourceError> {
    gst::ElementFactory::make(element)
        .build()
        .map_err(|_| SourceError::Missing { element, package })
}
