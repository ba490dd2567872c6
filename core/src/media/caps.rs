//! Caps and the catalog: how a stream is brought into the form that travels, and how that is described.
//!
//! On the wire H.264 and H.265 are Annex B with parameter sets before each key frame, one access unit a frame; AV1 is an
//! OBU stream, one temporal unit a frame; VP8, VP9, Opus, MP3 and raw AAC and FLAC frames are what their encoders emit.

use crate::broadcast::{AudioCodec, AudioConfig, Container, TrackConfig, VideoCodec, VideoConfig};
use gst_pbutils as pbutils;

/// Why a stream cannot be published or played, in words for the user.
pub type Reason = String;

/// The codecs that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// H.264, AVC.
    H264,
    /// H.265, HEVC.
    H265,
    /// AV1.
    Av1,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// Opus.
    Opus,
    /// AAC.
    Aac,
    /// FLAC.
    Flac,
    /// MPEG-1 Audio Layer III.
    Mp3,
}

impl Codec {
    /// What an encoded stream carries.
    ///
    /// # Errors
    /// A sentence that names the mend.
    pub fn of(caps: &gst::CapsRef) -> Result<Self, Reason> {
        let Some(structure) = caps.structure(0) else {
            return Err("no caps: link an encoder or a parser to this pad".into());
        };
        Ok(match structure.name().as_str() {
            "video/x-h264" => Self::H264,
            "video/x-h265" => Self::H265,
            "video/x-av1" => Self::Av1,
            "video/x-vp8" => Self::Vp8,
            "video/x-vp9" => Self::Vp9,
            "audio/x-opus" => Self::Opus,
            "audio/x-flac" => Self::Flac,
            "audio/mpeg" if structure.get::<i32>("mpegversion") == Ok(1) => Self::Mp3,
            "audio/mpeg" => Self::Aac,
            "video/x-raw" => {
                return Err(
                    "raw video cannot be published yet: put an encoder before the pad, \
                     for example `! videoconvert ! x264enc tune=zerolatency !`"
                        .into(),
                );
            }
            "audio/x-raw" => {
                return Err(
                    "raw audio cannot be published yet: put an encoder before the pad, \
                     for example `! audioconvert ! audioresample ! opusenc !`"
                        .into(),
                );
            }
            other => return Err(format!("{other} cannot be published")),
        })
    }

    /// Whether it is a video codec.
    pub fn is_video(self) -> bool {
        matches!(
            self,
            Self::H264 | Self::H265 | Self::Av1 | Self::Vp8 | Self::Vp9
        )
    }

    /// The parser that brings the stream into the form that travels, and the caps of that form.
    pub fn parser(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::H264 => (
                "h264parse",
                "video/x-h264,stream-format=byte-stream,alignment=au",
            ),
            Self::H265 => (
                "h265parse",
                "video/x-h265,stream-format=byte-stream,alignment=au",
            ),
            Self::Av1 => (
                "av1parse",
                "video/x-av1,stream-format=obu-stream,alignment=tu",
            ),
            Self::Vp9 => ("vp9parse", "video/x-vp9,alignment=super-frame"),
            Self::Aac => ("aacparse", "audio/mpeg,stream-format=raw,framed=true"),
            Self::Flac => ("flacparse", "audio/x-flac,framed=true"),
            Self::Mp3 => (
                "mpegaudioparse",
                "audio/mpeg,mpegversion=1,layer=3,parsed=true",
            ),
            Self::Vp8 | Self::Opus => return None,
        })
    }

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
            Self::Vp8 => "vp8".to_owned(),
            Self::Vp9 => {
                let profile: u8 = caps
                    .get::<&str>("profile")
                    .ok()
                    .and_then(|profile| profile.parse().ok())
                    .unwrap_or(0);
                let depth = number("bit-depth-luma").max(8);
                // The level does not appear in the bitstream; 1.0 is the one that promises nothing.
                format!("vp09.{profile:02}.10.{depth:02}")
            }
            Self::Av1 => {
                let profile = match caps.get::<&str>("profile") {
                    Ok("high") => 1,
                    Ok("professional") => 2,
                    _ => 0,
                };
                let depth = number("bit-depth-luma").max(8);
                format!(
                    "av01.{profile}.{:02}M.{depth:02}",
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
                ("opus".to_owned(), 48_000, u32::from(head[9]), Some(head))
            }
            Self::Aac => {
                let config = codec_data.ok_or_else(|| missing("codec_data"))?;
                let object_type = config.first().map_or(2, |byte| byte >> 3);
                let rate = number("rate").ok_or_else(|| missing("rate"))?;
                let channels = number("channels").ok_or_else(|| missing("channels"))?;
                (
                    format!("mp4a.40.{object_type}"),
                    rate,
                    channels,
                    Some(config),
                )
            }
            Self::Flac => {
                let info = flac_description(caps).ok_or_else(|| missing("the FLAC header"))?;
                let rate = number("rate").ok_or_else(|| missing("rate"))?;
                let channels = number("channels").ok_or_else(|| missing("channels"))?;
                ("flac".to_owned(), rate, channels, Some(info))
            }
            Self::Mp3 => {
                let rate = number("rate").ok_or_else(|| missing("rate"))?;
                let channels = number("channels").ok_or_else(|| missing("channels"))?;
                ("mp3".to_owned(), rate, channels, None)
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

/// A buffer's memory as the bytes that are sent; not copied where the memory can be kept. None if it cannot be read.
pub fn payload(buffer: gst::Buffer) -> Option<bytes::Bytes> {
    // A buffer of a pool has to go back to it soon, or a hardware encoder runs out of them.
    // SAFETY: the field is only compared with null.
    let pooled = unsafe { !(*buffer.as_ptr()).pool.is_null() };
    let map = buffer.into_mapped_buffer_readable().ok()?;
    Some(if pooled {
        bytes::Bytes::copy_from_slice(&map)
    } else {
        bytes::Bytes::from_owner(map)
    })
}

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
    let description = config
        .description
        .as_ref()
        .map(|data| gst::Buffer::from_slice(data.clone()));
    known_container(&config.container)?;
    let mut caps = match &config.codec {
        VideoCodec::H264(h264) => {
            let mut caps = gst::Caps::builder("video/x-h264")
                .field(
                    "stream-format",
                    if description.is_some() {
                        "avc"
                    } else {
                        "byte-stream"
                    },
                )
                .field("alignment", "au")
                .field("parsed", true)
                .build();
            let sps = [h264.profile, h264.constraints, h264.level];
            // Decoders go by the bitstream where the string says nothing that is known.
            let _ = pbutils::codec_utils_h264_caps_set_level_and_profile(caps.make_mut(), &sps);
            caps
        }
        VideoCodec::H265(h265) => {
            let mut caps = gst::Caps::builder("video/x-h265")
                .field(
                    "stream-format",
                    if description.is_some() {
                        "hvc1"
                    } else {
                        "byte-stream"
                    },
                )
                .field("alignment", "au")
                .field("parsed", true)
                .build();
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
        VideoCodec::AV1(av1) => gst::Caps::builder("video/x-av1")
            .field("stream-format", "obu-stream")
            .field("alignment", "tu")
            .field("parsed", true)
            .field(
                "profile",
                match av1.profile {
                    0 => "main",
                    1 => "high",
                    _ => "professional",
                },
            )
            .build(),
        VideoCodec::VP8 => gst::Caps::new_empty_simple("video/x-vp8"),
        VideoCodec::VP9(vp9) => gst::Caps::builder("video/x-vp9")
            .field("alignment", "super-frame")
            .field("parsed", true)
            .field("profile", vp9.profile.to_string())
            .build(),
        other => return Err(format!("the video codec {other} is not known here")),
    };
    let structure = caps.make_mut();
    if let Some(description) = description {
        structure.set("codec_data", description);
    }
    if let (Some(width), Some(height)) = (config.coded_width, config.coded_height)
        && let (Ok(width), Ok(height)) = (i32::try_from(width), i32::try_from(height))
        && width > 0
        && height > 0
    {
        structure.set("width", width);
        structure.set("height", height);
        let shape = |n: Option<u32>| n.and_then(|n| i32::try_from(n).ok()).filter(|n| *n > 0);
        let par = match (
            shape(config.display_aspect_width),
            shape(config.display_aspect_height),
        ) {
            (Some(w), Some(h)) => pixel_aspect(w, h, width, height),
            _ => Some(gst::Fraction::new(1, 1)),
        };
        if let Some(par) = par {
            structure.set("pixel-aspect-ratio", par);
        }
    }
    if let Some(rate) = config
        .framerate
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        && let Some(rate) = gst::Fraction::approximate_f64(rate)
    {
        structure.set("framerate", standard_rate(rate));
    }
    Ok(caps)
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
    let description = config
        .description
        .as_ref()
        .map(|data| gst::Buffer::from_slice(data.clone()));
    Ok(match &config.codec {
        AudioCodec::Opus => {
            let head = match description {
                Some(head) => head,
                None if channels <= 2 => pbutils::codec_utils_opus_create_header(
                    48_000,
                    u8::try_from(channels).unwrap_or(2),
                    0,
                    1,
                    u8::from(channels == 2),
                    &[],
                    0,
                    0,
                )
                .map_err(|error| error.to_string())?,
                None => {
                    return Err(format!(
                        "the Opus track has {channels} channels and no header"
                    ));
                }
            };
            pbutils::codec_utils_opus_create_caps_from_header(&head, None)
                .map_err(|_| "the Opus header in the catalog is damaged")?
        }
        AudioCodec::AAC(_) => {
            let config = config
                .description
                .clone()
                .ok_or("the AAC track has no codec configuration")?;
            let mut caps = gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("framed", true)
                .field("rate", rate)
                .field("channels", channels)
                .build();
            let _ = pbutils::codec_utils_aac_caps_set_level_and_profile(caps.make_mut(), &config);
            caps.make_mut()
                .set("codec_data", gst::Buffer::from_slice(config));
            caps
        }
        AudioCodec::Flac => {
            let info = config
                .description
                .clone()
                .ok_or("the FLAC track has no header")?;
            // The Ogg mapping's first packet: marker, version 1.0, one header packet more, then what the catalog has.
            let mut head = b"\x7fFLAC\x01\x00\x00\x01".to_vec();
            head.extend_from_slice(&info);
            if head.len() < 17 {
                return Err("the FLAC header in the catalog is damaged".into());
            }
            // Not the last block: a comment follows, as the mapping wants one.
            head[13] &= 0x7f;
            let comment = b"\x84\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00";
            let headers = gst::Array::new([
                gst::Buffer::from_slice(head),
                gst::Buffer::from_slice(comment),
            ]);
            gst::Caps::builder("audio/x-flac")
                .field("framed", true)
                .field("rate", rate)
                .field("channels", channels)
                .field("streamheader", headers)
                .build()
        }
        AudioCodec::Mp3 => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 1)
            .field(
                "mpegaudioversion",
                if rate >= 32_000 {
                    1
                } else if rate >= 16_000 {
                    2
                } else {
                    3
                },
            )
            .field("layer", 3)
            .field("parsed", true)
            .field("rate", rate)
            .field("channels", channels)
            .build(),
        other => return Err(format!("the audio codec {other} is not known here")),
    })
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
    Some(format!("avc3.{profile:02x}{constraints:02x}{level:02x}"))
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
        "hev1.{space}{}.{compatibility:X}.{tier}{}",
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
