//! A publisher, a link and a viewer, to see the machines work together.
//!
//! The publisher encodes three renditions at 30 frames a second with a key frame every two seconds. The link serves the
//! subscription with the higher priority first, delays, loses and is as thin as it is told to be. The viewer is that of
//! [`AdaptiveReader`](super::AdaptiveReader) without its sockets.

use std::{collections::VecDeque, time::Duration};

use super::{
    Decision, DownloadMeter, Measured, Quality, Rung, Selector,
    handover::{Arrived, Handover, Patience, Step},
};
use crate::EncodedFrame;

const FPS: u64 = 30;
const GOP: u64 = 60;
const MS: Duration = Duration::from_millis(1);
const BUDGET: Duration = Duration::from_millis(200);
const HOLD: Duration = Duration::from_millis(100);
const MAX_AGE: u64 = FPS / 2;
const RATES: [(&str, u64, u32); 3] = [
    ("low", 200_000, 180),
    ("mid", 800_000, 360),
    ("high", 2_000_000, 720),
];

/// What the link is like at a moment.
#[derive(Debug, Clone, Copy)]
struct LinkState {
    /// Bits per second.
    capacity: f64,
    /// One way.
    delay: Duration,
    /// Of the packets.
    loss: f64,
}

const FINE: LinkState = LinkState {
    capacity: 10e6,
    delay: Duration::from_millis(25),
    loss: 0.0,
};

fn thin(capacity: f64) -> LinkState {
    LinkState { capacity, ..FINE }
}

fn lossy(loss: f64) -> LinkState {
    // A congestion controller takes loss for congestion, more or less.
    let capacity = if loss > 0.05 { 1.2e6 } else { FINE.capacity };
    LinkState {
        capacity,
        loss,
        ..FINE
    }
}

/// A frame on its way.
#[derive(Debug, Clone)]
struct Packetized {
    number: u64,
    bytes: usize,
    /// What is still to be sent.
    bits: f64,
    discontinuity: bool,
}

/// A subscription, from the publisher's queue to the viewer's meter.
#[derive(Debug)]
struct Stream {
    rung: usize,
    priority: u8,
    /// The publisher hears of the subscription at this time.
    from: Duration,
    next: Option<u64>,
    queue: VecDeque<Packetized>,
    /// Frames with their time of arrival.
    flying: VecDeque<(Duration, Packetized)>,
    skipped: bool,
    /// In frames.
    max_age: u64,
    meter: DownloadMeter,
}

impl Stream {
    fn new(rung: usize, priority: u8, from: Duration) -> Self {
        Self {
            rung,
            priority,
            from,
            next: None,
            queue: VecDeque::new(),
            flying: VecDeque::new(),
            skipped: false,
            max_age: MAX_AGE,
            meter: DownloadMeter::with_budget(BUDGET),
        }
    }

    /// The encoder has reached frame `live`.
    fn encode(&mut self, now: Duration, live: u64) {
        if now < self.from {
            return;
        }
        let next = self.next.get_or_insert(live / GOP * GOP);
        while *next <= live {
            // A key frame is six times the others.
            let delta = RATES[self.rung].1 as f64 * GOP as f64 / FPS as f64 / (GOP as f64 + 5.0);
            let bits = if next.is_multiple_of(GOP) {
                delta * 6.0
            } else {
                delta
            };
            self.queue.push_back(Packetized {
                number: *next,
                bytes: (bits / 8.0) as usize,
                bits,
                discontinuity: false,
            });
            *next += 1;
        }
        // As moq-mux skips: when the group after the one that is stuck is old enough by itself.
        let stuck = self.queue.front().map(|frame| frame.number / GOP);
        let after = self
            .queue
            .iter()
            .find(|frame| Some(frame.number / GOP) != stuck);
        if let Some(number) = after.map(|frame| frame.number)
            && live - number >= self.max_age
        {
            self.queue.retain(|frame| frame.number >= number);
            self.skipped = true;
        }
    }

    /// Sends up to `budget` bits, returns what is left.
    fn send(
        &mut self,
        mut budget: f64,
        now: Duration,
        link: LinkState,
        random: &mut Random,
    ) -> f64 {
        while let Some(frame) = self.queue.front_mut() {
            if frame.bits > budget {
                frame.bits -= budget;
                return 0.0;
            }
            budget -= frame.bits;
            let Some(mut frame) = self.queue.pop_front() else {
                break;
            };
            frame.discontinuity = std::mem::take(&mut self.skipped);
            let packets = frame.bytes.div_ceil(1200);
            let mut at = now + link.delay;
            for _ in 0..packets {
                let mut again = now + link.delay;
                while random.chance(link.loss) {
                    // Found out, and sent again.
                    again += link.delay * 3;
                }
                at = at.max(again);
            }
            // In order within a group.
            let last = self.flying.back().map_or(at, |(last, _)| *last);
            self.flying.push_back((at.max(last), frame));
        }
        budget
    }
}

/// Numbers that are the same in every run.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.next() < probability
    }
}

/// A frame that was shown.
#[derive(Debug, Clone, Copy)]
struct ShownFrame {
    at: Duration,
    number: u64,
    rung: usize,
    discontinuity: bool,
}

struct Simulation {
    now: Duration,
    selector: Selector,
    current: Option<Stream>,
    attempt: Option<(Stream, Handover, Duration)>,
    prefer_at: Option<Duration>,
    random: Random,
    peer_reports: bool,
    carried: f64,
    shown: Vec<ShownFrame>,
    played: Option<Duration>,
    switches: Vec<(Duration, usize)>,
    /// The longest time that two renditions were received.
    longest_double: Duration,
}

impl Simulation {
    fn new(peer_reports: bool, seed: u64) -> Self {
        let mut selector = Selector::new(Quality::Auto);
        selector.set_ladder(
            RATES
                .iter()
                .map(|(name, bitrate, height)| {
                    let mut rung = Rung::new(*name);
                    rung.bitrate = Some(*bitrate);
                    rung.height = Some(*height);
                    rung
                })
                .collect(),
        );
        Self {
            now: Duration::ZERO,
            selector,
            current: None,
            attempt: None,
            prefer_at: None,
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            peer_reports,
            carried: 0.0,
            shown: Vec::new(),
            played: None,
            switches: Vec::new(),
            longest_double: Duration::ZERO,
        }
    }

    fn rung(&self) -> Option<&str> {
        self.current.as_ref().map(|stream| RATES[stream.rung].0)
    }

    fn run(&mut self, time: Duration, link: LinkState) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS;
            self.network(link);
            self.arrivals();
            self.handover();
            if self.now.as_millis().is_multiple_of(200) {
                self.tick(link);
            }
        }
    }

    fn network(&mut self, link: LinkState) {
        let live = (self.now.as_micros() as u64 * FPS) / 1_000_000;
        let mut streams: Vec<_> = self
            .current
            .iter_mut()
            .chain(self.attempt.iter_mut().map(|(stream, ..)| stream))
            .collect();
        streams.sort_by_key(|stream| std::cmp::Reverse(stream.priority));
        let all = link.capacity * MS.as_secs_f64();
        let mut budget = all;
        for stream in streams {
            stream.encode(self.now, live);
            budget = stream.send(budget, self.now, link, &mut self.random);
        }
        let rate = (all - budget) / MS.as_secs_f64();
        self.carried += (rate - self.carried) / 500.0;
    }

    fn arrivals(&mut self) {
        let now = self.now;
        if let Some(stream) = &mut self.current {
            while let Some((_, packet)) = stream.flying.pop_front_if(|(at, _)| *at <= now) {
                let frame = frame(&packet);
                let lateness = stream.meter.lateness(frame.timestamp, now);
                observe(&mut stream.meter, &frame, now);
                match &mut self.attempt {
                    Some((_, handover, _)) => {
                        handover.push_old(Arrived { frame, at: now }, lateness);
                    }
                    None => {
                        self.played = Some(frame.timestamp);
                        self.shown.push(ShownFrame {
                            at: now,
                            number: packet.number,
                            rung: stream.rung,
                            discontinuity: frame.discontinuity,
                        });
                    }
                }
            }
        }
        if let Some((stream, handover, _)) = &mut self.attempt {
            while let Some((_, packet)) = stream.flying.pop_front_if(|(at, _)| *at <= now) {
                let frame = frame(&packet);
                observe(&mut stream.meter, &frame, now);
                handover.push_new(Arrived { frame, at: now });
            }
        }
    }

    fn show(&mut self, frame: &EncodedFrame, rung: usize) {
        if self.played >= Some(frame.timestamp) {
            return;
        }
        self.played = Some(frame.timestamp);
        self.shown.push(ShownFrame {
            at: self.now,
            number: number(frame),
            rung,
            discontinuity: frame.discontinuity,
        });
    }

    fn handover(&mut self) {
        if self.prefer_at.take_if(|at| *at <= self.now).is_some()
            && let Some((next, ..)) = &mut self.attempt
        {
            next.priority = 1;
            if let Some(current) = &mut self.current {
                current.priority = 0;
            }
        }
        while let Some((_, handover, begun)) = &mut self.attempt {
            match handover.step(self.now) {
                Step::Wait(_) => return,
                Step::Frame(frame) => {
                    let rung = self.current.as_ref().expect("it had a frame").rung;
                    self.show(&frame.frame, rung);
                }
                Step::Cut(frames) => {
                    if self.current.is_some() {
                        self.longest_double = self.longest_double.max(self.now - *begun);
                    }
                    let (mut stream, ..) = self.attempt.take().expect("it cut");
                    stream.priority = 1;
                    stream.max_age = MAX_AGE;
                    self.prefer_at = None;
                    for frame in &frames {
                        self.show(&frame.frame, stream.rung);
                    }
                    self.switches.push((self.now, stream.rung));
                    self.current = Some(stream);
                    self.selector.switched(self.now);
                }
            }
        }
    }

    fn tick(&mut self, link: LinkState) {
        let report = self
            .current
            .as_ref()
            .map(|stream| stream.meter.report(self.now));
        let full = [
            self.current.as_ref(),
            self.attempt.as_ref().map(|(stream, ..)| stream),
        ]
        .into_iter()
        .flatten()
        .any(|stream| stream.queue.len() > 1);
        let peer = if full {
            self.carried
        } else {
            self.carried * 1.3
        };
        let peer = self.peer_reports.then_some(peer as u64);
        let next = self.attempt.as_ref();
        let next = next.map(|(stream, ..)| stream.meter.report(self.now));
        let measured = Measured {
            next: next.as_ref(),
            peer,
            ..Measured::new(report.as_ref())
        };
        match self.selector.decide(self.now, measured) {
            Some(Decision::Prefer) => {
                let last = self
                    .attempt
                    .as_ref()
                    .and_then(|(stream, ..)| stream.meter.last_key());
                let current = self.current.as_ref().expect("it is watched");
                let key = last.and_then(|last| current.meter.next_key(last, self.now + HOLD));
                self.prefer_at = key.map(|key| key - HOLD);
            }
            Some(Decision::Switch(name)) => {
                let rung = RATES
                    .iter()
                    .position(|(known, ..)| *known == name)
                    .expect("known");
                let mut handover = Handover::new(
                    Patience {
                        hold: HOLD,
                        lag: Duration::from_millis(500),
                        decode_only: true,
                    },
                    self.played,
                );
                let rising = self.selector.is_rising();
                match &mut self.current {
                    None => handover.end_old(),
                    Some(stream) if !rising => stream.priority = 0,
                    Some(_) => {}
                }
                let mut stream = Stream::new(rung, u8::from(!rising), self.now + link.delay);
                if rising {
                    stream.max_age = HOLD.as_millis() as u64 * FPS / 1000;
                }
                self.attempt = Some((stream, handover, self.now));
            }
            Some(Decision::Abandon) => {
                let (_, handover, begun) = self.attempt.take().expect("it was begun");
                self.prefer_at = None;
                self.longest_double = self.longest_double.max(self.now - begun);
                if let Some(stream) = &mut self.current {
                    stream.priority = 1;
                    let rung = stream.rung;
                    for frame in handover.abandon() {
                        self.show(&frame.frame, rung);
                    }
                }
            }
            None => {}
        }
    }

    /// No frame twice, none missing without being said, nothing received twice for long.
    fn check(&self) {
        for pair in self.shown.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert!(after.number > before.number, "{before:?} {after:?}");
            let gap = after.number - before.number > 1;
            assert!(!gap || after.discontinuity, "{before:?} {after:?}");
        }
        assert!(
            self.longest_double <= Duration::from_secs(13),
            "{:?}",
            self.longest_double
        );
    }

    fn since(&self, from: Duration) -> impl Iterator<Item = &ShownFrame> {
        self.shown.iter().filter(move |shown| shown.at >= from)
    }

    /// The longest time without a new picture since `from`.
    fn longest_freeze(&self, from: Duration) -> Duration {
        let times: Vec<_> = self.since(from).map(|shown| shown.at).collect();
        times
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }

    fn gaps(&self, from: Duration) -> usize {
        self.since(from).filter(|shown| shown.discontinuity).count()
    }

    /// How long what came was too late for a player with this budget.
    fn too_late(&self, from: Duration, budget: Duration) -> Duration {
        let late = self.since(from).filter(|shown| {
            let stamp = Duration::from_micros(shown.number * 1_000_000 / FPS);
            shown.at > stamp + FINE.delay + budget
        });
        Duration::from_secs(1) / FPS as u32 * late.count() as u32
    }

    fn share(&self, from: Duration, name: &str) -> f64 {
        let all = self.since(from).count().max(1);
        let on = self
            .since(from)
            .filter(|shown| RATES[shown.rung].0 == name)
            .count();
        on as f64 / all as f64
    }
}

fn observe(meter: &mut DownloadMeter, frame: &EncodedFrame, now: Duration) {
    let bytes = frame.payload.len();
    meter.observe(
        frame.timestamp,
        bytes,
        frame.keyframe,
        frame.discontinuity,
        now,
    );
}

fn frame(packet: &Packetized) -> EncodedFrame {
    static NOTHING: [u8; 1 << 16] = [0; 1 << 16];
    let timestamp = Duration::from_micros(packet.number * 1_000_000 / FPS);
    let payload = &NOTHING[..packet.bytes.min(NOTHING.len())];
    let mut frame = EncodedFrame::new(timestamp, payload, packet.number.is_multiple_of(GOP));
    frame.discontinuity = packet.discontinuity;
    frame
}

fn number(frame: &EncodedFrame) -> u64 {
    (frame.timestamp.as_micros() as u64 * FPS).div_ceil(1_000_000)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Both without what the peer says, and with it.
fn both(mut scenario: impl FnMut(&mut Simulation)) {
    for peer_reports in [false, true] {
        for seed in 1..=3 {
            let mut simulation = Simulation::new(peer_reports, seed);
            scenario(&mut simulation);
            simulation.check();
        }
    }
}

#[test]
fn on_a_wide_link_the_best_is_reached_in_seconds_without_a_gap() {
    both(|simulation| {
        simulation.run(seconds(60), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        assert!(
            simulation.shown[0].at < Duration::from_millis(300),
            "a picture at once"
        );
        let (last, _) = simulation.switches.last().copied().unwrap();
        assert!(last < seconds(10), "{:?}", simulation.switches);
        assert_eq!(simulation.gaps(Duration::ZERO), 0);
        assert!(simulation.longest_freeze(Duration::ZERO) < Duration::from_millis(200));
    });
}

#[test]
fn under_a_cap_of_500_kbit_it_stays_at_what_fits() {
    both(|simulation| {
        simulation.run(seconds(300), thin(500e3));
        let rest = seconds(60);
        assert!(
            simulation.share(rest, "low") > 0.9,
            "{:?}",
            simulation.switches
        );
        assert!(simulation.switches.len() <= 25, "{:?}", simulation.switches);
        assert_eq!(simulation.share(Duration::ZERO, "high"), 0.0);
        let freeze = simulation.longest_freeze(Duration::ZERO);
        assert!(freeze < Duration::from_millis(1500), "{freeze:?}");
    });
}

#[test]
fn a_link_that_becomes_thin_is_followed_down_and_up_again() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        simulation.run(seconds(6), thin(500e3));
        assert_eq!(simulation.rung(), Some("low"), "{:?}", simulation.switches);
        let freeze = simulation.longest_freeze(seconds(30));
        assert!(freeze < Duration::from_millis(1500), "{freeze:?}");
        simulation.run(seconds(24), thin(500e3));
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
    });
}

#[test]
fn a_link_that_comes_and_goes_does_not_make_it_flap() {
    both(|simulation| {
        for _ in 0..20 {
            simulation.run(seconds(10), FINE);
            simulation.run(seconds(10), thin(500e3));
        }
        // Each change would be worth four switches: up to the top, and down.
        assert!(
            simulation.switches.len() <= 45,
            "{:?}",
            simulation.switches.len()
        );
    });
}

#[test]
fn heavy_loss_makes_it_go_down_within_15_s_and_up_again_within_30() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        simulation.run(seconds(15), lossy(0.25));
        assert_ne!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        simulation.run(seconds(15), lossy(0.25));
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
    });
}

#[test]
fn a_burst_of_loss_leaves_nothing_behind() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        simulation.run(seconds(3), lossy(0.2));
        let clear = simulation.now + seconds(3);
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        assert!(simulation.longest_freeze(clear) < Duration::from_millis(300));
    });
}

#[test]
fn after_a_blackout_it_plays_within_3_s() {
    for blackout in [1500, 20_000] {
        both(|simulation| {
            simulation.run(seconds(30), FINE);
            simulation.run(Duration::from_millis(blackout), thin(1.0));
            let back = simulation.now;
            simulation.run(seconds(40), FINE);
            let first = simulation.since(back).next().expect("a picture").at - back;
            assert!(first < seconds(3), "{first:?}");
            let freeze = simulation.longest_freeze(back + seconds(3));
            assert!(freeze < Duration::from_millis(300), "{freeze:?}");
            assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
            if blackout < 2000 {
                assert!(
                    simulation.switches.iter().all(|(at, _)| *at < back),
                    "it is no reason to switch"
                );
            }
        });
    }
}

#[test]
fn a_longer_path_is_no_reason_to_switch() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        for delay in [300, 500, 25] {
            let link = LinkState {
                delay: Duration::from_millis(delay),
                ..FINE
            };
            simulation.run(seconds(30), link);
        }
        assert!(
            simulation.switches.iter().all(|(at, _)| *at < seconds(30)),
            "{:?}",
            simulation.switches
        );
    });
}

#[test]
fn whatever_the_link_does_the_picture_continues_and_in_the_end_it_is_the_best() {
    for seed in 1..=40 {
        let mut simulation = Simulation::new(seed % 2 == 0, seed);
        let mut random = Random(seed * 7919);
        for _ in 0..12 {
            let link = LinkState {
                capacity: 100e3 * 60f64.powf(random.next()),
                delay: MS * (5 + (random.next() * 150.0) as u32),
                loss: if random.chance(0.3) {
                    random.next() * 0.2
                } else {
                    0.0
                },
            };
            simulation.run(Duration::from_secs_f64(1.0 + random.next() * 12.0), link);
        }
        simulation.run(seconds(120), FINE);
        simulation.check();
        assert_eq!(
            simulation.rung(),
            Some("high"),
            "{seed}: {:?}",
            simulation.switches
        );
    }
}

#[test]
fn a_link_that_carries_the_next_rendition_but_not_both_at_once_is_used() {
    both(|simulation| {
        simulation.run(seconds(90), thin(2.4e6));
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        let share = simulation.share(seconds(40), "high");
        assert!(share > 0.9, "{share} {:?}", simulation.switches);
        let freeze = simulation.longest_freeze(Duration::ZERO);
        assert!(freeze < Duration::from_millis(600), "{freeze:?}");
    });
}

#[test]
fn it_goes_down_before_the_picture_has_been_late_for_long() {
    for capacity in [1.7e6, 1.9e6] {
        for begin in [30_200, 30_600, 31_000] {
            both(|simulation| {
                simulation.run(Duration::from_millis(begin), FINE);
                let from = simulation.now;
                simulation.run(seconds(20), thin(capacity));
                let late = simulation.too_late(from, BUDGET);
                assert!(late < Duration::from_millis(1300), "{late:?}");
            });
        }
    }
}
