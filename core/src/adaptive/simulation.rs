//! A publisher, a link and a viewer, to see the machines work together.
//!
//! The publisher encodes three renditions at 30 frames a second with a key frame every two seconds. The link serves the
//! subscription with the higher priority first, delays, loses and is as thin as it is told to be. The viewer is that of
//! [`AdaptiveReader`](super::AdaptiveReader) without its sockets.

mod publisher;
mod stream;

use std::time::Duration;

use publisher::PublisherRate;
use stream::{
    BUDGET, FINE, FPS, LinkState, MAX_AGE, MS, RATES, Random, Stream, frame, number, thin,
};

use super::{
    Decision, DownloadMeter, Measured, Quality, Rung, Selector,
    handover::{Arrived, Handover, Patience, Step},
};
use crate::EncodedFrame;

const HOLD: Duration = Duration::from_millis(100);

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
    /// Where the publisher fits its encoders to the link.
    publisher: Option<PublisherRate>,
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
            publisher: None,
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
        let share = self.publisher.as_ref().map_or(1.0, PublisherRate::share);
        let mut encoded = 0.0;
        for stream in streams {
            encoded += stream.encode(self.now, live, share);
            budget = stream.send(budget, self.now, link, &mut self.random);
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.count(encoded, all - budget);
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
        let attempt = self.attempt.as_ref().map(|(stream, ..)| stream);
        let streams = || self.current.iter().chain(attempt);
        let full = streams().any(|stream| stream.queue.len() > 1);
        if let Some(publisher) = &mut self.publisher {
            let watched: Vec<_> = streams().map(|stream| stream.rung).collect();
            let queued = streams().any(|stream| !stream.queue.is_empty());
            publisher.tick(&watched, queued, link, self.now);
        }
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

#[cfg(test)]
mod tests;
