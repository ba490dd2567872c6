//! The frames of a track for the decoder: of the rendition that is best for now, one codec at a time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{PlaybackError, decode::package, player::Player, track::Shared};
use crate::{
    adaptive::{AdaptiveConfig, AdaptiveControl, AdaptiveReader, MediaKind, Rendition},
    broadcast::{Catalog, CatalogWatch},
    media::{
        caps::track_caps,
        receive::{
            Playable,
            feed::{FeedFrame, FrameSource, Subscribed},
        },
    },
};

/// However short the latency, packets overtake each other by as much.
const MIN_AGE: Duration = Duration::from_millis(50);

/// A track that is read.
pub(super) struct Source {
    shared: Arc<Shared>,
    reader: AdaptiveReader,
    /// The rendition that the next frame to be shown begins.
    begins: Option<Arc<Rendition>>,
    /// When the broadcast's timestamps were zero.
    pub(super) zero: Option<SystemTime>,
    pub(super) subscribed: Subscribed,
    /// What the decoder is set up for.
    caps: Option<gst::Caps>,
    /// The first frame, or the first of another codec.
    first: Option<FeedFrame>,
}

impl Source {
    /// Waits until the broadcast has the picture or the sound; `None` if it ended without.
    pub(super) async fn open(
        player: &Player,
        shared: &Arc<Shared>,
    ) -> Result<Option<Self>, PlaybackError> {
        let kind = shared.kind;
        let mut catalog = player
            .broadcast
            .catalog()
            .await
            .map_err(PlaybackError::Catalog)?;
        let zero = loop {
            let Some(catalog) = catalog.next().await.map_err(PlaybackError::Catalog)? else {
                return Ok(None);
            };
            if playable(player, &catalog, kind)? {
                break CatalogWatch::zero(&catalog);
            }
        };
        let (candidates, hardware) = (player.candidates, player.config.hardware);
        let config = AdaptiveConfig::new(kind)
            .with_quality(shared.quality())
            .with_max_age(player.config.latency.max(MIN_AGE))
            .with_hold(player.config.latency / 2)
            .with_filter(move |rendition: &Rendition| {
                let playable = track_caps(&rendition.config)
                    .is_ok_and(|caps| !candidates(&caps, hardware).is_empty());
                if !playable {
                    tracing::warn!(
                        rendition = rendition.name,
                        "left out: it cannot be decoded here"
                    );
                }
                playable
            });
        let reader = player
            .broadcast
            .adaptive(config)
            .await
            .map_err(PlaybackError::Source)?;
        Ok(Some(Self {
            shared: shared.clone(),
            reader,
            begins: None,
            zero,
            subscribed: player.timeline.subscription(),
            caps: None,
            first: None,
        }))
    }

    pub(super) fn control(&self) -> AdaptiveControl {
        self.reader.control()
    }

    /// What a decoder is to be set up for now; `None` when there is nothing more to come.
    pub(super) async fn stream(&mut self) -> Result<Option<gst::Caps>, PlaybackError> {
        if self.first.is_none() && self.caps.is_none() {
            self.first = self.read().await?;
        }
        if let Some(caps) = self.first.as_ref().and_then(|first| first.caps.clone()) {
            self.caps = Some(caps);
        }
        Ok(self.caps.clone())
    }

    /// Whether it stopped for another codec, which wants another decoder.
    pub(super) fn switches(&self) -> bool {
        self.first.is_some()
    }

    async fn read(&mut self) -> Result<Option<FeedFrame>, PlaybackError> {
        let Some(next) = self.reader.next().await.map_err(PlaybackError::Source)? else {
            return Ok(None);
        };
        let caps = if next.changed {
            let caps = track_caps(&next.rendition.config)
                .map_err(|reason| unplayable(&next.rendition.name, reason))?;
            self.begins = Some(next.rendition);
            Some(caps)
        } else {
            None
        };
        if !next.decode_only
            && let Some(rendition) = self.begins.take()
        {
            let captured = self.zero.and_then(|z| z.checked_add(next.frame.timestamp));
            self.shared.begins(captured, rendition);
        }
        Ok(Some(FeedFrame {
            frame: next.frame,
            caps,
            decode_only: next.decode_only,
        }))
    }
}

impl FrameSource for Source {
    type Error = PlaybackError;

    async fn next_frame(&mut self) -> Result<Option<FeedFrame>, PlaybackError> {
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
}

/// Whether one decoder takes both.
pub(super) fn same_codec(a: &gst::Caps, b: &gst::Caps) -> bool {
    let kind = |caps: &gst::Caps| {
        let structure = caps.structure(0)?;
        let format = structure.get::<String>("stream-format").ok();
        let version = structure.get::<i32>("mpegversion").ok();
        Some((structure.name().to_string(), format, version))
    };
    kind(a) == kind(b)
}

/// Whether any rendition can be played. If there are some and none can, that is an error, as nothing would ever come.
fn playable(player: &Player, catalog: &Catalog, kind: MediaKind) -> Result<bool, PlaybackError> {
    let playable = Playable::of(catalog);
    let of_kind = |(rendition, _): &&(Rendition, gst::Caps)| rendition.kind() == kind;
    let mut missing = None;
    for (_, caps) in playable.renditions.iter().filter(of_kind) {
        if !(player.candidates)(caps, player.config.hardware).is_empty() {
            return Ok(true);
        }
        let (codec, package) = package(caps);
        missing = Some(PlaybackError::MissingDecoder { codec, package });
    }
    let left_out = playable
        .left_out
        .into_iter()
        .find(|left_out| left_out.kind == kind);
    let unplayable = left_out.map(|left_out| unplayable(&left_out.track, left_out.reason));
    missing.or(unplayable).map_or(Ok(false), Err)
}

fn unplayable(track: &str, reason: String) -> PlaybackError {
    PlaybackError::Unplayable {
        track: track.to_owned(),
        reason,
    }
}
