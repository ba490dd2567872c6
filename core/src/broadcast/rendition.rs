//! What of a catalog can be read here.

use moq_mux::catalog::hang::Container;

use hang::catalog::{AudioConfig, VideoConfig};

use super::{
    extension::Catalog,
    track::{MediaKind, TrackConfig},
};

/// One of the forms in which a broadcast has its picture or its sound.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Rendition {
    /// Its track's name.
    pub name: String,
    /// What the track carries.
    pub config: TrackConfig,
}

/// A rendition that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Whether it is of the picture or of the sound.
    pub kind: MediaKind,
    /// Its track's name.
    pub track: String,
    /// Why, as a part of a sentence.
    pub reason: String,
}

/// What of a catalog can be read here.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Readable {
    /// What can, the picture first, by name.
    pub renditions: Vec<Rendition>,
    /// What cannot.
    pub left_out: Vec<LeftOut>,
}

impl Rendition {
    /// A rendition.
    pub fn new(name: impl Into<String>, config: impl Into<TrackConfig>) -> Self {
        Self {
            name: name.into(),
            config: config.into(),
        }
    }

    /// Whether it is of the picture or of the sound.
    pub fn kind(&self) -> MediaKind {
        self.config.kind()
    }

    /// Whether a decoder that was set up for `self` has to be set up anew for `other`. What the publisher measures as it
    /// goes does not matter.
    pub(crate) fn decodes_as(&self, other: &Self) -> bool {
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

impl LeftOut {
    /// A rendition that cannot be used for this reason.
    pub fn new(kind: MediaKind, track: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            kind,
            track: track.into(),
            reason: reason.into(),
        }
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "track {:?}: {}", self.track, self.reason)
    }
}

impl Readable {
    /// What can be read of `catalog`: what this broadcast itself carries, in a container that is known.
    pub fn of(catalog: &Catalog) -> Self {
        let mut readable = Self::default();
        for (name, config) in &catalog.video.renditions {
            readable.add(name, config.clone(), video_obstacle(config));
        }
        for (name, config) in &catalog.audio.renditions {
            readable.add(name, config.clone(), audio_obstacle(config));
        }
        readable
    }

    fn add(&mut self, name: &str, config: impl Into<TrackConfig>, obstacle: Option<String>) {
        let rendition = Rendition::new(name, config);
        match obstacle {
            None => self.renditions.push(rendition),
            Some(reason) => {
                let left_out = LeftOut::new(rendition.kind(), name, reason);
                self.left_out.push(left_out);
            }
        }
    }
}

fn video_obstacle(config: &VideoConfig) -> Option<String> {
    elsewhere(config.broadcast.as_ref()).or_else(|| unknown(Container::try_from(config)))
}

fn audio_obstacle(config: &AudioConfig) -> Option<String> {
    elsewhere(config.broadcast.as_ref()).or_else(|| unknown(Container::try_from(config)))
}

fn elsewhere<T: std::fmt::Display>(broadcast: Option<&T>) -> Option<String> {
    Some(format!("broadcast {:?} carries it", broadcast?.to_string()))
}

fn unknown<T, E: std::fmt::Display>(container: Result<T, E>) -> Option<String> {
    Some(format!(
        "its container cannot be read ({})",
        container.err()?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::catalog::{AudioCodec, VideoCodec};

    #[test]
    fn what_another_broadcast_carries_or_no_container_is_known_for_is_left_out_with_the_reason() {
        let mut catalog = Catalog::default();
        let video = |name: &str, catalog: &mut Catalog, config: VideoConfig| {
            catalog.video.renditions.insert(name.to_owned(), config);
        };
        let config = VideoConfig::new(VideoCodec::VP8);
        video("a", &mut catalog, config.clone());
        let mut other = config.clone();
        other.broadcast = Some("other".into());
        video("b", &mut catalog, other);
        let mut broken = config;
        broken.container = hang::catalog::Container::Cmaf {
            init: bytes::Bytes::from_static(b"nothing"),
        };
        video("c", &mut catalog, broken);
        let sound = AudioConfig::new(AudioCodec::Opus, 48_000, 2);
        catalog.audio.renditions.insert("a".to_owned(), sound);

        let readable = Readable::of(&catalog);
        let found = readable.renditions.iter().map(|r| (r.kind(), &*r.name));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [(MediaKind::Video, "a"), (MediaKind::Audio, "a")]
        );
        let [elsewhere, unknown] = readable.left_out.as_slice() else {
            panic!("{:?}", readable.left_out);
        };
        assert_eq!(
            elsewhere.to_string(),
            "track \"b\": broadcast \"other\" carries it"
        );
        assert_eq!(unknown.track, "c");
        assert!(unknown.reason.starts_with("its container"), "{unknown}");
    }
}
