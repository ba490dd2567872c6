//! What a program says to a reader, and what it hears of it.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinError};

use super::{handover::Patience, meter::DownloadReport, quality::Quality};
use crate::{
    EncodedFrame,
    broadcast::{
        Catalog, CatalogError, MediaKind, ReadError, Readable, Rendition, SubscribeTrackError,
    },
};

/// The least and the most that a rendition may fall behind the one that is to replace it.
const LAG: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

type Accept = Arc<dyn Fn(&Rendition) -> bool + Send + Sync>;

/// How [`RemoteBroadcast::adaptive`](crate::RemoteBroadcast::adaptive) reads.
#[derive(Clone)]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// The picture or the sound.
    pub kind: MediaKind,
    /// Which rendition.
    pub quality: Quality,
    /// How far a group may fall behind the newest one before it is skipped: 500 ms.
    pub max_age: Duration,
    /// How late a frame may be to be shown: 300 ms. Something is done about a network that is too thin before that.
    pub budget: Duration,
    /// How much later than it could be a frame may be handed out while a switch is under way: 100 ms. Half of the
    /// player's latency budget is a good choice.
    ///
    /// A key frame of the new rendition often comes a little after the old one's frame of the same moment, as it is
    /// larger. Without waiting for it each would be missed.
    pub hold: Duration,
    /// Whether frames may be handed out that are to be decoded, but not shown: yes.
    ///
    /// When a rendition ends without notice, or nothing of it comes through any more, its replacement can so begin with
    /// the key frame before, and there is no gap. Without this the next key frame is waited for.
    pub decode_only: bool,
    accept: Option<Accept>,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self {
            kind: MediaKind::Video,
            quality: Quality::Auto,
            max_age: Duration::from_millis(500),
            budget: Duration::from_millis(300),
            hold: Duration::from_millis(100),
            decode_only: true,
            accept: None,
        }
    }
}

impl AdaptiveConfig {
    /// The defaults for the picture or the sound.
    pub fn new(kind: MediaKind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// Sets which rendition.
    pub fn with_quality(mut self, quality: Quality) -> Self {
        self.quality = quality;
        self
    }

    /// Sets how far a group may fall behind.
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// Sets how late a frame may be to be shown: the latency of the player.
    pub fn with_budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    /// Sets how long a frame may be held back for a switch.
    pub fn with_hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// Sets whether frames may be handed out that are to be decoded only.
    pub fn with_decode_only(mut self, decode_only: bool) -> Self {
        self.decode_only = decode_only;
        self
    }

    /// Leaves out the renditions that `accept` says no to: those that cannot be decoded here. It may block.
    pub fn with_filter(
        mut self,
        accept: impl Fn(&Rendition) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.accept = Some(Arc::new(accept));
        self
    }

    /// What is waited for when a rendition takes over from another.
    pub(super) fn patience(&self) -> Patience {
        let lag = self.max_age.clamp(LAG.0, LAG.1);
        Patience {
            hold: self.hold,
            lag: lag.max(self.hold * 2),
            decode_only: self.decode_only,
        }
    }

    /// What can be read of a catalog and is wanted. Cancel safe.
    pub(super) fn renditions(&self, catalog: Catalog) -> BoxFuture<'static, Vec<Arc<Rendition>>> {
        let (kind, accept) = (self.kind, self.accept.clone());
        Box::pin(async move {
            let all = Readable::of(&catalog).renditions.into_iter();
            let all = all.filter(move |rendition| rendition.kind() == kind);
            let Some(accept) = accept else {
                return all.map(Arc::new).collect();
            };
            // That is the program's, and may load libraries to look at decoders: not for a thread of the runtime.
            let accepted = tokio::task::spawn_blocking(move || {
                all.filter(|rendition| accept(rendition))
                    .map(Arc::new)
                    .collect()
            });
            match accepted.await.map_err(JoinError::try_into_panic) {
                Ok(accepted) => accepted,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The runtime is about to end.
                Err(Err(_)) => Vec::new(),
            }
        })
    }
}

impl fmt::Debug for AdaptiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveConfig")
            .field("kind", &self.kind)
            .field("quality", &self.quality)
            .field("max_age", &self.max_age)
            .field("budget", &self.budget)
            .field("hold", &self.hold)
            .field("decode_only", &self.decode_only)
            .finish_non_exhaustive()
    }
}

/// A broadcast could not be followed, or not any longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdaptiveError {
    /// The catalog says nothing, or nothing more.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The program asked for a rendition that is not there.
    #[error(
        "the broadcast has no rendition named {name:?}; it has {}",
        list(available)
    )]
    NoSuchRendition {
        /// What was asked for.
        name: String,
        /// What there is.
        available: Vec<String>,
    },
    /// No rendition could be opened.
    #[error(transparent)]
    Subscribe(#[from] SubscribeTrackError),
    /// The last rendition came to an abrupt end.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

/// A frame of the rendition that is best for now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AdaptiveFrame {
    /// The frame.
    pub frame: EncodedFrame,
    /// What it belongs to.
    pub rendition: Arc<Rendition>,
    /// Whether a decoder has to be set up anew for it: the first frame of all, the first of another rendition, or one
    /// from which on the rendition is described differently. Always a key frame.
    pub changed: bool,
    /// Whether it has to be decoded and not shown: a frame of this moment was handed out before, of another rendition.
    pub decode_only: bool,
    /// For how long it was held back after it had arrived, for a switch. Whoever recovers a clock from arrivals has to
    /// subtract it.
    pub held: Duration,
}

/// What an [`AdaptiveReader`](super::AdaptiveReader) is doing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AdaptiveStatus {
    /// The rendition that is watched.
    pub rendition: Option<Arc<Rendition>>,
    /// The name of the rendition that is being switched to.
    pub switching_to: Option<String>,
    /// All renditions to choose from, the smallest first.
    pub ladder: Vec<Arc<Rendition>>,
    /// How the rendition that is watched gets through.
    pub report: DownloadReport,
    /// What the peer says that it can deliver to us, bits per second.
    pub download_bandwidth: Option<u64>,
    /// How often the rendition was switched.
    pub switches: u64,
}

/// Chooses what an [`AdaptiveReader`](super::AdaptiveReader) reads, and shows what it does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AdaptiveControl {
    pub(super) quality: watch::Sender<Quality>,
    pub(super) status: watch::Receiver<AdaptiveStatus>,
}

impl AdaptiveControl {
    /// Changes which rendition is wanted.
    ///
    /// # Errors
    /// [`AdaptiveError::NoSuchRendition`]; then nothing changes.
    pub fn set_quality(&self, quality: Quality) -> Result<(), AdaptiveError> {
        check(&quality, &self.status.borrow().ladder)?;
        self.quality.send_replace(quality);
        Ok(())
    }

    /// Which rendition is wanted.
    pub fn quality(&self) -> Quality {
        self.quality.borrow().clone()
    }

    /// What the reader does, every 200 ms and at every change.
    pub fn status(&self) -> &watch::Receiver<AdaptiveStatus> {
        &self.status
    }
}

pub(super) fn check(quality: &Quality, ladder: &[Arc<Rendition>]) -> Result<(), AdaptiveError> {
    match quality {
        Quality::Named(name) if !ladder.iter().any(|rendition| rendition.name == *name) => {
            Err(AdaptiveError::NoSuchRendition {
                name: name.clone(),
                available: ladder
                    .iter()
                    .map(|rendition| rendition.name.clone())
                    .collect(),
            })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::broadcast::{VideoConfig, catalog::VideoCodec};

    #[tokio::test]
    async fn the_programs_filter_does_not_run_on_a_thread_of_the_runtime() {
        let mut catalog = Catalog::default();
        for name in ["a", "b"] {
            let config = VideoConfig::new(VideoCodec::VP8);
            catalog.video.renditions.insert(name.to_owned(), config);
        }
        let threads = Arc::new(Mutex::new(Vec::new()));
        let seen = threads.clone();
        let config = AdaptiveConfig::default().with_filter(move |rendition| {
            seen.lock().unwrap().push(std::thread::current().id());
            rendition.name == "b"
        });
        let renditions = config.renditions(catalog).await;
        assert_eq!(renditions.len(), 1);
        assert_eq!(renditions[0].name, "b");
        let threads = threads.lock().unwrap();
        assert_eq!(threads.len(), 2);
        assert!(!threads.contains(&std::thread::current().id()));
    }
}
