//! The shortest round trip of late.

use std::time::Duration;

/// The shortest round trip of a last while, so that a new route is soon taken as it is: of between half the span
/// and all of it.
#[derive(Debug, Clone)]
pub(crate) struct Shortest {
    half: Duration,
    now: Option<Duration>,
    before: Option<Duration>,
    turned: Duration,
}

impl Shortest {
    /// Of about the last `span`.
    pub fn new(span: Duration) -> Self {
        Self {
            half: span / 2,
            now: None,
            before: None,
            turned: Duration::ZERO,
        }
    }

    /// Takes a measurement; returns the shortest one. Time is counted from any fixed point.
    pub fn update(&mut self, rtt: Duration, now: Duration) -> Duration {
        if now.saturating_sub(self.turned) >= self.half {
            self.before = self.now.take();
            self.turned = now;
        }
        let shortest = self.now.map_or(rtt, |known| known.min(rtt));
        self.now = Some(shortest);
        self.before.map_or(shortest, |before| before.min(shortest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_route_is_the_shortest_after_a_while() {
        let mut shortest = Shortest::new(Duration::from_secs(4));
        let mut update = |ms, at| {
            shortest
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
