//! The way to the publisher and back to it: connects, finds the broadcast, has it followed, and begins again.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gst::glib;
use iroh_live::{RemoteBroadcast, retry::Backoff, transport::MoqSession};
use tokio::time::Instant;

use super::{
    category::CAT,
    failure::{Failure, unplayable},
    follow::Follower,
    run::{Observer, Run},
    status::Status,
};

/// After how long there is a warning about a publisher that is there but has no such broadcast.
const ABSENT_AFTER: Duration = Duration::from_secs(3);

/// The most broadcasts that are named when the one that is wanted is not among them.
const MAX_NAMES: usize = 10;

/// The most different warnings of one outage.
const MAX_REASONS: usize = 4;

/// Watches until the publisher ends the broadcast, or something cannot be mended by trying again.
pub(super) async fn watch<O: Observer>(run: Arc<Run<O>>) {
    let mut outage = Outage::new(Instant::now());
    loop {
        run.flowed.store(false, Ordering::Relaxed);
        let begin = Instant::now();
        let deadline = run.timeout.map(|timeout| outage.since + timeout);
        let attempt = pin!(attempt(&run));
        let result = tokio::select! {
            result = attempt => result,
            failure = late(&run, deadline) => Err(failure),
        };
        run.observer.set_session(None);
        let connected = run.status() == Status::Connected;
        let flowed = run.flowed.load(Ordering::Relaxed);
        outage.attempted(Instant::now(), begin, connected, flowed);
        let error = match result {
            Ok(()) => return run.set_status(Status::Ended),
            Err(Failure::Empty(error)) => {
                run.set_status(Status::Ended);
                return run.observer.fail(error);
            }
            Err(Failure::Fatal(error)) => {
                run.set_status(Status::Failed);
                return run.observer.fail(error);
            }
            Err(Failure::Again(error)) => error,
        };
        if run
            .timeout
            .is_some_and(|limit| outage.since.elapsed() >= limit)
        {
            run.set_status(Status::Failed);
            return run.observer.fail(given_up(&error, outage.since.elapsed()));
        }
        run.set_status(Status::Reconnecting);
        let wait = outage.backoff.next(rand::random());
        gst::info!(CAT, "{}; next attempt in {wait:?}", error.message());
        if outage.report(error.message()) {
            run.observer.warn(again(&error));
        }
        tokio::time::sleep(wait).await;
    }
}

/// A time without the broadcast.
struct Outage {
    since: Instant,
    backoff: Backoff,
    /// What was warned of.
    reasons: Vec<String>,
}

impl Outage {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            backoff: Backoff::default(),
            reasons: Vec::new(),
        }
    }

    /// An attempt that began then is over. Whether it got to the broadcast, and whether media flowed.
    fn attempted(&mut self, now: Instant, begin: Instant, connected: bool, flowed: bool) {
        if connected {
            self.since = now;
        }
        // A publisher that is there and gives nothing is not asked four times a second.
        if flowed || connected && now - begin > Backoff::LONGEST {
            *self = Self::new(now);
        }
    }

    /// Whether to warn of this reason: it is new.
    fn report(&mut self, reason: &str) -> bool {
        let new = self.reasons.len() < MAX_REASONS && !self.reasons.iter().any(|r| r == reason);
        if new {
            self.reasons.push(reason.to_owned());
        }
        new
    }
}

/// The same with these words after it. Every domain of such errors is one of ours.
fn extended(error: &glib::Error, more: &str) -> glib::Error {
    let text = format!("{}. {more}", error.message());
    if let Some(code) = error.kind::<gst::ResourceError>() {
        glib::Error::new(code, &text)
    } else if let Some(code) = error.kind::<gst::StreamError>() {
        glib::Error::new(code, &text)
    } else {
        glib::Error::new(gst::ResourceError::Failed, &text)
    }
}

fn again(error: &glib::Error) -> glib::Error {
    extended(error, "Trying again until it is there")
}

fn given_up(error: &glib::Error, after: Duration) -> glib::Error {
    let millis = after.as_millis();
    let more = format!("Gave up after {millis} ms, as the property timeout says");
    extended(error, &more)
}

/// Waits for the deadline of an attempt that does not get to the broadcast.
async fn late<O: Observer>(run: &Run<O>, deadline: Option<Instant>) -> Failure {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
        match run.status() {
            Status::Connected => {}
            Status::Waiting => {
                return match run.unplayable() {
                    Some(reason) => Failure::Again(unplayable(&reason)),
                    None => Failure::absent(run.ticket.name()),
                };
            }
            _ => return Failure::unreachable("no answer"),
        }
    }
    std::future::pending().await
}

/// One way to the broadcast, until it ends (`Ok`) or fails.
async fn attempt<O: Observer>(run: &Arc<Run<O>>) -> Result<(), Failure> {
    run.set_unplayable(None);
    run.set_status(Status::Connecting);
    let address = run.ticket.addr().clone();
    let own = run.live.endpoint().id();
    let session = run
        .live
        .transport()
        .connect(address)
        .await
        .map_err(|error| Failure::connecting(&error, own))?;
    run.set_status(Status::Waiting);
    run.observer.set_session(Some(&session));
    let broadcast = find(run, &session).await?;
    Follower::new(run.clone(), session, broadcast)
        .follow()
        .await
}

/// Waits for the publisher to offer the broadcast.
async fn find<O: Observer>(run: &Run<O>, session: &MoqSession) -> Result<RemoteBroadcast, Failure> {
    let name = run.ticket.name();
    let own = run.live.endpoint().id();
    let mut subscribe = pin!(session.subscribe(name));
    let found = tokio::select! {
        found = &mut subscribe => found,
        () = tokio::time::sleep(ABSENT_AFTER) => {
            let offered = match session.announced().as_slice() {
                [] => "It has none at the moment".to_owned(),
                names => {
                    let some: Vec<_> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
                    let more = if names.len() > MAX_NAMES { ", …" } else { "" };
                    format!("It has: {}{more}", some.join(", "))
                }
            };
            run.warn_once(glib::Error::new(gst::ResourceError::NotFound, &format!(
                "The publisher is there, but has no broadcast named {name:?}. {offered}. Waiting for it to appear"
            )));
            subscribe.await
        }
    };
    found.map_err(|error| Failure::subscribing(&error, name, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_an_outage_is_reported_once() {
        let mut outage = Outage::new(Instant::now());
        assert!(outage.report("lost") && !outage.report("lost") && outage.report("unreachable"));
        assert!(!outage.report("lost"));
        let reported = (0..10).filter(|n| outage.report(&n.to_string())).count();
        assert_eq!(reported, MAX_REASONS - 2, "however many there are");
    }

    #[test]
    fn only_media_begins_the_waits_anew() {
        let now = Instant::now();
        let (short, long) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        let waits = |connected, flowed, end: Instant| {
            let mut outage = Outage::new(now);
            let waits = [0, 1, 2].map(|_| {
                outage.attempted(end, now, connected, flowed);
                outage.backoff.next(0.5)
            });
            waits[2] == waits[0]
        };
        assert!(!waits(false, false, long), "not reached");
        assert!(!waits(true, false, short), "reached, and nothing came");
        assert!(waits(true, true, short), "something came");
        assert!(waits(true, false, long), "nobody wanted anything");
    }

    #[test]
    fn more_words_keep_the_code() {
        let error = glib::Error::new(gst::ResourceError::Read, "Lost");
        let error = again(&error);
        assert!(error.matches(gst::ResourceError::Read));
        assert_eq!(error.message(), "Lost. Trying again until it is there");
    }
}
