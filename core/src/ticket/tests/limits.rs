//! How long a ticket may be, and how much it may name.

use super::*;

/// An address with a relay and `count` direct addresses, of which each takes nine bytes.
fn crowded(count: u32) -> EndpointAddr {
    let direct =
        (0..count).map(|n| TransportAddr::Ip(([10, 1, (n >> 8) as u8, n as u8], 50_000).into()));
    let relay = "https://relay.example.org".parse().unwrap();
    EndpointAddr::new(id())
        .with_relay_url(relay)
        .with_addrs(direct)
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
