//! Publishers that are not there, and peers that want nothing good.

use std::time::Duration;

use gst::prelude::*;
use iroh_live::{
    LiveTicket,
    endpoint::EndpointConfig,
    iroh::{Endpoint, EndpointAddr, endpoint::Connection},
    transport::alpns,
};
use iroh_live_tests::{Publisher, Viewer, free_port, secret_key, start, ticket_of};
use tokio::runtime::Runtime;

use super::{VIDEO, noise, says, source_failure};

#[test]
fn a_broadcast_that_the_publisher_does_not_have() {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "{VIDEO} ! SINK broadcast=garden secret-key={}",
        secret_key(20)
    ));
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{}", free_port()));
    publisher.pipe.play();
    let ticket = publisher.ticket();
    assert!(ticket.ends_with("/garden"), "{ticket}");
    let wrong = ticket.replace("/garden", "/gadren");
    let viewer = Viewer::start(&wrong);
    let warning = viewer.pipe.wait_warning("gadren");
    assert!(warning.contains("It has: garden"), "{warning}");
    assert_eq!(viewer.pipe.state(), gst::State::Playing);
    // With a limit it is an error.
    let error = source_failure(Some(&wrong), "timeout=500");
    says(&error, gst::ResourceError::NotFound, &["gadren", "timeout"]);
    // The one without is still waiting when it appears.
    assert!(viewer.pipe.error().is_none());
    publisher.pipe.stop();
    publisher.sink.set_property("broadcast", "gadren");
    publisher.pipe.play();
    viewer.wait_frames("video_0", 5);
}

#[test]
fn a_publisher_that_is_not_there() {
    let _test = start();
    let (key, port) = (secret_key(21), free_port());
    let viewer = Viewer::start(&ticket_of(&key, port));
    assert_eq!(viewer.pipe.state(), gst::State::Playing);
    let warning = viewer.pipe.wait_warning("cannot be reached");
    assert!(warning.contains("Trying again"), "{warning}");
    // It goes on trying.
    let publisher = Publisher::new(&format!("{VIDEO} ! SINK secret-key={key}"));
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{port}"));
    publisher.pipe.play();
    viewer.wait_frames("video_0", 5);
}

#[test]
fn a_publisher_that_is_not_there_and_a_limit() {
    let _test = start();
    let error = source_failure(
        Some(&ticket_of(&secret_key(22), free_port())),
        "timeout=1000",
    );
    says(
        &error,
        gst::ResourceError::NotFound,
        &["cannot be reached", "timeout"],
    );
}

#[test]
fn stopping_does_not_wait_for_a_publisher_that_is_not_there() {
    let _test = start();
    let viewer = Viewer::start(&ticket_of(&secret_key(23), free_port()));
    viewer.wait_status("connecting");
    let before = std::time::Instant::now();
    viewer.pipe.stop();
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "stopping took {:?}",
        before.elapsed()
    );
}

/// Peers that want nothing good.
struct Attackers {
    runtime: Runtime,
    target: EndpointAddr,
    endpoints: Vec<Endpoint>,
    connections: Vec<Connection>,
}

impl Attackers {
    fn new(ticket: &str) -> Self {
        let ticket: LiveTicket = ticket.parse().expect("it is a ticket");
        Self {
            runtime: Runtime::new().expect("there are threads"),
            target: ticket.addr().clone(),
            endpoints: Vec::new(),
            connections: Vec::new(),
        }
    }

    /// Connects as a new peer.
    fn connect(&mut self, alpn: &[u8]) -> Connection {
        let connection = self.runtime.block_on(async {
            let endpoint = EndpointConfig::local()
                .bind()
                .await
                .expect("there are free ports");
            let connection = endpoint
                .connect(self.target.clone(), alpn)
                .await
                .expect("the sink accepts it");
            self.endpoints.push(endpoint);
            connection
        });
        self.connections.push(connection.clone());
        connection
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let endpoints = std::mem::take(&mut self.endpoints);
        self.runtime.block_on(async {
            for endpoint in endpoints {
                endpoint.close().await;
            }
        });
    }
}

/// Publishes, has it watched, lets `attack` do its worst, and looks whether old and new viewers are served.
fn serves_others_during(attack: impl FnOnce(&mut Attackers)) {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let ticket = publisher.ticket();
    let viewer = Viewer::start(&ticket);
    viewer.wait_frames("video_0", 10);
    let mut attackers = Attackers::new(&ticket);
    attack(&mut attackers);
    viewer.wait_more_frames("video_0", 30);
    let late = Viewer::start(&ticket);
    late.wait_frames("video_0", 10);
    // And while the attackers are still there, it stops as it should.
    publisher.pipe.stop();
    assert!(publisher.pipe.error().is_none());
    viewer.wait_statuses(&["connected", "reconnecting"]);
}

#[test]
fn a_peer_that_connects_and_says_nothing() {
    serves_others_during(|attackers| {
        for alpn in alpns() {
            attackers.connect(alpn);
        }
    });
}

#[test]
fn a_peer_that_speaks_nonsense() {
    serves_others_during(|attackers| {
        for (seed, alpn) in (1..).zip(alpns()) {
            let connection = attackers.connect(alpn);
            attackers.runtime.block_on(async {
                for stream in 0..20_u64 {
                    let words = noise(500, seed * 100 + stream);
                    // The sink may have hung up already, and be right in that.
                    if let Ok(mut send) = connection.open_uni().await {
                        let _ = send.write_all(&words).await;
                        let _ = send.finish();
                    }
                    if let Ok((mut send, _receive)) = connection.open_bi().await {
                        // Half of them are left open.
                        let _ = send.write_all(&words).await;
                        if stream % 2 == 0 {
                            let _ = send.finish();
                        }
                    }
                    let _ = connection.send_datagram(noise(200, seed + stream).into());
                }
            });
        }
    });
}

#[test]
fn a_peer_that_promises_more_than_it_sends() {
    serves_others_during(|attackers| {
        for alpn in alpns() {
            let connection = attackers.connect(alpn);
            attackers.runtime.block_on(async {
                // Each kind of stream there is, then a message that is said to be as long as numbers go.
                for kind in 0..8 {
                    let words = [
                        kind, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3,
                    ];
                    if let Ok(mut send) = connection.open_uni().await {
                        let _ = send.write_all(&words).await;
                    }
                    if let Ok((mut send, _receive)) = connection.open_bi().await {
                        let _ = send.write_all(&words).await;
                    }
                }
            });
        }
    });
}

#[test]
fn a_peer_that_opens_a_thousand_streams() {
    serves_others_during(|attackers| {
        for alpn in alpns().take(4) {
            let connection = attackers.connect(alpn);
            attackers.runtime.block_on(async {
                let mut kept = Vec::new();
                for _ in 0..500 {
                    let opened = tokio::time::timeout(Duration::from_secs(5), async {
                        let mut uni = connection.open_uni().await.ok()?;
                        uni.write_all(&[0]).await.ok()?;
                        let (mut send, receive) = connection.open_bi().await.ok()?;
                        send.write_all(&[2]).await.ok()?;
                        Some((uni, send, receive))
                    });
                    // Being hung up on or held back is what a peer like that should expect.
                    let Ok(Some(streams)) = opened.await else {
                        break;
                    };
                    kept.push(streams);
                }
                // The streams stay open for as long as the connection does.
                std::mem::forget(kept);
            });
        }
    });
}
