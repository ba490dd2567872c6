//! Watching: a broadcast as decoded pictures and sound.
//!
//! ```no_run
//! # use iroh_live::{Live, LiveTicket, media::AudioBackend};
//! # async fn example(live: Live, ticket: LiveTicket) -> Result<(), Box<dyn std::error::Error>> {
//! let audio_backend = AudioBackend::default();
//! let sub = live.subscribe(ticket.endpoint_addr()?, ticket.name()).await?;
//! let tracks = sub.media(&audio_backend, Default::default()).await?;
//! if let Some(video) = &tracks.video {
//!     while let Some(frame) = video.next_frame().await? {
//!         println!("{}x{} at {:?}", frame.width(), frame.height(), frame.running_time());
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! The same in parts, or with decoders and settings of your own:
//!
//! ```no_run
//! # use iroh_live::{Subscription, media::{AudioBackend, DefaultDecoders, PlaybackConfig, Synchronisation}};
//! # async fn example(sub: Subscription) -> Result<(), Box<dyn std::error::Error>> {
//! # let audio_backend = AudioBackend::default();
//! let config = PlaybackConfig::default().with_sync(Synchronisation::Immediate);
//! let tracks = sub.media_with_decoders::<DefaultDecoders>(&audio_backend, config).await?;
//!
//! let remote_broadcast = sub.broadcast();
//! let video = remote_broadcast.video()?;
//! let audio = remote_broadcast.audio(&audio_backend)?;
//! # Ok(()) }
//! ```
//!
//! All tracks of a [`MediaTracks`] play in one GStreamer pipeline, on one clock and one timeline, so that sound and
//! picture stay together. What breaks is mended where it can be: a decoder that fails is made anew, or replaced by the
//! next one that is installed; what the network loses is skipped to the next key frame; an audio device that is
//! unplugged is waited for. None of that ends a track.
//!
//! A track ends (`Ok(None)`) when the publisher ends it or the broadcast. When the connection is lost, each track gives an
//! error: subscribe again, which connects again.

mod branch;
mod config;
mod decode;
mod frame;
mod player;
mod shown;
mod slot;
mod source;
mod track;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use config::Backend;
pub use config::{AudioBackend, PlaybackConfig, Synchronisation, VideoOutput};
pub use decode::{Decoders, DefaultDecoders, SoftwareDecoders};
pub use frame::{AudioSamples, MapError, VideoFrame};
use gst::glib;
use iroh::EndpointAddr;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    branch::{FrameSlot, Output, SampleSlot},
    player::{Candidates, Player},
    slot::Slot,
    track::Shared,
};
use super::{InitError, init};
use crate::{
    Live, RemoteBroadcast, Subscription,
    adaptive::{AdaptiveError, MediaKind, Quality, Rendition},
    broadcast::CatalogError,
    subscription::SubscribeError,
    transport::MoqSession,
};

/// Decoded frames that wait for the program: the newest.
const FRAMES: usize = 1;

/// Decoded pieces of sound that wait for the program: a second or so.
const SAMPLES: usize = 50;

/// Playback could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// GStreamer could not be started.
    #[error(transparent)]
    Init(#[from] InitError),
    /// There is no catalog that says what there is to play.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The broadcast ended before it had a track.
    #[error("the broadcast ended before there was anything to play")]
    Ended,
    /// The pipeline could not be made.
    #[error("the pipeline that plays cannot be made: {0}")]
    Pipeline(#[source] glib::BoolError),
    /// Called outside of a tokio runtime.
    #[error("playback needs a tokio runtime: call this in one")]
    Runtime(#[source] tokio::runtime::TryCurrentError),
    /// The backend takes no sound.
    #[error("the audio backend is AudioBackend::none(): choose another one to get an audio track")]
    NoAudio,
}

/// [`Live::subscribe_media`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeMediaError {
    /// The broadcast cannot be had.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// It cannot be played.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// A track stopped otherwise than by its publisher's will.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaybackError {
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(CatalogError),
    /// The connection was lost, or the rendition that is asked for is not there.
    #[error(transparent)]
    Source(AdaptiveError),
    /// The catalog describes something that is not known here.
    #[error("track {track:?} cannot be played: {reason}")]
    Unplayable {
        /// The track.
        track: String,
        /// What is not known.
        reason: String,
    },
    /// Nothing that is installed decodes it.
    #[error("no decoder for {codec}: install {package} (that is its name on Debian and Ubuntu)")]
    MissingDecoder {
        /// The codec.
        codec: &'static str,
        /// The package that has a decoder.
        package: &'static str,
    },
    /// All decoders failed, again and again.
    #[error(
        "the {codec} stream cannot be decoded: {reason} (tried: {tried}); it is damaged, or another decoder is needed, as {package} has"
    )]
    Decoder {
        /// The codec.
        codec: &'static str,
        /// The package of Debian and Ubuntu that has a decoder.
        package: &'static str,
        /// The decoders.
        tried: String,
        /// What the last one said.
        reason: String,
    },
    /// The output does not work.
    #[error("nothing can be played on this output: {0}; choose another AudioBackend")]
    Output(String),
}

/// The picture and the sound of a broadcast, as they play.
///
/// Each track plays until it is dropped; when both are, everything stops.
#[derive(Debug)]
#[non_exhaustive]
pub struct MediaTracks {
    /// The picture, if the broadcast had one when playback began.
    pub video: Option<VideoTrack>,
    /// The sound, if the broadcast had some when playback began and the backend takes it.
    pub audio: Option<AudioTrack>,
}

impl MediaTracks {
    async fn open<D: Decoders>(
        broadcast: &RemoteBroadcast,
        audio_backend: &AudioBackend,
        config: PlaybackConfig,
    ) -> Result<Self, MediaError> {
        tokio::runtime::Handle::try_current().map_err(MediaError::Runtime)?;
        init()?;
        let mut catalog = broadcast.catalog().await?;
        let (video, audio) = loop {
            let catalog = catalog.next().await?.ok_or(MediaError::Ended)?;
            let video = !catalog.video.renditions.is_empty();
            let audio = !catalog.audio.renditions.is_empty();
            if video || audio {
                break (video, audio);
            }
        };
        let player = Player::start(broadcast.clone(), config, D::candidates);
        let player = Arc::new(player.map_err(MediaError::Pipeline)?);
        let audio = audio && audio_backend.0 != Backend::None;
        let tracks = Self {
            video: video.then(|| VideoTrack::spawn(player.clone())),
            audio: audio.then(|| AudioTrack::spawn(player, audio_backend)),
        };
        if let Some(video) = &tracks.video {
            video.shared.wanted.notify_one();
        }
        if let Some(audio) = &tracks.audio {
            audio.shared.wanted.notify_one();
        }
        Ok(tracks)
    }
}

/// What became of a track's frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrackCounts {
    /// Decoded, and given to the program or dropped.
    pub decoded: u64,
    /// Dropped, as the program had not taken them when newer ones came.
    pub dropped: u64,
    /// How often a decoder or an output failed and was made anew.
    pub failures: u64,
}

/// The picture of a broadcast. Dropping it stops its download.
#[derive(Debug)]
pub struct VideoTrack {
    slot: Arc<FrameSlot>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// The sound of a broadcast. Dropping it stops it.
#[derive(Debug)]
pub struct AudioTrack {
    slot: Arc<SampleSlot>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// Plays a track until it ends or `stop` is dropped.
fn spawn<T: Send + 'static>(
    player: Arc<Player>,
    shared: Arc<Shared>,
    output: Output,
    slot: Arc<Slot<T, PlaybackError>>,
) -> DropGuard {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let mut playing = Box::pin(async move {
        shared.wanted.notified().await;
        let result = track::play(&player, &shared, output).await;
        if let Err(error) = &result {
            tracing::debug!(%error, kind = ?shared.kind, "the track stopped");
        }
        slot.end(result);
    });
    tokio::spawn(async move {
        tokio::select! {
            () = &mut playing => {}
            () = stopped.cancelled() => {}
        }
        // Stopping what plays waits for its threads.
        let _ = tokio::task::spawn_blocking(move || drop(playing)).await;
    });
    stop.drop_guard()
}

impl VideoTrack {
    fn spawn(player: Arc<Player>) -> Self {
        let quality = player.config.quality.clone();
        let shared = Arc::new(Shared::new(MediaKind::Video, quality));
        let slot = Arc::new(Slot::new(FRAMES));
        let output = Output::Frames(slot.clone(), player.config.output);
        Self {
            _stop: spawn(player, shared.clone(), output, slot.clone()),
            slot,
            shared,
        }
    }

    /// The next picture, when its time has come; `None` when the track has ended.
    ///
    /// The newest picture wins: a program that is slow misses some, which [`counts`](Self::counts) tells. Pictures are
    /// in the decoder's memory, of which there is not much: do not keep many of them. Cancel safe.
    ///
    /// # Errors
    /// See [`PlaybackError`]. It is told once; after it comes `None`.
    pub async fn next_frame(&self) -> Result<Option<VideoFrame>, PlaybackError> {
        self.shared.wanted.notify_one();
        let frame = self.slot.next().await?;
        if let Some(frame) = &frame {
            self.shared.handed_out(frame.captured());
        }
        Ok(frame)
    }

    /// Chooses the rendition.
    ///
    /// # Errors
    /// [`AdaptiveError::NoSuchRendition`]; then nothing changes.
    pub fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        self.shared.set_quality(quality)
    }

    /// The rendition of the picture that [`next_frame`](Self::next_frame) gave last; before the first, the one that is
    /// received, once there is one.
    pub fn rendition(&self) -> Option<Arc<Rendition>> {
        self.shared.rendition()
    }

    /// What decodes at the moment, as `gst-launch-1.0` would be told.
    pub fn decoder(&self) -> Option<String> {
        self.shared.decoder()
    }

    /// What became of the pictures so far.
    pub fn counts(&self) -> TrackCounts {
        counts(&self.slot, &self.shared)
    }
}

impl AudioTrack {
    fn spawn(player: Arc<Player>, backend: &AudioBackend) -> Self {
        let quality = player.config.audio_quality.clone();
        let shared = Arc::new(Shared::new(MediaKind::Audio, quality));
        let slot = Arc::new(Slot::new(SAMPLES));
        let output = match &backend.0 {
            Backend::Device(description) => Output::Device(description.clone()),
            Backend::Samples => Output::Samples(slot.clone()),
            Backend::Default | Backend::None => Output::Device("autoaudiosink".to_owned()),
        };
        Self {
            _stop: spawn(player, shared.clone(), output, slot.clone()),
            slot,
            shared,
        }
    }

    /// The next piece of sound, when its time has come; `None` when the track has ended.
    ///
    /// For [`AudioBackend::samples`]. With an output of the machine this gives nothing but the end, or the error. Sound
    /// that is not taken for about a second is dropped, the oldest first. Cancel safe.
    ///
    /// # Errors
    /// See [`PlaybackError`]. It is told once; after it comes `None`.
    pub async fn next_samples(&self) -> Result<Option<AudioSamples>, PlaybackError> {
        self.shared.wanted.notify_one();
        let samples = self.slot.next().await?;
        if let Some(samples) = &samples {
            self.shared.handed_out(samples.captured());
        }
        Ok(samples)
    }

    /// How loud it is: 1 as it was sent, 0 silent, at most 10.
    pub fn volume(&self) -> f64 {
        self.shared.volume().0
    }

    /// Sets how loud it is.
    pub fn set_volume(&self, volume: f64) {
        let volume = if volume.is_finite() {
            volume.clamp(0.0, 10.0)
        } else {
            1.0
        };
        self.shared.set_volume(|set| set.0 = volume);
    }

    /// Whether it is muted.
    pub fn is_muted(&self) -> bool {
        self.shared.volume().1
    }

    /// Mutes it, or lets it be heard again. It is received all the same.
    pub fn set_muted(&self, muted: bool) {
        self.shared.set_volume(|set| set.1 = muted);
    }

    /// Chooses the rendition.
    ///
    /// # Errors
    /// [`AdaptiveError::NoSuchRendition`]; then nothing changes.
    pub fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        self.shared.set_quality(quality)
    }

    /// The rendition of the sound that [`next_samples`](Self::next_samples) gave last; before the first, and where an output
    /// of the machine plays it, the one that is received, once there is one.
    pub fn rendition(&self) -> Option<Arc<Rendition>> {
        self.shared.rendition()
    }

    /// What decodes at the moment, as `gst-launch-1.0` would be told.
    pub fn decoder(&self) -> Option<String> {
        self.shared.decoder()
    }

    /// What became of the pieces of sound so far; nothing is counted where an output plays them.
    pub fn counts(&self) -> TrackCounts {
        counts(&self.slot, &self.shared)
    }
}

fn counts<T>(slot: &Slot<T, PlaybackError>, shared: &Shared) -> TrackCounts {
    let (decoded, dropped) = slot.counts();
    TrackCounts {
        decoded,
        dropped,
        failures: shared.failures(),
    }
}

/// The player that [`RemoteBroadcast::video`] and [`RemoteBroadcast::audio`] of one broadcast share.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedPlayer(Arc<Mutex<Weak<Player>>>);

impl SharedPlayer {
    fn get(&self, broadcast: &RemoteBroadcast) -> Result<Arc<Player>, MediaError> {
        tokio::runtime::Handle::try_current().map_err(MediaError::Runtime)?;
        init()?;
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(player) = shared.upgrade() {
            return Ok(player);
        }
        let candidates: Candidates = DefaultDecoders::candidates;
        let player = Player::start(broadcast.clone(), PlaybackConfig::default(), candidates)
            .map(Arc::new)
            .map_err(MediaError::Pipeline)?;
        *shared = Arc::downgrade(&player);
        Ok(player)
    }
}

/// Playing it; see [`playback`](crate::media::playback).
impl RemoteBroadcast {
    /// Plays picture and sound, with the decoders that are installed.
    ///
    /// Waits until there is something to play. Must be called in a tokio runtime. Cancel safe.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn media(
        &self,
        audio_backend: &AudioBackend,
        config: PlaybackConfig,
    ) -> Result<MediaTracks, MediaError> {
        self.media_with_decoders::<DefaultDecoders>(audio_backend, config)
            .await
    }

    /// Plays picture and sound, with decoders of your choice.
    ///
    /// Waits until there is something to play. Must be called in a tokio runtime. Cancel safe.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn media_with_decoders<D: Decoders>(
        &self,
        audio_backend: &AudioBackend,
        config: PlaybackConfig,
    ) -> Result<MediaTracks, MediaError> {
        MediaTracks::open::<D>(self, audio_backend, config).await
    }

    /// The picture, whenever the broadcast has one: it is received from the first [`VideoTrack::next_frame`] on.
    ///
    /// In sync with what [`audio`](Self::audio) gives; with the default [`PlaybackConfig`], for another one call
    /// [`media`](Self::media). Must be called in a tokio runtime.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn video(&self) -> Result<VideoTrack, MediaError> {
        Ok(VideoTrack::spawn(self.shared_player().get(self)?))
    }

    /// The sound, whenever the broadcast has some. It plays by itself; only [`AudioBackend::samples`] are received from
    /// the first [`AudioTrack::next_samples`] on.
    ///
    /// In sync with what [`video`](Self::video) gives. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn audio(&self, audio_backend: &AudioBackend) -> Result<AudioTrack, MediaError> {
        if audio_backend.0 == Backend::None {
            return Err(MediaError::NoAudio);
        }
        let track = AudioTrack::spawn(self.shared_player().get(self)?, audio_backend);
        if audio_backend.0 != Backend::Samples {
            track.shared.wanted.notify_one();
        }
        Ok(track)
    }
}

/// Playing it; see [`playback`](crate::media::playback).
impl Subscription {
    /// Plays picture and sound, with the decoders that are installed.
    ///
    /// The tracks go on without the subscription, for as long as the session lasts. Waits until there is something to
    /// play. Cancel safe.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn media(
        &self,
        audio_backend: &AudioBackend,
        config: PlaybackConfig,
    ) -> Result<MediaTracks, MediaError> {
        self.broadcast().media(audio_backend, config).await
    }

    /// Plays picture and sound, with decoders of your choice.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn media_with_decoders<D: Decoders>(
        &self,
        audio_backend: &AudioBackend,
        config: PlaybackConfig,
    ) -> Result<MediaTracks, MediaError> {
        self.broadcast()
            .media_with_decoders::<D>(audio_backend, config)
            .await
    }
}

impl Live {
    /// Connects to a peer, subscribes to a broadcast of it, and plays it.
    ///
    /// A broadcast that the peer does not have is waited for; put a time limit around it where that is not wanted.
    /// Cancel safe.
    ///
    /// # Errors
    /// See [`SubscribeMediaError`].
    pub async fn subscribe_media(
        &self,
        remote: impl Into<EndpointAddr>,
        name: &str,
        audio_backend: &AudioBackend,
        config: PlaybackConfig,
    ) -> Result<(MoqSession, MediaTracks), SubscribeMediaError> {
        let subscription = self.subscribe(remote, name).await?;
        let tracks = subscription.media(audio_backend, config).await?;
        let (session, _, _) = subscription.into_parts();
        Ok((session, tracks))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gst::prelude::*;

    use super::*;
    use crate::{
        EncodedFrame, LocalBroadcast,
        broadcast::{VideoCodec, VideoConfig},
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_left_of_what_played() {
        let local = LocalBroadcast::new();
        let config = VideoConfig::new(VideoCodec::VP8);
        let mut track = local.publish_track("video", config).unwrap();
        let remote = RemoteBroadcast::new("test".to_owned(), local.consume_as("test"));
        let video = remote.video().unwrap();
        let pipeline = {
            let player = remote.shared_player().get(&remote).unwrap();
            let other = remote.clone().shared_player().get(&remote).unwrap();
            assert!(Arc::ptr_eq(&player, &other));
            player.pipeline().downgrade()
        };
        let next = tokio::time::timeout(Duration::from_millis(500), video.next_frame());
        assert!(next.await.is_err());
        // A key frame of VP8 without a picture: what matters is that a decoder got it.
        let frame = b"\x10\0\0\x9d\x01\x2a\x10\0\x10\0\0\0\0\0".as_slice();
        let limit = std::time::Instant::now() + Duration::from_secs(30);
        while video.decoder().is_none() {
            let frame = EncodedFrame::new(LocalBroadcast::now(), frame, true);
            track.write(frame).unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(std::time::Instant::now() < limit);
        }
        let bin = pipeline.upgrade().unwrap().children()[0].downgrade();
        assert!(track.is_watched());
        drop(video);
        while track.is_watched() || bin.upgrade().is_some() || pipeline.upgrade().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(std::time::Instant::now() < limit);
        }
    }
}
