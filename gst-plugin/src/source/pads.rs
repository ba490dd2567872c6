//! The source's pads: one for each track that the catalog lists.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use iroh_live::TrackConfig;
use tokio_util::sync::CancellationToken;

use super::{IrohLiveSrc, imp::lock, track::Track};

/// How long stopping waits for handlers of pad-added to return. One that waits for the state change is not waited for.
const EXPOSING_LIMIT: Duration = Duration::from_millis(500);

// The list's lock is a leaf; `exposing` is held while pads are added and signals are emitted.
#[derive(Default)]
pub(super) struct Pads {
    list: Mutex<List>,
    /// Pads are being added, on a thread that calls the application's handlers.
    exposing: Mutex<()>,
}

#[derive(Default)]
struct List {
    tracks: Vec<Arc<Track>>,
    group: Option<gst::GroupId>,
    /// Pads made so far in this run, video and audio.
    made: [u32; 2],
}

impl Pads {
    /// Begins a run: pads are numbered anew.
    pub(super) fn start(&self) {
        *lock(&self.list) = List {
            group: Some(gst::GroupId::next()),
            ..List::default()
        };
    }

    /// Takes them all away. Nothing may begin to expose any more: that is cancelled before.
    pub(super) fn stop(&self, bin: &gst::Bin) {
        let deadline = Instant::now() + EXPOSING_LIMIT;
        while self.exposing.try_lock().is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let tracks = std::mem::take(&mut *lock(&self.list)).tracks;
        for track in tracks {
            track.remove_from(bin);
        }
    }

    pub(super) fn tracks(&self) -> Vec<Arc<Track>> {
        lock(&self.list).tracks.clone()
    }

    /// Brings the pads in line with what the catalog lists, and returns the tracks that there are now.
    pub(super) fn expose(
        &self,
        element: &IrohLiveSrc,
        wanted: &[(String, TrackConfig, gst::Caps)],
        latency: gst::ClockTime,
        ticket: &str,
        cancel: &CancellationToken,
    ) -> Result<Vec<Arc<Track>>, glib::BoolError> {
        let _exposing = lock(&self.exposing);
        if cancel.is_cancelled() {
            return Ok(Vec::new());
        }
        let bin = element.upcast_ref::<gst::Bin>();
        let kept = |track: &Track| {
            wanted.iter().any(|(name, config, _)| {
                *name == track.name && config.is_video() == track.is_video()
            })
        };
        // A track that left the catalog has ended; its pad goes with it.
        let gone: Vec<_> = {
            let mut list = lock(&self.list);
            let (stay, gone) = list.tracks.drain(..).partition(|track| kept(track));
            list.tracks = stay;
            gone
        };
        for track in gone {
            track.end();
            track.drain(cancel);
            track.remove_from(bin);
        }
        let mut fresh = Vec::new();
        for (name, config, caps) in wanted {
            let known = self
                .tracks()
                .into_iter()
                .find(|track| track.name == *name && track.is_video() == config.is_video());
            match known {
                Some(track) => track.update(config, caps),
                None => fresh.push(self.make(element, name, config, caps, latency, ticket)?),
            }
        }
        if !fresh.is_empty() {
            let tracks = {
                let mut list = lock(&self.list);
                // Under the lock: what is in the list when the element stops is removed by that.
                if cancel.is_cancelled() {
                    return Ok(Vec::new());
                }
                list.tracks.extend(fresh.iter().cloned());
                list.tracks.clone()
            };
            let collection = gst::StreamCollection::builder(None)
                .streams(tracks.iter().map(|track| track.stream.clone()))
                .build();
            let message = gst::message::StreamCollection::builder(&collection)
                .src(element)
                .build();
            let _ = element.post_message(message);
            let added = fresh.iter().try_for_each(|track| track.add_to(bin));
            if added.is_err() || cancel.is_cancelled() {
                // The element stopped in the meantime, and may have seen only some of them.
                for track in &fresh {
                    track.remove_from(bin);
                }
                return if cancel.is_cancelled() {
                    Ok(Vec::new())
                } else {
                    added.map(|()| Vec::new())
                };
            }
            for track in &tracks {
                track.send_collection(&collection);
            }
            element.no_more_pads();
        }
        Ok(self.tracks())
    }

    fn make(
        &self,
        element: &IrohLiveSrc,
        name: &str,
        config: &TrackConfig,
        caps: &gst::Caps,
        latency: gst::ClockTime,
        ticket: &str,
    ) -> Result<Arc<Track>, glib::BoolError> {
        let (number, group) = {
            let mut list = lock(&self.list);
            let made = &mut list.made[usize::from(!config.is_video())];
            let number = *made;
            *made += 1;
            (number, *list.group.get_or_insert_with(gst::GroupId::next))
        };
        let kind = if config.is_video() { "video" } else { "audio" };
        let template = element
            .pad_template(&format!("{kind}_%u"))
            .ok_or_else(|| glib::bool_error!("no template"))?;
        let pad_name = format!("{kind}_{number}");
        let stream_id = format!("{:x}/{pad_name}", fingerprint(ticket));
        Track::new(
            &template,
            &pad_name,
            name,
            config,
            caps,
            latency,
            (&stream_id, group),
        )
    }
}

/// A short stable name for the broadcast in stream ids.
fn fingerprint(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
