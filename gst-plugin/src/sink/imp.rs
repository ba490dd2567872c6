use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    broadcast::{LocalTrack, MediaKind, PublishTrackError, TrackConfig, TrackReservation},
    media::caps::{Codec, sink_caps},
};

use super::{Status, Sync, pad::Pad, publisher::Publisher};
use crate::{network::NetworkSettings, notifier::Notifier, stats};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "irohlivesink",
        gst::DebugColorFlags::empty(),
        Some("iroh-live: publishing"),
    )
});

#[derive(Debug, Clone, Default)]
struct Settings {
    network: NetworkSettings,
    broadcast: Option<String>,
    ticket_location: Option<PathBuf>,
    sync: Sync,
}

#[derive(Debug, Default)]
struct Shown {
    ticket: Option<String>,
    status: Status,
    subscribers: u32,
}

// Lock order: `pads` before a pad's own state; `publisher` is a leaf, as are `settings` and `shown`. None is held while
// a signal is emitted, a pad added or a child's state changed.
#[derive(Default)]
pub struct IrohLiveSink {
    settings: Mutex<Settings>,
    shown: Mutex<Shown>,
    publisher: Mutex<Option<Arc<Publisher>>>,
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
            let mut properties = vec![
                glib::ParamSpecString::builder("broadcast")
                    .nick("Broadcast")
                    .blurb("Name of the broadcast, a part of the ticket. If unset: the element's name")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("ticket")
                    .nick("Ticket")
                    .blurb("What a viewer needs to watch. Notified when it is known, and again when the addresses change")
                    .read_only()
                    .build(),
                glib::ParamSpecString::builder("ticket-location")
                    .nick("Ticket location")
                    .blurb("A file that the ticket is written to")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<Status>("status")
                    .nick("Status")
                    .blurb("What the element is at")
                    .read_only()
                    .build(),
                glib::ParamSpecUInt::builder("subscribers")
                    .nick("Subscribers")
                    .blurb("How many peers are connected")
                    .read_only()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(concat!(
                        "tracks: a structure with a field for each pad, itself a structure: name, frames, bytes, watched. subscribers: one with a field for each peer, named by its id: ",
                        stats::path_fields!()
                    ))
                    .read_only()
                    .build(),
                glib::ParamSpecEnum::builder::<Sync>("sync")
                    .nick("Sync")
                    .blurb("Whether to wait on the clock before sending")
                    .mutable_ready()
                    .build(),
            ];
            properties.extend(NetworkSettings::properties());
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
        let mut settings = lock(&self.settings);
        let text = || {
            value
                .get::<Option<String>>()
                .ok()
                .flatten()
                .filter(|text| !text.is_empty())
        };
        match pspec.name() {
            "broadcast" => settings.broadcast = text(),
            "ticket-location" => settings.ticket_location = text().map(Into::into),
            "sync" => settings.sync = value.get().unwrap_or_default(),
            name => {
                settings.network.set(name, value);
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "broadcast" => self.broadcast_name().to_value(),
            "ticket-location" => lock(&self.settings)
                .ticket_location
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .to_value(),
            "sync" => lock(&self.settings).sync.to_value(),
            "ticket" => lock(&self.shown).ticket.to_value(),
            "status" => lock(&self.shown).status.to_value(),
            "subscribers" => lock(&self.shown).subscribers.to_value(),
            "stats" => self.stats().to_value(),
            name => lock(&self.settings)
                .network
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
        let pad = Pad::new(self, template, &name)
            .and_then(|pad| pad.add_to(element.upcast_ref()).map(|()| pad))
            .inspect_err(|error| gst::error!(CAT, imp = self, "pad {name}: {error}"))
            .ok()?;
        if let Some(broadcast) = self.publisher().and_then(|publisher| publisher.broadcast()) {
            pad.begin(broadcast.reserve_track());
        }
        let ghost = pad.ghost.clone();
        lock(&self.pads).push(pad);
        if ghost.set_active(true).is_err() || element.add_pad(&ghost).is_err() {
            self.release_pad(ghost.upcast_ref());
            return None;
        }
        element.child_added(&ghost, &ghost.name());
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
        removed.finish();
        let _ = removed.ghost.set_active(false);
        removed.remove_from(self.obj().upcast_ref());
        removed.end();
        let element = self.obj();
        if element.remove_pad(pad).is_ok() {
            element.child_removed(pad, &pad.name());
        }
        self.pad_ended();
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => self.open()?,
            gst::StateChange::ReadyToPaused => self.begin()?,
            gst::StateChange::PausedToPlaying => {
                if let Some(publisher) = self.publisher() {
                    publisher.resume();
                }
            }
            _ => {}
        }
        let result = self.parent_change_state(transition);
        match transition {
            gst::StateChange::PausedToReady => self.end(),
            gst::StateChange::ReadyToNull => self.close(),
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
            self.pad_failed(&pad, &error.error().to_string());
            return;
        }
        self.parent_handle_message(message);
    }
}

impl ChildProxyImpl for IrohLiveSink {
    fn children_count(&self) -> u32 {
        u32::from(self.obj().num_pads())
    }

    fn child_by_name(&self, name: &str) -> Option<glib::Object> {
        self.obj().static_pad(name).map(glib::object::Cast::upcast)
    }

    fn child_by_index(&self, index: u32) -> Option<glib::Object> {
        self.obj()
            .pads()
            .into_iter()
            .nth(index as usize)
            .map(glib::object::Cast::upcast)
    }
}

impl IrohLiveSink {
    pub(super) fn of(element: &super::IrohLiveSink) -> &Self {
        element.imp()
    }

    pub(super) fn weak_element(&self) -> glib::WeakRef<super::IrohLiveSink> {
        self.obj().downgrade()
    }

    pub(super) fn publisher(&self) -> Option<Arc<Publisher>> {
        lock(&self.publisher).clone()
    }

    pub(super) fn running_time(&self) -> Option<gst::ClockTime> {
        self.obj().current_running_time()
    }

    fn broadcast_name(&self) -> String {
        lock(&self.settings)
            .broadcast
            .clone()
            .unwrap_or_else(|| self.obj().name().into())
    }

    fn find(&self, is: impl Fn(&Pad) -> bool) -> Option<Arc<Pad>> {
        lock(&self.pads).iter().find(|pad| is(pad)).cloned()
    }

    fn open(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let opened = settings.network.open(true).and_then(|live| {
            Publisher::start(
                &self.obj(),
                &self.notifier,
                live,
                self.broadcast_name(),
                settings.ticket_location,
            )
        });
        match opened {
            Ok(publisher) => {
                *lock(&self.publisher) = Some(Arc::new(publisher));
                self.set_status(|_| Status::Starting);
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
        match publisher.begin() {
            Ok(broadcast) => {
                for pad in lock(&self.pads).iter() {
                    pad.begin(broadcast.reserve_track());
                }
                self.set_status(|status| match status {
                    Status::Ended => Status::Published,
                    status => status,
                });
                Ok(())
            }
            Err(message) => {
                self.post_error_message(message);
                Err(gst::StateChangeError)
            }
        }
    }

    fn end(&self) {
        if let Some(publisher) = self.publisher() {
            publisher.end();
        }
        for pad in lock(&self.pads).iter() {
            pad.end();
        }
    }

    fn close(&self) {
        let publisher = lock(&self.publisher).take();
        if let Some(publisher) = publisher {
            publisher.stop();
        }
        *lock(&self.shown) = Shown::default();
        for property in ["ticket", "status", "subscribers"] {
            self.obj().notify(property);
        }
    }

    pub(super) fn set_ticket(&self, ticket: String) {
        gst::info!(CAT, imp = self, "ticket: {ticket}");
        lock(&self.shown).ticket = Some(ticket.clone());
        self.obj().notify("ticket");
        self.set_status(Status::announced);
        let structure = gst::Structure::builder("irohlive-ticket")
            .field("broadcast", self.broadcast_name())
            .field("ticket", ticket)
            .build();
        let message = gst::message::Element::builder(structure)
            .src(&*self.obj())
            .build();
        let _ = self.obj().post_message(message);
    }

    pub(super) fn set_subscribers(&self, count: usize) {
        lock(&self.shown).subscribers = u32::try_from(count).unwrap_or(u32::MAX);
        self.obj().notify("subscribers");
    }

    fn set_status(&self, change: impl Fn(Status) -> Status) {
        let mut shown = lock(&self.shown);
        let status = change(shown.status);
        let changed = std::mem::replace(&mut shown.status, status) != status;
        drop(shown);
        if changed {
            self.obj().notify("status");
        }
    }

    fn stats(&self) -> gst::Structure {
        let pads = lock(&self.pads).clone();
        let tracks = pads
            .iter()
            .map(|pad| (pad.ghost.name().into(), pad.stats()));
        let subscribers = self
            .publisher()
            .map(|publisher| publisher.stats())
            .unwrap_or_default();
        gst::Structure::builder("application/x-irohlivesink-stats")
            .field("tracks", stats::nested("tracks", tracks))
            .field("subscribers", stats::nested("subscribers", subscribers))
            .build()
    }

    pub(super) fn sink_event(
        &self,
        ghost: &gst::GhostPad,
        parent: Option<&impl IsA<gst::Object>>,
        event: gst::Event,
    ) -> bool {
        if let gst::EventView::Caps(caps) = event.view()
            && let Some(pad) = self.find(|pad| pad.ghost == *ghost)
        {
            let sync = lock(&self.settings).sync;
            if let Err(message) = pad.configure(self.obj().upcast_ref(), caps.caps(), sync) {
                self.post_error_message(message);
                return false;
            }
        }
        gst::Pad::event_default(ghost, parent, event)
    }

    /// Keeps what is wrong with one pad from stopping the others.
    pub(super) fn isolate(
        &self,
        ghost: &gst::GhostPad,
        flow: Result<gst::FlowSuccess, gst::FlowError>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let Some(pad) = self.find(|pad| pad.ghost == *ghost) else {
            return flow;
        };
        let failed = matches!(
            flow,
            Err(gst::FlowError::Error | gst::FlowError::NotNegotiated)
        );
        if !failed && !pad.is_fruitless() {
            return flow;
        }
        if self.pad_failed(&pad, "the stream cannot be parsed") {
            Ok(gst::FlowSuccess::Ok)
        } else {
            Err(gst::FlowError::Error)
        }
    }

    /// Says on the bus that a pad failed. Returns whether others go on.
    fn pad_failed(&self, pad: &Pad, reason: &str) -> bool {
        let told = pad.fail(reason);
        let others = lock(&self.pads).iter().any(|pad| pad.failure().is_none());
        let Some(reason) = told else { return others };
        let name = pad.ghost.name();
        if others {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Decode,
                ("Pad {name} is not published any more: {reason}. The other pads go on")
            );
        } else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Decode,
                ("Pad {name} cannot be published: {reason}. Put a parser before it, or look at what comes into it")
            );
        }
        others
    }

    pub(super) fn publish_track(
        &self,
        reservation: Option<TrackReservation>,
        pad: &Pad,
        codec: Codec,
        config: TrackConfig,
    ) -> Result<LocalTrack, PublishTrackError> {
        let publisher = self.publisher().ok_or(PublishTrackError::Ended)?;
        let broadcast = publisher.broadcast().ok_or(PublishTrackError::Ended)?;
        let kind = if codec.is_video() { "video" } else { "audio" };
        // A pad may carry what its name does not say, and then another pad's name is not to be taken.
        let own = pad.ghost.name().to_string();
        let free = (0..).map(|n| format!("{kind}_{n}")).find(|name| {
            self.obj().static_pad(name).is_none()
                && !broadcast.catalog().video.renditions.contains_key(name)
                && !broadcast.catalog().audio.renditions.contains_key(name)
        });
        let name = match free {
            Some(free) if !own.starts_with(kind) => free,
            _ => own,
        };
        let track = broadcast.publish_track(name, config)?;
        // Given up only now, so that the first catalog has the track in it.
        drop(reservation);
        Ok(track)
    }

    /// Ends the broadcast when nothing comes from any pad any more.
    pub(super) fn pad_ended(&self) {
        let pads = lock(&self.pads);
        if pads.is_empty() || !pads.iter().all(|pad| pad.has_ended()) {
            return;
        }
        drop(pads);
        if let Some(broadcast) = self.publisher().and_then(|publisher| publisher.broadcast()) {
            broadcast.finish();
            self.set_status(|_| Status::Ended);
        }
    }

    pub(super) fn write(
        &self,
        pad: &Pad,
        sample: &gst::Sample,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        pad.write(self, sample)
    }
}
