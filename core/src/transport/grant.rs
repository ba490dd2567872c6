//! What lets one peer watch a broadcast, and can be taken away again.
//!
//! MoQ lets a subscription go on when the broadcast is taken back. So each peer reads from a broadcast of its own, which
//! what is written passes into, and which can be ended for this peer alone. Payloads are shared, not copied, and what
//! nobody reads is not passed on.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use moq_lite::{Error, Hop, broadcast, group, track};
use tokio::sync::watch;

use crate::{
    broadcast::{Attendance, Audience, StopReason},
    lease::{Lease, Leases},
};

/// A broadcast under a name. Does not keep it alive: that is its owner's to do.
#[derive(Clone)]
pub(super) struct Publication {
    /// Broadcasts are told apart by this, also where one takes the name of another.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) source: broadcast::Consumer,
    /// Who watches it counts here.
    pub(super) audience: Audience,
    /// What tells the broadcast apart from all others, on every session that it is offered on.
    pub(super) content: Hop,
    /// It is for all peers, as far as the policy lets them watch it; otherwise for this one, whatever the policy says.
    pub(super) to_all: bool,
    /// Whether a peer that watches it is a reason to keep the session.
    pub(super) counted: bool,
}

/// The broadcast that one peer reads from.
pub(super) struct Grant {
    copy: broadcast::Producer,
    revoked: watch::Sender<Option<StopReason>>,
}

/// What a peer watches.
pub(super) struct Demand {
    /// It has one while it watches what is a reason to keep the session.
    leases: Arc<Leases>,
    /// It has once asked for something of that.
    asked: AtomicBool,
    /// By name: the broadcast that is announced, and whether it has asked for something of it.
    requested: watch::Sender<HashMap<String, (u64, bool)>>,
}

impl Demand {
    pub(super) fn new(leases: Arc<Leases>) -> Self {
        Self {
            leases,
            asked: AtomicBool::new(false),
            requested: watch::Sender::default(),
        }
    }

    pub(super) fn announced(&self, name: &str, id: u64) {
        self.requested.send_if_modified(|requested| {
            requested.insert(name.to_owned(), (id, false));
            false
        });
    }

    pub(super) fn forgotten(&self, name: &str, id: u64) {
        self.requested.send_if_modified(|requested| {
            if requested.get(name).is_some_and(|(known, _)| *known == id) {
                requested.remove(name);
            }
            false
        });
    }

    /// The peer asks for something of a broadcast.
    fn ask(&self, publication: &Publication) {
        let Publication { id, name, .. } = publication;
        self.requested
            .send_if_modified(|requested| match requested.get_mut(name) {
                Some((known, asked)) if known == id => !std::mem::replace(asked, true),
                _ => false,
            });
        if publication.counted {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the peer has ever watched what is a reason to keep the session.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits until the peer has asked for something of what is announced as `name`. Cancel safe.
    pub(super) async fn requested(&self, name: &str) {
        let asked = |requested: &HashMap<String, (u64, bool)>| {
            requested.get(name).is_some_and(|(_, asked)| *asked)
        };
        // The sender is in `self`.
        let _ = self.requested.subscribe().wait_for(asked).await.map(drop);
    }
}

/// Ends when the peer is not to read any more; never, where the grant is dropped first.
#[derive(Clone)]
struct Revocation(watch::Receiver<Option<StopReason>>);

impl Revocation {
    /// Cancel safe.
    async fn wait(&mut self) -> Error {
        let reason = self.0.wait_for(Option::is_some).await;
        match reason.map(|reason| *reason) {
            Ok(Some(reason)) => reason.into(),
            _ => std::future::pending().await,
        }
    }
}

impl Grant {
    /// A grant of what the peer reads from `copy`, and what passes on what is written to `publication`.
    pub(super) fn new(
        copy: broadcast::Producer,
        publication: Publication,
        demand: Arc<Demand>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (revoked, revocation) = watch::channel(None);
        // There has to be somebody to ask before the broadcast can be seen.
        let requests = copy.dynamic();
        let passing = Passing {
            copy: copy.clone(),
            publication,
            demand,
            revocation: Revocation(revocation),
        };
        (Self { copy, revoked }, passing.run(requests))
    }

    /// Takes the broadcast out of sight. What the peer reads goes on.
    pub(super) fn hide(&self) {
        self.copy.close();
    }

    /// Whether it was hidden, or its source is over.
    pub(super) fn is_hidden(&self) -> bool {
        self.copy.consume().is_closed()
    }

    /// Ends what the peer reads. What has ended by itself is still delivered.
    pub(super) fn revoke(&self, reason: StopReason) {
        self.revoked.send_replace(Some(reason));
    }

    /// Whether nothing of it is read any more, nor can be.
    pub(super) fn is_over(&self) -> bool {
        self.revoked.is_closed()
    }
}

/// What passes on what is written to a broadcast.
struct Passing {
    copy: broadcast::Producer,
    publication: Publication,
    demand: Arc<Demand>,
    revocation: Revocation,
}

impl Passing {
    /// Serves the tracks that the peer asks for, until the source is over or the grant is revoked, and then those that are
    /// read to their ends.
    async fn run(mut self, mut requests: broadcast::Dynamic) {
        let source = self.publication.source.clone();
        let watched = self.copy.demand();
        let mut watching = None;
        let mut tracks = FuturesUnordered::new();
        // Who read these asks again, and is to learn why they have ended rather than that they are not there.
        let mut interrupted = HashSet::new();
        loop {
            tokio::select! {
                biased;
                Some(name) = tracks.next() => interrupted.extend(name),
                request = requests.requested_track() => {
                    let Ok(request) = request else { break };
                    watching.get_or_insert_with(|| self.watch());
                    match source.track(request.name()) {
                        Ok(track) => {
                            tracks.push(pass_on_track(request, track, self.revocation.clone()));
                        }
                        Err(_) if interrupted.contains(request.name()) => {
                            request.reject(StopReason::Interrupted.into());
                        }
                        Err(error) => request.reject(error),
                    }
                }
                _ = source.closed() => break,
                _ = self.revocation.wait() => break,
                Ok(()) = watched.used(), if watching.is_none() => watching = Some(self.watch()),
                Ok(()) = watched.unused(), if watching.is_some() => watching = None,
            }
        }
        // There is nothing to be seen any more, if nobody has hidden it before.
        self.copy.close();
        while tracks.next().await.is_some() {}
    }

    /// The peer watches, until what this gives is dropped.
    fn watch(&self) -> (Attendance, Option<Lease>) {
        let Self {
            publication,
            demand,
            ..
        } = self;
        demand.ask(publication);
        let lease = publication.counted.then(|| demand.leases.occupy());
        (publication.audience.join(), lease.flatten())
    }
}

/// Gives the name of the track if its publisher has let go of it.
async fn pass_on_track(
    request: track::Request,
    track: track::Consumer,
    mut revocation: Revocation,
) -> Option<String> {
    let name = request.name().to_owned();
    let info = tokio::select! {
        info = track.query() => info,
        revoked = revocation.wait() => Err(revoked),
    };
    let ended = match info {
        Ok(info) => {
            let fetches = request.dynamic();
            let passing = TrackCopy {
                producer: request.accept(info),
                reader: None,
                groups: FuturesUnordered::new(),
                track,
                revocation,
            };
            passing.run(fetches).await
        }
        Err(error) => {
            request.reject(said(error.clone()));
            Err(error)
        }
    };
    matches!(ended, Err(Error::Dropped)).then_some(name)
}

/// A track as one peer gets it.
struct TrackCopy {
    track: track::Consumer,
    producer: track::Producer,
    reader: Option<track::Subscriber>,
    /// Those that are under way.
    groups: FuturesUnordered<BoxFuture<'static, ()>>,
    revocation: Revocation,
}

impl TrackCopy {
    /// Until nobody reads it, or it has ended; gives what it ended with.
    async fn run(mut self, fetches: track::Dynamic) -> Result<(), Error> {
        let mut demand = self.producer.clone();
        let ended = loop {
            tokio::select! {
                biased;
                changed = demand.subscription_changed() => match changed {
                    Ok(wanted) => if let Err(error) = self.read(wanted).await {
                        break Err(error);
                    },
                    Err(_) => return Ok(()),
                },
                group = next_group(&mut self.reader) => match group {
                    Ok(Some(group)) => self.begin(group),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                },
                fetch = fetches.requested_group() => match fetch {
                    Ok(fetch) => self.fetch(fetch),
                    Err(_) => return Ok(()),
                },
                Some(()) = self.groups.next() => {}
                _ = self.producer.unused() => {
                    // Who comes again gets another copy.
                    if self.producer.clone().abort_unused(Error::Cancel).is_ok() {
                        return Ok(());
                    }
                }
                revoked = self.revocation.wait() => break Err(revoked),
            }
        };
        match &ended {
            Ok(()) => self.declare_end().await,
            // Groups that are under way end for the same reason, if not by themselves.
            Err(error) => drop(self.producer.clone().abort(said(error.clone()))),
        }
        while self.groups.next().await.is_some() {}
        ended
    }

    /// Reads what the peer wants of the track; `None` when it wants nothing for now.
    async fn read(&mut self, wanted: Option<track::Subscription>) -> Result<(), Error> {
        match (&mut self.reader, wanted) {
            (Some(reader), Some(wanted)) => reader.update(wanted)?,
            (None, Some(wanted)) => {
                let start = wanted.start.as_ref().map(|start| start.group);
                self.producer.start_at(start)?;
                let mut revocation = self.revocation.clone();
                let reader = tokio::select! {
                    reader = self.track.subscribe(wanted) => reader?,
                    revoked = revocation.wait() => return Err(revoked),
                };
                self.reader = Some(reader);
            }
            (_, None) => self.reader = None,
        }
        Ok(())
    }

    fn begin(&mut self, group: group::Consumer) {
        let info = group::Info {
            sequence: group.sequence,
        };
        // Fails where it is there already, as when it is read for a second time.
        if let Ok(copy) = self.producer.create_group(info) {
            let mut copying = copy_group(group, copy, self.revocation.clone()).boxed();
            // What is there is passed on at once.
            if (&mut copying).now_or_never().is_none() {
                self.groups.push(copying);
            }
        }
    }

    fn fetch(&mut self, request: group::Request) {
        let options = group::Fetch::default()
            .with_priority(request.priority())
            .with_frame_start(request.frame_start());
        let fetching = self.track.fetch_group(request.sequence(), options);
        let mut revocation = self.revocation.clone();
        let fetching = async move {
            let group = tokio::select! {
                group = fetching => group,
                revoked = revocation.wait() => Err(revoked),
            };
            match group {
                // Fails where it has come meanwhile.
                Ok(group) => {
                    if let Ok(copy) = request.accept(None) {
                        copy_group(group, copy, revocation).await;
                    }
                }
                Err(error) => request.reject(said(error)),
            }
        };
        self.groups.push(fetching.boxed());
    }

    /// Nothing new comes.
    async fn declare_end(&mut self) {
        let end = match &mut self.reader {
            Some(reader) => reader.finished().await.ok(),
            None => None,
        };
        let next = self.producer.latest().map_or(0, |latest| latest + 1);
        // The last groups may have been left out, and nobody is to wait for them.
        let _ = match end {
            Some(end) if end == next || self.producer.latest().is_none() => {
                self.producer.finish_at(end)
            }
            _ => self.producer.finish(),
        };
    }
}

async fn next_group(
    reader: &mut Option<track::Subscriber>,
) -> Result<Option<group::Consumer>, Error> {
    match reader {
        Some(reader) => reader.recv_group().await,
        None => std::future::pending().await,
    }
}

/// Passes on the frames of a group, as they come.
async fn copy_group(
    mut group: group::Consumer,
    mut copy: group::Producer,
    mut revocation: Revocation,
) {
    if group.index() > 0 && copy.start_at(group.index()).is_err() {
        return;
    }
    let error = loop {
        tokio::select! {
            biased;
            frame = group.read_frame() => match frame {
                Ok(Some(frame)) => {
                    if copy.write_frame(frame.timestamp, frame.payload).is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    let _ = copy.finish();
                    return;
                }
                Err(error) => break error,
            },
            revoked = revocation.wait() => break revoked,
        }
    };
    let _ = copy.abort(said(error));
}

/// What the peer is told. MoQ calls it an internal error when a producer is dropped.
fn said(error: Error) -> Error {
    match error {
        Error::Dropped => StopReason::Interrupted.into(),
        error => error,
    }
}
