//! From a streaming thread to the program: bounded, and the newest wins.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;

/// What was captured this long before is of another timeline.
const JUMP: Duration = Duration::from_secs(5);

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
    /// When the newest was captured.
    newest: Option<SystemTime>,
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

    /// Leaves out what was there before, as a decoder that begins anew may give it again.
    pub(super) fn push(&self, item: T, captured: Option<SystemTime>) {
        let mut state = self.state();
        if let (Some(captured), Some(newest)) = (captured, state.newest)
            && newest
                .duration_since(captured)
                .is_ok_and(|back| back < JUMP)
        {
            return;
        }
        state.newest = captured;
        state.pushed += 1;
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
            slot.push(n, None);
        }
        assert_eq!(slot.counts(), (5, 3));
        assert_eq!(slot.next().await, Ok(Some(3)));
        assert_eq!(slot.next().await, Ok(Some(4)));
    }

    #[tokio::test]
    async fn nothing_comes_twice_but_another_timeline_may_begin() {
        let slot = FrameQueue::<_, ()>::new(10);
        let time = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        for (n, seconds) in [100, 101, 99, 101, 102, 7, 8].into_iter().enumerate() {
            slot.push(n, time(seconds));
        }
        assert_eq!(slot.counts(), (5, 0));
        for n in [0, 1, 4, 5, 6] {
            assert_eq!(slot.next().await, Ok(Some(n)));
        }
    }

    #[tokio::test]
    async fn the_end_comes_after_what_waits_and_the_error_once() {
        let slot = FrameQueue::new(2);
        slot.push(1, None);
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
        slot.push(7, None);
        assert_eq!(waiting.await.unwrap(), Ok(Some(7)));
    }
}
