//! The source's pads: one for each track that the catalog lists.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use iroh_live::{broadcast::MediaKind, media::caps::same_codec};

use super::{
    category::CAT,
    pad_selection::{MAX_PADS, Wanted},
    track::{PadSpec, Track},
};

/// How long stopping waits for handlers of pad-added to return. One that waits for the state change is not waited for.
const EXPOSING_LIMIT: Duration = Duration::from_millis(500);

/// How long the ends of tracks that go away wait to be taken, while the pipeline plays.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// The most pads at a time, with those that go and have not given their end yet.
const MAX_WITH_GONE: usize = 4 * MAX_PADS;

// Both locks are leaves: neither is held while a pad is added, a signal is emitted or a message is posted.
#[derive(Default)]
pub(super) struct Pads {
    list: Mutex<List>,
    /// The threads that add pads, and so call the application's handlers.
    exposing: Mutex<Vec<ThreadId>>,
    exposed: Condvar,
}

#[derive(Default)]
struct List {
    phase: Phase,
    /// Counts the runs.
    run: u64,
    tracks: Vec<Arc<Track>>,
    /// Those that go, and stay until they have given their end: while the pipeline pauses nobody takes it.
    gone: Vec<Arc<Track>>,
    /// What stream ids begin with.
    prefix: String,
    group: Option<gst::GroupId>,
    /// Pads made so far in this run, video and audio.
    made: [u32; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Stopped,
    Running,
    /// The application has sent EOS.
    Ended,
}

/// The latency that pads answer with, and how far a pipeline may fall behind before frames are skipped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    pub(super) latency: gst::ClockTime,
    pub(super) max_lag: gst::ClockTime,
}

impl Pads {
    /// Begins a run: pads are numbered anew. Stream ids begin with `prefix`.
    pub(super) fn start(&self, prefix: String) {
        let mut list = lock(&self.list);
        *list = List {
            phase: Phase::Running,
            run: list.run + 1,
            prefix,
            group: Some(gst::GroupId::next()),
            ..List::default()
        };
    }

    /// Takes them all away.
    pub(super) fn stop(&self, bin: &gst::Bin) {
        // From here on nothing more is put on the list.
        lock(&self.list).phase = Phase::Stopped;
        // A handler may be what stops the element.
        let own = thread::current().id();
        let _ = self
            .exposed
            .wait_timeout_while(lock(&self.exposing), EXPOSING_LIMIT, |threads| {
                threads.iter().any(|thread| *thread != own)
            });
        let (tracks, gone) = {
            let list = &mut *lock(&self.list);
            (
                std::mem::take(&mut list.tracks),
                std::mem::take(&mut list.gone),
            )
        };
        for track in tracks.into_iter().chain(gone) {
            track.remove_from(bin);
        }
    }

    pub(super) fn tracks(&self) -> Vec<Arc<Track>> {
        lock(&self.list).tracks.clone()
    }

    /// Ends every stream by sending this event into it. Where there is none yet, a pad of each kind is added that has
    /// nothing but its end: whoever waits for the pipeline's end would wait for ever otherwise, as sinks that are not
    /// linked yet get none.
    pub(super) fn end(
        &self,
        bin: &gst::Bin,
        latency: Latency,
        send: impl FnOnce() -> bool,
    ) -> bool {
        let _exposing = Exposing::new(self);
        let (fresh, run) = {
            let mut list = lock(&self.list);
            if list.phase != Phase::Running {
                return list.phase == Phase::Ended;
            }
            list.phase = Phase::Ended;
            if !list.tracks.is_empty() {
                drop(list);
                return send();
            }
            let made = [MediaKind::Video, MediaKind::Audio]
                .map(|kind| make(&mut list, bin, kind, None, latency).ok());
            list.tracks.extend(made.into_iter().flatten());
            (list.tracks.clone(), list.run)
        };
        let (added, failed): (Vec<_>, _) = fresh
            .into_iter()
            .partition(|track| track.add_to(bin).is_ok());
        self.settle(bin, &added, run, true);
        self.settle(bin, &failed, run, false);
        bin.no_more_pads();
        !added.is_empty()
    }

    /// Brings the pads in line with what the catalog lists, and returns the tracks that there are now.
    ///
    /// What is not `playing` has to be told again when it plays: until then some pads may have to wait.
    pub(super) fn expose(
        &self,
        bin: &gst::Bin,
        wanted: &[Wanted],
        latency: Latency,
        playing: impl Fn() -> bool,
    ) -> Result<Vec<Arc<Track>>, glib::BoolError> {
        let _exposing = Exposing::new(self);
        self.bring_in_line(bin, wanted, latency, playing)?;
        Ok(self.tracks())
    }

    fn bring_in_line(
        &self,
        bin: &gst::Bin,
        wanted: &[Wanted],
        latency: Latency,
        playing: impl Fn() -> bool,
    ) -> Result<(), glib::BoolError> {
        let some_gone = self.take_gone(wanted);
        self.remove_gone(bin, playing);
        let (fresh, run) = {
            let mut list = lock(&self.list);
            if list.phase != Phase::Running {
                return Ok(());
            }
            let mut fresh = Vec::new();
            for wanted in wanted {
                let (rendition, caps) = wanted;
                match list.tracks.iter().find(|track| carries(track, wanted)) {
                    Some(track) => track.update(&rendition.config, caps),
                    None if list.tracks.len() + list.gone.len() + fresh.len() >= MAX_WITH_GONE => {
                        gst::info!(CAT, obj = bin, "{} waits for pads to go", rendition.name);
                    }
                    None => {
                        let kind = rendition.kind();
                        fresh.push(make(&mut list, bin, kind, Some(wanted), latency)?);
                    }
                }
            }
            // What is on the list when the element stops is removed by that.
            list.tracks.extend(fresh.iter().cloned());
            (fresh, list.run)
        };
        if fresh.is_empty() && !some_gone {
            return Ok(());
        }
        let collection = post_collection(bin, &self.tracks());
        let added = fresh.iter().try_for_each(|track| track.add_to(bin));
        self.settle(bin, &fresh, run, added.is_ok());
        added?;
        for track in self.tracks() {
            track.send_collection(&collection);
        }
        if !fresh.is_empty() {
            bin.no_more_pads();
        }
        Ok(())
    }

    /// Ends what the catalog lists no more, and what has begun anew. Gives whether there was any.
    fn take_gone(&self, wanted: &[Wanted]) -> bool {
        let gone = {
            let list = &mut *lock(&self.list);
            if list.phase != Phase::Running {
                return false;
            }
            let (stay, gone): (_, Vec<_>) = list.tracks.drain(..).partition(|track| {
                !track.has_restarted() && wanted.iter().any(|wanted| carries(track, wanted))
            });
            list.tracks = stay;
            list.gone.extend(gone.iter().cloned());
            gone
        };
        for track in &gone {
            track.end();
        }
        !gone.is_empty()
    }

    /// Takes away the pads of what is gone, when they have given their ends; for that there is a moment.
    fn remove_gone(&self, bin: &gst::Bin, playing: impl Fn() -> bool) {
        let gone = lock(&self.list).gone.clone();
        let deadline = Instant::now() + DRAIN_LIMIT;
        for track in gone {
            while !track.has_given_end() && playing() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            // To take away a pad whose pipeline pauses would wait until it plays, too.
            if !track.has_given_end() && !playing() {
                continue;
            }
            lock(&self.list)
                .gone
                .retain(|other| !Arc::ptr_eq(other, &track));
            track.remove_from(bin);
        }
    }

    /// The pads were added. What came meanwhile has not seen all of them.
    fn settle(&self, bin: &gst::Bin, fresh: &[Arc<Track>], run: u64, added: bool) {
        let phase = {
            let mut list = lock(&self.list);
            let phase = if list.run == run && added {
                list.phase
            } else {
                Phase::Stopped
            };
            if phase == Phase::Stopped {
                let is_fresh = |track: &Arc<Track>| fresh.iter().any(|f| Arc::ptr_eq(f, track));
                list.tracks.retain(|track| !is_fresh(track));
            }
            phase
        };
        for track in fresh {
            match phase {
                Phase::Stopped => track.remove_from(bin),
                Phase::Running => {}
                Phase::Ended => track.end(),
            }
        }
    }
}

/// While this lives, the thread adds pads.
struct Exposing<'a>(&'a Pads);

impl<'a> Exposing<'a> {
    fn new(pads: &'a Pads) -> Self {
        lock(&pads.exposing).push(thread::current().id());
        Self(pads)
    }
}

impl Drop for Exposing<'_> {
    fn drop(&mut self) {
        let own = thread::current().id();
        let mut threads = lock(&self.0.exposing);
        if let Some(index) = threads.iter().position(|thread| *thread == own) {
            threads.swap_remove(index);
        }
        drop(threads);
        self.0.exposed.notify_all();
    }
}

/// Whether it is the track that is wanted. In another codec it is not: what is behind the pad could not take it.
fn carries(track: &Track, (rendition, caps): &Wanted) -> bool {
    rendition.name == track.name
        && rendition.kind() == track.kind
        && track.caps().is_some_and(|now| same_codec(&now, caps))
}

fn post_collection(bin: &gst::Bin, tracks: &[Arc<Track>]) -> gst::StreamCollection {
    let collection = gst::StreamCollection::builder(None)
        .streams(tracks.iter().map(|track| track.stream.clone()))
        .build();
    let message = gst::message::StreamCollection::builder(&collection)
        .src(bin)
        .build();
    let _ = bin.post_message(message);
    collection
}

fn make(
    list: &mut List,
    bin: &gst::Bin,
    kind: MediaKind,
    wanted: Option<&Wanted>,
    latency: Latency,
) -> Result<Arc<Track>, glib::BoolError> {
    let (word, index) = match kind {
        MediaKind::Video => ("video", 0),
        MediaKind::Audio => ("audio", 1),
    };
    let pad_name = format!("{word}_{}", list.made[index]);
    list.made[index] += 1;
    let template = bin
        .pad_template(&format!("{word}_%u"))
        .ok_or_else(|| glib::bool_error!("no template"))?;
    let track = Track::new(&PadSpec {
        template: &template,
        pad_name: &pad_name,
        name: wanted.map_or(&pad_name, |(rendition, _)| &rendition.name),
        kind,
        config: wanted.map(|(rendition, _)| &rendition.config),
        caps: wanted.map(|(_, caps)| caps),
        stream_id: &format!("{}/{pad_name}", list.prefix),
        group: *list.group.get_or_insert_with(gst::GroupId::next),
    })?;
    track.set_latency(latency.latency, latency.max_lag);
    Ok(track)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
