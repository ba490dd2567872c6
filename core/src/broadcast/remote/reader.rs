//! A track that is read.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use moq_lite::track::{Control, Subscription as Preferences};
use moq_mux::container::Consumer;
use tokio::time::Instant;

use super::error::{ReadError, SubscribeTrackError};
use crate::{
    broadcast::{
        activity::ReaderActivity,
        container::{Groups, TrackContainer},
        extension::Catalog,
        rendition::Rendition,
        track::{EncodedFrame, TrackConfig},
        upstream::{Incarnation, Lasting, Upstream},
    },
    lease::Lease,
};

/// After the end of a track, how long it is waited for the broadcast's own end, which says more.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// What is read, and how.
#[derive(Clone)]
pub(super) struct TrackRequest {
    pub(super) rendition: Arc<Rendition>,
    /// How far a group may fall behind before it is skipped.
    pub(super) max_age: Duration,
    pub(super) priority: u8,
}

/// A track that is read.
pub struct EncodedReader {
    request: TrackRequest,
    state: State,
    /// What it is opened again from.
    lasting: Option<Following>,
    stats: TrackStats,
    audio: bool,
    /// The frames up to the last one are of this incarnation.
    incarnation: u64,
}

struct Following {
    lasting: Lasting,
    activity: ReaderActivity,
    /// When the last frame came, or else the reader began.
    last: Instant,
}

enum State {
    Reading(Box<OpenTrack>),
    /// It broke off. Whether the broadcast did is known in a moment.
    Broken {
        incarnation: u64,
        error: Option<ReadError>,
        until: Instant,
    },
    /// Another incarnation is waited for.
    Waiting {
        after: u64,
    },
    Opening {
        incarnation: u64,
        opening: BoxFuture<'static, Result<OpenTrack, SubscribeTrackError>>,
        since: Instant,
    },
    Over,
}

/// A track of one incarnation.
pub(super) struct OpenTrack {
    incarnation: u64,
    consumer: Consumer<TrackContainer>,
    groups: Groups,
    /// How often the consumer has skipped something so far.
    skipped: u64,
    control: Control,
    _lease: Option<Lease>,
}

/// What was read of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TrackStats {
    /// Frames.
    pub frames: u64,
    /// Those of them that decoding can begin with.
    pub keyframes: u64,
    /// Bytes of media, without what the transport adds.
    pub bytes: u64,
    /// How often something was missing: groups that came too late, or only in part, and the publisher's pauses.
    pub discontinuities: u64,
}

impl TrackRequest {
    /// Cancel safe.
    pub(super) async fn open(
        &self,
        incarnation: &Incarnation,
    ) -> Result<OpenTrack, SubscribeTrackError> {
        let name = self.rendition.name.as_str();
        let wire = match &self.rendition.config {
            TrackConfig::Video(config) => config.try_into(),
            TrackConfig::Audio(config) => config.try_into(),
        };
        let wire = wire.map_err(|source| SubscribeTrackError::Container {
            name: name.to_owned(),
            source,
        })?;
        let preferences = Preferences::default()
            .with_priority(self.priority)
            .with_max_age(self.max_age);
        let track = incarnation
            .broadcast
            .track(name)
            .map_err(|error| SubscribeTrackError::transport(name, error))?
            .subscribe(preferences)
            .await
            .map_err(|error| SubscribeTrackError::transport(name, error))?;
        let container = TrackContainer::new(wire);
        Ok(OpenTrack {
            incarnation: incarnation.number,
            control: track.control(),
            groups: container.groups(),
            consumer: Consumer::new(track, container),
            skipped: 0,
            _lease: incarnation.lease.clone(),
        })
    }

    /// What to open the track from: an incarnation after the one of this number; `None` when the broadcast has ended.
    fn find(
        &self,
        after: u64,
        upstream: &Upstream,
    ) -> Option<Result<Option<Incarnation>, ReadError>> {
        match upstream {
            Upstream::Absent => None,
            Upstream::Present(incarnation) if incarnation.number == after => None,
            Upstream::Present(incarnation) => {
                let listed = self.is_listed(incarnation.catalog.as_ref()?)?;
                let changed = || ReadError::Changed(self.rendition.name.clone());
                Some(
                    listed
                        .then(|| Some(incarnation.clone()))
                        .ok_or_else(changed),
                )
            }
            Upstream::Ended(_) => Some(Ok(None)),
            Upstream::Failed(error) => Some(Err(error.clone().into())),
        }
    }

    /// Whether a catalog lists the track as it was: nothing, while the catalog lists nothing at all.
    fn is_listed(&self, catalog: &Catalog) -> Option<bool> {
        if catalog.video.renditions.is_empty() && catalog.audio.renditions.is_empty() {
            return None;
        }
        let name = self.rendition.name.as_str();
        let config: Option<TrackConfig> = match &self.rendition.config {
            TrackConfig::Video(_) => catalog.video.renditions.get(name).cloned().map(Into::into),
            TrackConfig::Audio(_) => catalog.audio.renditions.get(name).cloned().map(Into::into),
        };
        Some(config.is_some_and(|config| self.rendition.decodes_as(&Rendition::new(name, config))))
    }
}

impl EncodedReader {
    pub(super) fn new(request: TrackRequest, track: OpenTrack, lasting: Option<Lasting>) -> Self {
        let lasting = lasting.map(|lasting| Following {
            activity: lasting.activity().join(&request.rendition.name),
            lasting,
            last: Instant::now(),
        });
        Self {
            audio: !request.rendition.config.is_video(),
            request,
            incarnation: track.incarnation,
            state: State::Reading(Box::new(track)),
            lasting,
            stats: TrackStats::default(),
        }
    }

    /// The next frame in decode order; `None` when the publisher ended the track.
    ///
    /// Of a [`Subscriber`](crate::Subscriber) it goes on when the connection was lost, or the publisher has come back, and
    /// has the track as it was: [`EncodedFrame::incarnation`] counts that. Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<EncodedFrame>, ReadError> {
        let Some(following) = &mut self.lasting else {
            let State::Reading(track) = &mut self.state else {
                return Ok(None);
            };
            let frame = track.next(self.audio, self.stats.frames > 0).await?;
            return Ok(frame.inspect(|frame| self.stats.take(frame)));
        };
        let _waiting = following.activity.wait();
        loop {
            let next = match &mut self.state {
                State::Reading(track) => {
                    let number = track.incarnation;
                    let frame = tokio::select! {
                        biased;
                        frame = track.next(self.audio, self.stats.frames > 0) => frame,
                        () = following.lasting.replaced(number, following.last) => {
                            self.state = State::Waiting { after: number };
                            continue;
                        }
                    };
                    if track.groups.is_paused() {
                        following.activity.reset();
                    }
                    match frame {
                        Ok(Some(mut frame)) => {
                            following.last = Instant::now();
                            following.activity.frame(track.incarnation);
                            frame.discontinuity |= self.incarnation != track.incarnation;
                            frame.incarnation = track.incarnation;
                            self.incarnation = track.incarnation;
                            self.stats.take(&frame);
                            return Ok(Some(frame));
                        }
                        Ok(None) => Ok(State::Over),
                        Err(error @ ReadError::Malformed(_)) => Err(error),
                        Err(error) => Ok(State::broken(track.incarnation, error)),
                    }
                }
                State::Over => return Ok(None),
                away => away.recover(&mut following.lasting, &self.request).await,
            };
            following.activity.reset();
            match next {
                Ok(state) => self.state = state,
                Err(error) => {
                    self.state = State::Over;
                    return Err(error);
                }
            }
        }
    }

    /// What was read so far.
    pub fn stats(&self) -> TrackStats {
        self.stats
    }

    #[cfg(test)]
    pub(super) fn skipped_by_consumer(&self) -> u64 {
        match &self.state {
            State::Reading(track) => track.consumer.discontinuity(),
            _ => 0,
        }
    }

    /// Changes how the track is served beside the others of its session; higher priorities are served first.
    pub(crate) fn set_priority(&mut self, priority: u8) {
        self.request.priority = priority;
        if let State::Reading(track) = &self.state {
            let preferences = track.control.subscription().with_priority(priority);
            // The track may have ended.
            let _ = track.control.update(preferences);
        }
    }

    /// Changes how far a group may fall behind before it is skipped.
    pub fn set_max_age(&mut self, max_age: Duration) {
        self.request.max_age = max_age;
        if let State::Reading(track) = &mut self.state {
            track.consumer.set_max_age(max_age);
        }
    }
}

impl State {
    fn broken(incarnation: u64, error: ReadError) -> Self {
        Self::Broken {
            incarnation,
            error: Some(error),
            until: Instant::now() + GRACE,
        }
    }

    /// The next step to where the track can be read again. Cancel safe.
    async fn recover(
        &mut self,
        lasting: &mut Lasting,
        request: &TrackRequest,
    ) -> Result<Self, ReadError> {
        match self {
            Self::Broken {
                incarnation,
                error,
                until,
            } => {
                let gone = lasting.gone(*incarnation);
                match tokio::time::timeout_at(*until, gone).await {
                    Ok(()) => Ok(Self::Waiting {
                        after: *incarnation,
                    }),
                    // It was this track alone.
                    Err(_) => error.take().map_or(Ok(Self::Over), Err),
                }
            }
            Self::Waiting { after } => {
                let after = *after;
                let found = lasting.wait_for(|upstream| request.find(after, upstream));
                let found = found.await??;
                Ok(found.map_or(Self::Over, |incarnation| {
                    let (request, number) = (request.clone(), incarnation.number);
                    let opening = async move { request.open(&incarnation).await };
                    Self::Opening {
                        incarnation: number,
                        opening: Box::pin(opening),
                        since: Instant::now(),
                    }
                }))
            }
            Self::Opening {
                incarnation,
                opening,
                since,
            } => {
                let number = *incarnation;
                tokio::select! {
                    biased;
                    opened = opening => Ok(match opened {
                        Ok(track) => Self::Reading(Box::new(track)),
                        Err(error) => Self::broken(number, error.into()),
                    }),
                    // The publisher has not answered, and will not.
                    () = lasting.replaced(number, *since) => Ok(Self::Waiting { after: number }),
                }
            }
            Self::Reading(_) | Self::Over => Ok(Self::Over),
        }
    }
}

impl OpenTrack {
    /// The next frame; `begun`: there was one before. Cancel safe.
    async fn next(&mut self, audio: bool, begun: bool) -> Result<Option<EncodedFrame>, ReadError> {
        let Some(frame) = self.consumer.read().await? else {
            return Ok(None);
        };
        let skipped = self.consumer.discontinuity();
        let mut discontinuity = std::mem::replace(&mut self.skipped, skipped) != skipped;
        if frame.keyframe {
            // Of what was before the first frame nobody misses anything.
            discontinuity |= self.groups.enter(frame.timestamp) && begun;
        }
        Ok(Some(EncodedFrame {
            timestamp: frame.timestamp.into(),
            payload: frame.payload,
            keyframe: frame.keyframe || audio,
            discontinuity,
            incarnation: 0,
        }))
    }
}

impl TrackStats {
    fn take(&mut self, frame: &EncodedFrame) {
        self.discontinuities += u64::from(frame.discontinuity);
        self.frames += 1;
        self.keyframes += u64::from(frame.keyframe);
        self.bytes += frame.payload.len() as u64;
    }
}
