//! Locks and the time, as all files of the transport take them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// What a thread that panicked has left is still good: nothing is changed in two steps under a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time of tokio's clock, which tests may stop.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
