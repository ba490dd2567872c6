//! The smallest transits of a track.

const MS: u64 = 1_000_000;

/// A track's delay is known when its minimum has not fallen for this long: about one audio frame.
const QUIET: u64 = 20 * MS;
/// The same once a backlog is seen to drain. On a far path it comes in flights a round trip apart.
pub const QUIET_BURST: u64 = 80 * MS;
/// A fall of the minimum beyond this shows a backlog being drained.
const BURST: i64 = 50 * MS as i64;
/// The window of the minimum is 4 s: longer than the common disturbances (a Wi-Fi scan, a
/// retransmission timeout), so that some frame in it got through unhindered, and short enough that
/// a skew of 500 ppm biases the minimum by 2 ms at most.
pub const WINDOW: u64 = BUCKETS as u64 * BUCKET;
const BUCKETS: usize = 8;
const BUCKET: u64 = 500 * MS;

/// The minimum of the transits in the last [`BUCKETS`] stretches of time that had any frames. An
/// outage therefore leaves it as it was: what follows is a backlog and tells nothing.
#[derive(Clone, Debug)]
pub struct Window {
    minima: [i64; BUCKETS],
    since: u64,
}

impl Window {
    pub fn new(transit: i64, since: u64) -> Self {
        let minima = [transit; BUCKETS];
        Self { minima, since }
    }

    pub fn push(&mut self, transit: i64, time: u64) {
        if time - self.since >= BUCKET {
            self.minima.rotate_right(1);
            self.minima[0] = transit;
            self.since = time;
        }
        self.minima[0] = self.minima[0].min(transit);
    }

    pub fn min(&self) -> i64 {
        self.minima.into_iter().min().unwrap_or(i64::MAX)
    }
}

/// The fall of a minimum while a backlog drains, from the first transit on.
#[derive(Clone, Debug)]
pub struct FallingMinimum {
    first: i64,
    pub since: u64,
    pub min: i64,
    /// The minimum when it last fell noticeably, when that was, and the frames since.
    mark: i64,
    pub fell: u64,
    pub frames: u32,
}

impl FallingMinimum {
    pub fn new(first: i64, since: u64) -> Self {
        Self {
            first,
            since,
            min: first,
            mark: first,
            fell: since,
            frames: 0,
        }
    }

    pub fn push(&mut self, transit: i64, time: u64, noticeable: i64) {
        self.min = self.min.min(transit);
        self.frames += 1;
        if self.mark.saturating_sub(self.min) > noticeable {
            self.mark = self.min;
            self.fell = time;
            self.frames = 0;
        }
    }

    /// When it is over if the minimum falls no more.
    pub fn end(&self) -> u64 {
        self.fell + if self.burst() { QUIET_BURST } else { QUIET }
    }

    pub fn burst(&self) -> bool {
        self.first.saturating_sub(self.min) > BURST
    }
}
