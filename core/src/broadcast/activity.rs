//! What comes of a broadcast that is read: the rhythm of each track, and whether media that came has stopped.

mod rhythm;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rhythm::Rhythm;

/// The tracks of a broadcast that are read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    tracks: HashMap<u64, Track>,
    last_frame: Option<Instant>,
    /// The newest incarnation that a frame came of, and when its last one came.
    newest: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Track {
    name: String,
    rhythm: Rhythm,
}

impl Activity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more reader of a track.
    pub(crate) fn join(&self, name: &str) -> ReaderActivity {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let track = Track {
            name: name.to_owned(),
            rhythm: match state.last_frame {
                Some(_) => Rhythm::expected(),
                None => Rhythm::default(),
            },
        };
        state.tracks.insert(id, track);
        ReaderActivity {
            id,
            activity: self.clone(),
        }
    }

    /// Whether anybody reads the track of this name.
    pub(crate) fn is_read(&self, name: &str) -> bool {
        self.state().tracks.values().any(|track| track.name == name)
    }

    /// When the last frame of any track came.
    pub(crate) fn last_frame(&self) -> Option<Instant> {
        self.state().last_frame
    }

    /// When the last frame came of the incarnation of this number, or of a later one.
    pub(crate) fn last_frame_since(&self, incarnation: u64) -> Option<Instant> {
        let newest = self.state().newest;
        newest.and_then(|(number, at)| (number >= incarnation).then_some(at))
    }

    /// When the last frame came, if media came and has stopped, on all tracks that somebody waits for.
    pub(crate) fn stalled(&self, now: Instant) -> Option<Instant> {
        let state = self.state();
        let mut late = state
            .tracks
            .values()
            .filter_map(|track| track.rhythm.is_late(now))
            .peekable();
        late.peek()?;
        late.all(|late| late).then_some(state.last_frame).flatten()
    }
}

/// What one reader receives, until it is dropped.
#[derive(Debug)]
pub(crate) struct ReaderActivity {
    id: u64,
    activity: Activity,
}

impl ReaderActivity {
    fn with(&self, change: impl FnOnce(&mut Rhythm)) {
        if let Some(track) = self.activity.state().tracks.get_mut(&self.id) {
            change(&mut track.rhythm);
        }
    }

    /// Somebody waits for the next frame, until what this gives is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.with(|rhythm| rhythm.wait(Instant::now()));
        Waiting(self)
    }

    /// A frame of the incarnation of this number came.
    pub(crate) fn frame(&self, incarnation: u64) {
        let now = Instant::now();
        let mut state = self.activity.state();
        state.last_frame = Some(now);
        if state.newest.is_none_or(|(number, _)| number <= incarnation) {
            state.newest = Some((incarnation, now));
        }
        if let Some(track) = state.tracks.get_mut(&self.id) {
            track.rhythm.frame(now);
        }
    }

    /// The publisher says that nothing comes for now, or the broadcast is gone: what comes next has a rhythm of its own.
    pub(crate) fn reset(&self) {
        self.with(Rhythm::reset);
    }
}

impl Drop for ReaderActivity {
    fn drop(&mut self) {
        self.activity.state().tracks.remove(&self.id);
    }
}

/// Somebody waits for the next frame.
pub(crate) struct Waiting<'a>(&'a ReaderActivity);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.with(|rhythm| rhythm.rest(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_on_of_an_incarnation_that_is_gone_is_not_of_the_next() {
        let activity = Activity::default();
        let reader = activity.join("video");
        assert_eq!(activity.last_frame_since(0), None);
        reader.frame(0);
        assert!(activity.last_frame_since(0).is_some());
        assert_eq!(activity.last_frame_since(1), None);
        let other = activity.join("audio");
        other.frame(1);
        let last = activity.last_frame_since(1);
        assert!(last.is_some());
        reader.frame(0);
        assert_eq!(activity.last_frame_since(1), last);
        assert!(activity.last_frame() >= last);
    }
}
