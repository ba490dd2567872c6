use std::sync::Barrier;

use super::*;

/// A sink that is paused, with so many pads, in this machine only.
fn paused(pads: usize) -> super::super::IrohLiveSink {
    gst::init().unwrap();
    let sink: super::super::IrohLiveSink = glib::Object::new();
    sink.set_property_from_str("relay-mode", "disabled");
    sink.set_property_from_str("address-lookup", "none");
    sink.set_property_from_str("bind-address", "127.0.0.1:0");
    for _ in 0..pads {
        sink.request_pad_simple("sink_%u").unwrap();
    }
    sink.set_state(gst::State::Paused).unwrap();
    sink
}

#[test]
fn pads_that_begin_at_once_after_the_end_begin_in_one_broadcast() {
    let sink = paused(2);
    let imp = sink.imp();
    let pads = lock(&imp.pads).clone();
    let first = imp.broadcast().unwrap();
    for round in 0..200 {
        for pad in &pads {
            pad.fail("as a test");
        }
        imp.pad_ended();
        assert_eq!(lock(&imp.readings).status, Status::Ended);
        let start = Barrier::new(pads.len());
        std::thread::scope(|scope| {
            for pad in &pads {
                scope.spawn(|| {
                    start.wait();
                    imp.pad_begins(pad);
                });
            }
        });
        let broadcast = imp.broadcast().unwrap();
        assert!(!broadcast.is_same(&first));
        for pad in &pads {
            assert!(
                pad.is_part_of(&broadcast),
                "round {round}: {} is left behind",
                pad.ghost.name()
            );
        }
    }
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn the_failure_of_the_last_stream_is_an_error_whatever_pads_there_are_beside_it() {
    let sink = paused(2);
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    let imp = sink.imp();
    let pads = lock(&imp.pads).clone();
    assert!(!imp.pad_failed(&pads[0], gst::StreamError::Decode, "as a test"));
    let said = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Warning]);
    assert_eq!(said.unwrap().type_(), gst::MessageType::Error);
    sink.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_pad_that_is_released_while_it_links_a_parser_leaves_nothing_behind() {
    let sink = paused(1);
    let pad = sink.static_pad("sink_0").unwrap();
    let appsink = sink.by_name("sink_0-appsink").unwrap();
    let releasing = Arc::new(Mutex::new(None));
    let (kept, released) = (releasing.clone(), pad.clone());
    sink.connect_element_added(move |sink, _| {
        let (sink, pad) = (sink.clone(), released.clone());
        *lock(&kept) = Some(std::thread::spawn(move || sink.release_request_pad(&pad)));
        // Then it is past looking for a parser.
        while appsink.current_state() != gst::State::Null {
            std::thread::yield_now();
        }
    });
    pad.send_event(gst::event::StreamStart::new("as-a-test"));
    let caps = gst::Caps::builder("video/x-h264")
        .field("stream-format", "byte-stream")
        .build();
    pad.send_event(gst::event::Caps::new(&caps));
    let thread = lock(&releasing).take();
    thread.expect("a parser was added").join().unwrap();
    assert_eq!(sink.children(), Vec::<gst::Element>::new());
    sink.set_state(gst::State::Null).unwrap();
}
