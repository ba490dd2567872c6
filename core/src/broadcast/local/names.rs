//! What tracks are called on the wire.
//!
//! Who has read a track keeps what it had of it for half a minute after somebody last asked for it, and serves that to
//! those who ask for its name meanwhile, its end included: `moq-net` does so, and with it viewers and relays of every make.
//! So a name is given out once. A track that begins again gets a number behind its name, as `video.2`, which viewers take
//! for any other track: they see it at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The names of a broadcast's tracks.
#[derive(Debug, Default)]
pub(super) struct TrackNames(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The tracks that there are: what they are called here, and on the wire.
    live: HashMap<String, String>,
    /// The names of tracks that are gone, and the last number that was behind them; the first track has none, which is 1.
    gone: HashMap<String, u64>,
}

/// The name of one track, which no other has until this is dropped.
#[derive(Debug)]
pub(super) struct TrackName {
    names: Arc<TrackNames>,
    name: String,
    wire: String,
    published: bool,
}

impl TrackNames {
    /// Takes a name for a track; none if another has it.
    pub(super) fn take(self: &Arc<Self>, name: String) -> Option<TrackName> {
        let mut state = self.state();
        if state.live.contains_key(&name) {
            return None;
        }
        let wire = state.free(&name);
        state.live.insert(name.clone(), wire.clone());
        drop(state);
        Some(TrackName {
            names: self.clone(),
            name,
            wire,
            published: false,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The name itself, or with the first number behind it that nobody has had.
    fn free(&self, name: &str) -> String {
        let mut number = self.gone.get(name).map_or(1, |last| last + 1);
        loop {
            let wire = numbered(name, number);
            if !self.is_spent(&wire) && !self.live.values().any(|live| *live == wire) {
                return wire;
            }
            number += 1;
        }
    }

    /// Whether a track is gone that was called so on the wire.
    fn is_spent(&self, wire: &str) -> bool {
        let (name, number) = split(wire);
        let spent = |name, number| self.gone.get(name).is_some_and(|last| number <= *last);
        spent(wire, 1) || spent(name, number)
    }
}

impl TrackName {
    /// As the application calls it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// As the catalog and the wire have it.
    pub(super) fn wire(&self) -> &str {
        &self.wire
    }

    /// Says that viewers can ask for the track from now on.
    pub(super) fn set_published(&mut self) {
        self.published = true;
    }
}

impl Drop for TrackName {
    fn drop(&mut self) {
        let mut state = self.names.state();
        state.live.remove(&self.name);
        if self.published {
            let number = self.wire.strip_prefix(&self.name).map_or(1, number);
            let last = state.gone.entry(self.name.clone()).or_default();
            *last = number.max(*last);
        }
    }
}

fn numbered(name: &str, number: u64) -> String {
    match number {
        1 => name.to_owned(),
        number => format!("{name}.{number}"),
    }
}

/// The inverse of [`numbered`].
fn split(wire: &str) -> (&str, u64) {
    let at = wire.rfind('.').unwrap_or(wire.len());
    match number(&wire[at..]) {
        1 => (wire, 1),
        number => (&wire[..at], number),
    }
}

/// The number that `.2` stands for; 1 for what is none.
fn number(suffix: &str) -> u64 {
    let number = suffix.strip_prefix('.').and_then(|n| n.parse().ok());
    number.filter(|number| *number > 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(names: &Arc<TrackNames>, name: &str) -> TrackName {
        let mut name = names.take(name.into()).unwrap();
        name.set_published();
        name
    }

    #[test]
    fn a_name_is_given_out_anew_with_a_number_once_its_track_is_gone() {
        let names = Arc::default();
        for expected in ["video", "video.2", "video.3"] {
            let name = take(&names, "video");
            assert_eq!((name.name(), name.wire()), ("video", expected));
            assert!(names.take("video".into()).is_none(), "there is one");
        }
        assert_eq!(take(&names, "audio").wire(), "audio");
    }

    #[test]
    fn what_was_never_published_uses_no_name_up() {
        let names: Arc<TrackNames> = Arc::default();
        drop(names.take("video".into()));
        assert_eq!(take(&names, "video").wire(), "video");
    }

    #[test]
    fn a_name_with_a_number_may_be_an_application_s_own() {
        let names = Arc::default();
        let own = take(&names, "video.2");
        drop(take(&names, "video"));
        let again = take(&names, "video");
        assert_eq!(again.wire(), "video.3", "the second is there");
        drop((own, again));
        let next = |name| take(&names, name).wire().to_owned();
        assert_eq!(next("video.2"), "video.2.2");
        assert_eq!(next("video.3"), "video.3.2");
        assert_eq!(next("video.1"), "video.1");
        assert_eq!(next("video."), "video.");
        assert_eq!(next("video"), "video.4");
    }
}
