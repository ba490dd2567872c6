//! Which renditions there are, and which of them a program wants.

use std::cmp::Ordering;

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

/// A rendition, as [`Selector`](super::Selector) sees it.
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

impl Quality {
    /// The place of the one rendition that is wanted; `None` where the network decides.
    pub(super) fn fixed(&self, ladder: &[Rung]) -> Option<usize> {
        let last = ladder.len().checked_sub(1)?;
        match self {
            Self::Auto | Self::AutoUpTo(_) => None,
            Self::Lowest => Some(0),
            Self::Highest => Some(last),
            Self::UpTo(lines) => Some(no_taller(ladder, *lines).unwrap_or(0)),
            Self::Named(name) => ladder.iter().position(|rung| rung.name == *name),
        }
    }

    /// The renditions to choose from, in their order.
    pub(super) fn eligible(&self, rungs: &[Rung]) -> Vec<Rung> {
        let named = |rung: &&Rung| matches!(self, Self::Named(name) if *name == rung.name);
        let mut ladder: Vec<_> = rungs
            .iter()
            .filter(|rung| !rung.stalled || named(rung))
            .cloned()
            .collect();
        if ladder.is_empty() {
            ladder = rungs.to_vec();
        }
        if let Self::AutoUpTo(lines) = self {
            let small = |rung: &Rung| rung.height.is_some_and(|height| height <= *lines);
            if ladder.iter().any(small) {
                ladder.retain(small);
            } else {
                ladder.truncate(1);
            }
        }
        ladder
    }
}

/// The place of the best rendition that is no taller than `lines`.
fn no_taller(ladder: &[Rung], lines: u32) -> Option<usize> {
    ladder
        .iter()
        .rposition(|rung| rung.height.is_some_and(|height| height <= lines))
}

/// Puts the smallest first: by bitrate where all say theirs, else by size.
pub(super) fn sort(rungs: &mut [Rung]) {
    let stated = rungs.iter().all(|rung| rung.bitrate.is_some());
    rungs.sort_by(|a, b| by_worth(a, b, stated));
}

fn by_worth(a: &Rung, b: &Rung, stated: bool) -> Ordering {
    let order = if stated {
        (a.bitrate, a.size).cmp(&(b.bitrate, b.size))
    } else {
        (a.size, a.bitrate).cmp(&(b.size, b.bitrate))
    };
    order.then_with(|| a.name.cmp(&b.name))
}
