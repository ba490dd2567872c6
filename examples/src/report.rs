//! The arithmetic behind the line that is printed every second.

use std::{fmt, time::Duration};

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Video,
    Audio,
}

/// When a frame was captured and when it is seen or heard, each as nanoseconds of the clock that is named.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Wall clock: when the publisher captured the frame.
    pub captured: u64,
    /// Wall clock: now.
    pub now: u64,
    /// Running time of this pipeline: now.
    pub now_running: u64,
    /// Running time of the frame, by which the sink renders it.
    pub running_time: u64,
    /// What the pipeline adds to running time, so that every sink is in time for it.
    pub latency: u64,
}

impl Moment {
    /// How long after its capture a frame that has just come to the sink is rendered.
    ///
    /// A sink waits for the frame's running time plus the latency. A frame that comes after that is rendered at once.
    pub fn shown_after(&self) -> i64 {
        let wait = (self.running_time + self.latency).saturating_sub(self.now_running);
        signed(self.now) + signed(wait) - signed(self.captured)
    }
}

/// Collects what happens in a second.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Since the beginning.
    video_frames: u64,
    audio_packets: u64,
    second: Second,
}

#[derive(Debug, Default)]
struct Second {
    frames: [u64; 2],
    bytes: u64,
    delay: [Mean; 2],
    /// Of the latest frame: who joins late gets old frames at first, which would spoil a mean.
    shown: [Option<i64>; 2],
}

impl Statistics {
    /// A frame has come; `delay` says how long after its capture, in nanoseconds.
    pub fn received(&mut self, kind: Kind, bytes: u64, delay: Option<i64>) {
        match kind {
            Kind::Video => self.video_frames += 1,
            Kind::Audio => self.audio_packets += 1,
        }
        self.second.frames[kind as usize] += 1;
        self.second.bytes += bytes;
        if let Some(delay) = delay {
            self.second.delay[kind as usize].add(delay);
        }
    }

    /// A decoded frame has come to its sink, which renders it so many nanoseconds after its capture.
    pub fn shown(&mut self, kind: Kind, after: i64) {
        self.second.shown[kind as usize] = Some(after);
    }

    /// Sums up the time since the last report, which `elapsed` gives, and begins anew.
    pub fn report(&mut self, elapsed: Duration) -> Report {
        let second = std::mem::take(&mut self.second);
        // The numbers are of the picture, and of the sound only where there is no picture.
        let (kind, total, unit) = if self.video_frames > 0 {
            (Kind::Video, self.video_frames, ["frames", "fps"])
        } else {
            (Kind::Audio, self.audio_packets, ["packets", "a second"])
        };
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let [picture, sound] = second.shown;
        Report {
            total,
            unit,
            per_second: second.frames[kind as usize] as f64 / seconds,
            kbits: second.bytes as f64 * 8.0 / 1000.0 / seconds,
            delay: second.delay[kind as usize].value(),
            shown: if kind == Kind::Video { picture } else { sound },
            lip_sync: sound.zip(picture).map(|(sound, picture)| sound - picture),
        }
    }
}

/// A second, summed up. Times are in nanoseconds, and missing if nothing came that tells them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    total: u64,
    unit: [&'static str; 2],
    per_second: f64,
    kbits: f64,
    delay: Option<i64>,
    shown: Option<i64>,
    lip_sync: Option<i64>,
}

impl Report {
    /// Whether nothing came at all.
    pub fn is_silent(&self) -> bool {
        self.kbits == 0.0
    }

    /// Whether frames came before their time.
    pub fn is_ahead(&self) -> bool {
        self.delay.is_some_and(|delay| delay < 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            total,
            unit: [unit, rate],
            per_second,
            kbits,
            ..
        } = self;
        write!(
            f,
            "{total:>6} {unit}  {per_second:>5.1} {rate}  {kbits:>6.0} kbit/s  delay "
        )?;
        match self.delay {
            Some(delay) => write!(f, "{:.1} ms", millis(delay))?,
            None => write!(f, "unknown")?,
        }
        if let Some(shown) = self.shown {
            write!(f, ", shown after {:.0} ms", millis(shown))?;
        }
        match self.lip_sync {
            Some(offset) => write!(f, "  lip-sync {:+.1} ms", tenths(offset)),
            None => write!(f, "  lip-sync unknown"),
        }
    }
}

#[derive(Debug, Default)]
struct Mean {
    sum: i128,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: i64) {
        self.sum += i128::from(value);
        self.count += 1;
    }

    fn value(&self) -> Option<i64> {
        let mean = self.sum.checked_div(self.count.into())?;
        i64::try_from(mean).ok()
    }
}

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn millis(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}

/// Milliseconds, rounded to a tenth: a zero, that has no sign, is then one when it is written.
fn tenths(nanos: i64) -> f64 {
    (millis(nanos) * 10.0).round() / 10.0 + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_second_of_video_and_audio_is_summed_up() {
        let mut statistics = Statistics::default();
        for n in 0..30 {
            statistics.received(Kind::Video, 10_000, Some((4 + n % 3) * MS));
            statistics.shown(Kind::Video, 210 * MS);
        }
        for _ in 0..50 {
            statistics.received(Kind::Audio, 200, Some(90 * MS));
            statistics.shown(Kind::Audio, 198 * MS);
        }
        let report = statistics.report(Duration::from_secs(1));
        assert_eq!(
            report.to_string(),
            "    30 frames   30.0 fps    2480 kbit/s  delay 5.0 ms, shown after 210 ms  lip-sync -12.0 ms"
        );
    }

    #[test]
    fn sound_that_is_in_sync_is_written_in_one_way() {
        let mut statistics = Statistics::default();
        let mut line = |offset| {
            statistics.received(Kind::Video, 1, None);
            statistics.shown(Kind::Video, 200 * MS);
            statistics.shown(Kind::Audio, 200 * MS + offset);
            statistics.report(Duration::from_secs(1)).to_string()
        };
        for (offset, end) in [
            (0, "+0.0 ms"),
            (40_000, "+0.0 ms"),
            (-40_000, "+0.0 ms"),
            (-60_000, "-0.1 ms"),
        ] {
            let line = line(offset);
            assert!(line.ends_with(end), "{line}");
        }
    }

    #[test]
    fn the_total_goes_on_and_the_rest_begins_anew() {
        let mut statistics = Statistics::default();
        statistics.received(Kind::Video, 1000, Some(MS));
        statistics.report(Duration::from_secs(1));
        statistics.received(Kind::Video, 500, Some(3 * MS));
        let report = statistics.report(Duration::from_millis(500));
        assert_eq!(
            (report.total, report.per_second, report.kbits),
            (2, 2.0, 8.0)
        );
        assert_eq!(report.delay, Some(3 * MS));
        assert!(statistics.report(Duration::from_secs(1)).is_silent());
    }

    #[test]
    fn without_video_the_numbers_are_of_the_audio() {
        let mut statistics = Statistics::default();
        statistics.received(Kind::Audio, 100, Some(2 * MS));
        statistics.shown(Kind::Audio, 205 * MS);
        let report = statistics.report(Duration::from_secs(1));
        assert_eq!((report.total, report.unit), (1, ["packets", "a second"]));
        assert_eq!(
            (report.delay, report.shown, report.lip_sync),
            (Some(2 * MS), Some(205 * MS), None)
        );
        assert!(report.to_string().ends_with("lip-sync unknown"));
    }

    #[test]
    fn a_frame_in_time_is_shown_when_it_is_due_and_a_late_one_at_once() {
        let in_time = Moment {
            captured: 1_000_000_000,
            now: 1_010_000_000,
            now_running: 510_000_000,
            running_time: 500_000_000,
            latency: 200_000_000,
        };
        assert_eq!(in_time.shown_after(), 200 * MS);
        let late = Moment {
            latency: 0,
            ..in_time
        };
        assert_eq!(late.shown_after(), 10 * MS);
    }

    #[test]
    fn a_publisher_whose_clock_is_ahead_gives_a_negative_delay_and_no_panic() {
        let moment = Moment {
            captured: 5 * 60_000_000_000,
            now: 0,
            now_running: 0,
            running_time: 0,
            latency: 0,
        };
        assert_eq!(moment.shown_after(), -300_000 * MS);
    }
}
