//! A publisher made with the core crate alone, for what no pipeline publishes.

use std::{thread, time::Duration};

use iroh_live::{
    EncodedFrame, Live, LiveTicket, LocalBroadcast, TrackConfig,
    broadcast::{VideoConfig, catalog::VideoCodec},
    endpoint::EndpointConfig,
};
use tokio::runtime::Runtime;

/// A live in the network namespace of a runtime, as sockets belong to that of the thread that opens them.
///
/// # Panics
/// If no socket can be opened.
pub fn live(runtime: &Runtime) -> Live {
    let open = async {
        let endpoint = EndpointConfig::local().bind().await;
        Live::builder(endpoint.expect("there are free ports"))
            .with_router()
            .spawn()
    };
    let handle = runtime.spawn(open);
    runtime.block_on(handle).expect("it does not panic")
}

/// The one track of what [`feed`] publishes.
pub const VIDEO: &str = "video_0";

/// What it carries.
pub fn video() -> TrackConfig {
    VideoConfig::new(VideoCodec::VP8).into()
}

/// Publishes a broadcast with the track [`VIDEO`] until it is finished or dropped; must be called in the runtime.
///
/// # Panics
/// If the name cannot be a broadcast's.
pub fn feed(live: &Live, name: &str) -> LocalBroadcast {
    let broadcast = LocalBroadcast::new();
    publish(live, name, &broadcast, vec![(VIDEO, video())]);
    broadcast
}

fn publish(live: &Live, name: &str, broadcast: &LocalBroadcast, tracks: Vec<(&str, TrackConfig)>) {
    for (name, config) in tracks {
        let mut track = broadcast
            .publish_track(name, config)
            .expect("the tracks have different names");
        thread::spawn(move || {
            for number in 0_u64.. {
                let payload = number.to_be_bytes().to_vec();
                let frame = EncodedFrame::new(LocalBroadcast::now(), payload, number % 10 == 0);
                if track.write(frame).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
    }
    live.publish(name, broadcast)
        .expect("the name is a good one");
}

/// Publishes one broadcast until it is dropped.
pub struct CorePublisher {
    runtime: Runtime,
    live: Live,
    broadcast: LocalBroadcast,
    ticket: String,
}

impl CorePublisher {
    /// Offers the broadcast `name` with these tracks, each of which gets a frame of a few bytes every 20 ms, every tenth
    /// one a key frame. The bytes are none that a decoder would understand.
    ///
    /// # Panics
    /// If no socket can be opened.
    pub fn start(name: &str, tracks: Vec<(&str, TrackConfig)>) -> Self {
        let runtime = Runtime::new().expect("there are threads");
        let live = runtime.block_on(async {
            let mut config = EndpointConfig::local();
            config.bind = Some(([127, 0, 0, 1], 0).into());
            let endpoint = config
                .bind()
                .await
                .expect("the loopback interface has free ports");
            Live::builder(endpoint).with_router().spawn()
        });
        let _guard = runtime.enter();
        let broadcast = LocalBroadcast::new();
        publish(&live, name, &broadcast, tracks);
        let ticket = LiveTicket::new(live.endpoint().addr(), name).to_string();
        drop(_guard);
        Self {
            runtime,
            live,
            broadcast,
            ticket,
        }
    }

    /// The ticket of the broadcast.
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// The broadcast.
    pub fn broadcast(&self) -> &LocalBroadcast {
        &self.broadcast
    }
}

impl Drop for CorePublisher {
    fn drop(&mut self) {
        self.broadcast.finish();
        self.runtime.block_on(self.live.shutdown());
    }
}
