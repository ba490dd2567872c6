//! Dialling: a connection to a peer, and MoQ on it.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use iroh::{
    Endpoint, EndpointAddr, TransportAddr,
    endpoint::{ConnectOptions, Connection, ConnectionError},
};
use moq_lite::Client;
use tokio::time::{error::Elapsed, sleep, timeout};
use tracing::{Span, debug};

use super::{
    alpns, carriers::Carrier, close::CloseCode, error::ConnectError, now, origins::Origins,
    peer::Peer, quic::QuicSession, registry::Registry,
};

/// How long a peer that does not answer is dialled.
const REACH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one handshake may take: more than a round trip on the worst of paths.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// How long after one handshake the next one begins, beside those that wait for an answer. QUIC tries less and less often
/// to get through, with gaps of up to 1.2 s within [`HANDSHAKE`], and would sleep through the moment at which the peer can
/// be reached again. With three at a time something is sent every 600 ms.
const REACH_AGAIN: Duration = Duration::from_secs(1);

/// How many addresses of a peer are dialled, and how many relays: a ticket may come from anybody, and must not make this
/// side send packets to half the world.
const MAX_ADDRESSES: usize = 32;
const MAX_RELAYS: usize = 4;

/// The same address with no more ways to the peer than are tried.
pub(super) fn limited(address: EndpointAddr) -> EndpointAddr {
    let mut relays = 0;
    let mut others = 0;
    let ways = address.addrs.into_iter().filter(|way| {
        let (count, most) = match way {
            TransportAddr::Relay(_) => (&mut relays, MAX_RELAYS),
            _ => (&mut others, MAX_ADDRESSES),
        };
        *count += 1;
        *count <= most
    });
    EndpointAddr::from_parts(address.id, ways.collect::<Vec<_>>())
}

/// Connects. Until there is an answer, another attempt begins every now and then.
///
/// iroh asks its address lookup on each attempt, whatever addresses are given, unless another connection to the peer has a
/// path in use. Then all attempts go over that path: a peer that is elsewhere now is found when that connection is given up.
pub(super) async fn reach(
    endpoint: &Endpoint,
    address: &EndpointAddr,
) -> Result<Connection, ConnectError> {
    let begin = || {
        let (endpoint, address) = (endpoint.clone(), address.clone());
        async move {
            let mut alpns = alpns();
            let first = alpns.next().unwrap_or_default();
            let others = alpns.map(<[u8]>::to_vec).collect();
            let options = ConnectOptions::new().with_additional_alpns(others);
            // It looks for addresses, which may take as long as it likes.
            let connecting = endpoint.connect_with_opts(address, first, options);
            let connecting = connecting.await.map_err(ConnectError::Unreachable)?;
            Ok(connecting.map(|connected| connected.map_err(ConnectError::connecting)))
        }
    };
    // The peer may know of it.
    let unused = |connection: Connection| connection.close(CloseCode::UNUSED.into(), b"given up");
    let answered = timeout(REACH_TIMEOUT, first_answer(begin, unused)).await;
    answered.unwrap_or(Err(ConnectError::NoAnswer(REACH_TIMEOUT)))
}

/// The first answer that an attempt gets. Each begins with `begin`, and then waits for its answer for [`HANDSHAKE`], while
/// others begin. What others were answered at the same time goes to `unused`. Cancel safe.
async fn first_answer<T, E, A, B>(begin: impl Fn() -> B, unused: impl Fn(T)) -> Result<T, E>
where
    A: Future<Output = Result<T, E>>,
    B: Future<Output = Result<A, E>>,
{
    let mut attempts = FuturesUnordered::new();
    loop {
        let beginning = begin();
        tokio::pin!(beginning);
        let attempt = loop {
            tokio::select! {
                biased;
                Some(answer) = attempts.next() => if let Ok(answer) = answer {
                    return settle(answer, attempts, unused);
                },
                begun = &mut beginning => break begun?,
            }
        };
        attempts.push(timeout(HANDSHAKE, attempt));
        let again = sleep(REACH_AGAIN);
        tokio::pin!(again);
        loop {
            tokio::select! {
                biased;
                Some(answer) = attempts.next() => match answer {
                    Ok(answer) => return settle(answer, attempts, unused),
                    Err(_) => debug!("no answer yet"),
                },
                () = &mut again => break,
            }
        }
    }
}

/// Lets go of the attempts that are not needed any more.
fn settle<T, E>(
    answer: Result<T, E>,
    mut attempts: FuturesUnordered<impl Future<Output = Result<Result<T, E>, Elapsed>>>,
    unused: impl Fn(T),
) -> Result<T, E> {
    while let Some(Some(other)) = attempts.next().now_or_never() {
        if let Ok(Ok(other)) = other {
            unused(other);
        }
    }
    answer
}

/// Begins MoQ on a connection that this side has dialled, and waits until the peer has let this side in.
pub(super) async fn begin(
    registry: &Arc<Registry>,
    peer: &Peer,
    connection: &Connection,
    origins: &Origins,
    span: &Span,
) -> Result<Carrier, ConnectError> {
    let limits = registry.limiter.guard(connection.clone());
    let quic = QuicSession::new(limits.clone());
    let (answered, leases) = (quic.answered(), quic.leases());
    let client = Client::new()
        .with_publisher(&origins.local)
        .with_subscriber(origins.remote.clone());
    let handshake = async {
        let (moq, driver) = client
            .connect(now(), quic)
            .await
            .map_err(ConnectError::Handshake)?;
        // Goes before the session does, which would tell the peer something else.
        let guard = CloseGuard::new(peer, connection);
        registry.drive_session(driver, &limits, origins, span);
        // Most versions of MoQ let the dialer begin before the peer has said anything. A person may have to decide there.
        answered.await;
        guard.disarm();
        Ok(moq)
    };
    let ended = |reason| match reason {
        ConnectionError::LocallyClosed | ConnectionError::TransportError(_)
            if registry.is_offline() =>
        {
            ConnectError::Shutdown
        }
        reason => ConnectError::ended(reason),
    };
    let moq = tokio::select! {
        answered = handshake => answered.map_err(|error| match connection.close_reason() {
            Some(reason) => ended(reason),
            None => error,
        })?,
        reason = connection.closed() => return Err(ended(reason)),
    };
    Ok(Carrier::new(limits, leases, moq, false))
}

/// Closes a connection that was dialled, unless a session was made of it.
pub(super) struct CloseGuard<'a> {
    peer: &'a Peer,
    connection: Option<&'a Connection>,
}

impl<'a> CloseGuard<'a> {
    pub(super) fn new(peer: &'a Peer, connection: &'a Connection) -> Self {
        Self {
            peer,
            connection: Some(connection),
        }
    }

    pub(super) fn disarm(mut self) {
        self.connection = None;
    }
}

impl Drop for CloseGuard<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection else {
            return;
        };
        let (code, reason) = if self.peer.is_connected() {
            (CloseCode::SUPERSEDED, &b"another connection is in use"[..])
        } else {
            // The peer may have it as its session already, and need one: it then dials.
            (CloseCode::UNUSED, &b"given up"[..])
        };
        connection.close(code.into(), reason);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        net::{Ipv4Addr, SocketAddr},
        rc::Rc,
    };

    use iroh::SecretKey;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_ticket_cannot_make_this_side_dial_half_the_world() {
        let ways = (0..1000_u16)
            .map(|port| TransportAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        let relays = (0..10).map(|number| {
            let url = format!("https://relay-{number}.example.org").parse();
            TransportAddr::Relay(url.expect("it is one"))
        });
        let id = SecretKey::generate().public();
        let address = EndpointAddr::from_parts(id, ways.chain(relays).collect::<Vec<_>>());
        let limited = limited(address);
        assert_eq!(limited.ip_addrs().count(), MAX_ADDRESSES);
        assert_eq!(limited.relay_urls().count(), MAX_RELAYS);
    }

    /// Dials a peer: `answers` says how long an attempt that begins at a time waits for its answer. Says when there was an
    /// answer, which attempt it was of, how many there were at most at a time, and which were answered for nothing.
    async fn dial(
        answers: impl Fn(Duration) -> Option<Duration>,
    ) -> (Duration, Result<usize, &'static str>, usize, Vec<usize>) {
        let begun_at = Instant::now();
        let (count, running, most) = (Cell::new(0), Rc::new(Cell::new(0)), Cell::new(0));
        let begin = || {
            let number = count.replace(count.get() + 1);
            let running = Running::begin(&running);
            most.set(most.get().max(running.0.get()));
            let answer = answers(begun_at.elapsed());
            std::future::ready(Ok(async move {
                let _running = running;
                match answer {
                    Some(after) => sleep(after).await,
                    None => std::future::pending().await,
                }
                Ok(number)
            }))
        };
        let unused = RefCell::new(Vec::new());
        let answer = first_answer(begin, |number| unused.borrow_mut().push(number)).await;
        assert_eq!(running.get(), 0, "none goes on");
        (begun_at.elapsed(), answer, most.get(), unused.into_inner())
    }

    /// An attempt, until it is dropped.
    struct Running(Rc<Cell<usize>>);

    impl Running {
        fn begin(running: &Rc<Cell<usize>>) -> Self {
            running.set(running.get() + 1);
            Self(running.clone())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_comes_back_is_found_within_a_second() {
        // What was sent before it is there is lost.
        let back = SECOND * 7 / 2;
        let found = dial(|begun| (begun >= back).then_some(SECOND / 20)).await;
        assert_eq!(found, (SECOND * 4 + SECOND / 20, Ok(4), 3, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_way_is_no_hindrance() {
        let found = dial(|_| Some(SECOND * 5 / 2)).await;
        assert_eq!(found, (SECOND * 5 / 2, Ok(0), 3, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_too_late_is_given_back() {
        let found = dial(|begun| Some(SECOND * 2 - begun)).await;
        // All are answered at the same time.
        let (after, first, _, mut unused) = found;
        unused.push(first.unwrap());
        unused.sort_unstable();
        assert_eq!((after, unused), (SECOND * 2, vec![0, 1]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_is_the_answer() {
        let begin = async || {
            Ok(async {
                sleep(SECOND / 2).await;
                Err::<(), _>("somebody else")
            })
        };
        assert_eq!(first_answer(begin, drop).await, Err("somebody else"));
        let begin = async || Err::<std::future::Pending<Result<(), _>>, _>("no address");
        assert_eq!(first_answer(begin, drop).await, Err("no address"));
    }
}
