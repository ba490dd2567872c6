//! What was measured over a last while.

use std::{collections::VecDeque, time::Duration};

/// A sliding window: what was seen in the last `span`, and one more that is older, as its beginning. Time is counted from
/// any fixed point.
#[derive(Debug, Clone)]
pub(crate) struct SlidingWindow<T> {
    span: Duration,
    seen: VecDeque<(Duration, T)>,
}

impl<T> SlidingWindow<T> {
    pub fn new(span: Duration) -> Self {
        Self {
            span,
            seen: VecDeque::new(),
        }
    }

    pub fn push(&mut self, item: T, now: Duration) {
        self.seen.push_back((now, item));
        while let Some((second, _)) = self.seen.get(1)
            && now.saturating_sub(*second) >= self.span
        {
            self.seen.pop_front();
        }
    }

    /// The first and the last, and the time between them, once that is the whole span.
    pub fn whole(&self) -> Option<(&T, &T, Duration)> {
        let ((begin, first), (end, last)) = (self.seen.front()?, self.seen.back()?);
        let elapsed = end.saturating_sub(*begin);
        (elapsed >= self.span).then_some((first, last, elapsed))
    }

    /// All of it, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.seen.iter().map(|(_, item)| item)
    }

    /// Of all of it the mean of something; zero of nothing.
    pub fn mean(&self, of: impl Fn(&T) -> f64) -> f64 {
        self.iter().map(of).sum::<f64>() / (self.seen.len() as f64).max(1.0)
    }

    pub fn clear(&mut self) {
        self.seen.clear();
    }
}

/// The windowed minimum of a duration, as of the round trip, so that a new route is soon taken as it is: of between half
/// the span and all of it.
#[derive(Debug, Clone)]
pub(crate) struct WindowedMin {
    half: Duration,
    /// The least of this half, which began at `turned`, and of the one before.
    now: Option<Duration>,
    before: Option<Duration>,
    turned: Duration,
}

impl WindowedMin {
    /// Of about the last `span`.
    pub fn new(span: Duration) -> Self {
        Self {
            half: span / 2,
            now: None,
            before: None,
            turned: Duration::ZERO,
        }
    }

    /// Takes a measurement; returns the least one. Time is counted from any fixed point.
    pub fn update(&mut self, measured: Duration, now: Duration) -> Duration {
        if now.saturating_sub(self.turned) >= self.half {
            self.before = self.now.take();
            self.turned = now;
        }
        let least = self.now.map_or(measured, |known| known.min(measured));
        self.now = Some(least);
        self.before.map_or(least, |before| before.min(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_span_is_kept_and_no_more() {
        let mut window = SlidingWindow::new(Duration::from_secs(1));
        assert_eq!(window.mean(|_| 1.0), 0.0);
        for n in 0..10_u32 {
            window.push(n, Duration::from_millis(400) * n);
            let whole = window.whole().map(|(first, last, _)| (*first, *last));
            assert_eq!(whole, (n >= 3).then(|| (n - 3, n)));
        }
        assert_eq!(window.iter().copied().collect::<Vec<_>>(), [6, 7, 8, 9]);
        assert_eq!(window.mean(|n| f64::from(*n)), 7.5);
        window.clear();
        assert!(window.whole().is_none());
    }

    #[test]
    fn a_longer_round_trip_is_the_least_after_a_while() {
        let mut least = WindowedMin::new(Duration::from_secs(4));
        let mut update = |ms, at| {
            least
                .update(Duration::from_millis(ms), Duration::from_millis(at))
                .as_millis()
        };
        assert_eq!(update(50, 0), 50);
        assert_eq!(update(40, 100), 40);
        assert_eq!(update(300, 1900), 40);
        assert_eq!(update(300, 2100), 40);
        assert_eq!(update(300, 4200), 300);
    }
}
