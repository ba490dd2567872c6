//! What was seen in a last while.

use std::{collections::VecDeque, time::Duration};

/// What was seen in the last `span`, and one more that is older, as its beginning. Time is counted from any fixed point.
#[derive(Debug, Clone)]
pub(crate) struct Recent<T> {
    span: Duration,
    seen: VecDeque<(Duration, T)>,
}

impl<T> Recent<T> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_span_is_kept_and_no_more() {
        let mut recent = Recent::new(Duration::from_secs(1));
        assert_eq!(recent.mean(|_| 1.0), 0.0);
        for n in 0..10_u32 {
            recent.push(n, Duration::from_millis(400) * n);
            let whole = recent.whole().map(|(first, last, _)| (*first, *last));
            assert_eq!(whole, (n >= 3).then(|| (n - 3, n)));
        }
        assert_eq!(recent.iter().copied().collect::<Vec<_>>(), [6, 7, 8, 9]);
        assert_eq!(recent.mean(|n| f64::from(*n)), 7.5);
        recent.clear();
        assert!(recent.whole().is_none());
    }
}
