//! Shows a ticket, so that it can be copied, or read with a telephone.

use std::io::IsTerminal;

use anyhow::Result;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use crate::say;

/// A code that is wider than this would wrap on many terminals, and be of no use.
const WIDEST: usize = 100;

/// Prints the ticket, alone on its line, and a QR code of it where there is a terminal.
///
/// The ticket goes to standard output, all that is for people only to standard error.
pub fn show(ticket: &str) -> Result<()> {
    eprintln!("\nThe ticket:\n");
    say(ticket)?;
    eprintln!();
    if !std::io::stderr().is_terminal() {
        eprintln!("(A terminal would show a QR code of it here.)");
    } else if let Some(code) = qr(ticket) {
        eprintln!("{code}");
    } else {
        eprintln!("(It is too long for a QR code on a terminal.)");
    }
    Ok(())
}

/// The ticket as a QR code of half blocks, or nothing if it would be too wide.
fn qr(ticket: &str) -> Option<String> {
    // The least error correction: a screen has no scratches, and a smaller code is easier to read.
    let code = QrCode::with_error_correction_level(ticket, EcLevel::L).ok()?;
    let picture = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    if picture.lines().next()?.chars().count() > WIDEST {
        return None;
    }
    // White blocks on black, whatever the colours of the terminal are: scanners want dark on light.
    let lines = picture
        .lines()
        .map(|line| format!("\x1b[97;40m{line}\x1b[0m\n"));
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_ticket_fits_on_a_terminal() {
        let ticket = format!("iroh-live:{}/test-card", "A".repeat(150));
        let code = qr(&ticket).unwrap();
        let line = code.lines().next().unwrap();
        assert!(line.starts_with("\x1b[97;40m") && line.ends_with("\x1b[0m"));
        assert!(
            line.chars()
                .filter(|c| ['█', '▀', '▄', ' '].contains(c))
                .count()
                <= 80
        );
    }

    #[test]
    fn a_ticket_that_is_too_long_gets_no_code() {
        assert_eq!(qr(&"A".repeat(1900)), None);
    }
}
