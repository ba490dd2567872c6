//! Counters that limits are held with. They know nothing of the network, and are told the time.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// So many at once, and afterwards so many in a time.
#[derive(Debug)]
pub(super) struct Bucket {
    size: u32,
    period: Duration,
    /// When it is full again.
    full: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(size: u32, period: Duration) -> Self {
        Self {
            size,
            period,
            full: None,
        }
    }

    /// Takes one. False where there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.size == 0 {
            return false;
        }
        let full = self.full.map_or(now, |full| full.max(now)) + self.period / self.size;
        let there = full <= now + self.period;
        if there {
            self.full = Some(full);
        }
        there
    }
}

/// Places that are taken, in all and by one and the same.
#[derive(Debug)]
pub(super) struct Places<K> {
    taken: usize,
    by: HashMap<K, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// There are too many in all.
    All,
    /// There are too many of this one.
    Own,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Self {
            taken: 0,
            by: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Places<K> {
    /// Takes a place, to be [given back](Self::give_back), where there are less than so many in all and of this one.
    pub(super) fn take(&mut self, key: K, all: usize, own: usize) -> Result<(), Full> {
        if self.by.get(&key).is_some_and(|taken| *taken >= own) || own == 0 {
            return Err(Full::Own);
        }
        if self.taken >= all {
            return Err(Full::All);
        }
        self.taken += 1;
        *self.by.entry(key).or_default() += 1;
        Ok(())
    }

    /// Whether this one has a place.
    pub(super) fn has(&self, key: &K) -> bool {
        self.by.contains_key(key)
    }

    /// How many are taken in all.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    pub(super) fn give_back(&mut self, key: &K) {
        if let Some(taken) = self.by.get_mut(key) {
            self.taken -= 1;
            *taken -= 1;
            if *taken == 0 {
                self.by.remove(key);
            }
        }
    }
}

/// Attempts that have begun. Of those that fail nothing is heard; they are forgotten after a time.
#[derive(Debug)]
pub(super) struct Attempts<K> {
    expiry: Duration,
    begun: VecDeque<(Instant, K)>,
    places: Places<K>,
}

impl<K: Eq + Hash + Clone> Attempts<K> {
    pub(super) fn new(expiry: Duration) -> Self {
        Self {
            expiry,
            begun: VecDeque::new(),
            places: Places::default(),
        }
    }

    /// How many are under way.
    pub(super) fn pending(&mut self, now: Instant) -> usize {
        while let Some((begun, _)) = self.begun.front()
            && now.duration_since(*begun) >= self.expiry
            && let Some((_, key)) = self.begun.pop_front()
        {
            self.places.give_back(&key);
        }
        self.begun.len()
    }

    /// One more begins, if there are less than so many, and less than so many of this one.
    pub(super) fn begin(
        &mut self,
        key: K,
        all: usize,
        own: usize,
        now: Instant,
    ) -> Result<(), Full> {
        self.pending(now);
        self.places.take(key.clone(), all, own)?;
        self.begun.push_back((now, key));
        Ok(())
    }

    /// One of them is over.
    pub(super) fn end(&mut self, key: &K) {
        let found = self.begun.iter().position(|(_, begun)| begun == key);
        if let Some((_, key)) = found.and_then(|at| self.begun.remove(at)) {
            self.places.give_back(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_so_many_at_once_and_then_so_many_in_a_time() {
        let mut bucket = Bucket::new(10, 10 * SECOND);
        let start = Instant::now();
        let taken = |bucket: &mut Bucket, at| (0..100).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, start), 10);
        assert_eq!(taken(&mut bucket, start + SECOND), 1);
        assert_eq!(taken(&mut bucket, start + 4 * SECOND), 3);
        assert_eq!(taken(&mut bucket, start + 100 * SECOND), 10);
        assert!(!Bucket::new(0, SECOND).take(start));
    }

    #[test]
    fn places_are_counted_in_all_and_for_each() {
        let mut places = Places::default();
        for key in ["a", "a", "b"] {
            assert_eq!(places.take(key, 4, 2), Ok(()));
        }
        assert_eq!(places.take("a", 4, 2), Err(Full::Own));
        assert_eq!(places.take("c", 4, 2), Ok(()));
        assert_eq!(places.take("d", 4, 2), Err(Full::All));
        places.give_back(&"a");
        places.give_back(&"nobody");
        assert_eq!(places.take("d", 4, 2), Ok(()));
        for key in ["a", "b", "c", "d"] {
            places.give_back(&key);
        }
        assert_eq!((places.taken, places.by.len()), (0, 0), "nothing is kept");
    }

    #[test]
    fn attempts_that_come_to_nothing_are_forgotten_after_a_time() {
        let mut attempts = Attempts::new(10 * SECOND);
        let start = Instant::now();
        for number in 0..3 {
            assert_eq!(attempts.begin("a", 8, 3, start + number * SECOND), Ok(()));
        }
        let now = start + 3 * SECOND;
        assert_eq!(attempts.begin("a", 8, 3, now), Err(Full::Own));
        assert_eq!(attempts.begin("b", 3, 3, now), Err(Full::All));
        assert_eq!(attempts.begin("b", 8, 3, now), Ok(()));
        attempts.end(&"a");
        attempts.end(&"nobody");
        assert_eq!(attempts.pending(now), 3);
        // The oldest of it was the one that ended.
        assert_eq!(attempts.pending(start + 10 * SECOND), 3);
        assert_eq!(attempts.pending(start + 11 * SECOND), 2);
        assert_eq!(attempts.pending(start + 13 * SECOND), 0);
        assert_eq!(attempts.begin("a", 8, 3, start + 13 * SECOND), Ok(()));
    }
}
