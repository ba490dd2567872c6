//! What a subscription does goes on in a task of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use iroh::EndpointAddr;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    error::Verdict,
    find::Found,
    follow::Pursuit,
    machine::{Event, Machine, Task},
    state::SubscriberState,
};
use crate::{
    broadcast::{Activity, Incarnation, RemoteBroadcast, Upstream, UpstreamError},
    signals::{INTERVAL, NetSnapshot, NetStats, NetworkSignals},
    transport::{ConnectError, MoqSession, TrafficBytes, WeakMoq},
};

/// How often it is looked whether media comes: half of [`INTERVAL`].
const TICK: Duration = Duration::from_millis(100);

/// While the broadcast is waited for, how often it is looked what the publisher has instead. At once it may not have said all.
const LOOK_AROUND: Duration = Duration::from_secs(3);

/// Of so many other broadcasts of the publisher it is said that they are there.
const MAX_NAMES: usize = 10;

/// What a subscription is to look for.
pub(super) struct Target {
    pub(super) transport: WeakMoq,
    pub(super) address: EndpointAddr,
    pub(super) name: String,
}

/// What those see who have the subscription.
pub(super) struct Outputs {
    pub(super) state: watch::Sender<SubscriberState>,
    pub(super) session: watch::Sender<Option<MoqSession>>,
    pub(super) upstream: watch::Sender<Upstream>,
    pub(super) signals: watch::Sender<NetworkSignals>,
    pub(super) stats: NetStats,
    pub(super) activity: Activity,
}

pub(super) struct Actor {
    target: Target,
    outputs: Outputs,
    machine: Machine,
    /// Nobody needs it any more.
    closing: CancellationToken,
    /// What keeps the session until the broadcast is found.
    session: Option<MoqSession>,
    found: Option<Found>,
    /// Counts the broadcasts that were followed.
    incarnations: u64,
    measured: Option<Measured>,
    traffic: Traffic,
    /// When the last frame of the broadcast that is followed came, as far as the machine knows.
    last_frame: Option<Instant>,
    looked_around: Option<Instant>,
    /// Since it was measured last.
    ticks: u32,
}

/// What has gone over the sessions that were used, one after the other.
#[derive(Debug, Default)]
struct Traffic {
    before: TrafficBytes,
    /// The session that is used now, and what had gone over it when that began: others may have used it before.
    current: Option<(MoqSession, TrafficBytes)>,
}

impl Traffic {
    /// All so far.
    fn total(&self) -> TrafficBytes {
        let current = self.current.as_ref();
        let current = current.map(|(session, begun)| session.traffic().since(*begun));
        self.before + current.unwrap_or_default()
    }

    fn use_session(&mut self, session: Option<&MoqSession>) {
        self.before = self.total();
        self.current = session.map(|session| (session.unheld(), session.traffic()));
    }
}

/// What is measured of the session.
struct Measured {
    signals: watch::Receiver<NetworkSignals>,
    stats: NetStats,
    session: MoqSession,
}

/// What came of a task.
pub(super) enum Outcome {
    Connected(MoqSession),
    Found(Box<Found>),
    Event(Event),
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        Self::Event(Event::Over(verdict))
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Actor {
    pub(super) fn new(
        target: Target,
        outputs: Outputs,
        give_up_after: Option<Duration>,
        closing: CancellationToken,
    ) -> Self {
        Self {
            target,
            outputs,
            machine: Machine::new(now(), give_up_after),
            closing,
            session: None,
            found: None,
            incarnations: 0,
            measured: None,
            traffic: Traffic::default(),
            last_frame: None,
            looked_around: None,
            ticks: 0,
        }
    }

    /// Begins with the way to the publisher.
    pub(super) async fn run(mut self) {
        let work = self.begin(Task::Dial);
        self.go_on(work).await;
    }

    /// What to [go on](Self::go_on) with where the broadcast was found already.
    pub(super) fn adopt(
        &mut self,
        session: MoqSession,
        broadcast: RemoteBroadcast,
    ) -> BoxFuture<'static, Outcome> {
        self.take(Outcome::Connected(session));
        let catalog = None;
        self.take(Outcome::Found(Box::new(Found { broadcast, catalog })));
        self.begin(Task::Follow)
    }

    /// Goes on with this until it is over.
    pub(super) async fn go_on(mut self, mut work: BoxFuture<'static, Outcome>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let deadline = self.machine.deadline();
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            let done = tokio::select! {
                biased;
                () = self.closing.cancelled() => Outcome::Event(Event::Closed),
                done = &mut work => {
                    work = Box::pin(std::future::pending());
                    done
                }
                () = late => Outcome::Event(Event::Deadline),
                _ = tick.tick() => match self.look() {
                    Some(event) => Outcome::Event(event),
                    None => continue,
                },
            };
            match self.take(done) {
                Some(Task::Stop) => return self.stop(),
                Some(task) => work = self.begin(task),
                None => {}
            }
        }
    }

    /// Takes note of what came of a task, and says what is next.
    fn take(&mut self, done: Outcome) -> Option<Task> {
        let event = match done {
            Outcome::Connected(session) => {
                self.use_session(Some(&session));
                self.session = Some(session);
                self.looked_around = Some(now());
                Event::Connected
            }
            Outcome::Found(found) => {
                self.found = Some(*found);
                Event::Found
            }
            // No connection will be made any more, whatever this one ended of.
            Outcome::Event(Event::Over(Verdict::Again(_)))
                if self.target.transport.is_stopped() =>
            {
                let error = ConnectError::Shutdown.into();
                Event::Over(Verdict::Failed(Arc::new(error)))
            }
            Outcome::Event(event) => event,
        };
        let task = self.machine.handle(now(), event, rand::random());
        let name = self.target.name.as_str();
        if self.machine.take_change() {
            let state = self.machine.state();
            let peer = self.target.address.id.fmt_short();
            match state {
                SubscriberState::Lost { is_new: true, .. } => warn!(%peer, name, "{state}"),
                state => debug!(%peer, name, "{state}"),
            }
            if task == Some(Task::Stop) {
                // Whoever sees the state finds what is read in line with it.
                self.outputs.upstream.send_replace(over(state));
            }
            self.outputs.state.send_replace(state.clone());
        }
        task
    }

    fn begin(&mut self, task: Task) -> BoxFuture<'static, Outcome> {
        let transport = self.target.transport.clone();
        match (task, &self.session) {
            (Task::Dial, _) => {
                self.lose();
                let address = self.target.address.clone();
                Box::pin(async move {
                    match transport.connect(address).await {
                        Ok(session) => Outcome::Connected(session),
                        Err(error) => Verdict::from(error).into(),
                    }
                })
            }
            (Task::Find, Some(session)) => {
                let (session, name) = (session.clone(), self.target.name.clone());
                Box::pin(async move {
                    match Found::on(&session, &name).await {
                        Ok(found) => Outcome::Found(Box::new(found)),
                        Err(event) => Outcome::Event(event),
                    }
                })
            }
            (Task::Follow, Some(session)) => {
                let session = session.unheld();
                self.session = None;
                let found = self.found.take();
                let found = found.and_then(|found| {
                    let incarnation = found.broadcast.incarnation()?;
                    let catalog = found.catalog;
                    Some((
                        incarnation,
                        catalog.map(|(watch, now)| (watch, Arc::new(now))),
                    ))
                });
                let Some((found, catalog)) = found else {
                    return Box::pin(std::future::pending());
                };
                let broadcast = found.broadcast.clone();
                let present = Incarnation {
                    number: self.incarnations,
                    catalog: catalog.as_ref().map(|(_, now)| now.clone()),
                    ..found
                };
                self.incarnations += 1;
                self.outputs
                    .upstream
                    .send_replace(Upstream::Present(present));
                let pursuit = Pursuit {
                    session,
                    broadcast,
                    name: self.target.name.clone(),
                    upstream: self.outputs.upstream.clone(),
                    activity: self.outputs.activity.clone(),
                };
                Box::pin(async move { Outcome::Event(pursuit.follow(catalog).await) })
            }
            _ => {
                self.lose();
                Box::pin(std::future::pending())
            }
        }
    }

    /// There is no broadcast, nor a session that is needed.
    fn lose(&mut self) {
        self.session = None;
        self.found = None;
        self.use_session(None);
        self.outputs.upstream.send_replace(Upstream::Absent);
    }

    fn stop(&mut self) {
        self.session = None;
        self.found = None;
        self.use_session(None);
        self.measure();
    }

    fn use_session(&mut self, session: Option<&MoqSession>) {
        self.traffic.use_session(session);
        self.outputs
            .session
            .send_replace(session.map(MoqSession::unheld));
    }

    /// Looks whether media comes, and what the network is like.
    fn look(&mut self) -> Option<Event> {
        self.ticks = self.ticks.wrapping_add(1);
        if TICK * self.ticks >= INTERVAL {
            self.ticks = 0;
            self.measure();
        }
        let now = now();
        if let SubscriberState::Waiting { published } = self.machine.state() {
            let session = self.session.as_ref()?;
            if self
                .looked_around
                .is_some_and(|last| now - last < LOOK_AROUND)
            {
                return None;
            }
            self.looked_around = Some(now);
            let mut names = session.announced();
            if names.contains(&self.target.name) {
                // It is its catalog that is waited for.
                return None;
            }
            names.truncate(MAX_NAMES);
            return (published.as_ref() != Some(&names)).then_some(Event::Published(names));
        }
        let activity = &self.outputs.activity;
        let last = activity.last_frame_since(self.incarnations.saturating_sub(1));
        if std::mem::replace(&mut self.last_frame, last) != last && last.is_some() {
            return Some(Event::Flows);
        }
        let stalled = matches!(self.machine.state(), SubscriberState::Stalled { .. });
        match activity.stalled(now) {
            Some(last_frame) => Some(Event::Stalls(last_frame)),
            None => stalled.then_some(Event::Idle),
        }
    }

    /// Passes on what is measured of the session that is used now.
    fn measure(&mut self) {
        let session = self.outputs.session.borrow().clone();
        let same = match (&self.measured, &session) {
            (Some(measured), Some(session)) => measured.session.is_same(session),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.measured = session.map(|session| Measured {
                signals: session.signals(),
                stats: session.stats(),
                session,
            });
        }
        let last = self.outputs.activity.last_frame();
        let age = last.map(|last| now().saturating_duration_since(last));
        let (mut signals, mut snapshot) = match &self.measured {
            Some(measured) => (*measured.signals.borrow(), measured.stats.snapshot()),
            None => (NetworkSignals::default(), NetSnapshot::default()),
        };
        signals.last_frame_age = age;
        snapshot.signals.last_frame_age = age;
        snapshot.traffic = self.traffic.total();
        self.outputs.signals.send_replace(signals);
        self.outputs.stats.set(snapshot);
    }
}

/// What is read of a subscription that is over like this.
fn over(state: &SubscriberState) -> Upstream {
    match state {
        SubscriberState::Ended => Upstream::Ended(tokio::time::Instant::now()),
        SubscriberState::Refused(error) => Upstream::Failed(match error.stop_reason() {
            Some(reason) => UpstreamError::Stopped(reason),
            None => UpstreamError::Other(error.clone()),
        }),
        SubscriberState::Failed(error) => Upstream::Failed(UpstreamError::Other(error.clone())),
        _ => Upstream::Failed(UpstreamError::closed()),
    }
}
