//! What a publisher can do to its viewers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use iroh_live::{
    LiveTicket,
    iroh::{
        endpoint::{Connection, RecvStream, SendStream},
        protocol::{AcceptError, ProtocolHandler, Router},
    },
};
use tokio::{sync::Notify, time::timeout};

use super::{endpoint, generous, say_closed, wait_closed};
use crate::{
    peer::{catalog, legacy_frame},
    wire::{
        ALPN, ANNOUNCE, SUBSCRIBE, message, put_bytes, put_varint, send_message, take_bytes,
        take_varint, varint,
    },
};

/// The one media track.
const TRACK: &str = "cam";

pub(super) async fn attack(attack: &str, file: &str) {
    let peer = Peer {
        attack: attack.into(),
        done: Arc::default(),
    };
    let done = peer.done.clone();
    let router = Router::builder(endpoint(generous()).await)
        .accept(ALPN, peer)
        .spawn();
    let ticket = LiveTicket::new(router.endpoint().addr(), "bad").to_string();
    std::fs::write(file, ticket).expect("the file can be written");
    println!("under way");
    done.notified().await;
    std::mem::forget(router);
}

#[derive(Debug, Clone)]
struct Peer {
    attack: Arc<str>,
    /// The worst is done.
    done: Arc<Notify>,
}

impl ProtocolHandler for Peer {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((send, receive)) = connection.accept_bi().await {
            let (peer, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move { peer.answer(connection, send, receive).await });
        }
        say_closed(&connection.closed().await);
        self.done.notify_one();
        Ok(())
    }
}

impl Peer {
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
                put_bytes(&mut body, b"bad");
                body.push(0);
                send_message(&mut send, &body).await?;
            }
            SUBSCRIBE => {
                let body = message(&mut receive).await?;
                let mut body = &body[..];
                let id = take_varint(&mut body)?;
                let _broadcast = take_bytes(&mut body)?;
                let track = String::from_utf8(take_bytes(&mut body)?.to_vec()).ok()?;
                // OK; priority, order and range as the subscriber has them, and groups that are a minute old.
                send.write_all(&[0]).await.ok()?;
                let mut body = vec![0, 0];
                put_varint(&mut body, 60_000);
                body.extend([0, 0]);
                send_message(&mut send, &body).await?;
                let groups = Groups { connection, id };
                let attacked = if track == TRACK {
                    self.media(&groups).await
                } else {
                    self.catalogs(&groups).await
                };
                if attacked.is_none() {
                    println!("cut off: {track}");
                    wait_closed(&groups.connection).await;
                    self.done.notify_one();
                }
            }
            _ => {}
        }
        let _ = receive.read_to_end(usize::MAX).await;
        std::mem::forget(send);
        Some(())
    }

    async fn catalogs(&self, groups: &Groups) -> Option<()> {
        match &*self.attack {
            "catalog-60-mb" => groups.one(0, &[large_catalog(60_000_000)]).await?,
            "catalog-1-mb" => groups.one(0, &[large_catalog(1_000_000)]).await?,
            "renditions" => {
                let names: Vec<_> = (0..10_000)
                    .map(|number| format!("video_{number}"))
                    .collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                groups.one(0, &[catalog(&names, 1)]).await?;
            }
            "changes" => {
                for number in 0..3000 {
                    let now = catalog(&[TRACK], number);
                    groups.one(number.into(), &[now]).await?;
                    if number % 10 == 0 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
            _ => {
                groups.one(0, &[catalog(&[TRACK], 1)]).await?;
                return Some(());
            }
        }
        wait_closed(&groups.connection).await;
        self.done.notify_one();
        Some(())
    }

    async fn media(&self, groups: &Groups) -> Option<()> {
        match &*self.attack {
            "endless-groups" => groups.endless().await,
            "many-frames" => groups.many_frames().await,
            "large-group" => groups.large(1, 200).await,
            "large-groups" => groups.large(20, 20).await,
            "frames-1-gb" => groups.huge(1_000_000_000).await,
            "frames-30-mb" => groups.huge(30_000_000).await,
            "timestamps" => groups.timestamps().await,
            _ => return Some(()),
        }?;
        wait_closed(&groups.connection).await;
        self.done.notify_one();
        Some(())
    }
}

/// A catalog with a comment of this length.
fn large_catalog(size: usize) -> Bytes {
    format!(r#"{{"comment":"{}"}}"#, "x".repeat(size)).into()
}

/// The groups of a track.
struct Groups {
    connection: Connection,
    id: u64,
}

impl Groups {
    async fn begin(&self, number: u64) -> Option<SendStream> {
        // The other side may let no more begin.
        let opened = timeout(Duration::from_secs(1), self.connection.open_uni()).await;
        let mut stream = opened.ok()?.ok()?;
        let mut header = Vec::new();
        put_varint(&mut header, self.id);
        put_varint(&mut header, number);
        stream.write_all(&[0]).await.ok()?;
        send_message(&mut stream, &header).await?;
        Some(stream)
    }

    /// A whole group.
    async fn one(&self, number: u64, frames: &[Bytes]) -> Option<()> {
        let mut stream = self.begin(number).await?;
        for frame in frames {
            send_message(&mut stream, frame).await?;
        }
        stream.finish().ok()
    }

    /// 10 000 groups of 10 kB, none of which ever ends.
    async fn endless(&self) -> Option<()> {
        let mut open = Vec::new();
        for number in 0..10_000 {
            let Some(mut stream) = self.begin(number).await else {
                break;
            };
            let frame = legacy_frame(number * 1000, &[7; 10_000]);
            // It may be given up.
            let _ = timeout(Duration::from_secs(1), send_message(&mut stream, &frame)).await;
            open.push(stream);
        }
        println!("groups: {}", open.len());
        std::mem::forget(open);
        Some(())
    }

    /// A group of 100 000 frames.
    async fn many_frames(&self) -> Option<()> {
        let mut stream = self.begin(0).await?;
        for number in 0..100_000 {
            send_message(&mut stream, &legacy_frame(number * 100, b"picture")).await?;
        }
        Some(())
    }

    /// Groups of so many megabytes, as fast as they go.
    async fn large(&self, groups: u64, megabytes: u64) -> Option<()> {
        for group in 0..groups {
            let mut stream = self.begin(group).await?;
            for frame in 0..megabytes {
                let time = (group * megabytes + frame) * 1000;
                send_message(&mut stream, &legacy_frame(time, &[7; 1_000_000])).await?;
            }
            stream.finish().ok()?;
        }
        println!("groups: {groups}");
        Some(())
    }

    /// Ten frames that are said to be so large, and come but for their last byte.
    async fn huge(&self, size: u64) -> Option<()> {
        for number in 0..10 {
            let mut stream = self.begin(number).await?;
            let mut start = Vec::new();
            put_varint(&mut start, size);
            stream.write_all(&start).await.ok()?;
            for _ in 1..size / 1_000_000 {
                stream.write_all(&[7; 1_000_000]).await.ok()?;
            }
            std::mem::forget(stream);
        }
        Some(())
    }

    /// Frames whose times are as early and as late as can be said, in turns and in order.
    async fn timestamps(&self) -> Option<()> {
        const LAST: u64 = (1 << 62) - 1;
        let times = [0, LAST, 1, LAST - 1, LAST / 2, u64::from(u32::MAX), 0, LAST];
        for number in 0..200 {
            let at = usize::try_from(number).expect("it is small");
            let frames = [0, 1, 2].map(|next| legacy_frame(times[(at + next) % 8], b"picture"));
            self.one(number, &frames).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(())
    }
}
