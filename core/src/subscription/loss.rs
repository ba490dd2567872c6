//! Why a broadcast is not there.

use std::fmt;

/// Why a broadcast is not there. As a sentence it names what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossReason {
    /// The publisher stopped without ending the broadcast.
    Stopped,
    /// The publisher has taken the broadcast back.
    Withdrawn,
    /// The publisher has another broadcast under the name, which is taken instead.
    Replaced,
    /// The publisher says that it has no such broadcast.
    NotPublished,
    /// The connection was lost.
    ConnectionLost(String),
    /// There is no way to the publisher.
    Unreachable(String),
    /// Somebody else answers at the address.
    WrongIdentity,
    /// The publisher has no time now; what it says to it may be empty.
    Busy(String),
    /// The publisher is at one of its limits, as when it takes no more viewers; what it says to it may be empty.
    Full(String),
    /// Anything else.
    Failed(String),
}

impl LossReason {
    /// What happened, as a sentence without its stop.
    pub fn cause(&self) -> String {
        match self {
            Self::Stopped => "the publisher stopped without ending the broadcast".to_owned(),
            Self::Withdrawn => "the publisher has taken the broadcast back".to_owned(),
            Self::Replaced => "the publisher has put another broadcast in its place".to_owned(),
            Self::NotPublished => "the publisher has no broadcast of that name".to_owned(),
            Self::ConnectionLost(how) => {
                format!("the connection to the publisher was lost ({how})")
            }
            Self::Unreachable(how) => format!(
                "the publisher cannot be reached: it is switched off, or there is no way to it from this network ({how})"
            ),
            Self::WrongIdentity => {
                "somebody else answers at that address: the ticket is mistyped, or the publisher has a new key and so a new ticket".to_owned()
            }
            Self::Busy(said) if said.is_empty() => "the publisher is busy".to_owned(),
            Self::Busy(said) => format!("the publisher is busy ({said})"),
            Self::Full(said) if said.is_empty() => "the publisher is at its limit".to_owned(),
            Self::Full(said) => format!("the publisher is at its limit ({said})"),
            Self::Failed(how) => how.clone(),
        }
    }

    fn awaited(&self) -> &'static str {
        match self {
            Self::Stopped | Self::WrongIdentity => "waiting for it to start again",
            Self::Withdrawn | Self::NotPublished => "waiting for it to publish it again",
            Self::Replaced => "going over to that",
            Self::ConnectionLost(_) => "waiting for a connection",
            Self::Unreachable(_) => "waiting for a way to it",
            Self::Busy(_) => "waiting for it to have time",
            Self::Full(_) => "waiting for a place",
            Self::Failed(_) => "trying again",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause(), self.awaited())
    }
}
