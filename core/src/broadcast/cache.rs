//! How much media is kept, at the publisher for viewers that lag and at the viewer for groups that wait their turn.

use std::time::Duration;

use moq_lite::cache::{Config, Pool};

/// How long a group is kept after a newer one began. No viewer can lag further behind than this.
pub(crate) const RETENTION: Duration = Duration::from_secs(5);

/// How many bytes are kept beside the newest groups, which are never dropped.
const CAPACITY: u64 = 16 << 20;

/// A budget for one broadcast, or for all that one peer sends.
pub(crate) fn pool() -> Pool {
    Pool::new(
        Config::default()
            .with_capacity(CAPACITY)
            .with_expiry(RETENTION),
    )
}
