//! How many subscriptions peers have made, so that a new one can be told from those that were there.

use std::sync::LazyLock;

use moq_lite::stats::{Config, Registry, Role, Session, Tier};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(Config::new()));

/// What a session counts in.
pub(super) fn session() -> Session {
    REGISTRY.tier(Tier::default()).session("")
}

/// All the subscriptions to tracks of this process so far. It only grows.
#[cfg(feature = "media")]
pub(crate) fn subscriptions() -> u64 {
    REGISTRY
        .snapshot()
        .traffic()
        .into_iter()
        .filter(|(_, role, _)| *role == Role::Publisher)
        .map(|(_, _, traffic)| traffic.subscriptions_started)
        .sum()
}
