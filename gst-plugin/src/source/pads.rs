//! The source's pads: one for each track that the catalog lists.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gst::{glib, prelude::*};
use iroh_live::{broadcast::MediaKind, media::caps::same_codec};
use tokio_util::sync::CancellationToken;

use super::{
    renditions::Wanted,
    track::{PadSpec, Track},
};

/// How long stopping waits for handlers of pad-added to return. One that waits for the state change is not waited for.
const EXPOSING_LIMIT: Duration = Duration::from_millis(500);

// Both locks are leaves: neither is held while a pad is added, a signal is emitted or a message is posted.
#[derive(Default)]
pub(super) struct Pads {
    list: Mutex<List>,
    /// Whether pads are being added, on a thread that calls the application's handlers.
    exposing: Mutex<bool>,
    exposed: Condvar,
}

#[derive(Default)]
struct List {
    phase: Phase,
    /// Counts the runs.
    run: u64,
    tracks: Vec<Arc<Track>>,
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
        let busy = lock(&self.exposing);
        let _ = self
            .exposed
            .wait_timeout_while(busy, EXPOSING_LIMIT, |busy| *busy);
        let tracks = std::mem::take(&mut lock(&self.list).tracks);
        for track in tracks {
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
        let empty = {
            let mut list = lock(&self.list);
            if list.phase != Phase::Running {
                return list.phase == Phase::Ended;
            }
            list.phase = Phase::Ended;
            if list.tracks.is_empty() {
                let made = [MediaKind::Video, MediaKind::Audio]
                    .map(|kind| make(&mut list, bin, kind, None, latency).ok());
                list.tracks.extend(made.into_iter().flatten());
                true
            } else {
                false
            }
        };
        if !empty {
            return send();
        }
        let tracks = self.tracks();
        for track in &tracks {
            if track.add_to(bin).is_ok() {
                track.end();
            }
        }
        bin.no_more_pads();
        !tracks.is_empty()
    }

    /// Brings the pads in line with what the catalog lists, and returns the tracks that there are now.
    pub(super) fn expose(
        &self,
        bin: &gst::Bin,
        wanted: &[Wanted],
        latency: Latency,
        cancel: &CancellationToken,
    ) -> Result<Vec<Arc<Track>>, glib::BoolError> {
        *lock(&self.exposing) = true;
        let exposed = self.bring_in_line(bin, wanted, latency, cancel);
        *lock(&self.exposing) = false;
        self.exposed.notify_all();
        exposed.map(|()| self.tracks())
    }

    fn bring_in_line(
        &self,
        bin: &gst::Bin,
        wanted: &[Wanted],
        latency: Latency,
        cancel: &CancellationToken,
    ) -> Result<(), glib::BoolError> {
        let gone = self.take_gone(wanted);
        for track in &gone {
            // A track that left the catalog has ended; its pad goes with it.
            track.end();
            track.drain(cancel);
            track.remove_from(bin);
        }
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
        if fresh.is_empty() && gone.is_empty() {
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

    /// Takes off the list what the catalog lists no more, and what has begun anew.
    fn take_gone(&self, wanted: &[Wanted]) -> Vec<Arc<Track>> {
        let mut list = lock(&self.list);
        if list.phase != Phase::Running {
            return Vec::new();
        }
        let (stay, gone) = list.tracks.drain(..).partition(|track| {
            !track.has_restarted() && wanted.iter().any(|wanted| carries(track, wanted))
        });
        list.tracks = stay;
        gone
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
