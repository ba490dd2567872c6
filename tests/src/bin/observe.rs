//! The viewer of the tests on bad networks, a process of its own as it lives in a network namespace.
//!
//! `observe FILE PROPERTY=VALUE...` watches with an `irohlivesrc` that has these properties, and writes a line to the
//! file for each buffer: the pad, then in nanoseconds the wall-clock times of arrival and of capture, the running time
//! of arrival and the PTS, then `discont` if it is one. Runs until it is killed or the broadcast ends.

use std::{
    error::Error,
    fs::File,
    io::Write,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use gst::prelude::*;
use iroh_live_tests::nick;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("which file to write?")?;
    let file = Arc::new(Mutex::new(File::create(file)?));
    gst::init()?;
    let source = gst::ElementFactory::make("irohlivesrc").build()?;
    for argument in arguments {
        let (property, value) = argument.split_once('=').ok_or("PROPERTY=VALUE")?;
        source.set_property_from_str(property, value);
    }
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source)?;
    source.connect_notify(Some("status"), |source, _| {
        println!("status: {}", nick(source, "status"));
    });
    let weak = pipeline.downgrade();
    source.connect_pad_added(move |_, pad| {
        if let Some(pipeline) = weak.upgrade() {
            let watched = watch(&pipeline, pad, &file);
            watched.unwrap_or_else(|error| println!("ERROR: {error}"));
        }
    });
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Error(error) => return Err(error.error().into()),
            gst::MessageView::Warning(warning) => println!("{}", warning.error()),
            gst::MessageView::Eos(_) => break,
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

/// Puts a sink behind the pad that writes down what comes.
fn watch(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    file: &Arc<Mutex<File>>,
) -> Result<(), Box<dyn Error>> {
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .property("async", false)
        .build()?;
    pipeline.add(&sink)?;
    let (weak, file, name) = (pipeline.downgrade(), file.clone(), pad.name());
    let input = sink.static_pad("sink").ok_or("a sink has a pad")?;
    input.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let arrival = SystemTime::now().duration_since(UNIX_EPOCH);
        let running = weak.upgrade().and_then(|it| it.current_running_time());
        if let Some(buffer) = info.buffer()
            && let Some(captured) = buffer.meta::<gst::ReferenceTimestampMeta>()
            && let (Some(pts), Some(running), Ok(arrival)) = (buffer.pts(), running, arrival)
            && let Ok(mut file) = file.lock()
        {
            let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
            let written = writeln!(
                file,
                "{name} {} {} {} {}{}",
                arrival.as_nanos(),
                captured.timestamp().nseconds(),
                running.nseconds(),
                pts.nseconds(),
                if discont { " discont" } else { "" },
            );
            written.unwrap_or_else(|error| println!("ERROR: {error}"));
        }
        gst::PadProbeReturn::Ok
    });
    sink.sync_state_with_parent()?;
    pad.link(&input)?;
    Ok(())
}
