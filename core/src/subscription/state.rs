//! What a subscription says of itself.

use std::{fmt, sync::Arc, time::Instant};

use super::{error::SubscribeError, loss::LossReason};

/// How a subscription stands.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum SubscriberState {
    /// On the way to the publisher.
    #[default]
    Connecting,
    /// The publisher is there, the broadcast not, or its catalog.
    Waiting {
        /// The names of what it publishes instead, some of them; `None` in the first seconds, in which it may not have
        /// said all.
        published: Option<Vec<String>>,
    },
    /// The broadcast is there.
    Up,
    /// The broadcast is there, and media that came has stopped, on all tracks that are read, for longer than its rhythm
    /// explains: a second at most where frames come one by one at ordinary rates, three where a reader has just begun.
    Stalled {
        /// When the last frame came.
        last_frame: Instant,
    },
    /// It was lost, or could not be had. It is tried again.
    Lost {
        /// Why.
        reason: LossReason,
        /// When it is tried again.
        retry_at: Instant,
        /// Whether it is the first time in this outage that this is why.
        is_new: bool,
    },
    /// The publisher has ended the broadcast. This is final.
    Ended,
    /// This side has closed the subscription. This is final.
    Closed,
    /// The publisher does not let this side watch. This is final.
    Refused(Arc<SubscribeError>),
    /// It cannot be had, whatever is tried, or was given up. This is final.
    Failed(Arc<SubscribeError>),
}

impl SubscriberState {
    /// Whether the broadcast is there.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up | Self::Stalled { .. })
    }

    /// Whether it stays like this.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Ended | Self::Closed | Self::Refused(_) | Self::Failed(_)
        )
    }
}

impl fmt::Display for SubscriberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting to the publisher"),
            Self::Waiting { published } => {
                f.write_str("the publisher is there, ")?;
                match published.as_deref() {
                    None => f.write_str("the broadcast not yet: waiting for it"),
                    Some([]) => f.write_str("and has no broadcast: waiting for it"),
                    Some(names) => write!(
                        f,
                        "and has no such broadcast, but {}: waiting for it",
                        names.join(", ")
                    ),
                }
            }
            Self::Up => f.write_str("the broadcast is there"),
            Self::Stalled { last_frame } => {
                let age = last_frame.elapsed().as_millis();
                write!(
                    f,
                    "nothing has come for {age} ms: waiting for the next frame"
                )
            }
            Self::Lost { reason, .. } => reason.fmt(f),
            Self::Ended => f.write_str("the publisher has ended the broadcast"),
            Self::Closed => f.write_str("closed by this side"),
            Self::Refused(error) | Self::Failed(error) => error.fmt(f),
        }
    }
}
