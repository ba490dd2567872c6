//! How `irohlivesink` behaves: in the states of a pipeline, towards the application, and towards what is upstream.

use std::sync::{Arc, Mutex, mpsc};

use gst::prelude::*;
use iroh_live_tests::{LOCAL, PATIENCE, start};

fn sink(properties: &str) -> gst::Element {
    gst::parse::launch(&format!("irohlivesink {LOCAL} {properties}")).expect("the plugin is loaded")
}

#[test]
fn the_elements_start_on_threads_of_any_runtime_of_the_application() {
    let _test = start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("there are threads");
    let up_and_down = || {
        for element in [
            sink(""),
            gst::parse::launch(&format!(
                "irohlivesrc {LOCAL} ticket=iroh-live:{}/x",
                "A".repeat(43)
            ))
            .expect("the plugin is loaded"),
        ] {
            for state in [gst::State::Ready, gst::State::Null] {
                element
                    .set_state(state)
                    .expect("the element starts and stops");
            }
        }
    };
    runtime.block_on(async { up_and_down() });
    tokio::task::LocalSet::new().block_on(&runtime, async { up_and_down() });
}

#[test]
fn a_sync_handler_that_waits_for_the_one_who_stops_the_element_does_not_keep_it_from_stopping() {
    let _test = start();
    let sink = sink("ticket-location=/nowhere/at/all");
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    let held = Arc::new(Mutex::new(()));
    let guard = held.lock().expect("it is new");
    let (sender, called) = mpsc::channel();
    let wanted = held.clone();
    bus.set_sync_handler(move |_, message| {
        if message.type_() == gst::MessageType::Error {
            let _ = sender.send(());
            drop(wanted.lock());
        }
        gst::BusSyncReply::Drop
    });
    sink.set_state(gst::State::Ready).expect("it starts");
    called.recv_timeout(PATIENCE).expect("there is an error");
    sink.set_state(gst::State::Null).expect("it stops");
    drop(guard);
}
