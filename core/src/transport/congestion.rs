//! The congestion controller: BBR3, corrected where it takes a live stream for a download.
//!
//! A live stream is nearly always slower than its path: it sends a frame, and then has nothing to send. All that BBR3
//! has seen of the path is then the stream itself, and it makes two mistakes, each of which halts the stream.
//!
//! * For each loss it comes down to what is being delivered, and paces by that: a frame takes until the next one to be
//!   sent, and a key frame many times as long. But radio links lose packets without any congestion. Where there is some,
//!   it shows: either a queue has built up, and the round trip takes longer than it did, or, where there is no queue, a
//!   good part of all packets is lost. Of other losses, which QUIC repairs, BBR3 is not told.
//! * Every five seconds it empties the path to measure the round trip, for 200 ms and then a whole round trip. And when
//!   the round trip has become longer, because the route has changed, its window is for ten seconds the one of the old
//!   route. A stream that runs dry between its frames has no queue of its own to empty and needs no probing: its window
//!   is never less than what it sends. When it no longer runs dry, the path has become too narrow, and BBR3 decides.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use noq_proto::{
    RttEstimator,
    congestion::{Bbr3Config, Controller, ControllerFactory, ControllerMetrics},
};

/// Makes a controller for each path.
#[derive(Debug, Default)]
pub(super) struct Config(Arc<Bbr3Config>);

impl ControllerFactory for Config {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LiveController {
            bbr: self.0.clone().build(now, current_mtu),
            watch: Watch::new(now),
            told: false,
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

/// A stream that has not run dry for so long is held up by the path.
const BACKLOG: Duration = Duration::from_secs(1);

/// The window holds what the stream sends in two round trips, and in twice this: a key frame comes all at once.
const SPAN: Duration = Duration::from_millis(100);

/// What the controller knows of the stream and its path.
#[derive(Debug, Clone)]
struct Watch {
    since: Instant,
    /// In the period that runs, and in the one before.
    packets: [u64; 2],
    bytes: [u64; 2],
    lost: [u64; 2],
    round_trip: Duration,
    queue: bool,
    /// When the stream last ran dry, and whether that is not long ago.
    dry: Instant,
    fluent: bool,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            packets: [0; 2],
            bytes: [0; 2],
            lost: [0; 2],
            round_trip: Duration::ZERO,
            queue: false,
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

    fn measured(&mut self, smoothed: Duration, min: Duration) {
        self.round_trip = smoothed;
        self.queue = smoothed > min + min / 4 + NOISE;
    }

    fn acknowledged(&mut self, now: Instant, ran_dry: bool) {
        if ran_dry {
            self.dry = now;
        }
        self.fluent = now.saturating_duration_since(self.dry) < BACKLOG;
    }

    /// Takes note of a loss. Returns whether it may come from congestion.
    fn lost(&mut self) -> bool {
        self.lost[0] += 1;
        let [sent, lost] = [self.packets, self.lost].map(|counts| counts.iter().sum::<u64>());
        self.queue || lost > sent / SHARE + BURST
    }

    /// The bytes that the stream has to have under way so as not to be held up.
    fn need(&self) -> u64 {
        if !self.fluent {
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
    /// Whether BBR3 was told of the last loss. Otherwise it need not hear that it was none.
    told: bool,
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
        self.watch.measured(rtt.get(), rtt.min());
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
        self.told = self.watch.lost();
        if self.told {
            self.bbr.on_packet_lost(lost_bytes, pn, now);
        }
    }

    fn on_spurious_congestion_event(&mut self) {
        if self.told {
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
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            bbr: self.bbr.clone_box(),
            watch: self.watch.clone(),
            told: self.told,
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
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SIZE: u16 = 1000;

    /// A path on which one in `every` of 250 packets a second is lost: how many of how many losses look like congestion.
    fn path(every: u64, smoothed: Duration) -> (usize, usize) {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.measured(smoothed, MS * 50);
        let lost: Vec<_> = (0..5000)
            .filter_map(|number| {
                watch.sent(start + MS * 4 * number, SIZE);
                (u64::from(number) % every == 0).then(|| watch.lost())
            })
            .collect();
        (lost.iter().filter(|told| **told).count(), lost.len())
    }

    #[test]
    fn a_path_that_merely_loses_is_not_congested() {
        assert_eq!(path(50, MS * 52), (0, 100));
        assert_eq!(path(20, MS * 60), (0, 250));
    }

    #[test]
    fn losses_behind_a_queue_are_congestion() {
        assert_eq!(path(50, MS * 68), (100, 100));
    }

    #[test]
    fn losing_a_fifth_is_congestion_without_a_queue() {
        let (told, lost) = path(5, MS * 50);
        assert!(told > lost * 9 / 10, "{told} of {lost}");
    }

    #[test]
    fn one_burst_is_no_congestion_but_a_dead_path_is() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        (0..20).for_each(|_| watch.sent(start, SIZE));
        let told: Vec<_> = (0..20).map(|_| watch.lost()).collect();
        assert_eq!(told.iter().position(|told| *told), Some(12));
    }

    #[test]
    fn what_was_lost_long_ago_is_forgotten() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.sent(start, SIZE);
        while !watch.lost() {}
        watch.sent(start + PERIOD, SIZE);
        assert!(watch.lost());
        watch.sent(start + PERIOD * 2, SIZE);
        watch.sent(start + PERIOD * 3, SIZE);
        assert!(!watch.lost());
    }

    /// One that has sent 250 kB a second for three seconds.
    fn stream(start: Instant, round_trip: Duration) -> Watch {
        let mut watch = Watch::new(start);
        watch.measured(round_trip, round_trip);
        for number in 0..750 {
            watch.sent(start + MS * 4 * number, SIZE);
            watch.acknowledged(start + MS * 4 * number, true);
        }
        watch
    }

    #[test]
    fn the_window_follows_the_stream_and_the_round_trip() {
        let start = Instant::now();
        assert_eq!(Watch::new(start).need(), 0);
        assert_eq!(stream(start, MS * 10).need(), 50_000);
        assert_eq!(stream(start, MS * 640).need(), 320_000);
    }

    #[test]
    fn a_stream_that_is_held_up_has_no_say_until_it_runs_dry_again() {
        let start = Instant::now();
        let mut watch = stream(start, MS * 50);
        let last = start + MS * 4 * 749;
        watch.acknowledged(last + BACKLOG - MS, false);
        assert_eq!(watch.need(), 50_000);
        watch.acknowledged(last + BACKLOG, false);
        assert_eq!(watch.need(), 0);
        watch.acknowledged(last + BACKLOG * 2, true);
        assert_eq!(watch.need(), 50_000);
    }

    #[test]
    fn a_controller_estimates_the_rate_of_its_path() {
        let now = Instant::now();
        let controller = Arc::new(Config::default()).build(now, 1200);
        assert!(controller.window() >= 10 * 1200);
        assert_eq!(controller.clone_box().window(), controller.window());
        // What tells BBR3 from controllers that only have a window.
        assert!(controller.metrics().pacing_rate.is_some());
    }
}
