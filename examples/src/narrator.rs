//! The state of the connection in plain words.

/// Puts what irohlivesrc is at into words, without repeating itself while it tries again and again.
#[derive(Debug, Default)]
pub struct Narrator {
    was_connected: bool,
    without_connection: bool,
}

impl Narrator {
    /// What to say, if anything, when the property `status` takes this value.
    pub fn says(&mut self, status: &str) -> Option<&'static str> {
        match status {
            "connecting" if !self.without_connection => {
                self.without_connection = true;
                Some("Connecting to the publisher.")
            }
            "connected" => {
                self.without_connection = false;
                let again = std::mem::replace(&mut self.was_connected, true);
                Some(if again {
                    "Connected again."
                } else {
                    "Connected."
                })
            }
            // The element warns on the bus, with the reason.
            "reconnecting" => {
                let told = std::mem::replace(&mut self.without_connection, true);
                (!told).then_some("Reconnecting.")
            }
            "ended" => Some("The publisher ended the broadcast."),
            _ => None,
        }
    }
}

/// What to say, if anything, after so many seconds without a frame: the connection may be about to come back.
pub fn of_silence(seconds: u32) -> Option<String> {
    match seconds {
        3 => Some("Nothing has come for 3 s.".into()),
        10 => Some(
            "Nothing has come for 10 s. Whoever publishes may have been started anew and have a new ticket; with the \
             same identity it goes on here by itself."
                .into(),
        ),
        _ if seconds.is_multiple_of(30) => Some(format!("Nothing has come for {seconds} s.")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_spoken_of_less_and_less_often_and_the_new_ticket_once() {
        let said: Vec<_> = (1..=90).filter_map(of_silence).collect();
        assert_eq!(said.len(), 5, "{said:?}");
        let hints = said.iter().filter(|line| line.contains("new ticket"));
        assert_eq!(hints.count(), 1);
    }

    #[test]
    fn attempts_to_reconnect_are_told_once() {
        let mut narrator = Narrator::default();
        let mut says = |status| narrator.says(status).is_some();
        assert!(says("connecting"));
        assert!(!says("waiting"));
        assert!(says("connected"));
        assert!(says("reconnecting"));
        assert!(!says("connecting"));
        assert!(!says("reconnecting"));
        assert_eq!(narrator.says("connected"), Some("Connected again."));
    }
}
