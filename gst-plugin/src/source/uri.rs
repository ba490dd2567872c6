//! Options behind the question mark of a ticket.

use percent_encoding::percent_decode_str;

/// The properties that can be set by the URI. It may come from a stranger: what it can make this machine contact or listen
/// on is in the ticket itself, which has limits.
pub(super) const OPTIONS: [&str; 5] = [
    "latency",
    "max-lag",
    "timeout",
    "relay-mode",
    "address-lookup",
];

/// What belongs to the ticket itself.
const OF_THE_TICKET: &str = "relay";

/// What stands behind the question mark.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Properties and their values as text, in their order.
    pub(super) known: Vec<(&'static str, String)>,
    /// The names of those that mean nothing here.
    pub(super) unknown: Vec<String>,
}

impl Options {
    pub(super) fn of(uri: &str) -> Self {
        let mut options = Self::default();
        let (_, query) = uri.split_once('?').unwrap_or((uri, ""));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name == OF_THE_TICKET {
                continue;
            }
            match OPTIONS.into_iter().find(|option| *option == name) {
                Some(option) => options
                    .known
                    .push((option, percent_decode_str(value).decode_utf8_lossy().into())),
                None => options.unknown.push(name.to_owned()),
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_from_what_belongs_to_the_ticket_and_from_what_is_unknown() {
        let uri = "iroh-live:AbC/garden?relay=https%3A%2F%2Fone.example&latency=50&relay-mode=disabled&latncy=7&x&relay-urls=https%3A%2F%2Ftwo.example&bind-address=:22";
        let options = Options::of(uri);
        let known = [
            ("latency", "50".to_owned()),
            ("relay-mode", "disabled".to_owned()),
        ];
        assert_eq!(options.known, known);
        assert_eq!(
            options.unknown,
            ["latncy", "x", "relay-urls", "bind-address"]
        );
    }

    #[test]
    fn a_ticket_without_options_has_none() {
        for uri in ["iroh-live:AbC/garden", "iroh-live:AbC/garden?", ""] {
            assert_eq!(Options::of(uri), Options::default());
        }
    }
}
