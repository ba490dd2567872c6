//! The frames of a track for a decoder: of the rendition that is best for now, one codec at a time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::task::JoinError;

use super::{
    feed::{FeedFrame, FrameSource, MIN_AGE},
    history::RenditionHistory,
    playable::Playable,
};
use crate::{
    RemoteBroadcast,
    adaptive::{AdaptiveConfig, AdaptiveControl, AdaptiveError, AdaptiveReader, Quality},
    broadcast::{Catalog, CatalogError, CatalogWatch, LeftOut, MediaKind, Rendition},
    media::caps::{same_codec, track_caps},
};

/// What decodes a stream with these caps, the first choice first; hardware too, if that is said.
pub(in crate::media) type Candidates = fn(&gst::Caps, bool) -> Vec<String>;

/// Of so many renditions it is said that they cannot be decoded, once each and not at every change of the catalog.
const WARNINGS: usize = 32;

/// What is to be read of a broadcast.
#[derive(Clone)]
pub(in crate::media) struct RenditionConfig {
    pub kind: MediaKind,
    pub quality: Quality,
    /// The budget of the sinks.
    pub latency: Duration,
    /// The decoders that are there, which may block.
    pub candidates: Candidates,
    /// Whether hardware may decode.
    pub hardware: bool,
}

/// The renditions of a broadcast cannot be read, or not any longer.
#[derive(Debug)]
pub(in crate::media) enum RenditionError {
    Catalog(CatalogError),
    Read(AdaptiveError),
    /// No rendition is known here.
    Unplayable(LeftOut),
    /// Nothing that is installed decodes these caps, and there are no others.
    NoDecoder(gst::Caps),
}

/// Reads the rendition that is best for now.
pub(in crate::media) struct RenditionReader {
    reader: AdaptiveReader,
    history: Arc<RenditionHistory>,
    /// The rendition that the next frame to be shown begins.
    begins: Option<Arc<Rendition>>,
    /// The wall-clock time of the broadcast's timestamp zero.
    epoch: Option<SystemTime>,
    /// What the decoder is set up for.
    caps: Option<gst::Caps>,
    /// The first frame, or the first of another codec.
    first: Option<FeedFrame>,
}

impl RenditionReader {
    /// Waits until the broadcast has the picture or the sound; `None` if it ended without.
    pub(in crate::media) async fn open(
        broadcast: &RemoteBroadcast,
        config: RenditionConfig,
        history: Arc<RenditionHistory>,
    ) -> Result<Option<Self>, RenditionError> {
        let mut catalog = broadcast.catalog().await.map_err(RenditionError::Catalog)?;
        let epoch = loop {
            let next = catalog.next().await.map_err(RenditionError::Catalog)?;
            let Some(catalog) = next else {
                return Ok(None);
            };
            let epoch = CatalogWatch::epoch(&catalog);
            if config.any_decodable(catalog).await? {
                break epoch;
            }
        };
        let reader = broadcast
            .adaptive(config.adaptive())
            .await
            .map_err(RenditionError::Read)?;
        Ok(Some(Self {
            reader,
            history,
            begins: None,
            epoch,
            caps: None,
            first: None,
        }))
    }

    pub(in crate::media) fn control(&self) -> AdaptiveControl {
        self.reader.control()
    }

    /// The wall-clock time of the broadcast's timestamp zero.
    pub(in crate::media) fn epoch(&self) -> Option<SystemTime> {
        self.epoch
    }

    /// What a decoder is to be set up for now; `None` when there is nothing more to come.
    pub(in crate::media) async fn stream(&mut self) -> Result<Option<gst::Caps>, RenditionError> {
        if self.first.is_none() && self.caps.is_none() {
            self.first = self.read().await?;
        }
        if let Some(caps) = self.first.as_ref().and_then(|first| first.caps.clone()) {
            self.caps = Some(caps);
        }
        Ok(self.caps.clone())
    }

    /// Whether it stopped for another codec, which wants another decoder.
    pub(in crate::media) fn switches(&self) -> bool {
        self.first.is_some()
    }

    async fn read(&mut self) -> Result<Option<FeedFrame>, RenditionError> {
        let Some(next) = self.reader.next().await.map_err(RenditionError::Read)? else {
            return Ok(None);
        };
        let begins = next.changed;
        let caps = if begins {
            let caps = track_caps(&next.rendition.config).map_err(|reason| {
                let (kind, name) = (next.rendition.kind(), &next.rendition.name);
                RenditionError::Unplayable(LeftOut::new(kind, name, reason))
            })?;
            self.begins = Some(next.rendition);
            Some(caps)
        } else {
            None
        };
        if !next.decode_only
            && let Some(rendition) = self.begins.take()
        {
            let captured = self
                .epoch
                .and_then(|epoch| epoch.checked_add(next.frame.timestamp));
            self.history.begins(captured, rendition);
        }
        Ok(Some(FeedFrame {
            frame: next.frame,
            caps,
            decode_only: next.decode_only,
            held: next.held,
            begins,
        }))
    }
}

impl FrameSource for RenditionReader {
    type Error = RenditionError;

    async fn next_frame(&mut self) -> Result<Option<FeedFrame>, RenditionError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(frame) = self.read().await? else {
            return Ok(None);
        };
        if let Some(caps) = &frame.caps {
            let same = self.caps.as_ref().is_some_and(|old| same_codec(old, caps));
            if !same {
                self.first = Some(frame);
                return Ok(None);
            }
            self.caps = Some(caps.clone());
        }
        Ok(Some(frame))
    }

    fn overrun(&mut self) {
        self.reader.too_slow();
    }
}

impl RenditionConfig {
    fn adaptive(&self) -> AdaptiveConfig {
        let (candidates, hardware) = (self.candidates, self.hardware);
        let warned = Mutex::new(BTreeSet::new());
        AdaptiveConfig::new(self.kind)
            .with_quality(self.quality.clone())
            .with_max_age(self.latency.max(MIN_AGE))
            .with_budget(self.latency)
            .with_hold(self.latency / 2)
            .with_filter(move |rendition: &Rendition| {
                let playable = track_caps(&rendition.config)
                    .is_ok_and(|caps| !candidates(&caps, hardware).is_empty());
                let mut warned = warned.lock().unwrap_or_else(PoisonError::into_inner);
                if playable {
                    warned.remove(&rendition.name);
                } else if warned.len() < WARNINGS && warned.insert(rendition.name.clone()) {
                    tracing::warn!(
                        rendition = rendition.name,
                        "left out: it cannot be decoded here"
                    );
                }
                playable
            })
    }

    /// Whether any rendition can be played. If there are some and none can, that is an error, as nothing would ever come.
    async fn any_decodable(&self, catalog: Catalog) -> Result<bool, RenditionError> {
        let Self {
            kind,
            candidates,
            hardware,
            ..
        } = *self;
        // Looking at a decoder may load the library that it is in.
        let found = tokio::task::spawn_blocking(move || {
            let playable = Playable::of(&catalog);
            let mut missing = None;
            for (rendition, caps) in playable.renditions {
                if rendition.kind() != kind {
                    continue;
                }
                if !candidates(&caps, hardware).is_empty() {
                    return Ok(true);
                }
                missing = Some(RenditionError::NoDecoder(caps));
            }
            let mut left_out = playable.left_out.into_iter();
            let unknown = left_out.find(|left_out| left_out.kind == kind);
            let error = missing.or(unknown.map(RenditionError::Unplayable));
            error.map_or(Ok(false), Err)
        });
        match found.await.map_err(JoinError::try_into_panic) {
            Ok(found) => found,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The runtime is about to end.
            Err(Err(_)) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        LocalBroadcast,
        broadcast::{VideoConfig, catalog::VideoCodec},
    };

    #[tokio::test]
    #[should_panic(expected = "the program's own fault")]
    async fn a_panic_in_the_programs_look_up_is_not_waited_out() {
        gst::init().expect("installed");
        let local = LocalBroadcast::new();
        let _track = local
            .publish_track("video", VideoConfig::new(VideoCodec::VP8))
            .expect("new");
        let remote = RemoteBroadcast::new("test".to_owned(), local.consume());
        let config = RenditionConfig {
            kind: MediaKind::Video,
            quality: Quality::Auto,
            latency: Duration::from_millis(200),
            candidates: |_, _| panic!("the program's own fault"),
            hardware: false,
        };
        let opening = RenditionReader::open(&remote, config, Arc::default());
        let _ = tokio::time::timeout(Duration::from_secs(10), opening).await;
    }
}
