//! What a subscription does next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    error::{SubscribeError, Verdict},
    loss::LossReason,
    state::SubscriberState,
};
use crate::retry::Backoff;

/// The most different reasons of one outage that are warned of.
const MAX_REASONS: usize = 4;

/// What a subscription does, as a plain state machine: it is given the time, and random numbers.
#[derive(Debug)]
pub(super) struct Machine {
    state: SubscriberState,
    /// Whether the state has changed since that was asked.
    changed: bool,
    give_up_after: Option<Duration>,
    outage: Outage,
    /// When the attempt under way began.
    attempt: Instant,
    /// Whether this attempt got to the broadcast, and whether media came of it.
    found: bool,
    flowed: bool,
}

/// A time without the broadcast.
#[derive(Debug)]
struct Outage {
    since: Instant,
    backoff: Backoff,
    /// Those that were warned of.
    reasons: Vec<LossReason>,
    last: Option<LossReason>,
}

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// There is a session with the publisher.
    Connected,
    /// The publisher is there for a while, and publishes these.
    Published(Vec<String>),
    /// The broadcast is there.
    Found,
    /// Media comes.
    Flows,
    /// Media came and has stopped; the last frame came then.
    Stalls(Instant),
    /// No track that somebody waits for is late any more, though none has given a frame: they were let go of, or ended.
    Idle,
    /// The publisher had dialled, and has ended the session as it needs it no more, before the broadcast was found.
    LeftUnused,
    /// The publisher has another broadcast under the name.
    Replaced,
    /// The publisher has ended it.
    Ended,
    /// This side needs it no more.
    Closed,
    /// An attempt, or the broadcast, has come to an end.
    Over(Verdict),
    /// The [`deadline`](Machine::deadline) is there.
    Deadline,
}

/// What is to be done from now on, instead of what was done until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Connect to the publisher.
    Dial,
    /// Wait for the broadcast on the session.
    Find,
    /// Follow the broadcast.
    Follow,
    /// Nothing, until the deadline.
    Pause,
    /// Nothing ever again.
    Stop,
}

impl Outage {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            backoff: Backoff::default(),
            reasons: Vec::new(),
            last: None,
        }
    }
}

impl Machine {
    /// One that begins with [`Task::Dial`].
    pub(super) fn new(now: Instant, give_up_after: Option<Duration>) -> Self {
        Self {
            state: SubscriberState::Connecting,
            changed: false,
            give_up_after,
            outage: Outage::new(now),
            attempt: now,
            found: false,
            flowed: false,
        }
    }

    pub(super) fn state(&self) -> &SubscriberState {
        &self.state
    }

    /// Whether the state has changed since this was asked.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn set(&mut self, state: SubscriberState) {
        self.state = state;
        self.changed = true;
    }

    /// When to say that the [deadline](Event::Deadline) is there.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.state.is_up() || self.state.is_final() {
            return None;
        }
        // One that is beyond all time never comes.
        let give_up = self
            .give_up_after
            .and_then(|limit| self.outage.since.checked_add(limit));
        let retry = match self.state {
            SubscriberState::Lost { retry_at, .. } => Some(retry_at),
            _ => None,
        };
        give_up.into_iter().chain(retry).min()
    }

    /// What is to be done from now on, if that has changed. `random` lies in 0 to 1.
    pub(super) fn handle(&mut self, now: Instant, event: Event, random: f64) -> Option<Task> {
        if self.state.is_final() {
            return None;
        }
        let (state, task) = match event {
            Event::Connected => {
                let published = None;
                (SubscriberState::Waiting { published }, Some(Task::Find))
            }
            Event::Published(names) => {
                let published = Some(names);
                match self.state {
                    SubscriberState::Waiting { .. } => {
                        (SubscriberState::Waiting { published }, None)
                    }
                    _ => return None,
                }
            }
            Event::Found => {
                self.found = true;
                (SubscriberState::Up, Some(Task::Follow))
            }
            Event::Flows => {
                // What is still read of a broadcast that is gone says nothing of the next.
                self.flowed |= self.state.is_up();
                match self.state {
                    SubscriberState::Stalled { .. } => (SubscriberState::Up, None),
                    _ => return None,
                }
            }
            Event::Idle => match self.state {
                SubscriberState::Stalled { .. } => (SubscriberState::Up, None),
                _ => return None,
            },
            Event::Stalls(last_frame) => match self.state {
                SubscriberState::Up => (SubscriberState::Stalled { last_frame }, None),
                _ => return None,
            },
            Event::LeftUnused => return Some(self.begin(now)),
            Event::Replaced => return Some(self.replaced(now, random)),
            Event::Ended => (SubscriberState::Ended, Some(Task::Stop)),
            Event::Closed => (SubscriberState::Closed, Some(Task::Stop)),
            Event::Over(Verdict::Again(reason)) => return Some(self.lost(now, reason, random)),
            Event::Over(Verdict::Refused(error)) => {
                (SubscriberState::Refused(error), Some(Task::Stop))
            }
            Event::Over(Verdict::Failed(error)) => {
                (SubscriberState::Failed(error), Some(Task::Stop))
            }
            Event::Deadline => return self.late(now),
        };
        self.set(state);
        task
    }

    /// Whether this reason is new in this outage; there is a limit to how many are.
    fn is_new(&mut self, reason: &LossReason) -> bool {
        let reasons = &mut self.outage.reasons;
        let new = reasons.len() < MAX_REASONS && !reasons.contains(reason);
        if new {
            reasons.push(reason.clone());
        }
        new
    }

    /// The attempt is over.
    fn attempted(&mut self, now: Instant) {
        if self.found {
            self.outage.since = now;
        }
        // A publisher that is there and gives nothing is not asked four times a second.
        if self.flowed || self.found && now - self.attempt > Backoff::LONGEST {
            self.outage = Outage::new(now);
        }
        self.found = false;
        self.flowed = false;
    }

    fn lost(&mut self, now: Instant, reason: LossReason, random: f64) -> Task {
        self.attempted(now);
        self.outage.last = Some(reason.clone());
        if self.is_given_up(now) {
            return self.give_up(now, reason);
        }
        let mut wait = self.outage.backoff.next(random);
        let dialled = now.saturating_duration_since(self.attempt);
        if matches!(reason, LossReason::Unreachable(_)) && dialled > wait {
            // Whoever dials all the time finds the publisher within a second of the network's return, and asks for little.
            wait = Backoff::default().next(random);
        }
        let retry_at = now + wait;
        let is_new = self.is_new(&reason);
        self.set(SubscriberState::Lost {
            reason,
            retry_at,
            is_new,
        });
        Task::Pause
    }

    /// The next one is there already. One that comes before anything came of the last waits its turn.
    fn replaced(&mut self, now: Instant, random: f64) -> Task {
        let settled = self.flowed || now - self.attempt > Backoff::LONGEST;
        let task = self.lost(now, LossReason::Replaced, random);
        if settled && task == Task::Pause {
            return self.begin(now);
        }
        task
    }

    fn begin(&mut self, now: Instant) -> Task {
        self.attempt = now;
        self.set(SubscriberState::Connecting);
        Task::Dial
    }

    fn late(&mut self, now: Instant) -> Option<Task> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        if self.is_given_up(now) {
            let reason = match (&self.state, self.outage.last.clone()) {
                (SubscriberState::Waiting { .. }, _) => LossReason::NotPublished,
                (SubscriberState::Connecting, None) => {
                    LossReason::Unreachable("no answer".to_owned())
                }
                (_, last) => last.unwrap_or(LossReason::NotPublished),
            };
            return Some(self.give_up(now, reason));
        }
        Some(self.begin(now))
    }

    fn is_given_up(&self, now: Instant) -> bool {
        let limit = self.give_up_after;
        limit.is_some_and(|limit| now - self.outage.since >= limit)
    }

    fn give_up(&mut self, now: Instant, reason: LossReason) -> Task {
        let after = now - self.outage.since;
        let error = SubscribeError::GaveUp { after, reason };
        self.set(SubscriberState::Failed(Arc::new(error)));
        Task::Stop
    }
}

#[cfg(test)]
mod tests;
