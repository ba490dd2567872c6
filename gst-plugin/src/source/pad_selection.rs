//! Which tracks of a broadcast get a pad.

use iroh_live::{
    broadcast::{MediaKind, Rendition},
    media::receive::Playable,
};

/// The most pads of a kind. Each is a thread and a queue, and what a catalog lists is the publisher's to say.
pub(super) const MAX_PADS: usize = 16;

/// A track that is to have a pad, with the caps of what it carries.
pub(super) type Wanted = (Rendition, gst::Caps);

/// The first [`MAX_PADS`] of each kind, and how many are left out for that.
pub(super) fn limited(playable: Vec<Wanted>) -> (Vec<Wanted>, usize) {
    let all = playable.len();
    let mut count = [0_usize; 2];
    let wanted: Vec<_> = playable
        .into_iter()
        .filter(|(rendition, _)| {
            let count = &mut count[usize::from(rendition.kind() == MediaKind::Audio)];
            *count += 1;
            *count <= MAX_PADS
        })
        .collect();
    let left_out = all - wanted.len();
    (wanted, left_out)
}

/// Warnings for tracks that get no pad. The text of each is the same each time.
pub(super) fn warnings(playable: &Playable, too_many: usize) -> Vec<String> {
    let mut warnings: Vec<_> = playable
        .left_out
        .iter()
        .map(|left_out| format!("Left out: {left_out}"))
        .collect();
    if too_many > 0 {
        warnings.push(format!(
            "Left out: tracks beyond the first {MAX_PADS} of a kind; the publisher lists more than that"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use iroh_live::broadcast::{
        AudioConfig, Catalog, VideoConfig,
        catalog::{AudioCodec, VideoCodec},
    };

    #[test]
    fn a_catalog_of_a_thousand_tracks_gets_a_pad_for_a_few_of_each_kind() {
        gst::init().unwrap();
        let mut catalog = Catalog::default();
        for number in 0..1000 {
            let name = format!("{number:04}");
            let video = VideoConfig::new(VideoCodec::VP8);
            catalog.video.renditions.insert(name.clone(), video);
            let audio = AudioConfig::new(AudioCodec::Opus, 48_000, 2);
            catalog.audio.renditions.insert(format!("a{name}"), audio);
        }
        let mut playable = Playable::of(&catalog);
        let (wanted, left_out) = limited(std::mem::take(&mut playable.renditions));
        let of = |kind| wanted.iter().filter(|(r, _)| r.kind() == kind).count();
        assert_eq!(of(MediaKind::Video), MAX_PADS);
        assert_eq!(of(MediaKind::Audio), MAX_PADS);
        assert_eq!(left_out, 2000 - 2 * MAX_PADS);
        assert_eq!(warnings(&playable, left_out).len(), 1, "one warning");
        let (again, _) = limited(Playable::of(&catalog).renditions);
        assert_eq!(again, wanted, "the same ones each time");
    }
}
