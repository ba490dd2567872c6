//! A publisher that speaks MoQ by hand, to say what no honest publisher would.
//!
//! It speaks `moq-lite-03`, the oldest version that is still deployed, whose messages are short: a varint for the kind
//! of stream, then messages with their length before them. So it also shows that viewers still talk to such peers.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use iroh_live::{
    LiveTicket,
    endpoint::EndpointConfig,
    iroh::{
        endpoint::{Connection, RecvStream, SendStream},
        protocol::{AcceptError, ProtocolHandler, Router},
    },
};
use tokio::{runtime::Runtime, sync::watch};

use crate::wire::{
    ALPN, ANNOUNCE, SUBSCRIBE, message, put_bytes, put_varint, send_message, take_bytes,
    take_varint, varint,
};

/// Publishes one broadcast with fixed contents until it is dropped.
pub struct HandmadePublisher {
    runtime: Runtime,
    router: Router,
    ticket: String,
    tracks: Arc<Tracks>,
}

impl HandmadePublisher {
    /// Offers the broadcast `name` with these tracks. Each track has one group with these frames, which stays open until
    /// there is a [`next_group`](Self::next_group).
    ///
    /// # Panics
    /// If no socket can be opened.
    pub fn start(name: &str, tracks: &[(&str, Vec<Bytes>)]) -> Self {
        let runtime = Runtime::new().expect("there are threads");
        let first = |frames: &Vec<Bytes>| {
            watch::Sender::new(vec![Step::Group(frames.clone(), Before::Whole)])
        };
        let peer = Peer {
            name: name.into(),
            tracks: Arc::new(
                tracks
                    .iter()
                    .map(|(name, frames)| ((*name).to_owned(), first(frames)))
                    .collect(),
            ),
        };
        let tracks = peer.tracks.clone();
        let router = runtime.block_on(async {
            let mut config = EndpointConfig::local();
            config.bind = Some(([127, 0, 0, 1], 0).into());
            let endpoint = config
                .bind()
                .await
                .expect("the loopback interface has free ports");
            Router::builder(endpoint).accept(ALPN, peer).spawn()
        });
        let ticket = LiveTicket::new(router.endpoint().addr(), name).to_string();
        Self {
            runtime,
            router,
            ticket,
            tracks,
        }
    }

    /// Begins another group of a track. The one before comes to its end if it is `whole`, and breaks off if it is not.
    ///
    /// # Panics
    /// If there is no such track.
    pub fn next_group(&self, track: &str, frames: Vec<Bytes>, whole: bool) {
        let before = if whole { Before::Whole } else { Before::Broken };
        self.tracks[track].send_modify(|steps| steps.push(Step::Group(frames, before)));
    }

    /// Begins another group of a track, and leaves the one before as it is, as if the rest of it were late.
    ///
    /// # Panics
    /// If there is no such track.
    pub fn next_group_beside(&self, track: &str, frames: Vec<Bytes>) {
        self.tracks[track].send_modify(|steps| steps.push(Step::Group(frames, Before::Open)));
    }

    /// Ends a track.
    ///
    /// # Panics
    /// If there is no such track.
    pub fn end(&self, track: &str) {
        self.tracks[track].send_modify(|steps| steps.push(Step::End));
    }

    /// Has a track that has ended begin anew under its name, with these frames.
    ///
    /// # Panics
    /// If there is no such track.
    pub fn begin_again(&self, track: &str, frames: Vec<Bytes>) {
        self.tracks[track].send_replace(vec![Step::Group(frames, Before::Whole)]);
    }

    /// The ticket of the broadcast.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }
}

impl Drop for HandmadePublisher {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.router.shutdown());
    }
}

/// What happened to each track so far.
type Tracks = HashMap<String, watch::Sender<Vec<Step>>>;

#[derive(Debug, Clone)]
enum Step {
    /// A group with these frames begins.
    Group(Vec<Bytes>, Before),
    /// The track ends.
    End,
}

/// What becomes of the group before, when another begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Whole,
    Broken,
    Open,
}

/// That there is no such track, as MoQ has it.
const NOT_FOUND: u32 = 0x33;

#[derive(Debug, Clone)]
struct Peer {
    name: Arc<str>,
    tracks: Arc<Tracks>,
}

impl ProtocolHandler for Peer {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((send, receive)) = connection.accept_bi().await {
            let (peer, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move { peer.answer(connection, send, receive).await });
        }
        Ok(())
    }
}

impl Peer {
    /// Answers one request. The streams stay open for as long as the viewer wants: to close them would mean an end.
    async fn answer(
        &self,
        connection: Connection,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Option<()> {
        match varint(&mut receive).await? {
            ANNOUNCE => {
                let _prefix = message(&mut receive).await?;
                // Active, the name, no hops.
                let mut body = vec![1];
                put_bytes(&mut body, self.name.as_bytes());
                body.push(0);
                send_message(&mut send, &body).await?;
            }
            SUBSCRIBE => {
                let body = message(&mut receive).await?;
                let mut body = &body[..];
                let id = take_varint(&mut body)?;
                let _broadcast = take_bytes(&mut body)?;
                let track = String::from_utf8(take_bytes(&mut body)?.to_vec()).ok()?;
                let Some(steps) = self.tracks.get(&track) else {
                    send.reset(NOT_FOUND.into()).ok()?;
                    return None;
                };
                // OK; priority, order and range as the subscriber has them, and groups that are a minute old.
                send.write_all(&[0]).await.ok()?;
                let mut body = vec![0, 0];
                put_varint(&mut body, 60_000);
                body.extend([0, 0]);
                send_message(&mut send, &body).await?;
                serve(&connection, id, steps.subscribe()).await?;
                send.finish().ok()?;
            }
            _ => {}
        }
        let _ = receive.read_to_end(usize::MAX).await;
        Some(())
    }
}

/// Sends the groups of a track until it ends.
async fn serve(
    connection: &Connection,
    id: u64,
    mut steps: watch::Receiver<Vec<Step>>,
) -> Option<()> {
    let mut open: Vec<SendStream> = Vec::new();
    for number in 0.. {
        let next = async {
            let there = |steps: &Vec<Step>| steps.len() > number;
            Some(steps.wait_for(there).await.ok()?[number].clone())
        };
        let step = tokio::select! {
            step = next => step?,
            _ = connection.closed() => return None,
        };
        let before = match &step {
            Step::Group(_, before) => *before,
            Step::End => Before::Whole,
        };
        if before != Before::Open {
            for mut stream in open.drain(..) {
                match before {
                    Before::Broken => stream.reset(0u32.into()).ok()?,
                    _ => stream.finish().ok()?,
                }
            }
        }
        let Step::Group(frames, _) = step else {
            break;
        };
        let mut stream = connection.open_uni().await.ok()?;
        let mut header = Vec::new();
        put_varint(&mut header, id);
        put_varint(&mut header, number as u64);
        stream.write_all(&[0]).await.ok()?;
        send_message(&mut stream, &header).await?;
        for frame in &frames {
            send_message(&mut stream, frame).await?;
        }
        open.push(stream);
    }
    Some(())
}

/// Frames of a video track in the container that `hang` calls legacy: microseconds, then the payload.
pub fn legacy_frame(micros: u64, payload: &[u8]) -> Bytes {
    let mut frame = Vec::new();
    put_varint(&mut frame, micros);
    frame.extend_from_slice(payload);
    frame.into()
}

/// A catalog with these video tracks, with a bitrate to tell one from another.
pub fn catalog(names: &[&str], bitrate: u32) -> Bytes {
    let tracks: Vec<_> = names
        .iter()
        .map(|name| {
            format!(
                r#""{name}":{{"codec":"vp8","bitrate":{bitrate},"container":{{"kind":"legacy"}}}}"#
            )
        })
        .collect();
    format!(r#"{{"video":{{"renditions":{{{}}}}}}}"#, tracks.join(",")).into()
}

/// Five frames that begin at this time.
pub fn frames(millis: u64) -> Vec<Bytes> {
    (0..5)
        .map(|n| legacy_frame((millis + n * 33) * 1000, b"picture"))
        .collect()
}
