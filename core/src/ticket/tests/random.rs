//! Tickets and texts made by chance, the same ones at every run.

use super::*;

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
