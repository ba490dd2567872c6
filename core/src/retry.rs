//! When to try again what failed.

use std::time::Duration;

/// The waits between attempts: growing, bounded, and scattered, so that the viewers of a publisher that comes back do
/// not all come at once.
///
/// A plain state machine: it neither sleeps nor draws random numbers.
///
/// ```
/// # use iroh_live::retry::Backoff;
/// # use std::time::Duration;
/// let mut backoff = Backoff::default();
/// let first = backoff.next(0.5);
/// assert!(backoff.next(0.5) > first);
/// backoff.succeeded();
/// assert_eq!(backoff.next(0.5), first);
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The first wait.
    pub const FIRST: Duration = Duration::from_millis(250);
    /// The longest wait.
    pub const LONGEST: Duration = Duration::from_secs(8);

    /// How long to wait before the next attempt. `random` lies in 0 to 1 and scatters the wait by a quarter to either
    /// side.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(Self::LONGEST);
        wait.mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// It worked: the next failure begins anew.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }

    #[test]
    fn waits_are_scattered_by_a_quarter() {
        assert_eq!(Backoff::default().next(0.0), Backoff::FIRST.mul_f64(0.75));
        assert_eq!(Backoff::default().next(7.0), Backoff::FIRST.mul_f64(1.25));
    }
}
