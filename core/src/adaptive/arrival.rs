//! When a frame arrived, as far as a reader can know that is not always waiting for it.

use std::{ops::RangeInclusive, time::Duration};

use tokio::time::Instant;

/// What is there so soon after it was asked for may have been waiting.
const AT_ONCE: Duration = Duration::from_millis(1);

/// When a reader last waited, which is when there was nothing yet of what it finds now.
#[derive(Debug)]
pub(super) struct LastWait {
    start: Instant,
    /// Since `start`.
    end: Duration,
}

/// A wait that goes on until it is dropped: also when whoever waits is cancelled.
pub(super) struct Wait<'a> {
    last: &'a mut LastWait,
    since: Duration,
}

impl LastWait {
    /// Times are counted from `start`.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            end: Duration::ZERO,
        }
    }

    pub fn begin(&mut self) -> Wait<'_> {
        let since = self.start.elapsed();
        Wait { last: self, since }
    }

    /// Within this a frame arrived that is found at `now`.
    pub fn arrival(&self, now: Duration) -> RangeInclusive<Duration> {
        self.end.min(now)..=now
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let now = self.last.start.elapsed();
        if now.saturating_sub(self.since) >= AT_ONCE {
            self.last.end = now;
        }
    }
}
