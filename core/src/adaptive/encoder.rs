//! The bitrate of a publisher's encoder.

use std::time::{Duration, Instant};

use moq_lite::bandwidth::Rate;
use moq_mux::rate::{Control, Policy};

use crate::{
    NetworkSignals,
    signals::SILENCE,
    util::window::{SlidingWindow, WindowedMin},
};

/// Of what the congestion controller says can be sent, so much is used: the rest is for key frames, for what has to be
/// sent again, and for what the estimate is too high, as it is the highest of late.
const SHARE: f64 = 0.8;
/// Sound and headers may take so much of it; what is more has to be sent again, and passes.
const OTHER_TRAFFIC: f64 = 0.5;
/// What is looked at is that of this time: a key frame makes a queue for a moment, and two lost of ten packets tell
/// nothing.
const WINDOW: Duration = Duration::from_secs(1);
/// When the round trip takes longer than the shortest by this, and by a quarter of it, and not because of the way down,
/// there is a queue.
const QUEUE: Duration = Duration::from_millis(30);
/// A round trip that comes down to this share in the window is that of a queue that drains by itself.
const FALLING: f64 = 0.9;
/// The shortest round trip is that of this time, so that a new path is soon taken as it is.
const RTT_WINDOW: Duration = Duration::from_secs(6);
/// What a path loses without being full.
const LOSS: f64 = 0.15;
/// When less than this of what is produced leaves, for as long as [`WINDOW`], the rest waits at the sender. A key frame does
/// so for a moment.
const PASSING: f64 = 0.95;
/// An estimate is exceeded for certain when it is by this.
const BEYOND: f64 = 1.1;
/// When the link is full, the bitrate comes down to this share.
const DOWN: f64 = 0.85;
/// An estimate below this many times what is sent may only mean that no more was sent.
const USED: f64 = 1.5;
/// Of what it may take the encoder has to take this much, before it is tried whether more would pass.
const TAKEN: f64 = 0.8;
/// It goes up in steps of this at most, as fast as the ramp allows.
const STEP: f64 = 1.1;
/// More than the estimate allows for is tried in such steps, each for so long.
const PROBE: Duration = Duration::from_secs(1);
/// For so long nothing may be wrong before that; longer each time it goes wrong.
const FIRST_HOLD: Duration = Duration::from_secs(2);
const LONGEST_HOLD: Duration = Duration::from_secs(16);
/// A peer that has been silent for no longer than this is taken for one who changes from one network to another: what gets
/// through afterwards may be as much as before. Who is silent for longer gets this share of it at first.
const AWAY: Duration = Duration::from_secs(5);
const AWAY_SHARE: f64 = 0.5;
/// More has been tried with success when nothing has been wrong for this long since.
const PROVEN: Duration = Duration::from_secs(5);

/// Follows what a connection can send with the bitrate of an encoder: down at once, up by a quarter a second.
///
/// Floor, ceiling, deadband (5 %) and the ramp are those of [`moq_mux::rate::Control`], so that all publishers of the
/// family behave alike. What it lacks is added here. What a congestion controller estimates is for all that is sent, not
/// for the pictures alone. And it knows of no more than what was sent through it: it says that a link has become too
/// thin; that a link has become wider, or how wide it is at first, it does not say to a sender that sends little (BBR's
/// samples are then limited by the application, and a window that is not used does not grow). So an estimate only counts
/// as a limit where loss, a queue in the path or one at the sender show that it is. A round trip that became longer on the
/// way down, as [`NetworkSignals::download_delay`] tells, is no queue of the sender's. And while nothing of the kind is seen,
/// more than it allows for is tried, a tenth more each second: after 2 s, and after twice as long each time that this
/// filled the link, up to 16 s.
///
/// Several encoders that share a connection divide what it carries first, with [`moq_lite::bandwidth::Allocator`].
///
/// A plain state machine: time is passed in, counted from any fixed point.
#[derive(Debug, Clone)]
pub struct EncoderRate {
    control: Control,
    ceiling: u64,
    /// What the inner machine counts its time from.
    epoch: Instant,
    shortest: WindowedMin,
    /// The least delay on the way down, of the same time.
    least_delay: WindowedMin,
    /// The signals since the bitrate was last lowered.
    recent: SlidingWindow<NetworkSignals>,
    /// What is sent besides what the encoder produces, bits per second.
    other_traffic: f64,
    /// Since when less has left than was produced.
    waiting_since: Option<Duration>,
    quiet_since: Duration,
    hold: Duration,
    probe: Option<Probe>,
    /// Whether it was lowered because nothing comes from the peer.
    away: bool,
}

/// More than the estimate allows for is tried.
#[derive(Debug, Clone, Copy)]
struct Probe {
    since: Duration,
    /// When the last step was made.
    stepped: Duration,
}

impl EncoderRate {
    /// A rate between `floor` and `ceiling`, bits per second, that begins at the ceiling.
    pub fn new(floor: u64, ceiling: u64) -> Self {
        let mut policy = Policy::new(Rate::from_bps(ceiling));
        policy.min = Rate::from_bps(floor.min(ceiling));
        Self {
            control: Control::new(policy),
            ceiling,
            epoch: Instant::now(),
            shortest: WindowedMin::new(RTT_WINDOW),
            least_delay: WindowedMin::new(RTT_WINDOW),
            recent: SlidingWindow::new(WINDOW),
            other_traffic: 0.0,
            waiting_since: None,
            quiet_since: Duration::ZERO,
            hold: FIRST_HOLD,
            probe: None,
            away: false,
        }
    }

    /// The bitrate that the encoder should have, bits per second.
    pub fn target(&self) -> u64 {
        self.control.target().as_bps()
    }

    /// Takes note of the connection's signals; returns the new bitrate when it is worth setting.
    ///
    /// `produced` is what the encoder gave in the last second, bits per second: a still picture needs less than it may
    /// take. Without an estimate (zero) the bitrate stays as it is; it is halved when nothing has come from the peer for longer
    /// than a hand-over from one network to another usually takes.
    pub fn update(
        &mut self,
        signals: &NetworkSignals,
        produced: u64,
        now: Duration,
    ) -> Option<u64> {
        if signals.silence >= SILENCE {
            return self.wait(signals.silence, now);
        }
        self.away = false;
        self.recent.push(*signals, now);
        let shortest = self.shortest.update(signals.rtt, now);
        let least = self.least_delay.update(signals.download_delay, now);
        let delays = self.recent.iter().map(|signals| signals.download_delay);
        // The round trip is smoothed: it follows the delay late.
        let down = delays.max().unwrap_or_default().saturating_sub(least);
        let path = Path { shortest, down };
        if signals.available_bandwidth == 0 {
            return None;
        }
        let (estimate, produced) = (signals.available_bandwidth as f64, produced as f64);
        let before = self.target();
        let lacks = self.recent.whole().is_some() && sent(&self.recent) < produced * PASSING;
        let since = self.waiting_since.filter(|_| lacks);
        self.waiting_since = lacks.then_some(since.unwrap_or(now));
        let waiting = since.is_some_and(|since| now.saturating_sub(since) >= WINDOW);
        let link = self.link(signals, path, produced, waiting);
        if link == Link::Free && self.recent.whole().is_some() {
            let other_traffic = sent(&self.recent) - produced;
            self.other_traffic = other_traffic.clamp(0.0, estimate * OTHER_TRAFFIC);
        }
        let usable = estimate * SHARE - self.other_traffic;
        // An estimate that was never used up may only be what was sent.
        let used = estimate < (before as f64 + self.other_traffic) * USED
            && produced >= before as f64 * TAKEN;
        let rate = Rate::from_bps(self.allowed(usable, used, link, now) as u64);
        let target = self.control.update(Some(rate), self.epoch + now)?.as_bps();
        if target < before {
            // What was sent until now says nothing about the new bitrate.
            self.recent.clear();
        }
        Some(target)
    }

    /// Nothing comes from the peer.
    fn wait(&mut self, silence: Duration, now: Duration) -> Option<u64> {
        // What was before says nothing about what will be.
        self.recent.clear();
        self.waiting_since = None;
        self.probe = None;
        self.quiet_since = now;
        if silence < AWAY || std::mem::replace(&mut self.away, true) {
            return None;
        }
        let rate = Rate::from_bps((self.target() as f64 * AWAY_SHARE) as u64);
        let target = self.control.update(Some(rate), self.epoch + now)?;
        Some(target.as_bps())
    }

    fn link(&self, signals: &NetworkSignals, path: Path, produced: f64, waiting: bool) -> Link {
        let recent = &self.recent;
        let whole = recent.whole();
        if let Some((first, last, _)) = whole {
            let loss = recent.mean(|signals| signals.loss_rate);
            let falls = path.rtt(last) < path.rtt(first).mul_f64(FALLING);
            if loss > LOSS || !falls && recent.iter().all(|signals| path.is_queued(signals)) {
                return Link::Full;
            }
        }
        let (offered, most) = (
            produced + self.other_traffic,
            signals.available_bandwidth as f64,
        );
        let trouble = signals.loss_rate > LOSS || path.is_queued(signals);
        if waiting || offered > most * BEYOND || offered > most && trouble {
            return Link::Strained;
        }
        Link::Free
    }

    /// What the encoder may produce. `usable` is what the estimate leaves to it; `used`: the estimate may be no more than
    /// a consequence of what is produced.
    fn allowed(&mut self, usable: f64, used: bool, link: Link, now: Duration) -> f64 {
        let target = self.target() as f64;
        if link != Link::Free {
            self.quiet_since = now;
            let probed = self.probe.take().is_some();
            if probed {
                self.hold = (self.hold * 2).min(LONGEST_HOLD);
            }
            let most = match link {
                Link::Full => target * DOWN,
                _ if probed => target / STEP,
                _ => target,
            };
            return usable.min(most);
        }
        if self
            .probe
            .is_some_and(|probe| now.saturating_sub(probe.since) >= PROVEN)
        {
            self.hold = FIRST_HOLD;
        }
        if now.saturating_sub(self.quiet_since) < self.hold {
            return target;
        }
        let more = target * STEP;
        if usable >= more || !used || self.target() == self.ceiling {
            return usable.clamp(target, more);
        }
        let probe = self.probe.get_or_insert(Probe {
            since: now,
            stepped: now.saturating_sub(PROBE),
        });
        if now.saturating_sub(probe.stepped) < PROBE {
            return target;
        }
        probe.stepped = now;
        more
    }
}

/// What is known of the path.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// The shortest round trip of late.
    shortest: Duration,
    /// How much longer than at best the way down takes.
    down: Duration,
}

impl Path {
    /// The round trip without what the way down added to it.
    fn rtt(&self, signals: &NetworkSignals) -> Duration {
        // What is read may be late for other reasons as well, as the peer's own queue.
        signals.rtt.saturating_sub(self.down).max(self.shortest)
    }

    /// Whether there is a queue on the way up.
    fn is_queued(&self, signals: &NetworkSignals) -> bool {
        self.rtt(signals) > self.shortest + QUEUE.max(self.shortest / 4)
    }
}

/// What was sent, bits per second.
fn sent(recent: &SlidingWindow<NetworkSignals>) -> f64 {
    recent.mean(|signals| signals.send_rate as f64)
}

/// How much of a link is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Round-trip time or loss say that too much is sent.
    Full,
    /// More is produced than the congestion controller says can be sent, and it shows.
    Strained,
    /// Nothing speaks against more.
    Free,
}

#[cfg(test)]
mod tests;
