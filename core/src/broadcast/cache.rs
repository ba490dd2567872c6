//! How much media is kept, at the publisher for viewers that lag and at the viewer for groups that wait their turn.

use std::time::Duration;

use moq_lite::cache::{Config, Pool};

/// How long a group is kept after a newer one began. No viewer can lag further behind than this.
pub(crate) const RETENTION: Duration = Duration::from_secs(5);

/// How many bytes are kept beside the newest groups, which are never dropped. What was read or written within the last
/// two seconds or so is spared, so that a stream of more than 50 Mbit/s is bounded by that time rather than by this.
pub(super) const CAPACITY: u64 = 12 << 20;

/// A budget for one broadcast, or for all that one peer sends. It has to be told the time, with [`Pool::gc`]: one that is
/// not takes every group that was ever watched for just read, and drops none.
pub(crate) fn pool() -> Pool {
    Pool::new(
        Config::default()
            .with_capacity(CAPACITY)
            .with_expiry(RETENTION),
    )
}
