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

#[cfg(test)]
mod tests {
    use super::*;

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
