//! Sound whose samples are counted and whose timestamps are measured. Plain state, with time passed in.
//!
//! A sound card has a clock of its own, and a program pushes when it gets to it: the time at which samples come drifts and
//! shakes against their number. An encoder counts samples; where timestamps differ from that by tens of milliseconds it
//! jumps, and what it jumps over is heard. So it is given the count, and the difference follows the measured times so
//! slowly that nobody hears it.

/// The difference takes so many packets to go the most of the way.
const SLEW: i64 = 32;

/// Sound that comes this much later than its number says, nanoseconds, comes after a pause.
const GAP: i64 = 100_000_000;

/// Sound may come this much sooner, nanoseconds: a program may push a second of it at once.
const AHEAD: i64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct SampleClock {
    /// Where the next samples begin, by their number.
    next: Option<i64>,
    /// What is added to that to get measured time.
    offset: i64,
}

/// Where samples lie, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// By their number.
    pub counted: i64,
    /// What is added to that to get the time at which they were captured.
    pub offset: i64,
}

impl SampleClock {
    /// Takes samples that were captured from `measured` on, nanoseconds, and last as long as `duration`.
    pub(super) fn place(&mut self, measured: i64, duration: i64) -> Placed {
        let counted = match self.next {
            None => measured,
            Some(next) => {
                let error = measured - (next + self.offset);
                if error >= GAP {
                    // The encoder sees the pause.
                    measured - self.offset
                } else if error <= -AHEAD {
                    self.offset += error;
                    next
                } else {
                    self.offset += error / SLEW;
                    next
                }
            }
        };
        self.next = Some(counted + duration);
        Placed {
            counted,
            offset: self.offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const PACKET: i64 = 20 * MS;

    /// Timestamps of packets of a clock that is off by so many millionths, which come late by up to 8 ms.
    fn drift(millionths: i64, packets: i64) -> Vec<(i64, i64)> {
        let mut clock = SampleClock::default();
        (0..packets)
            .map(|packet| {
                let captured = packet * (PACKET + PACKET * millionths / 1_000_000);
                let late = packet * 7 % 5 * 2 * MS;
                let placed = clock.place(captured + late, PACKET);
                assert_eq!(placed.counted, packet * PACKET, "the encoder sees no jump");
                (captured, placed.counted + placed.offset)
            })
            .collect()
    }

    #[test]
    fn a_clock_that_drifts_is_followed_without_a_jump() {
        for millionths in [-200, 0, 200] {
            // Twenty minutes.
            let placed = drift(millionths, 60_000);
            for (captured, timestamp) in &placed {
                assert!(
                    (timestamp - captured).abs() < 10 * MS,
                    "{captured}: {timestamp}"
                );
            }
            for pair in placed.windows(2) {
                let step = pair[1].1 - pair[0].1 - PACKET;
                assert!(step.abs() < MS, "{step} ns");
            }
        }
    }

    #[test]
    fn a_pause_is_a_gap_and_a_burst_is_none() {
        let mut clock = SampleClock::default();
        clock.place(0, PACKET);
        // Ten packets that a program pushes at once, as captured until then.
        let burst: Vec<_> = (0..10)
            .map(|_| clock.place(PACKET, PACKET).counted)
            .collect();
        assert_eq!(burst, (1..=10).map(|n| n * PACKET).collect::<Vec<_>>());
        let placed = clock.place(5_000 * MS, PACKET);
        assert_eq!(placed.counted + placed.offset, 5_000 * MS, "after a pause");
        let placed = clock.place(1_000 * MS, PACKET);
        assert_eq!(placed.counted + placed.offset, 1_000 * MS, "set back");
        assert!(
            placed.counted > 5_000 * MS - MS,
            "for the encoder time goes on"
        );
    }
}
