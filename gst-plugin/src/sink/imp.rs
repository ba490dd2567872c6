use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    LiveTicket, LocalBroadcast, broadcast::MediaKind, iroh::EndpointId, media::caps::sink_caps,
};
use tokio_util::sync::CancellationToken;

use super::{
    caps,
    pad::{Host, Pad},
    publisher::{Event, Publisher},
    settings::Settings,
    stall,
    status::{self, Readings, Status},
};
use crate::{endpoint::Role, log::SINK as CAT, notifier::Notifier, stats};

/// What lives from READY to NULL.
struct Open {
    publisher: Arc<Publisher>,
    /// Cancelled under the lock of `readings`: what comes late must not change them.
    closed: CancellationToken,
}

// Lock order: `pads` before a pad's own state and the publisher's; `open` is a leaf, as are `settings` and `readings`. None is
// held while a signal is emitted, a message posted, a pad added or a child's state changed. That of `pads` is held while the
// broadcast begins or ends, so that no pad is left with one that is over.
#[derive(Default)]
pub struct IrohLiveSink {
    settings: Mutex<Settings>,
    readings: Mutex<Readings>,
    open: Mutex<Option<Open>>,
    pads: Mutex<Vec<Arc<Pad>>>,
    notifier: Notifier,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for IrohLiveSink {
    const NAME: &'static str = "GstIrohLiveSink";
    type Type = super::IrohLiveSink;
    type ParentType = gst::Bin;
}

impl ObjectImpl for IrohLiveSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut properties = Settings::properties();
            properties.extend(status::properties());
            properties
        });
        PROPERTIES.as_ref()
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            ["subscriber-added", "subscriber-removed"]
                .into_iter()
                .map(|name| {
                    glib::subclass::Signal::builder(name)
                        .param_types([String::static_type()])
                        .build()
                })
                .collect()
        });
        SIGNALS.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.settings).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "broadcast" => self.broadcast_name().to_value(),
            "ticket" => lock(&self.readings).ticket.to_value(),
            "status" => lock(&self.readings).status.to_value(),
            "subscribers" => u32::try_from(lock(&self.readings).viewers.len())
                .unwrap_or(u32::MAX)
                .to_value(),
            "stats" => self.stats().to_value(),
            name => lock(&self.settings)
                .get(name)
                .unwrap_or_else(|| pspec.default_value().clone()),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        element.set_suppressed_flags(gst::ElementFlags::SINK | gst::ElementFlags::SOURCE);
        element.set_element_flags(gst::ElementFlags::SINK);
    }

    fn dispose(&self) {
        lock(&self.pads).clear();
    }
}

impl GstObjectImpl for IrohLiveSink {}

impl ElementImpl for IrohLiveSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Iroh live sink",
                "Sink/Network",
                "Publishes encoded audio and video, peer to peer over iroh; anyone with its ticket watches, \
                 with irohlivesrc, gst-play-1.0 or playbin",
                "The iroh-live developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, caps| {
                gst::PadTemplate::new(
                    name,
                    gst::PadDirection::Sink,
                    gst::PadPresence::Request,
                    &caps,
                )
                .expect("the templates are well-formed")
            };
            vec![
                // The first that fits is what a link that names no pad gets.
                template("sink_%u", caps::all()),
                template("video_%u", sink_caps(MediaKind::Video)),
                template("audio_%u", sink_caps(MediaKind::Audio)),
            ]
        });
        TEMPLATES.as_ref()
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let element = self.obj();
        let name = match name {
            Some(name) if element.static_pad(name).is_some() => {
                gst::warning!(CAT, imp = self, "there is a pad {name} already");
                return None;
            }
            Some(name) => name.to_owned(),
            None => {
                let prefix = template.name_template().trim_end_matches("%u");
                (0..)
                    .map(|n| format!("{prefix}{n}"))
                    .find(|name| element.static_pad(name).is_none())?
            }
        };
        let pad = Pad::new(self, template, &name);
        if let Err(error) = pad.add_to(element.upcast_ref()) {
            gst::error!(CAT, imp = self, "pad {name}: {error}");
            return None;
        }
        let ghost = pad.ghost.clone();
        {
            let mut pads = lock(&self.pads);
            if let Some(broadcast) = self.broadcast() {
                pad.begin(&broadcast);
            }
            pads.push(pad);
        }
        if ghost.set_active(true).is_err() || element.add_pad(&ghost).is_err() {
            self.release_pad(ghost.upcast_ref());
            return None;
        }
        Some(ghost.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let removed = {
            let mut pads = lock(&self.pads);
            pads.iter()
                .position(|known| known.ghost.upcast_ref::<gst::Pad>() == pad)
                .map(|at| pads.remove(at))
        };
        let Some(removed) = removed else { return };
        removed.remove_from(self.obj().upcast_ref());
        let _ = self.obj().remove_pad(pad);
        self.pad_ended();
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        gst::debug!(CAT, imp = self, "{transition:?}");
        match transition {
            gst::StateChange::NullToReady => self.open()?,
            gst::StateChange::ReadyToPaused => self.begin()?,
            gst::StateChange::PausedToPlaying => {
                if let Some(broadcast) = self.broadcast() {
                    // Running time stood still while wall-clock time went on.
                    broadcast.resume();
                }
            }
            _ => {}
        }
        let result = self.parent_change_state(transition);
        gst::debug!(CAT, imp = self, "{transition:?}: {result:?}");
        match transition {
            gst::StateChange::PausedToReady => self.end(),
            gst::StateChange::ReadyToNull => self.close(),
            // Nobody takes an element down that did not go up.
            gst::StateChange::ReadyToPaused if result.is_err() => self.end(),
            gst::StateChange::NullToReady if result.is_err() => self.close(),
            _ => {}
        }
        result
    }
}

impl BinImpl for IrohLiveSink {
    fn handle_message(&self, message: gst::Message) {
        if let gst::MessageView::Error(error) = message.view()
            && let Some(source) = message.src()
            && let Some(pad) = self.find(|pad| pad.owns(source))
        {
            let reason = stall::with_mend(&error.error().to_string());
            self.pad_failed(&pad, gst::StreamError::Decode, &reason);
            return;
        }
        self.parent_handle_message(message);
    }
}

impl Host for IrohLiveSink {
    fn broadcast(&self) -> Option<LocalBroadcast> {
        self.publisher()?.broadcast()
    }

    fn waits_on_clock(&self) -> bool {
        lock(&self.settings).sync
    }

    fn name_track(&self, pad: &Pad, kind: MediaKind) {
        let kind = match kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        };
        let own = pad.ghost.name();
        let pads = lock(&self.pads);
        let mut others = BTreeSet::new();
        for other in pads.iter().filter(|other| !std::ptr::eq(&***other, pad)) {
            // A pad may carry what its name does not say, and then another pad's name is not to be taken.
            others.insert(other.ghost.name().to_string());
            others.extend(other.track_name());
        }
        let own = own.starts_with(kind).then(|| own.to_string());
        let current = pad.track_name().filter(|name| name.starts_with(kind));
        let free = (0..).map(|number| format!("{kind}_{number}"));
        let name = own
            .into_iter()
            .chain(current)
            .chain(free)
            .find(|name| !others.contains(name));
        if let Some(name) = name {
            pad.name_track(name);
        }
    }

    fn pad_begins(&self, pad: &Pad) {
        let begun = {
            let _pads = lock(&self.pads);
            let Some(publisher) = self.publisher() else {
                return;
            };
            publisher.current_or_next().map(|current| {
                let Some((broadcast, is_next)) = current else {
                    return;
                };
                if pad.has_ended() || !pad.is_part_of(&broadcast) {
                    pad.begin(&broadcast);
                }
                if is_next {
                    self.set_status(Status::Published);
                }
            })
        };
        if let Err(message) = begun {
            self.post_error_message(message);
        }
    }

    /// Ends the broadcast when nothing comes from any pad any more.
    fn pad_ended(&self) {
        let pads = lock(&self.pads);
        let over = pads.iter().any(|pad| pad.has_ended())
            && pads
                .iter()
                .all(|pad| pad.has_ended() || !pad.ghost.is_linked());
        if over
            && let Some(publisher) = self.publisher()
            && publisher.finish()
        {
            self.set_status(Status::Ended);
        }
    }

    fn pad_failed(&self, pad: &Pad, code: gst::StreamError, reason: &str) -> bool {
        let reason = pad.fail(reason);
        let flows = |pad: &Arc<Pad>| !pad.has_ended() && pad.ghost.is_linked();
        let others = lock(&self.pads).iter().any(flows);
        let Some(reason) = reason else { return others };
        let name = pad.ghost.name();
        if others {
            gst::element_imp_warning!(
                self,
                code,
                ("Pad {name} is not published any more: {reason}. The other pads go on")
            );
        } else {
            gst::element_imp_error!(self, code, ("Pad {name} cannot be published: {reason}"));
        }
        others
    }
}

impl IrohLiveSink {
    fn publisher(&self) -> Option<Arc<Publisher>> {
        lock(&self.open).as_ref().map(|open| open.publisher.clone())
    }

    fn broadcast_name(&self) -> String {
        lock(&self.settings)
            .broadcast
            .clone()
            .unwrap_or_else(|| self.obj().name().into())
    }

    fn open(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let closed = CancellationToken::new();
        let (weak, token) = (self.ref_counted().downgrade(), closed.clone());
        let handler = Arc::new(move |event| {
            if let Some(sink) = weak.upgrade() {
                sink.handle(event, &token);
            }
        });
        let network = settings.network.open(Role::Publish, settings.limits());
        let opened = network.and_then(|endpoint| {
            Publisher::start(
                endpoint,
                self.broadcast_name(),
                settings.ticket_location,
                &self.notifier,
                handler,
            )
        });
        match opened {
            Ok(publisher) => {
                let publisher = Arc::new(publisher);
                *lock(&self.open) = Some(Open { publisher, closed });
                // The ticket may have come already.
                self.set_status_if(Status::Idle, Status::Starting);
                Ok(())
            }
            Err(message) => {
                self.post_error_message(message);
                Err(gst::StateChangeError)
            }
        }
    }

    fn begin(&self) -> Result<(), gst::StateChangeError> {
        let publisher = self.publisher().ok_or(gst::StateChangeError)?;
        let begun = {
            let pads = lock(&self.pads);
            publisher.begin().map(|broadcast| {
                for pad in pads.iter() {
                    pad.begin(&broadcast);
                }
            })
        };
        match begun {
            Ok(()) => {
                self.set_status_if(Status::Ended, Status::Published);
                Ok(())
            }
            Err(message) => {
                self.post_error_message(message);
                Err(gst::StateChangeError)
            }
        }
    }

    fn end(&self) {
        let pads = lock(&self.pads);
        if let Some(publisher) = self.publisher() {
            publisher.end();
        }
        for pad in pads.iter() {
            pad.end();
        }
    }

    fn close(&self) {
        let open = lock(&self.open).take();
        if let Some(open) = &open {
            open.publisher.stop();
        }
        let last = {
            let mut readings = lock(&self.readings);
            if let Some(open) = &open {
                open.closed.cancel();
            }
            std::mem::take(&mut *readings)
        };
        if last.ticket.is_some() {
            self.notifier.notify(&*self.obj(), "ticket");
        }
        if last.status != Status::Idle {
            self.notifier.notify(&*self.obj(), "status");
        }
        if !last.viewers.is_empty() {
            self.notifier.notify(&*self.obj(), "subscribers");
            let element = self.obj().downgrade();
            self.notifier.call(move || {
                if let Some(element) = element.upgrade() {
                    emit_each(&element, "subscriber-removed", &last.viewers);
                }
            });
        }
    }

    /// On the notifier's thread.
    fn handle(&self, event: Event, closed: &CancellationToken) {
        match event {
            Event::Ticket(ticket) => self.set_ticket(&ticket, closed),
            Event::TicketFile(location, error) => gst::element_imp_error!(
                self,
                gst::ResourceError::OpenWrite,
                (
                    "The ticket cannot be written to {}: {error}. Set ticket-location to a file that can be written",
                    location.display()
                )
            ),
            Event::Viewers(viewers) => self.set_viewers(viewers, closed),
        }
    }

    fn set_ticket(&self, ticket: &LiveTicket, closed: &CancellationToken) {
        let text = ticket.to_string();
        let first = {
            let mut readings = lock(&self.readings);
            if closed.is_cancelled() {
                return;
            }
            if matches!(readings.status, Status::Idle | Status::Starting) {
                readings.status = Status::Published;
            }
            readings.ticket.replace(text.clone()).is_none()
        };
        gst::info!(CAT, imp = self, "ticket: {text}");
        if first && ticket.addr().is_empty() {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("This machine has no network that viewers could reach it by. The ticket gets its addresses when one is there")
            );
        }
        self.obj().notify("ticket");
        if first {
            self.obj().notify("status");
        }
        gst::element_imp_info!(
            self,
            gst::ResourceError::Settings,
            ("The ticket to watch this with: {text}"),
            // All that gst-launch-1.0 prints.
            ["{text}"]
        );
        let structure = gst::Structure::builder("irohlive-ticket")
            .field("broadcast", ticket.name())
            .field("ticket", text)
            .build();
        let message = gst::message::Element::builder(structure)
            .src(&*self.obj())
            .build();
        let _ = self.obj().post_message(message);
    }

    fn set_viewers(&self, viewers: BTreeSet<EndpointId>, closed: &CancellationToken) {
        let before = {
            let mut readings = lock(&self.readings);
            if closed.is_cancelled() {
                return;
            }
            std::mem::replace(&mut readings.viewers, viewers.clone())
        };
        let element = self.obj();
        element.notify("subscribers");
        emit_each(&element, "subscriber-added", viewers.difference(&before));
        emit_each(&element, "subscriber-removed", before.difference(&viewers));
    }

    fn set_status(&self, status: Status) {
        let changed = std::mem::replace(&mut lock(&self.readings).status, status) != status;
        if changed {
            self.notifier.notify(&*self.obj(), "status");
        }
    }

    fn set_status_if(&self, before: Status, status: Status) {
        let changed = {
            let mut readings = lock(&self.readings);
            let changed = readings.status == before;
            if changed {
                readings.status = status;
            }
            changed
        };
        if changed {
            self.notifier.notify(&*self.obj(), "status");
        }
    }

    fn find(&self, is: impl Fn(&Pad) -> bool) -> Option<Arc<Pad>> {
        lock(&self.pads).iter().find(|pad| is(pad)).cloned()
    }

    fn stats(&self) -> gst::Structure {
        let pads = lock(&self.pads).clone();
        let tracks = pads
            .iter()
            .map(|pad| (pad.ghost.name().into(), pad.stats()));
        let viewers = lock(&self.readings).viewers.clone();
        let mut subscribers = self
            .publisher()
            .map(|publisher| publisher.stats())
            .unwrap_or_default();
        subscribers.retain(|(id, _)| viewers.iter().any(|viewer| viewer.to_string() == *id));
        gst::Structure::builder("application/x-irohlivesink-stats")
            .field("tracks", stats::nested("tracks", tracks))
            .field("subscribers", stats::nested("subscribers", subscribers))
            .build()
    }
}

fn emit_each<'a>(
    element: &super::IrohLiveSink,
    signal: &str,
    peers: impl IntoIterator<Item = &'a EndpointId>,
) {
    for peer in peers {
        element.emit_by_name::<()>(signal, &[&peer.to_string()]);
    }
}

#[cfg(test)]
mod tests;
