//! The container that the frames of a track are written in and read from: the catalog's, with two things put right.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use bytes::BytesMut;
use moq_lite::{Timestamp, group, kio};
use moq_mux::{
    Error,
    catalog::hang,
    container::{Container, Frame, Kind},
};

/// Far more groups than are read ahead; of sound each packet is one.
const LIMIT: usize = 1024;

/// The container of a catalog.
///
/// *It writes each frame in one step.* The crate's own way hands a frame over in pieces, the header first. That wakes the
/// task that sends, and when it runs before the next piece is there, the header goes out in a packet of its own and the
/// frame waits for another turn. The bytes are copied once in either case.
///
/// *It takes note of the groups that it reads.* A publisher gives up the rest of a group that became too old, and a cache
/// may do the same. `moq-mux` counts groups that never came, but when one that it reads breaks off it goes on with the
/// next as if that one had come to its end.
pub(super) struct TrackContainer {
    container: hang::Container,
    groups: Groups,
}

impl TrackContainer {
    pub(super) fn new(container: hang::Container) -> Self {
        Self {
            container,
            groups: Groups::default(),
        }
    }

    /// What it takes note of.
    pub(super) fn groups(&self) -> Groups {
        self.groups.clone()
    }
}

impl Container for TrackContainer {
    type Error = Error;

    fn write(&self, group: &mut group::Producer, frames: &[Frame]) -> Result<(), Error> {
        let hang::Container::Legacy(_) = self.container else {
            return self.container.write(group, frames);
        };
        for frame in frames {
            // A timestamp takes eight bytes at most.
            let mut whole = BytesMut::with_capacity(8 + frame.payload.len());
            ::hang::container::Frame {
                timestamp: frame.timestamp,
                payload: frame.payload.clone(),
            }
            .encode(&mut whole)?;
            group.write_frame(frame.timestamp, whole.freeze())?;
        }
        Ok(())
    }

    fn poll_read(
        &self,
        group: &mut group::Consumer,
        waiter: &kio::Waiter,
    ) -> Poll<Result<Option<Vec<Frame>>, Error>> {
        let read = self.container.poll_read(group, waiter);
        match &read {
            Poll::Ready(Ok(Some(frames))) => {
                if let Some(first) = frames.first() {
                    self.groups.began(group.sequence, first.timestamp);
                }
                if let Some(last) = frames.last() {
                    let paused = last.payload.is_empty();
                    self.groups.paused.store(paused, Ordering::Relaxed);
                }
            }
            Poll::Ready(Err(_)) => self.groups.broke(group.sequence),
            Poll::Ready(Ok(None)) | Poll::Pending => {}
        }
        read
    }

    fn end(&self, frame: &Frame) -> Option<Timestamp> {
        self.container.end(frame)
    }

    fn kind(&self) -> Kind {
        self.container.kind()
    }

    fn finish_group(
        &self,
        group: &mut group::Producer,
        end: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.container.finish_group(group, end)
    }
}

/// The groups of a track from the one that is handed out on, by number. They are read ahead, so that one may break off
/// long before its last frame is handed out.
///
/// No more than [`LIMIT`]: a peer may send groups that never come to be handed out.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups {
    groups: Arc<Mutex<BTreeMap<u64, Group>>>,
    /// The publisher has said last that nothing comes for now.
    paused: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Group {
    /// The timestamp of its first frame.
    begin: Option<Timestamp>,
    broken: bool,
}

impl Groups {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<u64, Group>) -> T) -> T {
        f(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the publisher has said last that nothing comes for now.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    fn began(&self, number: u64, timestamp: Timestamp) {
        self.note(number, |group| {
            group.begin.get_or_insert(timestamp);
        });
    }

    fn broke(&self, number: u64) {
        self.note(number, |group| group.broken = true);
    }

    /// Takes note of something about a group, and forgets the oldest where there are too many.
    fn note(&self, number: u64, what: impl FnOnce(&mut Group)) {
        self.with(|groups| {
            what(groups.entry(number).or_default());
            if groups.len() > LIMIT {
                groups.pop_first();
            }
        });
    }

    /// A key frame with this timestamp is handed out. Returns whether it begins a group, and one before that broke off.
    pub(super) fn enter(&self, timestamp: Timestamp) -> bool {
        self.with(|groups| {
            let entered = groups
                .iter()
                .find(|(_, group)| group.begin == Some(timestamp));
            let Some(number) = entered.map(|(number, _)| *number) else {
                return false;
            };
            let rest = groups.split_off(&number);
            let before = std::mem::replace(groups, rest);
            before.values().any(|group| group.broken)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms).unwrap()
    }

    #[test]
    fn the_frame_after_a_group_that_broke_off_is_told_once() {
        let groups = Groups::default();
        for number in 0..4 {
            groups.began(number, ms(100 * number));
            // Its other frames.
            groups.began(number, ms(100 * number + 33));
        }
        // Read ahead of what is handed out.
        groups.broke(2);
        for (timestamp, after) in [(0, false), (100, false), (200, false), (300, true)] {
            assert_eq!(groups.enter(ms(timestamp)), after, "{timestamp}");
            assert!(!groups.enter(ms(timestamp + 33)), "in the middle");
        }
        groups.broke(3);
        // Nothing of it came.
        groups.broke(4);
        groups.began(5, ms(500));
        groups.began(6, ms(600));
        assert!(groups.enter(ms(500)));
        assert!(!groups.enter(ms(600)));
        assert_eq!(
            groups.with(|groups| groups.len()),
            1,
            "what is past is let go"
        );
    }

    #[test]
    fn groups_that_break_off_at_once_are_not_kept_for_ever() {
        let groups = Groups::default();
        for number in 0..3 * LIMIT as u64 {
            groups.broke(number);
        }
        assert_eq!(groups.with(|groups| groups.len()), LIMIT);
        // The newest are those that count.
        let last = 3 * LIMIT as u64;
        groups.began(last, ms(100));
        assert!(groups.enter(ms(100)));
    }
}
