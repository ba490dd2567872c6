//! A call: two peers that publish to each other, and to nobody else.

mod incoming;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

pub use incoming::{Decline, IncomingCall, IncomingCalls};
use iroh::EndpointAddr;
use tokio::sync::watch;

use crate::{
    Live, LocalBroadcast, RemoteBroadcast,
    signals::{NetStats, NetworkSignals},
    transport::{
        self, ConnectError, DisconnectReason, MoqSession, PublishError, close_code, close_code_of,
        close_reason,
    },
};

/// The name of the broadcast of either side.
pub const CALL_BROADCAST_NAME: &str = "call";

/// A call could not be made or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The peer is away, or there is no way to it.
    #[error("the call cannot be put through: {0}")]
    Away(#[source] ConnectError),
    /// The peer does not take calls of this side.
    #[error("the call was refused{}", said(.reason))]
    Refused {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// The peer is in another call.
    #[error("the peer is busy{}: try again later", said(.reason))]
    Busy {
        /// What the peer says to it; may be empty.
        reason: String,
    },
    /// There is a call with this peer already.
    #[error("there is a call with this peer already: end it first")]
    InCall,
    /// The peer hung up, or was lost, before the call began.
    #[error("the call ended before it began: {0}")]
    Ended(#[source] transport::SubscribeError),
    /// This side's media could not be offered.
    #[error("this side's media cannot be offered: {0}")]
    Publish(#[from] PublishError),
}

fn said(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

impl From<ConnectError> for CallError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused { reason } => Self::Refused { reason },
            ConnectError::Busy { reason } => Self::Busy { reason },
            error => Self::Away(error),
        }
    }
}

/// A call with one peer, whose encoders follow what the connection carries. Ends when either side closes it or drops it.
///
#[cfg_attr(feature = "media", doc = "```no_run")]
#[cfg_attr(not(feature = "media"), doc = "```ignore")]
/// # use iroh_live::{Call, Live, LocalBroadcast, iroh::EndpointAddr};
/// # use iroh_live::media::{VideoCodec, VideoPreset, VideoSource};
/// # async fn example(live: Live, remote_addr: EndpointAddr) -> Result<(), Box<dyn std::error::Error>> {
/// # let camera = VideoSource::camera();
/// // Dialer side
/// let local = LocalBroadcast::new();
/// local.video().set_source(camera, VideoCodec::H264, [VideoPreset::P720])?;
/// let call = Call::dial(&live, remote_addr, local).await?;
///
/// // Access remote media
/// let remote_broadcast = call.remote();
/// let video = remote_broadcast.video()?;
///
/// // Wait for call to end
/// let reason = call.closed().await;
/// # Ok(()) }
/// ```
///
/// ```no_run
/// # use iroh_live::{Call, Live, LocalBroadcast};
/// # async fn example(live: Live, local: LocalBroadcast) -> Result<(), Box<dyn std::error::Error>> {
/// // Acceptor side
/// let mut calls = Call::incoming(&live);
/// if let Some(ringing) = calls.next().await {
///     let call = ringing.accept(local).await?;
/// }
/// # Ok(()) }
/// ```
///
/// Where the session carries nothing but the call it ends with it. Where it carries more, as a broadcast that either
/// side watches, only the call ends, and both sides hear of it all the same.
#[derive(Debug)]
pub struct Call {
    local: LocalBroadcast,
    remote: RemoteBroadcast,
    line: Arc<Line>,
    end: watch::Sender<Option<DisconnectReason>>,
}

/// The one call on a session, from when this side's media is offered.
#[derive(Debug)]
struct Line {
    session: MoqSession,
    /// What may say that an earlier call was declined.
    declined_before: Vec<String>,
    remote: OnceLock<RemoteBroadcast>,
    open: AtomicBool,
}

impl Line {
    async fn open(session: MoqSession, local: &LocalBroadcast) -> Result<Self, CallError> {
        if !session.begin_call() {
            return Err(CallError::InCall);
        }
        let line = Self {
            declined_before: session.offered(),
            session,
            remote: OnceLock::new(),
            open: AtomicBool::new(true),
        };
        line.session.last_call_gone().await;
        line.session
            .publish_counted(CALL_BROADCAST_NAME.into(), local, false)?;
        Ok(line)
    }

    /// Waits for the peer's media.
    async fn answer(&self) -> Result<RemoteBroadcast, CallError> {
        let answer = tokio::select! {
            answer = self.session.find(CALL_BROADCAST_NAME) => answer,
            error = incoming::declined(&self.session, &self.declined_before) => return Err(error),
        };
        answer.map_err(|error| match self.session.connection().close_reason() {
            Some(ended) if close_code_of(&ended) == Some(close_code::BUSY) => CallError::Busy {
                reason: close_reason(&ended),
            },
            Some(ended) if close_code_of(&ended) == Some(close_code::REFUSED) => {
                CallError::Refused {
                    reason: close_reason(&ended),
                }
            }
            _ => CallError::Ended(error),
        })
    }

    /// Ends the call on this side, and the session if `close` says so and nothing else needs it.
    fn hang_up(&self, close: bool) {
        if self.open.swap(false, Ordering::AcqRel) {
            if close && !self.session.is_held() {
                self.session.close(close_code::DONE, "call ended");
            }
            let remote = self.remote.get().cloned();
            self.session.end_call(CALL_BROADCAST_NAME, remote);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.hang_up(true);
    }
}

impl Call {
    /// Calls a peer, and waits until it has taken the call.
    ///
    /// A peer that is away is given up after about 12 seconds; one that is there and does not take the call is waited
    /// for: put a time limit around it. Of a ticket the address counts, not the name. When both sides dial at the same time
    /// they are in one call. Cancel safe: dropping the future hangs up.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn dial(
        live: &Live,
        remote: impl Into<EndpointAddr>,
        local: LocalBroadcast,
    ) -> Result<Self, CallError> {
        let session = live.transport().connect(remote).await?;
        Self::join(session, local).await
    }

    /// The calls that peers make from now on, on sessions that begin and on those that are there already.
    ///
    /// ```no_run
    /// # use iroh_live::{Call, Live, LocalBroadcast, call::Decline};
    /// # async fn example(live: Live, local: LocalBroadcast) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut calls = Call::incoming(&live);
    /// let mut current: Option<Call> = None;
    /// while let Some(ringing) = calls.next().await {
    ///     if current.as_ref().is_some_and(|call| !call.has_ended()) {
    ///         ringing.decline(Decline::Busy, "in a call");
    ///     } else {
    ///         current = Some(ringing.accept(local.clone()).await?);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn incoming(live: &Live) -> IncomingCalls {
        IncomingCalls::new(live.transport())
    }

    /// Takes a call on a session that a peer began; see [`Moq::incoming`](crate::transport::Moq::incoming).
    ///
    /// Who does not want to take it says so with [`MoqSession::close`] and [`close_code::BUSY`] or
    /// [`close_code::REFUSED`], or before the peer sees anything with
    /// [`IncomingSession::reject`](crate::IncomingSession::reject). Cancel safe: dropping the future hangs up.
    ///
    /// Takes any peer that stays for a caller: [`incoming`](Self::incoming) knows who really calls.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn accept(session: MoqSession, local: LocalBroadcast) -> Result<Self, CallError> {
        Self::join(session, local).await
    }

    async fn join(session: MoqSession, local: LocalBroadcast) -> Result<Self, CallError> {
        let line = Line::open(session, &local).await?;
        let remote = line.answer().await?;
        line.remote.get_or_init(|| remote.clone());
        let call = Self {
            local,
            remote,
            line: Arc::new(line),
            end: watch::Sender::default(),
        };
        // Statistics are taken from the beginning, whether or not anybody asks for them yet.
        call.stats();
        call.supervise();
        Ok(call)
    }

    /// Finds out when the call ends otherwise than by [`close`](Self::close).
    fn supervise(&self) {
        #[cfg(feature = "media")]
        {
            let (video, signals) = (self.local.video(), self.signals());
            let mut ended = self.end.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    () = video.follow(signals) => {}
                    _ = ended.wait_for(Option::is_some) => {}
                }
            });
        }
        let (line, remote, end) = (self.line.clone(), self.remote.clone(), self.end.clone());
        tokio::spawn(async move {
            let mut ended = end.subscribe();
            let elsewhere = async {
                tokio::select! {
                    reason = line.session.disconnected() => return reason,
                    _ = remote.closed() => {}
                }
                if line.session.is_alive() {
                    DisconnectReason::RemoteClose
                } else {
                    line.session.disconnected().await
                }
            };
            let reason = tokio::select! {
                _ = ended.wait_for(Option::is_some) => None,
                reason = elsewhere => Some(reason),
            };
            let Some(reason) = reason else { return };
            // The session is the peer's to close, as it may need it for something else.
            line.hang_up(false);
            // Last, as the next call may begin now.
            finish(&end, reason);
        });
    }

    /// This side's media.
    pub fn local(&self) -> &LocalBroadcast {
        &self.local
    }

    /// The peer's media.
    pub fn remote(&self) -> &RemoteBroadcast {
        &self.remote
    }

    /// The session that carries the call.
    pub fn session(&self) -> &MoqSession {
        &self.line.session
    }

    /// The state of the network, every 200 ms.
    pub fn signals(&self) -> watch::Receiver<NetworkSignals> {
        self.session().signals()
    }

    /// Statistics, for a display.
    pub fn stats(&self) -> NetStats {
        self.session().stats()
    }

    /// Ends the call; the peer hears of it at once.
    ///
    /// The session is closed with [`close_code::DONE`] and "call ended", unless it carries something else.
    pub fn close(&self) {
        finish(&self.end, DisconnectReason::LocalClose);
        self.line.hang_up(true);
    }

    /// Whether the call has ended.
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until the call has ended, and says why. Cancel safe.
    pub async fn closed(&self) -> DisconnectReason {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            // The sender is in `self`, and what was waited for is there.
            _ => std::future::pending().await,
        }
    }
}

/// The first reason counts.
fn finish(end: &watch::Sender<Option<DisconnectReason>>, reason: DisconnectReason) {
    end.send_if_modified(|end| {
        let first = end.is_none();
        end.get_or_insert(reason);
        first
    });
}

impl Drop for Call {
    fn drop(&mut self) {
        self.close();
    }
}
