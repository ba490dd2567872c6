//! Why a publisher stops sending before the end.

use moq_lite::{Error, StreamError};

/// Why a publisher stopped sending before the end, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// It has taken the broadcast back.
    #[error("the publisher has taken the broadcast back")]
    Withdrawn,
    /// It does not let this side watch any more.
    #[error("the publisher does not let this side watch any more: ask it for access")]
    NotAllowed,
    /// It has let go of the track, or was stopped, without ending it.
    #[error("the publisher stopped without ending the track")]
    Interrupted,
}

impl StopReason {
    const ALL: [Self; 3] = [Self::Withdrawn, Self::NotAllowed, Self::Interrupted];

    /// The reason in an error of the transport, if it is one of these.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        let Error::Stream(StreamError::App(code)) = error else {
            return None;
        };
        Self::ALL.into_iter().find(|reason| reason.code() == *code)
    }

    /// Resets streams with this, 64 more on the wire: MoQ leaves what is above that to programs.
    fn code(self) -> u16 {
        match self {
            Self::Withdrawn => 0x4c01,
            Self::NotAllowed => 0x4c02,
            Self::Interrupted => 0x4c03,
        }
    }
}

impl From<StopReason> for Error {
    fn from(reason: StopReason) -> Self {
        Self::App(reason.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_through_the_wire() {
        for reason in StopReason::ALL {
            let code = StreamError::from(&Error::from(reason)).to_code();
            let received = Error::Stream(StreamError::from_code(code));
            assert_eq!(StopReason::of(&received), Some(reason));
        }
        assert_eq!(StopReason::of(&Error::Dropped), None);
    }
}
