//! Which rendition to watch.

use std::{cmp::Ordering, collections::HashMap, time::Duration};

use super::DownloadReport;

/// After a switch the meter knows little: so long nothing is concluded.
const SETTLE: Duration = Duration::from_secs(1);
/// So many reports have to show congestion, with none between them that all is well, before a step down.
const CONFIRM: u32 = 2;
/// All has to be well for this long before a step up: at first, as nothing speaks against it ...
const RAMP_HOLD: Duration = Duration::from_secs(1);
/// ... and once there was congestion.
const HOLD: Duration = Duration::from_secs(4);
/// A rendition has to fit this many times into what the peer says it can deliver, to be tried early.
const HEADROOM: f64 = 1.5;
/// Of what gets through a thin link, this much is used: the rest is for retransmissions and to drain the queue.
const SHARE: f64 = 0.85;
/// A rendition that failed is left alone for this long, twice as long each time it fails again ...
const FIRST_PENALTY: Duration = Duration::from_secs(4);
/// ... up to this.
const LONGEST_PENALTY: Duration = Duration::from_secs(60);
/// A track that came to an abrupt end is opened again after this.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// A rendition that held for this long, and for twice its penalty, is trusted again.
const TRUST: Duration = Duration::from_secs(15);
/// How long a switch may take when it is not known how far apart key frames are.
const LIMIT: Duration = Duration::from_secs(6);
const LIMITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(12));
/// Without figures, the bitrate grows with this power of the number of pixels: the "rule of 0.75" of encoding practice.
const PIXEL_POWER: f64 = 0.75;

/// Which rendition a program wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Quality {
    /// The best that the network carries.
    #[default]
    Auto,
    /// The best that the network carries and that is no taller than this many lines: for a small window.
    AutoUpTo(u32),
    /// The smallest.
    Lowest,
    /// The best, whatever the network says.
    Highest,
    /// The best that is no taller than this many lines; the smallest if all are taller.
    UpTo(u32),
    /// The rendition of this name. While there is none, as [`Auto`](Self::Auto).
    Named(String),
}

/// A rendition, as [`Selector`] sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rung {
    /// Its name.
    pub name: String,
    /// Its greatest bitrate, bits per second, if the publisher says it.
    pub bitrate: Option<u64>,
    /// Its number of lines, if known; 0 for audio.
    pub height: Option<u32>,
    /// How much there is of it a second: pixels for video, samples for audio. Zero if unknown.
    pub size: u64,
    /// Whether the publisher advises against it.
    pub stalled: bool,
}

impl Rung {
    /// A rendition that nothing is known of but its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Begin to switch to this rendition.
    Switch(String),
    /// Give up the switch that was begun.
    Abandon,
}

/// Chooses the rendition to watch. A plain state machine: time is passed in, counted from any fixed point.
///
/// It begins with the smallest rendition, or with the best that fits twice into what the peer says it can deliver, so
/// that there is a picture at once, and goes up from there.
///
/// **Down** it goes when two reports show congestion and none between them that all is well, at once to the best rendition that fits into 0.85 of what
/// got through.
///
/// **Up** it goes when all has been well for a while: one second at the beginning, four once there was congestion, twice
/// as long where the peer says that it cannot deliver so much. What an idle link carries is unknown, and what the peer
/// reports is then a lower bound, or a guess; so every step up is an experiment, one step each, or several where the
/// peer's report allows for 1.5 times the bitrate. A step that fails (no key frame in time, congestion meanwhile, or a
/// step down later) bars the rendition for 4 s, then 8 s, up to a minute, and less where the peer's report is good
/// again; a rendition that held for long is trusted again.
///
/// Renditions without a stated bitrate are ordered by size. What they need is learned while they are watched, and
/// guessed from their neighbours by size until then.
#[derive(Debug, Clone)]
pub struct Selector {
    quality: Quality,
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
    penalties: HashMap<String, Penalty>,
    /// The greatest rate seen of each rendition while it got through.
    learned: HashMap<String, f64>,
}

#[derive(Debug, Clone)]
struct Attempt {
    to: String,
    since: Duration,
    limit: Duration,
    up: bool,
}

#[derive(Debug, Clone, Copy)]
struct Penalty {
    since: Duration,
    wait: Duration,
    until: Duration,
}

impl Selector {
    /// A selector for renditions that are not known yet.
    pub fn new(quality: Quality) -> Self {
        Self {
            quality,
            rungs: Vec::new(),
            current: None,
            current_rate: None,
            since: Duration::ZERO,
            attempt: None,
            troubled: 0,
            quiet_since: Duration::ZERO,
            ramping: true,
            penalties: HashMap::new(),
            learned: HashMap::new(),
        }
    }

    /// Changes what the program wants.
    pub fn set_quality(&mut self, quality: Quality) {
        self.quality = quality;
    }

    /// Takes note of the renditions that there are now.
    pub fn set_ladder(&mut self, mut rungs: Vec<Rung>) {
        let stated = rungs.iter().all(|rung| rung.bitrate.is_some());
        rungs.sort_by(|a, b| by_worth(a, b, stated));
        let known = |name: &String| rungs.iter().any(|rung| rung.name == *name);
        self.learned.retain(|name, _| known(name));
        self.penalties.retain(|name, _| known(name));
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
            self.penalize(&attempt.to, now, FIRST_PENALTY);
        }
    }

    /// The rendition that is watched came to an end of its own.
    pub fn lost(&mut self, now: Duration) {
        if let Some(current) = self.current.take() {
            self.penalize(&current, now, FIRST_RETRY);
        }
    }

    /// What is to be done at `now`, to be asked every 200 ms or so and after every change.
    ///
    /// `report` is of the rendition that is watched, `peer` what the peer says that it can deliver to us, bits per
    /// second. After [`Decision::Switch`] tell how it went, with [`switched`](Self::switched) or
    /// [`failed`](Self::failed); after [`Decision::Abandon`] the attempt is over.
    pub fn decide(
        &mut self,
        now: Duration,
        report: Option<&DownloadReport>,
        peer: Option<u64>,
    ) -> Option<Decision> {
        let ladder = self.eligible();
        let position = self.position(&ladder);
        if let Some(index) = position {
            self.current_rate = self.needed(&ladder[index]).or(self.current_rate);
        }
        let report = report.filter(|_| position.is_some());
        if let Some((index, report)) = position.zip(report) {
            self.learn(now, &ladder, index, report);
        }
        if let Some(attempt) = self.attempt.clone() {
            return self.review(now, &attempt, &ladder, report);
        }
        let target = match (self.fixed(&ladder), position) {
            (Some(wanted), _) => Some(wanted),
            (None, None) => self.begin(now, &ladder, peer),
            (None, Some(index)) => self.follow(now, &ladder, index, report?, peer),
        }?;
        let rung = &ladder[target];
        if self.current.as_ref() == Some(&rung.name) {
            return None;
        }
        let open = |rung: &&Rung| !self.is_barred(&rung.name, now);
        let rung = match position {
            _ if open(&rung) => rung,
            // Without anything to watch meanwhile, another rendition is better than waiting for this one.
            None => ladder.iter().find(open)?,
            // Down it goes in any case: in a blackout the attempt failed, and that says nothing of the rendition.
            Some(index) if target < index && self.fixed(&ladder).is_none() => {
                ladder[..index].iter().rfind(open).unwrap_or(rung)
            }
            Some(_) => return None,
        };
        let key_interval = report.and_then(|report| report.key_interval);
        let limit = key_interval.map_or(LIMIT, |interval| {
            // A congestion controller that was never asked for more takes seconds to find that there is room.
            (Duration::from_secs(4) + interval.mul_f64(1.25)).clamp(LIMITS.0, LIMITS.1)
        });
        self.attempt = Some(Attempt {
            to: rung.name.clone(),
            since: now,
            limit,
            up: position.is_some_and(|index| target > index),
        });
        Some(Decision::Switch(rung.name.clone()))
    }

    /// Whether the switch under way goes on.
    fn review(
        &mut self,
        now: Duration,
        attempt: &Attempt,
        ladder: &[Rung],
        report: Option<&DownloadReport>,
    ) -> Option<Decision> {
        let fixed = self.fixed(ladder);
        let gone = !ladder.iter().any(|rung| rung.name == attempt.to);
        let unwanted = fixed.is_some_and(|index| ladder[index].name != attempt.to);
        if gone || unwanted {
            self.attempt = None;
            return Some(Decision::Abandon);
        }
        let late = now.saturating_sub(attempt.since) >= attempt.limit;
        let harmful = attempt.up
            && fixed.is_none()
            && report.is_some_and(|report| report.congestion.is_some());
        if late || harmful {
            self.failed(now);
            self.ramping = false;
            self.quiet_since = now;
            return Some(Decision::Abandon);
        }
        None
    }

    /// The place of the rendition to begin with, or to go on with when the one that was watched is gone.
    fn begin(&self, now: Duration, ladder: &[Rung], peer: Option<u64>) -> Option<usize> {
        let limit = self
            .current_rate
            .or(peer.map(|peer| peer as f64 / 2.0))
            .unwrap_or_default();
        let fits = |rung: &Rung| self.needed(rung).is_some_and(|rate| rate <= limit);
        let open = |rung: &Rung| !self.is_barred(&rung.name, now);
        ladder
            .iter()
            .rposition(|rung| fits(rung) && open(rung))
            .or((!ladder.is_empty()).then_some(0))
    }

    /// Up or down from the rendition at `index`.
    fn follow(
        &mut self,
        now: Duration,
        ladder: &[Rung],
        index: usize,
        report: &DownloadReport,
        peer: Option<u64>,
    ) -> Option<usize> {
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
            self.penalize(&ladder[index].name, now, FIRST_PENALTY);
            self.troubled = 0;
            return Some(lower);
        }
        if !settled || !report.healthy {
            return None;
        }
        let next = ladder.get(index + 1)?;
        let slow = peer
            .zip(self.needed(next))
            .is_some_and(|(peer, rate)| (peer as f64) < rate);
        let hold = if self.ramping { RAMP_HOLD } else { HOLD };
        let hold = if slow { hold * 2 } else { hold };
        if now.saturating_sub(self.quiet_since) < hold {
            return None;
        }
        if self.is_roomy(next, peer) {
            self.forgive(&next.name, now);
        }
        let mut target = index + 1;
        while let Some(better) = ladder.get(target + 1)
            && self.is_roomy(better, peer)
            && !self.is_barred(&better.name, now)
        {
            target += 1;
        }
        Some(target)
    }

    /// Whether the peer says that it can deliver a good deal more than a rendition needs.
    fn is_roomy(&self, rung: &Rung, peer: Option<u64>) -> bool {
        peer.zip(self.needed(rung))
            .is_some_and(|(peer, rate)| peer as f64 >= rate * HEADROOM)
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

    /// The place of the one rendition that is wanted; `None` where the network decides.
    fn fixed(&self, ladder: &[Rung]) -> Option<usize> {
        let last = ladder.len().checked_sub(1)?;
        match &self.quality {
            Quality::Auto | Quality::AutoUpTo(_) => None,
            Quality::Lowest => Some(0),
            Quality::Highest => Some(last),
            Quality::UpTo(lines) => Some(no_taller(ladder, *lines).unwrap_or(0)),
            Quality::Named(name) => ladder.iter().position(|rung| rung.name == *name),
        }
    }

    /// The renditions to choose from, the smallest first.
    fn eligible(&self) -> Vec<Rung> {
        let named =
            |rung: &&Rung| matches!(&self.quality, Quality::Named(name) if *name == rung.name);
        let mut ladder: Vec<_> = self
            .rungs
            .iter()
            .filter(|rung| !rung.stalled || named(rung))
            .cloned()
            .collect();
        if ladder.is_empty() {
            ladder.clone_from(&self.rungs);
        }
        if let Quality::AutoUpTo(lines) = self.quality {
            let small = |rung: &Rung| rung.height.is_some_and(|height| height <= lines);
            if ladder.iter().any(small) {
                ladder.retain(small);
            } else {
                ladder.truncate(1);
            }
        }
        ladder
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
        let learned = self.learned.get(&rung.name).copied();
        match (stated, learned) {
            (Some(stated), Some(learned)) => Some(stated.max(learned)),
            (stated, learned) => stated.or(learned),
        }
    }

    /// Notes what the rendition that is watched needs, and that it holds: so would those below it.
    fn learn(&mut self, now: Duration, ladder: &[Rung], index: usize, report: &DownloadReport) {
        let held = now.saturating_sub(self.since);
        if held >= SETTLE * 2 && report.healthy {
            let name = ladder[index].name.clone();
            let learned = self.learned.entry(name).or_default();
            *learned = learned.max(report.rate as f64);
        }
        for rung in &ladder[..=index] {
            if let Some(penalty) = self.penalties.get(&rung.name)
                && held.min(now.saturating_sub(penalty.since)) >= TRUST.max(penalty.wait * 2)
            {
                self.penalties.remove(&rung.name);
            }
        }
    }

    fn penalize(&mut self, name: &str, now: Duration, first: Duration) {
        let wait = self.penalties.get(name).map_or(first, |penalty| {
            (penalty.wait * 2).clamp(first, LONGEST_PENALTY)
        });
        let penalty = Penalty {
            since: now,
            wait,
            until: now + wait,
        };
        self.penalties.insert(name.to_owned(), penalty);
    }

    /// Shortens a penalty when the peer says that there is room: it can see what an experiment here cannot.
    fn forgive(&mut self, name: &str, now: Duration) {
        if let Some(penalty) = self.penalties.get_mut(name)
            && now.saturating_sub(penalty.since) >= (penalty.wait / 4).max(HOLD)
        {
            penalty.until = now;
        }
    }

    fn is_barred(&self, name: &str, now: Duration) -> bool {
        self.penalties
            .get(name)
            .is_some_and(|penalty| now < penalty.until)
    }
}

/// The place of the best rendition that is no taller than `lines`.
fn no_taller(ladder: &[Rung], lines: u32) -> Option<usize> {
    ladder
        .iter()
        .rposition(|rung| rung.height.is_some_and(|height| height <= lines))
}

fn by_worth(a: &Rung, b: &Rung, stated: bool) -> Ordering {
    let order = if stated {
        (a.bitrate, a.size).cmp(&(b.bitrate, b.size))
    } else {
        (a.size, a.bitrate).cmp(&(b.size, b.bitrate))
    };
    order.then_with(|| a.name.cmp(&b.name))
}

#[cfg(test)]
mod tests;
