//! Making the iroh endpoint that live media wants.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::BoxFuture;
use iroh::{
    Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey,
    endpoint::{BindError, BindOpts, Builder, InvalidSocketAddr, presets},
};

use crate::transport::{Limits, quic_config_with};

/// How often a port that is taken is tried, and how long to wait in between.
const BIND_ATTEMPTS: u32 = 11;
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// Which relay servers an endpoint uses to be reached through NATs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relays {
    /// The public ones that number 0 runs.
    #[default]
    Default,
    /// None: direct connections only, on a network where both sides see each other.
    Disabled,
    /// Those at these addresses.
    Custom(Vec<RelayUrl>),
}

/// How an endpoint finds the addresses of a peer whose ticket says only who it is, and lets itself be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressLookup {
    /// Through number 0's DNS servers, on the internet.
    pub dns: bool,
    /// Through multicast DNS, on the local network.
    pub mdns: bool,
}

/// What is set when an endpoint is made. The default is an endpoint that is reachable from anywhere.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// The identity; a new one each time if it is `None`.
    pub secret_key: Option<SecretKey>,
    /// Relays.
    pub relays: Relays,
    /// Address lookup.
    pub lookup: AddressLookup,
    /// The address to listen on instead of any address and any port.
    pub bind: Option<SocketAddr>,
    /// The port to listen on at all addresses, of IPv4 and, where the machine has it, of IPv6. [`bind`](Self::bind) goes
    /// before it.
    pub port: Option<u16>,
    /// What a peer can make this side keep, of what QUIC limits. Give the same to
    /// [`LiveBuilder::limits`](crate::LiveBuilder::limits).
    pub limits: Limits,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            secret_key: None,
            relays: Relays::Default,
            lookup: AddressLookup {
                dns: true,
                mdns: true,
            },
            bind: None,
            port: None,
            limits: Limits::default(),
        }
    }
}

/// An endpoint could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindEndpointError {
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: InvalidSocketAddr,
    },
    /// No socket could be opened; where an address was given, most often because its port is taken.
    #[error("no socket could be opened{}: {source}", .address.map(|a| format!(" on {a}")).unwrap_or_default())]
    Socket {
        /// The address that was asked for.
        address: Option<SocketAddr>,
        /// Why.
        source: BindError,
    },
}

impl EndpointConfig {
    /// An endpoint for tests and closed networks: no relay, no lookup, nothing leaves the addresses that are known. Peers
    /// need a ticket with addresses; set `lookup.mdns` where these change.
    pub fn local() -> Self {
        Self {
            relays: Relays::Disabled,
            lookup: AddressLookup::default(),
            ..Self::default()
        }
    }

    /// Opens the sockets. The endpoint has the [`quic_config`](crate::transport::quic_config) that live media wants; give it to
    /// [`Live::builder`](crate::Live::builder).
    ///
    /// A port that is taken is tried again for a second: an endpoint that was closed a moment ago, as by a program that
    /// starts anew, lets go of its sockets a little later. Cancel safe.
    ///
    /// # Errors
    /// See [`BindEndpointError`].
    pub async fn bind(self) -> Result<Endpoint, BindEndpointError> {
        let port = self.bind.map(|address| address.port()).or(self.port);
        let mut attempts = if port.is_some_and(|port| port != 0) {
            BIND_ATTEMPTS
        } else {
            1
        };
        loop {
            let bound: BoxFuture<'static, _> = Box::pin(self.clone().open());
            attempts -= 1;
            match bound.await {
                Err(BindEndpointError::Socket { .. }) if attempts > 0 => {
                    tokio::time::sleep(BIND_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn open(self) -> Result<Endpoint, BindEndpointError> {
        let mut builder = Builder::new(presets::Minimal)
            .transport_config(quic_config_with(&self.limits))
            .dns_resolver(crate::dns::resolver());
        if self.lookup.dns {
            builder = builder.preset(presets::N0);
        }
        builder = builder.relay_mode(match self.relays {
            Relays::Default => iroh::endpoint::default_relay_mode(),
            Relays::Disabled => RelayMode::Disabled,
            Relays::Custom(urls) => RelayMode::Custom(
                urls.into_iter()
                    .map(RelayConfig::from)
                    .collect::<RelayMap>(),
            ),
        });
        if self.lookup.mdns {
            builder =
                builder.address_lookup(iroh_mdns_address_lookup::MdnsAddressLookup::builder());
        }
        if let Some(key) = self.secret_key {
            builder = builder.secret_key(key);
        }
        let everywhere = self.bind.is_none().then_some(self.port).flatten();
        let address =
            everywhere.map_or(self.bind, |port| Some((Ipv4Addr::UNSPECIFIED, port).into()));
        if let Some(address) = address {
            builder = builder
                .clear_ip_transports()
                .bind_addr(address)
                .map_err(|source| BindEndpointError::Address { address, source })?;
        }
        if let Some(port) = everywhere {
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            // Not every machine has it.
            let options = BindOpts::default().set_is_required(false);
            builder = builder
                .bind_addr_with_opts(address, options)
                .map_err(|source| BindEndpointError::Address { address, source })?;
        }
        builder
            .bind()
            .await
            .map_err(|source| BindEndpointError::Socket { address, source })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn a_port_without_an_address_is_one_of_all_addresses() {
        let has_ipv6 = UdpSocket::bind("[::]:0").is_ok();
        let free = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut config = EndpointConfig::local();
        config.port = Some(port);
        let endpoint = config.bind().await.unwrap();
        let bound = endpoint.bound_sockets();
        assert!(
            bound.contains(&(Ipv4Addr::UNSPECIFIED, port).into()),
            "{bound:?}"
        );
        assert!(
            !has_ipv6 || bound.contains(&(Ipv6Addr::UNSPECIFIED, port).into()),
            "{bound:?}"
        );
        endpoint.close().await;
    }
}
