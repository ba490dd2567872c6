//! What is being closed, on a thread of its own: a device may take seconds, or for ever.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

/// Something that is being closed.
#[derive(Debug)]
pub(super) struct Closing(mpsc::Receiver<()>);

impl Closing {
    /// Closes something on a thread of that name.
    ///
    /// Where there is no thread to be had `close` is dropped with all that it holds, which closes that too.
    pub(super) fn start(name: &str, close: impl FnOnce() + Send + 'static) -> Self {
        let (open, closed) = mpsc::channel();
        let spawned = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                // Whatever becomes of it, its end is seen.
                let _open = open;
                close();
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to close it on");
        }
        Self(closed)
    }

    /// Whether it is done.
    pub(super) fn is_done(&self) -> bool {
        self.0.try_recv() == Err(mpsc::TryRecvError::Disconnected)
    }

    /// Waits until it is done.
    pub(super) fn join(self) {
        let _ = self.0.recv();
    }

    /// Waits until it is done, but not beyond `deadline`. Returns whether it is.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
        let limit = deadline.saturating_duration_since(Instant::now());
        self.wait(limit)
    }

    /// Waits so long at the most. Returns whether it is done.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        self.0.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for_and_the_rest_is() {
        let (release, hang) = mpsc::channel::<()>();
        let hanging = Closing::start("hangs", move || {
            let _ = hang.recv();
        });
        let quick = Closing::start("quick", || {});
        let long = Duration::from_secs(60);
        assert!(quick.wait(long) && quick.is_done());
        assert!(!hanging.wait_until(Instant::now()), "one deadline for all");
        assert!(!hanging.is_done());
        drop(release);
        assert!(hanging.wait(long) && hanging.is_done());
    }

    #[test]
    fn a_panic_is_an_end_too() {
        let broken = Closing::start("breaks", || std::panic::resume_unwind(Box::new(())));
        assert!(broken.wait(Duration::from_secs(60)));
    }
}
