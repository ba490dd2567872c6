//! Cameras, microphones, the screen.

use gst::prelude::*;

use super::error::{SourceError, make};
use crate::media::ladder::plan::CaptureFormat;

/// What a kind of device is called, by GStreamer and by people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class {
    class: &'static str,
    what: &'static str,
}

pub(super) const CAMERA: Class = Class {
    class: "Video/Source",
    what: "camera",
};

pub(super) const MICROPHONE: Class = Class {
    class: "Audio/Source",
    what: "microphone",
};

fn devices(class: Class) -> Vec<gst::Device> {
    let monitor = gst::DeviceMonitor::new();
    monitor.add_filter(Some(class.class), None);
    // What a loudspeaker plays and what a screen shows are no devices to record by default.
    monitor
        .devices()
        .into_iter()
        .filter(|device| !device.device_class().contains("Monitor"))
        .collect()
}

pub(super) fn names(class: Class) -> Vec<String> {
    devices(class)
        .iter()
        .map(|device| device.display_name().into())
        .collect()
}

/// Where the system keeps a device, as `/dev/video0`.
fn paths(device: &gst::Device) -> Vec<String> {
    let Some(properties) = device.properties() else {
        return Vec::new();
    };
    [
        "device.path",
        "api.v4l2.path",
        "object.path",
        "node.name",
        "device.name",
    ]
    .iter()
    .filter_map(|name| properties.get::<String>(*name).ok())
    .collect()
}

/// The device of that name or path; without a name the one that is the default, or else the first.
pub(super) fn find(class: Class, name: Option<String>) -> Result<gst::Element, SourceError> {
    let devices = devices(class);
    let found = match &name {
        Some(name) => devices.iter().find(|device| {
            device.display_name() == name.as_str() || paths(device).iter().any(|path| path == name)
        }),
        None => devices
            .iter()
            .find(|device| {
                device
                    .properties()
                    .and_then(|properties| properties.get::<bool>("is-default").ok())
                    .unwrap_or(false)
            })
            .or(devices.first()),
    };
    match found {
        Some(device) => Ok(device.create_element(None)?),
        None => Err(SourceError::NoDevice {
            what: class.what,
            name,
        }),
    }
}

/// What is asked of a camera, best first.
pub(super) fn camera_caps(format: CaptureFormat) -> Result<gst::Caps, gst::glib::BoolError> {
    let CaptureFormat {
        width,
        height,
        framerate,
    } = format;
    format!(
        "video/x-raw,width={width},height={height},framerate=[{framerate}/1,max]; \
         image/jpeg,width={width},height={height},framerate=[{framerate}/1,max]; \
         image/jpeg,width=[{width},max],height=[{height},max]; \
         video/x-raw; image/jpeg"
    )
    .parse()
}

pub(super) fn screen(format: CaptureFormat) -> Result<Vec<gst::Element>, SourceError> {
    let candidates: &[(&'static str, &[(&str, &str)])] = if cfg!(windows) {
        &[
            ("d3d12screencapturesrc", &[("show-cursor", "true")]),
            ("d3d11screencapturesrc", &[("show-cursor", "true")]),
        ]
    } else if cfg!(target_os = "macos") {
        &[(
            "avfvideosrc",
            &[
                ("capture-screen", "true"),
                ("capture-screen-cursor", "true"),
            ],
        )]
    } else {
        if std::env::var_os("DISPLAY").is_none() {
            return Err(SourceError::Screen(
                if std::env::var_os("WAYLAND_DISPLAY").is_some() {
                    "under Wayland, ask the desktop portal for a PipeWire node and use \
                 VideoSource::description with `pipewiresrc path=…`"
                } else {
                    "there is no display; set DISPLAY"
                },
            ));
        }
        &[(
            "ximagesrc",
            &[("use-damage", "false"), ("show-pointer", "true")],
        )]
    };
    for (name, properties) in candidates {
        if let Ok(source) = gst::ElementFactory::make(name).build() {
            for (property, value) in *properties {
                crate::media::element::set(&source, property, value);
            }
            let filter = make("capsfilter", "libgstreamer1.0-0")?;
            let caps: gst::Caps =
                format!("video/x-raw,framerate={}/1", format.framerate.max(1)).parse()?;
            filter.set_property("caps", caps);
            return Ok(vec![source, filter]);
        }
    }
    Err(SourceError::Missing {
        element: candidates.last().map_or("", |(name, _)| name),
        package: if cfg!(target_os = "linux") {
            "gstreamer1.0-plugins-good"
        } else {
            "gstreamer1.0-plugins-bad"
        },
    })
}
