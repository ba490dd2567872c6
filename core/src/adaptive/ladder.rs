//! The renditions of a catalog as rungs of a ladder.

use super::Rung;
use crate::{TrackConfig, broadcast::Rendition};

/// Frames a second where the catalog does not say.
const FRAMERATE: f64 = 30.0;

impl From<&Rendition> for Rung {
    fn from(rendition: &Rendition) -> Self {
        let mut rung = Self::new(&rendition.name);
        match &rendition.config {
            TrackConfig::Video(config) => {
                let pixels = |width: u32, height: u32| {
                    let second = config.framerate.unwrap_or(FRAMERATE);
                    (f64::from(width) * f64::from(height) * second) as u64
                };
                rung.bitrate = config.bitrate;
                rung.height = config.coded_height;
                rung.size = config
                    .coded_width
                    .zip(config.coded_height)
                    .map_or(0, |(w, h)| pixels(w, h));
                rung.stalled = config.stalled.unwrap_or_default();
            }
            TrackConfig::Audio(config) => {
                rung.bitrate = config.bitrate;
                rung.height = Some(0);
                rung.size = u64::from(config.sample_rate) * u64::from(config.channel_count);
            }
        }
        rung
    }
}
