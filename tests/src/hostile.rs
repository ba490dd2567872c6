//! Peers that want nothing good. They speak real QUIC, and MoQ by hand, in the words of `moq-lite-03`.

mod dialer;
mod publisher;

use std::{net::SocketAddr, time::Duration};

use iroh_live::{
    LiveTicket,
    iroh::{
        Endpoint, RelayMode,
        endpoint::{Connection, ConnectionError, QuicTransportConfig, presets},
    },
};
use tokio::runtime::Runtime;

/// Runs an attack by its name and does not return. See the program `hostile`.
///
/// # Panics
/// If there is no such attack, or it cannot begin.
pub fn run(attack: &str, target: &str) {
    let runtime = Runtime::new().expect("there are threads");
    runtime.block_on(async {
        match target.parse::<LiveTicket>() {
            Ok(ticket) => dialer::attack(attack, &ticket).await,
            Err(_) => publisher::attack(attack, target).await,
        }
        println!("done");
        std::future::pending::<()>().await;
    });
}

/// An endpoint of a new identity on the loopback interface.
async fn endpoint(config: QuicTransportConfig) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .transport_config(config)
        .clear_ip_transports()
        .bind_addr(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("the address is one")
        .bind()
        .await
        .expect("the loopback interface has free ports")
}

/// As many streams, and as much data, as the other side likes.
fn generous() -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(100_000_u32.into())
        .max_concurrent_uni_streams(100_000_u32.into())
        .max_idle_timeout(Some(idle_timeout()))
        .keep_alive_interval(Duration::from_secs(1))
        .build()
}

fn idle_timeout() -> iroh_live::iroh::endpoint::IdleTimeout {
    Duration::from_secs(30).try_into().expect("it is short")
}

/// Says how the other side ended a connection.
fn say_closed(error: &ConnectionError) {
    match error {
        ConnectionError::ApplicationClosed(close) => println!(
            "closed: {:#x} {}",
            close.error_code.into_inner(),
            String::from_utf8_lossy(&close.reason)
        ),
        error => println!("closed: {error}"),
    }
}

/// Waits until the other side ends the connection, or it seems that it will not.
async fn wait_closed(connection: &Connection) {
    match tokio::time::timeout(Duration::from_secs(2), connection.closed()).await {
        Ok(error) => say_closed(&error),
        Err(_) => println!("not closed"),
    }
}
