//! The bitrate of a publisher's encoder.

use std::time::{Duration, Instant};

use moq_lite::bandwidth::Rate;
use moq_mux::rate::{Control, Policy};

use crate::NetworkSignals;

/// Of what the congestion controller says can be sent, this much goes into the picture: the rest is for headers,
/// retransmissions and sound.
const SHARE: f64 = 0.85;
/// When the round trip takes longer than the shortest by this, and by half of it, a queue is building up.
const QUEUE: Duration = Duration::from_millis(60);
/// The shortest round trip is that of this time, so that a new path is soon taken as it is.
const RTT_WINDOW: Duration = Duration::from_secs(4);
/// What a path loses without being full.
const LOSS: f64 = 0.1;
/// What is produced has to stay below this share of the estimate.
const TIGHT: f64 = 0.95;
/// An estimate below this many times what is sent may only mean that no more was sent.
const USED: f64 = 1.5;
/// More is tried in steps of this, as fast as the ramp allows.
const PROBE_STEP: f64 = 1.1;
/// For so long nothing may be wrong before more is tried than the estimate allows for; longer each time it goes wrong.
const FIRST_HOLD: Duration = Duration::from_secs(2);
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// More has been tried with success when nothing has been wrong for this long since.
const PROVEN: Duration = Duration::from_secs(5);
/// A queue takes time to drain: until then a link that is still full says nothing new.
const DRAIN: Duration = Duration::from_secs(1);

/// Follows what a connection can send with the bitrate of an encoder: down at once, up by a quarter a second.
///
/// Floor, ceiling, deadband (5 %) and the ramp are those of [`moq_mux::rate::Control`], so that all publishers of the
/// family behave alike. What it lacks is added here: a congestion controller knows of no more than what was sent
/// through it. Its estimate says that a link has become too thin; that a link has become wider it does not say to a
/// sender that sends little (BBR's samples are then limited by the application, and a window that is not used does not
/// grow). So while neither round-trip time nor loss nor the estimate say that the link is full, more than the estimate is tried: after
/// 2 s, and after twice as long each time that this filled the link, up to 30 s.
///
/// Several encoders that share a connection divide what it carries first, with [`moq_lite::bandwidth::Allocator`].
///
/// A plain state machine: time is passed in, counted from any fixed point.
#[derive(Debug, Clone)]
pub struct EncoderRate {
    control: Control,
    ceiling: u64,
    /// What the inner machine counts its time from.
    epoch: Instant,
    shortest: Shortest,
    quiet_since: Duration,
    hold: Duration,
    /// Since when more than the estimate has been tried.
    probing: Option<Duration>,
    lowered: Option<Duration>,
}

/// The shortest round trip of the last one or two halves of [`RTT_WINDOW`].
#[derive(Debug, Clone, Default)]
struct Shortest {
    now: Option<Duration>,
    before: Option<Duration>,
    turned: Duration,
}

impl Shortest {
    fn update(&mut self, rtt: Duration, now: Duration) -> Duration {
        if now.saturating_sub(self.turned) >= RTT_WINDOW / 2 {
            self.before = self.now.take();
            self.turned = now;
        }
        let shortest = self.now.map_or(rtt, |known| known.min(rtt));
        self.now = Some(shortest);
        self.before.map_or(shortest, |before| before.min(shortest))
    }
}

impl EncoderRate {
    /// A rate between `floor` and `ceiling`, bits per second, that begins at the ceiling.
    pub fn new(floor: u64, ceiling: u64) -> Self {
        let mut policy = Policy::new(Rate::from_bps(ceiling));
        policy.min = Rate::from_bps(floor.min(ceiling));
        Self {
            control: Control::new(policy),
            ceiling,
            epoch: Instant::now(),
            shortest: Shortest::default(),
            quiet_since: Duration::ZERO,
            hold: FIRST_HOLD,
            probing: None,
            lowered: None,
        }
    }

    /// The bitrate that the encoder should have, bits per second.
    pub fn target(&self) -> u64 {
        self.control.target().as_bps()
    }

    /// Takes note of the connection's signals; returns the new bitrate when it is worth setting.
    ///
    /// `produced` is what the encoder gave in the last while, bits per second: a still picture needs less than it may
    /// take. Without it the target is assumed. Without an estimate (zero) the bitrate stays as it is.
    pub fn update(
        &mut self,
        signals: &NetworkSignals,
        produced: Option<u64>,
        now: Duration,
    ) -> Option<u64> {
        let shortest = self.shortest.update(signals.rtt, now);
        if signals.available_bandwidth == 0 {
            return None;
        }
        let estimate = signals.available_bandwidth as f64;
        let before = self.target();
        let link = if signals.loss_rate > LOSS || signals.rtt > shortest + QUEUE.max(shortest / 2) {
            Link::Full
        } else if produced.unwrap_or(before) as f64 > estimate * TIGHT {
            Link::Tight
        } else {
            Link::Free
        };
        let rate = Rate::from_bps(self.allowed(estimate, link, now) as u64);
        let target = self.control.update(Some(rate), self.epoch + now)?.as_bps();
        if target < before {
            self.lowered = Some(now);
        }
        Some(target)
    }

    /// What may be sent into a link with this estimate.
    fn allowed(&mut self, estimate: f64, link: Link, now: Duration) -> f64 {
        let target = self.target() as f64;
        let usable = estimate * SHARE;
        if link != Link::Free {
            self.quiet_since = now;
            if self.probing.take().is_some() {
                self.hold = (self.hold * 2).min(LONGEST_HOLD);
            }
            let draining = self
                .lowered
                .is_some_and(|at| now.saturating_sub(at) < DRAIN);
            let most = if link == Link::Tight || draining {
                target
            } else {
                target * SHARE
            };
            return usable.min(most);
        }
        if self
            .probing
            .is_some_and(|since| now.saturating_sub(since) >= PROVEN)
        {
            self.hold = FIRST_HOLD;
        }
        if now.saturating_sub(self.quiet_since) < self.hold {
            return target;
        }
        if estimate < target * USED && self.target() < self.ceiling {
            self.probing.get_or_insert(now);
            return usable.max(target * PROBE_STEP);
        }
        usable.max(target)
    }
}

/// How much of a link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Round-trip time or loss say that too much is sent.
    Full,
    /// More is produced than the congestion controller lets through. One that keeps the path's queue short, as BBR does,
    /// shows nothing else: what is too much waits at the sender.
    Tight,
    /// Nothing speaks against more.
    Free,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(200);
    const RTT: Duration = Duration::from_millis(40);

    /// A link, and a congestion controller that has seen no more than what was sent through it.
    struct Line {
        capacity: f64,
        /// Whether the queue is in the path, as with CUBIC; else it is at the sender, as with BBR.
        path_queue: bool,
        /// Bits.
        queue: f64,
        seen: f64,
        now: Duration,
        rate: EncoderRate,
    }

    impl Line {
        fn new(capacity: f64, path_queue: bool) -> Self {
            Self {
                capacity,
                path_queue,
                queue: 0.0,
                seen: 0.0,
                now: Duration::ZERO,
                rate: EncoderRate::new(100_000, 2_000_000),
            }
        }

        /// Sends at the target for a while; returns the longest queue in time, and the targets that were set.
        fn run(&mut self, time: Duration) -> (Duration, Vec<u64>) {
            let (mut longest, mut targets) = (Duration::ZERO, Vec::new());
            let end = self.now + time;
            while self.now < end {
                self.now += TICK;
                let produced = self.rate.target();
                let sent = produced as f64 * TICK.as_secs_f64();
                let carried = (self.capacity * TICK.as_secs_f64()).min(self.queue + sent);
                self.queue = (self.queue + sent - carried).max(0.0);
                let through = carried / TICK.as_secs_f64();
                // A controller that has filled the link knows it; one that has not knows little more than what it sent.
                self.seen = if self.queue > 0.0 {
                    through
                } else {
                    through * 1.1
                };
                let waiting = Duration::from_secs_f64(self.queue / self.capacity);
                longest = longest.max(waiting);
                let signals = NetworkSignals {
                    rtt: if self.path_queue { RTT + waiting } else { RTT },
                    available_bandwidth: self.seen as u64,
                    ..NetworkSignals::default()
                };
                targets.extend(self.rate.update(&signals, Some(produced), self.now));
            }
            (longest, targets)
        }
    }

    #[test]
    fn it_begins_at_the_ceiling_and_stays_there_on_a_wide_link() {
        for path_queue in [true, false] {
            let mut line = Line::new(10e6, path_queue);
            let (longest, _) = line.run(Duration::from_secs(60));
            assert_eq!(line.rate.target(), 2_000_000);
            assert_eq!(longest, Duration::ZERO);
        }
    }

    #[test]
    fn a_thin_link_is_followed_at_once_and_its_queue_stays_short() {
        for path_queue in [true, false] {
            let mut line = Line::new(10e6, path_queue);
            line.run(Duration::from_secs(10));
            line.capacity = 500e3;
            let (_, targets) = line.run(TICK * 2);
            assert!(*targets.last().unwrap() <= 425_000, "{targets:?}");
            line.run(Duration::from_secs(20));
            let (longest, targets) = line.run(Duration::from_secs(120));
            assert!(longest < Duration::from_millis(400), "{longest:?}");
            assert!(
                targets
                    .iter()
                    .all(|target| (200_000..=650_000).contains(target)),
                "{targets:?}"
            );
            // It tries for more, ever more rarely.
            assert!(targets.len() < 100, "{}", targets.len());
        }
    }

    #[test]
    fn a_link_that_widens_is_found_though_the_estimate_does_not_say_so() {
        for path_queue in [true, false] {
            let mut line = Line::new(500e3, path_queue);
            line.run(Duration::from_secs(30));
            assert!(line.rate.target() < 650_000);
            line.capacity = 10e6;
            line.run(Duration::from_secs(45));
            assert_eq!(line.rate.target(), 2_000_000);
        }
    }

    #[test]
    fn a_still_picture_does_not_lower_it() {
        let mut rate = EncoderRate::new(100_000, 2_000_000);
        let signals = NetworkSignals {
            rtt: RTT,
            available_bandwidth: 200_000,
            ..NetworkSignals::default()
        };
        for n in 1..100 {
            assert_eq!(rate.update(&signals, Some(150_000), TICK * n), None);
        }
    }

    #[test]
    fn it_keeps_between_floor_and_ceiling() {
        let mut line = Line::new(20e3, true);
        line.run(Duration::from_secs(10));
        assert_eq!(line.rate.target(), 100_000);
        assert_eq!(EncoderRate::new(5, 3).target(), 3);
    }

    #[test]
    fn small_moves_and_missing_estimates_change_nothing() {
        let mut rate = EncoderRate::new(100_000, 2_000_000);
        let mut signals = NetworkSignals {
            rtt: RTT,
            ..NetworkSignals::default()
        };
        assert_eq!(rate.update(&signals, None, TICK), None);
        signals.available_bandwidth = 2_200_000;
        assert_eq!(rate.update(&signals, None, TICK * 2), None);
        signals.available_bandwidth = 1_000_000;
        assert_eq!(rate.update(&signals, None, TICK * 3), Some(850_000));
        signals.available_bandwidth = 900_000;
        // It lets through what is sent, and no more.
        assert_eq!(rate.update(&signals, None, TICK * 4), None);
    }

    #[test]
    fn loss_lowers_it_where_the_estimate_does_not_once_in_a_while() {
        let mut rate = EncoderRate::new(100_000, 2_000_000);
        let signals = NetworkSignals {
            rtt: RTT,
            loss_rate: 0.25,
            available_bandwidth: 10_000_000,
            ..NetworkSignals::default()
        };
        let set: Vec<_> = (1..=11)
            .filter_map(|n| rate.update(&signals, None, TICK * n))
            .collect();
        assert_eq!(set, [1_700_000, 1_445_000, 1_228_250]);
    }

    #[test]
    fn a_longer_path_is_taken_as_it_is() {
        let mut rate = EncoderRate::new(100_000, 2_000_000);
        let mut signals = NetworkSignals {
            rtt: RTT,
            available_bandwidth: 10_000_000,
            ..NetworkSignals::default()
        };
        for n in 0..300 {
            if n == 50 {
                signals.rtt = RTT * 8;
            }
            rate.update(&signals, None, TICK * n);
            assert!(rate.target() > 800_000);
        }
        assert_eq!(rate.target(), 2_000_000);
    }
}
