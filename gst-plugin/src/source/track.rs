//! One track of the source: reads frames, stamps them, pushes them into an appsrc behind a pad.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use gst::{glib, prelude::*};
use iroh_live::{
    RemoteBroadcast, TrackConfig,
    broadcast::{ReadError, SubscribeTrackError},
    media::receive::{
        PlayoutClock,
        feed::{Feed, FeedEnd},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::imp::CAT;

pub(super) struct Track {
    /// Its name in the catalog.
    pub(super) name: String,
    pub(super) ghost: gst::GhostPad,
    pub(super) stream: gst::Stream,
    feed: Feed,
    config: Mutex<TrackConfig>,
    linked: watch::Sender<bool>,
    ended: AtomicBool,
}

/// How reading a track ended.
pub(super) enum End {
    /// The publisher ended the track.
    Finished,
    /// The pad takes no more data.
    Downstream,
    /// The publisher or the connection is gone.
    Lost(ReadError),
    /// The publisher does not give the track.
    Refused(SubscribeTrackError),
}

impl Track {
    pub(super) fn new(
        template: &gst::PadTemplate,
        pad_name: &str,
        name: &str,
        config: &TrackConfig,
        caps: &gst::Caps,
        latency: gst::ClockTime,
        ids: (&str, gst::GroupId),
    ) -> Result<Arc<Self>, glib::BoolError> {
        let appsrc = gst_app::AppSrc::builder()
            .name(format!("{pad_name}-appsrc"))
            .is_live(true)
            .format(gst::Format::Time)
            .stream_type(gst_app::AppStreamType::Stream)
            .max_bytes(0)
            .caps(caps)
            .build();
        appsrc.set_latency(latency, gst::ClockTime::NONE);
        let (stream_id, group) = ids;
        let kind = match config {
            TrackConfig::Video(_) => gst::StreamType::VIDEO,
            TrackConfig::Audio(_) => gst::StreamType::AUDIO,
        };
        let stream = gst::Stream::new(Some(stream_id), Some(caps), kind, gst::StreamFlags::SELECT);
        if let Some(tags) = tags(config) {
            stream.set_tags(Some(&tags));
        }
        let stream_start = gst::event::StreamStart::builder(stream_id)
            .group_id(group)
            .stream(stream.clone())
            .build();
        let src = appsrc
            .static_pad("src")
            .ok_or_else(|| glib::bool_error!("appsrc has no pad"))?;
        let own = stream_start.clone();
        src.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(event) = info.event()
                && event.type_() == gst::EventType::StreamStart
            {
                // appsrc would give each pad a group of its own.
                info.data = Some(gst::PadProbeData::Event(own.clone()));
            }
            gst::PadProbeReturn::Ok
        });
        let ghost = gst::GhostPad::builder_from_template(template)
            .name(pad_name)
            .build();
        // So that whoever handles pad-added finds the caps on the pad.
        ghost.set_active(true)?;
        ghost.store_sticky_event(&stream_start).ok();
        ghost.store_sticky_event(&gst::event::Caps::new(caps)).ok();
        let track = Arc::new(Self {
            name: name.to_owned(),
            ghost,
            stream,
            feed: Feed::new(appsrc, config.is_video()),
            config: Mutex::new(config.clone()),
            linked: watch::Sender::new(false),
            ended: AtomicBool::new(false),
        });
        if let Some(tags) = tags(config) {
            track.feed.appsrc().send_event(gst::event::Tag::new(tags));
        }
        for (signal, linked) in [("linked", true), ("unlinked", false)] {
            let weak = Arc::downgrade(&track);
            track.ghost.connect(signal, false, move |_| {
                if let Some(track) = weak.upgrade() {
                    track.linked.send_replace(linked);
                }
                None
            });
        }
        Ok(track)
    }

    pub(super) fn add_to(&self, bin: &gst::Bin) -> Result<(), glib::BoolError> {
        bin.add(self.feed.appsrc())?;
        // Not before, as adding an element to a bin unlinks its pads.
        self.ghost
            .set_target(self.feed.appsrc().static_pad("src").as_ref())?;
        self.feed.appsrc().sync_state_with_parent()?;
        bin.add_pad(&self.ghost)
    }

    pub(super) fn remove_from(&self, bin: &gst::Bin) {
        self.feed.appsrc().set_locked_state(true);
        let _ = self.feed.appsrc().set_state(gst::State::Null);
        let _ = self.ghost.set_active(false);
        // It may not have been added yet.
        if self.ghost.parent().as_ref() == Some(bin.upcast_ref()) {
            let _ = bin.remove_pad(&self.ghost);
        }
        let _ = self.ghost.set_target(None::<&gst::Pad>);
        let _ = bin.remove(self.feed.appsrc());
    }

    /// Says on the pad what belongs to the broadcast, in front of the next frame.
    pub(super) fn send_collection(&self, collection: &gst::StreamCollection) {
        self.feed
            .appsrc()
            .send_event(gst::event::StreamCollection::new(collection));
    }

    pub(super) fn set_latency(&self, latency: gst::ClockTime) {
        self.feed
            .appsrc()
            .set_latency(latency, gst::ClockTime::NONE);
    }

    pub(super) fn is_video(&self) -> bool {
        self.config().is_video()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn config(&self) -> TrackConfig {
        self.config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a new description, which reaches downstream as caps in front of the next key frame.
    pub(super) fn update(&self, config: &TrackConfig, caps: &gst::Caps) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
        if self.feed.set_caps(caps) {
            gst::info!(CAT, obj = self.ghost, "caps: {caps}");
            self.stream.set_caps(Some(caps));
        }
    }

    pub(super) fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            gst::info!(CAT, obj = self.ghost, "end of stream");
            let _ = self.feed.appsrc().end_of_stream();
        }
    }

    /// Waits a moment for what was pushed to leave, so that a pad that goes away has given its end.
    ///
    /// Blocks; not for the state change, where nobody takes data any more.
    pub(super) fn drain(&self, cancel: &CancellationToken) {
        let deadline = std::time::Instant::now() + Duration::from_millis(500);
        let eos = || {
            self.ghost.sticky_event::<gst::event::Eos<_>>(0).is_some() || !self.ghost.is_linked()
        };
        while !eos() && !cancel.is_cancelled() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn stats(&self) -> gst::Structure {
        let stats = self.feed.stats();
        gst::Structure::builder("track")
            .field("pad", self.ghost.name())
            .field("name", self.name.as_str())
            .field("frames", stats.frames)
            .field("bytes", stats.bytes)
            .field("discontinuities", stats.discontinuities)
            .build()
    }

    /// Reads the track for as long as the pipeline plays and the pad is linked.
    pub(super) async fn read(
        &self,
        broadcast: RemoteBroadcast,
        clock: &PlayoutClock,
        max_age: Duration,
        zero: Option<SystemTime>,
        mut playing: watch::Receiver<bool>,
        running_time: impl Fn() -> Option<gst::ClockTime>,
    ) -> End {
        let mut linked = self.linked.subscribe();
        loop {
            // Nothing is downloaded for a pad that nobody takes data from.
            if playing.wait_for(|playing| *playing).await.is_err()
                || linked.wait_for(|linked| *linked).await.is_err()
            {
                return End::Downstream;
            }
            if !*playing.borrow() {
                continue;
            }
            let config = self.config();
            let mut reader = match broadcast.subscribe(&self.name, &config, max_age).await {
                Ok(reader) => reader,
                Err(error) => return End::Refused(error),
            };
            let feed = self.feed.run(&mut reader, clock, zero, &running_time);
            let end = tokio::select! {
                end = feed => end,
                _ = playing.wait_for(|playing| !*playing) => continue,
                _ = linked.wait_for(|linked| !*linked) => continue,
            };
            return match end {
                FeedEnd::Finished => End::Finished,
                FeedEnd::Lost(error) => End::Lost(error),
                _ => End::Downstream,
            };
        }
    }
}

/// What the catalog says of a track beside its caps.
fn tags(config: &TrackConfig) -> Option<gst::TagList> {
    let (label, bitrate) = match config {
        TrackConfig::Video(config) => (config.label.as_deref(), config.bitrate),
        TrackConfig::Audio(config) => (config.label.as_deref(), config.bitrate),
    };
    let mut list = gst::TagList::new();
    let tags = list.make_mut();
    if let Some(label) = label {
        tags.add::<gst::tags::Title>(&label, gst::TagMergeMode::Replace);
    }
    if let Some(bitrate) = bitrate.and_then(|bitrate| u32::try_from(bitrate).ok()) {
        tags.add::<gst::tags::MaximumBitrate>(&bitrate, gst::TagMergeMode::Replace);
    }
    (list.n_tags() > 0).then_some(list)
}
