//! Who comes to watch a track.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};

use moq_lite::{kio, track};

/// Takes note of viewers that come to a track.
///
/// A track of `moq-net` says whether it is watched and what its viewers want in sum, but not how many there are. It wakes
/// those who wait for another sum whenever there may be one, and that is when a viewer comes, asks for something else or
/// leaves.
pub(super) struct Viewers {
    track: track::Producer,
    waiter: kio::Waiter,
    woken: Arc<Woken>,
    changes: u64,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Viewers {
    pub(super) fn new(track: &track::Producer) -> Self {
        // As if woken: nobody waits yet.
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let mut viewers = Self {
            track: track.clone(),
            waiter: kio::Waiter::new(Waker::from(woken.clone())),
            woken,
            changes: 0,
        };
        viewers.changes();
        viewers
    }

    /// How often somebody may have come so far.
    pub(super) fn changes(&mut self) -> u64 {
        if self.woken.0.swap(false, Ordering::AcqRel) {
            self.changes += 1;
            // Until it waits again; an error means that the track is over.
            while let Poll::Ready(Ok(_)) = self.track.poll_subscription_changed(&self.waiter) {}
        }
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_viewer_that_comes_is_noted_once() {
        let broadcast = moq_lite::broadcast::Info::new().produce();
        let track = broadcast.create_track("video", None).unwrap();
        let mut viewers = Viewers::new(&track);
        let alone = viewers.changes();
        assert_eq!(viewers.changes(), alone);
        let subscribers: Vec<_> = (1..=3)
            .map(|number| {
                let subscriber = track.subscribe(None);
                assert_eq!(
                    viewers.changes(),
                    alone + number,
                    "the same wishes each time"
                );
                assert_eq!(viewers.changes(), alone + number);
                subscriber
            })
            .collect();
        let other = broadcast.create_track("sound", None).unwrap();
        let _listener = other.subscribe(None);
        assert_eq!(viewers.changes(), alone + 3, "another track");
        drop(subscribers);
        drop(track);
        viewers.changes();
    }
}
