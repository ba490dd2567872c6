//! What a session gives and gets, whatever carries it.

use moq_lite::{Hop, origin};

use crate::broadcast::{RETENTION, pool};

/// What one session gives and what it gets, over all its links.
#[derive(Clone)]
pub(super) struct Origins {
    /// What the peer may see.
    pub(super) local: origin::Producer,
    /// What the peer publishes.
    pub(super) remote: origin::Producer,
}

impl Origins {
    /// The origins, and what drives them. Must run before the session does, which may use them at once.
    pub(super) fn new() -> (Self, [origin::Driver; 2]) {
        // What this end of the session calls itself on all its links.
        let hop = Hop::random();
        let config = || {
            let mut config = origin::Config::new(hop);
            config.pool = pool();
            config.cache_duration = RETENTION;
            config
        };
        let (local, local_driver) = origin::Producer::new(config());
        let (remote, remote_driver) = origin::Producer::new(config());
        (Self { local, remote }, [local_driver, remote_driver])
    }
}
