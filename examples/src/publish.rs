//! Publishes a test card, or a file as it is.

use std::{
    io::Read,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use gst::prelude::*;

use crate::{
    check_file,
    numbered::Numbered,
    pipeline::{self, Event},
    say, ticket,
};

/// Tells a publisher that another process watches over it: it prints the ticket only, and ends with its standard input.
///
/// A pipe and not a signal, because a pipe closes however the other process ends.
pub const CHILD_FLAG: &str = "--child";

/// Names of messages of this program to itself: the file has something to publish, and the other process is gone.
const PLAYABLE: &str = "playable";
const ALONE: &str = "alone";

/// A picture in which one sees time pass, and a quiet tone.
///
/// What makes this fit for live video: `tune=zerolatency`, without which x264enc holds back more than a second; a key
/// frame every 2 s (`key-int-max=60`), as viewers can begin at one only; and in front of the encoder a queue that drops
/// pictures (`leaky`), so that a busy machine shows fewer pictures, but never older ones.
const TEST_CARD: &str = "\
    videotestsrc is-live=true pattern=smpte ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1 \
    ! clockoverlay time-format=%H:%M:%S halignment=left valignment=top font-desc=\"Sans Bold 32\" \
    ! timeoverlay halignment=right valignment=top font-desc=\"Sans Bold 32\" \
    ! queue leaky=downstream max-size-buffers=2 \
    ! x264enc tune=zerolatency speed-preset=superfast bitrate=2500 key-int-max=60 \
    ! irohlivesink name=stream broadcast=test-card \
    audiotestsrc is-live=true freq=440 volume=0.1 samplesperbuffer=480 \
    ! audio/x-raw,rate=48000,channels=2 ! queue ! opusenc ! stream.audio_0";

#[derive(Debug, PartialEq)]
pub struct Options {
    /// What to publish instead of the test card.
    pub file: Option<PathBuf>,
    /// On this network only: without relays and without a lookup on the internet.
    pub local: bool,
    /// See [`CHILD_FLAG`].
    pub child: bool,
}

/// Publishes until the file ends or somebody stops it.
///
/// These are different things. With the file the broadcast ends, and viewers are told. When it is stopped in the middle,
/// viewers wait: it may be back with the same identity.
pub fn run(options: &Options) -> Result<()> {
    let pipeline = match &options.file {
        Some(file) => {
            check_file(file)?;
            file_pipeline(file)?
        }
        None => pipeline::launch(TEST_CARD)?,
    };
    let sink = pipeline
        .by_name("stream")
        .ok_or_else(|| anyhow!("the pipeline has no sink"))?;
    if options.local {
        pipeline::stay_local(&sink, options.child);
    }
    let identity = if options.child {
        None
    } else {
        keep_identity(&sink)
    };
    let key = identity.as_ref().map(|kept| kept.path().to_owned());
    sink.add_property_notify_watch(Some("subscribers"), true);
    if options.child {
        end_with_standard_input(&pipeline);
    }
    let (weak, child) = (pipeline.downgrade(), options.child);
    // Nobody should get a ticket for a file that then turns out to be none: only when it plays, it is given out.
    let (mut ready, mut waiting, mut shown) = (options.file.is_none(), None, false);
    let outcome = pipeline::run(&pipeline, move |event| {
        let done = || ControlFlow::Break(Ok(()));
        match event {
            Event::Message(message) => match message.view() {
                gst::MessageView::Eos(_) | gst::MessageView::Error(_) if nothing_fits(&weak) => {
                    let reason = "there is nothing in it that can be published as it is";
                    return ControlFlow::Break(Err(anyhow!(reason)));
                }
                gst::MessageView::Eos(_) => return done(),
                gst::MessageView::PropertyNotify(notify) if !child => {
                    if let (_, "subscribers", Some(count)) = notify.get() {
                        let count = count.get::<u32>().unwrap_or_default();
                        eprintln!("{count} {}", if count == 1 { "viewer" } else { "viewers" });
                    }
                }
                gst::MessageView::Application(own) => match own.structure().map(|own| own.name()) {
                    Some(name) if name == PLAYABLE => ready = true,
                    _ => return done(),
                },
                gst::MessageView::Element(element) => {
                    waiting = new_ticket(element).or(waiting.take())
                }
                _ => {}
            },
            Event::Interrupt => return done(),
            Event::Second => {}
        }
        if let Some(ticket) = waiting.take_if(|_| ready)
            && let Err(error) = announce(
                &ticket,
                child,
                std::mem::replace(&mut shown, true),
                key.as_deref(),
            )
        {
            return ControlFlow::Break(Err(error));
        }
        ControlFlow::Continue(())
    });
    match &options.file {
        Some(file) => outcome.with_context(|| file.display().to_string()),
        None => outcome,
    }
}

/// Gives the sink an identity that is kept for the next time, unless the user has set one in the environment.
fn keep_identity(sink: &gst::Element) -> Option<Numbered> {
    if std::env::var_os("IROH_SECRET").is_some_and(|key| !key.is_empty()) {
        return None;
    }
    match Numbered::key() {
        Ok(identity) => {
            sink.set_property("secret-key-location", identity.path().to_str()?);
            Some(identity)
        }
        Err(error) => {
            eprintln!(
                "This publisher's identity cannot be kept, so that it has a new ticket next time: {error:#}"
            );
            None
        }
    }
}

fn new_ticket(message: &gst::message::Element) -> Option<String> {
    let structure = message
        .structure()
        .filter(|structure| structure.name() == "irohlive-ticket")?;
    structure.get::<String>("ticket").ok()
}

fn announce(text: &str, child: bool, again: bool, key: Option<&Path>) -> Result<()> {
    if child {
        return say(text);
    }
    if again {
        eprintln!("\nThe addresses of this machine changed; the new ticket:");
        return say(text);
    }
    ticket::show(text)?;
    eprintln!("Watch it on another machine:  make watch TICKET='{text}'");
    eprintln!("             or, installed:  gst-play-1.0 '{text}'");
    if let Some(key) = key {
        eprintln!(
            "This publisher's identity is kept in {}:\nwho has the ticket finds it again next time.",
            key.display()
        );
    }
    eprintln!("Ctrl-C stops it; viewers wait until it is back.\n");
    Ok(())
}

/// Posts a message on the bus when the process that holds the other end of standard input is gone.
fn end_with_standard_input(pipeline: &gst::Pipeline) {
    let bus = pipeline.bus();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let gone = gst::message::Application::new(gst::Structure::new_empty(ALONE));
        bus.map(|bus| bus.post(gone))
    });
}

/// `filesrc ! parsebin`, and from there every stream that irohlivesink takes, without decoding any.
fn file_pipeline(file: &std::path::Path) -> Result<gst::Pipeline> {
    let pipeline = gst::Pipeline::new();
    let source = pipeline::element("filesrc")?;
    source.set_property("location", file);
    let parser = pipeline::element("parsebin")?;
    parser.set_property("name", "parser");
    // A file interleaves its streams in chunks: this lets one wait for the other without stopping it.
    let queue = pipeline::element("multiqueue")?;
    queue.set_property("max-size-buffers", 0u32);
    let sink = pipeline::element("irohlivesink")?;
    sink.set_property("name", "stream");
    sink.set_property("broadcast", "movie");
    pipeline.add_many([&source, &parser, &queue, &sink])?;
    gst::Element::link_many([&source, &parser])?;
    let name = file.display().to_string();
    let (linked_queue, linked_sink) = (queue.downgrade(), sink.downgrade());
    parser.connect_pad_added(move |_, pad| {
        let (Some(queue), Some(sink)) = (linked_queue.upgrade(), linked_sink.upgrade()) else {
            return;
        };
        if let Err(error) = publish_stream(pad, &queue, &sink) {
            eprintln!("{name}: {error}");
        }
    });
    Ok(pipeline)
}

/// Whether the file has streams, and none of them could be published.
fn nothing_fits(pipeline: &gst::glib::WeakRef<gst::Pipeline>) -> bool {
    let element = |name| pipeline.upgrade()?.by_name(name);
    element("parser").is_some_and(|parser| parser.num_src_pads() > 0)
        && element("stream").is_some_and(|sink| sink.num_sink_pads() == 0)
}

fn publish_stream(pad: &gst::Pad, queue: &gst::Element, sink: &gst::Element) -> Result<()> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let template = ["video_%u", "audio_%u"]
        .into_iter()
        .filter_map(|template| sink.pad_template(template))
        .find(|template| template.caps().can_intersect(&caps));
    let what = || match caps.is_fixed() {
        true => gst_pbutils::pb_utils_get_codec_description(&caps).to_string(),
        false => caps.to_string(),
    };
    ensure!(
        template.is_some(),
        "{} is left out, as irohlivesink does not take it",
        what()
    );
    let input = queue.request_pad_simple("sink_%u").zip(template);
    let linked = input.and_then(|(input, template)| {
        pad.link(&input).ok()?;
        let output = input.iterate_internal_links().into_iter().next()?.ok()?;
        let taken = sink.request_pad(&template, None, None)?;
        taken.add_probe(gst::PadProbeType::BUFFER, |pad, _| {
            if let Some(sink) = pad.parent_element() {
                let playable = gst::Structure::new_empty(PLAYABLE);
                let _ = sink.post_message(gst::message::Application::new(playable));
            }
            gst::PadProbeReturn::Remove
        });
        output.link(&taken).ok().map(drop)
    });
    linked.with_context(|| format!("{} could not be linked", what()))
}
