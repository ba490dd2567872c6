//! Taking media apart, to compare what was sent with what came.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use gst::prelude::*;

use crate::bytes_of;

/// A buffer that went into a pad of the sink.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its timestamp as it stands in the buffer.
    pub pts: gst::ClockTime,
    /// The same as running time, by the pad's segment.
    pub running_time: gst::ClockTime,
    /// Whether decoding can begin there.
    pub key: bool,
    /// Its bytes.
    pub data: Bytes,
}

/// Records what goes through a pad, from now on.
pub fn record(pad: &gst::Pad) -> Arc<Mutex<Vec<Sent>>> {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = sent.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        if let Some(buffer) = info.buffer()
            && let Some(pts) = buffer.pts()
            && let Some(segment) = segment
            && let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>()
            && let Some(running_time) = segment.to_running_time(pts)
        {
            kept.lock()
                .expect("nobody panics with the lock")
                .push(Sent {
                    pts,
                    running_time,
                    key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                    data: bytes_of(buffer),
                });
        }
        gst::PadProbeReturn::Ok
    });
    sent
}

/// The NAL units of an Annex B byte stream.
pub fn annex_b(data: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(found) = data[at..].windows(3).position(|three| three == [0, 0, 1]) {
        starts.push(at + found + 3);
        at += found + 3;
    }
    let ends = starts
        .iter()
        .skip(1)
        .map(|next| next - 3)
        .chain([data.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| without_zeros(&data[*start..end]))
        .collect()
}

/// The NAL units behind 4-byte lengths, as in MP4.
///
/// # Panics
/// If the lengths do not fit the data.
pub fn length_prefixed(mut data: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("32 bit fit");
        let (unit, rest) = rest.split_at(length);
        units.push(without_zeros(unit));
        data = rest;
    }
    assert!(data.is_empty(), "bytes are left behind the last NAL unit");
    units
}

/// A NAL unit never ends in a zero byte: those belong to the next start code.
fn without_zeros(unit: &[u8]) -> &[u8] {
    let end = unit
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    &unit[..end]
}

/// What a NAL unit of H.264 or H.265 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NalKind {
    /// Marks where an access unit begins, and carries nothing. Formats differ in whether they have it.
    Delimiter,
    /// Describes the stream; repeated where a viewer can begin.
    ParameterSet,
    /// Slices and SEI: all that is in the picture, and what is said about it.
    Content,
}

impl NalKind {
    /// The kind of an H.264 NAL unit.
    pub fn h264(unit: &[u8]) -> Self {
        match unit.first().map(|byte| byte & 31) {
            Some(9) => Self::Delimiter,
            Some(7 | 8) => Self::ParameterSet,
            _ => Self::Content,
        }
    }

    /// The kind of an H.265 NAL unit.
    pub fn h265(unit: &[u8]) -> Self {
        match unit.first().map(|byte| byte >> 1 & 63) {
            Some(35) => Self::Delimiter,
            Some(32..=34) => Self::ParameterSet,
            _ => Self::Content,
        }
    }
}

/// The contents of the OBUs of AV1's low-overhead format, but for temporal delimiters, which have none and which formats
/// differ in.
///
/// # Panics
/// If the data are none.
pub fn obus(mut data: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let (kind, mut rest, has_size) = obu_header(data);
        let size = if has_size {
            leb128(&mut rest)
        } else {
            rest.len()
        };
        let (content, rest) = rest.split_at(size);
        if kind != OBU_TEMPORAL_DELIMITER {
            found.push(content);
        }
        data = rest;
    }
    found
}

/// The same of AV1's length-delimited format, "annex B".
///
/// # Panics
/// If the data are none.
pub fn annexb_obus(mut data: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !data.is_empty() {
        let size = leb128(&mut data);
        let (mut temporal_unit, rest) = data.split_at(size);
        data = rest;
        while !temporal_unit.is_empty() {
            let size = leb128(&mut temporal_unit);
            let (mut frame_unit, rest) = temporal_unit.split_at(size);
            temporal_unit = rest;
            while !frame_unit.is_empty() {
                let size = leb128(&mut frame_unit);
                let (obu, rest) = frame_unit.split_at(size);
                frame_unit = rest;
                // Within its length, an OBU is as in the other format.
                found.extend(obus(obu));
            }
        }
    }
    found
}

const OBU_TEMPORAL_DELIMITER: u8 = 2;

/// The kind of the OBU, what follows its header, and whether a size does.
fn obu_header(data: &[u8]) -> (u8, &[u8], bool) {
    let first = data[0];
    let extension = usize::from(first >> 2 & 1);
    (first >> 3 & 15, &data[1 + extension..], first & 2 != 0)
}

fn leb128(data: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = data.split_first().expect("a length is complete");
        *data = rest;
        value |= usize::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// An AAC frame without the ADTS header before it.
///
/// # Panics
/// If there is no ADTS header.
pub fn without_adts(frame: &[u8]) -> &[u8] {
    assert!(
        frame.len() > 7 && frame[0] == 0xff && frame[1] & 0xf6 == 0xf0,
        "not an ADTS frame"
    );
    let header = if frame[1] & 1 == 1 { 7 } else { 9 };
    &frame[header..]
}

/// Where in `sent` the run `received` is, whole and without a gap.
///
/// # Panics
/// If it is nowhere, with what differs first.
pub fn position<T: AsRef<[u8]>, U: AsRef<[u8]>>(sent: &[T], received: &[U]) -> usize {
    let equal = |at: usize| {
        sent[at..]
            .iter()
            .zip(received)
            .take_while(|(sent, received)| sent.as_ref() == received.as_ref())
            .count()
    };
    let (best, length) = (0..sent.len())
        .map(|at| (at, equal(at)))
        .max_by_key(|(_, length)| *length)
        .unwrap_or_default();
    if length == received.len() {
        return best;
    }
    let show = |unit: Option<&[u8]>| {
        unit.map_or("nothing".to_owned(), |unit| {
            format!("{} bytes, {:02x?}", unit.len(), &unit[..unit.len().min(24)])
        })
    };
    panic!(
        "of {} units received, only the first {length} are those that were sent from {best} on (of {}); then there was\n{}\nin the place of\n{}",
        received.len(),
        sent.len(),
        show(received.get(length).map(AsRef::as_ref)),
        show(sent.get(best + length).map(AsRef::as_ref)),
    );
}

/// The files that a `multifilesink` has written in a folder, but for the last one, which may not be whole yet.
pub fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.pop();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("nobody takes the files away"))
        .collect()
}

/// How strong the frequency `hz` is in `samples`: the amplitude of that sine wave, by Goertzel's algorithm.
pub fn tone(samples: &[f32], rate: u32, hz: f64) -> f64 {
    let step = std::f64::consts::TAU * hz / f64::from(rate);
    let coefficient = 2.0 * step.cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        (last, before) = (f64::from(*sample) + coefficient * last - before, last);
    }
    let power = last * last + before * before - coefficient * last * before;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
    let length = samples.len() as f64;
    2.0 * power.max(0.0).sqrt() / length
}
