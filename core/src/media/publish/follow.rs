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
fn rate((before, bytes, elapsed): (&u64, &u64, Duration)) -> Option<u64> {
    // A track that was replaced counts anew.
    let bits = bytes.checked_sub(*before)? as f64 * 8.0;
    Some((bits / elapsed.as_secs_f64()) as u64)
}

impl LocalVideo {
    /// Keeps the bit rate of the pictures within what a connection carries: fast down, slowly up, never above what the
    /// presets say. A [`Call`](crate::Call) does so by itself.
    ///
    /// For a broadcast with one viewer, as a call has it; with several it is they who choose among the renditions.
    /// Works until it is dropped, or until the signals end; then the presets count again. See
    /// [`EncoderRate`] for how it decides, and [`set_bitrate_limit`](Self::set_bitrate_limit) for what it sets.
    pub async fn follow(&self, mut signals: watch::Receiver<NetworkSignals>) {
        let _reset = Reset(self);
        let begun = Instant::now();
        let mut produced = SlidingWindow::new(WINDOW);
        let mut control: Option<(u64, EncoderRate)> = None;
        while signals.changed().await.is_ok() {
            let now = begun.elapsed();
            let watched: Vec<_> = self
                .renditions()
                .into_iter()
                .filter(|rendition| rendition.watched)
                .collect();
            let ceiling: u64 = watched.iter().map(|rendition| rendition.nominal).sum();
            if ceiling == 0 {
                continue;
            }
            let (_, control) = match &mut control {
                Some(known) if known.0 == ceiling => known,
                // Other renditions are watched now. What the link carries has to be found out anew.
                other => other.insert((ceiling, EncoderRate::new(ceiling / FLOOR_SHARE, ceiling))),
            };
            let bytes = watched.iter().map(|rendition| rendition.bytes_sent).sum();
            produced.push(bytes, now);
            let Some(produced) = produced.whole().and_then(rate) else {
                continue;
            };
            let signals = *signals.borrow_and_update();
            if control.update(&signals, produced, now).is_some() {
                self.set_bitrate_limit(Some(control.target()));
            }
        }
    }
}

struct Reset<'a>(&'a LocalVideo);

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        self.0.set_bitrate_limit(None);
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
            produced.whole().and_then(rate)
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
}
