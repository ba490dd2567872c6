//! The encoders follow what a connection can send.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

use super::LocalVideo;
use crate::{NetworkSignals, adaptive::EncoderRate, util::window::SlidingWindow};

/// However thin the link, the encoders get this share of what the presets ask for: less shows nothing any more.
const FLOOR_SHARE: u64 = 20;

/// Over how long the output of the encoders is averaged: key frames are far larger than the frames between them.
const WINDOW: Duration = Duration::from_secs(1);

/// Bits per second between two counts of bytes, of all time.
fn bits_per_second((before, bytes, elapsed): (&u64, &u64, Duration)) -> Option<u64> {
    // A track that was replaced counts anew.
    let bits = bytes.checked_sub(*before)? as f64 * 8.0;
    Some((bits / elapsed.as_secs_f64()) as u64)
}

impl LocalVideo {
    /// Keeps the bit rate of the pictures within what a connection carries: fast down, slowly up, never above what the
    /// presets say. A [`Call`](crate::Call) does so by itself.
    ///
    /// For a broadcast with one viewer, as a call has it; with several it is they who choose among the renditions. While
    /// there is one, the catalog says that the pictures are fitted to the network
    /// ([`IrohLive::adapts_video`](crate::broadcast::IrohLive::adapts_video)), and an
    /// [`AdaptiveReader`](crate::AdaptiveReader) leaves it to this side.
    /// Works until it is dropped, or until the signals end; then the presets count again. See
    /// [`EncoderRate`] for how it decides, and [`set_bitrate_limit`](Self::set_bitrate_limit) for what it sets.
    pub async fn follow(&self, mut signals: watch::Receiver<NetworkSignals>) {
        let _reset = Reset(self);
        let begun = Instant::now();
        let mut control = LinkControl::default();
        loop {
            let described = !self.renditions().is_empty();
            let alone = self.broadcast.audience().count() <= 1;
            self.broadcast.set_adapts_video(described && alone);
            if signals.changed().await.is_err() {
                return;
            }
            let watched: Vec<_> = self
                .renditions()
                .into_iter()
                .filter(|rendition| rendition.watched)
                .collect();
            let ceiling = watched.iter().map(|rendition| rendition.nominal).sum();
            let bytes = watched.iter().map(|rendition| rendition.bytes_sent).sum();
            let signals = *signals.borrow_and_update();
            if let Some(limit) = control.update(ceiling, bytes, &signals, begun.elapsed()) {
                self.set_bitrate_limit(Some(limit));
            }
        }
    }
}

/// What the renditions that are watched may take together. Plain state, with time passed in.
#[derive(Debug)]
struct LinkControl {
    /// What the presets of those that are watched ask for, bits per second, and the rate between that and little.
    rate: Option<(u64, EncoderRate)>,
    /// The bytes that they have sent so far.
    sent: SlidingWindow<u64>,
}

impl Default for LinkControl {
    fn default() -> Self {
        Self {
            rate: None,
            sent: SlidingWindow::new(WINDOW),
        }
    }
}

impl LinkControl {
    /// Takes note of how things stand. Returns the limit where it is another one, bits per second.
    fn update(
        &mut self,
        ceiling: u64,
        bytes: u64,
        signals: &NetworkSignals,
        now: Duration,
    ) -> Option<u64> {
        if ceiling == 0 {
            return None;
        }
        let known = self.rate.take().filter(|(known, _)| *known == ceiling);
        let is_new = known.is_none();
        if is_new {
            // Other renditions are watched now, which have sent other bytes.
            self.sent.clear();
        }
        let new = || (ceiling, EncoderRate::new(ceiling / FLOOR_SHARE, ceiling));
        let (_, rate) = self.rate.insert(known.unwrap_or_else(new));
        self.sent.push(bytes, now);
        let produced = self.sent.whole().and_then(bits_per_second);
        let changed = produced.and_then(|produced| rate.update(signals, produced, now));
        // What the link carries has to be found out anew for others: what was the limit for those before is none for them.
        (is_new || changed.is_some()).then(|| rate.target())
    }
}

struct Reset<'a>(&'a LocalVideo);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.set_bitrate_limit(None);
        self.0.broadcast.set_adapts_video(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_produced_is_averaged_over_a_second() {
        let mut produced = SlidingWindow::new(WINDOW);
        let mut update = |bytes, ms| {
            produced.push(bytes, Duration::from_millis(ms));
            produced.whole().and_then(bits_per_second)
        };
        assert_eq!(update(0, 0), None);
        // A key frame, then little.
        assert_eq!(update(100_000, 200), None);
        assert_eq!(update(125_000, 1000), Some(1_000_000));
        assert_eq!(update(125_000, 1200), Some(200_000));
        assert_eq!(update(125_000, 2000), Some(0));
        // Another track.
        assert_eq!(update(10, 2200), None);
    }

    fn signals(estimate: u64) -> NetworkSignals {
        NetworkSignals {
            rtt: Duration::from_millis(40),
            available_bandwidth: estimate,
            send_rate: estimate,
            ..NetworkSignals::default()
        }
    }

    #[test]
    fn what_was_the_limit_of_other_renditions_is_none_for_these() {
        let mut control = LinkControl::default();
        let at = Duration::from_millis;
        let mut limit = control.update(150_000, 0, &signals(60_000), at(0));
        assert_eq!(limit, Some(150_000));
        // The link is thin: the limit comes down.
        for tick in 1..100 {
            let sent = 10_000 * tick;
            let lower = control.update(150_000, sent, &signals(60_000), at(200 * tick));
            limit = lower.or(limit);
        }
        assert!(limit.unwrap() < 100_000, "{limit:?}");
        // Another rendition is watched on a link that carries it.
        let limit = control.update(2_000_000, 0, &signals(8_000_000), at(20_000));
        assert_eq!(limit, Some(2_000_000));
        let limit = control.update(2_000_000, 50_000, &signals(8_000_000), at(20_200));
        assert_eq!(limit, None, "said once");
        assert_eq!(control.update(0, 0, &signals(0), at(20_400)), None);
    }
}
