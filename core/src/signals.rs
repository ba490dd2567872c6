//! What a connection says of the network, for whoever adapts to it and for whoever looks at it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use iroh::endpoint::{Connection, WeakConnectionHandle};
use moq_lite::bandwidth;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug_span};

use crate::{
    broadcast::Readers,
    transport::{PathInfo, PathKind},
};

/// How often signals and statistics are taken.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// The state of a connection over the last [`INTERVAL`].
///
/// What is taken first, when nothing has passed yet, has the round-trip time and the bandwidth as they stand, and no
/// rates and no loss. While [`path`](Self::path) is [`PathKind::None`] nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct NetworkSignals {
    /// Smoothed round-trip time of the path in use.
    pub rtt: Duration,
    /// Of the packets that this side sent in the interval, or found lost in it, the share that was lost: 0 to 1. What the
    /// peer's packets lose is not known here.
    pub loss_rate: f64,
    /// What can be sent, bits per second: the congestion controller's own estimate where it has one, else its window
    /// over the round-trip time. While little is sent it keeps its last value, also where the path has become thinner;
    /// once that shows in what is lost, it is what arrives.
    pub available_bandwidth: u64,
    /// What the peer says that it can send to this side, bits per second: the same estimate of its own congestion
    /// controller.
    ///
    /// `None` where the peer's version of MoQ does not carry it, where its controller makes no such estimate, and from
    /// [`spawn_signal_producer`], which knows of QUIC alone. An idle path is not explored: the figure may lie far below
    /// what there is.
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
    /// Congestion events since the connection began; never falls, also when the path changes.
    pub congestion_events: u64,
    /// Direct or relayed.
    pub path: PathKind,
}

/// Makes [`NetworkSignals`] of a connection's counters. A plain state machine: it is given the time.
#[derive(Debug, Default)]
pub struct SignalMeter {
    last: Option<Sample>,
    /// The paths that were in use before, as they were left, the latest last: when one of them is used again, its counters
    /// go on from there.
    left: VecDeque<PathInfo>,
    congestion_events: u64,
}

/// How many paths are remembered. A connection has a handful at a time.
const PATHS: usize = 8;

/// The counters of a connection at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Sample {
    /// When they were read, from any fixed point.
    pub at: Duration,
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
}

/// What the layers above QUIC know of the way down.
#[derive(Default)]
struct Download {
    /// What the peer says that it can send.
    rate: Option<bandwidth::Consumer>,
    /// Who reads what it sends.
    readers: Readers,
}

impl Sample {
    fn of(connection: &Connection, download: &Download, at: Duration) -> Self {
        let stats = connection.stats();
        let rate = download.rate.as_ref();
        let delay = download.readers.download_delay(std::time::Instant::now());
        Self {
            at,
            path: PathInfo::of(connection),
            download_bandwidth: rate.and_then(|rate| Some(rate.peek()?.as_bps())),
            download_delay: delay.unwrap_or_default(),
            received_bytes: stats.udp_rx.bytes,
            sent_bytes: stats.udp_tx.bytes,
        }
    }
}

impl SignalMeter {
    /// What the counters say, against those before.
    pub fn sample(&mut self, sample: Sample) -> NetworkSignals {
        let path = &sample.path;
        let mut signals = NetworkSignals {
            rtt: path.rtt,
            available_bandwidth: path.rate.unwrap_or_else(|| window_rate(path)),
            download_bandwidth: sample.download_bandwidth,
            download_delay: sample.download_delay,
            path: path.kind,
            ..NetworkSignals::default()
        };
        if let Some(last) = self.last.take() {
            let elapsed = sample.at.saturating_sub(last.at).as_secs_f64();
            if elapsed > 0.0 {
                let rate =
                    |now: u64, before| (now.saturating_sub(before) as f64 * 8.0 / elapsed) as u64;
                signals.receive_rate = rate(sample.received_bytes, last.received_bytes);
                signals.send_rate = rate(sample.sent_bytes, last.sent_bytes);
            }
            let before = self.before(path, last.path);
            let sent = path.sent_packets.saturating_sub(before.sent_packets);
            let lost = path.lost_packets.saturating_sub(before.lost_packets);
            if sent + lost > 0 {
                signals.loss_rate = lost as f64 / (sent + lost) as f64;
            }
            self.congestion_events += path
                .congestion_events
                .saturating_sub(before.congestion_events);
        } else {
            self.congestion_events = path.congestion_events;
        }
        signals.congestion_events = self.congestion_events;
        self.last = Some(sample);
        signals
    }

    /// The counters of `path` when they were looked at last. Those of another path have nothing to do with them; a path
    /// that was never in use begins at zero.
    fn before(&mut self, path: &PathInfo, last: PathInfo) -> PathInfo {
        if last.is_same_path(path) {
            return last;
        }
        if self.left.len() == PATHS {
            self.left.pop_front();
        }
        self.left.push_back(last);
        let known = self.left.iter().position(|left| left.is_same_path(path));
        known
            .and_then(|at| self.left.remove(at))
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
/// let mut signals = spawn_signal_producer(session.connection(), shutdown.clone());
/// signals.changed().await?;
/// println!("{:?}", signals.borrow().rtt);
/// shutdown.cancel();
/// # Ok(()) }
/// ```
pub fn spawn_signal_producer(
    connection: &Connection,
    shutdown: CancellationToken,
) -> watch::Receiver<NetworkSignals> {
    let sampler = Sampler::new(connection, Download::default());
    let (sender, receiver) = watch::channel(sampler.signals);
    sampler.spawn(shutdown, move |_, signals| {
        sender.send_replace(signals);
    });
    receiver
}

/// What is measured of a session.
#[derive(Debug)]
pub(crate) struct Sampled {
    pub(crate) signals: watch::Receiver<NetworkSignals>,
    pub(crate) stats: NetStats,
}

impl Sampled {
    /// Begins to measure, until the session ends.
    pub(crate) fn spawn(
        connection: &Connection,
        rate: Option<bandwidth::Consumer>,
        readers: Readers,
        ended: CancellationToken,
    ) -> Self {
        let sampler = Sampler::new(connection, Download { rate, readers });
        let (sender, signals) = watch::channel(sampler.signals);
        let stats = NetStats::new();
        stats.record(&sampler.first, sampler.signals);
        let record = stats.clone();
        sampler.spawn(ended, move |sample, signals| {
            record.record(sample, signals);
            sender.send_replace(signals);
        });
        Self { signals, stats }
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

    fn record(&self, sample: &Sample, signals: NetworkSignals) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.path.kind != PathKind::None;
        let moved = !inner.path.is_same_path(&sample.path);
        inner.path_changes += u32::from(known && moved);
        inner.path = sample.path.clone();
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
    let sampler = Sampler::new(connection, Download::default());
    net_stats.record(&sampler.first, sampler.signals);
    sampler.spawn(shutdown, move |sample, signals| {
        net_stats.record(sample, signals);
    });
}

/// Takes samples of a connection. The first is there at once, so that nobody takes what was not measured yet for a
/// connection that carries nothing.
struct Sampler {
    connection: WeakConnectionHandle,
    download: Download,
    meter: SignalMeter,
    begun: Instant,
    first: Sample,
    signals: NetworkSignals,
    span: Span,
}

impl Sampler {
    fn new(connection: &Connection, download: Download) -> Self {
        let mut meter = SignalMeter::default();
        let first = Sample::of(connection, &download, Duration::ZERO);
        Self {
            signals: meter.sample(first.clone()),
            first,
            meter,
            begun: Instant::now(),
            download,
            span: debug_span!("signals", peer = %connection.remote_id().fmt_short()),
            // A strong handle would keep the connection open after everybody else has let go of it.
            connection: connection.weak_handle(),
        }
    }

    /// Goes on in a task, until the connection ends or `shutdown` is cancelled.
    fn spawn(
        mut self,
        shutdown: CancellationToken,
        mut take: impl FnMut(&Sample, NetworkSignals) + Send + 'static,
    ) {
        let span = self.span.clone();
        let sampling = async move {
            let mut interval = tokio::time::interval_at(self.begun + INTERVAL, INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = interval.tick() => {}
                    () = shutdown.cancelled() => return,
                }
                let Some(connection) = self.connection.upgrade() else {
                    return;
                };
                if connection.close_reason().is_some() {
                    return;
                }
                let sample = Sample::of(&connection, &self.download, self.begun.elapsed());
                drop(connection);
                let signals = self.meter.sample(sample.clone());
                take(&sample, signals);
            }
        };
        tokio::spawn(sampling.instrument(span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ms: u64, sent: u64, lost: u64, received: u64) -> Sample {
        let path = PathInfo {
            kind: PathKind::Direct,
            rtt: Duration::from_millis(50),
            cwnd: 12_500,
            sent_packets: sent,
            lost_packets: lost,
            ..PathInfo::default()
        };
        Sample {
            at: Duration::from_millis(ms),
            path,
            download_bandwidth: None,
            download_delay: Duration::ZERO,
            received_bytes: received,
            sent_bytes: received / 2,
        }
    }

    #[test]
    fn loss_is_counted_in_packets_of_the_interval() {
        let mut meter = SignalMeter::default();
        assert_eq!(meter.sample(sample(0, 1000, 500, 0)).loss_rate, 0.0);
        assert_eq!(meter.sample(sample(200, 1090, 510, 0)).loss_rate, 0.1);
        assert_eq!(meter.sample(sample(400, 1090, 510, 0)).loss_rate, 0.0);
    }

    #[test]
    fn the_rate_is_the_controllers_own_where_it_has_one() {
        let mut meter = SignalMeter::default();
        // 12500 bytes in 50 ms.
        assert_eq!(
            meter.sample(sample(0, 0, 0, 0)).available_bandwidth,
            2_000_000
        );
        let mut better = sample(200, 0, 0, 0);
        better.path.rate = Some(3_000_000);
        assert_eq!(meter.sample(better).available_bandwidth, 3_000_000);
        let mut unknown = sample(400, 0, 0, 0);
        unknown.path.rtt = Duration::ZERO;
        assert_eq!(meter.sample(unknown).available_bandwidth, 0);
    }

    #[test]
    fn rates_are_measured_over_the_time_that_passed() {
        let mut meter = SignalMeter::default();
        meter.sample(sample(0, 0, 0, 1000));
        let signals = meter.sample(sample(400, 0, 0, 51_000));
        assert_eq!(
            (signals.receive_rate, signals.send_rate),
            (1_000_000, 500_000)
        );
    }

    #[test]
    fn a_new_path_begins_its_counters_anew_and_congestion_events_never_fall() {
        let mut meter = SignalMeter::default();
        let mut first = sample(0, 1000, 10, 0);
        first.path.congestion_events = 5;
        assert_eq!(meter.sample(first).congestion_events, 5);
        let mut second = sample(200, 8, 2, 0);
        second.path.kind = PathKind::Relayed;
        second.path.congestion_events = 1;
        let signals = meter.sample(second);
        assert_eq!((signals.loss_rate, signals.congestion_events), (0.2, 6));
    }

    #[test]
    fn a_path_that_is_used_again_goes_on_where_it_was_left() {
        let on = |ms, address: &str, sent, lost| {
            let mut sample = sample(ms, sent, lost, 0);
            sample.path.address = address.to_owned();
            sample.path.congestion_events = lost;
            sample
        };
        let mut meter = SignalMeter::default();
        meter.sample(on(0, "a", 1000, 500));
        meter.sample(on(200, "b", 10, 0));
        // Nothing was lost since, on either.
        let back = meter.sample(on(400, "a", 1010, 500));
        assert_eq!((back.loss_rate, back.congestion_events), (0.0, 500));
        assert_eq!(meter.sample(on(600, "b", 18, 2)).loss_rate, 0.2);
        // However many paths there were, a few are remembered.
        for n in 0..100_u64 {
            meter.sample(on(800 + n, &n.to_string(), 1, 0));
        }
        assert!(meter.left.len() <= PATHS);
    }
}
