//! The peer's end of a session, which may be started anew.

use std::sync::Mutex;

use moq_lite::{Hop, origin};

use super::lock;

/// What the peer's end of a session calls itself: a number that no other session has.
pub(super) struct RemoteEnd {
    /// What it has said when it began the session.
    first: Option<Hop>,
    /// The same, for as long as it is known to be true.
    said: Mutex<Option<Hop>>,
    /// What the peer publishes.
    remote: origin::Consumer,
}

impl RemoteEnd {
    pub(super) fn new(remote: &origin::Producer, said: Option<Hop>) -> Self {
        Self {
            first: said,
            said: Mutex::new(said),
            remote: remote.consume(),
        }
    }

    /// What it has said may be true no more.
    pub(super) fn forget(&self) {
        lock(&self.said).take();
    }

    /// What it calls itself on all links, if that is known.
    pub(super) fn hop(&self) -> Option<Hop> {
        let said = *lock(&self.said);
        said.or_else(|| self.announcing().next())
    }

    /// What the ends call themselves that the peer's announcements come from: two, where it was started anew.
    fn announcing(&self) -> impl Iterator<Item = Hop> + use<> {
        let mut announced = self.remote.announced();
        std::iter::from_fn(move || announced.try_next())
            .filter(|update| update.kind.is_active())
            .filter_map(|update| update.route.hops.iter().last().copied())
            .filter(|hop| *hop != Hop::UNKNOWN)
    }

    /// Whether something is announced by another end than `before`.
    pub(super) fn was_started_anew(&self, before: Option<Hop>) -> bool {
        before.is_some_and(|before| self.announcing().any(|hop| hop != before))
    }

    /// Whether something is announced by the end that has begun the session.
    pub(super) fn is_first(&self) -> bool {
        self.announcing().any(|hop| Some(hop) == self.first)
    }
}
