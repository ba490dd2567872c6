//! What a user sets of the sink.

use std::path::PathBuf;

use gst::{glib, prelude::*};
use iroh_live::transport::Limits;

use crate::settings::NetworkSettings;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) network: NetworkSettings,
    pub(super) broadcast: Option<String>,
    pub(super) ticket_location: Option<PathBuf>,
    pub(super) sync: bool,
    /// 0 for the library's default.
    max_subscribers: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            network: NetworkSettings::default(),
            broadcast: None,
            ticket_location: None,
            sync: true,
            max_subscribers: 0,
        }
    }
}

impl Settings {
    pub(super) fn properties() -> Vec<glib::ParamSpec> {
        let mut properties = vec![
                glib::ParamSpecString::builder("broadcast")
                    .nick("Broadcast")
                    .blurb("Name of the broadcast, a part of the ticket. If unset: the element's name")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("ticket-location")
                    .nick("Ticket location")
                    .blurb("A file that the ticket is written to, again each time that it changes. If unset: none; the ticket is in the property ticket and in messages on the bus")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("sync")
                    .nick("Sync")
                    .blurb("Wait on the clock before sending, so that a file takes as long as it lasts. What comes from a live source is sent at once in either case")
                    .default_value(true)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("max-subscribers")
                    .nick("Maximum of subscribers")
                    .blurb(&format!("How many viewers may be connected at once; one more is told that there is no place, and tries again. Connections are counted: a viewer that was cut off counts until it has timed out. Each costs about 200 kB, and what the network sends to it. 0: as many as the library takes, {}", Limits::default().connections))
                    .mutable_ready()
                    .build(),
            ];
        properties.extend(NetworkSettings::properties());
        properties
    }

    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        let text = || {
            value
                .get::<Option<String>>()
                .ok()
                .flatten()
                .filter(|text| !text.is_empty())
        };
        match name {
            "broadcast" => self.broadcast = text(),
            "ticket-location" => self.ticket_location = text().map(Into::into),
            "sync" => self.sync = value.get().unwrap_or(true),
            "max-subscribers" => self.max_subscribers = value.get().unwrap_or_default(),
            name => {
                self.network.set(name, value);
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<glib::Value> {
        match name {
            "ticket-location" => Some(
                self.ticket_location
                    .as_ref()
                    .map(|path| path.to_string_lossy().into_owned())
                    .to_value(),
            ),
            "sync" => Some(self.sync.to_value()),
            "max-subscribers" => Some(self.max_subscribers.to_value()),
            name => self.network.get(name),
        }
    }

    /// What viewers may do.
    pub(super) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if self.max_subscribers > 0 {
            limits.connections = usize::try_from(self.max_subscribers).unwrap_or(usize::MAX);
        }
        limits
    }
}
