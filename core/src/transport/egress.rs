//! How many subscriptions peers have made, so that a new one can be told from those that were there.

use std::sync::LazyLock;

#[cfg(feature = "media")]
use moq_lite::stats::Report;
use moq_lite::stats::{Config, Registry, Session, Tier};

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::new(Config::new()));

/// What a session counts in.
pub(super) fn session() -> Session {
    REGISTRY.tier(Tier::default()).session("")
}

/// The subscriptions of peers so far to the tracks of broadcasts of these names.
///
/// It only grows, but for a broadcast that nobody watched for a while, which begins anew. Another transport of the
/// process that uses the same name counts too: this is for hints, not for accounts.
#[cfg(feature = "media")]
pub(crate) fn subscriptions<'a>(names: impl Iterator<Item = &'a str> + Clone) -> u64 {
    let mut report = Report::default();
    REGISTRY.report(&mut report);
    report
        .traffic
        .iter()
        .filter(|entry| names.clone().any(|name| entry.path.as_str() == name))
        .map(|entry| entry.publisher.subscriptions_started)
        .sum()
}
