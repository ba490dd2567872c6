//! A publisher that fits its encoders to what the connection carries, as in a call.

use std::time::Duration;

use super::stream::{LinkState, RATES};
use crate::{NetworkSignals, adaptive::EncoderRate, util::window::SlidingWindow};

/// The encoders of all that is watched, together.
#[derive(Debug)]
pub struct PublisherRate {
    /// What the renditions that are watched may take at most, bits per second, and the rate up to that.
    rate: Option<(u64, EncoderRate)>,
    /// Bits that were encoded, and bits that were sent, so far.
    bits: (f64, f64),
    recent: SlidingWindow<(f64, f64)>,
    /// Of the congestion controller, bits per second.
    estimate: f64,
}

impl Default for PublisherRate {
    fn default() -> Self {
        Self {
            rate: None,
            bits: (0.0, 0.0),
            recent: SlidingWindow::new(Duration::from_secs(1)),
            estimate: 0.0,
        }
    }
}

impl PublisherRate {
    /// What share of its rate each rendition gets.
    pub fn share(&self) -> f64 {
        let rate = self.rate.as_ref();
        rate.map_or(1.0, |(ceiling, rate)| {
            rate.target() as f64 / *ceiling as f64
        })
    }

    /// So many bits were encoded, and so many sent.
    pub fn count(&mut self, encoded: f64, sent: f64) {
        self.bits.0 += encoded;
        self.bits.1 += sent;
    }

    /// Five times a second. `queued` says whether anything waits at the sender.
    pub fn tick(&mut self, watched: &[usize], queued: bool, link: LinkState, now: Duration) {
        let ceiling = watched.iter().map(|rung| RATES[*rung].1).sum();
        if ceiling == 0 {
            return;
        }
        let known = self.rate.take().filter(|(known, _)| *known == ceiling);
        if known.is_none() {
            self.recent.clear();
        }
        let new = || (ceiling, EncoderRate::new(ceiling / 20, ceiling));
        let (_, rate) = self.rate.insert(known.unwrap_or_else(new));
        self.recent.push(self.bits, now);
        let Some((before, after, elapsed)) = self.recent.whole() else {
            return;
        };
        let per_second =
            |before: f64, after: f64| ((after - before) / elapsed.as_secs_f64()) as u64;
        let sent = per_second(before.1, after.1);
        // A congestion controller that fills the link knows what it carries, and remembers that; else it knows little more
        // than what it sent.
        self.estimate = if queued {
            link.capacity
        } else {
            self.estimate.min(link.capacity).max(sent as f64 * 1.1)
        };
        let signals = NetworkSignals {
            rtt: link.delay * 2,
            available_bandwidth: self.estimate as u64,
            send_rate: sent,
            ..NetworkSignals::default()
        };
        rate.update(&signals, per_second(before.0, after.0), now);
    }
}
