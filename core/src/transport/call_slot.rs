//! The place on a session for the one call that it may carry.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::lock;
use crate::broadcast::RemoteBroadcast;

/// The name of a call's broadcast.
pub(crate) const RESERVED_NAME: &str = "call";

/// How long the peer's side of a call may stay after the call has ended.
const LINGER: Duration = Duration::from_secs(2);

/// The place for a call.
#[derive(Default)]
pub(crate) struct CallSlot {
    taken: AtomicBool,
    /// The peer's media of the call before.
    last: Mutex<Option<RemoteBroadcast>>,
}

impl CallSlot {
    /// Takes the place, unless there is a call.
    pub(crate) fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Gives it back. The peer's media may take a moment to go: that of this call, or where it was never answered, of the one
    /// before.
    pub(crate) fn give_back(&self, remote: Option<RemoteBroadcast>) {
        if let Some(remote) = remote {
            *lock(&self.last) = Some(remote);
        }
        self.taken.store(false, Ordering::Release);
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// Whether it is the peer's media of the call before.
    pub(crate) fn was_with(&self, remote: &RemoteBroadcast) -> bool {
        let last = lock(&self.last);
        last.as_ref().is_some_and(|last| last.is_same(remote))
    }

    /// Waits until the peer has taken back the call before, so that this side does not take it for the next one. Cancel
    /// safe.
    pub(crate) async fn last_call_gone(&self) {
        let remote = lock(&self.last).clone();
        if let Some(remote) = remote {
            // Not all peers take it back.
            let _ = tokio::time::timeout(LINGER, remote.closed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use moq_lite::broadcast;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_never_answered_does_not_hide_the_one_before() {
        let media = broadcast::Info::new().produce();
        let slot = CallSlot::default();
        slot.give_back(Some(RemoteBroadcast::new("call".into(), media.consume())));
        slot.give_back(None);
        let gone = slot.last_call_gone();
        tokio::pin!(gone);
        let early = tokio::time::timeout(LINGER / 2, &mut gone).await;
        assert!(early.is_err(), "its media is still there");
        media.close();
        gone.await;
    }
}
