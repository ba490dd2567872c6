//! From the catalog to caps: what decoders take.

use gst_pbutils as pbutils;

use super::table::{Codec, Reason};
use crate::broadcast::{
    AudioConfig, Container, TrackConfig, VideoConfig,
    catalog::{AudioCodec, VideoCodec},
};

/// The caps that decoders take for what the catalog describes.
///
/// # Errors
/// A sentence that says why the track cannot be played.
pub fn track_caps(config: &TrackConfig) -> Result<gst::Caps, Reason> {
    match config {
        TrackConfig::Video(config) => video_caps(config),
        TrackConfig::Audio(config) => audio_caps(config),
    }
}

fn video_caps(config: &VideoConfig) -> Result<gst::Caps, Reason> {
    known_container(&config.container)?;
    let description = config
        .description
        .as_ref()
        .map(|data| gst::Buffer::from_slice(data.clone()));
    let mut caps = match &config.codec {
        VideoCodec::H264(h264) => {
            let mut caps = parsed(Codec::H264);
            if description.is_some() {
                caps.make_mut().set("stream-format", "avc");
            }
            let sps = [h264.profile, h264.constraints, h264.level];
            // Decoders go by the bitstream where the string says nothing that is known.
            let _ = pbutils::codec_utils_h264_caps_set_level_and_profile(caps.make_mut(), &sps);
            caps
        }
        VideoCodec::H265(h265) => {
            let mut caps = parsed(Codec::H265);
            if description.is_some() {
                caps.make_mut().set("stream-format", "hvc1");
            }
            let mut record = vec![
                h265.profile_space << 6 | u8::from(h265.tier_flag) << 5 | h265.profile_idc & 31,
            ];
            record.extend(h265.profile_compatibility_flags);
            record.extend(h265.constraint_flags);
            record.push(h265.level_idc);
            let _ =
                pbutils::codec_utils_h265_caps_set_level_tier_and_profile(caps.make_mut(), &record);
            caps
        }
        VideoCodec::AV1(av1) => {
            let mut caps = parsed(Codec::Av1);
            let profile = match av1.profile {
                0 => "main",
                1 => "high",
                _ => "professional",
            };
            caps.make_mut().set("profile", profile);
            caps
        }
        VideoCodec::VP8 => Codec::Vp8.wire_caps(),
        VideoCodec::VP9(vp9) => {
            let mut caps = parsed(Codec::Vp9);
            caps.make_mut().set("profile", vp9.profile.to_string());
            caps
        }
        other => return Err(format!("the video codec {other} is not known here")),
    };
    let structure = caps.make_mut();
    if let Some(description) = description {
        structure.set("codec_data", description);
    }
    set_picture(structure, config);
    Ok(caps)
}

/// Whether one decoder takes both.
pub fn same_codec(a: &gst::Caps, b: &gst::Caps) -> bool {
    let kind = |caps: &gst::Caps| {
        let structure = caps.structure(0)?;
        let format = structure.get::<String>("stream-format").ok();
        let version = structure.get::<i32>("mpegversion").ok();
        Some((structure.name().to_string(), format, version))
    };
    kind(a) == kind(b)
}

/// The form that travels, as a parser gives it.
fn parsed(codec: Codec) -> gst::Caps {
    let mut caps = codec.wire_caps();
    caps.make_mut().set("parsed", true);
    caps
}

/// Size, shape and rate of the picture, as far as the catalog gives them.
fn set_picture(caps: &mut gst::CapsRef, config: &VideoConfig) {
    if let (Some(width), Some(height)) = (config.coded_width, config.coded_height)
        && let (Ok(width), Ok(height)) = (i32::try_from(width), i32::try_from(height))
        && width > 0
        && height > 0
    {
        caps.set("width", width);
        caps.set("height", height);
        let shape = |n: Option<u32>| n.and_then(|n| i32::try_from(n).ok()).filter(|n| *n > 0);
        let par = match (
            shape(config.display_aspect_width),
            shape(config.display_aspect_height),
        ) {
            (Some(w), Some(h)) => pixel_aspect(w, h, width, height),
            _ => Some(gst::Fraction::new(1, 1)),
        };
        if let Some(par) = par {
            caps.set("pixel-aspect-ratio", par);
        }
    }
    if let Some(rate) = config
        .framerate
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        && let Some(rate) = gst::Fraction::approximate_f64(rate)
    {
        caps.set("framerate", standard_rate(rate));
    }
}

/// The shape of a pixel, from the shape of the picture and its size.
fn pixel_aspect(w: i32, h: i32, width: i32, height: i32) -> Option<gst::Fraction> {
    let (n, d) = (
        i64::from(w) * i64::from(height),
        i64::from(h) * i64::from(width),
    );
    let divisor = gcd(n, d);
    Some(gst::Fraction::new(
        i32::try_from(n / divisor).ok()?,
        i32::try_from(d / divisor).ok()?,
    ))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// A rate that went through a decimal fraction, as the multiple of 1/1001 that it was.
fn standard_rate(rate: gst::Fraction) -> gst::Fraction {
    let exact = f64::from(rate.numer()) / f64::from(rate.denom());
    let ntsc = (exact * 1.001).round() * 1000.0;
    if rate.denom() != 1 && (ntsc / 1001.0 - exact).abs() < 1e-4 {
        #[expect(clippy::cast_possible_truncation, reason = "a frame rate")]
        return gst::Fraction::new(ntsc as i32, 1001);
    }
    rate
}

fn audio_caps(config: &AudioConfig) -> Result<gst::Caps, Reason> {
    known_container(&config.container)?;
    let number =
        |n: u32| i32::try_from(n).map_err(|_| format!("{n} is not a rate or a channel count"));
    let (rate, channels) = (number(config.sample_rate)?, number(config.channel_count)?);
    if rate == 0 || channels == 0 {
        return Err("the catalog gives no sample rate or no channels".into());
    }
    let description = config.description.clone();
    let mut caps = match &config.codec {
        AudioCodec::Opus => {
            let head = match description {
                Some(head) => gst::Buffer::from_slice(head),
                None => opus_head(channels)?,
            };
            return pbutils::codec_utils_opus_create_caps_from_header(&head, None)
                .map_err(|_| "the Opus header in the catalog is damaged".into());
        }
        AudioCodec::AAC(_) => {
            let config = description.ok_or("the AAC track has no codec configuration")?;
            let mut caps = Codec::Aac.wire_caps();
            let caps_mut = caps.make_mut();
            caps_mut.set("mpegversion", 4);
            let _ = pbutils::codec_utils_aac_caps_set_level_and_profile(caps_mut, &config);
            caps_mut.set("codec_data", gst::Buffer::from_slice(config));
            caps
        }
        AudioCodec::Flac => {
            let info = description.ok_or("the FLAC track has no header")?;
            let mut caps = Codec::Flac.wire_caps();
            caps.make_mut()
                .set("streamheader", flac_stream_headers(&info)?);
            caps
        }
        AudioCodec::Mp3 => {
            let version = match rate {
                32_000.. => 1,
                16_000.. => 2,
                _ => 3,
            };
            let mut caps = Codec::Mp3.wire_caps();
            caps.make_mut().set("mpegaudioversion", version);
            caps
        }
        other => return Err(format!("the audio codec {other} is not known here")),
    };
    let structure = caps.make_mut();
    structure.set("rate", rate);
    structure.set("channels", channels);
    Ok(caps)
}

/// The header of an Opus stream whose catalog has none, which serves for one channel or two.
fn opus_head(channels: i32) -> Result<gst::Buffer, Reason> {
    let channels = u8::try_from(channels)
        .ok()
        .filter(|channels| *channels <= 2)
        .ok_or_else(|| format!("the Opus track has {channels} channels and no header"))?;
    let coupled = u8::from(channels == 2);
    pbutils::codec_utils_opus_create_header(48_000, channels, 0, 1, coupled, &[], 0, 0)
        .map_err(|error| error.to_string())
}

/// The headers as the Ogg mapping has them, which decoders want.
fn flac_stream_headers(description: &[u8]) -> Result<gst::Array, Reason> {
    // The mapping's first packet: marker, version 1.0, one header packet more, then what the catalog has.
    let mut head = b"\x7fFLAC\x01\x00\x00\x01".to_vec();
    head.extend_from_slice(description);
    if head.len() < 17 {
        return Err("the FLAC header in the catalog is damaged".into());
    }
    // Not the last block: a comment follows, as the mapping wants one.
    head[13] &= 0x7f;
    let comment = b"\x84\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00";
    Ok(gst::Array::new([
        gst::Buffer::from_slice(head),
        gst::Buffer::from_slice(comment),
    ]))
}

fn known_container(container: &Container) -> Result<(), Reason> {
    match container {
        Container::Unknown(unknown) => Err(format!(
            "the container {:?} is not known here",
            unknown.kind().unwrap_or("?")
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_the_ntsc_family_survive_decimal_notation() {
        gst::init().unwrap();
        let rate = gst::Fraction::approximate_f64(29.97).unwrap();
        assert_eq!(standard_rate(rate), gst::Fraction::new(30_000, 1001));
        let rate = gst::Fraction::approximate_f64(25.0).unwrap();
        assert_eq!(standard_rate(rate), gst::Fraction::new(25, 1));
        let rate = gst::Fraction::approximate_f64(12.5).unwrap();
        assert_eq!(standard_rate(rate), gst::Fraction::new(25, 2));
    }
}
