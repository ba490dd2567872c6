//! What is received on a session at the same time, so that those who choose how much know of each other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What a reader says of the way down counts for so long: it says it several times a second while it reads.
const CURRENT: Duration = Duration::from_secs(1);

/// The readers on a session that choose their renditions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// What each receives, bits per second.
    rates: HashMap<u64, u64>,
    /// How much later than at best the frames of each arrive, and when that was measured.
    delays: HashMap<u64, (Instant, Duration)>,
    /// The one that is trying a better rendition.
    trying: Option<u64>,
}

impl Readers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much longer than at best what the peer sends is under way, as far as anybody reads it.
    ///
    /// That of the reader whose frames are the least late: the path is the same for all, and what the others have to wait
    /// for besides is the peer's encoder, or what the peer sends first.
    pub fn download_delay(&self, now: Instant) -> Option<Duration> {
        let state = self.state();
        let delays = state.delays.values();
        let current = delays.filter(|(at, _)| now.saturating_duration_since(*at) < CURRENT);
        current.map(|(_, delay)| *delay).min()
    }

    /// One more of them.
    pub fn join(&self) -> ReaderShare {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        state.rates.insert(id, 0);
        ReaderShare {
            id,
            readers: self.clone(),
        }
    }
}

/// One of the [`Readers`], until it is dropped.
#[derive(Debug)]
pub(crate) struct ReaderShare {
    id: u64,
    readers: Readers,
}

impl ReaderShare {
    /// It receives this now, bits per second.
    pub fn set_rate(&self, rate: u64) {
        self.readers.state().rates.insert(self.id, rate);
    }

    /// Its frames arrive so much later than at best; `None` where none arrives.
    pub fn set_delay(&self, delay: Option<Duration>, now: Instant) {
        let mut state = self.readers.state();
        match delay {
            Some(delay) => state.delays.insert(self.id, (now, delay)),
            None => state.delays.remove(&self.id),
        };
    }

    /// What the others receive, bits per second.
    pub fn others(&self) -> u64 {
        let state = self.readers.state();
        let others = state.rates.iter().filter(|(id, _)| **id != self.id);
        others.map(|(_, rate)| *rate).sum()
    }

    /// Whether another one is trying a better rendition.
    pub fn is_taken(&self) -> bool {
        self.readers.state().trying.is_some_and(|id| id != self.id)
    }

    /// It is trying a better rendition, or is no longer.
    pub fn set_trying(&self, trying: bool) {
        let mut state = self.readers.state();
        if trying {
            state.trying.get_or_insert(self.id);
        } else if state.trying == Some(self.id) {
            state.trying = None;
        }
    }
}

impl Drop for ReaderShare {
    fn drop(&mut self) {
        self.set_trying(false);
        let mut state = self.readers.state();
        state.rates.remove(&self.id);
        state.delays.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_knows_what_the_others_receive_and_one_at_a_time_tries_more() {
        let readers = Readers::default();
        let (picture, sound) = (readers.join(), readers.join());
        picture.set_rate(800_000);
        sound.set_rate(64_000);
        assert_eq!((picture.others(), sound.others()), (64_000, 800_000));
        picture.set_trying(true);
        sound.set_trying(true);
        assert_eq!((picture.is_taken(), sound.is_taken()), (false, true));
        sound.set_trying(false);
        assert!(sound.is_taken(), "that is not its own to give up");
        drop(picture);
        assert_eq!((sound.is_taken(), sound.others()), (false, 0));
    }

    #[test]
    fn the_delay_of_the_path_is_that_of_the_reader_that_waits_least() {
        let readers = Readers::default();
        let (picture, sound) = (readers.join(), readers.join());
        let now = Instant::now();
        assert_eq!(readers.download_delay(now), None);
        picture.set_delay(Some(Duration::from_millis(300)), now);
        sound.set_delay(Some(Duration::from_millis(80)), now);
        assert_eq!(readers.download_delay(now), Some(Duration::from_millis(80)));
        sound.set_delay(None, now);
        assert_eq!(
            readers.download_delay(now),
            Some(Duration::from_millis(300))
        );
        assert_eq!(readers.download_delay(now + CURRENT), None, "long ago");
        picture.set_delay(Some(Duration::ZERO), now + CURRENT);
        drop(picture);
        assert_eq!(readers.download_delay(now + CURRENT), None);
    }
}
