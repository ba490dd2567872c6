//! Live media beside another protocol, on one endpoint and one router.
//!
//!     cargo run --release -p iroh-live --example beside
//!
//! The other protocol is as small as can be: it says what was said to it. The program then is its own first viewer and
//! its own first guest.

use anyhow::{Context, Result};
use iroh_live::{
    Live, LocalBroadcast,
    endpoint::EndpointConfig,
    iroh::{
        endpoint::Connection,
        protocol::{AcceptError, ProtocolHandler, Router},
    },
    media::{AudioCodec, AudioPreset, AudioSource},
};

const ECHO: &[u8] = b"example/echo/0";

#[derive(Debug)]
struct Echo;

impl ProtocolHandler for Echo {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let said = receive
            .read_to_end(1024)
            .await
            .map_err(AcceptError::from_err)?;
        send.write_all(&said).await.map_err(AcceptError::from_err)?;
        send.finish()?;
        connection.closed().await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    // An endpoint and a router of one's own: the program, not `Live`, decides what is served.
    let endpoint = EndpointConfig::default().bind().await?;
    let live = Live::builder(endpoint.clone()).spawn();
    let router = live.register_protocols(Router::builder(endpoint));
    let router = router.accept(ECHO, Echo);
    let router = router.spawn();

    let broadcast = LocalBroadcast::new();
    broadcast
        .audio()
        .set(AudioSource::test(), AudioCodec::Opus, [AudioPreset::Lq])?;
    live.publish("tone", &broadcast)?;

    let guest = Live::builder(EndpointConfig::default().bind().await?).spawn();
    let subscription = guest.subscribe(router.endpoint().addr(), "tone").await?;
    let mut catalog = subscription.broadcast().catalog().await?;
    let catalog = catalog.next().await?.context("the broadcast has ended")?;
    println!("live media: {:?}", catalog.audio.renditions.keys());

    let connection = guest
        .endpoint()
        .connect(router.endpoint().addr(), ECHO)
        .await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"hello").await?;
    send.finish()?;
    println!(
        "echo: {}",
        String::from_utf8_lossy(&receive.read_to_end(1024).await?)
    );

    guest.shutdown().await;
    live.shutdown().await;
    router.shutdown().await?;
    Ok(())
}
