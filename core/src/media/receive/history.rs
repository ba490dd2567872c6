//! Which rendition the frames are of that the program gets: they come out up to a second after it was switched to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::broadcast::Rendition;

/// A program that takes no frames, as where an output of the machine plays them, needs no history.
const LIMIT: usize = 16;

/// The renditions that were read, from that on whose frames are handed out.
#[derive(Debug, Default)]
pub(in crate::media) struct RenditionHistory(Mutex<History>);

#[derive(Debug, Default)]
struct History {
    /// In the order in which they were read, with when the first frame to be shown of each was captured.
    read: VecDeque<(Option<SystemTime>, Arc<Rendition>)>,
    /// Whether a frame was handed out.
    begun: bool,
}

impl RenditionHistory {
    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From a frame that was captured then on, this one is read.
    pub(super) fn begins(&self, captured: Option<SystemTime>, rendition: Arc<Rendition>) {
        let mut history = self.lock();
        if history.read.len() == LIMIT {
            history.read.pop_front();
        }
        history.read.push_back((captured, rendition));
    }

    /// A frame that was captured then is handed out.
    pub(in crate::media) fn handed_out(&self, captured: Option<SystemTime>) {
        let mut history = self.lock();
        history.begun = true;
        // Of those that began before it the last one, by the publisher's clock: that may have been set back in between.
        // A broadcast without a clock says nothing, and the newest will do.
        let of = history
            .read
            .iter()
            .enumerate()
            .filter(|(_, (from, _))| captured.is_none() || *from <= captured)
            .max_by_key(|(n, (from, _))| (captured.and(*from), *n));
        if let Some((n, _)) = of {
            history.read.drain(..n);
        }
    }

    /// That of the frame that was handed out last; before the first, the one that is read.
    pub(in crate::media) fn rendition(&self) -> Option<Arc<Rendition>> {
        let history = self.lock();
        let entry = if history.begun {
            history.read.front()
        } else {
            history.read.back()
        };
        entry.map(|(_, rendition)| rendition.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broadcast::{VideoConfig, catalog::VideoCodec};

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn begin(history: &RenditionHistory, captured: Option<SystemTime>, name: &str) {
        let rendition = Rendition::new(name, VideoConfig::new(VideoCodec::VP8));
        history.begins(captured, Arc::new(rendition));
    }

    fn after(history: &RenditionHistory, captured: Option<SystemTime>) -> String {
        history.handed_out(captured);
        history.rendition().unwrap().name.clone()
    }

    #[test]
    fn it_is_that_of_the_frame_and_not_the_one_that_is_read() {
        let history = RenditionHistory::default();
        assert!(history.rendition().is_none());
        begin(&history, at(10), "a");
        begin(&history, at(20), "b");
        assert_eq!(history.rendition().unwrap().name, "b", "no frame yet");
        assert_eq!(after(&history, at(10)), "a");
        begin(&history, at(30), "c");
        assert_eq!(after(&history, at(19)), "a");
        assert_eq!(after(&history, at(30)), "c", "b was never seen");
        assert_eq!(after(&history, at(99)), "c");
    }

    #[test]
    fn the_publishers_clock_may_be_set_back_or_not_be_known() {
        let history = RenditionHistory::default();
        begin(&history, at(100), "a");
        begin(&history, at(5), "b");
        assert_eq!(after(&history, at(101)), "a");
        assert_eq!(after(&history, at(6)), "b");
        assert_eq!(after(&history, at(101)), "b");
        begin(&history, None, "c");
        assert_eq!(after(&history, None), "c");
    }

    #[test]
    fn who_takes_no_frames_keeps_no_history() {
        let history = RenditionHistory::default();
        for n in 0..100 {
            begin(&history, at(n), &n.to_string());
        }
        assert_eq!(history.rendition().unwrap().name, "99");
        assert_eq!(history.lock().read.len(), LIMIT);
    }
}
