use std::collections::VecDeque;

use super::*;
use crate::adaptive::DownloadMeter;

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
    /// In the ticks of the last second.
    produced: VecDeque<u64>,
    download: Download,
}

/// What the peer sends meanwhile: a megabit a second, of which a viewer here measures the arrivals.
struct Download {
    capacity: f64,
    /// Bits.
    queue: f64,
    frames: u32,
    /// Frames on their way, with the times of their arrivals.
    flying: VecDeque<(Duration, Duration)>,
    meter: DownloadMeter,
    /// Whether anybody reads it.
    is_read: bool,
}

impl Download {
    const RATE: f64 = 1e6;
    const FRAME: Duration = Duration::from_millis(20);

    fn new() -> Self {
        Self {
            capacity: 10e6,
            queue: 0.0,
            frames: 0,
            flying: VecDeque::new(),
            meter: DownloadMeter::new(),
            is_read: false,
        }
    }

    fn waiting(&self) -> Duration {
        Duration::from_secs_f64(self.queue / self.capacity)
    }

    /// Goes on until `now`; returns what the viewer knows of the delay.
    fn run(&mut self, now: Duration) -> Duration {
        while Self::FRAME * (self.frames + 1) <= now {
            self.frames += 1;
            let bits = (Self::RATE - self.capacity) * Self::FRAME.as_secs_f64();
            self.queue = (self.queue + bits).max(0.0);
            let captured = Self::FRAME * self.frames;
            let arrival = captured + RTT / 2 + self.waiting();
            let arrival = self
                .flying
                .back()
                .map_or(arrival, |last| arrival.max(last.1));
            self.flying.push_back((captured, arrival));
        }
        while let Some((captured, arrival)) = self.flying.pop_front_if(|(_, at)| *at <= now) {
            self.meter.observe(captured, 2500, false, false, arrival);
        }
        let delay = self.meter.delay(now).filter(|_| self.is_read);
        delay.unwrap_or_default()
    }
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
            produced: VecDeque::new(),
            download: Download::new(),
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
            let download_delay = self.download.run(self.now);
            let queued = if self.path_queue {
                waiting
            } else {
                Duration::ZERO
            };
            let signals = NetworkSignals {
                rtt: RTT + queued + self.download.waiting(),
                download_delay,
                available_bandwidth: self.seen as u64,
                send_rate: through as u64,
                ..NetworkSignals::default()
            };
            let produced = self.produce();
            targets.extend(self.rate.update(&signals, produced, self.now));
        }
        (longest, targets)
    }

    /// Produces what the target asks for, for a tick; returns what it was in the last second.
    fn produce(&mut self) -> u64 {
        self.produced.push_back(self.rate.target());
        if self.produced.len() > 5 {
            self.produced.pop_front();
        }
        self.produced.iter().sum::<u64>() / self.produced.len() as u64
    }

    /// Nothing comes for a while; returns the targets that were set. What was produced meanwhile is lost.
    fn be_silent(&mut self, time: Duration) -> Vec<u64> {
        let (begun, mut targets) = (self.now, Vec::new());
        while self.now < begun + time {
            self.now += TICK;
            let silence = self.now - begun;
            let is_long = silence >= SILENCE;
            let signals = NetworkSignals {
                rtt: RTT.max(silence),
                silence,
                loss_rate: if is_long { 1.0 } else { 0.0 },
                available_bandwidth: if is_long { 0 } else { self.seen as u64 },
                send_rate: 20_000,
                ..NetworkSignals::default()
            };
            let produced = self.produce();
            targets.extend(self.rate.update(&signals, produced, self.now));
        }
        targets
    }
}

#[test]
fn a_hand_over_is_sat_out() {
    for path_queue in [true, false] {
        let mut line = Line::new(10e6, path_queue);
        line.run(Duration::from_secs(10));
        line.be_silent(AWAY - TICK);
        // One step, before it was known that it is no queue.
        let after = line.rate.target();
        assert!(after >= 1_700_000, "{after}");
        line.run(Duration::from_secs(5));
        assert_eq!(line.rate.target(), 2_000_000);
    }
}

#[test]
fn who_is_away_for_longer_gets_less_at_first() {
    let mut line = Line::new(10e6, true);
    line.run(Duration::from_secs(10));
    let before = line.rate.target();
    let targets = line.be_silent(Duration::from_secs(60));
    assert!(targets.is_sorted_by(|a, b| a > b), "{targets:?}");
    let after = line.rate.target();
    assert!(after > before / 3 && after <= before / 2, "{after}");
    line.run(Duration::from_secs(15));
    assert_eq!(line.rate.target(), before);
    // The next time, too.
    line.be_silent(AWAY + TICK);
    assert!(line.rate.target() <= before / 2);
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
        send_rate: 170_000,
        ..NetworkSignals::default()
    };
    for n in 1..100 {
        assert_eq!(rate.update(&signals, 150_000, TICK * n), None);
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
fn an_estimate_is_a_limit_only_where_it_shows() {
    let mut rate = EncoderRate::new(100_000, 2_000_000);
    let mut signals = NetworkSignals {
        rtt: RTT,
        send_rate: 2_200_000,
        ..NetworkSignals::default()
    };
    assert_eq!(rate.update(&signals, 2_000_000, TICK), None);
    // All that is produced leaves, and nothing waits.
    signals.available_bandwidth = 1_900_000;
    assert_eq!(rate.update(&signals, 2_000_000, TICK * 2), None);
    signals.rtt = RTT * 2;
    assert_eq!(rate.update(&signals, 2_000_000, TICK * 3), Some(1_520_000));
    signals.rtt = RTT;
    assert_eq!(rate.update(&signals, 1_520_000, TICK * 4), None);
}

#[test]
fn sound_and_headers_leave_less_for_the_picture() {
    let mut rate = EncoderRate::new(100_000, 2_000_000);
    let mut signals = NetworkSignals {
        rtt: RTT,
        send_rate: 2_300_000,
        available_bandwidth: 5_000_000,
        ..NetworkSignals::default()
    };
    for n in 0..10 {
        assert_eq!(rate.update(&signals, 2_000_000, TICK * n), None);
    }
    signals.available_bandwidth = 1_000_000;
    assert_eq!(rate.update(&signals, 2_000_000, TICK * 10), Some(500_000));
}

#[test]
fn a_key_frame_or_two_lost_of_ten_packets_lower_nothing() {
    let mut rate = EncoderRate::new(100_000, 2_000_000);
    for n in 0..100 {
        let signals = NetworkSignals {
            rtt: if n % 4 == 0 { RTT * 4 } else { RTT },
            loss_rate: if n % 4 == 1 { 0.2 } else { 0.0 },
            available_bandwidth: 3_000_000,
            send_rate: 2_200_000,
            ..NetworkSignals::default()
        };
        assert_eq!(rate.update(&signals, 2_000_000, TICK * n), None);
    }
}

#[test]
fn a_key_frame_that_waits_at_the_sender_for_a_moment_does_not_keep_it_down() {
    let mut line = Line::new(500e3, false);
    line.run(Duration::from_secs(20));
    let mut rate = line.rate;
    let low = rate.target();
    assert!(low < 650_000);
    for n in 0..200 {
        let target = rate.target();
        let send_rate = if n % 10 < 2 {
            target / 2
        } else {
            target * 11 / 10
        };
        let signals = NetworkSignals {
            rtt: RTT,
            available_bandwidth: target * 12 / 10,
            send_rate,
            ..NetworkSignals::default()
        };
        rate.update(&signals, target, line.now + TICK * (n as u32 + 1));
    }
    assert!(rate.target() > low * 2, "{low} {}", rate.target());
}

#[test]
fn loss_lowers_it_where_the_estimate_does_not_once_a_second() {
    let mut rate = EncoderRate::new(100_000, 2_000_000);
    let signals = NetworkSignals {
        rtt: RTT,
        loss_rate: 0.25,
        available_bandwidth: 10_000_000,
        send_rate: 3_000_000,
        ..NetworkSignals::default()
    };
    let set: Vec<_> = (0..=12)
        .filter_map(|n| rate.update(&signals, rate.target(), TICK * n))
        .collect();
    assert_eq!(set, [1_700_000, 1_445_000]);
}

#[test]
fn a_longer_path_is_taken_as_it_is() {
    let mut rate = EncoderRate::new(100_000, 2_000_000);
    let mut signals = NetworkSignals {
        rtt: RTT,
        available_bandwidth: 10_000_000,
        send_rate: 2_200_000,
        ..NetworkSignals::default()
    };
    for n in 0..300 {
        if n == 50 {
            signals.rtt = RTT * 8;
        }
        rate.update(&signals, rate.target(), TICK * n);
        assert!(rate.target() > 800_000);
    }
    assert_eq!(rate.target(), 2_000_000);
}

/// Others use the way down for a second of every three.
fn run_with_traffic_down(line: &mut Line, rounds: u32) -> Vec<u64> {
    let mut targets = Vec::new();
    for _ in 0..rounds {
        line.download.capacity = 700e3;
        targets.extend(line.run(Duration::from_millis(1200)).1);
        line.download.capacity = 1.5e6;
        targets.extend(line.run(Duration::from_millis(1800)).1);
    }
    targets
}

#[test]
fn a_queue_on_the_way_down_lowers_nothing() {
    for path_queue in [true, false] {
        let mut line = Line::new(10e6, path_queue);
        line.download.is_read = true;
        line.run(Duration::from_secs(10));
        let targets = run_with_traffic_down(&mut line, 20);
        assert!(targets.is_empty(), "{targets:?}");
        // One that stays.
        line.download.capacity = 900e3;
        line.run(Duration::from_secs(2));
        line.download.capacity = 1e6;
        let (_, targets) = line.run(Duration::from_secs(30));
        assert!(targets.is_empty(), "{targets:?}");
        // To whom nothing is known of it, it is a queue like any other.
        line.download.is_read = false;
        line.run(Duration::from_secs(10));
        let targets = run_with_traffic_down(&mut line, 20);
        assert!(targets.iter().any(|target| *target < 1_800_000));
    }
}

#[test]
fn a_queue_on_the_way_up_lowers_it_whatever_the_way_down_is_like() {
    let mut line = Line::new(10e6, true);
    line.download.is_read = true;
    line.run(Duration::from_secs(10));
    // The estimate of a controller that was never asked for more says nothing.
    let mut signals = NetworkSignals {
        rtt: RTT,
        available_bandwidth: 10_000_000,
        send_rate: 2_200_000,
        ..NetworkSignals::default()
    };
    let mut rate = EncoderRate::new(100_000, 2_000_000);
    for n in 0..10 {
        assert_eq!(rate.update(&signals, 2_000_000, TICK * n), None);
    }
    signals.download_delay = RTT * 4;
    signals.rtt = RTT * 5 + Duration::from_millis(50);
    let set: Vec<_> = (10..=17)
        .filter_map(|n| rate.update(&signals, 2_000_000, TICK * n))
        .collect();
    assert_eq!(set, [1_700_000]);
    // And as in the test without a download.
    line.capacity = 500e3;
    let up = |line: &mut Line| run_with_traffic_down(line, 10).last().copied();
    assert!(up(&mut line) <= Some(650_000));
    for _ in 0..4 {
        run_with_traffic_down(&mut line, 10);
        assert!(line.rate.target() <= 650_000, "{}", line.rate.target());
    }
    assert!(line.queue / line.capacity < 2.0);
}
