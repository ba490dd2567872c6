//! Declining a call.

use tracing::debug;

use super::error::CallError;
use crate::{
    LocalBroadcast, RemoteBroadcast,
    transport::{CloseCode, MoqSession},
};

/// What says to a caller that the call is declined, on a session that is not closed for it, as it carries more: the
/// offer of a name that begins so. What follows is different each time.
const BUSY_NAME: &str = "call-busy/";
const REFUSED_NAME: &str = "call-refused/";

/// How a call is declined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// There is another call; the caller gets [`CallError::Busy`].
    Busy,
    /// The caller is not wanted, and gets [`CallError::Refused`].
    Refuse,
}

/// Turns the caller on a session away, who hears of it at once.
pub(super) fn decline(session: &MoqSession, remote: &RemoteBroadcast, how: Decline, reason: &str) {
    let (code, name) = match how {
        Decline::Busy => (CloseCode::BUSY, BUSY_NAME),
        Decline::Refuse => (CloseCode::REFUSED, REFUSED_NAME),
    };
    if !session.is_in_use() {
        session.close(code, reason);
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return debug!("outside of a runtime nobody can learn that a call is declined");
    };
    let name = format!("{name}{:016x}", rand::random::<u64>());
    let notice = LocalBroadcast::new();
    // Fails on a session that has ended, and then there is nobody to be told.
    if session.announce(name, &notice, false).is_ok() {
        let remote = remote.clone();
        runtime.spawn(async move {
            remote.closed().await;
            drop(notice);
        });
    }
}

/// Waits until the peer declines a call on a session that stays. What was offered `before` was not about this call.
pub(super) async fn declined(session: &MoqSession, before: &[String]) -> CallError {
    let sign = |name: &str| name.starts_with(BUSY_NAME) || name.starts_with(REFUSED_NAME);
    let name = session
        .wait_for_name(|name| sign(name) && !before.iter().any(|known| known == name))
        .await;
    let reason = String::new();
    if name.starts_with(BUSY_NAME) {
        CallError::Busy { reason }
    } else {
        CallError::Refused { reason }
    }
}
