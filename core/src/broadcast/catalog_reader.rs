//! Reading a catalog, which anybody may have written.

use std::{
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use moq_json::snapshot::{Decoder, consumer::Config};
use moq_lite::{frame, group, kio, track};
use moq_mux::Error;
use tokio::time::Instant;

use super::extension::Catalog;

/// What a catalog may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogLimits {
    /// Bytes of JSON; 256 KiB. What is made of it takes about ten times as much.
    pub bytes: usize,
    /// Renditions; 64, which is also the most that the library reads.
    pub renditions: usize,
    /// Between two changes that are looked at; 50 ms. What a catalog was in between is left out.
    pub pause: Duration,
}

impl Default for CatalogLimits {
    fn default() -> Self {
        Self {
            bytes: 256 << 10,
            renditions: 64,
            pause: Duration::from_millis(50),
        }
    }
}

/// What a catalog may be, and whom to tell when it is more.
#[derive(Clone, Default)]
pub(crate) struct CatalogGuard {
    pub(crate) limits: CatalogLimits,
    pub(crate) exceeded: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Why a catalog cannot be read.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is more than it may be, as the sentence says.
    Exceeded(String),
    Other(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The catalog of a broadcast as it changes: only the newest state, put together of the first frame of a group, which is
/// whole, and of the changes behind it. `moq-mux` does the same, and takes frames of 64 MB.
pub(super) struct Reader {
    track: track::Ordered,
    group: Option<group::Consumer>,
    frame: Option<frame::Consumer>,
    /// How many frames of the group were read.
    frames: usize,
    decoder: Decoder<Catalog>,
    guard: CatalogGuard,
    /// When the next state may be given.
    next: Option<Instant>,
}

impl Reader {
    pub(super) fn new(track: track::Subscriber, guard: CatalogGuard) -> Self {
        let mut config = Config::default();
        config.max_size = Some(guard.limits.bytes);
        Self {
            track: track.ordered(),
            group: None,
            frame: None,
            frames: 0,
            decoder: Decoder::new(config),
            guard,
            next: None,
        }
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Catalog>, Failure> {
        if let Some(next) = self.next {
            tokio::time::sleep_until(next).await;
        }
        let read = kio::wait(|waiter| self.poll(waiter)).await;
        match &read {
            Ok(_) => self.next = Some(Instant::now() + self.guard.limits.pause),
            Err(Failure::Exceeded(_)) => {
                if let Some(exceeded) = &self.guard.exceeded {
                    exceeded();
                }
            }
            Err(Failure::Other(_)) => {}
        }
        read
    }

    fn poll(&mut self, waiter: &kio::Waiter) -> Poll<Result<Option<Catalog>, Failure>> {
        let finished = loop {
            match self.track.poll_next_group(waiter)? {
                Poll::Ready(Some(group)) => {
                    (self.group, self.frame, self.frames) = (Some(group), None, 0);
                }
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        let mut changed = false;
        let mut open = false;
        while self.group.is_some() {
            match self.poll_frame(waiter) {
                Poll::Ready(Ok(Some(payload))) => {
                    self.apply(&payload)?;
                    changed = true;
                }
                Poll::Ready(Ok(None)) => self.group = None,
                Poll::Ready(Err(Failure::Other(error))) => {
                    // A newer one takes its place; what is wrong with the track itself is told by the track.
                    tracing::debug!(%error, "a state of the catalog is lost");
                    self.group = None;
                }
                Poll::Ready(Err(exceeded)) => return Poll::Ready(Err(exceeded)),
                Poll::Pending => {
                    open = true;
                    break;
                }
            }
        }
        if changed {
            return Poll::Ready(self.catalog());
        }
        match finished && !open {
            true => Poll::Ready(Ok(None)),
            false => Poll::Pending,
        }
    }

    /// The next frame of the group. Its length is known before it comes.
    fn poll_frame(&mut self, waiter: &kio::Waiter) -> Poll<Result<Option<bytes::Bytes>, Failure>> {
        let Some(group) = &mut self.group else {
            return Poll::Ready(Ok(None));
        };
        let frame = match &mut self.frame {
            Some(frame) => frame,
            None => match ready!(group.poll_next_frame(waiter))? {
                Some(frame) => self.frame.insert(frame),
                None => return Poll::Ready(Ok(None)),
            },
        };
        let limit = self.guard.limits.bytes;
        if frame.size > limit as u64 {
            return Poll::Ready(Err(Failure::Exceeded(too_long(frame.size, limit))));
        }
        let payload = ready!(frame.poll_read_all(waiter))?;
        self.frame = None;
        Poll::Ready(Ok(Some(payload)))
    }

    fn apply(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let applied = match self.frames {
            0 => self.decoder.snapshot(payload),
            _ => self.decoder.delta(payload),
        };
        self.frames += 1;
        applied.map_err(|error| match error {
            moq_json::Error::TooLarge(limit) => {
                Failure::Exceeded(format!("it has grown to more than {limit} bytes"))
            }
            error => error.into(),
        })
    }

    fn catalog(&self) -> Result<Option<Catalog>, Failure> {
        let catalog = self.decoder.decode()?;
        if let Some(catalog) = &catalog {
            let renditions = renditions(catalog);
            let limit = self.guard.limits.renditions;
            if renditions > limit {
                return Err(Failure::Exceeded(format!(
                    "it has {renditions} renditions, more than {limit}"
                )));
            }
        }
        Ok(catalog)
    }
}

fn too_long(size: u64, limit: usize) -> String {
    format!("it is {size} bytes long, more than {limit}")
}

fn renditions(catalog: &Catalog) -> usize {
    catalog.video.renditions.len() + catalog.audio.renditions.len() + catalog.text.renditions.len()
}
