//! What of a broadcast can be played.

use crate::{
    broadcast::{Catalog, LeftOut, Readable, Rendition},
    media::caps::track_caps,
};

/// What of a catalog can be played, given a decoder.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Playable {
    /// What can, with the caps of what is encoded: the picture first, by name.
    pub renditions: Vec<(Rendition, gst::Caps)>,
    /// What cannot.
    pub left_out: Vec<LeftOut>,
}

impl Playable {
    /// What can be played of `catalog`: what can be read here, in a codec that is known.
    pub fn of(catalog: &Catalog) -> Self {
        let Readable {
            renditions,
            mut left_out,
        } = Readable::of(catalog);
        let mut playable = Vec::new();
        for rendition in renditions {
            match track_caps(&rendition.config) {
                Ok(caps) => playable.push((rendition, caps)),
                Err(reason) => {
                    let kind = rendition.kind();
                    left_out.push(LeftOut::new(kind, rendition.name, reason));
                }
            }
        }
        Self {
            renditions: playable,
            left_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{VideoConfig, catalog::VideoCodec};

    #[test]
    fn a_codec_that_is_not_known_is_left_out_like_what_cannot_be_read() {
        gst::init().unwrap();
        let mut catalog = Catalog::default();
        let config = VideoConfig::new(VideoCodec::VP8);
        let mut elsewhere = config.clone();
        elsewhere.broadcast = Some("other".into());
        let unknown = VideoConfig::new(VideoCodec::Unknown("theora".to_owned()));
        for (name, config) in [("a", unknown), ("b", elsewhere), ("c", config)] {
            catalog.video.renditions.insert(name.to_owned(), config);
        }
        let playable = Playable::of(&catalog);
        let [(rendition, caps)] = playable.renditions.as_slice() else {
            panic!("{:?}", playable.renditions);
        };
        assert_eq!(rendition.name, "c");
        assert_eq!(caps.structure(0).unwrap().name(), "video/x-vp8");
        let left_out = playable.left_out.iter().map(|left_out| &*left_out.track);
        assert_eq!(left_out.collect::<Vec<_>>(), ["b", "a"]);
    }
}
