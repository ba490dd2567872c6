//! Whether the publisher fits the bitrate to the network, or the viewer has to.

use std::time::Duration;

use super::meter::{Congestion, DownloadReport};

/// When hardly anything has got through for so long, the publisher cannot go low enough, or does not hear of it.
const COLLAPSE: Duration = Duration::from_secs(5);
/// For so long the viewer chooses by itself then.
const FAILED: Duration = Duration::from_secs(60);

/// The publisher's control of the rate, as the viewer sees it. Of two controllers on one link each takes what the other
/// does for the network: where the publisher says that it fits its pictures to the viewer, the viewer stays with what it
/// watches, unless that fails. Time is passed in.
#[derive(Debug, Clone, Default)]
pub(super) struct PublisherControl {
    /// What the publisher says.
    adapts: bool,
    collapsing_since: Option<Duration>,
    failed: Option<Duration>,
}

impl PublisherControl {
    /// The publisher says whether it fits its pictures to this viewer.
    pub fn set(&mut self, adapts: bool) {
        if self.adapts != adapts {
            *self = Self {
                adapts,
                ..Self::default()
            };
        }
    }

    /// Takes note of how what is watched gets through.
    pub fn observe(&mut self, report: &DownloadReport, now: Duration) {
        use Congestion::{Behind, Skipping, Stalled};
        if report.healthy {
            self.collapsing_since = None;
        } else if let Some(Behind | Skipping | Stalled) = report.congestion {
            let since = *self.collapsing_since.get_or_insert(now);
            if now.saturating_sub(since) >= COLLAPSE {
                self.failed = Some(now);
            }
        }
    }

    /// Whether it is the publisher who fits the rate.
    pub fn is_active(&self, now: Duration) -> bool {
        let failed = |at| now.saturating_sub(at) < FAILED;
        self.adapts && !self.failed.is_some_and(failed)
    }
}
