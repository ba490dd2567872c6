//! What `irohlivesrc` makes of its application, of the pipeline behind it and of its publisher: ends, unlinked pads, slow
//! elements, handlers that take their time.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use gst::prelude::*;
use iroh_live::{
    Live, LiveTicket, LocalBroadcast, endpoint::EndpointConfig, iroh::EndpointAddr,
    util::parse_secret_key,
};
use iroh_live_tests::{
    Frame, LOCAL, PATIENCE, Pipe, Process, Publisher, Viewer,
    core::CorePublisher,
    free_port,
    media::record,
    nick,
    peer::{HandmadePublisher, catalog, frames},
    secret_key, start,
};

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! \
    x264enc tune=zerolatency key-int-max=15";

const AUDIO: &str = "audiotestsrc is-live=true ! opusenc";

/// The ticket of a publisher that is not there: of this key, at this port.
fn ticket_of(key: &str, port: u16) -> String {
    let id = parse_secret_key(key).expect("it is a key").public();
    let address = EndpointAddr::new(id).with_ip_addr(([127, 0, 0, 1], port).into());
    LiveTicket::new(address, "stream").to_string()
}

/// A publisher that can be started again and have the same ticket.
fn publisher_at(key: u8, tracks: &str) -> Publisher {
    let publisher = Publisher::new(&format!("{tracks} secret-key={}", secret_key(key)));
    publisher
        .sink
        .set_property("bind-address", format!("127.0.0.1:{}", free_port()));
    publisher.pipe.play();
    publisher
}

// Ends.

#[test]
fn an_interrupt_while_it_connects_ends_gst_launch() {
    let test = start();
    let ticket = ticket_of(&secret_key(60), free_port());
    for (number, rest) in [
        "s. ! fakesink",
        "s. ! h264parse ! fakesink sync=true",
        "s. ! queue ! opusdec ! audioconvert ! fakesink",
        "s. ! queue ! h264parse ! avdec_h264 ! fakesink  s. ! queue ! opusdec ! fakesink",
        "s. ! video/x-vp8 ! queue ! vp8dec ! fakesink",
    ]
    .iter()
    .enumerate()
    {
        let line = format!("-e irohlivesrc name=s ticket={ticket} {LOCAL} {rest}");
        let mut viewer = Process::launch(&test, &format!("viewer-{number}"), &line);
        let log = viewer.log_location();
        viewer.wait("the way to the publisher", || {
            let log = std::fs::read_to_string(&log).ok()?;
            log.contains("Setting pipeline to PLAYING").then_some(())
        });
        viewer.interrupt();
        let ended = viewer.end();
        assert!(
            ended.status.success() && ended.log.contains("Got EOS"),
            "{rest}: {}",
            ended.log
        );
    }
}

#[test]
fn an_interrupt_while_it_connects_ends_gst_launch_where_an_element_waits_for_data() {
    let test = start();
    let ticket = ticket_of(&secret_key(60), free_port());
    let line = format!("-e irohlivesrc ticket={ticket} {LOCAL} ! decodebin3 ! fakesink");
    let mut viewer = Process::launch(&test, "viewer", &line);
    let log = viewer.log_location();
    viewer.wait("the way to the publisher", || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("Setting pipeline to PLAYING").then_some(())
    });
    viewer.interrupt();
    let ended = viewer.end();
    assert!(
        ended.log.contains("does not end without data"),
        "{}",
        ended.log
    );
}

#[test]
fn eos_from_the_application_ends_every_track() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK {AUDIO} ! stream."));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    viewer.wait_frames("audio_0", 5);
    assert!(viewer.src.send_event(gst::event::Eos::new()));
    viewer.pipe.wait_eos();
    assert!(viewer.pads().iter().all(|pad| pad.has_ended()));
    assert_eq!(nick(&viewer.src, "status"), "ended");
    // A second one has nothing to do.
    assert!(viewer.src.send_event(gst::event::Eos::new()));
    // It can be started again.
    viewer.pipe.stop();
    viewer.pipe.play();
    viewer.wait_more_frames("video_0", 5);
}

#[test]
fn a_broadcast_that_ends_before_it_has_anything_is_an_error() {
    let _test = start();
    let publisher = CorePublisher::start("nothing", vec![]);
    let viewer = Viewer::start(publisher.ticket());
    viewer.wait_status("waiting");
    publisher.broadcast().finish();
    let error = viewer.pipe.wait_error();
    assert!(error.matches(gst::ResourceError::Read), "{error:?}");
    assert!(error.message().contains("ended"), "{error}");
    assert_eq!(nick(&viewer.src, "status"), "ended");
}

#[test]
fn a_publisher_that_stops_has_not_ended_for_a_viewer_that_has_linked_nothing() {
    let _test = start();
    let publisher = publisher_at(61, &format!("{VIDEO} ! SINK"));
    let viewer = Viewer::new(&publisher.ticket(), "", |_| None);
    viewer.pipe.play();
    viewer.wait_status("connected");
    publisher.pipe.stop();
    publisher.pipe.play();
    viewer.wait_statuses(&["connected", "reconnecting", "connected"]);
    assert!(
        !viewer.statuses().iter().any(|status| status == "ended"),
        "{:?}",
        viewer.statuses()
    );
    let warnings = viewer.pipe.warnings();
    assert!(
        warnings
            .iter()
            .any(|text| text.starts_with("The publisher stopped")),
        "{warnings:?}"
    );
}

#[test]
fn the_end_of_a_broadcast_is_seen_whatever_is_linked() {
    let _test = start();
    for linked in ["", "video_0", "audio_0"] {
        let publisher = Publisher::start(&format!("{VIDEO} ! SINK {AUDIO} ! stream."));
        let viewer = Viewer::new(&publisher.ticket(), "", move |name| {
            (name == linked).then(String::new)
        });
        viewer.pipe.play();
        viewer
            .pipe
            .wait("both pads", || (viewer.pads().len() == 2).then_some(()));
        if !linked.is_empty() {
            viewer.wait_frames(linked, 5);
        }
        publisher.pipe.pipeline.send_event(gst::event::Eos::new());
        publisher.pipe.wait_eos();
        if linked.is_empty() {
            // Nobody but the publisher knows.
            viewer.wait_status("ended");
        }
        publisher.pipe.stop();
        viewer.wait_status("ended");
        if !linked.is_empty() {
            viewer.pipe.wait_eos();
        }
    }
}

#[test]
fn an_end_before_any_pad_is_linked_is_the_end_of_the_pipeline() {
    let _test = start();
    let publisher = Publisher::start(&format!("{AUDIO} ! SINK"));
    // A picture never comes.
    let pipe = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} ! h264parse ! fakesink"
    ));
    pipe.element("s").set_property("ticket", publisher.ticket());
    pipe.play();
    pipe.wait("the sound", || {
        (nick(&pipe.element("s"), "status") == "connected").then_some(())
    });
    pipe.pipeline.send_event(gst::event::Eos::new());
    let error = pipe.wait_error();
    assert!(
        error.message().contains("does not end without data"),
        "{error}"
    );
}

#[test]
fn an_end_before_any_pad_is_linked_is_no_error_for_what_goes_on() {
    let _test = start();
    let ticket = ticket_of(&secret_key(60), free_port());
    // Another source feeds the pipeline as well.
    let other = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} ! fakesink async=false  audiotestsrc is-live=true ! fakesink"
    ));
    // It has ended, and nobody stops it.
    let whole = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} ! fakesink async=false"
    ));
    for pipe in [&other, &whole] {
        pipe.element("s").set_property("ticket", &ticket);
        pipe.play();
        assert!(pipe.element("s").send_event(gst::event::Eos::new()));
    }
    whole.wait_eos();
    // Longer than a pipeline may take to end.
    thread::sleep(Duration::from_secs(4));
    for pipe in [&other, &whole] {
        assert!(pipe.error().is_none(), "{:?}", pipe.error());
    }
}

// The pipeline behind it.

/// Holds up each buffer at a pad for this long.
fn slow_down(pad: &gst::Pad, time: Duration) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        thread::sleep(time);
        gst::PadProbeReturn::Ok
    });
}

#[test]
fn a_pad_that_is_unlinked_and_linked_again_goes_on_with_a_picture() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let sent = record(&publisher.sink.sink_pads()[0]);
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let pad = viewer.src.static_pad("video_0").expect("it is there");
    let peer = pad.peer().expect("it is linked");
    // So that there is something in the queue that nobody takes.
    slow_down(&peer, Duration::from_millis(50));
    viewer.wait_more_frames("video_0", 10);
    for round in 0..3 {
        let before = viewer.count("video_0");
        pad.unlink(&peer).expect("they are linked");
        let count = || sent.lock().expect("nobody panics with the lock").len();
        let (already, more) = (count(), if round == 1 { 0 } else { 40 });
        publisher
            .pipe
            .wait("more frames", || (count() >= already + more).then_some(()));
        pad.link(&peer).expect("they were linked before");
        let log = viewer.wait_frames("video_0", before + 20);
        // One may have been on its way through the peer.
        let after: Vec<_> = log.frames().skip(before).take(3).cloned().collect();
        let fresh =
            |frame: &Frame| frame.is_key() && frame.flags.contains(gst::BufferFlags::DISCONT);
        assert!(after.iter().take(2).any(fresh), "round {round}: {after:?}");
    }
    assert!(viewer.pipe.error().is_none());
}

#[test]
fn an_element_that_is_stopped_and_started_again_behind_a_pad_goes_on() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let behind = viewer.pipe.element("behind-0");
    behind.set_state(gst::State::Ready).expect("it stops");
    thread::sleep(Duration::from_millis(500));
    let before = viewer.count("video_0");
    behind.set_state(gst::State::Playing).expect("it starts");
    let log = viewer.wait_frames("video_0", before + 20);
    let first = log.frames().nth(before).expect("there are more");
    assert!(first.is_key(), "it begins with a key frame");
    assert!(viewer.pipe.error().is_none());
}

#[test]
fn a_pipeline_that_is_too_slow_goes_on_with_what_is_new() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    let viewer = Viewer::start(&publisher.ticket());
    viewer.wait_frames("video_0", 5);
    let pad = viewer.src.static_pad("video_0").expect("it is there");
    let peer = pad.peer().expect("it is linked");
    slow_down(&peer, Duration::from_millis(100));
    let before = viewer.count("video_0");
    viewer.pipe.wait("frames that were left out", || {
        let log = viewer.pad("video_0")?;
        let mut later = log.frames().skip(before);
        later
            .any(|frame| frame.flags.contains(gst::BufferFlags::DISCONT))
            .then_some(())
    });
    let stats = viewer.src.property::<gst::Structure>("stats");
    assert!(stats.get::<u64>("jitter").is_ok());
}

#[test]
fn a_pipeline_that_waits_long_for_its_other_branch_is_not_too_slow() {
    let _test = start();
    let publisher = Publisher::start(&format!("{VIDEO} ! SINK"));
    // Its sink waits as long as the slowest branch wants.
    let pipe = Pipe::parse(&format!(
        "irohlivesrc name=s {LOCAL} max-lag=20000 ! fakesink name=sink sync=true signal-handoffs=true \
         audiotestsrc is-live=true ! queue min-threshold-time=0 ! identity name=slow ! fakesink sync=true"
    ));
    pipe.element("s").set_property("ticket", publisher.ticket());
    pipe.element("slow")
        .static_pad("src")
        .expect("it has one")
        .add_probe(
            gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PULL,
            |_, info| {
                if let Some(query) = info.query_mut()
                    && let gst::QueryViewMut::Latency(latency) = query.view_mut()
                {
                    let (_, min, max) = latency.result();
                    latency.set(true, min + gst::ClockTime::from_seconds(4), max);
                }
                gst::PadProbeReturn::Ok
            },
        );
    let marked = Arc::new(Mutex::new((0, 0)));
    let kept = marked.clone();
    pipe.element("sink")
        .connect("handoff", false, move |values| {
            let buffer = values[1].get::<gst::Buffer>().ok()?;
            let mut marked = kept.lock().expect("nobody panics with the lock");
            marked.0 += 1;
            marked.1 += usize::from(buffer.flags().contains(gst::BufferFlags::DISCONT));
            None
        });
    pipe.play();
    pipe.wait("150 frames", || {
        let marked = marked.lock().expect("nobody panics with the lock");
        (marked.0 > 150).then_some(())
    });
    let marked = marked.lock().expect("nobody panics with the lock");
    assert_eq!(marked.1, 1, "the first is a discontinuity, and no other");
}

#[test]
fn latency_that_is_raised_while_playing_has_what_is_late_waited_for() {
    let _test = start();
    let tracks = [
        ("catalog.json", vec![catalog(&["cam"], 1)]),
        ("cam", frames(0)),
    ];
    let publisher = HandmadePublisher::start("late", &tracks);
    let viewer = Viewer::new(publisher.ticket(), "latency=0", |_| Some(String::new()));
    viewer.pipe.play();
    viewer.wait_frames("video_0", 5);
    publisher.next_group_beside("cam", frames(1000));
    // Without latency nobody waits for the rest of the first group.
    viewer.wait_frames("video_0", 10);
    viewer.src.set_property("latency", 30_000_u32);
    publisher.next_group_beside("cam", frames(2000));
    // Long enough to leave out the second group, if it were not waited for.
    thread::sleep(Duration::from_millis(500));
    publisher.next_group("cam", frames(3000), true);
    let log = viewer.wait_frames("video_0", 20);
    let marked = log
        .frames()
        .enumerate()
        .filter(|(_, frame)| frame.flags.contains(gst::BufferFlags::DISCONT))
        .map(|(number, _)| number);
    assert_eq!(marked.collect::<Vec<_>>(), [0, 5]);
}

// The application.

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

// What it tells.

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
