//! What a pipeline that captures begins with.

use std::{path::PathBuf, sync::Arc};

use gst::{glib, prelude::*};

use super::{
    device,
    error::{SourceError, make},
};
use crate::media::{element::set, ladder::plan::CaptureFormat};

/// What a pipeline begins with.
#[derive(Debug)]
pub(in crate::media) enum Input {
    Camera(Option<String>),
    Screen,
    Microphone(Option<String>),
    TestPicture,
    TestTone,
    File(PathBuf),
    Uri(String),
    Description(String),
    Element(gst::Element),
}

const BASE: &str = "gstreamer1.0-plugins-base";

/// A bin of what a description says, with the open pads of what is inside.
fn described(description: &str) -> Result<Vec<gst::Element>, SourceError> {
    gst::parse::bin_from_description(description, false)
        .or_else(|error| {
            // Caps at the end say what the element before them should give; they need one behind them too.
            gst::parse::bin_from_description(&format!("{description} ! identity"), false)
                .map_err(|_| error)
        })
        .map(|bin| {
            for inner in bin.children() {
                expose(&bin, &inner);
            }
            vec![bin.upcast()]
        })
        .map_err(|source| SourceError::Description {
            description: description.to_owned(),
            source,
        })
}

/// The elements that a pipeline begins with, in a row. What the last one gives is what is captured.
pub(super) fn elements(
    input: Input,
    format: CaptureFormat,
) -> Result<Vec<gst::Element>, SourceError> {
    match input {
        Input::Camera(name) => {
            let source = device::find(device::CAMERA, name)?;
            let filter = make("capsfilter", "libgstreamer1.0-0")?;
            filter.set_property("caps", device::camera_caps(format)?);
            // Cameras that give JPEG give more frames, and larger ones.
            let decoder = make("decodebin", BASE)?;
            Ok(vec![source, filter, decoder])
        }
        Input::Microphone(name) => Ok(vec![device::find(device::MICROPHONE, name)?]),
        Input::Screen => device::screen(format),
        Input::TestPicture => {
            make("videotestsrc", BASE)?;
            let CaptureFormat {
                width,
                height,
                framerate,
            } = format;
            let clock = if gst::ElementFactory::find("timeoverlay").is_some() {
                " ! timeoverlay font-desc=\"Sans, 24\""
            } else {
                ""
            };
            described(&format!(
                "videotestsrc is-live=true ! \
                 video/x-raw,format=I420,width={},height={},framerate={}/1{clock}",
                width.max(16),
                height.max(16),
                framerate.max(1),
            ))
        }
        Input::TestTone => {
            make("audiotestsrc", BASE)?;
            described(
                "audiotestsrc is-live=true freq=440 volume=0.25 samplesperbuffer=960 ! \
                 audio/x-raw,format=S16LE,rate=48000,channels=2",
            )
        }
        Input::File(path) => {
            let failed = |error: std::io::Error| SourceError::File {
                path: path.clone(),
                source: Arc::new(error),
            };
            std::fs::File::open(&path).map_err(failed)?;
            let absolute = std::path::absolute(&path).map_err(failed)?;
            let uri = glib::filename_to_uri(&absolute, None)
                .map_err(|error| failed(std::io::Error::other(error)))?;
            elements(Input::Uri(uri.into()), format)
        }
        Input::Uri(uri) => {
            let decoder = make("uridecodebin3", BASE)?;
            if !uri.starts_with("file:") {
                // It says when the network is too slow, so that nothing goes on without it.
                set(&decoder, "use-buffering", "true");
            }
            decoder.set_property("uri", uri);
            Ok(vec![decoder])
        }
        Input::Description(description) => described(&description),
        Input::Element(element) => Ok(vec![element]),
    }
}

/// Gives a bin the open pads of an element inside, now and later.
fn expose(bin: &gst::Bin, inner: &gst::Element) {
    let weak = bin.downgrade();
    let open = move |pad: &gst::Pad| {
        let Some(bin) = weak.upgrade() else { return };
        if pad.direction() != gst::PadDirection::Src || pad.is_linked() {
            return;
        }
        if let Ok(ghost) = gst::GhostPad::with_target(pad) {
            let _ = ghost.set_active(true);
            let _ = bin.add_pad(&ghost);
        }
    };
    for pad in inner.src_pads() {
        open(&pad);
    }
    inner.connect_pad_added(move |_, pad| open(pad));
}
