//! The one call that a session may carry.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::{decline::declined, error::CallError};
use crate::{
    LocalBroadcast, RemoteBroadcast,
    transport::{BroadcastError, CloseCode, Disconnect, MoqSession, RESERVED_NAME},
};

/// The name of the broadcast of either side.
pub const CALL_BROADCAST_NAME: &str = RESERVED_NAME;

/// The one call on a session, from when this side's media is offered.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) session: MoqSession,
    /// What may say that an earlier call was declined.
    declined_before: Vec<String>,
    /// This side's media, once it is offered.
    offered: OnceLock<u64>,
    pub(super) remote: OnceLock<RemoteBroadcast>,
    /// This side has hung up, and so what the peer does then is no news.
    pub(super) hung_up: OnceLock<Disconnect>,
    open: Mutex<bool>,
}

impl Line {
    /// Offers this side's media, unless the `caller` that it answers has hung up meanwhile.
    pub(super) async fn open(
        session: MoqSession,
        local: &LocalBroadcast,
        caller: Option<&RemoteBroadcast>,
    ) -> Result<Self, CallError> {
        if !session.call().take() {
            return Err(CallError::InCall);
        }
        let line = Self {
            declined_before: session.announced(),
            session,
            offered: OnceLock::new(),
            remote: OnceLock::new(),
            hung_up: OnceLock::new(),
            open: Mutex::new(true),
        };
        line.session.call().last_call_gone().await;
        if caller.is_some_and(RemoteBroadcast::is_closed) {
            line.let_go();
            let ended = line.session.ended();
            let end = ended.unwrap_or_else(|| Disconnect::remote(CloseCode::DONE, HUNG_UP));
            return Err(CallError::Ended(BroadcastError::Session(end)));
        }
        let name = CALL_BROADCAST_NAME.into();
        let _ = line.offered.set(line.session.announce(name, local, false)?);
        Ok(line)
    }

    /// Waits for the peer's media.
    pub(super) async fn answer(&self) -> Result<RemoteBroadcast, CallError> {
        let answer = self.answered().await;
        if answer.is_err() {
            self.let_go();
        }
        answer
    }

    async fn answered(&self) -> Result<RemoteBroadcast, CallError> {
        let answer = tokio::select! {
            answer = self.session.resolve(CALL_BROADCAST_NAME) => answer,
            error = declined(&self.session, &self.declined_before) => return Err(error),
        };
        answer.map_err(|error| match error {
            BroadcastError::Session(Disconnect {
                code: Some(CloseCode::BUSY),
                message: reason,
                ..
            }) => CallError::Busy { reason },
            BroadcastError::Session(Disconnect {
                code: Some(CloseCode::REFUSED),
                message: reason,
                ..
            }) => CallError::Refused { reason },
            error => CallError::Ended(error),
        })
    }

    /// Ends the call on this side, as the peer has ended it.
    pub(super) fn let_go(&self) {
        // Of a session that the peer dialled only the peer knows whether it is needed for something else.
        self.hang_up(!self.session.is_incoming());
    }

    /// Ends the call on this side, and the session if `close` says so and nothing else needs it. When this returns, the
    /// place for a call is free, whoever was the first to hang up.
    pub(super) fn hang_up(&self, close: bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *open, false) {
            if close && !self.session.is_in_use() {
                self.session.close(CloseCode::DONE, HUNG_UP);
            }
            // The peer calls again as soon as it hears of the end, and the place is to be free by then.
            let remote = self.remote.get().cloned();
            self.session.call().give_back(remote);
            if let Some(offered) = self.offered.get() {
                self.session.take_back(CALL_BROADCAST_NAME, *offered);
            }
        }
    }
}

/// What is said when a call is over.
pub(super) const HUNG_UP: &str = "call ended";

impl Drop for Line {
    fn drop(&mut self) {
        self.hang_up(true);
    }
}
