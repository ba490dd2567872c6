//! The renditions of a catalog, and which of them have ended.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::quality::Rung;
use crate::{TrackConfig, broadcast::Rendition};

/// Frames a second where the catalog does not say.
const FRAMERATE: f64 = 30.0;
/// A rendition that its publisher ended may come again under the same name. Below, an ended track is kept for those who
/// have not read it, five seconds from the last look at it.
const ENDED: Duration = Duration::from_secs(10);

/// The renditions to choose from. A plain state machine: time is passed in.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    renditions: Vec<Arc<Rendition>>,
    /// Renditions that the publisher ended, though the catalog still has them, and when.
    ended: HashMap<String, Duration>,
}

impl Ladder {
    /// The catalog has these now.
    pub fn set(&mut self, renditions: Vec<Arc<Rendition>>) {
        self.renditions = renditions;
        // What the catalog has no more may come again.
        let mut ended = std::mem::take(&mut self.ended);
        ended.retain(|name, _| self.find(name).is_some());
        self.ended = ended;
    }

    /// The publisher ended this one.
    pub fn end(&mut self, name: String, now: Duration) {
        if self.find(&name).is_some() {
            self.ended.insert(name, now);
        }
    }

    /// Forgets ends that are long ago. Returns whether there were any.
    pub fn forget(&mut self, now: Duration) -> bool {
        let before = self.ended.len();
        self.ended.retain(|_, at| now.saturating_sub(*at) < ENDED);
        self.ended.len() < before
    }

    /// The rendition of this name in the catalog.
    pub fn find(&self, name: &str) -> Option<&Arc<Rendition>> {
        self.renditions
            .iter()
            .find(|rendition| rendition.name == name)
    }

    /// Whether any has ended.
    pub fn any_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Those that can be read now.
    pub fn rungs(&self) -> Vec<Rung> {
        self.renditions
            .iter()
            .filter(|rendition| !self.ended.contains_key(&rendition.name))
            .map(|rendition| Rung::from(&**rendition))
            .collect()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{VideoConfig, catalog::VideoCodec};

    fn renditions(names: &[&str]) -> Vec<Arc<Rendition>> {
        let config = VideoConfig::new(VideoCodec::VP8);
        let rendition = |name: &&str| Arc::new(Rendition::new(*name, config.clone()));
        names.iter().map(rendition).collect()
    }

    fn names(ladder: &Ladder) -> Vec<String> {
        ladder.rungs().into_iter().map(|rung| rung.name).collect()
    }

    #[test]
    fn what_ended_is_left_out_for_ten_seconds_or_until_the_catalog_dropped_it() {
        let mut ladder = Ladder::default();
        ladder.set(renditions(&["a", "b"]));
        ladder.end("a".to_owned(), Duration::ZERO);
        assert_eq!(names(&ladder), ["b"]);
        assert!(!ladder.forget(Duration::from_millis(9999)));
        assert!(ladder.forget(ENDED));
        assert_eq!(names(&ladder), ["a", "b"]);

        ladder.end("b".to_owned(), ENDED);
        ladder.set(renditions(&["a"]));
        assert!(!ladder.any_ended());
        ladder.set(renditions(&["a", "b"]));
        assert_eq!(names(&ladder), ["a", "b"]);
        ladder.end("unknown".to_owned(), ENDED);
        assert!(!ladder.any_ended());
    }

    #[test]
    fn a_rung_has_the_pixels_of_a_second_and_what_the_publisher_advises() {
        let mut config = VideoConfig::new(VideoCodec::VP8);
        config.coded_width = Some(640);
        config.coded_height = Some(360);
        config.bitrate = Some(800_000);
        config.stalled = Some(true);
        let rung = Rung::from(&Rendition::new("a", config));
        assert_eq!(rung.size, 640 * 360 * 30);
        assert_eq!((rung.height, rung.bitrate), (Some(360), Some(800_000)));
        assert!(rung.stalled);
    }
}
