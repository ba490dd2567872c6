//! `irohlivesink`: publishes what is linked to it.

/**
 * SECTION:element-irohlivesink
 * @see_also: irohlivesrc
 *
 * Publishes encoded audio and video, peer to peer, with no server, and gives out a ticket to watch it with: the property
 * #GstIrohLiveSink:ticket, an INFO message, and an ELEMENT message named `irohlive-ticket`.
 *
 * Pads are requested, and take any codec whatever their name; a link that names no pad gets a `sink_%u`. Files are paced by
 * the clock, unless #GstIrohLiveSink:sync is off; live sources are never delayed. EOS on all pads that are linked ends the
 * broadcast for its viewers; a stream that begins after that, as after a flushing seek, is another broadcast with the same
 * ticket.
 *
 * ## Example pipelines
 * |[
 * gst-launch-1.0 videotestsrc is-live=true ! x264enc tune=zerolatency key-int-max=60 ! irohlivesink name=stream
 * ]| Publishes a test card, and prints the ticket.
 * |[
 * gst-launch-1.0 filesrc location=movie.mp4 ! qtdemux name=d  d. ! queue ! irohlivesink name=movie  d. ! queue ! movie.
 * ]| Publishes the picture and the sound of a file.
 */
use gst::{glib, prelude::*};

mod caps;
mod eos;
mod imp;
mod keyframes;
mod latency;
mod pad;
mod preroll;
mod publisher;
mod settings;
mod stall;
mod status;
mod track;

pub use status::Status;

glib::wrapper! {
    /// Publishes encoded audio and video, peer to peer, and gives out a ticket to watch it with.
    pub struct IrohLiveSink(ObjectSubclass<imp::IrohLiveSink>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "irohlivesink",
        gst::Rank::NONE,
        IrohLiveSink::static_type(),
    )
}
