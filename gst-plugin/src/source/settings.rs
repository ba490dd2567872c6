//! The properties that a user sets.

use std::{sync::LazyLock, time::Duration};

use gst::{glib, prelude::*};
use iroh_live::{LiveTicket, media::receive::feed::MIN_AGE};

use super::{
    pads::Latency,
    uri::{OPTIONS, Options},
};
use crate::settings::NetworkSettings;

const DEFAULT_LATENCY: u32 = 200;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) network: NetworkSettings,
    /// As it was set, with its options.
    pub(super) ticket: Option<String>,
    /// Milliseconds, as are the next two.
    latency: u32,
    max_lag: u32,
    timeout: u32,
    /// What is wrong with the options of the ticket. Said when the element starts, where an application looks for errors.
    bad_option: Option<String>,
    /// What the options of the ticket have replaced, as text: the next ticket does not inherit them.
    replaced: Vec<(&'static str, String)>,
    unknown_options: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            network: NetworkSettings::default(),
            ticket: None,
            latency: DEFAULT_LATENCY,
            max_lag: 0,
            timeout: 0,
            bad_option: None,
            replaced: Vec::new(),
            unknown_options: Vec::new(),
        }
    }
}

impl Settings {
    pub(super) fn properties() -> Vec<glib::ParamSpec> {
        let blurb = format!(
            "The ticket to watch, as irohlivesink gives it out: iroh-live:…/name. ticket and uri are the same. Options may follow, as in iroh-live:…/name?latency=50&relay-mode=disabled; each sets the property of its name: {}. If unset: the element does not start",
            OPTIONS.join(", ")
        );
        let ticket = |name, nick| {
            glib::ParamSpecString::builder(name)
                .nick(nick)
                .blurb(&blurb)
                .mutable_ready()
                .build()
        };
        let mut properties = vec![
            ticket("ticket", "Ticket"),
            ticket("uri", "URI"),
            glib::ParamSpecUInt::builder("latency")
                .nick("Latency")
                .blurb("Jitter budget in milliseconds (not nanoseconds, as the LATENCY query and stats have them): how much later than on time a frame may come and still be played in sync")
                .default_value(DEFAULT_LATENCY)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("max-lag")
                .nick("Maximum lag")
                .blurb("How far in milliseconds a group of pictures may fall behind before it is skipped to the next key frame (0: as far as latency); a pipeline that is slower than the stream may fall a second further behind")
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("timeout")
                .nick("Timeout")
                .blurb("After how many milliseconds without the broadcast to post an error instead of trying again (0: never)")
                .mutable_ready()
                .build(),
        ];
        properties.extend(NetworkSettings::properties());
        properties
    }

    /// Sets a property. Gives the names of others that have changed with it.
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) -> Vec<&'static str> {
        match name {
            "ticket" | "uri" => {
                let mut changed = self.set_ticket(value.get().ok().flatten());
                changed.retain(|other| *other != name);
                changed
            }
            name => {
                self.replaced.retain(|(replaced, _)| *replaced != name);
                self.set_value(name, value);
                Vec::new()
            }
        }
    }

    fn set_value(&mut self, name: &str, value: &glib::Value) {
        let number = || value.get::<u32>().unwrap_or_default();
        match name {
            "latency" => self.latency = number(),
            "max-lag" => self.max_lag = number(),
            "timeout" => self.timeout = number(),
            name => {
                self.network.set(name, value);
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        match name {
            "ticket" | "uri" => Some(self.ticket.to_value()),
            "latency" => Some(self.latency.to_value()),
            "max-lag" => Some(self.max_lag.to_value()),
            "timeout" => Some(self.timeout.to_value()),
            name => self.network.get(name),
        }
    }

    /// Takes a ticket with its options, in place of those of the one before. Gives the names of the properties that may
    /// have changed.
    pub(super) fn set_ticket(&mut self, ticket: Option<String>) -> Vec<&'static str> {
        let options = ticket.as_deref().map(Options::of).unwrap_or_default();
        self.ticket = ticket;
        self.unknown_options = options.unknown;
        self.bad_option = None;
        let mut changed = vec!["ticket", "uri"];
        for (name, text) in std::mem::take(&mut self.replaced) {
            if let Some(value) = value(name, &text) {
                self.set_value(name, &value);
                changed.push(name);
            }
        }
        for (name, text) in options.known {
            let before = self.get(name).and_then(|value| value.serialize().ok());
            let (Some(value), Some(before)) = (value(name, &text), before) else {
                self.bad_option = Some(format!(
                    "The option {name}={text} of the ticket cannot be read: see the property {name} for what it may be"
                ));
                continue;
            };
            // An option may be there twice.
            if !self.replaced.iter().any(|(replaced, _)| *replaced == name) {
                self.replaced.push((name, before.into()));
            }
            self.set_value(name, &value);
            if !changed.contains(&name) {
                changed.push(name);
            }
        }
        changed
    }

    /// The ticket, read.
    pub(super) fn ticket(&self) -> Result<LiveTicket, gst::ErrorMessage> {
        let text = self.ticket.as_deref().unwrap_or_default();
        if text.trim().is_empty() {
            return Err(gst::error_msg!(
                gst::ResourceError::NotFound,
                ("No ticket: set the property ticket to what irohlivesink printed (iroh-live:…/name)")
            ));
        }
        let ticket = text.parse().map_err(|error| {
            gst::error_msg!(
                gst::ResourceError::NotFound,
                ("The ticket cannot be read: {error}")
            )
        })?;
        match &self.bad_option {
            Some(error) => Err(gst::error_msg!(gst::ResourceError::Settings, ("{error}"))),
            None => Ok(ticket),
        }
    }

    /// What is to be said of options that mean nothing here: somebody mistyped them, or they are of a later version.
    pub(super) fn warning(&self) -> Option<String> {
        if self.unknown_options.is_empty() {
            return None;
        }
        Some(format!(
            "Options of the ticket that are not known are passed over: {}. Known ones are: {}",
            self.unknown_options.join(", "),
            OPTIONS.join(", ")
        ))
    }

    pub(super) fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.latency.into())
    }

    /// How far a group may fall behind before it is skipped.
    pub(super) fn max_age(&self) -> Duration {
        let lag = if self.max_lag == 0 {
            self.latency
        } else {
            self.max_lag
        };
        Duration::from_millis(lag.into()).max(MIN_AGE)
    }

    pub(super) fn of_pads(&self) -> Latency {
        let max_lag = u64::try_from(self.max_age().as_nanos()).unwrap_or(u64::MAX);
        Latency {
            latency: self.latency(),
            max_lag: gst::ClockTime::from_nseconds(max_lag),
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| Duration::from_millis(self.timeout.into()))
    }
}

/// The value of a property from its text; none if it is not one.
fn value(name: &str, text: &str) -> Option<glib::Value> {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(Settings::properties);
    let spec = PROPERTIES.iter().find(|spec| spec.name() == name)?;
    if spec.value_type() == glib::Type::STRING {
        return Some(text.to_value());
    }
    glib::Value::deserialize(text, spec.value_type()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Settings {
        gst::init().unwrap();
        let mut settings = Settings::default();
        settings.set_ticket(Some(uri.to_owned()));
        settings
    }

    const TICKET: &str =
        "iroh-live:5866666666666666666666666666666666666666666666666666666666666666/garden";

    #[test]
    fn options_of_the_ticket_set_properties() {
        let settings = of(&format!(
            "{TICKET}?latency=50&timeout=7000&max-lag=900&relay-mode=disabled&address-lookup=none"
        ));
        assert_eq!(settings.latency(), gst::ClockTime::from_mseconds(50));
        assert_eq!(settings.timeout(), Some(Duration::from_secs(7)));
        assert_eq!(settings.max_age(), Duration::from_millis(900));
        let text = |name: &str| {
            let value = settings.get(name).unwrap();
            value.serialize().unwrap().to_string()
        };
        assert_eq!(text("relay-mode"), "disabled");
        assert_eq!(text("address-lookup"), "none");
        assert_eq!(settings.ticket().unwrap().name(), "garden");
        assert_eq!(settings.warning(), None);
    }

    #[test]
    fn the_next_ticket_does_not_inherit_the_options_of_the_one_before() {
        gst::init().unwrap();
        let mut settings = Settings::default();
        settings.set("timeout", &3000_u32.to_value());
        let options = "latency=50&latency=60&timeout=7000&max-lag=900&relay-mode=disabled";
        let first = format!("{TICKET}?{options}");
        let changed = settings.set("ticket", &first.to_value());
        assert_eq!(
            changed,
            ["uri", "latency", "timeout", "max-lag", "relay-mode"]
        );
        assert_eq!(settings.latency(), gst::ClockTime::from_mseconds(60));
        // What the user sets is the user's from then on.
        settings.set("max-lag", &800_u32.to_value());
        let changed = settings.set("uri", &TICKET.to_value());
        assert_eq!(changed, ["ticket", "latency", "timeout", "relay-mode"]);
        assert_eq!(settings.latency(), Settings::default().latency());
        assert_eq!(settings.timeout(), Some(Duration::from_secs(3)));
        assert_eq!(settings.max_age(), Duration::from_millis(800));
        let relays = settings.get("relay-mode").unwrap();
        assert_eq!(relays.serialize().unwrap(), "default");
    }

    #[test]
    fn a_ticket_of_a_stranger_says_neither_where_to_listen_nor_which_relays_are_ours() {
        for option in ["bind-address=:22", "relay-urls=http://localhost:8080"] {
            let settings = of(&format!("{TICKET}?{option}"));
            let (name, _) = option.split_once('=').unwrap();
            assert_eq!(settings.get(name).unwrap().get::<Option<&str>>(), Ok(None));
            assert!(settings.warning().unwrap().contains(name));
        }
    }

    #[test]
    fn an_option_that_is_no_value_is_an_error_and_an_unknown_one_is_spoken_of() {
        let bad = of(&format!("{TICKET}?latency=soon"));
        let error = format!("{:?}", bad.ticket().unwrap_err());
        assert!(error.contains("latency=soon"), "{error}");
        let unknown = of(&format!("{TICKET}?latncy=50")).warning().unwrap();
        assert!(
            unknown.contains("latncy") && unknown.contains("max-lag"),
            "{unknown}"
        );
    }

    #[test]
    fn without_latency_packets_may_still_overtake_each_other() {
        assert_eq!(of(&format!("{TICKET}?latency=0")).max_age(), MIN_AGE);
    }
}
