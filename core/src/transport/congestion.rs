//! The congestion controller: BBR3, corrected where it takes a live stream for a download.
//!
//! A live stream is nearly always slower than its path: it sends a frame, and then has nothing to send. All that BBR3
//! has seen of the path is then the stream itself, and it makes two mistakes, each of which halts the stream.
//!
//! * For each loss it comes down to what is being delivered, and paces by that: a frame takes until the next one to be
//!   sent, and a key frame many times as long. But radio links lose packets without any congestion. Where there is some,
//!   it shows: either a queue has built up, and the round trip takes longer than it did, or, where there is no queue, a
//!   good part of all packets is lost. Other losses, which QUIC repairs, are not reported to BBR3.
//! * Every five seconds it empties the path to measure the round trip, for 200 ms and then a whole round trip. And when
//!   the round trip has become longer, because the route has changed, its window is for ten seconds the one of the old
//!   route. A stream that runs dry between its frames has no queue of its own to empty and needs no probing: its window
//!   is never less than what it sends. When it no longer runs dry, the path has become too narrow, and BBR3 decides.
//!
//! And one that makes it blind: what it once saw of a path it believes for up to ten seconds, and longer while the stream
//! sends less than that. When the path becomes narrower than the stream, most of what is sent is then lost, for as long.
//! But a path that loses much behind a queue shows what it carries: what arrives. That is taken for the estimate at
//! once, and less is sent until the queue is gone.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use noq_proto::{
    RttEstimator,
    congestion::{Bbr3Config, Controller, ControllerFactory, ControllerMetrics},
};

use crate::util::window::WindowedMin;

/// Makes a controller for each path.
#[derive(Debug, Default)]
pub(super) struct Config(Arc<Bbr3Config>);

impl ControllerFactory for Config {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LiveController {
            bbr: self.0.clone().build(now, current_mtu),
            watch: Watch::new(now),
            reported: false,
        })
    }
}

/// What is counted is counted in this time and in the same time before.
const PERIOD: Duration = Duration::from_secs(1);

/// One in so many packets may be lost without congestion.
const SHARE: u64 = 10;

/// And so many more, as one burst tells nothing about a share.
const BURST: u64 = 10;

/// A queue is what makes the round trip longer by a quarter and this.
const NOISE: Duration = Duration::from_millis(5);

/// A queue that is about to be full makes it longer by half and this: acknowledgements that are lost look like less.
const FULL: Duration = Duration::from_millis(30);

/// A stream that has not run dry for so long is held up by the path.
const BACKLOG: Duration = Duration::from_secs(1);

/// The window holds what the stream sends in two round trips, and in twice this: a key frame comes all at once.
const SPAN: Duration = Duration::from_millis(100);

/// What arrives is counted in this time and in the same time before.
const ARRIVAL: Duration = Duration::from_millis(500);

/// A round trip is compared with the shortest of this time.
const ROUTE: Duration = Duration::from_secs(10);

/// Bytes a second that are sent in any case: a connection that sends nothing learns nothing.
const LEAST: u64 = 5000;

/// For so long after a path overflowed three quarters of what it carries are sent, so that its queue drains.
const DRAIN: Duration = Duration::from_secs(1);

/// What a path was found to carry when it overflowed is believed for so long. By then BBR3 has learned it too.
const LEARNED: Duration = Duration::from_secs(10);

/// What the controller knows of the stream and its path.
#[derive(Debug, Clone)]
struct Watch {
    begun: Instant,
    since: Instant,
    /// In the period that runs, and in the one before.
    packets: [u64; 2],
    bytes: [u64; 2],
    lost: [u64; 2],
    arrival: Arrival,
    round_trip: Duration,
    shortest: WindowedMin,
    /// Whether there is one, and whether it may be full.
    queue: bool,
    full: bool,
    overflow: Option<Overflow>,
    /// When the stream last ran dry, and whether that is not long ago.
    dry: Instant,
    fluent: bool,
}

/// A path that lost much behind a queue.
#[derive(Debug, Clone, Copy)]
struct Overflow {
    /// When it last did.
    at: Instant,
    /// Bytes a second that it carries.
    rate: u64,
    /// Whether its queue may still be full.
    draining: bool,
}

/// What arrives at the other end.
#[derive(Debug, Clone)]
struct Arrival {
    since: Instant,
    /// In the period that runs, and in the one before.
    bytes: [u64; 2],
}

impl Arrival {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            bytes: [0; 2],
        }
    }

    fn add(&mut self, now: Instant, bytes: u64) {
        if now.saturating_duration_since(self.since) >= ARRIVAL {
            self.since = now;
            self.bytes = [0, self.bytes[0]];
        }
        self.bytes[0] += bytes;
    }

    /// Bytes a second.
    fn rate(&self, now: Instant) -> u64 {
        let span = (ARRIVAL + now.saturating_duration_since(self.since)).as_millis();
        let bytes = u128::from(self.bytes.iter().sum::<u64>());
        u64::try_from(bytes * 1000 / span).unwrap_or(u64::MAX)
    }
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            since: now,
            packets: [0; 2],
            bytes: [0; 2],
            lost: [0; 2],
            arrival: Arrival::new(now),
            round_trip: Duration::ZERO,
            shortest: WindowedMin::new(ROUTE),
            queue: false,
            full: false,
            overflow: None,
            dry: now,
            fluent: true,
        }
    }

    fn sent(&mut self, now: Instant, bytes: u16) {
        if now.saturating_duration_since(self.since) >= PERIOD {
            self.since = now;
            for counts in [&mut self.packets, &mut self.bytes, &mut self.lost] {
                *counts = [0, counts[0]];
            }
        }
        self.packets[0] += 1;
        self.bytes[0] += u64::from(bytes);
    }

    fn measured(&mut self, now: Instant, round_trip: Duration) {
        let elapsed = now.saturating_duration_since(self.begun);
        let shortest = self.shortest.update(round_trip, elapsed);
        self.round_trip = round_trip;
        self.queue = round_trip > shortest + shortest / 4 + NOISE;
        self.full = round_trip > shortest + shortest / 2 + FULL;
    }

    fn arrived(&mut self, now: Instant, bytes: u64) {
        self.arrival.add(now, bytes);
        let Some(overflow) = &mut self.overflow else {
            return;
        };
        let age = now.saturating_duration_since(overflow.at);
        if age >= LEARNED {
            self.overflow = None;
        } else if age >= DRAIN {
            overflow.draining = false;
            overflow.rate = overflow.rate.max(self.arrival.rate(now));
        }
    }

    fn acknowledged(&mut self, now: Instant, ran_dry: bool) {
        if ran_dry {
            self.dry = now;
        }
        self.fluent = now.saturating_duration_since(self.dry) < BACKLOG;
    }

    /// Takes note of a loss. Returns whether it may come from congestion.
    fn lost(&mut self, now: Instant) -> bool {
        self.lost[0] += 1;
        let [sent, lost] = [self.packets, self.lost].map(|counts| counts.iter().sum::<u64>());
        let many = lost > sent / SHARE + BURST;
        if many && self.full {
            self.overflow = Some(Overflow {
                at: now,
                rate: self.arrival.rate(now),
                draining: true,
            });
            // What was lost until now shall not make an overflow of the next loss.
            (self.packets, self.lost) = ([0; 2], [0; 2]);
        }
        self.queue || many
    }

    /// Bytes a second to send at most, so that a queue drains.
    fn drain_rate(&self) -> Option<u64> {
        let overflow = self.overflow.filter(|overflow| overflow.draining);
        overflow.map(|overflow| (overflow.rate * 3 / 4).max(LEAST))
    }

    /// The bytes that the stream has to have under way so as not to be held up.
    fn need(&self) -> u64 {
        if !self.fluent || self.drain_rate().is_some() {
            return 0;
        }
        let span = (2 * self.round_trip.max(SPAN)).as_micros();
        let bytes = u128::from(self.bytes.into_iter().max().unwrap_or_default());
        u64::try_from(bytes * span / PERIOD.as_micros()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct LiveController {
    bbr: Box<dyn Controller>,
    watch: Watch,
    /// Whether the last loss was reported to BBR3. Otherwise it need not know that it was none.
    reported: bool,
}

impl Controller for LiveController {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.bbr.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.watch.sent(now, bytes);
        self.bbr.on_packet_sent(now, bytes, pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.bbr.on_cwnd_limited();
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        pn: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.watch.measured(now, rtt.get());
        self.watch.arrived(now, bytes);
        self.bbr.on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.watch.acknowledged(now, app_limited);
        self.bbr
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost_pn: u64,
    ) {
        self.bbr.on_congestion_event(
            now,
            sent,
            is_persistent_congestion,
            is_ecn,
            lost_bytes,
            largest_lost_pn,
        );
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        self.reported = self.watch.lost(now);
        if self.reported {
            self.bbr.on_packet_lost(lost_bytes, pn, now);
        }
    }

    fn on_spurious_congestion_event(&mut self) {
        if self.reported {
            self.bbr.on_spurious_congestion_event();
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.bbr.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(&mut self, threshold: u64, max_ack_delay: Duration) {
        self.bbr.on_ack_frequency_update(threshold, max_ack_delay);
    }

    fn window(&self) -> u64 {
        self.bbr.window().max(self.watch.need())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.bbr.metrics();
        metrics.congestion_window = self.window();
        if let Some(rate) = self.watch.drain_rate() {
            metrics.pacing_rate = metrics.pacing_rate.map(|pacing| pacing.min(rate));
        }
        if let Some(overflow) = self.watch.overflow {
            let known = metrics.bandwidth_estimate;
            metrics.bandwidth_estimate = known.map(|known| known.min(overflow.rate * 8));
        }
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            bbr: self.bbr.clone_box(),
            watch: self.watch.clone(),
            reported: self.reported,
        })
    }

    fn initial_window(&self) -> u64 {
        self.bbr.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
