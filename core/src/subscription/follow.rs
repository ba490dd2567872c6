//! Follows a broadcast that was found to its end.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use moq_lite::{broadcast, track};
use tokio::{sync::watch, time::timeout};

use super::{error::Verdict, machine::Event, state::LossReason};
use crate::{
    broadcast::{
        Activity, Catalog, CatalogError, Readable, RemoteBroadcast, StopReason, TrackConfig,
        Upstream,
        catalog::{AudioCodec, VideoCodec},
    },
    transport::{Disconnect, MoqSession, WeakMoq},
};

/// After the session's end, how long what it brought is still taken in.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// What the end of a session breaks off, breaks off no sooner than this before it.
const END_GRACE: Duration = Duration::from_millis(100);

/// After the catalog's end, how long its tracks may still go on.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// When the catalog ends, so many tracks are looked at that nobody reads.
const MAX_PROBED: usize = 16;

/// A broadcast that is followed.
pub(super) struct Follower {
    pub(super) transport: WeakMoq,
    pub(super) session: MoqSession,
    pub(super) broadcast: broadcast::Consumer,
    pub(super) name: String,
    pub(super) upstream: watch::Sender<Upstream>,
    pub(super) activity: Activity,
    /// The session that is used now.
    pub(super) current: watch::Sender<Option<MoqSession>>,
}

/// How a track ended.
enum TrackEnd {
    Finished,
    Stopped,
    /// Nobody is left to say so.
    Unknown,
}

impl Follower {
    /// Until the broadcast is gone, ended or replaced.
    pub(super) async fn follow(mut self) -> Event {
        let broadcast = RemoteBroadcast::new(self.name.clone(), self.broadcast.clone())
            .with_catalog_guard(self.session.catalog_guard());
        let mut catalog = match broadcast.catalog().await {
            Ok(catalog) => catalog,
            Err(error) => return self.broke(error).await,
        };
        let mut last = None;
        let mut replaced = pin!(replaced(
            self.broadcast.clone(),
            self.session.clone(),
            self.name.clone()
        ));
        loop {
            let session = self.session.clone();
            let end = async {
                let end = session.disconnected().await;
                // How the broadcast ended may be in what came before.
                tokio::time::sleep(CLOSE_GRACE).await;
                end
            };
            let mut end = pin!(end);
            let end = loop {
                tokio::select! {
                    biased;
                    update = catalog.next() => match update {
                        Ok(Some(catalog)) => {
                            let catalog = Arc::new(catalog);
                            last = Some(catalog.clone());
                            self.upstream.send_modify(|upstream| {
                                if let Upstream::Present(incarnation) = upstream {
                                    incarnation.catalog = Some(catalog);
                                }
                            });
                        }
                        Ok(None) => return self.ended(last.as_deref()).await,
                        Err(error) => return self.broke(error).await,
                    },
                    end = &mut end => break end,
                    () = &mut replaced => return Event::Replaced,
                }
            };
            if let Some(over) = self.session_ended(&end) {
                return over;
            }
        }
    }

    /// The session has ended. The broadcast may have come on another one before.
    fn session_ended(&mut self, end: &Disconnect) -> Option<Event> {
        let next = self.transport.session(self.session.remote_id());
        match next {
            Some(next) if !self.broadcast.is_closed() => {
                self.session = next.unheld();
                self.current.send_replace(Some(next.unheld()));
                None
            }
            _ => Some(Event::Over(end.into())),
        }
    }

    /// The catalog broke off. If that was the session's end, that says more.
    async fn broke(&self, error: CatalogError) -> Event {
        let end = match error {
            CatalogError::Transport(_) => {
                timeout(END_GRACE, self.session.disconnected()).await.ok()
            }
            _ => None,
        };
        Event::Over(Verdict::catalog(error, end.as_ref()))
    }

    /// The catalog has come to its end: whether the broadcast has as well, or its publisher stopped, is in how its tracks
    /// end.
    async fn ended(&self, catalog: Option<&Catalog>) -> Event {
        let stopped = Event::Over(Verdict::Again(LossReason::Stopped));
        // One of an unknown codec nobody waits for.
        let known = |config: &TrackConfig| match config {
            TrackConfig::Video(config) => !matches!(config.codec, VideoCodec::Unknown(_)),
            TrackConfig::Audio(config) => !matches!(config.codec, AudioCodec::Unknown(_)),
        };
        let readable = catalog.map(Readable::of).unwrap_or_default();
        let renditions = readable.renditions.into_iter();
        let names: Vec<_> = renditions
            .filter(|rendition| known(&rendition.config))
            .map(|rendition| rendition.name)
            .collect();
        if names.is_empty() {
            // They had been taken out of it before, or there were none.
            return Event::Ended;
        }
        let (read, unread): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| self.activity.is_read(name));
        let probed = read.into_iter().map(|name| (name, true)).chain(
            unread
                .into_iter()
                .take(MAX_PROBED)
                .map(|name| (name, false)),
        );
        let mut ends: FuturesUnordered<_> = probed
            .map(|(name, read)| self.track_end(name, read))
            .collect();
        let (mut finished, mut unknown) = (false, false);
        let all = async {
            while let Some(end) = ends.next().await {
                match end {
                    TrackEnd::Finished => finished = true,
                    TrackEnd::Stopped => return false,
                    TrackEnd::Unknown => unknown = true,
                }
            }
            true
        };
        // Those that go on for longer are cut off, and have ended.
        let orderly = timeout(LAST_FRAMES, all).await.unwrap_or(true);
        // Better wait in vain than leave a publisher that comes back.
        if orderly && (finished || !unknown) {
            Event::Ended
        } else {
            stopped
        }
    }

    /// How a track ends; `read`: somebody reads it, so that its end is known.
    async fn track_end(&self, name: String, read: bool) -> TrackEnd {
        match track_end(&self.broadcast, &name).await {
            Ok(()) => TrackEnd::Finished,
            Err(error) if read || StopReason::of(&error).is_some() => TrackEnd::Stopped,
            Err(_) => TrackEnd::Unknown,
        }
    }
}

async fn track_end(broadcast: &broadcast::Consumer, name: &str) -> Result<(), moq_lite::Error> {
    let preferences = track::Subscription::default();
    let mut track = broadcast.track(name)?.subscribe(preferences).await?;
    while track.recv_group().await?.is_some() {}
    Ok(())
}

/// Waits until the publisher has another broadcast under the name.
async fn replaced(broadcast: broadcast::Consumer, session: MoqSession, name: String) {
    broadcast.closed().await;
    if session.subscribe(&name).await.is_err() {
        // The session has ended, which is seen elsewhere.
        std::future::pending().await
    }
}
