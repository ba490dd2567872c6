//! An encoder element that is set up for live media.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use gst::prelude::*;

use super::{
    level::{Load, level},
    table::{self, Follow, RateChange, Tuning, Unit},
};
use crate::media::{
    caps::Codec,
    element::{Outcome, set},
};

/// The time between two key frames that nobody asked for.
const KEYFRAME_INTERVAL_SECS: u32 = 4;

/// No timestamp: no picture is to become a key frame.
pub(in crate::media) const NO_KEYFRAME_DUE: u64 = u64::MAX;

/// What an encoder is to do.
#[derive(Debug, Clone, Copy)]
pub(in crate::media) struct EncoderSettings {
    pub codec: Codec,
    /// Pixels, of video.
    pub size: Option<(u32, u32)>,
    /// Frames a second, of video.
    pub framerate: u32,
    /// Bits a second.
    pub bitrate: u64,
    /// Whether sound is speech rather than music.
    pub speech: bool,
}

/// An encoder element that is set up for live media.
#[derive(Debug, Clone)]
pub(in crate::media) struct Tuned {
    pub element: gst::Element,
    tuning: Option<&'static Tuning>,
    /// In whose unit the bit rate goes.
    rate: Option<(String, Unit)>,
    gop: u32,
    level: Option<(Codec, &'static str)>,
}

impl Tuned {
    /// Makes the element.
    ///
    /// # Errors
    /// Why it is not fit, for people.
    pub fn make(factory: &gst::ElementFactory, settings: EncoderSettings) -> Result<Self, String> {
        let element = factory
            .create()
            .build()
            .map_err(|error| error.to_string())?;
        let tuning = table::find(&factory.name()).map(|(_, tuning)| tuning);
        let gop = settings
            .framerate
            .saturating_mul(KEYFRAME_INTERVAL_SECS)
            .max(1);
        let rate = tuning
            .filter(|tuning| element.has_property(tuning.bitrate))
            .map(|tuning| (tuning.bitrate.to_owned(), tuning.unit))
            .or_else(|| guess_rate(&element));
        let level = tuning.filter(|tuning| tuning.level).and_then(|_| {
            let (width, height) = settings.size?;
            let load = Load {
                width,
                height,
                framerate: settings.framerate,
                bitrate: settings.bitrate,
            };
            Some((settings.codec, level(settings.codec, load)?))
        });
        let tuned = Self {
            element,
            tuning,
            rate,
            gop,
            level,
        };
        tuned.set_all(tuning.map_or(table::USUAL, |tuning| tuning.set))?;
        let gop = gop.to_string();
        for property in table::KEYFRAME_DISTANCE {
            set(&tuned.element, property, &gop);
        }
        if settings.speech {
            set(&tuned.element, "audio-type", "voice");
        }
        if tuned.set_bitrate(settings.bitrate) == Outcome::Refused {
            return Err(format!("it takes no bit rate of {}", settings.bitrate));
        }
        Ok(tuned)
    }

    /// Sets what the table says. Where a property stands twice, one of its values has to be taken.
    fn set_all(&self, settings: table::Set) -> Result<(), String> {
        let outcomes: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, *value, set(&self.element, name, value)))
            .collect();
        for (name, value, outcome) in &outcomes {
            let taken = |(other, _, outcome): &(&str, &str, Outcome)| {
                other == name && *outcome == Outcome::Done
            };
            if *outcome != Outcome::Refused || outcomes.iter().any(taken) {
                continue;
            }
            let (properties, modes) = table::RATE_CONTROL;
            if properties.contains(name) {
                let other = modes
                    .iter()
                    .find(|mode| set(&self.element, name, mode) == Outcome::Done);
                let Some(other) = other else {
                    return Err(format!("it keeps no bit rate: it has no {name}={value}"));
                };
                tracing::info!(element = %self.element.name(), name, value, other, "taken instead");
            } else {
                tracing::info!(element = %self.element.name(), name, value, "not taken");
            }
        }
        Ok(())
    }

    /// Changes the bit rate, bits a second, while it runs.
    pub fn set_bitrate(&self, bitrate: u64) -> Outcome {
        let Some((property, unit)) = &self.rate else {
            return Outcome::Missing;
        };
        let in_unit = |bits: u64| match unit {
            Unit::Kilobits => (bits / 1000).max(1),
            Unit::Bits | Unit::Controls => bits.max(1),
        };
        // Before the bit rate itself: an encoder may begin anew with that, and reads the rest then.
        for (name, follow) in self.tuning.map_or(&[][..], |tuning| tuning.follow) {
            let value = match follow {
                Follow::Same => in_unit(bitrate).to_string(),
                Follow::Buffer(ms) => in_unit(bitrate * ms / 1000).to_string(),
                Follow::Text(text) => text(bitrate),
            };
            set(&self.element, name, &value);
        }
        let value = match unit {
            Unit::Bits | Unit::Kilobits => in_unit(bitrate).to_string(),
            // What a kernel does not know is passed over; older ones call the distance of key frames differently.
            Unit::Controls => format!(
                "controls,video_bitrate_mode=1,video_bitrate={bitrate},video_gop_size={gop},\
                 h264_i_frame_period={gop},repeat_sequence_header=1,video_b_frames=0",
                gop = self.gop
            ),
        };
        set(&self.element, property, &value)
    }

    /// What it costs to change the bit rate.
    pub fn rate_change(&self) -> RateChange {
        match (self.tuning, &self.rate) {
            (Some(tuning), _) => tuning.change,
            (None, None) => RateChange::Seamless,
            (None, Some((property, _))) => {
                let mutable = self
                    .element
                    .find_property(property)
                    .is_some_and(|property| {
                        property.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING)
                    });
                if mutable {
                    RateChange::Seamless
                } else {
                    RateChange::Rebuild
                }
            }
        }
    }

    /// The element that brings pictures into memory that it takes.
    pub fn upload(&self) -> Option<&'static str> {
        self.tuning?.upload
    }

    /// What it has to be asked for, in caps behind it.
    pub fn output_caps(&self) -> Option<gst::Caps> {
        let (codec, level) = self.level?;
        let mut caps = codec.encoded_caps();
        caps.make_mut().set("level", level);
        Some(caps)
    }

    /// Has the picture become a key frame that goes in with the timestamp `due`, nanoseconds, or the next after it.
    pub fn force_keyframe_at(&self, due: Arc<AtomicU64>) {
        let Some(sink) = self.element.static_pad("sink") else {
            return;
        };
        // Asked for when the picture is there: others may wait before it, and the event is about the next that goes in.
        sink.add_probe(gst::PadProbeType::BUFFER, move |sink, info| {
            let timestamp = info.buffer().and_then(|buffer| buffer.pts());
            let is_due = timestamp.is_some_and(|at| at.nseconds() >= due.load(Ordering::Acquire));
            if is_due && let Some(element) = sink.parent_element() {
                due.store(NO_KEYFRAME_DUE, Ordering::Release);
                force_keyframe(&element);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Asks for a key frame, with the next picture that goes in.
fn force_keyframe(element: &gst::Element) {
    let event = gst_video::UpstreamForceKeyUnitEvent::builder()
        .all_headers(true)
        .build();
    if let Some(pad) = element.static_pad("src") {
        pad.send_event(event);
    }
}

/// The property for the bit rate of an encoder that has no line in the table.
fn guess_rate(element: &gst::Element) -> Option<(String, Unit)> {
    ["bitrate", "target-bitrate"].into_iter().find_map(|name| {
        let property = element.find_property(name)?;
        let blurb = property.blurb().unwrap_or_default().to_lowercase();
        let kilo = ["kbit", "kbps", "kilobit", "kb/s"]
            .iter()
            .any(|unit| blurb.contains(unit));
        Some((
            name.to_owned(),
            if kilo { Unit::Kilobits } else { Unit::Bits },
        ))
    })
}

#[cfg(test)]
mod tests;
