//! What publishing and watching have in common: making pipelines, running them, saying what is wrong.

use std::{cell::RefCell, ops::ControlFlow, rc::Rc, time::Duration};

use anyhow::{Context, Result, anyhow};
use gst::{glib, prelude::*};

/// Something that the program has to react to.
pub enum Event<'a> {
    /// From the bus of the pipeline.
    Message(&'a gst::Message),
    /// A second has passed.
    Second,
    /// Ctrl-C, or a request to end.
    Interrupt,
}

/// Makes a pipeline of a description as `gst-launch-1.0` takes it.
pub fn launch(description: &str) -> Result<gst::Pipeline> {
    let mut context = gst::ParseContext::new();
    let made = gst::parse::launch_full(
        description,
        Some(&mut context),
        gst::ParseFlags::FATAL_ERRORS,
    )
    .map_err(|error| explain(&context, &error))?;
    made.downcast::<gst::Pipeline>()
        .map_err(|_| anyhow!("{description} is not a pipeline"))
}

/// Makes a bin of a description, whose pad `sink` is that of its element named `input`.
///
/// The automatic choice of a pad is no help here: before a decoder has made its output, the element behind it has an
/// unlinked pad as well.
pub fn branch(description: &str) -> Result<gst::Bin> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    let made = gst::parse::bin_from_description_full(description, false, Some(&mut context), flags)
        .map_err(|error| explain(&context, &error))?;
    let bin = made
        .downcast::<gst::Bin>()
        .map_err(|_| anyhow!("{description} is not a bin"))?;
    let input = bin
        .by_name("input")
        .and_then(|input| input.static_pad("sink"));
    let pad = gst::GhostPad::builder_with_target(&input.context("the branch has an input")?)?;
    bin.add_pad(&pad.name("sink").build())?;
    Ok(bin)
}

/// Makes one element.
pub fn element(factory: &str) -> Result<gst::Element> {
    gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| anyhow!("{}", missing(factory)))
}

fn explain(context: &gst::ParseContext, error: &glib::Error) -> anyhow::Error {
    match context.missing_elements().first() {
        Some(factory) => anyhow!("{}", missing(factory)),
        None => anyhow!("{}", error.message()),
    }
}

/// Where an element comes from on Debian and Ubuntu.
fn package(factory: &str) -> &'static str {
    match factory {
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "clockoverlay" | "timeoverlay" => "gstreamer1.0-x",
        "autovideosink" | "autoaudiosink" | "pngenc" => "gstreamer1.0-plugins-good",
        "filesrc" | "fakesink" | "queue" | "multiqueue" => "libgstreamer1.0-0",
        _ => "gstreamer1.0-plugins-base",
    }
}

fn missing(factory: &str) -> String {
    if factory.starts_with("irohlive") {
        return "GStreamer does not find the plugin of this project. Install it with `make install`, or, after \
                `make build`, set GST_PLUGIN_PATH to the folder target/gstreamer-1.0"
            .into();
    }
    format!(
        "The GStreamer element {factory} is missing; on Debian and Ubuntu: apt install {}",
        package(factory)
    )
}

/// Keeps an element from using relays and lookup services on the internet, which a machine without one would wait for.
///
/// `alone` leaves out the search on the local network, too, for two ends that never move.
pub fn stay_local(element: &gst::Element, alone: bool) {
    element.set_property_from_str("relay-mode", "disabled");
    element.set_property_from_str("address-lookup", if alone { "none" } else { "mdns" });
}

/// Plays the pipeline and hands over what happens, until the handler breaks off.
///
/// Warnings are printed here, and an error ends it, each as its sentence only.
pub fn run(
    pipeline: &gst::Pipeline,
    handler: impl FnMut(Event<'_>) -> ControlFlow<Result<()>> + 'static,
) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    if pipeline.set_state(gst::State::Playing).is_err() {
        let error = bus.pop_filtered(&[gst::MessageType::Error]);
        let _ = pipeline.set_state(gst::State::Null);
        return Err(error
            .as_ref()
            .map_or_else(|| anyhow!("The pipeline does not start"), sentence));
    }
    let main_loop = glib::MainLoop::new(None, false);
    let outcome = Rc::new(RefCell::new(Ok(())));
    let react = {
        let (main_loop, outcome) = (main_loop.clone(), outcome.clone());
        let handler = RefCell::new(handler);
        Rc::new(move |event: Event<'_>| {
            if let ControlFlow::Break(result) = (handler.borrow_mut())(event) {
                *outcome.borrow_mut() = result;
                main_loop.quit();
            }
        })
    };
    let (weak, own) = (pipeline.downgrade(), react.clone());
    let (failed, failed_loop) = (outcome.clone(), main_loop.clone());
    let guard = bus.add_watch_local(move |_, message| {
        match message.view() {
            gst::MessageView::Error(_) => {
                // Whoever asked the handler first knows better; of several errors the first is the cause.
                own(Event::Message(message));
                let mut outcome = failed.borrow_mut();
                if outcome.is_ok() {
                    *outcome = Err(sentence(message));
                }
                failed_loop.quit();
                return glib::ControlFlow::Break;
            }
            gst::MessageView::Warning(warning) => eprintln!("{}", warning.error().message()),
            gst::MessageView::Latency(_) => {
                if let Some(pipeline) = weak.upgrade() {
                    let _ = pipeline.recalculate_latency();
                }
            }
            _ => {}
        }
        own(Event::Message(message));
        glib::ControlFlow::Continue
    })?;
    let mut sources = Vec::new();
    let own = react.clone();
    sources.push(glib::timeout_add_local(Duration::from_secs(1), move || {
        own(Event::Second);
        glib::ControlFlow::Continue
    }));
    // SIGHUP, SIGINT and SIGTERM: the terminal closes, Ctrl-C, and `kill`.
    for signal in [1, 2, 15] {
        let own = react.clone();
        sources.push(glib_unix::unix_signal_add_local(signal, move || {
            own(Event::Interrupt);
            glib::ControlFlow::Continue
        }));
    }
    main_loop.run();
    sources.into_iter().for_each(glib::SourceId::remove);
    drop(guard);
    let _ = pipeline.set_state(gst::State::Null);
    Rc::into_inner(react);
    outcome.replace(Ok(()))
}

/// An error's sentence, without the code lines that GStreamer adds for developers.
fn sentence(message: &gst::Message) -> anyhow::Error {
    match message.view() {
        gst::MessageView::Error(error) => anyhow!("{}", error.error().message()),
        _ => anyhow!("The pipeline does not start"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_is_answered_with_its_package() {
        assert!(missing("x264enc").contains("apt install gstreamer1.0-plugins-ugly"));
        assert!(missing("opusenc").contains("apt install gstreamer1.0-plugins-base"));
        assert!(missing("irohlivesink").contains("make install"));
    }
}
