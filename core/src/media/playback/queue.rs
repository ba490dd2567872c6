//! From a streaming thread to the program: bounded, and the newest wins.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;

/// What is played this much later than its capture time lets expect is of another timeline: the publisher's clock was set
/// back. By so little it is not taken for another one when the clock is recovered.
const JUMP: Duration = Duration::from_millis(250);

/// A short queue with one end. What the program does not take in time is dropped, the oldest first, and counted.
#[derive(Debug)]
pub(super) struct FrameQueue<T, E> {
    state: Mutex<State<T, E>>,
    changed: Notify,
    limit: usize,
}

#[derive(Debug)]
struct State<T, E> {
    waiting: VecDeque<T>,
    /// When the newest was captured, and its running time.
    newest: Option<(SystemTime, Duration)>,
    pushed: u64,
    dropped: u64,
    ended: bool,
    /// Told once.
    error: Option<E>,
}

impl<T, E> FrameQueue<T, E> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                newest: None,
                pushed: 0,
                dropped: 0,
                ended: false,
                error: None,
            }),
            changed: Notify::new(),
            limit,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what was there before, as a decoder that begins anew may give it again.
    pub(super) fn push(&self, item: T, captured: Option<SystemTime>, running_time: Duration) {
        let mut state = self.state();
        state.pushed += 1;
        if let (Some(captured), Some((newest, at))) = (captured, state.newest)
            && let Ok(back) = newest.duration_since(captured)
            && (running_time + back).saturating_sub(at) < JUMP
        {
            state.dropped += 1;
            return;
        }
        if let Some(captured) = captured {
            state.newest = Some((captured, running_time));
        }
        state.waiting.push_back(item);
        // Dropped when the lock is not held: it may be the last of a large buffer.
        let old = (state.waiting.len() > self.limit).then(|| state.waiting.pop_front());
        state.dropped += u64::from(old.is_some());
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn end(&self, result: Result<(), E>) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.ended, true) {
            state.error = result.err();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next item; `None` after the end.
    pub(super) async fn next(&self) -> Result<Option<T>, E> {
        loop {
            // Before the look, so that nothing is missed in between.
            let changed = self.changed.notified();
            {
                let mut state = self.state();
                if let Some(item) = state.waiting.pop_front() {
                    return Ok(Some(item));
                }
                if let Some(error) = state.error.take() {
                    return Err(error);
                }
                if state.ended {
                    return Ok(None);
                }
            }
            changed.await;
        }
    }

    /// How many were pushed, and how many of them were dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.pushed, state.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_wins_and_the_rest_is_counted() {
        let slot = FrameQueue::<_, ()>::new(2);
        for n in 0..5 {
            slot.push(n, None, Duration::ZERO);
        }
        assert_eq!(slot.counts(), (5, 3));
        assert_eq!(slot.next().await, Ok(Some(3)));
        assert_eq!(slot.next().await, Ok(Some(4)));
    }

    /// Pushes what was captured at these seconds and is played at those; returns which of it came out.
    async fn kept(items: &[(Option<u64>, u64)]) -> Vec<usize> {
        let slot = FrameQueue::<_, ()>::new(items.len());
        for (n, (captured, at)) in items.iter().enumerate() {
            let captured = captured.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
            slot.push(n, captured, Duration::from_secs(*at));
        }
        slot.end(Ok(()));
        let mut kept = Vec::new();
        while let Ok(Some(n)) = slot.next().await {
            kept.push(n);
        }
        let dropped = items.len() - kept.len();
        assert_eq!(slot.counts(), (items.len() as u64, dropped as u64));
        kept
    }

    #[tokio::test]
    async fn what_was_there_does_not_come_again() {
        let again = [100, 101, 99, 101, 102, 85, 103].map(|s| (Some(s), s - 80));
        assert_eq!(kept(&again).await, [0, 1, 4, 6]);
        // Something without a capture time changes nothing.
        let again = [
            (Some(100), 20),
            (None, 21),
            (Some(100), 20),
            (Some(102), 22),
        ];
        assert_eq!(kept(&again).await, [0, 1, 3]);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_does_not_stop_the_picture() {
        for back in [1, 3, 4, 6, 50] {
            let set_back = [100, 101, 102 - back, 103 - back].map(Some);
            let items: Vec<_> = set_back.into_iter().zip(20..).collect();
            assert_eq!(kept(&items).await, [0, 1, 2, 3], "{back}");
        }
    }

    #[tokio::test]
    async fn the_end_comes_after_what_waits_and_the_error_once() {
        let slot = FrameQueue::new(2);
        slot.push(1, None, Duration::ZERO);
        slot.end(Err("lost"));
        slot.end(Ok(()));
        assert_eq!(slot.next().await, Ok(Some(1)));
        assert_eq!(slot.next().await, Err("lost"));
        assert_eq!(slot.next().await, Ok(None));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let slot = std::sync::Arc::new(FrameQueue::<_, ()>::new(1));
        let waiting = tokio::spawn({
            let slot = slot.clone();
            async move { slot.next().await }
        });
        tokio::task::yield_now().await;
        slot.push(7, None, Duration::ZERO);
        assert_eq!(waiting.await.unwrap(), Ok(Some(7)));
    }
}
