//! Which rendition the frames are of that the program gets: they come out up to a second after it was switched to.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use crate::adaptive::Rendition;

/// A program that takes no frames, as where an output of the machine plays them, needs no history.
const LIMIT: usize = 16;

/// The renditions that were read, from that on whose frames are handed out.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// In the order in which they were read, with when the first frame to be shown of each was captured.
    read: VecDeque<(Option<SystemTime>, Arc<Rendition>)>,
    /// Whether a frame was handed out.
    begun: bool,
}

impl Shown {
    /// From a frame that was captured then on, this one is read.
    pub(super) fn begins(&mut self, captured: Option<SystemTime>, rendition: Arc<Rendition>) {
        if self.read.len() == LIMIT {
            self.read.pop_front();
        }
        self.read.push_back((captured, rendition));
    }

    /// A frame that was captured then is handed out.
    pub(super) fn handed_out(&mut self, captured: Option<SystemTime>) {
        self.begun = true;
        // Of those that began before it the last one, by the publisher's clock: that may have been set back in between.
        // A broadcast without a clock says nothing, and the newest will do.
        let of = self
            .read
            .iter()
            .enumerate()
            .filter(|(_, (from, _))| captured.is_none() || *from <= captured)
            .max_by_key(|(n, (from, _))| (captured.and(*from), *n));
        if let Some((n, _)) = of {
            self.read.drain(..n);
        }
    }

    /// That of the frame that was handed out last; before the first, the one that is read.
    pub(super) fn rendition(&self) -> Option<Arc<Rendition>> {
        let entry = if self.begun {
            self.read.front()
        } else {
            self.read.back()
        };
        entry.map(|(_, rendition)| rendition.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broadcast::{VideoCodec, VideoConfig};

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn begin(shown: &mut Shown, captured: Option<SystemTime>, name: &str) {
        let rendition = Rendition {
            name: name.to_owned(),
            config: VideoConfig::new(VideoCodec::VP8).into(),
        };
        shown.begins(captured, Arc::new(rendition));
    }

    fn after(shown: &mut Shown, captured: Option<SystemTime>) -> String {
        shown.handed_out(captured);
        shown.rendition().unwrap().name.clone()
    }

    #[test]
    fn it_is_that_of_the_frame_and_not_the_one_that_is_read() {
        let mut shown = Shown::default();
        assert!(shown.rendition().is_none());
        begin(&mut shown, at(10), "a");
        begin(&mut shown, at(20), "b");
        assert_eq!(shown.rendition().unwrap().name, "b", "no frame yet");
        assert_eq!(after(&mut shown, at(10)), "a");
        begin(&mut shown, at(30), "c");
        assert_eq!(after(&mut shown, at(19)), "a");
        assert_eq!(after(&mut shown, at(30)), "c", "b was never seen");
        assert_eq!(after(&mut shown, at(99)), "c");
    }

    #[test]
    fn the_publishers_clock_may_be_set_back_or_not_be_known() {
        let mut shown = Shown::default();
        begin(&mut shown, at(100), "a");
        begin(&mut shown, at(5), "b");
        assert_eq!(after(&mut shown, at(101)), "a");
        assert_eq!(after(&mut shown, at(6)), "b");
        assert_eq!(after(&mut shown, at(101)), "b");
        begin(&mut shown, None, "c");
        assert_eq!(after(&mut shown, None), "c");
    }

    #[test]
    fn who_takes_no_frames_keeps_no_history() {
        let mut shown = Shown::default();
        for n in 0..100 {
            begin(&mut shown, at(n), &n.to_string());
        }
        assert_eq!(shown.rendition().unwrap().name, "99");
        assert_eq!(shown.read.len(), LIMIT);
    }
}
