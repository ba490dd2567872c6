//! Calls the application's code on a thread of its own: notifications, signals, bus messages and their sync handlers.
//!
//! Such code may take as long as it likes, or wait for a lock whose holder waits for a state change of the element. So it
//! runs neither on a thread of the runtime nor under a lock of ours.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use gst::prelude::*;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// An ordered queue of calls into the application, one for each element. Cheap to clone; every clone is the same queue.
///
/// Its thread lives only while there is something to do.
#[derive(Clone, Default)]
pub(crate) struct Notifier {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    running: bool,
}

impl Notifier {
    /// Runs `job` after those that were handed in before it. Never waits.
    ///
    /// A job should hold weak references only, as it may have to wait long for its turn.
    pub(crate) fn call(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = lock(&self.queue);
        queue.jobs.push_back(Box::new(job));
        if !queue.running {
            let own = self.queue.clone();
            let thread = thread::Builder::new().name("irohlive-notify".into());
            // Without a thread the job stays in the queue, for the next one to find.
            queue.running = thread.spawn(move || work(&own)).is_ok();
        }
    }

    /// Notifies a property, after what was handed in before.
    pub(crate) fn notify(&self, element: &impl IsA<gst::Element>, property: &'static str) {
        let element = element.upcast_ref::<gst::Element>().downgrade();
        self.call(move || {
            if let Some(element) = element.upgrade() {
                element.notify(property);
            }
        });
    }

    /// The same as [`call`](Self::call), and waits for it to be done, so that whoever makes one job after the other does not fill the queue.
    ///
    /// None if it panicked. Cancel safe: the job runs in any case.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, done) = oneshot::channel();
        self.call(move || {
            let _ = sender.send(job());
        });
        done.await.ok()
    }
}

fn work(queue: &Mutex<Queue>) {
    loop {
        let job = {
            let mut queue = lock(queue);
            let job = queue.jobs.pop_front();
            queue.running = job.is_some();
            job
        };
        let Some(job) = job else { return };
        // A panic is reported where it happens, and must not take the other jobs with it.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_one_after_the_other_in_their_order_on_another_thread() {
        let notifier = Notifier::default();
        let (sender, done) = mpsc::channel();
        let (open, gate) = mpsc::channel::<()>();
        notifier.call(move || gate.recv().unwrap());
        for number in 0..100 {
            let sender = sender.clone();
            notifier.call(move || sender.send((number, thread::current().id())).unwrap());
        }
        assert!(done.try_recv().is_err(), "a job overtook another");
        open.send(()).unwrap();
        for number in 0..100 {
            let (done, thread) = done.recv().unwrap();
            assert_eq!(done, number);
            assert_ne!(thread, thread::current().id());
        }
    }

    #[test]
    fn a_job_that_panics_does_not_take_the_next_with_it() {
        let notifier = Notifier::default();
        let (sender, done) = mpsc::channel();
        notifier.call(|| panic!("as a test"));
        notifier.call(move || sender.send(()).unwrap());
        done.recv().unwrap();
    }

    #[tokio::test]
    async fn what_a_job_returns_can_be_waited_for() {
        let notifier = Notifier::default();
        assert_eq!(notifier.run(|| 7).await, Some(7));
        assert_eq!(notifier.run(|| -> u8 { panic!("as a test") }).await, None);
    }
}
