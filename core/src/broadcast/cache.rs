//! How much media is kept, at the publisher for viewers that lag and at the viewer for groups that wait their turn.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use moq_lite::cache::{Config, Pool};

/// How long a group is kept after a newer one began. No viewer can lag further behind than this.
pub(crate) const RETENTION: Duration = Duration::from_secs(5);

/// How many bytes are kept beside the newest groups, which are never dropped.
pub(super) const CAPACITY: u64 = 12 << 20;

/// How much sooner a group that nobody reads is dropped when there is too much.
const HASTE: u32 = 10;

/// A budget for one broadcast, or for all that one peer sends.
pub(crate) fn pool() -> Pool {
    Pool::new(
        Config::default()
            .with_capacity(CAPACITY)
            .with_expiry(RETENTION),
    )
}

/// The budget of a broadcast that is written, with the clock that it needs.
///
/// A pool that is not told the time takes every group that was ever watched for just read, and drops none. And it spares
/// what was read later than the average of all groups, so that a few old ones, as of the catalog, protect whole seconds of
/// video. So time runs faster while there is too much.
pub(super) struct Cache {
    pool: Pool,
    clock: Mutex<Option<Clock>>,
}

struct Clock {
    real: Instant,
    told: Instant,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self {
            pool: pool(),
            clock: Mutex::default(),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Lets groups age. To be called with each frame.
    pub(super) fn age(&self, now: Instant) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = clock.get_or_insert(Clock {
            real: now,
            told: now,
        });
        let elapsed = now.saturating_duration_since(clock.real);
        clock.real = now;
        clock.told += if self.pool.used() > CAPACITY {
            elapsed * HASTE
        } else {
            elapsed
        };
        self.pool.gc(clock.told);
    }
}
