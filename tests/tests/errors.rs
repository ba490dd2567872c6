//! What goes wrong, and what the user is told: a clear sentence on the bus that names the mend, and never a panic, a hang
//! or a crash.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use bytes::Bytes;
use gst::{glib, prelude::*};
use iroh_live::{
    EncodedFrame, LiveTicket, LocalBroadcast,
    broadcast::{VideoCodec, VideoConfig},
    endpoint::EndpointConfig,
    iroh::{Endpoint, EndpointAddr, endpoint::Connection},
    transport::alpns,
    util::parse_secret_key,
};
use iroh_live_tests::{
    LOCAL, Pipe, Publisher, Viewer,
    core::CorePublisher,
    free_port,
    peer::{HandmadePublisher, catalog, legacy_frame},
    secret_key, start,
};
use tokio::runtime::Runtime;

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
    x264enc tune=zerolatency key-int-max=15";

/// Starts the pipeline, which fails, and gives the error.
fn failure(pipe: &Pipe) -> glib::Error {
    // It may fail at once or a moment later.
    let _ = pipe.pipeline.set_state(gst::State::Playing);
    pipe.wait_error()
}

/// The error of a source with these properties.
fn source_failure(ticket: Option<&str>, properties: &str) -> glib::Error {
    let pipe = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} {properties} ! fakesink"
    ));
    if let Some(ticket) = ticket {
        pipe.element("s").set_property("ticket", ticket);
    }
    failure(&pipe)
}

/// The error of a sink with these properties.
fn sink_failure(properties: &str) -> glib::Error {
    failure(&Pipe::parse(&format!(
        "{VIDEO} ! irohlivesink name=stream {LOCAL} {properties}"
    )))
}

#[track_caller]
fn says<D: glib::error::ErrorDomain + Copy>(error: &glib::Error, code: D, parts: &[&str]) {
    assert!(error.matches(code), "{error:?}");
    for part in parts {
        assert!(
            error.message().contains(part),
            "{:?} says nothing of {part:?}",
            error.message()
        );
    }
}

/// The ticket of a publisher that is not there: of this key, at this port.
fn ticket_of(key: &str, port: u16) -> String {
    let id = parse_secret_key(key).expect("it is a key").public();
    let address = EndpointAddr::new(id).with_ip_addr(([127, 0, 0, 1], port).into());
    LiveTicket::new(address, "stream").to_string()
}

#[test]
fn no_ticket() {
    let _test = start();
    for ticket in [None, Some(""), Some("  ")] {
        let error = source_failure(ticket, "");
        says(
            &error,
            gst::ResourceError::NotFound,
            &["No ticket", "set the property ticket", "iroh-live:"],
        );
    }
}

#[test]
fn a_ticket_that_is_none() {
    let _test = start();
    let good = ticket_of(&secret_key(1), 4433);
    let (start, name) = good.rsplit_once('/').expect("there is a name");
    let cases = [
        (good[..30].to_owned(), "cut short"),
        (good[..4].to_owned(), "cut short"),
        (start.to_owned(), "no name"),
        (good.replacen("iroh-live:", "iroh-live:!", 1), "mistyped"),
        (format!("{}AAAA/{name}", start), "too many"),
        (
            "https://example.com/watch".to_owned(),
            "`https:` is not a ticket",
        ),
        ("what is this".to_owned(), "not a ticket"),
        (format!("{good}{}", "x".repeat(3000)), "too long"),
        (format!("{good}?relay=nonsense"), "relay"),
    ];
    for (ticket, part) in cases {
        let error = source_failure(Some(&ticket), "");
        says(
            &error,
            gst::ResourceError::NotFound,
            &["The ticket cannot be read", part],
        );
    }
}

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

#[test]
fn a_malformed_secret_key() {
    let _test = start();
    let ticket = ticket_of(&secret_key(1), 4433);
    for key in [
        "abc",
        "zz",
        &secret_key(3)[1..],
        "correct-horse-battery-staple",
    ] {
        for error in [
            sink_failure(&format!("secret-key={key}")),
            source_failure(Some(&ticket), &format!("secret-key={key}")),
        ] {
            says(
                &error,
                gst::ResourceError::Settings,
                &["secret-key", "64 hexadecimal digits"],
            );
            // It may be a good one with a slip of the pen.
            assert!(
                key.len() < 4 || !error.message().contains(key),
                "the key is shown: {error}"
            );
        }
    }
}

#[test]
fn a_key_file_that_cannot_be_read() {
    let test = start();
    let folder = test.file("folder");
    std::fs::create_dir(&folder).expect("the test's folder can be written");
    let error = sink_failure(&format!("secret-key-location={folder}"));
    says(
        &error,
        gst::ResourceError::Read,
        &[&folder, "name a file that this program can read and write"],
    );
    let error = sink_failure(&format!("secret-key-location={folder}/none/key"));
    says(
        &error,
        gst::ResourceError::Read,
        &["none/key", "name a file"],
    );
    // A file that has something else in it.
    let file = test.file("notes");
    std::fs::write(&file, "milk, bread").expect("the test's folder can be written");
    let error = sink_failure(&format!("secret-key-location={file}"));
    says(
        &error,
        gst::ResourceError::Settings,
        &[&file, "64 hexadecimal digits"],
    );
}

#[test]
fn a_name_that_fits_no_ticket() {
    let _test = start();
    let error = sink_failure(&format!("broadcast={}", "x".repeat(3000)));
    says(
        &error,
        gst::ResourceError::Settings,
        &["too long", "Set the property broadcast to another name"],
    );
}

#[test]
fn a_port_that_is_taken() {
    let _test = start();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("there are free ports");
    let address = taken.local_addr().expect("it is bound");
    let ticket = ticket_of(&secret_key(1), 4433);
    let bind = format!("bind-address={address}");
    for (error, code) in [
        (sink_failure(&bind), gst::ResourceError::OpenWrite),
        (
            source_failure(Some(&ticket), &bind),
            gst::ResourceError::OpenRead,
        ),
    ] {
        says(
            &error,
            code,
            &[&address.to_string(), "Choose another bind-address"],
        );
    }
    for nonsense in ["localhost", "127.0.0.1", "1.2.3.4:99999"] {
        let error = sink_failure(&format!("bind-address={nonsense}"));
        says(
            &error,
            gst::ResourceError::Settings,
            &["bind-address", nonsense, "4433"],
        );
    }
}

#[test]
fn malformed_relay_urls() {
    let _test = start();
    let error = sink_failure("relay-urls=https://");
    says(
        &error,
        gst::ResourceError::Settings,
        &["relay-urls", "https://relay.example.com"],
    );
    let error = sink_failure("relay-urls=https://good.example.com,nonsense");
    says(
        &error,
        gst::ResourceError::Settings,
        &["relay-urls", "nonsense"],
    );
    let error = sink_failure("relay-mode=custom");
    says(
        &error,
        gst::ResourceError::Settings,
        &["relay-mode=custom needs relay-urls"],
    );
}

#[test]
fn a_ticket_location_that_cannot_be_written() {
    let test = start();
    let location = test.file("none/ticket");
    let error = sink_failure(&format!("ticket-location={location}"));
    says(
        &error,
        gst::ResourceError::OpenWrite,
        &[&location, "Set ticket-location"],
    );
}

#[test]
fn a_broadcast_name_that_cannot_be_one() {
    let _test = start();
    for name in ["*", "x".repeat(3000).as_str()] {
        let error = sink_failure(&format!("broadcast={name}"));
        says(
            &error,
            gst::ResourceError::Settings,
            &["Set the property broadcast to another name"],
        );
    }
}

#[test]
fn raw_media_into_a_pad() {
    let _test = start();
    let error = failure(&Publisher::new("videotestsrc is-live=true ! SINK").pipe);
    says(&error, gst::StreamError::WrongType, &["sink_0", "x264enc"]);
    let error = failure(&Publisher::new("SINK  audiotestsrc is-live=true ! stream.audio_0").pipe);
    says(&error, gst::StreamError::WrongType, &["audio_0", "opusenc"]);
}

#[test]
fn raw_media_into_one_pad_of_several() {
    let _test = start();
    // Not live, so that the pipeline plays only when each pad has something.
    let publisher = Publisher::start(
        "SINK  videotestsrc ! stream.video_0  audiotestsrc ! opusenc ! stream.audio_0",
    );
    let warning = publisher.pipe.wait_warning("video_0");
    assert!(warning.contains("x264enc"), "{warning}");
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 30);
    // The last of them is another matter.
    let audio = publisher.sink.static_pad("audio_0").expect("it is linked");
    let peer = audio.peer().expect("it is linked");
    peer.push_event(gst::event::Eos::new());
    let raw = publisher
        .sink
        .request_pad_simple("audio_1")
        .expect("there is none of that name");
    let tone = gst::ElementFactory::make("audiotestsrc")
        .build()
        .expect("it is there");
    publisher.pipe.pipeline.add(&tone).expect("it is new");
    let source = tone.static_pad("src").expect("it has one");
    source.link(&raw).expect("it fits");
    tone.sync_state_with_parent().expect("it starts");
    let error = publisher.pipe.wait_error();
    says(&error, gst::StreamError::WrongType, &["audio_1", "opusenc"]);
}

/// Bytes that look like nothing, but the same each time.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

/// Publishes noise on one pad beside sound that is in order.
fn noise_on_one_pad(caps: &str) {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "SINK  appsrc name=noise is-live=true format=time do-timestamp=true caps={caps} ! stream.video_0 \
         audiotestsrc is-live=true ! opusenc ! stream.audio_0"
    ));
    publisher.pipe.play();
    let noisy = publisher
        .pipe
        .element("noise")
        .downcast::<gst_app::AppSrc>()
        .expect("that is what it is");
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("audio_0", 10);
    let mut seed = 0;
    let warning = publisher
        .pipe
        .wait("a warning that nothing comes of it", || {
            seed += 1;
            // Taken or refused: that is the sink's business.
            let _ = noisy.push_buffer(gst::Buffer::from_slice(noise(2000, seed)));
            std::thread::sleep(Duration::from_millis(2));
            publisher
                .pipe
                .warnings()
                .into_iter()
                .find(|text| text.contains("video_0"))
        });
    assert!(warning.contains("Nothing has come of"), "{warning}");
    viewer.wait_more_frames("audio_0", 30);
    let late = Viewer::start(&publisher.ticket());
    late.wait_frames("audio_0", 10);
}

#[test]
fn noise_instead_of_h264_in_a_byte_stream() {
    noise_on_one_pad("video/x-h264,stream-format=byte-stream,alignment=au");
}

#[test]
fn noise_instead_of_h264_in_avc() {
    // The configuration record is in order, what follows is not.
    noise_on_one_pad(
        "video/x-h264,stream-format=avc,alignment=au,width=320,height=240,codec_data=(buffer)\
         01f4000dffe1001b67f4000d919640507ec05a83030320000003002000000791e2854901000668ebcc448440",
    );
}

#[test]
fn noise_instead_of_aac() {
    let _test = start();
    let publisher = Publisher::new(&format!(
        "SINK  {VIDEO} ! stream.video_0  \
         appsrc name=noise is-live=true format=time do-timestamp=true caps=audio/mpeg,mpegversion=4,stream-format=adts ! stream.audio_0"
    ));
    publisher.pipe.play();
    let noisy = publisher
        .pipe
        .element("noise")
        .downcast::<gst_app::AppSrc>()
        .expect("that is what it is");
    let viewer = Viewer::start(&publisher.ticket());
    for seed in 0..50 {
        let _ = noisy.push_buffer(gst::Buffer::from_slice(noise(2000, seed)));
    }
    let _ = noisy.end_of_stream();
    viewer.wait_frames("video_0", 30);
    assert!(publisher.pipe.error().is_none());
}

#[test]
fn a_catalog_by_hand_is_understood() {
    // So that the tests that follow fail for what they are about.
    let _test = start();
    let frames = (0..5)
        .map(|n| legacy_frame(n * 33_000, b"picture"))
        .collect();
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames),
    ];
    let publisher = HandmadePublisher::start("by hand", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    let log = viewer.wait_frames("video_0", 5);
    assert!(log.frames().all(|frame| frame.data == "picture"));
}

#[test]
fn a_group_that_breaks_off_is_a_discontinuity() {
    let _test = start();
    let begin = Instant::now();
    let frames = || {
        let now = u64::try_from(begin.elapsed().as_micros()).expect("not that long");
        (0..5).map(|n| legacy_frame(now + n, b"picture")).collect()
    };
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames()),
    ];
    let publisher = HandmadePublisher::start("by hand", &tracks);
    // A group whose end comes late is waited for: only what breaks off is to be a discontinuity.
    let viewer = Viewer::new(publisher.ticket(), "latency=20000", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
    publisher.next_group("cam", frames(), true);
    viewer.wait_frames("video_0", 10);
    publisher.next_group("cam", frames(), false);
    let log = viewer.wait_frames("video_0", 15);
    let marked: Vec<_> = log
        .frames()
        .enumerate()
        .filter(|(_, frame)| frame.flags.contains(gst::BufferFlags::DISCONT))
        .map(|(n, _)| n)
        .collect();
    assert_eq!(marked, [0, 10]);
}

#[test]
fn a_catalog_that_is_not_json() {
    let _test = start();
    for bad in [
        "this is no catalog",
        "{\"video\":",
        "[1,2,3]",
        "\u{0}\u{1}\u{2}",
        "{\"video\":7}",
    ] {
        let publisher =
            HandmadePublisher::start("bad", &[("catalog.json", vec![Bytes::from(bad)])]);
        let viewer = Viewer::start(publisher.ticket());
        let error = viewer.pipe.wait_error();
        says(
            &error,
            gst::StreamError::Format,
            &["catalog", "Ask the publisher"],
        );
    }
}

#[test]
fn a_catalog_with_nothing_but_an_unknown_codec() {
    let _test = start();
    let config =
        |codec: &str| VideoConfig::new(codec.parse::<VideoCodec>().expect("any text is a codec"));
    let publisher = CorePublisher::start("strange", vec![("cam", config("x266.9").into())]);
    let viewer = Viewer::start(publisher.ticket());
    let warning = viewer.pipe.wait_warning("x266.9");
    for part in ["cam", "Update this plugin"] {
        assert!(warning.contains(part), "{warning}");
    }
    // With a limit it is an error.
    let error = source_failure(Some(publisher.ticket()), "timeout=500");
    says(
        &error,
        gst::StreamError::CodecNotFound,
        &["cam", "x266.9", "Update this plugin", "timeout"],
    );
    // The one without is still there when something comes that is known.
    let broadcast = publisher.broadcast();
    let mut known = broadcast
        .publish_track("known", config("vp8"))
        .expect("the name is a new one");
    viewer.pipe.wait("the track that is known", || {
        let frame = EncodedFrame::new(LocalBroadcast::now(), vec![0; 9], true);
        known.write(frame).expect("the broadcast is there");
        std::thread::sleep(Duration::from_millis(20));
        (viewer.count("video_0") > 5).then_some(())
    });
    assert_eq!(viewer.statuses(), ["connecting", "waiting", "connected"]);
}

#[test]
fn a_broadcast_that_ends_with_nothing_but_an_unknown_codec() {
    let _test = start();
    let strange = VideoConfig::new("x266.9".parse::<VideoCodec>().expect("any text is a codec"));
    let publisher = CorePublisher::start("strange", vec![("cam", strange.into())]);
    let viewer = Viewer::start(publisher.ticket());
    viewer.pipe.wait_warning("x266.9");
    publisher.broadcast().finish();
    says(
        &viewer.pipe.wait_error(),
        gst::StreamError::CodecNotFound,
        &["ended", "cam", "x266.9", "Update this plugin"],
    );
}

#[test]
fn an_unknown_codec_beside_a_known_one() {
    let _test = start();
    let config =
        |codec: &str| VideoConfig::new(codec.parse::<VideoCodec>().expect("any text is a codec"));
    let publisher = CorePublisher::start(
        "half",
        vec![
            ("strange", config("x266.9").into()),
            ("known", config("vp8").into()),
        ],
    );
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_frames("video_0", 20);
    let warning = viewer.pipe.wait_warning("x266.9");
    assert!(
        warning.contains("Left out") && warning.contains("strange"),
        "{warning}"
    );
    assert_eq!(viewer.pads().len(), 1);
}

#[test]
fn a_track_that_carries_no_frames() {
    let _test = start();
    let good = (0..5)
        .map(|n| legacy_frame(n * 33_000, b"picture"))
        .collect::<Vec<_>>();
    let tracks = [
        ("catalog.json", vec![catalog(&["bad", "good"], 1)]),
        // A frame too short for its timestamp.
        ("bad", vec![Bytes::from_static(&[0xff]), Bytes::new()]),
        ("good", good),
    ];
    let publisher = HandmadePublisher::start("half bad", &tracks);
    let viewer = Viewer::start(publisher.ticket());
    let warning = viewer.pipe.wait_warning("bad");
    assert!(warning.contains("left out"), "{warning}");
    viewer.pipe.wait("the good track", || {
        viewer
            .pads()
            .iter()
            .any(|pad| pad.frames().count() >= 5)
            .then_some(())
    });
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
