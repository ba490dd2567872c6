//! Who may connect, and who may watch what.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use iroh::EndpointId;
use tokio::sync::watch;
use tracing::error;

/// Decides who may connect and who may watch what.
///
/// A peer that may not connect learns that it was refused; of a broadcast that it may not watch, it does not learn that
/// it exists. What this side dials is not asked about, only what the peer may watch then.
///
/// ```
/// # use iroh_live::{Policy, iroh::SecretKey};
/// # let (alice, bob) = (SecretKey::generate().public(), SecretKey::generate().public());
/// use std::collections::HashSet;
/// use tokio::sync::watch;
///
/// // Alice, and whoever is added later.
/// let (guests, list) = watch::channel(HashSet::from([alice]));
/// let policy = Policy::Only(list);
/// guests.send_modify(|guests| { guests.insert(bob); });
///
/// // Everyone may connect, and only Alice may watch "private".
/// let policy = Policy::authorizer(move |peer, name| name != Some("private") || peer == alice);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Everyone who has a ticket.
    #[default]
    Everyone,
    /// These endpoints only. The set can be changed at any time: the sessions of a peer that is taken out of it end at
    /// once, whichever side began them, and a peer that is put into it sees what is published.
    Only(watch::Receiver<HashSet<EndpointId>>),
    /// As the function says of a peer and the name of a broadcast; of the peer alone, as to whether it may connect, where
    /// there is no name. It is asked when a session begins, when a broadcast is published, and of all that there is by
    /// [`Moq::enforce_policy`](super::Moq::enforce_policy). It should not block: whoever connects or publishes waits for
    /// it. Where it panics, the answer is no.
    ///
    /// What it has in hand is kept until the transport has another policy, is dropped or [shut
    /// down](super::Moq::shutdown): a function that has a `Moq` or `Live` of its own keeps the transport, which then only a
    /// shutdown ends.
    Authorizer(Arc<Authorizer>),
}

/// The function of [`Policy::Authorizer`].
pub type Authorizer = dyn Fn(EndpointId, Option<&str>) -> bool + Send + Sync;

impl Policy {
    /// A policy that asks a function.
    pub fn authorizer(
        authorizer: impl Fn(EndpointId, Option<&str>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::Authorizer(Arc::new(authorizer))
    }

    /// Nobody.
    pub(super) fn nobody() -> Self {
        Self::Only(watch::channel(HashSet::new()).1)
    }

    pub(super) fn may_connect(&self, peer: EndpointId) -> bool {
        self.allows(peer, None)
    }

    pub(super) fn may_watch(&self, peer: EndpointId, name: &str) -> bool {
        self.allows(peer, Some(name))
    }

    fn allows(&self, peer: EndpointId, name: Option<&str>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(peers) => peers.borrow().contains(&peer),
            Self::Authorizer(authorizer) => {
                // It runs in tasks that others depend on.
                let asked = AssertUnwindSafe(|| authorizer(peer, name));
                catch_unwind(asked).unwrap_or_else(|_| {
                    error!(peer = %peer.fmt_short(), name, "the authorizer panicked: refused");
                    false
                })
            }
        }
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Everyone => "Everyone",
            Self::Only(_) => "Only",
            Self::Authorizer(_) => "Authorizer",
        })
    }
}
