//! What is no ticket, and what is said of it.

use super::*;
use ParseTicketError::*;

/// Each text is refused with its error, which says what is wrong and, behind a colon, what to do about it.
#[track_caller]
fn assert_refused(texts: impl IntoIterator<Item = (String, ParseTicketError)>) {
    for (text, error) in texts {
        assert_eq!(parse(&text), Err(error.clone()), "{text}");
        let message = error.to_string();
        let advice = message.rsplit_once(": ").unwrap().1;
        let has_advice = ["copy", "correct", "one begins with"]
            .iter()
            .any(|a| advice.starts_with(a));
        assert!(has_advice, "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn an_address_that_is_none() {
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

    assert_refused([
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
        (format!("iroh-live:/{FULL}/a"), Garbled),
    ]);
}

#[test]
fn names_and_relays_that_are_none() {
    assert_refused([
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
    ]);
}

#[test]
fn texts_of_another_kind() {
    assert_refused([
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
    ]);
}

#[test]
fn characters_that_are_mistyped() {
    assert_refused([
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
    ]);
}

#[test]
fn what_was_found_is_written_so_that_it_fits_a_line() {
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
