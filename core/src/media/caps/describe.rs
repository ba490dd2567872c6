//! From caps to the catalog: what a stream is, and which of its buffers travel.

use gst_pbutils as pbutils;

use super::table::{Codec, Reason};
use crate::broadcast::{
    AudioConfig, TrackConfig, VideoConfig,
    catalog::{AudioCodec, VideoCodec},
};

impl Codec {
    /// Describes the stream for the catalog. `frame` is its first frame, a key frame.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn describe(self, caps: &gst::CapsRef, frame: &[u8]) -> Result<TrackConfig, Reason> {
        let structure = caps.structure(0).ok_or("empty caps")?;
        if self.is_video() {
            self.describe_video(structure, frame).map(Into::into)
        } else {
            self.describe_audio(caps, structure).map(Into::into)
        }
    }

    fn describe_video(self, caps: &gst::StructureRef, frame: &[u8]) -> Result<VideoConfig, Reason> {
        let number = |name: &str| -> u32 {
            caps.get::<i32>(name)
                .ok()
                .and_then(|n| n.try_into().ok())
                .unwrap_or(0)
        };
        let codec = match self {
            Self::H264 => {
                h264_codec(frame).ok_or("the H.264 stream has no SPS in its key frame")?
            }
            Self::H265 => {
                h265_codec(frame).ok_or("the H.265 stream has no SPS in its key frame")?
            }
            Self::Vp8 => self.catalog_name().to_owned(),
            Self::Vp9 => {
                let profile: u8 = caps
                    .get::<&str>("profile")
                    .ok()
                    .and_then(|profile| profile.parse().ok())
                    .unwrap_or(0);
                let depth = number("bit-depth-luma").max(8);
                // The level does not appear in the bitstream; 1.0 is the one that promises nothing.
                format!("{}.{profile:02}.10.{depth:02}", self.catalog_name())
            }
            Self::Av1 => {
                let profile = match caps.get::<&str>("profile") {
                    Ok("high") => 1,
                    Ok("professional") => 2,
                    _ => 0,
                };
                let depth = number("bit-depth-luma").max(8);
                format!(
                    "{}.{profile}.{:02}M.{depth:02}",
                    self.catalog_name(),
                    av1_level(number("width"), number("height"))
                )
            }
            _ => return Err("not a video codec".into()),
        };
        let mut config = VideoConfig::new(codec.parse::<VideoCodec>().map_err(|e| e.to_string())?);
        config.coded_width = Some(number("width")).filter(|n| *n > 0);
        config.coded_height = Some(number("height")).filter(|n| *n > 0);
        if let Ok(rate) = caps.get::<gst::Fraction>("framerate")
            && rate.numer() > 0
        {
            config.framerate = Some(f64::from(rate.numer()) / f64::from(rate.denom()));
        }
        if let (Ok(par), Some(width), Some(height)) = (
            caps.get::<gst::Fraction>("pixel-aspect-ratio"),
            config.coded_width,
            config.coded_height,
        ) && par.numer() != par.denom()
            && let (Ok(n), Ok(d)) = (u32::try_from(par.numer()), u32::try_from(par.denom()))
            && let (Some(width), Some(height)) = (width.checked_mul(n), height.checked_mul(d))
        {
            config.display_aspect_width = Some(width);
            config.display_aspect_height = Some(height);
        }
        Ok(config)
    }

    fn describe_audio(
        self,
        all: &gst::CapsRef,
        caps: &gst::StructureRef,
    ) -> Result<AudioConfig, Reason> {
        let number = |name: &str| {
            caps.get::<i32>(name)
                .ok()
                .and_then(|n| u32::try_from(n).ok())
        };
        let codec_data = caps
            .get::<gst::Buffer>("codec_data")
            .ok()
            .and_then(|buffer| Some(buffer.map_readable().ok()?.to_vec()));
        let missing =
            |what: &str| format!("the caps {caps} lack {what}: put a parser before the pad");
        let (codec, rate, channels, description) = match self {
            Self::Opus => {
                let head = match opus_head(all, caps) {
                    Some(head) => head,
                    None => return Err(missing("the Opus header or channels")),
                };
                // Opus decodes at 48 kHz whatever went in.
                (
                    self.catalog_name().to_owned(),
                    48_000,
                    u32::from(head[9]),
                    Some(head),
                )
            }
            Self::Aac => {
                let config = codec_data.ok_or_else(|| missing("codec_data"))?;
                let object_type = config.first().map_or(2, |byte| byte >> 3);
                let rate = number("rate").ok_or_else(|| missing("rate"))?;
                let channels = number("channels").ok_or_else(|| missing("channels"))?;
                (
                    format!("{}.{object_type}", self.catalog_name()),
                    rate,
                    channels,
                    Some(config),
                )
            }
            Self::Flac => {
                let info = flac_description(caps).ok_or_else(|| missing("the FLAC header"))?;
                let rate = number("rate").ok_or_else(|| missing("rate"))?;
                let channels = number("channels").ok_or_else(|| missing("channels"))?;
                (self.catalog_name().to_owned(), rate, channels, Some(info))
            }
            Self::Mp3 => {
                let rate = number("rate").ok_or_else(|| missing("rate"))?;
                let channels = number("channels").ok_or_else(|| missing("channels"))?;
                (self.catalog_name().to_owned(), rate, channels, None)
            }
            _ => return Err("not an audio codec".into()),
        };
        let codec = codec.parse::<AudioCodec>().map_err(|e| e.to_string())?;
        let mut config = AudioConfig::new(codec, rate, channels);
        config.description = description.map(Into::into);
        Ok(config)
    }
}
/// Whether a buffer carries headers that the catalog carries already, as Ogg and FLAC streams begin with.
pub fn is_header(codec: Codec, buffer: &gst::BufferRef) -> bool {
    match codec {
        Codec::Flac => buffer.flags().contains(gst::BufferFlags::HEADER),
        Codec::Opus => {
            let mut magic = [0; 8];
            // Shorter packets are sound: a DTX packet has a byte or two.
            buffer.size() >= magic.len()
                && buffer.copy_to_slice(0, &mut magic).is_ok()
                && (&magic == b"OpusHead" || &magic == b"OpusTags")
        }
        _ => false,
    }
}

/// The NAL units of an Annex B access unit.
fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = |from: usize| {
        data.get(from..)?
            .windows(3)
            .position(|window| window == [0, 0, 1])
            .map(|at| from + at + 3)
    };
    let mut next = start(0);
    std::iter::from_fn(move || {
        let begin = next?;
        next = start(begin);
        let end = next.map_or(data.len(), |next| next - 3);
        data.get(begin..end)
    })
}

/// RFC 6381 for H.264 with parameter sets in the stream, from the SPS.
fn h264_codec(frame: &[u8]) -> Option<String> {
    let sps = nal_units(frame).find(|nal| nal.first().is_some_and(|byte| byte & 31 == 7))?;
    let [profile, constraints, level] = sps.get(1..4)?.try_into().ok()?;
    Some(format!(
        "{}.{profile:02x}{constraints:02x}{level:02x}",
        Codec::H264.catalog_name()
    ))
}

/// RFC 6381 for H.265 with parameter sets in the stream, from the SPS (ISO/IEC 14496-15, annex E).
fn h265_codec(frame: &[u8]) -> Option<String> {
    let sps = nal_units(frame).find(|nal| nal.first().is_some_and(|byte| byte >> 1 & 63 == 33))?;
    // The profile_tier_level structure begins at the third byte; emulation prevention bytes are taken out.
    let mut plain = Vec::with_capacity(16);
    for byte in sps.iter().skip(2).take(24) {
        if *byte == 3 && plain.ends_with(&[0, 0]) {
            continue;
        }
        plain.push(*byte);
    }
    let ptl: [u8; 12] = plain.get(1..13)?.try_into().ok()?;
    let space = ["", "A", "B", "C"][usize::from(ptl[0] >> 6)];
    let tier = if ptl[0] & 32 == 0 { 'L' } else { 'H' };
    let compatibility = u32::from_be_bytes([ptl[1], ptl[2], ptl[3], ptl[4]]).reverse_bits();
    let mut text = format!(
        "{}.{space}{}.{compatibility:X}.{tier}{}",
        Codec::H265.catalog_name(),
        ptl[0] & 31,
        ptl[11]
    );
    let constraints = &ptl[5..11];
    let used = constraints
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    for byte in &constraints[..used] {
        text.push_str(&format!(".{byte:X}"));
    }
    Some(text)
}

/// The lowest AV1 level whose picture size fits (AV1 specification, annex A.3), as its index.
fn av1_level(width: u32, height: u32) -> u8 {
    match u64::from(width) * u64::from(height) {
        n if n <= 147_456 => 0,
        n if n <= 278_784 => 1,
        n if n <= 665_856 => 4,
        n if n <= 1_065_024 => 5,
        n if n <= 2_359_296 => 8,
        n if n <= 8_912_896 => 12,
        _ => 16,
    }
}

/// The identification header, as the encoder or demuxer gave it, or made from the caps.
fn opus_head(all: &gst::CapsRef, caps: &gst::StructureRef) -> Option<Vec<u8>> {
    let given = stream_headers(caps)
        .into_iter()
        .chain(caps.get::<gst::Buffer>("codec_data").ok())
        .filter_map(|buffer| Some(buffer.map_readable().ok()?.to_vec()))
        .find(|data| data.len() >= 19 && data.starts_with(b"OpusHead"));
    if given.is_some() {
        return given;
    }
    let mut mapping = [0; 256];
    let (rate, channels, family, streams, coupled) =
        pbutils::codec_utils_opus_parse_caps(all, Some(&mut mapping)).ok()?;
    let mapping = if family == 0 {
        &[][..]
    } else {
        mapping.get(..usize::from(channels))?
    };
    let head = pbutils::codec_utils_opus_create_header(
        rate, channels, family, streams, coupled, mapping, 0, 0,
    )
    .ok()?;
    let head = head.map_readable().ok()?.to_vec();
    (head.len() >= 19).then_some(head)
}

/// `fLaC`, then the STREAMINFO block as the last one: what WebCodecs calls the description.
fn flac_description(caps: &gst::StructureRef) -> Option<Vec<u8>> {
    const STREAMINFO: usize = 4 + 34;
    let data: Vec<u8> = stream_headers(caps)
        .into_iter()
        .filter_map(|buffer| Some(buffer.map_readable().ok()?.to_vec()))
        .flatten()
        .collect();
    let marker = data.windows(4).position(|window| window == b"fLaC")?;
    let mut description = data.get(marker..marker + 4 + STREAMINFO)?.to_vec();
    description[4] |= 0x80;
    Some(description)
}

fn stream_headers(caps: &gst::StructureRef) -> Vec<gst::Buffer> {
    caps.get::<gst::ArrayRef>("streamheader")
        .map(|headers| {
            headers
                .iter()
                .filter_map(|value| value.get::<gst::Buffer>().ok())
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nal_units_are_found_behind_short_and_long_start_codes() {
        let data = [0, 0, 0, 1, 9, 16, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x65];
        let found: Vec<_> = nal_units(&data).map(|nal| nal[0]).collect();
        assert_eq!(found, [9, 0x67, 0x65]);
        assert_eq!(nal_units(&[]).count(), 0);
        assert_eq!(nal_units(&[0, 0]).count(), 0);
    }

    #[test]
    fn h264_is_named_after_its_sps() {
        let frame = [0, 0, 1, 9, 16, 0, 0, 1, 0x67, 0x64, 0x00, 0x1f, 0xac];
        assert_eq!(h264_codec(&frame).unwrap(), "avc3.64001f");
        assert_eq!(h264_codec(&[0, 0, 1, 0x67, 1]), None);
    }

    #[test]
    fn h265_is_named_after_its_sps() {
        // Main profile, main tier, level 3.1: with emulation prevention in the constraint flags.
        let frame = [
            0, 0, 1, 0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x5d, 0xa0,
        ];
        assert_eq!(h265_codec(&frame).unwrap(), "hev1.1.6.L93.90");
    }
}
