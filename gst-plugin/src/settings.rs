//! What both elements let a user set of the network: identity, relays, address lookup.

use std::net::SocketAddr;

use gst::{glib, prelude::*};
use iroh_live::{
    endpoint::{AddressLookup, EndpointConfig, Relays},
    iroh::RelayUrl,
    transport::Limits,
    util::{SECRET_ENV, SecretKeyError, parse_secret_key, secret_key_from_file, secret_key_in_env},
};

use crate::endpoint::{Identity, OpenEndpoint, Role};

/// Which relay servers help to get through NATs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveRelayMode")]
pub enum RelayMode {
    /// Number 0's public relays.
    #[default]
    #[enum_value(name = "The public relays of number 0", nick = "default")]
    Default,
    /// Direct connections only.
    #[enum_value(name = "No relay: direct connections only", nick = "disabled")]
    Disabled,
    /// Those in `relay-urls`.
    #[enum_value(name = "The relays in relay-urls", nick = "custom")]
    Custom,
}

/// How peers are found whose ticket says only who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstIrohLiveAddressLookup")]
pub enum Lookup {
    /// Not at all.
    #[enum_value(name = "None: only the addresses in the ticket", nick = "none")]
    None,
    /// DNS.
    #[enum_value(name = "DNS, on the internet", nick = "dns")]
    Dns,
    /// Multicast DNS.
    #[enum_value(name = "Multicast DNS, on the local network", nick = "mdns")]
    Mdns,
    /// Both.
    #[default]
    #[enum_value(name = "DNS and multicast DNS", nick = "all")]
    All,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkSettings {
    secret_key: Option<String>,
    secret_key_location: Option<String>,
    relay_mode: RelayMode,
    relay_urls: Option<String>,
    bind_address: Option<String>,
    address_lookup: Lookup,
}

impl NetworkSettings {
    pub(crate) fn properties() -> Vec<glib::ParamSpec> {
        vec![
            glib::ParamSpecString::builder("secret-key")
                .nick("Secret key")
                .blurb("The identity of this end, 64 hexadecimal digits, by which a publisher is found and a viewer is known. If unset: secret-key-location, then the environment variable IROH_SECRET, then a new one each time. Elements of one process cannot have the same; an irohlivesrc then leaves that of the environment to the others. Cannot be read back")
                .write_only()
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("secret-key-location")
                .nick("Secret key location")
                .blurb("A file with the identity, made with mode 0600 if it does not exist, so that the ticket stays the same. Read if secret-key is unset. If both are unset: the environment variable IROH_SECRET, then a new identity each time")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder::<RelayMode>("relay-mode")
                .nick("Relay mode")
                .blurb("Which relay servers help to get through NATs and carry what cannot go directly, end-to-end encrypted")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("relay-urls")
                .nick("Relay URLs")
                .blurb("Relay servers for relay-mode=custom, separated by commas. Setting it sets relay-mode=custom. If unset: the servers that relay-mode stands for, and custom has none to use and is an error")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("bind-address")
                .nick("Bind address")
                .blurb("Local address to listen on, ADDRESS:PORT, :PORT or [IPV6]:PORT. If unset: all addresses, any free port")
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("address-lookup", Lookup::All)
                .nick("Address lookup")
                .blurb("How to find a peer whose addresses changed since the ticket was made, and to let oneself be found")
                .mutable_ready()
                .build(),
        ]
    }

    /// Sets the property if it is one of these.
    pub(crate) fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        let text = || {
            value
                .get::<Option<String>>()
                .ok()
                .flatten()
                .filter(|text| !text.trim().is_empty())
        };
        match name {
            "secret-key" => self.secret_key = text(),
            "secret-key-location" => self.secret_key_location = text(),
            "relay-mode" => self.relay_mode = value.get().unwrap_or_default(),
            "relay-urls" => {
                self.relay_urls = text();
                if self.relay_urls.is_some() {
                    self.relay_mode = RelayMode::Custom;
                }
            }
            "bind-address" => self.bind_address = text(),
            "address-lookup" => self.address_lookup = value.get().unwrap_or_default(),
            _ => return false,
        }
        true
    }

    pub(crate) fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "secret-key-location" => self.secret_key_location.to_value(),
            "relay-mode" => self.relay_mode.to_value(),
            "relay-urls" => self.relay_urls.to_value(),
            "bind-address" => self.bind_address.to_value(),
            "address-lookup" => self.address_lookup.to_value(),
            _ => return None,
        })
    }

    /// Opens the endpoint and starts the transport, with these limits to what peers may do. Blocks for as long as opening
    /// sockets takes; the network is not waited for.
    pub(crate) fn open(
        &self,
        role: Role,
        limits: Limits,
    ) -> Result<OpenEndpoint, gst::ErrorMessage> {
        let mut config = self.endpoint_config()?;
        config.limits = limits;
        OpenEndpoint::open(config, self.identity()?, role)
    }

    fn endpoint_config(&self) -> Result<EndpointConfig, gst::ErrorMessage> {
        let mut config = EndpointConfig::default();
        config.relays = match self.relay_mode {
            RelayMode::Default => Relays::Default,
            RelayMode::Disabled => Relays::Disabled,
            RelayMode::Custom => Relays::Custom(self.relays()?),
        };
        config.lookup = AddressLookup {
            dns: matches!(self.address_lookup, Lookup::Dns | Lookup::All),
            mdns: matches!(self.address_lookup, Lookup::Mdns | Lookup::All),
        };
        match self.bind_address.as_deref().map(parse_bind).transpose()? {
            Some(Bind::Address(address)) => config.bind = Some(address),
            Some(Bind::Port(port)) => config.port = Some(port),
            None => {}
        }
        Ok(config)
    }

    fn relays(&self) -> Result<Vec<RelayUrl>, gst::ErrorMessage> {
        let urls = self.relay_urls.as_deref().unwrap_or_default();
        let urls = urls
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
            .map(|url| {
                url.parse().map_err(|error| {
                    gst::error_msg!(
                        gst::ResourceError::Settings,
                        ("relay-urls: {url:?} is not a URL ({error}); one looks like https://relay.example.com")
                    )
                })
            })
            .collect::<Result<Vec<RelayUrl>, _>>()?;
        if urls.is_empty() {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("relay-mode=custom needs relay-urls, for example relay-urls=https://relay.example.com")
            ));
        }
        Ok(urls)
    }

    fn identity(&self) -> Result<Identity, gst::ErrorMessage> {
        let (from, identity) = if let Some(text) = &self.secret_key {
            {
                let from = "secret-key";
                let key = parse_secret_key(text);
                (from, key.map(|key| Identity::Set(key, from)))
            }
        } else if let Some(path) = &self.secret_key_location {
            let key = secret_key_from_file(path);
            let from = "secret-key-location";
            (from, key.map(|key| Identity::Set(key, from)))
        } else {
            let key = secret_key_in_env();
            let identity = key.map(|key| key.map_or(Identity::New, Identity::Environment));
            (SECRET_ENV, identity)
        };
        identity.map_err(|error| match error {
            SecretKeyError::File { .. } => {
                gst::error_msg!(gst::ResourceError::Read, ("{from}: {error}"))
            }
            error => gst::error_msg!(gst::ResourceError::Settings, ("{from}: {error}")),
        })
    }
}

/// Where to listen.
#[derive(Debug, PartialEq, Eq)]
enum Bind {
    Address(SocketAddr),
    /// At all addresses.
    Port(u16),
}

/// `ADDRESS:PORT`, or `:PORT` for all addresses.
fn parse_bind(text: &str) -> Result<Bind, gst::ErrorMessage> {
    let text = text.trim();
    let bind = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(Bind::Port),
        None => text.parse().ok().map(Bind::Address),
    };
    bind.ok_or_else(|| {
        gst::error_msg!(
            gst::ResourceError::Settings,
            ("bind-address: {text:?} is not an address; write 0.0.0.0:4433, :4433 or [::]:4433")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_addresses_are_read_with_and_without_a_host() {
        assert_eq!(parse_bind(":4433").unwrap(), Bind::Port(4433));
        let address = |text: &str| Bind::Address(text.parse().unwrap());
        assert_eq!(parse_bind("[::1]:1").unwrap(), address("[::1]:1"));
        assert_eq!(parse_bind("127.0.0.1:0").unwrap(), address("127.0.0.1:0"));
        assert!(parse_bind("example.com").is_err());
        assert!(parse_bind(":70000").is_err());
    }
}
