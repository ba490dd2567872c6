//! What the pipeline says of its branches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::{glib, prelude::*};
use tokio::sync::mpsc;

/// Which part of a branch a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Decoder,
    Output,
}

/// What the pipeline says of a branch.
#[derive(Debug)]
pub(super) enum Report {
    /// An element cannot go on.
    Failed(Failure),
    /// All has been played.
    Ended,
}

/// A branch failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) part: Part,
    pub(super) reason: String,
}

impl Failure {
    pub(super) fn new(part: Part, error: &impl std::fmt::Display) -> Self {
        Self {
            part,
            reason: error.to_string(),
        }
    }
}

/// Brings what the bus says to the branch that it is said of.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports(Arc<Mutex<Vec<Listening>>>);

#[derive(Debug)]
struct Listening {
    bin: glib::WeakRef<gst::Bin>,
    output: glib::WeakRef<gst::Bin>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Reports {
    fn list(&self) -> MutexGuard<'_, Vec<Listening>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, bin: &gst::Bin, output: &gst::Bin) -> mpsc::UnboundedReceiver<Report> {
        let (reports, receiver) = mpsc::unbounded_channel();
        self.list().push(Listening {
            bin: bin.downgrade(),
            output: output.downgrade(),
            reports,
        });
        receiver
    }

    pub(super) fn remove(&self, bin: &gst::Bin) {
        self.list()
            .retain(|listening| listening.bin.upgrade().is_some_and(|other| other != *bin));
    }

    /// Passes on what the message says of a branch.
    pub(super) fn route(&self, message: &gst::Message) {
        use gst::MessageView;
        let Some(source) = message.src() else { return };
        match message.view() {
            MessageView::Error(error) => {
                let reason = error.error().to_string();
                tracing::debug!(element = %source.name(), %reason, debug = ?error.debug(), "error");
                self.report(source, |part| Report::Failed(Failure { part, reason }));
            }
            MessageView::Warning(warning) => {
                let text = warning.error().to_string();
                tracing::debug!(element = %source.name(), text, debug = ?warning.debug(), "warning");
            }
            MessageView::Element(element) => {
                let ended = element
                    .structure()
                    .filter(|structure| structure.name() == "GstBinForwarded")
                    .and_then(|structure| structure.get::<gst::Message>("message").ok())
                    .filter(|inner| inner.type_() == gst::MessageType::Eos);
                if let Some(source) = ended.as_ref().and_then(|ended| ended.src()) {
                    self.report(source, |_| Report::Ended);
                }
            }
            _ => {}
        }
    }

    fn report(&self, source: &gst::Object, report: impl FnOnce(Part) -> Report) {
        let mut part = Part::Decoder;
        let mut object = Some(source.clone());
        let list = self.list();
        while let Some(at) = object {
            if let Some(listening) = list.iter().find(|listening| is(&listening.bin, &at)) {
                // The branch may be going.
                let _ = listening.reports.send(report(part));
                return;
            }
            if list.iter().any(|listening| is(&listening.output, &at)) {
                part = Part::Output;
            }
            object = at.parent();
        }
    }
}

fn is(weak: &glib::WeakRef<gst::Bin>, object: &gst::Object) -> bool {
    weak.upgrade()
        .is_some_and(|bin| bin.upcast_ref::<gst::Object>() == object)
}
