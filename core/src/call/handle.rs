//! A call as a program has it.

use std::sync::Arc;

use iroh::EndpointAddr;
use tokio::sync::watch;

use super::{
    error::CallError,
    line::{HUNG_UP, Line},
};
use crate::{
    Live, LocalBroadcast, RemoteBroadcast,
    signals::{NetStats, NetworkSignals},
    transport::{CloseCode, Disconnect, DisconnectReason, MoqSession, PublishError},
};

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
    end: watch::Sender<Option<Disconnect>>,
}

impl Call {
    /// Calls a peer, and waits until it has taken the call.
    ///
    /// A peer that is away is given up after ten seconds; one that is there and does not take the call is waited
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
        let remote = remote.into();
        loop {
            let session = live.transport().connect(remote.clone()).await?;
            match Self::join(session.clone(), local.clone(), None).await {
                Err(CallError::Ended(_) | CallError::Publish(PublishError::Ended))
                    if session.was_left_unused() => {}
                joined => return joined,
            }
        }
    }

    /// Takes a call on a session that a peer began; see [`Moq::incoming`](crate::transport::Moq::incoming).
    ///
    /// Who does not want to take it says so with [`MoqSession::close`] and [`CloseCode::BUSY`] or
    /// [`CloseCode::REFUSED`], or before the peer sees anything with
    /// [`IncomingSession::reject`](crate::IncomingSession::reject). Cancel safe: dropping the future hangs up.
    ///
    /// Takes any peer that stays for a caller: [`incoming`](Self::incoming) knows who really calls.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn accept(session: MoqSession, local: LocalBroadcast) -> Result<Self, CallError> {
        Self::join(session, local, None).await
    }

    /// With the media of the `caller`, where it is an answer to one that is known.
    pub(super) async fn join(
        session: MoqSession,
        local: LocalBroadcast,
        caller: Option<RemoteBroadcast>,
    ) -> Result<Self, CallError> {
        let line = Line::open(session, &local, caller.as_ref()).await?;
        let remote = match caller {
            // Not what is offered by now: it may have hung up, and then there is nothing to wait for.
            Some(caller) => caller,
            None => line.answer().await?,
        };
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
        let peer = line.session.remote_hop();
        tokio::spawn(async move {
            let mut ended = end.subscribe();
            let elsewhere = async {
                tokio::select! {
                    end = line.session.disconnected() => return end,
                    _ = remote.closed() => {}
                }
                if line.session.was_started_anew(peer) {
                    Disconnect::lost("the peer was started anew")
                } else if line.session.is_alive() {
                    // The session carries more: that the media is taken back is what says so.
                    Disconnect::remote(CloseCode::DONE, HUNG_UP)
                } else {
                    line.session.disconnected().await
                }
            };
            let found = tokio::select! {
                _ = ended.wait_for(Option::is_some) => None,
                found = elsewhere => Some(found),
            };
            let Some(found) = found else { return };
            let found = line.hung_up.get().cloned().unwrap_or(found);
            line.let_go();
            // Last, as the next call may begin now.
            finish(&end, found);
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
    /// The session is closed with [`CloseCode::DONE`] and "call ended". Where it carries something else, as a broadcast that
    /// either side watches, only the call's media is taken back, and the peer's [`disconnected`](Self::disconnected) says
    /// the same.
    pub fn close(&self) {
        let end = Disconnect::local(CloseCode::DONE, HUNG_UP);
        let end = self.line.hung_up.get_or_init(|| end).clone();
        self.line.hang_up(true);
        // Last, as the next call may begin now.
        finish(&self.end, end);
    }

    /// Whether the call has ended.
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until the call has ended, and says who ended it. Cancel safe.
    pub async fn closed(&self) -> DisconnectReason {
        self.disconnected().await.reason
    }

    /// Waits until the call has ended, and says all that is known of it. Cancel safe.
    pub async fn disconnected(&self) -> Disconnect {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(end)) => end,
            // The sender is in `self`, and what was waited for is there.
            _ => std::future::pending().await,
        }
    }
}

/// The first reason counts.
fn finish(end: &watch::Sender<Option<Disconnect>>, reason: Disconnect) {
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
