//! What a connection says of the network, for whoever adapts to it and for whoever looks at it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::Connection;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span};

use crate::transport::{Link, PathInfo, PathKind, TrafficBytes};

/// How often signals and statistics are taken.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// The state of a connection over the last [`INTERVAL`].
///
/// What is taken first, when nothing has passed yet, has the round-trip time and the bandwidth as they stand, and no
/// rates and no loss. While [`path`](Self::path) is [`PathKind::None`] nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct NetworkSignals {
    /// Smoothed round-trip time of the path in use, and at least for how long something that was sent has been without an
    /// answer.
    pub rtt: Duration,
    /// How long nothing at all has come from the peer, within an [`INTERVAL`]. Who is there says something each second.
    pub silence: Duration,
    /// Of the packets that this side sent in the interval, or found lost in it, the share that was lost: 0 to 1. What the
    /// peer's packets lose is not known here. When nothing has come for 1.5 s, and something that was sent is without an
    /// answer, all is lost: 1.
    pub loss_rate: f64,
    /// What can be sent, bits per second: the congestion controller's own estimate where it has one, else its window
    /// over the round-trip time. While little is sent it keeps its last value, also where the path has become thinner;
    /// once that shows in what is lost, it is what arrives. Zero where nothing is known: when nothing has come for 1.5 s.
    pub available_bandwidth: u64,
    /// What the peer says that it can send to this side, bits per second: the same estimate of its own congestion
    /// controller.
    ///
    /// `None` where the peer's version of MoQ does not carry it, where its controller makes no such estimate, and from
    /// [`spawn_signal_producer`], which knows of QUIC alone; and while nothing comes from the peer. An idle path is not
    /// explored: the figure may lie far below what there is.
    pub download_bandwidth: Option<u64>,
    /// How much later than at best what the peer sends arrives, by the timestamps of the media that is read of it: a queue
    /// on the way down. A rise of [`rtt`](Self::rtt) that this explains is none of the way up.
    ///
    /// Zero where no [`AdaptiveReader`](crate::AdaptiveReader) reads what the peer sends, and from
    /// [`spawn_signal_producer`].
    pub download_delay: Duration,
    /// What was received in the interval, bits per second.
    pub receive_rate: u64,
    /// What was sent in the interval, bits per second, with all that QUIC adds and sends again.
    pub send_rate: u64,
    /// How long ago the last frame came, of whatever is read of the broadcast; `None` before the first. Only a
    /// [`Subscriber`](crate::Subscriber) and a [`Subscription`](crate::Subscription) know it.
    pub last_frame_age: Option<Duration>,
    /// Congestion events since the connection began; never falls, also when the path changes.
    pub congestion_events: u64,
    /// Direct or relayed.
    pub path: PathKind,
}

/// Makes [`NetworkSignals`] of a connection's counters. A plain state machine: it is given the time.
#[derive(Debug, Default)]
pub struct SignalMeter {
    last: Option<Sample>,
    /// The connections and paths that were in use before, as they were left, the latest last: when one of them is used again,
    /// its counters go on from there.
    left: VecDeque<(usize, PathInfo)>,
    congestion_events: u64,
    /// Whether the peer says anything at all when it is asked.
    answers: Unanswered,
    /// Whether it acknowledges what streams carry, where what it sends comes through and nothing else does.
    acknowledgements: Unanswered,
    /// When anything came last.
    received: Duration,
}

/// Since when something that was sent is without an answer.
#[derive(Debug, Default)]
struct Unanswered {
    asked: u64,
    answers: u64,
    since: Option<Duration>,
}

impl Unanswered {
    /// Takes the counters of what asks for an answer and of answers, at `now`; says for how long there was none.
    fn sample(&mut self, now: Duration, asked: u64, answers: u64) -> Duration {
        if answers != self.answers {
            // What was asked in the meantime may be answered, or not yet.
            self.since = None;
        } else if asked != self.asked {
            // Some time since the last look.
            self.since.get_or_insert(now);
        }
        (self.asked, self.answers) = (asked, answers);
        self.since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// A silence that is longer than what peers usually leave between two packets: what was before counts no more.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);

/// How many paths are remembered. There is a handful at a time.
const PATHS: usize = 8;

/// The counters of a connection at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Sample {
    /// When they were read, from any fixed point.
    pub at: Duration,
    /// Which connection these are of; another one begins its counters anew.
    pub connection: usize,
    /// The path in use.
    pub path: PathInfo,
    /// What the peer says that it can send, bits per second.
    pub download_bandwidth: Option<u64>,
    /// How much later than at best what the peer sends arrives.
    pub download_delay: Duration,
    /// Bytes received on all paths.
    pub received_bytes: u64,
    /// Bytes sent on all paths.
    pub sent_bytes: u64,
    /// Packets received on all paths.
    pub received_packets: u64,
    /// Acknowledgements received on all paths.
    pub acknowledgements: u64,
    /// Frames of streams sent on all paths.
    pub stream_frames: u64,
    /// Frames sent on all paths that ask for an answer, those of streams too.
    pub questions: u64,
    /// What has gone over the session so far, over other connections too.
    pub traffic: TrafficBytes,
}

/// What is measured: what carries a session at the time, and what the layers above it know of the way down.
pub(crate) struct Measured {
    pub(crate) link: Link,
    /// What has gone over the session so far.
    pub(crate) traffic: TrafficBytes,
    /// What the peer says that it can send, bits per second.
    pub(crate) download_bandwidth: Option<u64>,
    /// How much later than at best what it sends arrives.
    pub(crate) download_delay: Duration,
}

impl Sample {
    fn of(measured: &Measured, at: Duration) -> Self {
        let link = &measured.link;
        let traffic = link.traffic();
        Self {
            at,
            connection: link.id(),
            path: link.path(),
            download_bandwidth: measured.download_bandwidth,
            download_delay: measured.download_delay,
            received_bytes: traffic.received_bytes,
            sent_bytes: traffic.sent_bytes,
            received_packets: traffic.received_packets,
            acknowledgements: traffic.acknowledgements,
            stream_frames: traffic.stream_frames,
            questions: traffic.questions,
            traffic: measured.traffic,
        }
    }
}

impl SignalMeter {
    /// What the counters say, against those before.
    pub fn sample(&mut self, sample: Sample) -> NetworkSignals {
        let path = &sample.path;
        let last = self.last.take();
        let before = self.before(&sample, last.as_ref());
        // The counters of another connection have nothing to do with these.
        let last = last.filter(|last| last.connection == sample.connection);
        if last.is_none() {
            self.answers = Unanswered::default();
            self.acknowledgements = Unanswered::default();
        }
        let (unanswered, silence) = self.silence(&sample, last.as_ref());
        let silent = silence >= SILENCE;
        let available = path.rate.unwrap_or_else(|| window_rate(path));
        let mut signals = NetworkSignals {
            rtt: path.rtt.max(unanswered),
            silence,
            available_bandwidth: if silent { 0 } else { available },
            download_bandwidth: sample.download_bandwidth.filter(|_| !silent),
            download_delay: sample.download_delay,
            path: path.kind,
            ..NetworkSignals::default()
        };
        if let Some(last) = last {
            let elapsed = sample.at.saturating_sub(last.at).as_secs_f64();
            if elapsed > 0.0 {
                let rate =
                    |now: u64, before| (now.saturating_sub(before) as f64 * 8.0 / elapsed) as u64;
                signals.receive_rate = rate(sample.received_bytes, last.received_bytes);
                signals.send_rate = rate(sample.sent_bytes, last.sent_bytes);
            }
            let sent = path.sent_packets.saturating_sub(before.sent_packets);
            let lost = path.lost_packets.saturating_sub(before.lost_packets);
            if silent && unanswered > Duration::ZERO {
                signals.loss_rate = 1.0;
            } else if sent + lost > 0 {
                signals.loss_rate = lost as f64 / (sent + lost) as f64;
            }
        }
        self.congestion_events += path
            .congestion_events
            .saturating_sub(before.congestion_events);
        signals.congestion_events = self.congestion_events;
        self.last = Some(sample);
        signals
    }

    /// For how long something that was sent is without an answer, and nothing has come.
    fn silence(&mut self, sample: &Sample, last: Option<&Sample>) -> (Duration, Duration) {
        let now = sample.at;
        if last.is_none_or(|last| last.received_packets != sample.received_packets) {
            self.received = now;
        }
        let answers = self
            .answers
            .sample(now, sample.questions, sample.received_packets);
        let acknowledgements = &mut self.acknowledgements;
        let acknowledged =
            acknowledgements.sample(now, sample.stream_frames, sample.acknowledgements);
        (answers.max(acknowledged), now.saturating_sub(self.received))
    }

    /// The counters of the path in use when they were looked at last. Those of another path, or of another connection, have
    /// nothing to do with them; a path that was never in use begins at zero.
    fn before(&mut self, sample: &Sample, last: Option<&Sample>) -> PathInfo {
        let is_used = |(connection, path): &(usize, PathInfo)| {
            *connection == sample.connection && path.is_same_path(&sample.path)
        };
        if let Some(last) = last {
            let last = (last.connection, last.path.clone());
            if is_used(&last) {
                return last.1;
            }
            if self.left.len() == PATHS {
                self.left.pop_front();
            }
            self.left.push_back(last);
        }
        let known = self.left.iter().position(is_used);
        known
            .and_then(|at| self.left.remove(at))
            .map(|(_, path)| path)
            .unwrap_or_default()
    }
}

/// Congestion window over round-trip time, bits per second.
fn window_rate(path: &PathInfo) -> u64 {
    let rtt = path.rtt.as_secs_f64();
    if rtt > 0.0 {
        (path.cwnd as f64 * 8.0 / rtt) as u64
    } else {
        0
    }
}

/// Takes signals of a connection every [`INTERVAL`] until it ends or `shutdown` is cancelled.
///
/// Must be called in a tokio runtime. [`MoqSession::signals`](crate::MoqSession::signals) knows more.
///
/// ```no_run
/// # use iroh_live::{MoqSession, util::spawn_signal_producer};
/// # use tokio_util::sync::CancellationToken;
/// # async fn example(session: MoqSession) -> Result<(), Box<dyn std::error::Error>> {
/// let shutdown = CancellationToken::new();
/// let mut signals = spawn_signal_producer(&session.connection(), shutdown.clone());
/// signals.changed().await?;
/// println!("{:?}", signals.borrow().rtt);
/// shutdown.cancel();
/// # Ok(()) }
/// ```
pub fn spawn_signal_producer(
    connection: &Connection,
    shutdown: CancellationToken,
) -> watch::Receiver<NetworkSignals> {
    let (sender, receiver) = watch::channel(NetworkSignals::default());
    let sampling = sample(weakly(connection), shutdown, move |_, signals| {
        sender.send_replace(signals);
    });
    sampling.map(tokio::spawn);
    receiver
}

/// What is measured of a session.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub(crate) signals: watch::Receiver<NetworkSignals>,
    pub(crate) stats: NetStats,
}

impl Sampled {
    /// Measures what `look` gives, until the session ends. The task is to be spawned where it lives as long.
    pub(crate) fn begin(
        look: impl Fn() -> Option<Measured> + Send + 'static,
        ended: CancellationToken,
    ) -> (Self, Option<impl Future<Output = ()> + Send + 'static>) {
        let (sender, signals) = watch::channel(NetworkSignals::default());
        let stats = NetStats::new();
        let record = stats.clone();
        let sampling = sample(look, ended, move |sample, signals| {
            record.record(sample, signals);
            sender.send_replace(signals);
        });
        (Self { signals, stats }, sampling)
    }
}

/// What is known of a connection, for a display. Cheap to clone; clones show the same.
#[derive(Debug, Clone, Default)]
pub struct NetStats {
    inner: Arc<Mutex<NetSnapshot>>,
}

/// [`NetStats`] at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct NetSnapshot {
    /// The signals.
    pub signals: NetworkSignals,
    /// The path in use.
    pub path: PathInfo,
    /// How often the path changed.
    pub path_changes: u32,
    /// What has gone over it so far: over all connections that have carried a session, and over all sessions of a
    /// [`Subscriber`](crate::Subscriber).
    pub traffic: TrafficBytes,
}

impl NetStats {
    /// Statistics that nothing is recorded in yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was recorded last.
    pub fn snapshot(&self) -> NetSnapshot {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Shows this from now on.
    pub(crate) fn set(&self, snapshot: NetSnapshot) {
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    fn record(&self, sample: &Sample, signals: NetworkSignals) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.path.kind != PathKind::None;
        let moved = !inner.path.is_same_path(&sample.path);
        inner.path_changes += u32::from(known && moved);
        inner.path = sample.path.clone();
        inner.traffic = sample.traffic;
        inner.signals = signals;
    }
}

/// Records statistics of a connection every [`INTERVAL`] until it ends or `shutdown` is cancelled.
///
/// Must be called in a tokio runtime. A [`Subscription`](crate::Subscription) does so by itself.
///
/// ```no_run
/// # use iroh_live::{NetStats, iroh::endpoint::Connection, util::spawn_stats_recorder};
/// # use tokio_util::sync::CancellationToken;
/// # async fn example(connection: Connection) {
/// let (stats, shutdown) = (NetStats::new(), CancellationToken::new());
/// spawn_stats_recorder(&connection, stats.clone(), shutdown.clone());
/// println!("{:?}", stats.snapshot().path);
/// # }
/// ```
pub fn spawn_stats_recorder(
    connection: &Connection,
    net_stats: NetStats,
    shutdown: CancellationToken,
) {
    let sampling = sample(weakly(connection), shutdown, move |sample, signals| {
        net_stats.record(sample, signals);
    });
    sampling.map(tokio::spawn);
}

/// A connection to be looked at. A strong handle would keep it open after everybody else has let go of it.
fn weakly(connection: &Connection) -> impl Fn() -> Option<Measured> + Send + 'static {
    let link = Link::from(connection.clone()).weak();
    move || {
        let link = link.upgrade()?;
        Some(Measured {
            traffic: link.traffic().bytes(),
            link,
            download_bandwidth: None,
            download_delay: Duration::ZERO,
        })
    }
}

/// Takes samples of what `look` gives, until it gives nothing or what has ended, or `shutdown` is cancelled.
///
/// The first is taken at once, so that nobody takes what was not measured yet for a connection that carries nothing. The
/// rest is for whoever spawns what this gives.
fn sample(
    look: impl Fn() -> Option<Measured> + Send + 'static,
    shutdown: CancellationToken,
    mut take: impl FnMut(&Sample, NetworkSignals) + Send + 'static,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let begun = Instant::now();
    let mut meter = SignalMeter::default();
    let mut measure = move || {
        let measured = look().filter(|measured| measured.link.is_alive())?;
        let sample = Sample::of(&measured, begun.elapsed());
        take(&sample, meter.sample(sample.clone()));
        Some(measured.link.remote_id())
    };
    let peer = measure()?;
    let span = debug_span!("signals", peer = %peer.fmt_short());
    let sampling = async move {
        let mut interval = tokio::time::interval_at(begun + INTERVAL, INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = shutdown.cancelled() => return,
            }
            if measure().is_none() {
                return;
            }
        }
    };
    Some(sampling.instrument(span))
}

#[cfg(test)]
mod tests;
