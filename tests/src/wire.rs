//! The words of `moq-lite-03`: numbers as QUIC writes them, and messages with their length before them.

use iroh_live::iroh::endpoint::{RecvStream, SendStream};

/// The version that is spoken by hand: the oldest one that is still deployed.
pub(crate) const ALPN: &[u8] = b"moq-lite-03";

/// The first number on a stream that asks for announcements.
pub(crate) const ANNOUNCE: u64 = 1;
/// The first number on a stream that asks for a track.
pub(crate) const SUBSCRIBE: u64 = 2;

/// Appends a number as QUIC writes it.
pub(crate) fn put_varint(out: &mut Vec<u8>, n: u64) {
    match n {
        0..0x40 => out.extend(&n.to_be_bytes()[7..]),
        0x40..0x4000 => out.extend(&(n | 1 << 14).to_be_bytes()[6..]),
        0x4000..0x4000_0000 => out.extend(&(n | 2 << 30).to_be_bytes()[4..]),
        _ => out.extend((n | 3 << 62).to_be_bytes()),
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) async fn send_message(send: &mut SendStream, body: &[u8]) -> Option<()> {
    let mut message = Vec::new();
    put_bytes(&mut message, body);
    send.write_all(&message).await.ok()
}

pub(crate) async fn varint(receive: &mut RecvStream) -> Option<u64> {
    let mut bytes = [0; 8];
    receive.read_exact(&mut bytes[..1]).await.ok()?;
    let length = 1 << (bytes[0] >> 6);
    receive.read_exact(&mut bytes[1..length]).await.ok()?;
    take_varint(&mut &bytes[..length])
}

pub(crate) async fn message(receive: &mut RecvStream) -> Option<Vec<u8>> {
    let length = varint(receive).await?;
    let mut body = vec![0; usize::try_from(length).ok()?];
    receive.read_exact(&mut body).await.ok()?;
    Some(body)
}

pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let (number, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    *bytes = rest;
    let value = number
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    // The two highest bits are the length.
    Some(value & (u64::MAX >> (64 - (8 * number.len() - 2))))
}

pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}
