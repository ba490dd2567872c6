mod errors;
mod limits;
mod random;

use super::*;
use iroh::{SecretKey, TransportAddr};

/// A public key that needs no computing: the base point of the curve.
const ID: &str = "5866666666666666666666666666666666666666666666666666666666666666";

/// [`ID`] with a relay, an IPv4 and an IPv6 address; encoded by another program.
const FULL: &str = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmYDABpodHRwczovL3JlbGF5LmV4YW1w\
                    bGUub3JnLwEAwAACB9EiAQEgAQ24AAAAAAAAAAAAAAAH7JQD";
const FULL_BASE32: &str = "lbtgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztagaa2nb2hi4dthi\
                           xs64tfnrqxsltfpbqw24dmmuxg64thf4aqbqaaaid5ciqbaeqacdnyaaaaaaaaaaaa\
                           aaaaaad6zfad";
/// [`ID`] as an address without any transport address, and its 32 bytes alone.
const EMPTY: &str = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmYA";
const BARE: &str = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY";
const ID_BASE32: &str = "lbtgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmztgmzta";
const ID_Z32: &str = "mbugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3ugc3uy";

fn id() -> EndpointId {
    ID.parse().unwrap()
}

fn full() -> EndpointAddr {
    // Not in the order they are encoded in.
    EndpointAddr::new(id())
        .with_ip_addr("[2001:db8::7]:51820".parse().unwrap())
        .with_ip_addr("192.0.2.7:4433".parse().unwrap())
        .with_relay_url("https://relay.example.org".parse().unwrap())
}

fn parse(text: &str) -> Result<LiveTicket, ParseTicketError> {
    text.parse()
}

#[track_caller]
fn assert_round_trip(ticket: &LiveTicket) {
    let text = ticket.to_string();
    assert!(
        text.len() < LiveTicket::MAX_LEN,
        "{} bytes: {text}",
        text.len()
    );
    assert_eq!(parse(&text).as_ref(), Ok(ticket), "{text}");
    assert_eq!(ticket.check(), Ok(()));
}

#[test]
fn golden_texts() {
    let relay = "https://relay.example.com";
    let relays = [relay, "http://localhost:3340/?token=a&b=%20"];
    for (ticket, text) in [
        (
            LiveTicket::new(full(), "stream"),
            format!("iroh-live:{FULL}/stream"),
        ),
        (
            LiveTicket::new(id(), "stream"),
            format!("iroh-live:{EMPTY}/stream"),
        ),
        (
            LiveTicket::new(id(), "stream").with_relay_urls(vec![relay.to_string()]),
            format!("iroh-live:{EMPTY}/stream?relay=https%3A%2F%2Frelay.example.com"),
        ),
        (
            LiveTicket::new(full(), "a/b").with_relay_urls(relays),
            format!(
                "iroh-live:{FULL}/a/b?relay=https%3A%2F%2Frelay.example.com\
                 &relay=http%3A%2F%2Flocalhost%3A3340%2F%3Ftoken%3Da%26b%3D%2520"
            ),
        ),
    ] {
        assert_eq!(ticket.to_string(), text);
        assert_round_trip(&ticket);
    }
}

#[test]
fn golden_names() {
    for (name, text) in [
        ("front door", "front%20door"),
        ("a?relay=b&c#d", "a%3Frelay%3Db%26c%23d"),
        ("100%", "100%25"),
        ("%20", "%2520"),
        ("/", "/"),
        ("//", "//"),
        ("../a/./b/", "../a/./b/"),
        (" ", "%20"),
        ("it's \"it\"", "it%27s%20%22it%22"),
        ("<a>`b`", "%3Ca%3E%60b%60"),
        ("line\r\nend\t\0", "line%0D%0Aend%09%00"),
        ("-._~", "-._~"),
        ("a@b:c+d=e,f;g", "a%40b%3Ac%2Bd%3De%2Cf%3Bg"),
        ("Küche", "K%C3%BCche"),
        ("台所", "%E5%8F%B0%E6%89%80"),
        ("📷", "%F0%9F%93%B7"),
        ("\u{85}\u{3000}\u{feff}", "%C2%85%E3%80%80%EF%BB%BF"),
    ] {
        let ticket = LiveTicket::new(id(), name);
        assert_eq!(ticket.to_string(), format!("iroh-live:{EMPTY}/{text}"));
        assert_round_trip(&ticket);
    }
}

#[test]
fn old_form() {
    let expected = LiveTicket::new(full(), "my stream");
    for text in [
        format!("my stream@{FULL_BASE32}"),
        format!("my stream@{}", FULL_BASE32.to_ascii_uppercase()),
        format!(" 'my stream@{FULL_BASE32}'\n"),
    ] {
        assert_eq!(parse(&text).as_ref(), Ok(&expected), "{text}");
    }
    // Nothing in these names is encoded.
    for name in ["a@b", "a%20b", "x:y", "a/b?c", "küche", "https://x"] {
        let expected = LiveTicket::new(id(), name);
        assert_eq!(parse(&format!("{name}@{ID_BASE32}a")), Ok(expected));
    }
    // An id alone is read here, too.
    assert_eq!(
        parse(&format!("a@{ID_BASE32}")),
        Ok(LiveTicket::new(id(), "a"))
    );

    assert_eq!(
        parse(&format!("@{FULL_BASE32}")),
        Err(ParseTicketError::NoName)
    );
    assert_eq!(parse("name@"), Err(ParseTicketError::CutShort));
    for end in 0..FULL_BASE32.len() {
        match parse(&format!("name@{}", &FULL_BASE32[..end])) {
            Err(ParseTicketError::CutShort) => {}
            other => assert!(end == 52, "{end}: {other:?}"),
        }
    }
    let error = parse(&format!("name@{}", FULL_BASE32.replacen('g', "1", 1)));
    assert_eq!(
        error,
        Err(ParseTicketError::Mistyped {
            found: '1',
            position: 9
        })
    );
    let error = parse(&format!("name@{FULL_BASE32}aaaaaaaa"));
    assert_eq!(error, Err(ParseTicketError::TrailingBytes(5)));
}

#[test]
fn an_id_in_place_of_the_address() {
    let expected = LiveTicket::new(id(), "a");
    let upper = [ID, ID_BASE32, ID_Z32].map(str::to_ascii_uppercase);
    for address in [BARE, EMPTY, ID, ID_BASE32, ID_Z32]
        .into_iter()
        .chain(upper.iter().map(String::as_str))
    {
        assert_eq!(
            parse(&format!("iroh-live:{address}/a")).as_ref(),
            Ok(&expected),
            "{address}"
        );
    }
    // The forms that are 52 characters long are never confused, nor is base64url with any.
    for seed in 0..200_u8 {
        let id = SecretKey::from_bytes(&[seed; 32]).public();
        let expected = LiveTicket::new(id, "a");
        let base32 = data_encoding::BASE32_NOPAD
            .encode(id.as_bytes())
            .to_lowercase();
        let base64 = BASE64URL_NOPAD.encode(id.as_bytes());
        for address in [id.to_string(), id.to_z32(), base32, base64] {
            assert_eq!(
                parse(&format!("iroh-live:{address}/a")).as_ref(),
                Ok(&expected),
                "{address}"
            );
        }
    }
}

#[test]
fn what_is_copied_along_is_taken_off() {
    let ticket = LiveTicket::new(full(), "a b").with_relay_urls(["https://r.example"]);
    for ticket in [
        ticket,
        LiveTicket::new(id(), "\u{201d}it's»"),
        LiveTicket::new(id(), "«\u{3000}"),
    ] {
        let text = ticket.to_string();
        for (before, after) in [
            ("", "\n"),
            ("  ", "\r\n"),
            ("\t\"", "\" "),
            ("'", "'"),
            ("`", "`\n\n"),
            ("<", ">"),
            ("\u{201c}", "\u{201d}"),
            ("\u{feff}", "\u{200b}"),
            ("\u{a0}«\u{a0}", "\u{a0}»"),
        ] {
            let around = format!("{before}{text}{after}");
            assert_eq!(parse(&around).as_ref(), Ok(&ticket), "{around:?}");
        }
    }
}

#[test]
fn other_spellings_of_the_uri() {
    let expected = LiveTicket::new(full(), "a/b").with_relay_urls(["https://r.example"]);
    let query = "relay=https%3a%2f%2Fr.example";
    for text in [
        format!("IROH-LIVE:{FULL}/a/b?{query}"),
        format!("Iroh-Live://{FULL}/a/b?{query}"),
        format!("iroh-live:{FULL}==/%61%2Fb?{query}&"),
        format!("iroh-live:{FULL}/a/b?relay=https://r.example"),
        format!("iroh-live:{FULL}/a/b?later=1&{query}&flag&=&x=y=z&relayed=1&RELAY=no"),
    ] {
        assert_eq!(parse(&text).as_ref(), Ok(&expected), "{text}");
    }
    for name in ["küche", "my stream", "a#b", "a@b", "a+b", "it's so", "a:b"] {
        let expected = LiveTicket::new(id(), name);
        assert_eq!(
            parse(&format!("iroh-live:{EMPTY}/{name}")),
            Ok(expected.clone())
        );
        assert_eq!(parse(&format!("iroh-live:{EMPTY}/{name}?")), Ok(expected));
    }
}

#[test]
fn relay_urls_join_the_address() {
    let ticket = LiveTicket::new(full(), "a")
        .with_relay_urls(vec!["https://relay.example.com".to_string()])
        .with_relay_urls(["https://relay.example.org", "http://[::1]:3340"]);
    // One of them was in the address already.
    assert_eq!(ticket.relay_urls().len(), 2);
    let addr = ticket.addr();
    assert_eq!((addr.relay_urls().count(), addr.ip_addrs().count()), (3, 2));
    assert_eq!(parse(&ticket.to_string()).unwrap().addr(), addr);
    assert_round_trip(&ticket);

    for url in [
        "",
        "relay.example.com",
        "localhost:3340",
        "ftp://a",
        "https://",
        "https://a b",
    ] {
        let ticket = LiveTicket::new(id(), "a").with_relay_urls([url]);
        let error = Err(ParseTicketError::BadRelayUrl(url.to_string()));
        assert_eq!(ticket.check(), error);
        assert_eq!(ticket.addr(), &id().into());
    }
}

#[test]
fn the_encoding_of_an_address() {
    // It does not depend on the order of insertion, nor on how often something was inserted.
    let again = full().with_addrs(full().addrs.into_iter().rev());
    assert_eq!(
        LiveTicket::new(again, "a").to_string(),
        LiveTicket::new(full(), "a").to_string()
    );
    // Nor is the order in a text of any consequence.
    let bytes = [
        id().as_bytes().as_slice(),
        &[2, 1, 0, 9, 9, 9, 9, 1, 1, 0, 1, 1, 1, 1, 1],
    ]
    .concat();
    let received = parse(&format!("iroh-live:{}/a", BASE64URL_NOPAD.encode(&bytes))).unwrap();
    let addrs = ["1.1.1.1:1", "9.9.9.9:1"].map(|addr| TransportAddr::Ip(addr.parse().unwrap()));
    assert_eq!(received.addr(), &EndpointAddr::from_parts(id(), addrs));
    assert_round_trip(&received);
    // What has a meaning on one machine only is lost.
    let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 5, 3);
    let ticket = LiveTicket::new(EndpointAddr::new(id()).with_ip_addr(scoped.into()), "a");
    let received = parse(&ticket.to_string()).unwrap();
    assert_eq!(
        received.addr().ip_addrs().next(),
        Some(&"[fe80::1]:7".parse().unwrap())
    );
}

#[test]
fn serde_uses_the_text() {
    let ticket = LiveTicket::new(full(), "a b").with_relay_urls(["https://r.example"]);
    let json = serde_json::to_string(&ticket).unwrap();
    assert_eq!(json, format!("\"{ticket}\""));
    assert_eq!(serde_json::from_str::<LiveTicket>(&json).unwrap(), ticket);
    let bytes = postcard::to_stdvec(&ticket).unwrap();
    assert_eq!(postcard::from_bytes::<LiveTicket>(&bytes).unwrap(), ticket);
    let error = serde_json::from_str::<LiveTicket>("\"iroh-live:\"").unwrap_err();
    assert!(
        error.to_string().starts_with("the ticket is cut short: "),
        "{error}"
    );
    assert!(serde_json::from_str::<LiveTicket>("7").is_err());
}
