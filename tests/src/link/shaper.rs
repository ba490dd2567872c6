//! What a link does to packets, as a plain state machine: time is passed in, and no packet is looked at.

use std::{cmp::Ordering, collections::BinaryHeap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// How a link treats packets, one way. The default is a wire: no delay, no loss, no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// How long every packet takes.
    pub delay: Duration,
    /// How much longer or shorter than that it may take, with equal probability for all that lies between. Never shorter
    /// than nothing.
    pub jitter: Duration,
    /// Whether a packet may overtake another. If not, it waits, as in a queue.
    pub reorder: bool,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// How many packets are lost in a row, on average. 1: each by itself.
    pub burst: f64,
    /// How many bits a second go through; `None` is no limit.
    pub rate: Option<u32>,
    /// How long a packet may have to wait for its turn where there is a limit; beyond that it is dropped.
    pub queue: Duration,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: 0.0,
            burst: 1.0,
            rate: None,
            queue: Duration::from_millis(200),
        }
    }
}

impl Conditions {
    /// A wire that takes this long.
    pub fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// The same link, which also loses this share of the packets, each by itself.
    pub fn losing(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// The same link, through which nothing comes.
    pub fn dead(self) -> Self {
        self.losing(1.0)
    }
}

/// What has become of the packets so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Came out at the other end.
    pub delivered: u64,
    /// Were lost at random.
    pub lost: u64,
    /// Found the queue full.
    pub dropped: u64,
}

/// One way of a link: packets go in, and come out later or never.
#[derive(Debug)]
pub struct Shaper<P> {
    conditions: Conditions,
    random: StdRng,
    /// When what is limited in rate has sent all that went in.
    busy: Duration,
    /// When the last packet in the order of coming is due.
    last: Duration,
    /// Whether a burst of losses goes on.
    losing: bool,
    waiting: BinaryHeap<Waiting<P>>,
    number: u64,
    counters: Counters,
}

#[derive(Debug)]
struct Waiting<P> {
    due: Duration,
    number: u64,
    packet: P,
}

impl<P> Shaper<P> {
    /// One that treats the same packets in the same way each time, for the same seed.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            random: StdRng::seed_from_u64(seed),
            busy: Duration::ZERO,
            last: Duration::ZERO,
            losing: false,
            waiting: BinaryHeap::new(),
            number: 0,
            counters: Counters::default(),
        }
    }

    /// Changes how packets are treated that come from now on.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// How packets are treated at the moment.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// What has become of the packets so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a packet of `size` bytes in.
    pub fn push(&mut self, now: Duration, size: usize, packet: P) {
        if self.loses() {
            self.counters.lost += 1;
            return;
        }
        let mut due = now;
        if let Some(rate) = self.conditions.rate {
            let turn = self.busy.max(now);
            if turn - now > self.conditions.queue {
                self.counters.dropped += 1;
                return;
            }
            let bits = u32::try_from(size * 8).unwrap_or(u32::MAX);
            self.busy = turn + Duration::from_secs(1) * bits / rate.max(1);
            due = self.busy;
        }
        due += self.travel();
        if !self.conditions.reorder {
            due = due.max(self.last);
        }
        self.last = self.last.max(due);
        self.number += 1;
        self.waiting.push(Waiting {
            due,
            number: self.number,
            packet,
        });
    }

    /// Gives a packet that has arrived by now.
    pub fn pop(&mut self, now: Duration) -> Option<P> {
        if self.next()? > now {
            return None;
        }
        self.counters.delivered += 1;
        self.waiting.pop().map(|waiting| waiting.packet)
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Duration> {
        self.waiting.peek().map(|waiting| waiting.due)
    }

    /// Whether the next packet is lost: the two states of Gilbert's model, one of which loses all.
    fn loses(&mut self) -> bool {
        let Conditions { loss, burst, .. } = self.conditions;
        if loss <= 0.0 || loss >= 1.0 {
            self.losing = loss > 0.0;
            return self.losing;
        }
        let leave = 1.0 / burst.max(1.0);
        // In the long run as many bursts begin as end.
        let enter = if burst > 1.0 {
            loss * leave / (1.0 - loss)
        } else {
            loss
        };
        let stay = if burst > 1.0 { 1.0 - leave } else { loss };
        let chance = if self.losing { stay } else { enter };
        self.losing = self.random.random_bool(chance.clamp(0.0, 1.0));
        self.losing
    }

    fn travel(&mut self) -> Duration {
        let Conditions { delay, jitter, .. } = self.conditions;
        if jitter.is_zero() {
            return delay;
        }
        (delay + self.random.random_range(Duration::ZERO..=jitter * 2)).saturating_sub(jitter)
    }
}

impl<P> Ord for Waiting<P> {
    /// The one that is due first is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl<P> PartialOrd for Waiting<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Waiting<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<P> Eq for Waiting<P> {}
