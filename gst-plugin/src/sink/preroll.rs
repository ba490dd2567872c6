//! What came to a pad before the pipeline played.

use iroh_live::media::sample;

/// More than are in a group of pictures.
const MAX_SAMPLES: usize = 2000;

/// More than a group of pictures has at any rate that an encoder is asked for.
const MAX_BYTES: usize = 64 << 20;

/// Samples that wait for the pipeline to play, in the order in which they came. Their memory may belong to a pool of
/// upstream, so they are not kept for longer than a run.
#[derive(Default)]
pub(super) struct Preroll {
    samples: Vec<gst::Sample>,
    bytes: usize,
}

impl Preroll {
    pub(super) fn push(&mut self, sample: gst::Sample) {
        self.bytes += sample.buffer().map_or(0, |buffer| buffer.size());
        self.samples.push(sample);
    }

    /// Whether no more should wait.
    pub(super) fn is_full(&self) -> bool {
        self.samples.len() >= MAX_SAMPLES || self.bytes >= MAX_BYTES
    }

    /// What is needed of those that wait; from now on none does.
    pub(super) fn take(&mut self) -> Vec<gst::Sample> {
        let mut samples = std::mem::take(self).samples;
        samples.drain(..needed_from(&samples));
        samples
    }
}

/// Where to begin with samples that came before the pipeline played: at the group of pictures of the first that is presented.
fn needed_from(samples: &[gst::Sample]) -> usize {
    let presented =
        |sample: &gst::Sample| sample::running_time(sample).is_some_and(|time| time >= 0);
    let Some(first) = samples.iter().position(presented) else {
        return 0;
    };
    let is_key = |sample: &gst::Sample| {
        let flags = sample.buffer().map(|buffer| buffer.flags());
        flags.is_some_and(|flags| !flags.contains(gst::BufferFlags::DELTA_UNIT))
    };
    samples[..=first].iter().rposition(is_key).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_has_a_limit_in_number_and_in_size_and_is_let_go_of() {
        gst::init().unwrap();
        let sample = |size| {
            let buffer = gst::Buffer::with_size(size).unwrap();
            gst::Sample::builder().buffer(&buffer).build()
        };
        let fill = |size, most| {
            let mut preroll = Preroll::default();
            let pushed = (1..=most).find(|_| {
                preroll.push(sample(size));
                preroll.is_full()
            });
            assert!(!preroll.take().is_empty());
            assert!(!preroll.is_full() && preroll.take().is_empty());
            pushed
        };
        assert_eq!(fill(1, 3000), Some(MAX_SAMPLES));
        assert_eq!(fill(MAX_BYTES / 4, 3000), Some(4));
    }

    #[test]
    fn of_what_lies_before_the_segment_only_the_group_of_the_first_picture_is_needed() {
        gst::init().unwrap();
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(10));
        let samples = |frames: &[(u64, bool)]| -> Vec<_> {
            let sample = |(seconds, is_key): &(u64, bool)| {
                let mut buffer = gst::Buffer::new();
                let fresh = buffer.get_mut().unwrap();
                fresh.set_pts(gst::ClockTime::from_seconds(*seconds));
                if !is_key {
                    fresh.set_flags(gst::BufferFlags::DELTA_UNIT);
                }
                gst::Sample::builder()
                    .buffer(&buffer)
                    .segment(&segment)
                    .build()
            };
            frames.iter().map(sample).collect()
        };
        let (key, delta) = (true, false);
        let middle = [(7, key), (8, delta), (9, key), (9, delta), (10, delta)];
        assert_eq!(needed_from(&samples(&middle)), 2);
        assert_eq!(needed_from(&samples(&[(8, key), (9, delta), (10, key)])), 2);
        assert_eq!(needed_from(&samples(&[(10, key)])), 0);
        // Nothing is shown yet, or nothing to begin with is there.
        assert_eq!(needed_from(&samples(&[(8, key), (9, delta)])), 0);
        assert_eq!(needed_from(&samples(&[(9, delta), (10, delta)])), 0);
    }
}
