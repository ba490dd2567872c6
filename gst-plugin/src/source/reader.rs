//! Reads a track into its pad, for as long as the pipeline plays and the pad is linked.

use std::time::{Duration, SystemTime};

use iroh_live::{
    RemoteBroadcast,
    broadcast::{EncodedReader, ReadError, SubscribeTrackError},
    media::receive::{
        PlayoutClock,
        feed::{FeedEnd, FeedFrame, FrameSource},
    },
};
use tokio::sync::watch;

use super::{
    category::CAT,
    track::{Link, Track},
};

/// How reading a track ended.
#[derive(Debug)]
pub(super) enum End {
    /// The publisher ended the track.
    Finished,
    /// The pad takes no more data.
    Downstream,
    /// The track carries what nobody here can read.
    Malformed(String),
    /// The track, the publisher or the connection is gone.
    Unavailable(String),
}

impl From<SubscribeTrackError> for End {
    fn from(error: SubscribeTrackError) -> Self {
        match error {
            SubscribeTrackError::Container { .. } => Self::Malformed(error.to_string()),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(_) => Self::Malformed(error.to_string()),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// How far the broadcast is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BroadcastState {
    /// It is there, or waited for. Counts how often it was lost.
    Live(u64),
    /// The publisher has ended it.
    Ended,
}

/// What the readers of a broadcast's tracks share.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) broadcast: RemoteBroadcast,
    pub(super) clock: PlayoutClock,
    /// The wall-clock time of the broadcast's timestamp zero.
    pub(super) epoch: Option<SystemTime>,
    /// How far a group may fall behind before it is skipped.
    pub(super) max_age: watch::Receiver<Duration>,
    pub(super) playing: watch::Receiver<bool>,
    pub(super) state: watch::Receiver<BroadcastState>,
}

impl Reading {
    /// Waits before the track is read, but not beyond the end of the broadcast that it is of.
    pub(super) async fn wait(&mut self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            _ = self.state.changed() => {}
        }
    }

    /// Reads the track for as long as the pipeline plays and the pad is linked.
    pub(super) async fn read(
        mut self,
        track: &Track,
        running_time: impl Fn() -> Option<gst::ClockTime>,
    ) -> End {
        let (mut link, mut removed) = (track.link(), track.link());
        loop {
            // Nothing is downloaded for a pad that nobody takes data from.
            let used = async {
                self.playing.wait_for(|playing| *playing).await.ok()?;
                link.wait_for(|link| link.linked)
                    .await
                    .ok()
                    .map(|link| *link)
            };
            let linked = tokio::select! {
                linked = used => linked,
                () = removal(&mut removed) => None,
                () = over(&mut self.state) => return End::Finished,
            };
            let Some(linked) = linked else {
                return End::Downstream;
            };
            if !*self.playing.borrow() {
                continue;
            }
            let mut source = match self.subscribe(track).await {
                Ok(source) => source,
                Err(end) => return end,
            };
            let feed = track.feed();
            let feed = feed.run(&mut source, &self.clock, self.epoch, &running_time);
            let end = tokio::select! {
                end = feed => end,
                _ = self.playing.wait_for(|playing| !*playing) => continue,
                _ = link.wait_for(|link| *link != linked) => continue,
            };
            return match end {
                FeedEnd::Finished => End::Finished,
                FeedEnd::Lost(error) => error.into(),
                _ => End::Downstream,
            };
        }
    }

    /// Whether a track that has ended has begun anew under its name.
    pub(super) async fn restarts(self, track: &Track) -> bool {
        match self.has_newer(track).await {
            Ok(newer) => newer,
            Err(error) => {
                gst::debug!(CAT, obj = track.ghost, "not begun anew: {error}");
                false
            }
        }
    }

    /// Whether the track has anything that was not read yet.
    async fn has_newer(&self, track: &Track) -> Result<bool, String> {
        let subscribed = self.subscribe(track).await;
        let mut source = subscribed.map_err(|end| format!("{end:?}"))?;
        while let Some(frame) = source.reader.next().await.map_err(|e| e.to_string())? {
            if track.is_newer(frame.timestamp) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn subscribe<'a>(&self, track: &'a Track) -> Result<Source<'a>, End> {
        let Some(config) = track.config() else {
            return Err(End::Downstream);
        };
        let mut max_age = self.max_age.clone();
        let age = *max_age.borrow_and_update();
        let reader = self.broadcast.subscribe(&track.name, &config, age).await?;
        Ok(Source {
            reader,
            max_age,
            track,
        })
    }
}

/// Waits for the pad to be removed.
async fn removal(link: &mut watch::Receiver<Link>) {
    // An error is that nobody has the track any more.
    let _ = link.wait_for(|link| link.removed).await;
}

/// Waits for the broadcast to be over.
async fn over(state: &mut watch::Receiver<BroadcastState>) {
    // An error is that nobody is left to say so.
    let _ = state
        .wait_for(|state| *state == BroadcastState::Ended)
        .await;
}

/// The frames of a track, whose age limit follows the properties.
struct Source<'a> {
    reader: EncodedReader,
    max_age: watch::Receiver<Duration>,
    track: &'a Track,
}

impl FrameSource for Source<'_> {
    type Error = ReadError;

    async fn next_frame(&mut self) -> Result<Option<FeedFrame>, ReadError> {
        loop {
            let frame = tokio::select! {
                // First: what comes after a change is read by it.
                biased;
                Ok(()) = self.max_age.changed() => {
                    let age = *self.max_age.borrow_and_update();
                    self.reader.set_max_age(age);
                    continue;
                }
                frame = self.reader.next() => frame?,
            };
            if let Some(frame) = &frame {
                self.track.note_read(frame.timestamp);
            }
            return Ok(frame.map(FeedFrame::from));
        }
    }
}
