//! A rendition that is received, and one that is being switched to.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    handover::{Arrived, Handover},
    meter::DownloadMeter,
};
use crate::{
    EncodedFrame, RemoteBroadcast,
    broadcast::{EncodedReader, Rendition, SubscribeTrackError},
};

/// A rendition that is received.
pub(super) struct Receiving {
    pub rendition: Arc<Rendition>,
    /// How the catalog describes it now, from the next key frame on.
    pub update: Option<Arc<Rendition>>,
    pub reader: EncodedReader,
    pub meter: DownloadMeter,
    /// Of the broadcast, which the last frame was of.
    pub incarnation: Option<u64>,
}

pub(super) struct Attempt {
    pub rendition: Arc<Rendition>,
    pub state: AttemptState,
    pub handover: Handover,
    /// When it is served before the rendition that is watched.
    pub prefer_at: Option<Duration>,
}

pub(super) enum AttemptState {
    Opening(BoxFuture<'static, Result<EncodedReader, SubscribeTrackError>>),
    Reading(Box<Receiving>),
}

impl Attempt {
    /// Begins to receive a rendition.
    pub fn open(
        broadcast: &RemoteBroadcast,
        rendition: Arc<Rendition>,
        max_age: Duration,
        priority: u8,
        handover: Handover,
    ) -> Self {
        let (broadcast, wanted) = (broadcast.clone(), rendition.clone());
        let opening = Box::pin(async move {
            broadcast
                .subscribe_with(&wanted.name, &wanted.config, max_age, priority)
                .await
        });
        Self {
            rendition,
            state: AttemptState::Opening(opening),
            handover,
            prefer_at: None,
        }
    }

    /// It is received, for a player that shows frames that are late by up to `budget`.
    pub fn opened(&mut self, reader: EncodedReader, budget: Duration) {
        self.state = AttemptState::Reading(Box::new(Receiving {
            rendition: self.rendition.clone(),
            update: None,
            reader,
            meter: DownloadMeter::with_budget(budget),
            incarnation: None,
        }));
    }

    /// Takes note of a frame of the rendition that is being switched to.
    pub fn push(&mut self, frame: EncodedFrame, arrival: RangeInclusive<Duration>) {
        let at = *arrival.end();
        if let Some(next) = self.receiving() {
            next.observe(&frame, arrival);
        }
        self.handover.push_new(Arrived { frame, at });
    }

    pub fn receiving(&mut self) -> Option<&mut Receiving> {
        match &mut self.state {
            AttemptState::Reading(source) => Some(source),
            AttemptState::Opening(_) => None,
        }
    }
}

impl Receiving {
    pub fn observe(&mut self, frame: &EncodedFrame, arrival: RangeInclusive<Duration>) {
        let (timestamp, bytes) = (frame.timestamp, frame.payload.len());
        let last = self.incarnation.replace(frame.incarnation);
        if last.is_some_and(|last| last != frame.incarnation) {
            // The time without a connection says nothing of the one that there is now.
            self.meter.restart();
        }
        self.meter.observe_within(
            timestamp,
            bytes,
            frame.keyframe,
            frame.discontinuity,
            arrival,
        );
    }
}
