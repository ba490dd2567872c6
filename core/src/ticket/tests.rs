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

/// An address with a relay and `count` direct addresses, of which each takes nine bytes.
fn crowded(count: u32) -> EndpointAddr {
    let direct =
        (0..count).map(|n| TransportAddr::Ip(([10, 1, (n >> 8) as u8, n as u8], 50_000).into()));
    let relay = "https://relay.example.org".parse().unwrap();
    EndpointAddr::new(id())
        .with_relay_url(relay)
        .with_addrs(direct)
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

/// A generator of numbers that are the same at every run.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }

    fn char(&mut self) -> char {
        let end = [0x80, 0x80, 0x250, 0x3100, 0x11_0000][self.below(5)];
        char::from_u32(self.below(end) as u32).unwrap_or('\u{fffd}')
    }

    fn name(&mut self, max_chars: usize) -> String {
        let len = 1 + self.below(max_chars);
        (0..len).map(|_| self.char()).collect()
    }

    fn ticket(&mut self) -> LiveTicket {
        let id = SecretKey::from_bytes(&[self.below(8) as u8; 32]).public();
        let mut addr = EndpointAddr::new(id);
        for _ in 0..self.below(4) {
            let (ip, port) = (self.next() as u32, self.next() as u16);
            addr.addrs.insert(match self.below(4) {
                0 => TransportAddr::Relay(format!("https://r{port}.example.org").parse().unwrap()),
                1 => TransportAddr::Ip((u128::from(ip).to_be_bytes(), port).into()),
                _ => TransportAddr::Ip((ip.to_be_bytes(), port).into()),
            });
        }
        let urls = [
            "https://relay.example.com",
            "http://localhost:3340/",
            "https://r.example/?a=b&c#d",
        ];
        let name = self.name(40);
        LiveTicket::new(addr, name).with_relay_urls(urls.into_iter().take(self.below(4)))
    }
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
fn errors_say_what_to_do() {
    use ParseTicketError::*;
    let mut far = BASE64URL_NOPAD.decode(FULL.as_bytes()).unwrap();
    far.extend([1, 2, 3]);
    let far = BASE64URL_NOPAD.encode(&far);
    let mut unknown = BASE64URL_NOPAD.decode(EMPTY.as_bytes()).unwrap();
    unknown[32] = 1;
    unknown.extend([9, 0]);
    let unknown = BASE64URL_NOPAD.encode(&unknown);
    // y = 2 is on no point of the curve.
    let no_key = format!("02{}", "00".repeat(31));
    let no_key =
        BASE64URL_NOPAD.encode(&data_encoding::HEXLOWER.decode(no_key.as_bytes()).unwrap());
    let half = &FULL[..60];

    for (text, error) in [
        (String::new(), CutShort),
        (" \"\"\n".into(), CutShort),
        ("iroh".into(), CutShort),
        ("Iroh-Live".into(), CutShort),
        ("iroh-live:".into(), CutShort),
        ("iroh-live://".into(), CutShort),
        (format!("iroh-live:{half}"), CutShort),
        (format!("iroh-live:{half}/name"), Garbled),
        ("iroh-live:/name".into(), Garbled),
        ("iroh-live:AAAA/AAAA".into(), Garbled),
        (format!("iroh-live:{unknown}/name"), Garbled),
        (format!("iroh-live:{no_key}/name"), NotAnEndpoint),
        (format!("iroh-live:{no_key}A/name"), NotAnEndpoint),
        (format!("iroh-live:{far}/name"), TrailingBytes(3)),
        (format!("iroh-live:{FULL}"), NoName),
        (format!("iroh-live:{FULL}/"), NoName),
        (
            format!("iroh-live:{FULL}/?relay=https%3A%2F%2Fr.example"),
            NoName,
        ),
        (
            format!("iroh-live:{FULL}?relay=https%3A%2F%2Fr.example"),
            NoName,
        ),
        (format!("iroh-live:{FULL}/a%2"), CutShort),
        (format!("iroh-live:{FULL}/a%"), CutShort),
        (format!("iroh-live:{FULL}/%E5%8F"), NotUtf8),
        (format!("iroh-live:{FULL}/%FF"), NotUtf8),
        (format!("iroh-live:{FULL}/a?rel"), CutShort),
        (format!("iroh-live:{FULL}/a?relay"), CutShort),
        (
            format!("iroh-live:{FULL}/a?relay="),
            BadRelayUrl(String::new()),
        ),
        (format!("iroh-live:{FULL}/a?relay=%FF"), NotUtf8),
        (format!("iroh-live:{FULL}/a?relay=https%3"), CutShort),
        (
            format!("iroh-live:{FULL}/a?relay=localhost:3340"),
            BadRelayUrl("localhost:3340".into()),
        ),
        (
            format!("iroh-live:{FULL}/a?relay=https%3A%2F%2F"),
            BadRelayUrl("https://".into()),
        ),
        (
            format!("iroh-live:{FULL}/a?relay=mailto%3Aa%40b"),
            BadRelayUrl("mailto:a@b".into()),
        ),
        ("https://example.com/a".into(), OtherScheme("https".into())),
        (
            "https://me@example.com/a".into(),
            OtherScheme("https".into()),
        ),
        (format!("live:{FULL}/a"), OtherScheme("live".into())),
        (format!("h-live{FULL}/a"), NotATicket),
        ("my stream".into(), NotATicket),
        ("küche".into(), NotATicket),
        ("küche: a".into(), NotATicket),
        (":".into(), NotATicket),
        (
            format!("iroh-live:{FULL}/a%zz"),
            Mistyped {
                found: '%',
                position: 133,
            },
        ),
        (
            format!("iroh-live:{FULL}/aé%2?relay=x"),
            Mistyped {
                found: '%',
                position: 134,
            },
        ),
        (
            format!("iroh-live:{FULL}/a\nb"),
            Mistyped {
                found: '\n',
                position: 133,
            },
        ),
        (
            format!("  iroh-live:é{FULL}/a"),
            Mistyped {
                found: 'é',
                position: 11,
            },
        ),
        (
            format!("iroh-live:W+{FULL}/a"),
            Mistyped {
                found: '+',
                position: 12,
            },
        ),
        (
            format!("iroh-live:W {FULL}/a"),
            Mistyped {
                found: ' ',
                position: 12,
            },
        ),
        (
            format!("iroh-live:W={FULL}/a"),
            Mistyped {
                found: '=',
                position: 12,
            },
        ),
        (format!("iroh-live:/{FULL}/a"), Garbled),
    ] {
        let result = parse(&text);
        assert_eq!(result, Err(error.clone()), "{text}");
        // What is wrong, and, behind a colon, what to do about it.
        let message = error.to_string();
        let advice = message.rsplit_once(": ").unwrap().1;
        let has_advice = ["copy", "correct", "one begins with"]
            .iter()
            .any(|a| advice.starts_with(a));
        assert!(has_advice, "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let error = Mistyped {
        found: '+',
        position: 12,
    }
    .to_string();
    assert_eq!(
        error,
        "character 12 of the ticket, '+', is mistyped: correct it or copy again"
    );
    assert_eq!(
        BadRelayUrl("a\nb".into()).to_string(),
        r#""a\nb" is no relay URL: correct it, one looks like `https://relay.example.com`"#
    );
}

#[test]
fn every_cut_is_noticed_or_shortens_the_name() {
    let ticket = LiveTicket::new(full(), "küche 1").with_relay_urls(["https://r.example/"]);
    let text = ticket.to_string();
    let name_at = text.find('/').unwrap() + 1;
    let query_at = text.find('?').unwrap();
    for end in 0..text.len() {
        match parse(&text[..end]) {
            Ok(cut) => {
                assert!(
                    end > name_at && ticket.name().starts_with(cut.name()),
                    "{end}"
                );
                assert!(
                    end <= query_at + 1 || cut.relay_urls()[0].starts_with("https://r"),
                    "{end}"
                );
            }
            // Forty-three characters are an id; the last of them has bits to spare.
            Err(ParseTicketError::NoName) => {
                assert!(end >= name_at - 1 || end == 10 + 43, "{end}")
            }
            Err(ParseTicketError::NotUtf8) => {
                assert!((name_at..query_at).contains(&end), "{end}")
            }
            Err(ParseTicketError::BadRelayUrl(_)) => assert!(end > query_at, "{end}"),
            Err(error) => assert_eq!(error, ParseTicketError::CutShort, "{end}"),
        }
    }
}

#[test]
fn about_half_of_all_mistyped_ids_are_noticed() {
    // Of all wrong letters in the id, about half give something that is no public key.
    let text = LiveTicket::new(id(), "a").to_string();
    let (mut unnoticed, mut noticed) = (0, 0);
    for at in SCHEME.len()..SCHEME.len() + 42 {
        for letter in ["A", "b", "7", "_"] {
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, letter);
            match parse(&wrong) {
                Ok(ticket) => {
                    unnoticed += usize::from(wrong != text);
                    assert_eq!(ticket.addr().id == id(), wrong == text);
                }
                Err(error) => {
                    noticed += 1;
                    assert_eq!(error, ParseTicketError::NotAnEndpoint);
                }
            }
        }
    }
    assert!(noticed > 50 && unnoticed > 50, "{noticed} {unnoticed}");
}

#[test]
fn any_name_of_200_characters_fits() {
    for c in [
        'a',
        ' ',
        '%',
        '/',
        '\0',
        'é',
        '\u{85}',
        '台',
        '📷',
        '\u{3000}',
        '\u{2019}',
        '\u{10ffff}',
    ] {
        let name = String::from(c).repeat(200);
        let ticket = LiveTicket::new(full(), name.as_str());
        let text = ticket.to_string();
        assert_round_trip(&ticket);
        // Plain ASCII, unless that is too long.
        let encoded = utf8_percent_encode(&name, IN_NAME).count() * 3;
        assert!(text.is_ascii() || encoded > 1800, "{text}");

        let ticket =
            LiveTicket::new(crowded(300), name).with_relay_urls(["https://relay.example.com"; 3]);
        let received = parse(&ticket.to_string()).unwrap();
        assert_eq!(
            (received.name(), received.relay_urls()),
            (ticket.name(), ticket.relay_urls())
        );
        assert_eq!(received.addr().ip_addrs().count(), LiveTicket::MAX_DIRECT);
    }
}

#[test]
fn names_are_in_utf8_only_when_they_must() {
    let name = "台".repeat(200);
    let text = LiveTicket::new(id(), name.as_str()).to_string();
    assert_eq!(
        text,
        format!("iroh-live:{EMPTY}/{}", "%E5%8F%B0".repeat(200))
    );
    let name = name + &"é".repeat(20);
    let text = LiveTicket::new(full(), format!("{name} 📷 \u{3000}")).to_string();
    assert_eq!(text, format!("iroh-live:{FULL}/{name}%20📷%20%E3%80%80"));
}

#[test]
fn no_more_addresses_and_relays_are_kept_than_a_machine_should_contact() {
    let many_relays = |count: u32| {
        (0..count).map(|n| {
            TransportAddr::Relay(format!("http://localhost:{}", 3000 + n).parse().unwrap())
        })
    };
    let direct = |addr: &EndpointAddr| addr.ip_addrs().count();
    for count in [0, 31, 32, 33, 158, 1000] {
        let expected = (count as usize).min(LiveTicket::MAX_DIRECT);
        let ticket = LiveTicket::new(crowded(count), "a");
        assert_eq!(direct(ticket.addr()), expected);
        assert_round_trip(&ticket);
    }
    // From outside, too: written by somebody who does not keep to the limits.
    let hostile = crowded(60).with_addrs(many_relays(20));
    let bytes = postcard::to_stdvec(&hostile).unwrap();
    let address = BASE64URL_NOPAD.encode(&bytes);
    let received = parse(&format!("iroh-live:{address}/a?relay=https://r.example")).unwrap();
    assert_eq!(direct(received.addr()), LiveTicket::MAX_DIRECT);
    assert_eq!(received.addr().relay_urls().count(), LiveTicket::MAX_RELAYS);
    let relays: String = (0..30).map(|n| format!("&relay=http://r{n}")).collect();
    let received = parse(&format!("iroh-live:{EMPTY}/a?{relays}{relays}")).unwrap();
    assert_eq!(received.relay_urls().len(), LiveTicket::MAX_RELAYS);
    assert_eq!(received.addr().relay_urls().count(), LiveTicket::MAX_RELAYS);
    let received = parse(&format!("a@{}", BASE32_NOPAD_NOCASE.encode(&bytes))).unwrap();
    assert_eq!(direct(received.addr()), LiveTicket::MAX_DIRECT);
}

#[test]
fn what_leads_the_shortest_way_is_left_out_first() {
    let addr = |text: &str| TransportAddr::Ip(text.parse().unwrap());
    let near = [
        "127.0.0.1:1",
        "[::1]:1",
        "169.254.0.1:1",
        "[fe80::1]:1",
        "192.168.0.1:1",
        "[fd00::1]:1",
    ]
    .map(addr);
    let far = (0..28).map(|n| TransportAddr::Ip(([192, 0, 2, n], 4433).into()));
    let ticket = LiveTicket::new(
        EndpointAddr::from_parts(id(), near.iter().cloned().chain(far.clone())),
        "a",
    );
    let kept = near[2..].iter().cloned().chain(far);
    assert_eq!(ticket.addr(), &EndpointAddr::from_parts(id(), kept));
}

#[test]
fn addresses_that_are_nobodys_are_left_out() {
    let nobodys = [
        "0.0.0.0:4433",
        "[::]:4433",
        "255.255.255.255:4433",
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
        "192.0.2.7:0",
    ];
    let addrs = nobodys.map(|text| TransportAddr::Ip(text.parse().unwrap()));
    let bytes = postcard::to_stdvec(&full().with_addrs(addrs)).unwrap();
    let received = parse(&format!("iroh-live:{}/a", BASE64URL_NOPAD.encode(&bytes)));
    assert_eq!(received, Ok(LiveTicket::new(full(), "a")));
}

#[test]
fn what_is_no_relay_is_refused_in_the_address_too() {
    let addr = full().with_relay_url("ftp://files.example".parse().unwrap());
    let error = Err(ParseTicketError::BadRelayUrl("ftp://files.example/".into()));
    assert_eq!(LiveTicket::new(addr.clone(), "a").check(), error);
    let bytes = postcard::to_stdvec(&addr).unwrap();
    let text = format!("iroh-live:{}/a", BASE64URL_NOPAD.encode(&bytes));
    assert_eq!(parse(&text).map(drop), error);
}

#[test]
fn addresses_and_then_relays_are_left_out_of_a_text_that_is_too_long() {
    let relay = |n: usize| format!("https://{n}.{}.example", "a".repeat(250));
    // As no relay of an endpoint is, but as somebody may name one.
    let huge = format!("https://relay.example/{}", "a".repeat(3000));
    let name = "n".repeat(1000);
    for (addr, relays) in [
        (crowded(32), 0..3),
        (crowded(32), 0..8),
        (full(), 0..8),
        (full().with_relay_url(huge.parse().unwrap()), 0..8),
        (
            EndpointAddr::new(id()).with_relay_url(huge.parse().unwrap()),
            0..0,
        ),
    ] {
        let ticket = LiveTicket::new(addr, name.as_str()).with_relay_urls(relays.map(relay));
        let text = ticket.to_string();
        assert!(text.len() < LiveTicket::MAX_LEN, "{} bytes", text.len());
        assert_eq!(ticket.check(), Ok(()));
        let received = parse(&text).unwrap();
        assert_eq!((received.addr().id, received.name()), (id(), name.as_str()));
        assert!(received.addr().addrs.is_subset(&ticket.addr().addrs));
        assert!(ticket.relay_urls().starts_with(received.relay_urls()));
        assert_eq!(received.to_string(), text);
        // Relays are more use than direct addresses.
        let relays = received.addr().relay_urls().count();
        assert!(
            received.addr().ip_addrs().count() == 0 || relays == ticket.addr().relay_urls().count()
        );
    }
}

#[test]
fn a_name_that_cannot_fit_is_an_error() {
    let longest = LiveTicket::MAX_LEN - 1 - "iroh-live:/".len() - EMPTY.len();
    assert_round_trip(&LiveTicket::new(id(), "a".repeat(longest)));
    let ticket = LiveTicket::new(crowded(9), "a".repeat(longest + 1));
    assert_eq!(
        ticket.check(),
        Err(ParseTicketError::TooLong(LiveTicket::MAX_LEN))
    );
    let received = LiveTicket::new(full(), "");
    assert_eq!(received.to_string(), format!("iroh-live:{FULL}/"));
    assert_eq!(received.check(), Err(ParseTicketError::NoName));

    let error = parse(&"x".repeat(5000)).unwrap_err();
    assert_eq!(error, ParseTicketError::TooLong(5000));
    let padded = format!("{}{}", LiveTicket::new(id(), "a"), "\n".repeat(5000));
    assert_eq!(parse(&padded), Ok(LiveTicket::new(id(), "a")));
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

#[test]
fn random_tickets_round_trip() {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    for _ in 0..500 {
        assert_round_trip(&random.ticket());
        assert_round_trip(&LiveTicket::new(id(), random.name(200)));
    }
}

/// Reading may fail but not panic, and what was read can be written and read again.
fn assert_sound(text: &str) -> bool {
    let result = parse(text);
    match &result {
        Ok(ticket) => {
            assert!(!ticket.name().is_empty());
            assert!(ticket.addr().relay_urls().count() >= ticket.relay_urls().len());
            let again = ticket.to_string();
            match ticket.check() {
                Ok(()) => assert_eq!(parse(&again).as_ref(), Ok(ticket), "{text:?}"),
                Err(error) => assert_eq!(error, ParseTicketError::TooLong(again.len())),
            }
        }
        Err(error) => assert!(error.to_string().len() > 40),
    }
    result.is_ok()
}

#[test]
fn no_text_makes_it_panic() {
    let mut random = Xorshift(0x0123_4567_89ab_cdef);
    let mut read = 0;
    for round in 0..4000 {
        let ticket = random.ticket();
        let mut text: Vec<char> = match round % 4 {
            0 => {
                let bytes = postcard::to_stdvec(ticket.addr()).unwrap();
                let name = ticket.name();
                format!("{name}@{}", BASE32_NOPAD_NOCASE.encode(&bytes))
                    .chars()
                    .collect()
            }
            _ => ticket.to_string().chars().collect(),
        };
        for _ in 0..=random.below(3) {
            let (at, to) = (random.below(text.len()), random.below(text.len()));
            match random.below(7) {
                0 => text[at] = random.char(),
                1 => text.insert(at, random.char()),
                2 => drop(text.remove(at)),
                3 => text.swap(at, to),
                4 => text.truncate(at.max(1)),
                5 => text[at] = ['%', '/', '?', '&', '=', '@', ':', '#'][random.below(8)],
                _ => text[at] = (b'A' + random.below(58) as u8) as char,
            }
            if text.is_empty() {
                text.push('i');
            }
        }
        read += usize::from(assert_sound(&String::from_iter(text)));
    }
    assert!((200..3800).contains(&read), "{read}");

    for _ in 0..4000 {
        let bytes: Vec<u8> = (0..random.below(300))
            .map(|_| random.next() as u8)
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        for start in [
            "",
            "iroh-live:",
            "iroh-live://",
            &format!("iroh-live:{FULL}/"),
        ] {
            assert_sound(&format!("{start}{text}"));
        }
    }
}

#[test]
fn no_address_makes_it_panic() {
    let mut random = Xorshift(0xfeed_beef_dead_cafe);
    let whole = BASE64URL_NOPAD.decode(FULL.as_bytes()).unwrap();
    for _ in 0..4000 {
        let mut bytes = whole.clone();
        match random.below(3) {
            // Anything at all behind an id.
            0 => {
                bytes.truncate(32);
                bytes.extend(
                    (0..random.below(60))
                        .map(|_| (random.next() >> (8 * random.below(8))) as u8 & 0x83),
                );
            }
            1 => bytes.truncate(random.below(whole.len())),
            _ => bytes[random.below(whole.len())] = random.next() as u8,
        }
        assert_sound(&format!("iroh-live:{}/a", BASE64URL_NOPAD.encode(&bytes)));
        assert_sound(&format!("a@{}", BASE32_NOPAD_NOCASE.encode(&bytes)));
    }
    // A count and a length far beyond what follows must not be believed.
    for count in [0x7f, 0xff_u8] {
        let bytes = [&whole[..32], &[count; 9], &[1]].concat();
        assert!(!assert_sound(&format!(
            "iroh-live:{}/a",
            BASE64URL_NOPAD.encode(&bytes)
        )));
    }
    for text in [
        LiveTicket::new(full(), "é台📷 \u{3000}").to_string(),
        format!("é台@{FULL_BASE32}"),
    ] {
        for (end, _) in text.char_indices() {
            assert_sound(&text[..end]);
            assert_sound(&text[end..]);
        }
    }
}
