//! Who comes to watch a track.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Wake, Waker},
};

use moq_lite::{kio, track};

/// Counts viewers that come to a track.
///
/// A track of `moq-net` says whether it is watched and what its viewers want in sum, but not how many there are. It wakes
/// those who wait for another sum whenever there may be one: when a viewer comes, when one asks for something else, and
/// when one leaves. Who waits for the viewers that are there alone is not woken when another comes, and so one that is
/// woken more often than that has seen somebody come.
pub(super) struct Viewers {
    track: track::Producer,
    /// Never asked for a sum, so that whatever there is is another one.
    untouched: track::Producer,
    all: Wakes,
    known: Wakes,
    joins: u64,
}

/// How often a waiter was woken.
struct Wakes {
    waiter: kio::Waiter,
    count: Arc<Count>,
}

struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Wakes {
    fn new() -> Self {
        let count = Arc::new(Count(AtomicU64::new(0)));
        Self {
            waiter: kio::Waiter::new(Waker::from(count.clone())),
            count,
        }
    }

    fn count(&self) -> u64 {
        self.count.0.load(Ordering::Acquire)
    }
}

impl Viewers {
    pub(super) fn new(track: &track::Producer) -> Self {
        let mut viewers = Self {
            track: track.clone(),
            untouched: track.clone(),
            all: Wakes::new(),
            known: Wakes::new(),
            joins: 0,
        };
        viewers.wait();
        viewers
    }

    /// How often somebody has come so far; several who come at once may count as one.
    pub(super) fn joins(&mut self) -> u64 {
        let (known, all) = (self.known.count(), self.all.count());
        if all > 0 {
            self.joins += u64::from(all > known);
            self.wait();
        }
        self.joins
    }

    /// Waits anew, each time as somebody else, so that nobody is woken twice by one thing.
    fn wait(&mut self) {
        loop {
            self.all = Wakes::new();
            match self.track.poll_subscription_changed(&self.all.waiter) {
                Poll::Ready(Ok(_)) => {}
                // An error means that the track is over.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        self.known = Wakes::new();
        let mut untouched = self.untouched.clone();
        if untouched
            .poll_subscription_changed(&self.known.waiter)
            .is_pending()
        {
            // Nobody watches. It waits for those who come now, which is not what it is for.
            self.known = Wakes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viewers_that_come_are_counted_and_others_are_not() {
        let broadcast = moq_lite::broadcast::Info::new().produce();
        let track = broadcast.create_track("video", None).unwrap();
        let mut viewers = Viewers::new(&track);
        assert_eq!(viewers.joins(), 0);
        // More than a waiter remembers.
        let mut subscribers = Vec::new();
        for number in 1..=20 {
            subscribers.push(track.subscribe(None));
            assert_eq!(viewers.joins(), number, "the same wishes each time");
            assert_eq!(viewers.joins(), number);
        }
        let other = broadcast.create_track("sound", None).unwrap();
        let _listener = other.subscribe(None);
        assert_eq!(viewers.joins(), 20, "another track");
        for (number, subscriber) in (1..).zip(&mut subscribers) {
            let wishes = subscriber.subscription().with_priority(number);
            subscriber.update(wishes).unwrap();
            assert_eq!(viewers.joins(), 20, "other wishes");
        }
        subscribers.truncate(10);
        assert_eq!(viewers.joins(), 20, "some left");
        subscribers.pop();
        subscribers.push(track.subscribe(None));
        assert_eq!(viewers.joins(), 21, "one left and one came");
        subscribers.clear();
        assert_eq!(viewers.joins(), 21);
        let _again = track.subscribe(None);
        assert_eq!(viewers.joins(), 22, "the first of all again");
    }
}
