//! A publisher's renditions on their way over a link.

use std::{collections::VecDeque, time::Duration};

use crate::{EncodedFrame, adaptive::DownloadMeter};

pub const FPS: u64 = 30;
const GOP: u64 = 60;
pub const MS: Duration = Duration::from_millis(1);
pub const BUDGET: Duration = Duration::from_millis(200);
pub const MAX_AGE: u64 = FPS / 2;
/// Name, bits per second, lines.
pub const RATES: [(&str, u64, u32); 3] = [
    ("low", 200_000, 180),
    ("mid", 800_000, 360),
    ("high", 2_000_000, 720),
];

/// What the link is like at a moment.
#[derive(Debug, Clone, Copy)]
pub struct LinkState {
    /// Bits per second.
    pub capacity: f64,
    /// One way.
    pub delay: Duration,
    /// Of the packets.
    pub loss: f64,
}

pub const FINE: LinkState = LinkState {
    capacity: 10e6,
    delay: Duration::from_millis(25),
    loss: 0.0,
};

pub fn thin(capacity: f64) -> LinkState {
    LinkState { capacity, ..FINE }
}

pub fn lossy(loss: f64) -> LinkState {
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
pub struct Packetized {
    pub number: u64,
    bytes: usize,
    /// What is still to be sent.
    bits: f64,
    discontinuity: bool,
}

/// A subscription, from the publisher's queue to the viewer's meter.
#[derive(Debug)]
pub struct Stream {
    pub rung: usize,
    pub priority: u8,
    /// The publisher hears of the subscription at this time.
    from: Duration,
    next: Option<u64>,
    pub queue: VecDeque<Packetized>,
    /// Frames with their time of arrival.
    pub flying: VecDeque<(Duration, Packetized)>,
    skipped: bool,
    /// In frames.
    pub max_age: u64,
    pub meter: DownloadMeter,
}

impl Stream {
    pub fn new(rung: usize, priority: u8, from: Duration) -> Self {
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

    /// The encoder has reached frame `live`. Of its rate it may use a share. Returns how many bits it made.
    pub fn encode(&mut self, now: Duration, live: u64, share: f64) -> f64 {
        if now < self.from {
            return 0.0;
        }
        let mut encoded = 0.0;
        let next = self.next.get_or_insert(live / GOP * GOP);
        while *next <= live {
            // A key frame is six times the others.
            let rate = RATES[self.rung].1 as f64 * share;
            let delta = rate * GOP as f64 / FPS as f64 / (GOP as f64 + 5.0);
            let bits = if next.is_multiple_of(GOP) {
                delta * 6.0
            } else {
                delta
            };
            encoded += bits;
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
        encoded
    }

    /// Sends up to `budget` bits, returns what is left.
    pub fn send(
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
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.next() < probability
    }
}

pub fn frame(packet: &Packetized) -> EncodedFrame {
    static NOTHING: [u8; 1 << 16] = [0; 1 << 16];
    let timestamp = Duration::from_micros(packet.number * 1_000_000 / FPS);
    let payload = &NOTHING[..packet.bytes.min(NOTHING.len())];
    let mut frame = EncodedFrame::new(timestamp, payload, packet.number.is_multiple_of(GOP));
    frame.discontinuity = packet.discontinuity;
    frame
}

pub fn number(frame: &EncodedFrame) -> u64 {
    (frame.timestamp.as_micros() as u64 * FPS).div_ceil(1_000_000)
}
