//! Tickets: what can be read is written so that it is read as the same.
#![no_main]

use iroh_live::LiveTicket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(ticket) = text.parse::<LiveTicket>() else {
        return;
    };
    if ticket.check().is_ok() {
        let written = ticket.to_string();
        assert!(written.len() <= LiveTicket::MAX_LEN, "{written}");
        let again = written.parse::<LiveTicket>();
        assert_eq!(again.as_ref(), Ok(&ticket), "{written}");
    }
});
