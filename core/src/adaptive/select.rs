//! Which rendition to watch.

use std::{collections::HashMap, time::Duration};

use super::{
    cooldown::Cooldown,
    meter::DownloadReport,
    publisher_control::PublisherControl,
    quality::{Quality, Rung, sort},
};

/// After a switch the meter knows little: so long nothing is concluded.
const SETTLE: Duration = Duration::from_secs(1);
/// So many reports have to show congestion, with none between them that all is well, before a step down.
const CONFIRM: u32 = 2;
/// All has to be well for this long before a step up: at first, as nothing speaks against it ...
const RAMP_HOLD: Duration = Duration::from_secs(1);
/// ... and once there was congestion.
const HOLD: Duration = Duration::from_secs(4);
/// What the peer says that it can deliver has to be this many times what a rendition and everything else need, for it to
/// be tried early.
const HEADROOM: f64 = 1.2;
/// While two renditions are received, what gets through has to be this many times what the new one needs, for it to be
/// served first.
const CARRIED: f64 = 1.05;
/// For so long both are received before that is looked at, and so often it has to be so.
const MEASURED: Duration = Duration::from_secs(1);
/// From then on the new one may take so long beyond its next key frame.
const TAKEOVER: Duration = Duration::from_millis(1500);
/// Of what gets through a thin link, this much is used: the rest is for retransmissions and to drain the queue.
const SHARE: f64 = 0.85;
/// A rendition that is too much for the decoder stays that: it is left alone for this long, and so is what is larger.
const TOO_SLOW: Duration = Duration::from_secs(60);
/// A track that came to an abrupt end is opened again after this.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Of a new measurement of what a rendition needs, this share counts: half of it is forgotten in three seconds and a half.
const SMOOTHING: f64 = 0.04;
/// How long a switch may take when it is not known how far apart key frames are.
const LIMIT: Duration = Duration::from_secs(6);
const LIMITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(12));
/// Without figures, the bitrate grows with this power of the number of pixels: the "rule of 0.75" of encoding practice.
const PIXEL_POWER: f64 = 0.75;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Begin to switch to this rendition.
    Switch(String),
    /// Have the rendition that is being switched to served before the one that is watched, from its next key frame on:
    /// both at once are more than the network carries, but the new one alone is not.
    Prefer,
    /// Give up the switch that was begun.
    Abandon,
}

/// What is known of the network when a [`Selector`] decides.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Measured<'a> {
    /// Of the rendition that is watched.
    pub watched: Option<&'a DownloadReport>,
    /// Of the rendition that is being switched to.
    pub next: Option<&'a DownloadReport>,
    /// What the peer says that it can deliver to us, bits per second.
    pub peer: Option<u64>,
    /// What else is received of it, bits per second: sound, and whatever else is watched.
    pub others: u64,
    /// Whether something else is trying a better rendition just now: one experiment at a time.
    pub taken: bool,
}

impl<'a> Measured<'a> {
    /// What is known of the rendition that is watched, and nothing else.
    pub fn new(watched: Option<&'a DownloadReport>) -> Self {
        Self {
            watched,
            ..Self::default()
        }
    }

    /// Whether the peer says that it can deliver this, bits per second, and everything else, so many times.
    fn carries(&self, needed: f64, times: f64) -> Option<bool> {
        let peer = self.peer? as f64;
        Some(peer >= (needed + self.others as f64) * times)
    }
}

/// Chooses the rendition to watch. A plain state machine: time is passed in, counted from any fixed point.
///
/// It begins with the smallest rendition, or with the best that fits twice into what the peer says it can deliver, so
/// that there is a picture at once, and goes up from there.
///
/// **Down** it goes when two reports show congestion and none between them that all is well, at once to the best rendition
/// that fits into 0.85 of what got through; and one step when a decoder cannot keep up.
///
/// **Up** it goes when all has been well for a while: one second at the beginning, four once there was congestion, twice
/// as long where the peer says that it cannot deliver so much. What an idle link carries is unknown, and what the peer
/// reports is then a lower bound, or a guess; so every step up is an experiment, one step each, or several where the
/// peer's report allows for 1.2 times what they and everything else need. Both renditions are received meanwhile, the new
/// one with what the other leaves. When that shows that the network carries the new one, if not both, the new one is served
/// first from its next key frame on. A step that fails (no key frame in time, congestion meanwhile, or a step down later)
/// has the rendition wait for 4 s, then 8 s, up to a minute, and less where the peer's report is good again; one that held
/// for long is forgiven.
///
/// **Neither** where the publisher fits the rate to this viewer ([`set_publisher_adapts`](Self::set_publisher_adapts)): then
/// it is the best that can be decoded, until next to nothing has got through for five seconds. For a minute after that it
/// is as without.
///
/// Renditions without a stated bitrate are ordered by size. What they need is learned while they are watched, and
/// guessed from their neighbours by size until then.
#[derive(Debug, Clone)]
pub struct Selector {
    quality: Quality,
    publisher: PublisherControl,
    /// The smallest first.
    rungs: Vec<Rung>,
    current: Option<String>,
    /// What the current one needs, also when it has left the ladder.
    current_rate: Option<f64>,
    since: Duration,
    attempt: Option<Attempt>,
    troubled: u32,
    quiet_since: Duration,
    ramping: bool,
    cooldowns: HashMap<String, Cooldown>,
    /// What is too much for the decoder.
    overload: Option<Overload>,
    /// The bitrate of each rendition of late, as its timestamps say, while it got through.
    measured: HashMap<String, f64>,
}

/// A rendition that is too much for the decoder, as is everything that is no smaller.
#[derive(Debug, Clone)]
struct Overload {
    rung: Rung,
    since: Duration,
}

impl Overload {
    /// Whether this is no smaller.
    fn includes(&self, rung: &Rung) -> bool {
        if rung.name == self.rung.name {
            return true;
        }
        // What takes more bits takes as much work only where nothing better is known.
        match (rung.size, self.rung.size) {
            (0, _) | (_, 0) => rung.bitrate >= self.rung.bitrate,
            (size, too_much) => size >= too_much,
        }
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= TOO_SLOW
    }
}

#[derive(Debug, Clone)]
struct Attempt {
    to: String,
    since: Duration,
    limit: Duration,
    up: bool,
    /// Since when what gets through has been enough for it.
    carried_since: Option<Duration>,
    /// Whether it is served first.
    preferred: bool,
}

impl Selector {
    /// A selector for renditions that are not known yet.
    pub fn new(quality: Quality) -> Self {
        Self {
            quality,
            publisher: PublisherControl::default(),
            rungs: Vec::new(),
            current: None,
            current_rate: None,
            since: Duration::ZERO,
            attempt: None,
            troubled: 0,
            quiet_since: Duration::ZERO,
            ramping: true,
            cooldowns: HashMap::new(),
            overload: None,
            measured: HashMap::new(),
        }
    }

    /// Changes what the program wants.
    pub fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// Takes note of whether the publisher fits the bitrate to what gets through to this viewer, who is the only one.
    pub fn set_publisher_adapts(&mut self, adapts: bool) {
        self.publisher.set(adapts);
    }

    /// Takes note of the renditions that there are now.
    pub fn set_ladder(&mut self, mut rungs: Vec<Rung>) {
        sort(&mut rungs);
        let known = |name: &String| rungs.iter().any(|rung| rung.name == *name);
        self.measured.retain(|name, _| known(name));
        self.cooldowns.retain(|name, _| known(name));
        self.rungs = rungs;
    }

    /// The rendition that is watched.
    pub fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// The rendition that a switch has been begun to.
    pub fn target(&self) -> Option<&str> {
        self.attempt.as_ref().map(|attempt| attempt.to.as_str())
    }

    /// Whether the switch under way is one to a better rendition, which must not disturb the one that is watched.
    pub fn is_rising(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.up)
    }

    /// The renditions that there are, the smallest first.
    pub fn ladder(&self) -> &[Rung] {
        &self.rungs
    }

    /// The switch under way is done.
    pub fn switched(&mut self, now: Duration) {
        if let Some(attempt) = self.attempt.take() {
            self.current = Some(attempt.to);
            self.since = now;
            self.quiet_since = now;
            self.troubled = 0;
        }
    }

    /// The switch under way cannot be done: the rendition could not be opened, or ended.
    pub fn failed(&mut self, now: Duration) {
        if let Some(attempt) = self.attempt.take() {
            self.fail(&attempt.to, now, None);
        }
    }

    /// What plays the rendition that is watched cannot keep up with it: one step down. For a minute nothing that is as large
    /// is tried, whatever the network carries.
    ///
    /// Returns what to do, as [`decide`](Self::decide) does.
    pub fn too_slow(&mut self, now: Duration) -> Option<Decision> {
        let ladder = self.quality.eligible(&self.rungs);
        let index = self.position(&ladder)?;
        if self.quality.fixed(&ladder).is_some() || self.attempt.is_some() {
            return None;
        }
        let overload = Overload {
            rung: ladder[index].clone(),
            since: now,
        };
        let smaller = |rung: &&Rung| !overload.includes(rung);
        let waits = |rung: &&Rung| self.waits(rung, now, &Measured::default());
        let mut lower = ladder[..index].iter().rev().filter(smaller);
        // One that failed lately rather than none.
        let highest = lower.clone().next();
        let lower = lower.find(|rung| !waits(rung)).or(highest)?;
        let lower = lower.name.clone();
        self.overload = Some(overload);
        self.ramping = false;
        Some(self.switch_to(lower, now, LIMIT, false))
    }

    /// The rendition that is watched came to an end of its own.
    pub fn lost(&mut self, now: Duration) {
        if let Some(current) = self.current.take() {
            self.fail(&current, now, Some(FIRST_RETRY));
        }
    }

    /// What is to be done at `now`, to be asked every 200 ms or so and after every change.
    ///
    /// After [`Decision::Switch`] tell how it went, with [`switched`](Self::switched) or [`failed`](Self::failed); after
    /// [`Decision::Abandon`] the attempt is over.
    pub fn decide(&mut self, now: Duration, measured: Measured<'_>) -> Option<Decision> {
        let ladder = self.quality.eligible(&self.rungs);
        let position = self.position(&ladder);
        if let Some(index) = position {
            self.current_rate = self.needed(&ladder[index]).or(self.current_rate);
        }
        let measured = Measured {
            watched: measured.watched.filter(|_| position.is_some()),
            ..measured
        };
        if let Some((index, report)) = position.zip(measured.watched) {
            self.learn(now, &ladder, index, report);
            self.publisher.observe(report, now);
        }
        if let Some(attempt) = self.attempt.clone() {
            return self.review(now, &attempt, &ladder, &measured);
        }
        let fixed = self.quality.fixed(&ladder);
        let fixed = fixed.or_else(|| self.best_of_publisher(now, &ladder, &measured));
        let target = match (fixed, position) {
            (Some(wanted), _) => Some(wanted),
            (None, None) => self.begin(now, &ladder, &measured),
            (None, Some(index)) => self.follow(now, &ladder, index, &measured),
        }?;
        let rung = &ladder[target];
        if self.current.as_ref() == Some(&rung.name) {
            return None;
        }
        let waits = |rung: &&Rung| self.waits(rung, now, &measured);
        let open = |rung: &&Rung| self.is_open(rung, now, &measured);
        let rung = match position {
            // What the program chose, it gets.
            _ if fixed.is_some() && !waits(&rung) => rung,
            _ if open(&rung) => rung,
            // Without anything to watch meanwhile, another rendition is better than waiting for this one; also one that
            // is too much for the decoder.
            None => ladder
                .iter()
                .find(open)
                .or(ladder.iter().find(|rung| !waits(rung)))?,
            // Down it goes in any case: in a blackout the attempt failed, and that says nothing of the rendition.
            Some(index) if target < index && fixed.is_none() => {
                ladder[..index].iter().rfind(open).unwrap_or(rung)
            }
            Some(_) => return None,
        };
        let key_interval = measured.watched.and_then(|report| report.key_interval);
        let limit = key_interval.map_or(LIMIT, |interval| {
            // A congestion controller that was never asked for more takes seconds to find that there is room.
            (Duration::from_secs(4) + interval.mul_f64(1.25)).clamp(LIMITS.0, LIMITS.1)
        });
        let up = position.is_some_and(|index| target > index);
        Some(self.switch_to(rung.name.clone(), now, limit, up))
    }

    fn switch_to(&mut self, name: String, now: Duration, limit: Duration, up: bool) -> Decision {
        self.attempt = Some(Attempt {
            to: name.clone(),
            since: now,
            limit,
            up,
            carried_since: None,
            preferred: false,
        });
        Decision::Switch(name)
    }

    /// Whether the switch under way goes on.
    fn review(
        &mut self,
        now: Duration,
        attempt: &Attempt,
        ladder: &[Rung],
        measured: &Measured<'_>,
    ) -> Option<Decision> {
        let fixed = self.quality.fixed(ladder);
        let wanted = ladder.iter().find(|rung| rung.name == attempt.to);
        // Another one stands in for what the program chose while that has to wait.
        let unwanted = fixed.is_some_and(|index| {
            ladder[index].name != attempt.to && !self.waits(&ladder[index], now, measured)
        });
        let Some(wanted) = wanted.filter(|_| !unwanted) else {
            self.attempt = None;
            return Some(Decision::Abandon);
        };
        let experiment = attempt.up && fixed.is_none() && !self.publisher.is_active(now);
        let late = now.saturating_sub(attempt.since) >= attempt.limit;
        // What is served first takes from what is watched, and its limit is short.
        let harmful = experiment
            && !attempt.preferred
            && measured
                .watched
                .is_some_and(|report| report.congestion.is_some());
        if late || harmful {
            self.failed(now);
            self.ramping = false;
            self.quiet_since = now;
            return Some(Decision::Abandon);
        }
        if experiment && !attempt.preferred {
            return self.prefer(now, wanted, measured);
        }
        None
    }

    /// Whether the rendition that is being switched to is to be served first.
    fn prefer(
        &mut self,
        now: Duration,
        wanted: &Rung,
        measured: &Measured<'_>,
    ) -> Option<Decision> {
        let (watched, next) = measured.watched.zip(measured.next)?;
        let needed = self.needed(wanted)?;
        let interval = watched.key_interval?;
        let attempt = self.attempt.as_mut()?;
        if watched.rate as f64 + (next.rate as f64) < needed * CARRIED {
            attempt.carried_since = None;
            return None;
        }
        let since = *attempt.carried_since.get_or_insert(now);
        if now.saturating_sub(since) < MEASURED {
            return None;
        }
        attempt.preferred = true;
        attempt.limit = now.saturating_sub(attempt.since) + interval + TAKEOVER;
        Some(Decision::Prefer)
    }

    /// The place of the best rendition that may be watched, where the publisher fits the rate.
    fn best_of_publisher(
        &self,
        now: Duration,
        ladder: &[Rung],
        measured: &Measured<'_>,
    ) -> Option<usize> {
        if !self.publisher.is_active(now) {
            return None;
        }
        ladder.iter().rposition(|rung| {
            self.current.as_ref() == Some(&rung.name) || self.is_open(rung, now, measured)
        })
    }

    /// The place of the rendition to begin with, or to go on with when the one that was watched is gone.
    fn begin(&self, now: Duration, ladder: &[Rung], measured: &Measured<'_>) -> Option<usize> {
        let peer = measured.peer.map(|peer| peer as f64 / 2.0);
        let free = peer.map(|peer| peer - measured.others as f64);
        let limit = self.current_rate.or(free).unwrap_or_default();
        let fits = |rung: &Rung| self.needed(rung).is_some_and(|rate| rate <= limit);
        ladder
            .iter()
            .rposition(|rung| fits(rung) && self.is_open(rung, now, measured))
            .or((!ladder.is_empty()).then_some(0))
    }

    /// Up or down from the rendition at `index`.
    fn follow(
        &mut self,
        now: Duration,
        ladder: &[Rung],
        index: usize,
        measured: &Measured<'_>,
    ) -> Option<usize> {
        let report = measured.watched?;
        let settled = now.saturating_sub(self.since) >= SETTLE;
        if !report.healthy {
            self.quiet_since = now;
        }
        if report.healthy || !settled {
            self.troubled = 0;
        } else if report.congestion.is_some() {
            self.troubled += 1;
        }
        if self.troubled >= CONFIRM {
            self.ramping = false;
            let lower = self.fitting(&ladder[..index], report.rate)?;
            self.fail(&ladder[index].name, now, None);
            self.troubled = 0;
            return Some(lower);
        }
        if !settled || !report.healthy || measured.taken {
            return None;
        }
        let next = ladder.get(index + 1)?;
        let needed = self.needed(next);
        let slow = needed.is_some_and(|needed| measured.carries(needed, 1.0) == Some(false));
        let hold = if self.ramping { RAMP_HOLD } else { HOLD };
        let hold = if slow { hold * 2 } else { hold };
        if now.saturating_sub(self.quiet_since) < hold {
            return None;
        }
        let mut target = index + 1;
        while let Some(better) = ladder.get(target + 1)
            && self.is_roomy(better, measured)
            && self.is_open(better, now, measured)
        {
            target += 1;
        }
        Some(target)
    }

    /// Whether the peer says that it can deliver a good deal more than a rendition and everything else need.
    fn is_roomy(&self, rung: &Rung, measured: &Measured<'_>) -> bool {
        self.needed(rung)
            .is_some_and(|needed| measured.carries(needed, HEADROOM) == Some(true))
    }

    /// The best of `ladder` that fits into what gets through.
    fn fitting(&self, ladder: &[Rung], rate: u64) -> Option<usize> {
        let limit = rate as f64 * SHARE;
        let unknown = ladder.iter().all(|rung| self.needed(rung).is_none());
        if unknown {
            return ladder.len().checked_sub(1);
        }
        ladder
            .iter()
            .rposition(|rung| self.needed(rung).is_some_and(|needed| needed <= limit))
            .or((!ladder.is_empty()).then_some(0))
    }

    fn position(&self, ladder: &[Rung]) -> Option<usize> {
        let current = self.current.as_ref()?;
        ladder.iter().position(|rung| rung.name == *current)
    }

    /// What a rendition needs, bits per second: as stated, or as seen if that is more; else guessed from one that is
    /// known.
    fn needed(&self, rung: &Rung) -> Option<f64> {
        self.known(rung).or_else(|| {
            let size = (rung.size > 0).then_some(rung.size as f64)?;
            let nearest = self
                .rungs
                .iter()
                .filter(|other| other.size > 0)
                .filter_map(|other| Some((other.size as f64, self.known(other)?)))
                .min_by(|a, b| (a.0 / size).ln().abs().total_cmp(&(b.0 / size).ln().abs()))?;
            Some(nearest.1 * (size / nearest.0).powf(PIXEL_POWER))
        })
    }

    fn known(&self, rung: &Rung) -> Option<f64> {
        let stated = rung.bitrate.map(|rate| rate as f64);
        let measured = self.measured.get(&rung.name).copied();
        match (stated, measured) {
            (Some(stated), Some(measured)) => Some(stated.max(measured)),
            (stated, measured) => stated.or(measured),
        }
    }

    /// Notes what the rendition that is watched needs, and that it holds: so would those below it.
    fn learn(&mut self, now: Duration, ladder: &[Rung], index: usize, report: &DownloadReport) {
        let held = now.saturating_sub(self.since);
        if report.healthy
            && let Some(bitrate) = report.bitrate
        {
            let name = ladder[index].name.clone();
            let measured = self.measured.entry(name).or_insert(bitrate as f64);
            *measured += (bitrate as f64 - *measured) * SMOOTHING;
        }
        for rung in &ladder[..=index] {
            if let Some(cooldown) = self.cooldowns.get(&rung.name)
                && cooldown.is_forgiven(now, held)
            {
                self.cooldowns.remove(&rung.name);
            }
        }
    }

    fn fail(&mut self, name: &str, now: Duration, first: Option<Duration>) {
        let before = self.cooldowns.get(name).copied();
        let failed = Cooldown::failed(before, now, first);
        self.cooldowns.insert(name.to_owned(), failed);
    }

    /// Whether a rendition may be tried.
    fn is_open(&self, rung: &Rung, now: Duration, measured: &Measured<'_>) -> bool {
        let overload = self.overload.as_ref();
        let too_much =
            overload.is_some_and(|overload| !overload.is_over(now) && overload.includes(rung));
        !too_much && !self.waits(rung, now, measured)
    }

    /// Whether it is too soon after a rendition failed.
    fn waits(&self, rung: &Rung, now: Duration, measured: &Measured<'_>) -> bool {
        self.cooldowns
            .get(&rung.name)
            .is_some_and(|cooldown| !cooldown.is_over(now, self.is_roomy(rung, measured)))
    }
}

#[cfg(test)]
mod tests;
