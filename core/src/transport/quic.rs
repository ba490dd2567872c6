//! An iroh connection as a MoQ transport.
//!
//! `moq-net` drives its sessions through the *poll* traits of `web-transport-trait`. iroh hands out futures, so each
//! operation that can wait keeps its future in a slot of the handle, where the next poll finds it again; streams are
//! polled straight through. Payload crosses without a copy in both directions: a received chunk is QUIC's own
//! [`Bytes`], and what is sent is the caller's.

mod stats;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use iroh::endpoint::{
    Connection, ConnectionError, ReadError, RecvStream as QuicRecv, SendDatagramError,
    SendStream as QuicSend, VarInt, WriteError,
};
use moq_lite::{
    StreamError,
    web_transport_trait::{Error, Stats, poll},
};
use tokio_util::sync::CancellationToken;

use self::stats::QuicStats;
use super::limits::LimitGuard;
use crate::lease::{LaterLeases, Lease};

/// How much a buffer that grows has collected: what MoQ reads into one is a message that is not whole yet. None for a
/// buffer of a fixed size.
fn collected(buf: &impl BufMut) -> Option<usize> {
    let empty = BytesMut::new().remaining_mut();
    let collected = empty.checked_sub(buf.remaining_mut())?;
    (collected < empty / 2).then_some(collected)
}

/// What ends a stream that is needed no more, without anything being wrong.
fn cancel() -> u32 {
    StreamError::Cancel.to_code()
}

type Slot<T> = Option<Pin<Box<dyn Future<Output = T> + Send + Sync>>>;

/// Polls the future in `slot`, making it first if there is none, and empties the slot when it is done.
fn poll_slot<T, F>(slot: &mut Slot<T>, cx: &mut Context<'_>, make: impl FnOnce() -> F) -> Poll<T>
where
    F: Future<Output = T> + Send + Sync + 'static,
{
    let future = slot.get_or_insert_with(|| Box::pin(make()));
    let output = ready!(future.as_mut().poll(cx));
    *slot = None;
    Poll::Ready(output)
}

/// What can go wrong on the transport.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum QuicError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the peer reset the stream with code {0}")]
    Reset(u32),
    #[error("the peer stopped the stream with code {0}")]
    Stopped(u32),
    #[error("the stream is closed")]
    Closed,
    #[error("datagram: {0}")]
    Datagram(String),
}

/// MoQ codes are 32 bit; QUIC carries 62.
fn narrow(code: VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

impl Error for QuicError {
    fn session_error(&self) -> Option<(u32, String)> {
        match self {
            Self::Connection(ConnectionError::ApplicationClosed(close)) => Some((
                narrow(close.error_code),
                String::from_utf8_lossy(&close.reason).into_owned(),
            )),
            _ => None,
        }
    }

    fn stream_error(&self) -> Option<u32> {
        match self {
            Self::Reset(code) | Self::Stopped(code) => Some(*code),
            _ => None,
        }
    }
}

impl From<WriteError> for QuicError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(narrow(code)),
            WriteError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Closed,
        }
    }
}

impl From<ReadError> for QuicError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(narrow(code)),
            ReadError::ConnectionLost(error) => Self::Connection(error),
            _ => Self::Closed,
        }
    }
}

/// One handle on a connection. A clone has pending operations of its own, as the poll contract asks.
pub(crate) struct QuicSession {
    connection: Connection,
    guard: Arc<LimitGuard>,
    /// Those of the session that the connection carries.
    leases: LaterLeases,
    alpn: Option<String>,
    /// Cancelled when the peer has said anything on a stream: it has taken the session.
    answered: CancellationToken,
    accept_uni: Slot<Result<QuicRecv, ConnectionError>>,
    accept_bi: Slot<Result<(QuicSend, QuicRecv), ConnectionError>>,
    open_uni: Slot<Result<QuicSend, ConnectionError>>,
    open_bi: Slot<Result<(QuicSend, QuicRecv), ConnectionError>>,
    datagram: Slot<Result<Bytes, ConnectionError>>,
    closed: Slot<ConnectionError>,
}

impl QuicSession {
    pub(super) fn new(guard: Arc<LimitGuard>) -> Self {
        Self::with(guard, LaterLeases::default(), CancellationToken::new())
    }

    /// Where the leases go that groups keep the session with, until the peer has them.
    pub(super) fn leases(&self) -> LaterLeases {
        self.leases.clone()
    }

    /// A session of a test, held to the usual limits.
    #[cfg(test)]
    pub(crate) fn of(connection: Connection) -> Self {
        Self::new(LimitGuard::new(connection, Arc::default(), Arc::default()))
    }

    /// Waits until the peer has said anything on a stream. Many versions of MoQ let the dialer begin before that.
    pub(crate) fn answered(&self) -> impl Future<Output = ()> + use<> {
        self.answered.clone().cancelled_owned()
    }

    fn with(guard: Arc<LimitGuard>, leases: LaterLeases, answered: CancellationToken) -> Self {
        let connection = guard.connection().clone();
        Self {
            alpn: String::from_utf8(connection.alpn().to_vec()).ok(),
            answered,
            connection,
            guard,
            leases,
            accept_uni: None,
            accept_bi: None,
            open_uni: None,
            open_bi: None,
            datagram: None,
            closed: None,
        }
    }
}

impl Clone for QuicSession {
    fn clone(&self) -> Self {
        Self::with(
            self.guard.clone(),
            self.leases.clone(),
            self.answered.clone(),
        )
    }
}

impl poll::Session for QuicSession {
    type SendStream = SendStream;
    type RecvStream = RecvStream;
    type Error = QuicError;

    fn poll_accept_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, QuicError>> {
        let connection = &self.connection;
        let stream = ready!(poll_slot(&mut self.accept_uni, cx, || {
            let connection = connection.clone();
            async move { connection.accept_uni().await }
        }))?;
        self.answered.cancel();
        let mut stream = RecvStream::new(stream, self.guard.clone());
        stream.group = Some(0);
        Poll::Ready(Ok(stream))
    }

    fn poll_accept_bi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(SendStream, RecvStream), QuicError>> {
        let connection = &self.connection;
        let (send, recv) = ready!(poll_slot(&mut self.accept_bi, cx, || {
            let connection = connection.clone();
            async move { connection.accept_bi().await }
        }))?;
        self.answered.cancel();
        let mut send = SendStream::new(send);
        send.request = Some(self.guard.clone());
        Poll::Ready(Ok((send, RecvStream::new(recv, self.guard.clone()))))
    }

    fn poll_open_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, QuicError>> {
        let connection = &self.connection;
        let stream = ready!(poll_slot(&mut self.open_uni, cx, || {
            let connection = connection.clone();
            async move { connection.open_uni().await }
        }))?;
        let mut stream = SendStream::new(stream);
        stream.leases = Some(self.leases.clone());
        Poll::Ready(Ok(stream))
    }

    fn poll_open_bi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(SendStream, RecvStream), QuicError>> {
        let connection = &self.connection;
        let (send, recv) = ready!(poll_slot(&mut self.open_bi, cx, || {
            let connection = connection.clone();
            async move { connection.open_bi().await }
        }))?;
        let mut recv = RecvStream::new(recv, self.guard.clone());
        recv.answered = Some(self.answered.clone());
        Poll::Ready(Ok((SendStream::new(send), recv)))
    }

    fn poll_send_datagram(
        &mut self,
        _cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<Result<(), QuicError>> {
        let sent = self
            .connection
            .send_datagram(Bytes::copy_from_slice(payload));
        Poll::Ready(sent.map_err(|error| match error {
            SendDatagramError::ConnectionLost(error) => QuicError::Connection(error),
            error => QuicError::Datagram(error.to_string()),
        }))
    }

    fn poll_recv_datagram(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, QuicError>> {
        let connection = &self.connection;
        let datagram = ready!(poll_slot(&mut self.datagram, cx, || {
            let connection = connection.clone();
            async move { connection.read_datagram().await }
        }))?;
        Poll::Ready(Ok(datagram))
    }

    fn max_datagram_size(&self) -> usize {
        self.connection.max_datagram_size().unwrap_or(0)
    }

    fn protocol(&self) -> Option<&str> {
        self.alpn.as_deref()
    }

    fn close(&mut self, code: u32, reason: &str) {
        // MoQ closes what it finds closed, and QUIC would then forget that it was the peer who did it.
        if self.connection.close_reason().is_none() {
            self.connection.close(code.into(), reason.as_bytes());
        }
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<QuicError> {
        let connection = &self.connection;
        let error = ready!(poll_slot(&mut self.closed, cx, || {
            let connection = connection.clone();
            async move { connection.closed().await }
        }));
        Poll::Ready(error.into())
    }

    fn stats(&self) -> impl Stats {
        QuicStats::of(&self.connection)
    }
}

/// An outgoing stream.
///
/// QUIC takes ownership of a [`Bytes`] without copying, but says only afterwards how much of it there was room for,
/// and a generic [`Buf`] cannot be given back what was taken from it. So the rest of a chunk waits here, accepted, and
/// goes out before anything else; a FIN waits behind it.
pub(crate) struct SendStream {
    stream: QuicSend,
    rest: Bytes,
    finishing: bool,
    finished: bool,
    /// Where the peer opened the stream, to ask for something.
    request: Option<Arc<LimitGuard>>,
    /// Where it is one that this side has opened, and may be a group's.
    leases: Option<LaterLeases>,
    /// MoQ keeps the stream of a group until all of it is acknowledged.
    lease: Option<Lease>,
    stopped: Slot<Result<(), QuicError>>,
}

impl SendStream {
    fn new(stream: QuicSend) -> Self {
        Self {
            stream,
            rest: Bytes::new(),
            finishing: false,
            finished: false,
            request: None,
            leases: None,
            lease: None,
            stopped: None,
        }
    }

    /// Writes what is left over. Ready when nothing is.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), QuicError>> {
        while !self.rest.is_empty() {
            let mut chunks = [std::mem::take(&mut self.rest)];
            let mut remaining = &mut chunks[..];
            // Dropping this future when it is pending loses nothing: it writes all or registers the waker.
            let poll = pin!(self.stream.write_many_chunks(&mut remaining)).poll(cx);
            // What was written has been split off.
            let [rest] = chunks;
            match poll {
                Poll::Ready(Ok(_)) => self.rest = rest,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    self.rest = rest;
                    return Poll::Pending;
                }
            }
        }
        if self.finishing && !self.finished {
            self.finished = true;
            self.stream.finish().map_err(|_| QuicError::Closed)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl poll::SendStream for SendStream {
    type Error = QuicError;

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, QuicError>> {
        ready!(self.poll_rest(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        Poll::Ready(Ok(written))
    }

    fn poll_write_buf<B: Buf>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<Result<usize, QuicError>> {
        ready!(self.poll_rest(cx))?;
        let size = buf.chunk().len();
        if size == 0 {
            return Poll::Ready(Ok(0));
        }
        self.rest = buf.copy_to_bytes(size);
        if let Poll::Ready(Err(error)) = self.poll_rest(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(size))
    }

    fn set_priority(&mut self, order: u8) {
        // Only groups have one. Other streams may last as long as the session.
        if let Some(leases) = self.leases.take() {
            self.lease = leases.hold();
        }
        // Fails only on a stream that is gone, which the next write reports.
        let _ = self.stream.set_priority(i32::from(order));
    }

    fn finish(&mut self) -> Result<(), QuicError> {
        self.finishing = true;
        if self.rest.is_empty() && !self.finished {
            self.finished = true;
            self.stream.finish().map_err(|_| QuicError::Closed)?;
        }
        Ok(())
    }

    fn reset(&mut self, code: u32) {
        self.rest = Bytes::new();
        self.finished = true;
        let _ = self.stream.reset(code.into());
        if let Some(guard) = self.request.take().filter(|_| code != cancel()) {
            guard.request_refused();
        }
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), QuicError>> {
        // The writer polls this whenever it waits for media or for the last acknowledgement, so this is where the rest
        // of a chunk, and a FIN behind it, go out once there is room again.
        if let Poll::Ready(Err(error)) = self.poll_rest(cx) {
            return Poll::Ready(Err(error));
        }
        if self.finishing && !self.finished {
            return Poll::Pending;
        }
        let stream = &self.stream;
        poll_slot(&mut self.stopped, cx, || {
            let stopped = stream.stopped();
            async move {
                match stopped.await {
                    Ok(None) => Ok(()),
                    Ok(Some(code)) => Err(QuicError::Stopped(narrow(code))),
                    Err(iroh::endpoint::StoppedError::ConnectionLost(error)) => Err(error.into()),
                    Err(_) => Err(QuicError::Closed),
                }
            }
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // QUIC would end the stream as if it were whole, in the middle of a frame. Nothing is wrong here: this side stops.
        if !self.finished {
            let _ = self.stream.reset(cancel().into());
        }
    }
}

/// An incoming stream.
pub(crate) struct RecvStream {
    stream: QuicRecv,
    guard: Arc<LimitGuard>,
    /// How much has come of a group; none where the stream is not one's.
    group: Option<usize>,
    /// Where this side opened the stream: to be cancelled when the peer answers on it.
    answered: Option<CancellationToken>,
}

impl RecvStream {
    fn new(stream: QuicRecv, guard: Arc<LimitGuard>) -> Self {
        Self {
            stream,
            guard,
            group: None,
            answered: None,
        }
    }

    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, QuicError>> {
        // Registers the waker or returns data; nothing is kept in the future.
        let chunk = ready!(pin!(self.stream.read_chunk(max)).poll(cx))?;
        self.note_answer();
        if let (Some(received), Some(chunk)) = (&mut self.group, &chunk) {
            *received += chunk.len();
            if !self.guard.group_grew(chunk.len()) {
                return Poll::Ready(Err(QuicError::Closed));
            }
        }
        Poll::Ready(Ok(chunk))
    }

    fn note_answer(&mut self) {
        if let Some(answered) = self.answered.take() {
            answered.cancel();
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.guard.group_over(self.group.unwrap_or(0));
    }
}

impl poll::RecvStream for RecvStream {
    type Error = QuicError;

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        dst: &mut [u8],
    ) -> Poll<Result<Option<usize>, QuicError>> {
        if dst.is_empty() {
            return Poll::Ready(Ok(Some(0)));
        }
        let size = ready!(self.stream.poll_read(cx, dst))?;
        self.note_answer();
        Poll::Ready(Ok((size > 0).then_some(size)))
    }

    fn poll_read_buf<B: BufMut>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<Result<Option<usize>, QuicError>> {
        let room = buf.remaining_mut().min(buf.chunk_mut().len());
        if room == 0 {
            return Poll::Ready(Ok(Some(0)));
        }
        let waiting = collected(buf);
        if waiting.is_some() && self.guard.end_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(chunk) = ready!(self.poll_chunk(cx, room))? else {
            return Poll::Ready(Ok(None));
        };
        let size = chunk.len();
        if let Some(waiting) = waiting
            && !self.guard.message(waiting, size)
        {
            return Poll::Ready(Err(QuicError::Closed));
        }
        buf.put(chunk);
        Poll::Ready(Ok(Some(size)))
    }

    fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Option<Bytes>, QuicError>> {
        if max == 0 {
            return Poll::Ready(Ok(Some(Bytes::new())));
        }
        // What is left of a frame, or of all there may be.
        if max < usize::MAX / 2 && !self.guard.frame(max) {
            return Poll::Ready(Err(QuicError::Closed));
        }
        self.poll_chunk(cx, max)
    }

    fn stop(&mut self, code: u32) {
        let _ = self.stream.stop(code.into());
        if self.group.is_some() {
            // MoQ has limits of its own, beyond which it reads no more of the group.
            self.guard.group_stopped(code);
        }
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), QuicError>> {
        match ready!(pin!(self.stream.received_reset()).poll(cx)) {
            Ok(None) => Poll::Ready(Ok(())),
            Ok(Some(code)) => Poll::Ready(Err(QuicError::Reset(narrow(code)))),
            Err(iroh::endpoint::ResetError::ConnectionLost(error)) => {
                Poll::Ready(Err(error.into()))
            }
            Err(_) => Poll::Ready(Err(QuicError::Closed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_buffer_has_collected_is_known() {
        let mut buffer = BytesMut::new();
        assert_eq!(collected(&buffer), Some(0));
        buffer.extend_from_slice(&[0; 1000]);
        assert_eq!(collected(&buffer), Some(1000));
        assert_eq!(collected(&&mut [0; 1000][..]), None);
    }
}
