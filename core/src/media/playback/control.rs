//! What the program sets, and what it sees, of a track.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;

use super::branch::{Branch, set_volume};
use crate::{
    adaptive::{AdaptiveControl, AdaptiveError, Quality},
    broadcast::{MediaKind, Rendition},
    media::receive::{RenditionHistory, RenditionReader},
};

/// What the program sets, and what it sees, of a track.
#[derive(Debug)]
pub(super) struct TrackControl {
    pub(super) kind: MediaKind,
    pub(super) history: Arc<RenditionHistory>,
    state: Mutex<State>,
    /// Given once, when the program wants the track.
    pub(super) wanted: Notify,
}

#[derive(Debug)]
struct State {
    quality: Quality,
    control: Option<AdaptiveControl>,
    volume: (f64, bool),
    element: Option<gst::Element>,
    decoder: Option<String>,
    failures: u64,
}

impl TrackControl {
    pub(super) fn new(kind: MediaKind, quality: Quality) -> Self {
        Self {
            kind,
            history: Arc::default(),
            state: Mutex::new(State {
                quality,
                control: None,
                volume: (1.0, false),
                element: None,
                decoder: None,
                failures: 0,
            }),
            wanted: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn quality(&self) -> Quality {
        self.state().quality.clone()
    }

    pub(super) fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        let mut state = self.state();
        if let Some(control) = &state.control {
            control.set_quality(quality.clone())?;
        }
        state.quality = quality;
        Ok(())
    }

    pub(super) fn volume(&self) -> (f64, bool) {
        self.state().volume
    }

    pub(super) fn set_volume(&self, change: impl FnOnce(&mut (f64, bool))) {
        let mut state = self.state();
        change(&mut state.volume);
        if let Some(element) = &state.element {
            set_volume(element, state.volume);
        }
    }

    pub(super) fn rendition(&self) -> Option<Arc<Rendition>> {
        self.history.rendition()
    }

    /// The program gets a frame that was captured then.
    pub(super) fn handed_out(&self, captured: Option<SystemTime>) {
        self.history.handed_out(captured);
    }

    pub(super) fn decoder(&self) -> Option<String> {
        self.state().decoder.clone()
    }

    pub(super) fn failed(&self) {
        self.state().failures += 1;
    }

    pub(super) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// From now on this is read. The program may have chosen another quality since it was opened.
    pub(super) fn reads(&self, reader: &RenditionReader) -> Result<(), AdaptiveError> {
        let mut state = self.state();
        let control = reader.control();
        if control.quality() != state.quality {
            control.set_quality(state.quality.clone())?;
        }
        state.control = Some(control);
        Ok(())
    }

    pub(super) fn plays(&self, branch: &Branch, decoder: &str) {
        let mut state = self.state();
        state.decoder = Some(decoder.to_owned());
        state.element = branch.volume();
        if let Some(element) = &state.element {
            // It may have been changed since the branch was planned.
            set_volume(element, state.volume);
        }
    }

    pub(super) fn stops(&self) {
        let mut state = self.state();
        state.element = None;
        state.decoder = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        LocalBroadcast, RemoteBroadcast,
        broadcast::{VideoConfig, catalog::VideoCodec},
        media::receive::RenditionConfig,
    };

    #[tokio::test]
    async fn what_the_program_chooses_while_a_track_is_opened_is_not_lost() {
        gst::init().unwrap();
        let local = LocalBroadcast::new();
        let track = |name| local.publish_track(name, VideoConfig::new(VideoCodec::VP8));
        let _tracks = (track("a").unwrap(), track("b").unwrap());
        let remote = RemoteBroadcast::new("test".to_owned(), local.consume());
        let control = TrackControl::new(MediaKind::Video, Quality::Auto);
        let open = || {
            let config = RenditionConfig {
                kind: control.kind,
                quality: control.quality(),
                latency: Duration::from_millis(200),
                candidates: |_, _| vec!["identity".to_owned()],
                hardware: false,
            };
            RenditionReader::open(&remote, config, control.history.clone())
        };
        let reader = open();
        control.set_quality(Quality::Lowest).unwrap();
        let reader = reader.await.unwrap().unwrap();
        control.reads(&reader).unwrap();
        assert_eq!(reader.control().quality(), Quality::Lowest);
        // And when it is opened again.
        let again = open();
        control.set_quality(Quality::Named("b".into())).unwrap();
        let again = again.await.unwrap().unwrap();
        control.reads(&again).unwrap();
        assert_eq!(again.control().quality(), Quality::Named("b".into()));
        // What is not there is an error, as it is to whoever opens it.
        let again = open();
        let fresh = TrackControl::new(MediaKind::Video, Quality::Named("c".into()));
        assert!(fresh.reads(&again.await.unwrap().unwrap()).is_err());
    }
}
