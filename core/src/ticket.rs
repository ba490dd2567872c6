//! The ticket: everything somebody needs to watch or join a stream, in one line of text.
//!
//! ```text
//! iroh-live:<address>/<name>?relay=<url>&relay=<url>
//! ```
//!
//! - `<address>`: the publisher's [`EndpointAddr`] in postcard, in base64url without padding.
//! - `<name>`: the stream's name, with all but ASCII letters, digits and `-._~/` percent-encoded.
//!   Only if that makes the ticket too long, as a long name in a script other than Latin may, the
//!   characters outside ASCII are written as they are, in UTF-8. Either spelling is always read.
//! - `<url>`: relay servers to try besides those in the address, percent-encoded; often none.
//!
//! The text stays under [`LiveTicket::MAX_LEN`] bytes. For that it leaves out as many of the direct
//! addresses as it must, and then relays, but never the id or the name. A name of any 200 characters
//! fits; one that does not fit alone is an error of [`LiveTicket::check`].
//!
//! ```
//! use iroh::{EndpointAddr, EndpointId};
//! use iroh_live::LiveTicket;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let id: EndpointId = "5866666666666666666666666666666666666666666666666666666666666666".parse()?;
//! let addr = EndpointAddr::new(id).with_ip_addr("192.0.2.7:4433".parse()?);
//! let ticket = LiveTicket::new(addr, "front door")
//!     .with_relay_urls(vec!["https://relay.example.com".to_string()]);
//!
//! let text = ticket.to_string();
//! assert!(text.ends_with("/front%20door?relay=https%3A%2F%2Frelay.example.com"));
//! assert_eq!(text.parse::<LiveTicket>()?, ticket);
//!
//! let error = "https://example.com/watch".parse::<LiveTicket>().unwrap_err();
//! assert_eq!(error.to_string(), "`https:` is not a ticket: one begins with `iroh-live:`");
//! # Ok(())
//! # }
//! ```
//!
//! Also read: a ticket with white space or quotation marks around it; the scheme in any case, or
//! with `//` after it; an endpoint's id alone as the address (its 32 bytes in base64url, or text
//! in hex, base32 or z-base-32); the old form `<name>@<address>`, the address in base32 of either
//! case. Query keys other than `relay` are passed over, for later versions to add some.
//!
//! # What a ticket can make a machine contact
//!
//! Whoever opens a ticket contacts what it names, as with a link to a web page: up to
//! [`MAX_DIRECT`](LiveTicket::MAX_DIRECT) addresses with the first packet of a QUIC handshake, over
//! UDP, and up to [`MAX_RELAYS`](LiveTicket::MAX_RELAYS) relays with an HTTP request. These may lie
//! in the local network or on the machine itself, as publishers and relays do there, too. They learn
//! the ids of both ends at most, and what answers without the publisher's key is not believed.
//! An endpoint with [`Relays::Disabled`](crate::endpoint::Relays::Disabled) contacts no relay.

use std::{fmt, net::IpAddr, str::FromStr};

use data_encoding::{BASE32_NOPAD_NOCASE, BASE64URL_NOPAD, Encoding};
use iroh::{EndpointAddr, EndpointId, RelayUrl, TransportAddr};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

const SCHEME: &str = "iroh-live:";
const RELAY: &str = "relay=";

/// What is encoded in a query value: all but the characters no URI gives a meaning to.
const IN_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is encoded in a name. It is more than a URI asks for, because shells and chat programs have
/// their own ideas about quotation marks, parentheses and the like.
const IN_NAME: &AsciiSet = &IN_VALUE.remove(b'/');

/// A stream's name together with the address of the endpoint that publishes it.
///
/// [`Display`](fmt::Display) writes its text, [`FromStr`] reads it, and serde does the same; the
/// [module's documentation](self) describes the text. Reading it gives an equal ticket, except that
/// addresses may have been left out for [`MAX_LEN`](Self::MAX_LEN) and that IPv6 addresses
/// lose scope id and flow label, which mean nothing on another machine.
///
/// ```no_run
/// # use iroh_live::{LiveTicket, iroh::{Endpoint, EndpointAddr}};
/// # fn example(endpoint: Endpoint, addr: EndpointAddr) -> Result<(), Box<dyn std::error::Error>> {
/// // Create a ticket
/// let ticket = LiveTicket::new(endpoint.addr(), "my-stream");
/// // Serialize to URI string (fits in QR codes)
/// let s = ticket.to_string();
/// // → "iroh-live:<base64url(postcard(EndpointAddr))>/my-stream"
/// // Deserialize
/// let parsed: LiveTicket = s.parse()?;
/// // With relay URLs for indirect connectivity
/// let ticket = LiveTicket::new(addr, "stream").with_relay_urls(vec![
///     "https://relay.example.com".to_string(),
/// ]);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LiveTicket {
    addr: EndpointAddr,
    name: String,
    relay_urls: Vec<String>,
}

impl LiveTicket {
    /// The text of a ticket is shorter than this, in bytes, so that a QR code can hold it.
    pub const MAX_LEN: usize = 2000;

    /// So many direct addresses are kept at most. Of more, those go first that lead the shortest way:
    /// to the machine itself, to its link, to its network.
    pub const MAX_DIRECT: usize = 32;

    /// So many relays are kept at most, those in the address first.
    pub const MAX_RELAYS: usize = 8;

    /// Makes a ticket for the stream `name`, published by the endpoint at `addr`.
    ///
    /// An endpoint's id alone will do for `addr`. Nothing is refused here: an empty name, one that
    /// is far too long, or a bad relay URL is what [`check`](Self::check) is for. Addresses that nobody
    /// can be reached at, as a multicast one, are left out, and so are those beyond the limits.
    pub fn new(addr: impl Into<EndpointAddr>, name: impl Into<String>) -> Self {
        let mut addr = addr.into();
        addr.addrs.retain(can_be_dialled);
        while addr.addrs.iter().filter(|addr| !addr.is_relay()).count() > Self::MAX_DIRECT {
            remove_farthest(&mut addr);
        }
        let mut relays = 0;
        addr.addrs.retain(|addr| {
            relays += usize::from(addr.is_relay());
            !addr.is_relay() || relays <= Self::MAX_RELAYS
        });
        Self {
            addr,
            name: name.into(),
            relay_urls: Vec::new(),
        }
    }

    /// Adds relays, such as `https://relay.example.com`, to try besides those in the address.
    ///
    /// They are kept as given, but for those that are there already and those beyond
    /// [`MAX_RELAYS`](Self::MAX_RELAYS). With one that is no relay URL, [`check`](Self::check) fails,
    /// and the ticket's text is refused when read.
    #[must_use]
    pub fn with_relay_urls(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        for url in urls.into_iter().map(Into::into) {
            self.add_relay(url);
        }
        self
    }

    fn add_relay(&mut self, url: String) {
        let parsed = parse_relay_url(&url).ok().map(TransportAddr::Relay);
        let known = match &parsed {
            Some(relay) => self.addr.addrs.contains(relay),
            None => self.relay_urls.contains(&url),
        };
        let bad = |url: &&String| parse_relay_url(url).is_err();
        let count = self.addr.relay_urls().count() + self.relay_urls.iter().filter(bad).count();
        if !known && count < Self::MAX_RELAYS {
            self.addr.addrs.extend(parsed);
            self.relay_urls.push(url);
        }
    }

    /// The address to connect to, with all relays.
    pub fn addr(&self) -> &EndpointAddr {
        &self.addr
    }

    /// The name of the stream, decoded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The relay URLs that were added to the address, or stood behind it in the text, in their order.
    pub fn relay_urls(&self) -> &[String] {
        &self.relay_urls
    }

    /// Tries whether the text can be read. To be called before a ticket made of user input is used.
    ///
    /// # Errors
    ///
    /// What reading fails with: [`ParseTicketError::NoName`], [`ParseTicketError::BadRelayUrl`], or
    /// [`ParseTicketError::TooLong`] if the name does not fit even without addresses and relays.
    pub fn check(&self) -> Result<(), ParseTicketError> {
        self.to_string().parse::<Self>().map(drop)
    }

    /// The text, however long, with the name as it is to be written.
    fn text(&self, name: &str) -> String {
        let mut query = String::new();
        let mut addr = self.addr.clone();
        for url in &self.relay_urls {
            let mark = if query.is_empty() { '?' } else { '&' };
            query += &format!("{mark}{RELAY}{}", utf8_percent_encode(url, IN_VALUE));
            if let Ok(url) = parse_relay_url(url) {
                addr.addrs.remove(&TransportAddr::Relay(url));
            }
        }
        // Nothing here can fail to encode; if it ever did, the id alone is an address as well.
        let bytes = postcard::to_stdvec(&addr).unwrap_or_else(|_| addr.id.to_vec());
        let address = BASE64URL_NOPAD.encode(&bytes);
        format!("{SCHEME}{address}/{name}{query}")
    }

    /// Leaves out what is missed least; `false` when only id and name are left.
    fn shorten(&mut self) -> bool {
        if remove_farthest(&mut self.addr) {
            return true;
        }
        let last = match self.relay_urls.pop() {
            Some(added) => parse_relay_url(&added).ok().map(TransportAddr::Relay),
            None => self.addr.addrs.last().cloned(),
        };
        last.is_some_and(|last| self.addr.addrs.remove(&last))
    }
}

/// Whether a packet to this address may reach one machine.
fn can_be_dialled(addr: &TransportAddr) -> bool {
    let TransportAddr::Ip(addr) = addr else {
        return true;
    };
    let to_all = matches!(addr.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !to_all && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

/// Removes the direct address that the fewest can use; `false` if there is none.
fn remove_farthest(addr: &mut EndpointAddr) -> bool {
    let direct = addr.addrs.iter().filter(|addr| !addr.is_relay());
    let farthest = direct.max_by_key(|addr| reach(addr)).cloned();
    farthest.is_some_and(|farthest| addr.addrs.remove(&farthest))
}

/// From how near an address can be used: the higher, the nearer.
fn reach(addr: &TransportAddr) -> u8 {
    let TransportAddr::Ip(addr) = addr else {
        return 0;
    };
    match addr.ip() {
        ip if ip.is_loopback() => 3,
        IpAddr::V4(ip) if ip.is_link_local() => 2,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 2,
        IpAddr::V4(ip) if ip.is_private() => 1,
        IpAddr::V6(ip) if ip.is_unique_local() => 1,
        _ => 0,
    }
}

impl fmt::Display for LiveTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = utf8_percent_encode(&self.name, IN_NAME).to_string();
        let mut text = self.text(&name);
        if text.len() >= Self::MAX_LEN {
            let name = shorter_name(&self.name);
            let mut shorter = self.clone();
            text = shorter.text(&name);
            while text.len() >= Self::MAX_LEN && shorter.shorten() {
                text = shorter.text(&name);
            }
        }
        f.write_str(&text)
    }
}

/// A name with the characters outside ASCII as they are.
fn shorter_name(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let end = at + c.len_utf8();
        // The reader would take such a character off the end of a ticket.
        let taken_off = end == name.len() && is_wrapping(c);
        if c.is_ascii() || c.is_control() || taken_off {
            text.extend(utf8_percent_encode(&name[at..end], IN_NAME));
        } else {
            text.push(c);
        }
    }
    text
}

/// Whether a character around a ticket is no part of it but was copied along.
fn is_wrapping(c: char) -> bool {
    // The last two are invisible: a zero-width space and a byte order mark.
    c.is_whitespace() || "\"'`<>«»\u{2018}\u{2019}\u{201c}\u{201d}\u{200b}\u{feff}".contains(c)
}

impl FromStr for LiveTicket {
    type Err = ParseTicketError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let text = s.trim_matches(is_wrapping);
        if text.len() >= Self::MAX_LEN {
            return Err(ParseTicketError::TooLong(text.len()));
        }
        // Most often a line end, in a ticket that was wrapped where it was shown.
        if let Some(at) = text.find(char::is_control) {
            return Err(mistyped(text, &text[at..]));
        }
        match text.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => read_uri(text, rest),
            _ => read_old_form(text),
        }
    }
}

/// Reads what follows the scheme. `text` is the whole ticket, here and below.
fn read_uri(text: &str, rest: &str) -> Result<LiveTicket, ParseTicketError> {
    // An address is never empty, so slashes that another program put after the scheme stand out.
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (address, name) = path.split_once('/').unwrap_or((path, ""));
    let addr = match read_id(address) {
        Some(id) => id.into(),
        None => read_addr(text, address, &BASE64URL_NOPAD)?,
    };
    if name.is_empty() {
        return Err(ParseTicketError::NoName);
    }
    let mut ticket = LiveTicket::new(addr, unescape(text, name)?);
    for pair in query.split('&') {
        if let Some(value) = pair.strip_prefix(RELAY) {
            let url = unescape(text, value)?;
            parse_relay_url(&url)?;
            ticket.add_relay(url);
        } else if !pair.is_empty() && RELAY.starts_with(pair) {
            return Err(ParseTicketError::CutShort);
        }
    }
    Ok(ticket)
}

/// Reads `<name>@<address>`, or says why the text is no ticket at all.
fn read_old_form(text: &str) -> Result<LiveTicket, ParseTicketError> {
    let old = text.rsplit_once('@').map(|(name, address)| {
        let addr = read_addr(text, address, &BASE32_NOPAD_NOCASE)?;
        // These names were never percent-encoded.
        match name.is_empty() {
            true => Err(ParseTicketError::NoName),
            false => Ok(LiveTicket::new(addr, name)),
        }
    });
    let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    match (old, text.split_once(':')) {
        (Some(Ok(ticket)), _) => Ok(ticket),
        (_, Some((scheme, _))) if !scheme.is_empty() && scheme.chars().all(in_scheme) => {
            Err(ParseTicketError::OtherScheme(scheme.to_owned()))
        }
        (Some(error), _) => error,
        _ if SCHEME.starts_with(&text.to_ascii_lowercase()) => Err(ParseTicketError::CutShort),
        _ => Err(ParseTicketError::NotATicket),
    }
}

/// Reads an endpoint's id as text: hex, base32 or z-base-32.
///
/// None is mistaken for another, or for base64url: the base32 forms end in different letters, since
/// the last one carries a single bit, and so much base64url would have letters of both cases.
fn read_id(text: &str) -> Option<EndpointId> {
    let lower = text.to_ascii_lowercase();
    if text != lower && text != text.to_ascii_uppercase() {
        return None;
    }
    lower.parse().or_else(|_| EndpointId::from_z32(&lower)).ok()
}

/// Reads an address, or 32 bytes that are an endpoint's id; an address is never that short.
fn read_addr(text: &str, part: &str, code: &Encoding) -> Result<EndpointAddr, ParseTicketError> {
    let digits = part.trim_end_matches('=');
    let symbols = code.specification().symbols;
    let is_wrong = |c: char| !symbols.contains(c) && !symbols.contains(c.to_ascii_uppercase());
    if let Some(at) = digits.find(is_wrong) {
        return Err(mistyped(text, &digits[at..]));
    }
    let incomplete = match is_at_end(text, part) {
        true => ParseTicketError::CutShort,
        false => ParseTicketError::Garbled,
    };
    let bytes = code.decode(digits.as_bytes()).unwrap_or_default();
    let Some((id, addrs)) = bytes.split_first_chunk() else {
        return Err(incomplete);
    };
    let id = EndpointId::from_bytes(id).map_err(|_| ParseTicketError::NotAnEndpoint)?;
    if addrs.is_empty() {
        return Ok(id.into());
    }
    match postcard::take_from_bytes::<EndpointAddr>(&bytes) {
        Ok((addr, [])) => {
            let bad = addr.relay_urls().find(|url| !is_relay_url(url)).cloned();
            bad.map_or(Ok(addr), |url| {
                Err(ParseTicketError::BadRelayUrl(url.to_string()))
            })
        }
        Ok((_, rest)) => Err(ParseTicketError::TrailingBytes(rest.len())),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(incomplete),
        Err(_) => Err(ParseTicketError::Garbled),
    }
}

fn parse_relay_url(url: &str) -> Result<RelayUrl, ParseTicketError> {
    // Other schemes need no host; without any, `localhost:3340` has the scheme `localhost`.
    url.parse::<RelayUrl>()
        .ok()
        .filter(is_relay_url)
        .ok_or_else(|| ParseTicketError::BadRelayUrl(url.to_owned()))
}

fn is_relay_url(url: &RelayUrl) -> bool {
    matches!(url.scheme(), "https" | "http" | "wss" | "ws")
}

/// Undoes percent-encoding. Unlike [`percent_decode_str`], refuses a `%` that encodes nothing.
fn unescape(text: &str, part: &str) -> Result<String, ParseTicketError> {
    for (at, _) in part.match_indices('%') {
        match part.as_bytes().get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            None if is_at_end(text, part) => return Err(ParseTicketError::CutShort),
            _ => return Err(mistyped(text, &part[at..])),
        }
    }
    let bytes = percent_decode_str(part).collect();
    String::from_utf8(bytes).map_err(|_| ParseTicketError::NotUtf8)
}

/// Whether `text` ends where `part`, a slice of it, ends.
fn is_at_end(text: &str, part: &str) -> bool {
    text.as_bytes().as_ptr_range().end == part.as_bytes().as_ptr_range().end
}

/// The error for the character that `tail`, a slice of `text`, begins with.
fn mistyped(text: &str, tail: &str) -> ParseTicketError {
    let before = tail.as_ptr().addr() - text.as_ptr().addr();
    ParseTicketError::Mistyped {
        found: tail.chars().next().unwrap_or_default(),
        position: text[..before].chars().count() + 1,
    }
}

impl Serialize for LiveTicket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LiveTicket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Why a text is not a [`LiveTicket`], and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTicketError {
    /// The text ends too early to be a ticket.
    #[error("the ticket is cut short: copy it whole, from `iroh-live:` to the name")]
    CutShort,
    /// The text, of so many bytes, is not shorter than [`LiveTicket::MAX_LEN`].
    #[error("the ticket is too long, {0} bytes: copy it alone, or shorten its name or relays")]
    TooLong(usize),
    /// The text looks like no kind of ticket.
    #[error("this is not a ticket: copy one whole, it looks like `iroh-live:<address>/<name>`")]
    NotATicket,
    /// The text is a URI of another scheme, which is given.
    #[error("`{0}:` is not a ticket: one begins with `iroh-live:`")]
    OtherScheme(String),
    /// A character cannot be where it is.
    #[error("character {position} of the ticket, {found:?}, is mistyped: correct it or copy again")]
    Mistyped {
        /// The character.
        found: char,
        /// Counted in characters from 1, beginning at the ticket proper.
        position: usize,
    },
    /// The address decodes to nothing that makes sense.
    #[error("the ticket's address is damaged or from a newer version: copy it again, or update")]
    Garbled,
    /// The endpoint's id in the address is not a public key.
    #[error("the ticket's address names no endpoint, it is mistyped: copy the ticket again")]
    NotAnEndpoint,
    /// The address decodes, and so many bytes are left over.
    #[error("the ticket's address has {0} bytes too many: copy the ticket again")]
    TrailingBytes(usize),
    /// The address is not followed by the name of a stream.
    #[error("the ticket has no name: copy it whole, or add `/` and the stream's name")]
    NoName,
    /// What is percent-encoded is not text.
    #[error("the ticket has percent-encoded bytes that are not UTF-8: copy it again, and whole")]
    NotUtf8,
    /// A relay URL, which is given, is not the URL of a server.
    #[error("{0:?} is no relay URL: correct it, one looks like `https://relay.example.com`")]
    BadRelayUrl(String),
}

#[cfg(test)]
mod tests;
