//! What a reader that adapts has of the session that its broadcast comes on.

use crate::{RemoteBroadcast, broadcast::ReaderShare};

/// A share of whichever session the broadcast comes on now.
pub(super) struct SessionShare {
    share: ReaderShare,
    /// Whose readers that is one of.
    incarnation: Option<u64>,
}

impl SessionShare {
    pub(super) fn new(broadcast: &RemoteBroadcast) -> Self {
        Self {
            incarnation: broadcast.incarnation().map(|found| found.number),
            share: broadcast.join_readers(),
        }
    }

    /// A frame of this incarnation came: it may come on another session, with others that read there.
    pub(super) fn follow(&mut self, broadcast: &RemoteBroadcast, incarnation: u64) {
        if self.incarnation.replace(incarnation) != Some(incarnation) {
            self.share = broadcast.join_readers();
        }
    }
}

impl std::ops::Deref for SessionShare {
    type Target = ReaderShare;

    fn deref(&self) -> &ReaderShare {
        &self.share
    }
}
