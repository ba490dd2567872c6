//! Sound that stays with its timestamps.
//!
//! The publisher's clock runs a little faster or slower than ours, and the playout clock follows it: timestamps of sound
//! are apart by a little more or less than the samples between them last. Audio sinks ignore that up to 40 ms and then jump
//! there, which is a click, and until then the picture is early or late by as much. So the samples are made to last as
//! long as the timestamps say.

use std::collections::VecDeque;

use gst::prelude::*;

/// The most by which sound is stretched: as much as the playout clock slews, and too little to be heard.
const MOST: f64 = 0.006;
/// In this time what is missing is made up for.
const SETTLE: f64 = 0.5;
/// More than this is no drift but a gap: sound goes on where the timestamp says.
const GAP: f64 = 0.03;

/// Resamples sound by a variable ratio near one. A plain state machine: all time is in the timestamps.
#[derive(Debug)]
struct DriftCorrector {
    rate: f64,
    channels: usize,
    /// Samples that are still needed for the interpolation, interleaved.
    history: VecDeque<f32>,
    /// Where in `history` the next sample is taken from, in samples of a channel.
    position: f64,
    /// The time that the output has reached, in seconds.
    reached: Option<f64>,
}

impl DriftCorrector {
    fn new(rate: u32, channels: u32) -> Self {
        Self {
            rate: rate.into(),
            channels: channels.max(1) as usize,
            history: VecDeque::new(),
            position: 1.0,
            reached: None,
        }
    }

    /// Takes samples that begin at `time`, in seconds. Returns when what comes out begins, and what that is.
    fn push(&mut self, samples: &[f32], time: f64) -> (f64, Vec<f32>) {
        let waiting = (self.history.len() / self.channels) as f64 - self.position;
        let begin = match self.reached {
            // What waits in the history is still to be put out before this.
            Some(reached) if (time - waiting / self.rate - reached).abs() <= GAP => reached,
            _ => {
                self.history.clear();
                // The first sample has none before it: once more the same.
                let first = samples.get(..self.channels).unwrap_or_default();
                self.history.extend(first);
                self.position = 1.0;
                time
            }
        };
        let waiting = (self.history.len() / self.channels) as f64 - self.position;
        let missing = time - waiting / self.rate - begin;
        let stretch = 1.0 + (missing / SETTLE).clamp(-MOST, MOST);
        self.history.extend(samples);
        let frames = self.history.len() / self.channels;
        let mut out = Vec::with_capacity(samples.len() + samples.len() / 64 + self.channels);
        // Two samples after the one before are needed.
        while self.position + 2.0 < frames as f64 {
            let at = self.position as usize;
            let between = (self.position - at as f64) as f32;
            for channel in 0..self.channels {
                let sample = |n: usize| self.history[(at + n - 1) * self.channels + channel];
                out.push(cubic([sample(0), sample(1), sample(2), sample(3)], between));
            }
            self.position += 1.0 / stretch;
        }
        // One before is kept.
        let done = (self.position as usize).saturating_sub(1).min(frames);
        self.history.drain(..done * self.channels);
        self.position -= done as f64;
        let lasts = (out.len() / self.channels) as f64 / self.rate;
        self.reached = Some(begin + lasts);
        (begin, out)
    }
}

/// The value between the second and the third of four samples (Catmull-Rom).
fn cubic([a, b, c, d]: [f32; 4], between: f32) -> f32 {
    let slope = 0.5 * (c - a);
    let curve = a - 2.5 * b + 2.0 * c - 0.5 * d;
    let twist = 0.5 * (d - a) + 1.5 * (b - c);
    ((twist * between + curve) * between + slope) * between + b
}

/// Has all sound that leaves by this pad last as long as its timestamps say. It has to be interleaved 32-bit floats.
pub(super) fn correct(pad: &gst::Pad) {
    let mut corrector: Option<DriftCorrector> = None;
    let mut info: Option<gst_audio::AudioInfo> = None;
    let corrector = std::sync::Mutex::new(move |probe: &mut gst::PadProbeInfo| {
        if let Some(event) = probe.event() {
            match event.view() {
                gst::EventView::Caps(caps) => {
                    info = gst_audio::AudioInfo::from_caps(caps.caps()).ok();
                    corrector = None;
                }
                gst::EventView::FlushStop(_) | gst::EventView::Segment(_) => corrector = None,
                _ => {}
            }
            return;
        }
        let Some((buffer, info)) = probe.buffer().zip(info.as_ref()) else {
            return;
        };
        let made = || DriftCorrector::new(info.rate(), info.channels());
        if let Some(corrected) = corrected(corrector.get_or_insert_with(made), buffer) {
            probe.data = Some(gst::PadProbeData::Buffer(corrected));
        }
    });
    let types = gst::PadProbeType::BUFFER
        | gst::PadProbeType::EVENT_DOWNSTREAM
        | gst::PadProbeType::EVENT_FLUSH;
    pad.add_probe(types, move |_, probe| {
        // One thread streams; a flush comes from another.
        if let Ok(mut correct) = corrector.lock() {
            correct(probe);
        }
        gst::PadProbeReturn::Ok
    });
}

fn corrected(corrector: &mut DriftCorrector, buffer: &gst::BufferRef) -> Option<gst::Buffer> {
    let time = buffer.pts()?.nseconds() as f64 / 1e9;
    let map = buffer.map_readable().ok()?;
    let (bytes, _) = map.as_chunks::<4>();
    let samples: Vec<_> = bytes
        .iter()
        .map(|bytes| f32::from_ne_bytes(*bytes))
        .collect();
    let (begin, out) = corrector.push(&samples, time);
    let bytes: Vec<u8> = out.iter().flat_map(|sample| sample.to_ne_bytes()).collect();
    let mut corrected = gst::Buffer::from_mut_slice(bytes);
    let corrected_mut = corrected.make_mut();
    let flags = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::META;
    buffer.copy_into(corrected_mut, flags, ..).ok()?;
    let time = |seconds: f64| gst::ClockTime::from_nseconds((seconds * 1e9).round() as u64);
    let end = corrector.reached.map_or(begin, |reached| reached);
    corrected_mut.set_pts(time(begin));
    corrected_mut.set_duration(time(end).saturating_sub(time(begin)));
    Some(corrected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 48_000;
    const FRAMES: usize = 960;

    fn sine(n: usize) -> f32 {
        (n as f64 * 440.0 * std::f64::consts::TAU / f64::from(RATE)).sin() as f32
    }

    /// A minute of sound in stereo whose timestamps run by `ppm` faster than its samples; returns the greatest
    /// distance of the two, and the greatest step from one sample to the next.
    fn play(ppm: f64) -> (f64, f32) {
        let mut corrector = DriftCorrector::new(RATE, 2);
        let (mut worst, mut step) = (0.0_f64, 0.0_f32);
        let (mut last, mut end) = (0.0, 0.0);
        for n in 0..3_000 {
            let time = 0.02 * n as f64 * (1.0 + ppm / 1e6);
            let input: Vec<_> = (0..FRAMES)
                .flat_map(|i| {
                    let sample = sine(n * FRAMES + i);
                    [sample, -sample]
                })
                .collect();
            let (begin, out) = corrector.push(&input, time);
            assert!((begin - end).abs() < 1e-6, "nothing is left out or doubled");
            end = begin + (out.len() / 2) as f64 / f64::from(RATE);
            worst = worst.max((begin - time).abs());
            for frame in out.chunks(2) {
                step = step.max((frame[0] - last).abs());
                assert!(
                    (frame[0] + frame[1]).abs() < 1e-6,
                    "the channels are kept apart"
                );
                last = frame[0];
            }
        }
        (worst, step)
    }

    #[test]
    fn sound_follows_its_timestamps_without_a_click() {
        let smooth = 440.0 * std::f32::consts::TAU / RATE as f32;
        for ppm in [0.0, 300.0, -300.0, 5000.0, -5000.0] {
            let (worst, step) = play(ppm);
            assert!(worst < 0.003, "{ppm}: {worst}");
            assert!(step < smooth * 1.02, "{ppm}: {step}");
        }
    }

    #[test]
    fn without_drift_the_samples_are_those_that_came() {
        let mut corrector = DriftCorrector::new(RATE, 1);
        let mut out = Vec::new();
        for n in 0..50 {
            let input: Vec<_> = (0..FRAMES).map(|i| sine(n * FRAMES + i)).collect();
            out.extend(corrector.push(&input, 0.02 * n as f64).1);
        }
        let worst = out
            .iter()
            .enumerate()
            .map(|(n, sample)| (sample - sine(n)).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
    }

    #[test]
    fn after_a_gap_sound_goes_on_where_its_timestamp_says() {
        let mut corrector = DriftCorrector::new(RATE, 1);
        let input = [0.5; FRAMES];
        corrector.push(&input, 1.0);
        let (begin, out) = corrector.push(&input, 2.0);
        assert_eq!(begin, 2.0);
        assert!(out.iter().all(|sample| (sample - 0.5).abs() < 1e-6));
        // Also back.
        assert_eq!(corrector.push(&input, 1.0).0, 1.0);
        // And what is no sample is none.
        assert_eq!(corrector.push(&[], 5.0), (5.0, vec![]));
        assert_eq!(corrector.push(&input, 5.0).0, 5.0);
    }
}
