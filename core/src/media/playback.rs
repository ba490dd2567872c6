//! Watching: a broadcast as decoded pictures and sound.
//!
//! ```no_run
//! # use iroh_live::{Live, LiveTicket, media::AudioBackend};
//! # async fn example(live: Live, ticket: LiveTicket) -> Result<(), Box<dyn std::error::Error>> {
//! let audio_backend = AudioBackend::default();
//! let sub = live.subscribe(ticket.addr().clone(), ticket.name()).await?;
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
//! A track ends (`Ok(None)`) when the publisher ends it or the broadcast. What comes from a [`Subscription`] or a
//! [`Subscriber`](crate::Subscriber) waits when the connection is lost or the publisher stops, and goes on by itself; their state
//! says how it stands. What comes from a [session](MoqSession::subscribe) gives an error then.

mod branch;
mod config;
mod control;
mod decode;
mod drift;
mod error;
mod frame;
mod player;
mod queue;
mod reports;
mod track;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use config::Backend;
pub use config::{AudioBackend, PlaybackConfig, Synchronisation, VideoOutput};
pub use decode::{Decoders, DefaultDecoders, SoftwareDecoders};
pub use error::{MediaError, PlaybackError, SubscribeMediaError};
pub use frame::{AudioSamples, MapError, VideoFrame};
use futures_util::FutureExt;
use iroh::EndpointAddr;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    branch::{Output, SampleQueue, VideoQueue},
    control::TrackControl,
    player::Player,
    queue::FrameQueue,
};
use super::{init, receive::Candidates};
use crate::{
    Live, RemoteBroadcast, Subscription,
    adaptive::{AdaptiveError, Quality},
    broadcast::{MediaKind, Rendition},
    transport::MoqSession,
};

/// Decoded frames that wait for the program: the newest.
const FRAMES: usize = 1;

/// Decoded pieces of sound that wait for the program: a second or so.
const SAMPLES: usize = 50;

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
            video.control.wanted.notify_one();
        }
        if let Some(audio) = &tracks.audio {
            audio.control.wanted.notify_one();
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
    /// Dropped, as the program had not taken them when newer ones came, or as a decoder that was made anew gave them again.
    pub dropped: u64,
    /// How often a decoder or an output failed and was made anew.
    pub failures: u64,
}

/// The picture of a broadcast. Dropping it stops its download.
#[derive(Debug)]
pub struct VideoTrack {
    queue: Arc<VideoQueue>,
    control: Arc<TrackControl>,
    _stop: DropGuard,
}

/// The sound of a broadcast. Dropping it stops it.
#[derive(Debug)]
pub struct AudioTrack {
    queue: Arc<SampleQueue>,
    control: Arc<TrackControl>,
    _stop: DropGuard,
}

/// Plays a track until it ends or `stop` is dropped.
fn spawn<T: Send + 'static>(
    player: Arc<Player>,
    control: Arc<TrackControl>,
    output: Output,
    queue: Arc<FrameQueue<T, PlaybackError>>,
) -> DropGuard {
    let stop = CancellationToken::new();
    let (stopped, ending) = (stop.clone(), queue.clone());
    let mut playing = Box::pin(async move {
        control.wanted.notified().await;
        let result = track::play(&player, &control, output).await;
        if let Err(error) = &result {
            tracing::debug!(%error, kind = ?control.kind, "the track stopped");
        }
        queue.end(result);
    });
    tokio::spawn(async move {
        tokio::select! {
            ended = AssertUnwindSafe(&mut playing).catch_unwind() => if let Err(panic) = ended {
                // Whoever waits for a frame is not to wait for ever.
                ending.end(Err(PlaybackError::of_panic(panic)));
            },
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
        let control = Arc::new(TrackControl::new(MediaKind::Video, quality));
        let queue = Arc::new(FrameQueue::new(FRAMES));
        let output = Output::Frames(queue.clone(), player.config.output);
        Self {
            _stop: spawn(player, control.clone(), output, queue.clone()),
            queue,
            control,
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
        self.control.wanted.notify_one();
        let frame = self.queue.next().await?;
        if let Some(frame) = &frame {
            self.control.handed_out(frame.captured());
        }
        Ok(frame)
    }

    /// Chooses the rendition.
    ///
    /// # Errors
    /// [`AdaptiveError::NoSuchRendition`]; then nothing changes.
    pub fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        self.control.set_quality(quality)
    }

    /// The rendition of the picture that [`next_frame`](Self::next_frame) gave last; before the first, the one that is
    /// received, once there is one.
    pub fn rendition(&self) -> Option<Arc<Rendition>> {
        self.control.rendition()
    }

    /// What decodes at the moment, as `gst-launch-1.0` would be told.
    pub fn decoder(&self) -> Option<String> {
        self.control.decoder()
    }

    /// What became of the pictures so far.
    pub fn counts(&self) -> TrackCounts {
        counts(&self.queue, &self.control)
    }
}

impl AudioTrack {
    fn spawn(player: Arc<Player>, backend: &AudioBackend) -> Self {
        let quality = player.config.audio_quality.clone();
        let control = Arc::new(TrackControl::new(MediaKind::Audio, quality));
        let queue = Arc::new(FrameQueue::new(SAMPLES));
        let output = match &backend.0 {
            Backend::Device(description) => Output::Device(description.clone()),
            Backend::Samples => Output::Samples(queue.clone()),
            Backend::Default | Backend::None => Output::Device("autoaudiosink".to_owned()),
        };
        Self {
            _stop: spawn(player, control.clone(), output, queue.clone()),
            queue,
            control,
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
        self.control.wanted.notify_one();
        let samples = self.queue.next().await?;
        if let Some(samples) = &samples {
            self.control.handed_out(samples.captured());
        }
        Ok(samples)
    }

    /// How loud it is: 1 as it was sent, 0 silent, at most 10.
    pub fn volume(&self) -> f64 {
        self.control.volume().0
    }

    /// Sets how loud it is.
    pub fn set_volume(&self, volume: f64) {
        let volume = if volume.is_finite() {
            volume.clamp(0.0, 10.0)
        } else {
            1.0
        };
        self.control.set_volume(|set| set.0 = volume);
    }

    /// Whether it is muted.
    pub fn is_muted(&self) -> bool {
        self.control.volume().1
    }

    /// Mutes it, or lets it be heard again. It is received all the same.
    pub fn set_muted(&self, muted: bool) {
        self.control.set_volume(|set| set.1 = muted);
    }

    /// Chooses the rendition.
    ///
    /// # Errors
    /// [`AdaptiveError::NoSuchRendition`]; then nothing changes.
    pub fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        self.control.set_quality(quality)
    }

    /// The rendition of the sound that [`next_samples`](Self::next_samples) gave last; before the first, and where an output
    /// of the machine plays it, the one that is received, once there is one.
    pub fn rendition(&self) -> Option<Arc<Rendition>> {
        self.control.rendition()
    }

    /// What decodes at the moment, as `gst-launch-1.0` would be told.
    pub fn decoder(&self) -> Option<String> {
        self.control.decoder()
    }

    /// What became of the pieces of sound so far; nothing is counted where an output plays them.
    pub fn counts(&self) -> TrackCounts {
        counts(&self.queue, &self.control)
    }
}

fn counts<T>(queue: &FrameQueue<T, PlaybackError>, control: &TrackControl) -> TrackCounts {
    let (decoded, dropped) = queue.counts();
    TrackCounts {
        decoded,
        dropped,
        failures: control.failures(),
    }
}

/// The player that [`RemoteBroadcast::video`] and [`RemoteBroadcast::audio`] of one broadcast share.
#[derive(Debug, Default)]
struct SharedPlayer(Mutex<Weak<Player>>);

impl SharedPlayer {
    fn of(broadcast: &RemoteBroadcast) -> Result<Arc<Player>, MediaError> {
        tokio::runtime::Handle::try_current().map_err(MediaError::Runtime)?;
        init()?;
        let attachment = broadcast.attachment::<Self>();
        let mut shared = attachment.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        Ok(VideoTrack::spawn(SharedPlayer::of(self)?))
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
        let track = AudioTrack::spawn(SharedPlayer::of(self)?, audio_backend);
        if audio_backend.0 != Backend::Samples {
            track.control.wanted.notify_one();
        }
        Ok(track)
    }
}

/// Playing it; see [`playback`](crate::media::playback).
impl Subscription {
    /// Plays picture and sound, with the decoders that are installed.
    ///
    /// The tracks go on without the subscription, also when the connection was lost or the publisher has come back. Waits
    /// until there is something to play. Cancel safe.
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
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use gst::prelude::*;

    use super::*;
    use crate::{
        EncodedFrame, LocalBroadcast,
        broadcast::{
            AudioConfig, VideoConfig,
            catalog::{AudioCodec, VideoCodec},
        },
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_left_of_what_played() {
        let local = LocalBroadcast::new();
        let config = VideoConfig::new(VideoCodec::VP8);
        let mut track = local.publish_track("video", config).unwrap();
        let remote = RemoteBroadcast::new("test".to_owned(), local.consume());
        let video = remote.video().unwrap();
        let pipeline = {
            let player = SharedPlayer::of(&remote).unwrap();
            let other = SharedPlayer::of(&remote.clone()).unwrap();
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

    #[tokio::test(flavor = "multi_thread")]
    async fn sound_plays_with_the_latency_that_is_asked_for_and_no_more() {
        let local = LocalBroadcast::new();
        let config = AudioConfig::new(AudioCodec::Opus, 48_000, 2);
        let mut track = local.publish_track("audio", config).unwrap();
        let remote = RemoteBroadcast::new("test".to_owned(), local.consume());
        let audio = remote.audio(&AudioBackend::samples()).unwrap();
        let player = SharedPlayer::of(&remote).unwrap();
        let publish = async {
            loop {
                // Silence, 20 ms of it.
                let frame = b"\xf8\xff\xfe".as_slice();
                let frame = EncodedFrame::new(LocalBroadcast::now(), frame, true);
                track.write(frame).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let samples = tokio::time::timeout(Duration::from_secs(30), audio.next_samples());
        tokio::select! {
            () = publish => {}
            samples = samples => assert!(samples.unwrap().unwrap().is_some()),
        }
        assert!(audio.decoder().unwrap().starts_with("opusdec"));
        let mut latency = gst::query::Latency::new();
        assert!(player.pipeline().query(&mut latency));
        let (live, min, _) = latency.result();
        assert_eq!((live, min.mseconds()), (true, 200));
    }

    /// The looking-up for decoders of a program, which panics at the first time or later.
    struct Panicking<const AT: usize>;

    static LOOKED_UP: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

    impl<const AT: usize> Decoders for Panicking<AT> {
        fn candidates(_: &gst::Caps, _: bool) -> Vec<String> {
            let times = LOOKED_UP[AT].fetch_add(1, Ordering::Relaxed);
            assert!(times != AT, "the program's own fault");
            vec!["vp8dec".to_owned()]
        }
    }

    async fn ends_with_what_panicked<D: Decoders>() {
        let local = LocalBroadcast::new();
        let config = VideoConfig::new(VideoCodec::VP8);
        let mut track = local.publish_track("video", config).unwrap();
        let remote = RemoteBroadcast::new("test".to_owned(), local.consume());
        let silent = AudioBackend::none();
        let tracks = remote.media_with_decoders::<D>(&silent, PlaybackConfig::default());
        let video = tracks.await.unwrap().video.unwrap();
        let publish = async {
            loop {
                let frame = EncodedFrame::new(LocalBroadcast::now(), b"frame".as_slice(), true);
                track.write(frame).unwrap();
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        let next = tokio::time::timeout(Duration::from_secs(30), video.next_frame());
        let error = tokio::select! {
            () = publish => unreachable!(),
            next = next => next.expect("it does not wait for ever").unwrap_err(),
        };
        assert!(
            matches!(&error, PlaybackError::Panic(said) if said.contains("own fault")),
            "{error}"
        );
        assert!(video.next_frame().await.unwrap().is_none(), "told once");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_in_the_programs_look_up_ends_the_track_and_says_so() {
        // Is there anything to play, what is it, and what decodes it.
        ends_with_what_panicked::<Panicking<0>>().await;
        ends_with_what_panicked::<Panicking<1>>().await;
        ends_with_what_panicked::<Panicking<2>>().await;
    }
}
