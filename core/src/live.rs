//! The entry point.

use std::{fmt, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use iroh::{
    Endpoint, EndpointAddr, Watcher,
    protocol::{Router, RouterBuilder},
};
use iroh_gossip::net::Gossip;

use crate::{
    broadcast::LocalBroadcast,
    endpoint::{BindEndpointError, EndpointConfig},
    subscription::{SubscribeError, SubscriberBuilder, Subscription},
    ticket::{LiveTicket, ParseTicketError},
    transport::{BroadcastError, Limits, Moq, Policy, PublishError, alpns},
    util::{SecretKeyError, secret_key_in_env},
};

/// How long the first ticket waits for a relay.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(2);

/// Live media on one endpoint: publish, subscribe. Cheap to clone. When the last clone is dropped, all sessions are closed at
/// once; [`shutdown`](Self::shutdown) gives them a moment to deliver what was written. A router that the protocols were
/// [mounted on](Self::register_protocols) counts as a clone for as long as it runs.
///
/// ```no_run
/// # use iroh_live::{Live, LiveTicket, LocalBroadcast};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // Simple: from environment, accept incoming connections
/// let live = Live::from_env().await?.with_router().spawn();
///
/// let broadcast = LocalBroadcast::new();
/// live.publish("my-stream", &broadcast)?;
/// println!("{}", LiveTicket::new(live.endpoint().addr(), "my-stream"));
/// # live.shutdown().await;
/// # Ok(()) }
/// ```
///
/// ```no_run
/// # use iroh_live::{Live, iroh::Endpoint};
/// # async fn example(endpoint: Endpoint) -> Result<(), Box<dyn std::error::Error>> {
/// // With gossip, which rooms will need
/// let live = Live::from_env().await?.with_router().with_gossip().spawn();
/// // From an existing endpoint
/// let live = Live::builder(endpoint).with_router().with_gossip().spawn();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Live {
    endpoint: Endpoint,
    moq: Moq,
    gossip: Option<Gossip>,
    /// The gossip instance is this one's to shut down.
    own_gossip: bool,
    router: Option<Router>,
    online_timeout: Duration,
}

/// The ticket of a broadcast, again each time that it changes; see [`Live::watch_ticket`].
pub struct TicketWatcher {
    tickets: BoxStream<'static, LiveTicket>,
}

/// Makes a [`Live`].
#[derive(Debug)]
pub struct LiveBuilder {
    endpoint: Endpoint,
    policy: Policy,
    limits: Limits,
    router: bool,
    gossip: GossipChoice,
    online_timeout: Duration,
}

#[derive(Debug)]
enum GossipChoice {
    None,
    Own,
    External(Gossip),
}

/// [`Live::from_env`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FromEnvError {
    /// `IROH_SECRET` is set, but is not a key.
    #[error(transparent)]
    Secret(#[from] SecretKeyError),
    /// The endpoint could not be opened.
    #[error(transparent)]
    Bind(#[from] BindEndpointError),
}

impl Live {
    /// Begins with an endpoint made from the environment: the key in `IROH_SECRET`, number 0's relays and DNS.
    ///
    /// Without `IROH_SECRET` the identity is a new one each time, and so is the ticket; to keep it, set the variable, or
    /// use [`secret_key_from_file`](crate::util::secret_key_from_file) and [`builder`](Self::builder).
    ///
    /// # Errors
    /// See [`FromEnvError`].
    pub async fn from_env() -> Result<LiveBuilder, FromEnvError> {
        let config = EndpointConfig {
            secret_key: secret_key_in_env()?,
            ..EndpointConfig::default()
        };
        Ok(Self::builder(config.bind().await?))
    }

    /// Begins with an endpoint that is there already.
    ///
    /// Make it with [`EndpointConfig`], as [`EndpointConfig::local`] for a network without internet. One that is made
    /// otherwise should be given [`quic_config`](crate::transport::quic_config): MoQ wants more streams than iroh allows by
    /// default.
    pub fn builder(endpoint: Endpoint) -> LiveBuilder {
        LiveBuilder {
            endpoint,
            policy: Policy::default(),
            limits: Limits::default(),
            router: false,
            gossip: GossipChoice::None,
            online_timeout: ONLINE_TIMEOUT,
        }
    }

    /// Mounts the protocols on a router beside others. For a [`Live`] that was made without
    /// [`with_router`](LiveBuilder::with_router).
    ///
    /// A gossip instance that was made elsewhere is left to whoever made it. The router has no limit on connections that
    /// begin and go no further, unless it is given [`Moq::incoming_filter`].
    ///
    /// ```no_run
    /// # use iroh_live::{Live, iroh::{Endpoint, protocol::{ProtocolHandler, Router}}};
    /// # async fn example(live: Live, endpoint: Endpoint, other_handler: impl ProtocolHandler) {
    /// # let other_protocol = b"other/1";
    /// // Manual router mounting (when you have other protocols)
    /// let router = live.register_protocols(Router::builder(endpoint));
    /// let router = router.accept(other_protocol, other_handler);
    /// let router = router.spawn();
    /// # }
    /// ```
    pub fn register_protocols(&self, mut router: RouterBuilder) -> RouterBuilder {
        for alpn in alpns() {
            router = router.accept(alpn, self.moq.clone());
        }
        if let Some(gossip) = self.gossip.as_ref().filter(|_| self.own_gossip) {
            router = router.accept(iroh_gossip::ALPN, gossip.clone());
        }
        router
    }

    /// Offers a broadcast to all peers, those that are connected and those that come later.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(
        &self,
        name: impl Into<String>,
        broadcast: &LocalBroadcast,
    ) -> Result<(), PublishError> {
        self.moq.publish(name, broadcast)
    }

    /// Begins a subscription that lasts, to a broadcast of a peer: it need not be there yet, nor the peer.
    ///
    /// ```no_run
    /// # async fn example(live: iroh_live::Live, remote_addr: iroh_live::iroh::EndpointAddr) {
    /// let subscriber = live.subscriber(remote_addr, "stream").spawn();
    /// let broadcast = subscriber.broadcast();
    /// # }
    /// ```
    pub fn subscriber(
        &self,
        remote: impl Into<EndpointAddr>,
        name: impl Into<String>,
    ) -> SubscriberBuilder {
        SubscriberBuilder::new(&self.moq, remote.into(), name.into())
    }

    /// The same, to the broadcast that a ticket names.
    pub fn subscriber_of(&self, ticket: &LiveTicket) -> SubscriberBuilder {
        self.subscriber(ticket.addr().clone(), ticket.name())
    }

    /// Connects to a peer and subscribes to a broadcast of it.
    ///
    /// A name that the peer does not have is waited for; put a time limit around it where that is not wanted. A peer that
    /// cannot be reached is an error: [`subscriber`](Self::subscriber) waits for that as well. From then on the
    /// subscription lasts. Cancel safe.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe(
        &self,
        remote: impl Into<EndpointAddr>,
        name: &str,
    ) -> Result<Subscription, SubscribeError> {
        let remote = remote.into();
        loop {
            let session = self.moq.connect(remote.clone()).await?;
            match session.subscribe(name).await {
                Ok(broadcast) => {
                    let builder = self.subscriber(remote, name);
                    return Ok(Subscription::new(builder, session, broadcast));
                }
                Err(BroadcastError::Session(_)) if session.was_left_unused() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The ticket of a broadcast of this endpoint: the first one that [`watch_ticket`](Self::watch_ticket) gives. Cancel
    /// safe.
    ///
    /// # Errors
    /// [`ParseTicketError`] when the name cannot be part of a ticket, as when it is too long.
    pub async fn ticket(&self, name: &str) -> Result<LiveTicket, ParseTicketError> {
        let first = self.watch_ticket(name)?.next().await;
        // There is none where the endpoint was closed before.
        Ok(first.unwrap_or_else(|| LiveTicket::new(self.endpoint.addr(), name)))
    }

    /// Follows the ticket of a broadcast of this endpoint, whether it is published yet or not.
    ///
    /// The first ticket comes when a relay is connected, so that it can be used from everywhere, and after two seconds
    /// without one ([`LiveBuilder::online_timeout`]): it then still serves on networks where both ends see each other,
    /// and names no address at all on a machine without a network. After that comes a new one whenever the endpoint's
    /// addresses or its relay change; one that nobody waited for is left out for the next.
    ///
    /// # Errors
    /// [`ParseTicketError`] when the name cannot be part of a ticket, as when it is too long.
    pub fn watch_ticket(&self, name: &str) -> Result<TicketWatcher, ParseTicketError> {
        LiveTicket::new(self.endpoint.id(), name).check()?;
        let (endpoint, timeout) = (self.endpoint.clone(), self.online_timeout);
        let online = async move {
            let _ = tokio::time::timeout(timeout, endpoint.online()).await;
        };
        let addresses = self.endpoint.watch_addr();
        let name = name.to_owned();
        let tickets = stream::once(online)
            .flat_map(move |()| addresses.clone().stream())
            .map(move |address| LiveTicket::new(address, name.as_str()))
            .scan(None, |last, ticket| {
                let is_new = last.replace(ticket.clone()).as_ref() != Some(&ticket);
                std::future::ready(Some(is_new.then_some(ticket)))
            })
            .filter_map(std::future::ready)
            .take_until(self.endpoint.closed());
        Ok(TicketWatcher {
            tickets: tickets.boxed(),
        })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The transport below, for whoever needs single sessions.
    pub fn transport(&self) -> &Moq {
        &self.moq
    }

    /// The gossip instance, if there is one.
    pub fn gossip(&self) -> Option<&Gossip> {
        self.gossip.as_ref()
    }

    /// Ends everything: tells the peers, stops the router, closes the endpoint.
    ///
    /// What fails on the way is logged, and the rest goes on. Returns when the peers have been told, or a moment later
    /// when they do not answer. Safe to call again, also where it was cancelled before.
    pub async fn shutdown(&self) {
        self.moq.shutdown().await;
        if let Some(router) = &self.router
            && let Err(error) = router.shutdown().await
        {
            tracing::warn!(%error, "the router did not stop cleanly");
        }
        if let Some(gossip) = self.gossip.as_ref().filter(|_| self.own_gossip)
            && let Err(error) = gossip.shutdown().await
        {
            // As a rule, because the router has done it.
            tracing::debug!(%error, "gossip was stopped before");
        }
        self.endpoint.close().await;
    }
}

impl TicketWatcher {
    /// The next ticket; `None` when the endpoint was closed. Cancel safe.
    pub async fn next(&mut self) -> Option<LiveTicket> {
        self.tickets.next().await
    }
}

impl fmt::Debug for TicketWatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketWatcher").finish_non_exhaustive()
    }
}

impl LiveBuilder {
    /// Accepts sessions of peers. Without it, or a router of your own, this side can only dial.
    pub fn with_router(mut self) -> Self {
        self.router = true;
        self
    }

    /// Decides who may connect and who may watch what; without it everyone who has a ticket may.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// What a peer can make this side keep, instead of the usual [`Limits`]. Give the same to the
    /// [`EndpointConfig`] that the endpoint is made with.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long the first ticket waits for a relay, instead of two seconds.
    ///
    /// An endpoint does not say whether it has any relays: where it has none, make this zero.
    pub fn online_timeout(mut self, timeout: Duration) -> Self {
        self.online_timeout = timeout;
        self
    }

    /// Makes a gossip instance on the endpoint, for programs that gossip themselves; see [`Live::gossip`].
    ///
    /// Rooms will need it. There are none yet.
    pub fn with_gossip(mut self) -> Self {
        self.gossip = GossipChoice::Own;
        self
    }

    /// Uses a gossip instance that is there already, and mounted by its owner.
    pub fn gossip(mut self, gossip: Gossip) -> Self {
        self.gossip = GossipChoice::External(gossip);
        self
    }

    /// Starts. Must be called in a tokio runtime.
    pub fn spawn(self) -> Live {
        let moq = Moq::with_limits(self.endpoint.clone(), self.policy, self.limits);
        let (gossip, own_gossip) = match self.gossip {
            GossipChoice::None => (None, false),
            GossipChoice::Own => (Some(Gossip::builder().spawn(self.endpoint.clone())), true),
            GossipChoice::External(gossip) => (Some(gossip), false),
        };
        let mut live = Live {
            endpoint: self.endpoint,
            moq,
            gossip,
            own_gossip,
            router: None,
            online_timeout: self.online_timeout,
        };
        if self.router {
            let router =
                Router::builder(live.endpoint.clone()).incoming_filter(live.moq.incoming_filter());
            live.router = Some(live.register_protocols(router).spawn());
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const WAIT: Duration = Duration::from_millis(300);

    /// On an endpoint that has no relays.
    async fn local(online_timeout: Duration) -> Live {
        let mut config = EndpointConfig::local();
        config.bind = Some(([127, 0, 0, 1], 0).into());
        let endpoint = config.bind().await.unwrap();
        Live::builder(endpoint)
            .online_timeout(online_timeout)
            .spawn()
    }

    #[tokio::test]
    async fn a_ticket_follows_the_addresses_and_ends_with_the_endpoint() {
        let live = local(Duration::ZERO).await;
        let mut watcher = live.watch_ticket("stream").unwrap();
        let first = watcher.next().await.unwrap();
        assert_eq!(first.name(), "stream");
        let other = ([192, 0, 2, 7], 4433).into();
        live.endpoint().add_external_addr(other).await;
        // The endpoint may find other addresses of its own in between.
        let mut last = first;
        while !last.addr().ip_addrs().any(|address| *address == other) {
            let next = watcher.next().await.unwrap();
            assert_ne!(next, last, "the same ticket twice");
            last = next;
        }
        live.shutdown().await;
        while watcher.next().await.is_some() {}
        assert!(live.ticket("stream").await.is_ok());
    }

    #[tokio::test]
    async fn without_a_relay_the_first_ticket_waits_no_longer_than_it_is_told() {
        let live = local(WAIT).await;
        let start = Instant::now();
        let mut watcher = live.watch_ticket("stream").unwrap();
        // Whoever breaks off and asks again does not begin anew.
        while tokio::time::timeout(WAIT / 4, watcher.next())
            .await
            .is_err()
        {}
        assert!(start.elapsed() >= WAIT);
        live.shutdown().await;
    }

    #[tokio::test]
    async fn a_name_that_fits_no_ticket_is_an_error_at_once() {
        let live = local(Duration::ZERO).await;
        let long = "a".repeat(LiveTicket::MAX_LEN);
        assert!(matches!(
            live.watch_ticket(&long),
            Err(ParseTicketError::TooLong(_))
        ));
        assert!(live.ticket("").await.is_err());
        live.shutdown().await;
    }
}
