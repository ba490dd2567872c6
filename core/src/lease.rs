//! Who needs something that is shared, so that it can be let go of when nobody does.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::watch;

/// How a lease is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Somebody has it in hand.
    Held,
    /// Something flows through it.
    InUse,
    /// Something flows through it that this side has asked for.
    Read,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    all: usize,
    in_use: usize,
    read: usize,
    /// How many have been given.
    given: u64,
    /// Nobody gets one any more.
    sealed: bool,
}

/// The leases of one thing.
#[derive(Debug, Default)]
pub(crate) struct Leases(watch::Sender<Count>);

/// The leases of a thing that may not be there yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LaterLeases(Arc<OnceLock<Arc<Leases>>>);

impl LaterLeases {
    /// The thing is there. The first one counts.
    pub(crate) fn set(&self, leases: Arc<Leases>) {
        let _ = self.0.set(leases);
    }

    /// See [`Leases::hold`]. `None` also when it is not there yet.
    pub(crate) fn hold(&self) -> Option<Lease> {
        self.0.get()?.hold()
    }
}

/// A reason to keep a thing, until it is dropped. A clone is another one.
#[derive(Debug)]
pub(crate) struct Lease {
    count: watch::Sender<Count>,
    kind: Kind,
}

impl Leases {
    /// For whoever has the thing in hand. `None` when it was let go of.
    pub(crate) fn hold(&self) -> Option<Lease> {
        Lease::take(&self.0, Kind::Held)
    }

    /// For whoever moves something through it. `None` when it was let go of.
    pub(crate) fn occupy(&self) -> Option<Lease> {
        Lease::take(&self.0, Kind::InUse)
    }

    /// For whoever reads what comes through it. `None` when it was let go of.
    pub(crate) fn read(&self) -> Option<Lease> {
        Lease::take(&self.0, Kind::Read)
    }

    /// Whether anything flows through it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.0.borrow().in_use > 0
    }

    /// Whether anybody reads what comes through it.
    pub(crate) fn is_read(&self) -> bool {
        self.0.borrow().read > 0
    }

    /// Waits until nobody has had a lease for as long as `grace`, and gives none from then on. Cancel safe.
    pub(crate) async fn released(&self, grace: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender is in `self`.
            let given = count.wait_for(|count| count.all == 0).await;
            let given = given.map_or(0, |count| count.given);
            // It may be given back before this looks.
            let taken = count.wait_for(|count| count.given != given);
            if tokio::time::timeout(grace, taken).await.is_ok() {
                continue;
            }
            let sealed = self.0.send_if_modified(|count| {
                count.sealed = count.given == given && count.all == 0;
                count.sealed
            });
            if sealed {
                return;
            }
        }
    }
}

impl Count {
    /// Changes it, and says whether anybody who waits has to know.
    fn change(&mut self, kind: Kind, change: impl Fn(&mut usize)) -> bool {
        let before = self.all;
        change(&mut self.all);
        if kind != Kind::Held {
            change(&mut self.in_use);
        }
        if kind == Kind::Read {
            change(&mut self.read);
        }
        before == 0 || self.all == 0
    }
}

impl Lease {
    fn take(count: &watch::Sender<Count>, kind: Kind) -> Option<Self> {
        let mut taken = false;
        count.send_if_modified(|count| {
            taken = !count.sealed;
            count.given += u64::from(taken);
            taken && count.change(kind, |n| *n += 1)
        });
        taken.then(|| Self {
            count: count.clone(),
            kind,
        })
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.count
            .send_if_modified(|count| count.change(self.kind, |n| *n += 1));
        Self {
            count: self.count.clone(),
            kind: self.kind,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.count
            .send_if_modified(|count| count.change(self.kind, |n| *n -= 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn what_nobody_holds_for_the_grace_is_released_once() {
        let leases = Leases::default();
        let first = leases.hold().unwrap();
        let released = leases.released(GRACE);
        tokio::pin!(released);
        assert!(
            tokio::time::timeout(GRACE * 2, &mut released)
                .await
                .is_err()
        );
        // Another one within the grace begins it anew.
        drop(first);
        assert!(
            tokio::time::timeout(GRACE / 2, &mut released)
                .await
                .is_err()
        );
        let second = leases.occupy().unwrap();
        let third = second.clone();
        drop(second);
        assert!(leases.is_in_use() && !leases.is_read());
        drop(leases.read().inspect(|_| assert!(leases.is_read())));
        assert!(
            tokio::time::timeout(GRACE * 2, &mut released)
                .await
                .is_err()
        );
        drop(third);
        released.await;
        assert!(!leases.is_in_use());
        assert!(leases.hold().is_none() && leases.occupy().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_given_back_at_once_begins_the_grace_anew() {
        let leases = Leases::default();
        let released = leases.released(GRACE);
        tokio::pin!(released);
        for _ in 0..3 {
            let most = GRACE * 3 / 4;
            let soon = tokio::time::timeout(most, &mut released).await;
            assert!(soon.is_err(), "it was needed {most:?} ago");
            drop(leases.hold().unwrap());
        }
        released.await;
        assert!(leases.hold().is_none());
    }
}
