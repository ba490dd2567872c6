//! How a session ends, and the codes that tell a peer why.

use iroh::endpoint::{ConnectionError, VarInt};

/// The application code that tells a peer why a session ended.
///
/// Codes below 64 are those of the MoQ drafts, so that peers of other makes understand them. Those from
/// [`FIRST_OWN`](Self::FIRST_OWN) on are the program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u32);

impl CloseCode {
    /// The normal end.
    pub const DONE: Self = Self(0);
    /// The peer may not connect; MoQ's own code for a lack of authorization.
    pub const REFUSED: Self = Self(2);
    /// The peer sent what MoQ does not allow; MoQ's own code.
    pub(super) const VIOLATION: Self = Self(3);
    /// The peer may connect, but not now: who it calls is in another call.
    pub const BUSY: Self = Self(0x101);
    /// Another connection between the same two peers is used instead of this one.
    pub const SUPERSEDED: Self = Self(0x102);
    /// The peer has gone over one of the [`Limits`](super::Limits).
    pub const LIMIT: Self = Self(0x104);
    /// The side that dialled needs the session no more.
    pub const UNUSED: Self = Self(0x103);

    /// The first code that this crate and MoQ leave to programs.
    pub const FIRST_OWN: u32 = 0x1000;

    /// The code with this number on the wire.
    pub const fn new(code: u32) -> Self {
        Self(code)
    }

    /// Its number on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        code.0.into()
    }
}

/// Why a session or a call ended.
///
/// Derived from the close reason of the QUIC connection, and from what this side did. [`Disconnect`] says more.
///
/// ```
/// # mod documented {
/// pub enum DisconnectReason {
///     LocalClose,
///     RemoteClose,
///     TransportError,
/// }
/// # }
/// # use iroh_live::DisconnectReason;
/// # fn same(reason: DisconnectReason) -> documented::DisconnectReason {
/// #     match reason {
/// #         DisconnectReason::LocalClose => documented::DisconnectReason::LocalClose,
/// #         DisconnectReason::RemoteClose => documented::DisconnectReason::RemoteClose,
/// #         DisconnectReason::TransportError => documented::DisconnectReason::TransportError,
/// #     }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisconnectReason {
    /// This side closed it.
    LocalClose,
    /// The peer closed it.
    RemoteClose,
    /// The connection was lost, or replaced by a new one after it was. A peer that vanishes without a word is given up
    /// within fifteen seconds.
    TransportError,
}

/// How a session or a call ended, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnect {
    /// Who ended it.
    pub reason: DisconnectReason,
    /// The code that it was closed with; none where the connection was lost.
    pub code: Option<CloseCode>,
    /// What whoever closed it said, or what happened to the connection. May be empty.
    pub message: String,
}

impl Disconnect {
    /// This side closed it.
    pub(crate) fn local(code: CloseCode, message: &str) -> Self {
        Self {
            reason: DisconnectReason::LocalClose,
            code: Some(code),
            message: message.to_owned(),
        }
    }

    /// The peer closed it.
    pub(crate) fn remote(code: CloseCode, message: &str) -> Self {
        Self {
            reason: DisconnectReason::RemoteClose,
            ..Self::local(code, message)
        }
    }

    /// It was lost, or given up.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self {
            reason: DisconnectReason::TransportError,
            code: None,
            message: message.into(),
        }
    }
}

impl From<&ConnectionError> for Disconnect {
    fn from(error: &ConnectionError) -> Self {
        match (error, close_code_of(error)) {
            (_, Some(CloseCode::SUPERSEDED)) => Self {
                code: Some(CloseCode::SUPERSEDED),
                ..Self::lost(close_reason(error))
            },
            (ConnectionError::ApplicationClosed(_), code) => Self {
                reason: DisconnectReason::RemoteClose,
                code,
                message: close_reason(error),
            },
            // Not by way of the session: MoQ has found something wrong with what the peer sent, or the program has closed the
            // connection itself.
            (ConnectionError::LocallyClosed, _) => Self::lost(
                "the peer broke the rules of MoQ, or the program closed the connection below",
            ),
            (ConnectionError::TimedOut, _) => Self::lost("nothing came from the peer any more"),
            _ => Self::lost(error.to_string()),
        }
    }
}

impl std::fmt::Display for Disconnect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.reason {
            DisconnectReason::LocalClose => "closed by this side",
            DisconnectReason::RemoteClose => "closed by the peer",
            DisconnectReason::TransportError => "the connection was lost",
        })?;
        match (self.message.as_str(), self.code) {
            ("", None) => Ok(()),
            ("", Some(code)) => write!(f, " (code {code})"),
            (message, _) => write!(f, ": {message}"),
        }
    }
}

/// The application code that the peer closed a connection with.
pub(crate) fn close_code_of(error: &ConnectionError) -> Option<CloseCode> {
    match error {
        ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner())
            .ok()
            .map(CloseCode),
        _ => None,
    }
}

/// What the peer said when it closed a connection.
pub(crate) fn close_reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_the_end_is_said() {
        let hung_up = Disconnect::remote(CloseCode::DONE, "call ended");
        assert_eq!(hung_up.to_string(), "closed by the peer: call ended");
        let silent = Disconnect::remote(CloseCode::new(0x1001), "");
        assert_eq!(silent.to_string(), "closed by the peer (code 4097)");
        let lost = Disconnect::from(&ConnectionError::TimedOut);
        assert_eq!(lost.reason, DisconnectReason::TransportError);
        assert_eq!(lost.message, "nothing came from the peer any more");
    }
}
