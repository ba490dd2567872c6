//! The encoders follow what a connection can send.

use std::{collections::VecDeque, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::LocalVideo;
use crate::{NetworkSignals, adaptive::EncoderRate};

/// However thin the link, the encoders get this share of what the presets ask for: less shows nothing any more.
const FLOOR_SHARE: u64 = 20;

/// Over how long the output of the encoders is averaged: key frames are far larger than the frames between them.
const WINDOW: Duration = Duration::from_secs(1);

/// What came out of the encoders in the last [`WINDOW`].
#[derive(Debug, Default)]
struct Produced {
    /// When, and the bytes of all time by then.
    seen: VecDeque<(Duration, u64)>,
}

impl Produced {
    /// Bits per second, once a whole window has been seen.
    fn update(&mut self, bytes: u64, now: Duration) -> Option<u64> {
        self.seen.push_back((now, bytes));
        // One sample that is older than the window stays as its beginning.
        while let Some((second, _)) = self.seen.get(1)
            && now.saturating_sub(*second) >= WINDOW
        {
            self.seen.pop_front();
        }
        let (first, before) = *self.seen.front()?;
        let elapsed = now.saturating_sub(first);
        // A track that was replaced counts anew.
        let bits = bytes.checked_sub(before)? as f64 * 8.0;
        (elapsed >= WINDOW).then(|| (bits / elapsed.as_secs_f64()) as u64)
    }
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
        let mut produced = Produced::default();
        let mut rate: Option<(u64, EncoderRate)> = None;
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
            let (_, rate) = match &mut rate {
                Some(known) if known.0 == ceiling => known,
                // Other renditions are watched now. What the link carries has to be found out anew.
                other => other.insert((ceiling, EncoderRate::new(ceiling / FLOOR_SHARE, ceiling))),
            };
            let bytes = watched.iter().map(|rendition| rendition.bytes_sent).sum();
            let Some(produced) = produced.update(bytes, now) else {
                continue;
            };
            let signals = *signals.borrow_and_update();
            if rate.update(&signals, produced, now).is_some() {
                self.set_bitrate_limit(Some(rate.target()));
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
        let mut produced = Produced::default();
        let at = Duration::from_millis;
        assert_eq!(produced.update(0, at(0)), None);
        // A key frame, then little.
        assert_eq!(produced.update(100_000, at(200)), None);
        assert_eq!(produced.update(125_000, at(1000)), Some(1_000_000));
        assert_eq!(produced.update(125_000, at(1200)), Some(200_000));
        assert_eq!(produced.update(125_000, at(2000)), Some(0));
        // Another track.
        assert_eq!(produced.update(10, at(2200)), None);
    }
}
