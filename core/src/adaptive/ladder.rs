//! The renditions of a catalog.

use hang::catalog::PRIORITY;
use moq_mux::catalog::hang::Container;

use super::Rung;
use crate::{TrackConfig, broadcast::Catalog};

/// Frames a second where the catalog does not say.
const FRAMERATE: f64 = 30.0;

/// Whether renditions of the picture or of the sound are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MediaKind {
    /// The picture.
    #[default]
    Video,
    /// The sound.
    Audio,
}

impl MediaKind {
    /// The priority of the rendition that is watched; one less is for what must not disturb it.
    pub(super) fn priority(self) -> u8 {
        match self {
            Self::Video => PRIORITY.video,
            Self::Audio => PRIORITY.audio,
        }
    }
}

/// One of the forms in which a broadcast has its picture or its sound.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rendition {
    /// Its track's name.
    pub name: String,
    /// What the track carries.
    pub config: TrackConfig,
}

impl Rendition {
    /// What can be read here of a catalog, by name.
    pub(super) fn of(catalog: &Catalog, kind: MediaKind) -> Vec<Self> {
        let rendition = |name: &String, config| Self {
            name: name.clone(),
            config,
        };
        match kind {
            MediaKind::Video => catalog
                .video
                .renditions
                .iter()
                // A rendition that another broadcast carries cannot be had from this one.
                .filter(|(_, config)| config.broadcast.is_none())
                .filter(|(_, config)| Container::try_from(*config).is_ok())
                .map(|(name, config)| rendition(name, config.clone().into()))
                .collect(),
            MediaKind::Audio => catalog
                .audio
                .renditions
                .iter()
                .filter(|(_, config)| config.broadcast.is_none())
                .filter(|(_, config)| Container::try_from(*config).is_ok())
                .map(|(name, config)| rendition(name, config.clone().into()))
                .collect(),
        }
    }

    pub(super) fn rung(&self) -> Rung {
        let mut rung = Rung::new(&self.name);
        match &self.config {
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

    /// Whether a decoder that was set up for `self` has to be set up anew for `other`. What the publisher measures as it
    /// goes does not matter.
    pub(super) fn decodes_as(&self, other: &Self) -> bool {
        match (&self.config, &other.config) {
            (TrackConfig::Video(a), TrackConfig::Video(b)) => {
                let mut a = a.clone();
                a.bitrate = b.bitrate;
                a.framerate = b.framerate;
                a.stalled = b.stalled;
                a.jitter = b.jitter;
                a.delay = b.delay;
                a.label.clone_from(&b.label);
                a == *b
            }
            (TrackConfig::Audio(a), TrackConfig::Audio(b)) => {
                let mut a = a.clone();
                a.bitrate = b.bitrate;
                a.jitter = b.jitter;
                a.delay = b.delay;
                a.label.clone_from(&b.label);
                a == *b
            }
            _ => false,
        }
    }
}
