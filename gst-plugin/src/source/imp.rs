use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    Live, LiveTicket, TrackConfig,
    broadcast::MediaKind,
    media::{caps::src_caps, receive::PlayoutClock},
    transport::MoqSession,
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Status,
    pads::Pads,
    session::{self, Run},
    track::Track,
};
use crate::{network::NetworkSettings, runtime};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "irohlivesrc",
        gst::DebugColorFlags::empty(),
        Some("iroh-live: watching"),
    )
});

const DEFAULT_LATENCY: u32 = 200;

#[derive(Debug, Clone)]
struct Settings {
    network: NetworkSettings,
    ticket: Option<String>,
    /// Milliseconds, as are the next two.
    latency: u32,
    max_lag: u32,
    timeout: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            network: NetworkSettings::default(),
            ticket: None,
            latency: DEFAULT_LATENCY,
            max_lag: 0,
            timeout: 0,
        }
    }
}

impl Settings {
    fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(self.latency.into())
    }

    /// How far a group may fall behind before it is skipped.
    fn max_age(&self) -> Duration {
        let lag = if self.max_lag == 0 {
            self.latency
        } else {
            self.max_lag
        };
        Duration::from_millis(lag.into())
    }
}

#[derive(Default)]
struct Shown {
    status: Status,
    path_type: &'static str,
    session: Option<MoqSession>,
}

/// What lives from READY to NULL.
struct Open {
    live: Live,
    ticket: LiveTicket,
}

/// What lives from PAUSED to READY.
struct Active {
    run: Arc<Run>,
    playing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

// All are leaves: none is held while another is taken, a pad is added, a signal is emitted or a child's state is changed.
#[derive(Default)]
pub struct IrohLiveSrc {
    settings: Mutex<Settings>,
    shown: Mutex<Shown>,
    open: Mutex<Option<Open>>,
    active: Mutex<Option<Active>>,
    pads: Pads,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for IrohLiveSrc {
    const NAME: &'static str = "GstIrohLiveSrc";
    type Type = super::IrohLiveSrc;
    type ParentType = gst::Bin;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for IrohLiveSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let ticket = |name, nick| {
                glib::ParamSpecString::builder(name)
                    .nick(nick)
                    .blurb("The ticket to watch, as irohlivesink gives it out: iroh-live:…/name. ticket and uri are the same")
                    .mutable_ready()
                    .build()
            };
            let mut properties = vec![
                ticket("ticket", "Ticket"),
                ticket("uri", "URI"),
                glib::ParamSpecUInt::builder("latency")
                    .nick("Latency")
                    .blurb("Jitter budget in milliseconds: how much later than on time a frame may come and still be played in sync")
                    .default_value(DEFAULT_LATENCY)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt::builder("max-lag")
                    .nick("Maximum lag")
                    .blurb("How far in milliseconds a group of pictures may fall behind before it is skipped to the next key frame (0: as far as latency)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("timeout")
                    .nick("Timeout")
                    .blurb("After how many milliseconds without the broadcast to post an error instead of trying again (0: never)")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder::<Status>("status")
                    .nick("Status")
                    .blurb("What the element is at")
                    .read_only()
                    .build(),
                glib::ParamSpecString::builder("path-type")
                    .nick("Path type")
                    .blurb("How the publisher is reached: none, direct or relayed")
                    .read_only()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("tracks: array of pad, name, frames, bytes, discontinuities. path-type, address, round-trip-time (ns), jitter (ns), bytes-received, version, subscriber (this end's id)")
                    .read_only()
                    .build(),
            ];
            properties.extend(NetworkSettings::properties());
            properties
        });
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let number = || value.get::<u32>().unwrap_or_default();
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "ticket" | "uri" => settings.ticket = value.get().ok().flatten(),
            "latency" => {
                settings.latency = number();
                let latency = settings.latency();
                drop(settings);
                self.latency_changed(latency);
            }
            "max-lag" => settings.max_lag = number(),
            "timeout" => settings.timeout = number(),
            name => {
                settings.network.set(name, value);
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "ticket" | "uri" => lock(&self.settings).ticket.to_value(),
            "latency" => lock(&self.settings).latency.to_value(),
            "max-lag" => lock(&self.settings).max_lag.to_value(),
            "timeout" => lock(&self.settings).timeout.to_value(),
            "status" => lock(&self.shown).status.to_value(),
            "path-type" => self.path_type().to_value(),
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
        element.set_element_flags(gst::ElementFlags::SOURCE);
        element.set_bin_flags(gst::BinFlags::STREAMS_AWARE);
    }
}

impl GstObjectImpl for IrohLiveSrc {}

impl ElementImpl for IrohLiveSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Iroh live source",
                "Source/Network",
                "Watches live audio and video by its ticket, peer to peer over iroh, as published by irohlivesink",
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
                    gst::PadDirection::Src,
                    gst::PadPresence::Sometimes,
                    &caps,
                )
                .expect("the templates are well-formed")
            };
            vec![
                template("video_%u", src_caps(MediaKind::Video)),
                template("audio_%u", src_caps(MediaKind::Audio)),
            ]
        });
        TEMPLATES.as_ref()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => self.open()?,
            gst::StateChange::ReadyToPaused => self.start()?,
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            gst::StateChange::PausedToReady => self.cancel(),
            _ => {}
        }
        let mut result = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToPlaying => self.set_playing(true),
            // A live source: there is nothing to show before the clock runs.
            gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused => {
                result = gst::StateChangeSuccess::NoPreroll;
            }
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToNull => self.close(),
            _ => {}
        }
        Ok(result)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(query) = query.view_mut() {
            query.set(true, lock(&self.settings).latency(), gst::ClockTime::NONE);
            return true;
        }
        self.parent_query(query)
    }
}

impl BinImpl for IrohLiveSrc {}

impl URIHandlerImpl for IrohLiveSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        &["iroh-live"]
    }

    fn uri(&self) -> Option<String> {
        lock(&self.settings).ticket.clone()
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        // What is wrong with it is said when the element starts, where an application looks for errors.
        lock(&self.settings).ticket = Some(uri.to_owned());
        Ok(())
    }
}

impl IrohLiveSrc {
    pub(super) fn of(element: &super::IrohLiveSrc) -> &Self {
        element.imp()
    }

    fn open(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let opened = ticket(settings.ticket.as_deref())
            .and_then(|ticket| Ok((settings.network.open(false)?, ticket)));
        match opened {
            Ok((live, ticket)) => {
                *lock(&self.open) = Some(Open { live, ticket });
                Ok(())
            }
            Err(message) => {
                self.post_error_message(message);
                Err(gst::StateChangeError)
            }
        }
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let runtime = runtime::runtime().map_err(|message| {
            self.post_error_message(message);
            gst::StateChangeError
        })?;
        let settings = lock(&self.settings).clone();
        let (live, ticket) = match &*lock(&self.open) {
            Some(open) => (open.live.clone(), open.ticket.clone()),
            None => return Err(gst::StateChangeError),
        };
        self.pads.start();
        let playing = watch::Sender::new(false);
        let run = Arc::new(Run {
            element: self.obj().downgrade(),
            live,
            ticket,
            clock: PlayoutClock::new(settings.latency().into()),
            playing: playing.subscribe(),
            cancel: CancellationToken::new(),
            max_age: settings.max_age(),
            timeout: (settings.timeout > 0).then(|| Duration::from_millis(settings.timeout.into())),
        });
        let task = runtime.spawn(session::watch(run.clone()));
        *lock(&self.active) = Some(Active { run, playing, task });
        Ok(())
    }

    fn set_playing(&self, playing: bool) {
        let latency = lock(&self.settings).latency();
        if let Some(active) = &*lock(&self.active) {
            if playing {
                // Running time stood still while publisher time went on.
                active.run.clock.restart(latency.into());
            }
            active.playing.send_replace(playing);
        }
    }

    /// From here on nothing is added, posted or pushed any more.
    fn cancel(&self) {
        if let Some(active) = &*lock(&self.active) {
            active.run.cancel.cancel();
        }
    }

    fn stop(&self) {
        if let Some(active) = lock(&self.active).take() {
            active.task.abort();
        }
        self.pads.stop(self.obj().upcast_ref());
        self.set_session(None);
        self.set_status(Status::Idle);
    }

    fn close(&self) {
        let open = lock(&self.open).take();
        if let Some(Open { live, .. }) = open
            && runtime::block_on(async move { live.shutdown().await }).is_err()
        {
            gst::warning!(CAT, imp = self, "the transport did not stop");
        }
    }

    fn latency_changed(&self, latency: gst::ClockTime) {
        if let Some(active) = &*lock(&self.active) {
            active.run.clock.set_latency(latency.into());
        }
        for track in self.tracks() {
            track.set_latency(latency);
        }
        let message = gst::message::Latency::builder().src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
    }

    pub(super) fn tracks(&self) -> Vec<Arc<Track>> {
        self.pads.tracks()
    }

    /// Brings the pads in line with what the catalog lists, and returns the tracks that there are now.
    pub(super) fn expose(
        &self,
        wanted: &[(String, TrackConfig, gst::Caps)],
        cancel: &CancellationToken,
    ) -> Result<Vec<Arc<Track>>, glib::BoolError> {
        let (latency, ticket) = {
            let settings = lock(&self.settings);
            (settings.latency(), settings.ticket.clone())
        };
        let ticket = ticket.unwrap_or_default();
        self.pads
            .expose(&self.obj(), wanted, latency, &ticket, cancel)
    }

    pub(super) fn status(&self) -> Status {
        lock(&self.shown).status
    }

    pub(super) fn set_status(&self, status: Status) {
        let changed = std::mem::replace(&mut lock(&self.shown).status, status) != status;
        if changed {
            gst::info!(CAT, imp = self, "status: {status:?}");
            self.obj().notify("status");
        }
    }

    pub(super) fn set_session(&self, session: Option<MoqSession>) {
        let path_type = session
            .as_ref()
            .map_or("none", |session| session.path().kind.as_str());
        let mut shown = lock(&self.shown);
        shown.session = session;
        let changed = std::mem::replace(&mut shown.path_type, path_type) != path_type;
        drop(shown);
        if changed {
            self.obj().notify("path-type");
        }
    }

    fn path_type(&self) -> &'static str {
        match lock(&self.shown).path_type {
            "" => "none",
            kind => kind,
        }
    }

    fn stats(&self) -> gst::Structure {
        let tracks: Vec<_> = self
            .tracks()
            .iter()
            .map(|track| track.stats().to_send_value())
            .collect();
        let mut stats = gst::Structure::builder("application/x-irohlivesrc-stats")
            .field("tracks", gst::Array::from_values(tracks))
            .field("path-type", self.path_type());
        if let Some(active) = &*lock(&self.active) {
            let jitter = active.run.clock.jitter();
            stats = stats
                .field(
                    "jitter",
                    u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX),
                )
                .field("subscriber", active.run.live.endpoint().id().to_string());
        }
        let session = lock(&self.shown).session.clone();
        if let Some(session) = session {
            let path = session.path();
            stats = stats
                .field("address", path.address)
                .field(
                    "round-trip-time",
                    u64::try_from(path.rtt.as_nanos()).unwrap_or(u64::MAX),
                )
                .field("bytes-received", session.connection().stats().udp_rx.bytes)
                .field("version", session.version().to_string());
        }
        stats.build()
    }
}

fn ticket(text: Option<&str>) -> Result<LiveTicket, gst::ErrorMessage> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Err(gst::error_msg!(
            gst::ResourceError::NotFound,
            ("No ticket: set the property ticket to what irohlivesink printed (iroh-live:…/name)")
        ));
    };
    text.parse().map_err(|error| {
        gst::error_msg!(
            gst::ResourceError::NotFound,
            ("The ticket cannot be read: {error}")
        )
    })
}
