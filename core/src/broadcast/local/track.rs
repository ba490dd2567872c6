//! A track that is written.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hang::catalog::{AudioConfig, VideoConfig};
use moq_lite::Timestamp;
use moq_mux::container::{Frame, Producer};

use super::{
    error::{PublishTrackError, WriteError},
    names::TrackName,
    shared::Shared,
};
#[cfg(feature = "media")]
use crate::broadcast::viewers::Viewers;
use crate::broadcast::{
    container::TrackContainer,
    track::{EncodedFrame, TrackConfig},
};

enum Mux {
    Video(Box<Producer<TrackContainer, VideoConfig>>),
    Audio(Box<Producer<TrackContainer, AudioConfig>>),
}

impl Mux {
    fn new(
        shared: &Shared,
        name: &TrackName,
        config: TrackConfig,
    ) -> Result<Self, PublishTrackError> {
        let info = shared.catalog.track_info(config.kind().priority());
        let track =
            shared
                .broadcast
                .create_track(name.wire(), info)
                .map_err(|error| match error {
                    moq_lite::Error::Duplicate => {
                        PublishTrackError::Duplicate(name.name().to_owned())
                    }
                    _ => PublishTrackError::Ended,
                })?;
        // What holds the first catalog back is a reservation beside this one: nothing is published while either is held.
        match config {
            TrackConfig::Video(config) => {
                let wire = (&config)
                    .try_into()
                    .map(TrackContainer::new)
                    .map_err(PublishTrackError::Catalog)?;
                let mux = shared.catalog.video(track, wire, config);
                mux.map(|mux| Self::Video(Box::new(mux)))
            }
            TrackConfig::Audio(config) => {
                let wire = (&config)
                    .try_into()
                    .map(TrackContainer::new)
                    .map_err(PublishTrackError::Catalog)?;
                let mux = shared.catalog.audio(track, wire, config);
                mux.map(|mux| Self::Audio(Box::new(mux)))
            }
        }
        .map_err(PublishTrackError::Catalog)
    }

    fn track(&self) -> &moq_lite::track::Producer {
        match self {
            Self::Video(mux) => mux.track(),
            Self::Audio(mux) => mux.track(),
        }
    }
}

/// A track that is written. Dropping it takes it out of the catalog.
pub struct LocalTrack {
    shared: Arc<Shared>,
    /// Whether viewers were told that nothing comes for now.
    paused: bool,
    #[cfg(feature = "media")]
    viewers: Viewers,
    mux: Mux,
    // Dropped last, as another track may have it from then on.
    name: TrackName,
}

impl std::fmt::Debug for LocalTrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTrack")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl LocalTrack {
    pub(super) fn new(
        shared: Arc<Shared>,
        name: String,
        config: TrackConfig,
    ) -> Result<Self, PublishTrackError> {
        let Some(mut name) = shared.names.take(name.clone()) else {
            return Err(PublishTrackError::Duplicate(name));
        };
        let mux = Mux::new(&shared, &name, config)?;
        name.set_published();
        Ok(Self {
            shared,
            paused: false,
            #[cfg(feature = "media")]
            viewers: Viewers::new(mux.track()),
            mux,
            name,
        })
    }

    /// The track's name, unique in its broadcast.
    pub fn name(&self) -> &str {
        self.name.name()
    }

    /// What the catalog calls the track, and so viewers do: its name, with a number behind it where another track of that name
    /// was in this broadcast before, as `video.2`. Viewers keep what they had of that one for a while, and would not see
    /// another of its name.
    pub fn catalog_name(&self) -> &str {
        self.name.wire()
    }

    /// Describes what the track carries, or describes it anew, as when the resolution changes.
    ///
    /// A track stays audio or video for good.
    ///
    /// # Errors
    /// See [`PublishTrackError`].
    pub fn set_config(&mut self, config: impl Into<TrackConfig>) -> Result<(), PublishTrackError> {
        match (&mut self.mux, config.into()) {
            (Mux::Video(mux), TrackConfig::Video(config)) => mux.set(config),
            (Mux::Audio(mux), TrackConfig::Audio(config)) => mux.set(config),
            _ => return Err(PublishTrackError::Kind(self.name().to_owned())),
        }
        .map_err(PublishTrackError::Catalog)
    }

    /// Sends a frame.
    ///
    /// The payload is not copied. A key frame of video ends the group of pictures before it. Never waits: a viewer that
    /// is too slow is skipped ahead, not waited for.
    ///
    /// # Errors
    /// See [`WriteError`]; the track goes on after each but [`WriteError::Ended`].
    pub fn write(&mut self, frame: EncodedFrame) -> Result<(), WriteError> {
        self.write_at(frame, Instant::now())
    }

    pub(super) fn write_at(&mut self, frame: EncodedFrame, now: Instant) -> Result<(), WriteError> {
        self.shared.pool.gc(now);
        self.shared.first_catalog.release_if_due();
        let timestamp = Timestamp::from_micros(
            u64::try_from(frame.timestamp.as_micros()).map_err(|_| WriteError::Rewind)?,
        )
        .map_err(|_| WriteError::Rewind)?;
        let discontinuity = frame.discontinuity && !self.paused;
        let frame = Frame {
            timestamp,
            duration: None,
            payload: frame.payload,
            keyframe: frame.keyframe,
        };
        match &mut self.mux {
            Mux::Video(mux) => {
                if discontinuity && !(mux.needs_keyframe() && mux.live_edge().is_none()) {
                    mux.discontinuity()?;
                }
                let result = mux.write(frame).map_err(WriteError::from);
                self.paused &= result.is_err();
                if matches!(result, Err(WriteError::GroupTooLarge)) {
                    // What is left of this group could not be decoded; the next key frame opens a new one.
                    let _ = mux.cut(None);
                }
                result
            }
            Mux::Audio(mux) => {
                if discontinuity && mux.live_edge().is_some() {
                    mux.discontinuity()?;
                }
                // One packet, one group, and so one QUIC stream: a lost packet holds up nothing behind it.
                mux.write(Frame {
                    keyframe: true,
                    ..frame
                })?;
                mux.cut(None)?;
                self.paused = false;
                Ok(())
            }
        }
    }

    /// Says that nothing comes for now, as when nobody watches or the source is switched off.
    ///
    /// What was written before `at` is over then: who subscribes later waits for what comes next, and is not shown the
    /// last group as if it were live. Called again and again while the pause lasts it keeps that true for viewers with
    /// any patience. The next [`write`](Self::write) ends the pause; of video it must be a key frame.
    ///
    /// # Errors
    /// See [`WriteError`]; the track goes on after each but [`WriteError::Ended`].
    pub fn pause(&mut self, at: Duration) -> Result<(), WriteError> {
        match &mut self.mux {
            Mux::Video(mux) => pause(mux, at, self.paused)?,
            Mux::Audio(mux) => pause(mux, at, self.paused)?,
        }
        self.paused = true;
        Ok(())
    }

    #[cfg(feature = "media")]
    pub(crate) fn demand(&self) -> moq_lite::track::Demand {
        self.mux.track().demand()
    }

    /// How often somebody has come to watch so far; see [`Viewers`].
    #[cfg(feature = "media")]
    pub(crate) fn viewers_joined(&mut self) -> u64 {
        self.viewers.joins()
    }

    /// Whether a key frame has to come next, as at the beginning.
    pub fn needs_keyframe(&self) -> bool {
        match &self.mux {
            Mux::Video(mux) => mux.needs_keyframe(),
            Mux::Audio(_) => false,
        }
    }

    /// Whether anybody watches this track at the moment.
    pub fn is_watched(&self) -> bool {
        self.mux.track().is_used()
    }

    /// Ends the track: viewers get everything that was written, and then its end. Another of its name can be published
    /// when this one is dropped, and is another track to viewers; see [`catalog_name`](Self::catalog_name).
    ///
    /// # Errors
    /// [`WriteError`] if the end could not be marked; the track is over in any case.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        match &mut self.mux {
            Mux::Video(mux) => mux.finish()?,
            Mux::Audio(mux) => mux.finish()?,
        }
        Ok(())
    }
}

/// Puts an empty frame into a group of its own: to readers a mark that what was there before is over.
fn pause<R: Clone + Send + 'static>(
    mux: &mut Producer<TrackContainer, R>,
    at: Duration,
    again: bool,
) -> Result<(), WriteError> {
    if mux.needs_keyframe() && mux.live_edge().is_none() {
        // Nothing was ever written.
        return Ok(());
    }
    if !again {
        mux.discontinuity()?;
    }
    let at = u64::try_from(at.as_micros())
        .ok()
        .and_then(|micros| Timestamp::from_micros(micros).ok())
        .ok_or(WriteError::Rewind)?;
    let timestamp = mux.live_edge().map_or(at, |edge| edge.max(at));
    mux.write(Frame {
        timestamp,
        duration: None,
        payload: bytes::Bytes::new(),
        keyframe: true,
    })?;
    mux.cut(None)?;
    Ok(())
}
