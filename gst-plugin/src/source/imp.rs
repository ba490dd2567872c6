use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use iroh_live::{
    LiveTicket,
    broadcast::MediaKind,
    media::{caps::src_caps, receive::PlayoutClock},
    transport::{Limits, MoqSession, TrafficBytes},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    category::CAT,
    eos::{EMPTY_END_LIMIT, stuck_sink},
    follow,
    pad_selection::Wanted,
    pads::Pads,
    run::{Observer, Run},
    settings::Settings,
    status::{PathType, Status},
    track::Track,
};
use crate::{
    endpoint::{OpenEndpoint, Role},
    notifier::Notifier,
    runtime, stats,
};

/// What the properties tell.
#[derive(Default)]
struct State {
    status: Status,
    path_type: PathType,
    session: Option<MoqSession>,
}

/// What lives from READY to NULL.
struct Network {
    endpoint: OpenEndpoint,
    ticket: LiveTicket,
}

/// What lives from PAUSED to READY.
struct Running {
    run: Arc<Run<Handle>>,
    playing: watch::Sender<bool>,
    max_age: watch::Sender<Duration>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    stopped: CancellationToken,
}

/**
 * SECTION:element-irohlivesrc
 * @title: irohlivesrc
 * @see_also: irohlivesink
 *
 * Watches a broadcast by its ticket, peer to peer. A pad comes for each track that the publisher lists, with encoded
 * media: `video_0`, `audio_0` and so on, at most 16 of a kind. When the publisher takes a track away, its pad ends and
 * goes; the last of them stays, as a publisher that stops may come back. A track that comes back in another codec gets
 * another pad. Nothing is downloaded for a pad that is not linked; pads may be unlinked and linked again while it plays.
 *
 * The element is live. Buffers are timed by the publisher's clock, one timeline for all pads, and the LATENCY query is
 * answered with the property `latency`. What is later than that, or what a slow pipeline cannot follow, is skipped to the
 * next key frame, with DISCONT.
 *
 * A publisher that cannot be reached, or that stops, is waited for; `status` and a warning on the bus say so, and with
 * `timeout` it is an error. One that ends the broadcast ends every pad. EOS that is sent to the element does the same, also
 * before there are any pads: then one of each kind comes that has nothing but its end.
 *
 * Properties whose unit is milliseconds say so; times in `stats` are nanoseconds, as GStreamer has them.
 *
 * ## Example pipelines
 *
 * |[
 * gst-launch-1.0 -v irohlivesrc ticket=iroh-live:…/stream name=s s. ! decodebin3 ! autovideosink
 * ]|
 * Shows the picture.
 *
 * |[
 * gst-launch-1.0 -e irohlivesrc ticket=iroh-live:…/stream name=s s. ! queue ! h264parse ! mp4mux name=m ! filesink location=stream.mp4  s. ! queue ! opusparse ! m.
 * ]|
 * Records H.264 and Opus as they come, until it is interrupted.
 *
 * |[
 * gst-play-1.0 "iroh-live:…/stream?latency=50"
 * ]|
 * Plays with a quarter of the usual latency.
 */
// All locks are leaves: none is held while another is taken, a pad is added, a signal is emitted or a child's state is
// changed.
#[derive(Default)]
pub struct IrohLiveSrc {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    network: Mutex<Option<Network>>,
    running: Mutex<Option<Running>>,
    pads: Pads,
    notifier: Notifier,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
            let mut properties = Settings::properties();
            properties.extend([
                glib::ParamSpecEnum::builder::<Status>("status")
                    .nick("Status")
                    .blurb("How far the element has come on its way to the broadcast; notified")
                    .read_only()
                    .build(),
                glib::ParamSpecEnum::builder::<PathType>("path-type")
                    .nick("Path type")
                    .blurb("How the publisher is reached; notified")
                    .read_only()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(concat!(
                        "tracks: a structure with a field for each pad, itself a structure: name, frames, bytes, discontinuities. subscriber (this end's id), jitter (ns), last-frame-age (ns, once there was one). Of the way to the publisher: ",
                        stats::path_fields!()
                    ))
                    .read_only()
                    .build(),
            ]);
            properties
        });
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let changed = lock(&self.settings).set(pspec.name(), value);
        if pspec.name() == "latency" {
            self.latency_changed();
        }
        for name in changed {
            self.obj().notify(name);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "status" => lock(&self.state).status.to_value(),
            "path-type" => lock(&self.state).path_type.to_value(),
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
        gst::debug!(CAT, imp = self, "{transition:?}");
        match transition {
            gst::StateChange::NullToReady => self.open()?,
            gst::StateChange::ReadyToPaused => self.start()?,
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            gst::StateChange::PausedToReady => self.cancel(),
            _ => {}
        }
        let result = self.parent_change_state(transition);
        if let Err(error) = result {
            gst::warning!(CAT, imp = self, "{transition:?} failed");
            match transition {
                gst::StateChange::NullToReady => self.close(),
                gst::StateChange::ReadyToPaused => self.stop(),
                _ => {}
            }
            return Err(error);
        }
        match transition {
            gst::StateChange::PausedToPlaying => self.set_playing(true),
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToNull => self.close(),
            _ => {}
        }
        // A live source: there is nothing to show before the clock runs.
        match transition {
            gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused => {
                Ok(gst::StateChangeSuccess::NoPreroll)
            }
            _ => result,
        }
    }

    fn send_event(&self, event: gst::Event) -> bool {
        gst::debug!(CAT, imp = self, "{event:?}");
        let stopped = lock(&self.running).as_ref().map(|r| r.stopped.clone());
        let Some(stopped) = stopped.filter(|_| event.type_() == gst::EventType::Eos) else {
            return self.parent_send_event(event);
        };
        self.cancel();
        let tracks = self.pads.tracks();
        if !tracks.iter().any(|track| track.ghost.is_linked()) {
            self.end_in_any_case(stopped);
        }
        let latency = lock(&self.settings).of_pads();
        let element = self.obj();
        let sent = self.pads.end(element.upcast_ref(), latency, || {
            self.parent_send_event(event)
        });
        self.set_session(None, None);
        self.set_status(Status::Ended, None);
        sent
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        gst::log!(CAT, imp = self, "{query:?}");
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
        let changed = lock(&self.settings).set_ticket(Some(uri.to_owned()));
        for name in changed {
            self.obj().notify(name);
        }
        Ok(())
    }
}

impl IrohLiveSrc {
    fn open(&self) -> Result<(), gst::StateChangeError> {
        let settings = lock(&self.settings).clone();
        let opened = settings.ticket().and_then(|ticket| {
            Ok((
                settings.network.open(Role::Watch, Limits::default())?,
                ticket,
            ))
        });
        match opened {
            Ok((endpoint, ticket)) => {
                if let Some(warning) = settings.warning() {
                    gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{warning}"));
                }
                *lock(&self.network) = Some(Network { endpoint, ticket });
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
        let (live, ticket) = match &*lock(&self.network) {
            Some(network) => (network.endpoint.live().clone(), network.ticket.clone()),
            None => return Err(gst::StateChangeError),
        };
        // Where the publisher is to be found may change, who it is does not.
        self.pads
            .start(format!("{}/{}", ticket.addr().id, ticket.name()));
        let playing = watch::Sender::new(false);
        let max_age = watch::Sender::new(settings.max_age());
        let cancel = CancellationToken::new();
        let run = Arc::new(Run {
            observer: Handle {
                element: self.obj().downgrade(),
                cancel: cancel.clone(),
            },
            live,
            ticket,
            clock: PlayoutClock::new(settings.latency().into()),
            max_age: max_age.subscribe(),
            playing: playing.subscribe(),
            timeout: settings.timeout(),
            net_stats: OnceLock::new(),
            progress: Mutex::default(),
        });
        let (watched, cancelled) = (run.clone(), cancel.clone());
        let task = runtime.spawn(async move {
            cancelled.run_until_cancelled(follow::watch(watched)).await;
        });
        *lock(&self.running) = Some(Running {
            run,
            playing,
            max_age,
            cancel,
            task,
            stopped: CancellationToken::new(),
        });
        Ok(())
    }

    /// Sinks that nothing is linked to do not end, nor do some elements before they had data, as decodebin3. Whoever waits
    /// for the pipeline's end waits for an error as well.
    fn end_in_any_case(&self, stopped: CancellationToken) {
        let (element, notifier) = (self.obj().downgrade(), self.notifier.clone());
        let over = stopped.clone();
        let late = async move {
            tokio::time::sleep(EMPTY_END_LIMIT).await;
            notifier.call(move || {
                if let Some(element) = element.upgrade()
                    && let Some(sink) = stuck_sink(element.upcast_ref())
                    && !over.is_cancelled()
                {
                    gst::element_error!(
                        element,
                        gst::ResourceError::NotFound,
                        (
                            "The pipeline was asked to end before anything came, and what is in front of {} does not end without data",
                            sink.name()
                        )
                    );
                }
            });
        };
        if let Ok(runtime) = runtime::runtime() {
            runtime.spawn(async move { stopped.run_until_cancelled(late).await });
        }
    }

    fn set_playing(&self, playing: bool) {
        let latency = lock(&self.settings).latency();
        if let Some(running) = &*lock(&self.running) {
            if playing {
                // Running time stood still while publisher time went on.
                running.run.clock.restart(latency.into());
            }
            running.playing.send_replace(playing);
        }
    }

    /// From here on nothing is added, posted or pushed any more.
    fn cancel(&self) {
        if let Some(running) = &*lock(&self.running) {
            running.cancel.cancel();
        }
    }

    fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.cancel.cancel();
            running.stopped.cancel();
            running.task.abort();
            // Nothing of this run goes on after it.
            let _ = runtime::block_on(running.task);
        }
        self.pads.stop(self.obj().upcast_ref());
        self.set_session(None, None);
        self.set_status(Status::Idle, None);
    }

    fn close(&self) {
        let network = lock(&self.network).take();
        if let Some(network) = network {
            network.endpoint.close();
        }
    }

    fn latency_changed(&self) {
        let (latency, max_age) = {
            let settings = lock(&self.settings);
            (settings.of_pads(), settings.max_age())
        };
        if let Some(running) = &*lock(&self.running) {
            running.run.clock.set_latency(latency.latency.into());
            running.max_age.send_replace(max_age);
        }
        for track in self.pads.tracks() {
            track.set_latency(latency.latency, latency.max_lag);
        }
        let message = gst::message::Latency::builder().src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
    }

    /// Changes what the properties say, unless the run that wants it is over; gives whether it did.
    fn change<T: PartialEq>(
        &self,
        run: Option<&CancellationToken>,
        change: impl FnOnce(&mut State),
        property: impl Fn(&State) -> T,
    ) -> bool {
        let mut state = lock(&self.state);
        // Under the lock: what stops the run cancels it first, and changes the state after that.
        if run.is_some_and(CancellationToken::is_cancelled) {
            return false;
        }
        let before = property(&state);
        change(&mut state);
        property(&state) != before
    }

    fn set_status(&self, status: Status, run: Option<&CancellationToken>) {
        if self.change(run, |state| state.status = status, |state| state.status) {
            gst::info!(CAT, imp = self, "status: {status:?}");
            self.notify("status", run);
        }
    }

    fn set_session(&self, session: Option<MoqSession>, run: Option<&CancellationToken>) {
        let path_type = session
            .as_ref()
            .map_or(PathType::None, |session| session.path().kind.into());
        let change = |state: &mut State| {
            state.session = session;
            state.path_type = path_type;
        };
        if self.change(run, change, |state| state.path_type) {
            gst::info!(CAT, imp = self, "path: {path_type:?}");
            self.notify("path-type", run);
        }
    }

    /// A run changes what it changes on the notifier's thread, anything else on that of the application.
    fn notify(&self, property: &'static str, run: Option<&CancellationToken>) {
        match run {
            Some(_) => self.obj().notify(property),
            None => self.notifier.notify(&*self.obj(), property),
        }
    }

    fn stats(&self) -> gst::Structure {
        let tracks = self.pads.tracks();
        let tracks = tracks
            .iter()
            .map(|track| (track.ghost.name().into(), track.stats()));
        let mut stats = gst::Structure::builder("application/x-irohlivesrc-stats")
            .field("tracks", stats::nested("tracks", tracks));
        let mut traffic = TrafficBytes::default();
        if let Some(running) = &*lock(&self.running) {
            stats = running.run.add_stats(stats);
            traffic = running.run.known().traffic;
        }
        let session = lock(&self.state).session.clone();
        stats::with_path(stats, session.as_ref(), traffic).build()
    }
}

/// The element for the tasks of one run. What it calls of the application's runs on the notifier's thread, and not at all
/// once the run is cancelled.
#[derive(Clone)]
struct Handle {
    element: glib::WeakRef<super::IrohLiveSrc>,
    cancel: CancellationToken,
}

impl Handle {
    fn element(&self) -> Option<super::IrohLiveSrc> {
        // Asked first: whoever upgrades may be the last to let go of the element.
        (!self.cancel.is_cancelled())
            .then(|| self.element.upgrade())
            .flatten()
    }

    fn call(&self, job: impl FnOnce(&IrohLiveSrc) + Send + 'static) {
        let handle = self.clone();
        if let Some(element) = self.element() {
            element.imp().notifier.call(move || {
                if let Some(element) = handle.element() {
                    job(element.imp());
                }
            });
        }
    }
}

impl Observer for Handle {
    fn running_time(&self) -> Option<gst::ClockTime> {
        self.element()?.current_running_time()
    }

    fn set_status(&self, status: Status) {
        let cancel = self.cancel.clone();
        self.call(move |imp| imp.set_status(status, Some(&cancel)));
    }

    fn set_session(&self, session: Option<&MoqSession>) {
        let (session, cancel) = (session.cloned(), self.cancel.clone());
        self.call(move |imp| imp.set_session(session, Some(&cancel)));
    }

    fn warn(&self, warning: glib::Error) {
        self.call(move |imp| {
            gst::warning!(CAT, imp = imp, "{}", warning.message());
            let message = gst::message::Warning::builder_from_error(warning);
            let _ = imp.obj().post_message(message.src(&*imp.obj()).build());
        });
    }

    fn fail(&self, error: glib::Error) {
        self.call(move |imp| {
            gst::error!(CAT, imp = imp, "{}", error.message());
            let message = gst::message::Error::builder_from_error(error);
            let _ = imp.obj().post_message(message.src(&*imp.obj()).build());
        });
    }

    async fn expose(&self, wanted: Vec<Wanted>) -> Result<Vec<Arc<Track>>, glib::BoolError> {
        let Some(notifier) = self.element().map(|element| element.imp().notifier.clone()) else {
            return Ok(Vec::new());
        };
        let handle = self.clone();
        let exposed = notifier
            .run(move || {
                let element = handle.element()?;
                let imp = element.imp();
                let latency = lock(&imp.settings).of_pads();
                let bin = element.upcast_ref();
                let playing = lock(&imp.running).as_ref().map(|r| r.run.playing.clone());
                let playing = || {
                    let playing = playing.as_ref().is_some_and(|playing| *playing.borrow());
                    playing && !handle.cancel.is_cancelled()
                };
                Some(imp.pads.expose(bin, &wanted, latency, playing))
            })
            .await;
        exposed.flatten().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn tracks(&self) -> Vec<Arc<Track>> {
        self.element()
            .map(|element| element.imp().pads.tracks())
            .unwrap_or_default()
    }
}
