//! A subscription that lasts.

use std::time::Duration;

use iroh::EndpointAddr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use super::{
    actor::{Actor, Outputs, Target},
    state::SubscriberState,
};
use crate::{
    broadcast::{Activity, Lasting, RemoteBroadcast, Upstream},
    signals::{NetStats, NetworkSignals},
    transport::{Moq, MoqSession, WeakMoq},
};

/// Makes a [`Subscriber`]; see [`Live::subscriber`](crate::Live::subscriber).
#[derive(Debug, Clone)]
pub struct SubscriberBuilder {
    transport: WeakMoq,
    address: EndpointAddr,
    name: String,
    give_up_after: Option<Duration>,
}

impl SubscriberBuilder {
    pub(crate) fn new(transport: &Moq, address: EndpointAddr, name: String) -> Self {
        Self {
            transport: transport.downgrade(),
            address,
            name,
            give_up_after: None,
        }
    }

    /// Fails when the broadcast was not there for so long; without it, it is waited for as long as it takes.
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.give_up_after = Some(limit);
        self
    }

    /// Starts. Must be called in a tokio runtime.
    pub fn spawn(self) -> Subscriber {
        let (subscriber, actor) = self.build();
        let span = debug_span!("subscriber", name = subscriber.broadcast.name());
        tokio::spawn(actor.run().instrument(span));
        subscriber
    }

    /// The same with a broadcast that was found already.
    pub(super) fn spawn_with(self, session: MoqSession, broadcast: RemoteBroadcast) -> Subscriber {
        let (subscriber, mut actor) = self.build();
        let span = debug_span!("subscriber", name = subscriber.broadcast.name());
        // Before anybody looks.
        let work = actor.adopt(session, broadcast);
        tokio::spawn(actor.go_on(work).instrument(span));
        subscriber
    }

    fn build(self) -> (Subscriber, Actor) {
        let closing = CancellationToken::new();
        let activity = Activity::default();
        let (upstream, read) = watch::channel(Upstream::default());
        let outputs = Outputs {
            state: watch::Sender::default(),
            session: watch::Sender::default(),
            upstream,
            signals: watch::Sender::default(),
            stats: NetStats::new(),
            activity: activity.clone(),
        };
        let lasting = Lasting::new(read, activity, closing.clone().drop_guard());
        let subscriber = Subscriber {
            broadcast: RemoteBroadcast::lasting(self.name.clone(), lasting),
            state: outputs.state.subscribe(),
            session: outputs.session.subscribe(),
            signals: outputs.signals.subscribe(),
            stats: outputs.stats.clone(),
            closing: closing.clone(),
        };
        let target = Target {
            transport: self.transport,
            address: self.address,
            name: self.name,
        };
        let actor = Actor::new(target, outputs, self.give_up_after, closing);
        (subscriber, actor)
    }
}

/// A subscription that lasts: it connects, waits for the broadcast, and finds it again after lost connections, restarts of
/// the publisher, and changes of its address. Cheap to clone.
///
/// What reads from its [`broadcast`](Self::broadcast) goes on over all that. It ends when the publisher ends the broadcast,
/// or does not let this side watch, when it is [closed](Self::close), or given up after the time that it was told, and when the last clone
/// is dropped, with the last broadcast and all that reads from it.
///
/// ```no_run
/// # use iroh_live::{Live, LiveTicket, SubscriberState};
/// # use std::time::Duration;
/// # async fn example(live: Live, ticket: LiveTicket) -> Result<(), Box<dyn std::error::Error>> {
/// let subscriber = live.subscriber_of(&ticket).give_up_after(Duration::from_secs(600)).spawn();
/// let mut state = subscriber.state();
/// tokio::spawn(async move {
///     while state.changed().await.is_ok() {
///         println!("{}", *state.borrow_and_update());
///     }
/// });
/// let mut catalog = subscriber.broadcast().catalog().await?;
/// while let Some(catalog) = catalog.next().await? {
///     println!("{:?}", catalog.video.renditions.keys());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Subscriber {
    broadcast: RemoteBroadcast,
    state: watch::Receiver<SubscriberState>,
    session: watch::Receiver<Option<MoqSession>>,
    signals: watch::Receiver<NetworkSignals>,
    stats: NetStats,
    closing: CancellationToken,
}

impl Subscriber {
    /// How it stands, as it changes. A receiver does not keep the subscription.
    pub fn state(&self) -> watch::Receiver<SubscriberState> {
        self.state.clone()
    }

    /// The broadcast. It can be read before it is there: what reads from it waits.
    pub fn broadcast(&self) -> &RemoteBroadcast {
        &self.broadcast
    }

    /// The session with the publisher, if there is one now.
    pub fn session(&self) -> Option<MoqSession> {
        self.session.borrow().as_ref()?.held()
    }

    /// The same as it changes, in handles that do not keep it.
    pub fn sessions(&self) -> watch::Receiver<Option<MoqSession>> {
        self.session.clone()
    }

    /// The state of the network, of whichever session is used, and how old the last frame is; every 200 ms.
    pub fn signals(&self) -> watch::Receiver<NetworkSignals> {
        self.signals.clone()
    }

    /// Statistics, for a display, of whichever session is used.
    pub fn stats(&self) -> NetStats {
        self.stats.clone()
    }

    /// Ends it, whoever else has it. What reads from it gets an error.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Waits until it is over, and says how. Cancel safe.
    pub async fn closed(&self) -> SubscriberState {
        let mut state = self.state.clone();
        let last = state.wait_for(SubscriberState::is_final).await;
        // An error: its runtime is gone.
        last.map_or(SubscriberState::Closed, |state| state.clone())
    }
}
