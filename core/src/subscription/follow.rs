//! Follows a broadcast that was found to its end.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use moq_lite::{broadcast, track};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{error::Verdict, find::broke, loss::LossReason, machine::Event};
use crate::{
    broadcast::{
        Activity, Catalog, CatalogWatch, LAST_FRAMES, Readable, RemoteBroadcast, StopReason,
        TrackConfig, Upstream,
        catalog::{AudioCodec, VideoCodec},
    },
    transport::{BroadcastError, MoqSession},
};

/// After the session's end, how long what it brought is still taken in.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// How long to wait before it is asked again whether the publisher has another broadcast, where it would not say.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// When the catalog ends, so many tracks are looked at that nobody reads.
const MAX_PROBED: usize = 16;

/// A broadcast that is followed.
pub(super) struct Pursuit {
    pub(super) session: MoqSession,
    pub(super) broadcast: broadcast::Consumer,
    pub(super) name: String,
    pub(super) upstream: watch::Sender<Upstream>,
    pub(super) activity: Activity,
}

/// How a track ended.
enum TrackEnd {
    Finished,
    Stopped,
    /// Nobody is left to say so.
    Unknown,
}

impl Pursuit {
    /// Until the broadcast is gone, ended or replaced; `catalog`: what was read of it, if something was.
    pub(super) async fn follow(self, catalog: Option<(CatalogWatch, Arc<Catalog>)>) -> Event {
        let broadcast = RemoteBroadcast::new(self.name.clone(), self.broadcast.clone())
            .with_catalog_guard(self.session.catalog_guard());
        let (mut watch, mut last) = catalog.unzip();
        let mut replaced = pin!(replaced(&self.broadcast, &self.session, &self.name));
        let mut end = pin!(async {
            let end = self.session.disconnected().await;
            // How the broadcast ended may be in what came before.
            sleep(CLOSE_GRACE).await;
            end
        });
        loop {
            let update = async {
                let watch = match &mut watch {
                    Some(watch) => watch,
                    none => none.insert(broadcast.catalog().await?),
                };
                watch.next().await
            };
            tokio::select! {
                biased;
                update = update => match update {
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
                    Err(error) => return broke(&self.session, error).await,
                },
                end = &mut end => return Event::Over((&end).into()),
                () = &mut replaced => return Event::Replaced,
            }
        }
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
        let said = timeout(LAST_FRAMES, all).await.ok();
        let last = self.activity.last_frame();
        let comes = last.is_some_and(|last| last.elapsed() < LAST_FRAMES / 2);
        if is_ended(said, finished, unknown, comes) {
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

/// Whether a broadcast, whose catalog has ended, has ended as well. Better wait in vain than leave a publisher that comes
/// back.
///
/// `said`: whether no track was stopped, if all of them have said something; `finished`, `unknown`: whether there are
/// tracks that ended on purpose, or of which nothing is known; `comes`: whether frames come still.
fn is_ended(said: Option<bool>, finished: bool, unknown: bool, comes: bool) -> bool {
    match said {
        Some(orderly) => orderly && (finished || !unknown),
        // Tracks that go on for so long are cut off. Where nothing comes and nothing was said, the path may be cut.
        None => finished || comes,
    }
}

/// Waits until the publisher has another broadcast under the name.
async fn replaced(broadcast: &broadcast::Consumer, session: &MoqSession, name: &str) {
    broadcast.closed().await;
    loop {
        match session.subscribe(name).await {
            Ok(_) => return,
            // Which is seen elsewhere.
            Err(BroadcastError::Session(_)) => std::future::pending().await,
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_ended;

    #[test]
    fn a_broadcast_has_ended_when_its_tracks_say_so_or_go_on_without_it() {
        // What was said, finished, unknown, frames come, and whether that is the end.
        for (said, finished, unknown, comes, ended) in [
            (Some(true), true, false, false, true),
            (Some(true), true, true, false, true),
            (Some(true), false, true, true, false),
            (Some(false), true, false, true, false),
            (None, false, false, false, false),
            (None, true, false, false, true),
            (None, false, false, true, true),
        ] {
            let is = is_ended(said, finished, unknown, comes);
            assert_eq!(is, ended, "{said:?} {finished} {unknown} {comes}");
        }
    }
}
