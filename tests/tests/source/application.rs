//! What the application sets, is told and can read.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use gst::prelude::*;
use iroh_live::{
    Live, LiveTicket, LocalBroadcast, endpoint::EndpointConfig, util::parse_secret_key,
};
use iroh_live_tests::{
    LOCAL, PATIENCE, Pipe, Publisher, Viewer, free_port, nick, secret_key, start,
};

use super::{VIDEO, publisher_at};

#[test]
fn handlers_that_wait_for_whoever_stops_the_element_do_not_hold_it_up() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let lock = Arc::new(Mutex::new(()));
    let held = lock.lock().expect("nobody panics with the lock");
    let (entered, inside) = mpsc::channel();
    // More than the runtime has threads.
    let viewers: Vec<_> = (0..3)
        .map(|_| {
            let viewer = Viewer::new(&publisher.ticket(), "", |_| Some(String::new()));
            let (lock, entered) = (lock.clone(), entered.clone());
            viewer.src.connect_notify(None, move |_, _| {
                let _ = entered.send(());
                drop(lock.lock());
            });
            viewer.pipe.play();
            viewer
        })
        .collect();
    let entered = viewers
        .iter()
        .all(|_| inside.recv_timeout(PATIENCE).is_ok());
    let pipelines: Vec<_> = viewers.iter().map(|v| v.pipe.pipeline.clone()).collect();
    let (sender, stopped) = mpsc::channel();
    thread::spawn(move || {
        for pipeline in pipelines {
            let _ = sender.send(pipeline.set_state(gst::State::Null));
        }
    });
    let results: Vec<_> = viewers
        .iter()
        .map(|_| stopped.recv_timeout(PATIENCE))
        .collect();
    // Before anything can fail, or what is dropped then waits for it.
    drop(held);
    assert!(entered, "each handler is called");
    for result in results {
        result
            .expect("stopping does not wait for a handler")
            .expect("a pipeline can always be stopped");
    }
}

#[test]
fn a_start_that_fails_leaves_nothing_running() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::new(&publisher.ticket(), "", |_| Some(String::new()));
    let bin = viewer.src.downcast_ref::<gst::Bin>().expect("it is one");
    let bad = gst::ElementFactory::make("filesrc")
        .property("location", "/does/not/exist")
        .build()
        .expect("it is a core element");
    bin.add(&bad).expect("it is new");
    viewer.src.set_state(gst::State::Ready).expect("it opens");
    assert!(viewer.src.set_state(gst::State::Paused).is_err());
    assert_eq!(nick(&viewer.src, "status"), "idle");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(nick(&viewer.src, "status"), "idle");
    assert_eq!(viewer.pads().len(), 0);
    viewer.src.set_state(gst::State::Null).expect("it closes");
    bin.remove(&bad).expect("it is there");
    viewer.pipe.forget();
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
}

#[test]
fn options_in_the_ticket_set_properties_and_unknown_ones_are_spoken_of() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let ticket = publisher.ticket();
    let options = format!("{ticket}?latency=50&max-lag=700&relay-mode=disabled&rendition=hd");
    let viewer = Viewer::start(&options);
    assert_eq!(viewer.src.property::<u32>("latency"), 50);
    assert_eq!(viewer.src.property::<u32>("max-lag"), 700);
    assert_eq!(viewer.src.property::<String>("uri"), options);
    let warning = viewer.pipe.wait_warning("rendition");
    assert!(warning.contains("Known ones are: latency"), "{warning}");
    viewer.wait_frames("video_0", 5);
    // By the interface for URIs, as players do.
    let src = gst::Element::make_from_uri(gst::URIType::Src, &format!("{ticket}?latency=70"), None)
        .expect("the scheme is known");
    assert_eq!(src.property::<u32>("latency"), 70);
    let bad = Pipe::parse(&format!("irohlivesrc name=s {LOCAL}"));
    bad.element("s")
        .set_property("ticket", format!("{ticket}?latency=soon"));
    let _ = bad.pipeline.set_state(gst::State::Playing);
    let error = bad.wait_error();
    assert!(error.matches(gst::ResourceError::Settings), "{error:?}");
    assert!(error.message().contains("latency=soon"), "{error}");
}

#[test]
fn media_that_stops_is_a_status_and_how_old_the_last_frame_is_a_statistic() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 30);
    let pad = &publisher.sink.sink_pads()[0];
    let block = pad
        .add_probe(gst::PadProbeType::BUFFER, |_, _| gst::PadProbeReturn::Drop)
        .expect("a probe can be added");
    viewer.wait_status("stalled");
    viewer.pipe.wait("a second without a frame", || {
        let stats = viewer.src.property::<gst::Structure>("stats");
        let age = stats.get::<u64>("last-frame-age").ok()?;
        (age > 1_000_000_000).then_some(())
    });
    pad.remove_probe(block);
    viewer.wait_status("connected");
    viewer.wait_more_frames("video_0", 10);
    assert!(
        !viewer
            .statuses()
            .iter()
            .any(|status| status == "reconnecting")
    );
    assert!(
        viewer.pipe.warnings().is_empty(),
        "{:?}",
        viewer.pipe.warnings()
    );
}

#[test]
fn without_a_connection_there_is_no_path() {
    let _test = start();
    let publisher = publisher_at(62, &format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.pipe.wait("the path", || {
        (nick(&viewer.src, "path-type") == "direct").then_some(())
    });
    publisher.pipe.stop();
    viewer.wait_status("reconnecting");
    assert_eq!(nick(&viewer.src, "path-type"), "none");
    let warnings = viewer.pipe.warnings();
    assert!(
        warnings
            .iter()
            .any(|text| text.starts_with("The publisher stopped")),
        "{warnings:?}"
    );
    // It is said what may have happened to a publisher that does not come back.
    viewer.pipe.wait_warning("may have a new ticket");
}

#[test]
fn somebody_else_at_the_address_is_called_that() {
    let _test = start();
    let publisher = publisher_at(63, &format!("{VIDEO} ! SINK"));
    let ticket: LiveTicket = publisher.ticket().parse().expect("it is one");
    let other = parse_secret_key(&secret_key(64))
        .expect("it is a key")
        .public();
    let mut address = ticket.addr().clone();
    address.id = other;
    let viewer = Viewer::start(&LiveTicket::new(address, "stream").to_string());
    let warning = viewer.pipe.wait_warning("mistyped");
    assert!(
        warning.contains("Somebody else answers") && !warning.contains("UnknownIssuer"),
        "{warning}"
    );
}

#[test]
fn a_publisher_may_think_about_a_viewer_for_a_while() {
    let _test = start();
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    let (live, ticket) = runtime.block_on(async {
        let mut config = EndpointConfig::local();
        config.bind = Some(([127, 0, 0, 1], 0).into());
        let endpoint = config.bind().await.expect("there are free ports");
        let live = Live::builder(endpoint).with_router().spawn();
        let ticket = LiveTicket::new(live.endpoint().addr(), "stream").to_string();
        (live, ticket)
    });
    let _guard = runtime.enter();
    live.publish("stream", &LocalBroadcast::new())
        .expect("a good name");
    let mut incoming = live.transport().admission();
    let viewer = Viewer::start(&ticket);
    runtime.block_on(async {
        let session = incoming.next().await.expect("the viewer comes");
        tokio::time::sleep(Duration::from_secs(14)).await;
        session.accept().await.expect("it is still there");
    });
    viewer.wait_status("waiting");
    assert_eq!(viewer.statuses(), ["connecting", "waiting"]);
    runtime.block_on(live.shutdown());
}

#[test]
fn stream_ids_are_of_the_publisher_and_not_of_where_it_is() {
    let _test = start();
    let publisher = publisher_at(65, &format!("{VIDEO} ! SINK"));
    let id = || {
        let viewer = Viewer::start(&publisher.ticket());
        viewer.wait_frames("video_0", 5);
        let pad = viewer.src.static_pad("video_0").expect("it is there");
        (publisher.ticket(), pad.stream_id().map(|id| id.to_string()))
    };
    let (first_ticket, first) = id();
    publisher.pipe.stop();
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{}", free_port()));
    publisher.pipe.play();
    let (second_ticket, second) = id();
    assert_ne!(first_ticket, second_ticket);
    assert_eq!(first, second);
}
