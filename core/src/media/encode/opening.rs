//! An encoder that is being opened, on a thread of its own: a device may take seconds.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use super::{
    pipeline::{AUDIO_BACKLOG, EncoderPipeline, RawFrame, VIDEO_BACKLOG},
    track::RenditionTrack,
};
use crate::media::ladder::plan::RenditionSpec;

/// What is opened.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub factory: gst::ElementFactory,
    pub spec: RenditionSpec,
    /// When the first frame that goes in was captured.
    pub zero: Duration,
    pub track: Arc<RenditionTrack>,
    /// Its number among the encoders of the track; see [`RenditionTrack::issue_number`].
    pub number: u64,
    /// An earlier encoder that is still being closed: some devices serve one at a time.
    pub after: Option<JoinHandle<()>>,
}

#[derive(Debug)]
pub(super) struct Opening {
    /// Of the candidates, the one that is opened.
    pub candidate: usize,
    /// With which bit rate, bits a second.
    pub bitrate: u64,
    video: bool,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    /// Frames that came in the meantime; the encoder gets them when it is open.
    waiting: VecDeque<RawFrame>,
    /// Whether no more frames come.
    ended: bool,
    result: Option<Result<EncoderPipeline, String>>,
}

impl Opening {
    /// Begins to open an encoder.
    pub(super) fn start(candidate: usize, request: OpenRequest) -> Self {
        let state = Arc::new(Mutex::new(State {
            waiting: VecDeque::new(),
            ended: false,
            result: None,
        }));
        let (track, video) = (request.track.clone(), request.track.codec().is_video());
        let bitrate = request.spec.bitrate;
        let done = {
            let state = state.clone();
            move |result| lock(&state).finish(result, &track)
        };
        let failed = done.clone();
        let spawned = std::thread::Builder::new()
            .name("open-encoder".into())
            .spawn(move || {
                if let Some(after) = request.after {
                    let _ = after.join();
                }
                done(EncoderPipeline::start(
                    &request.factory,
                    &request.spec,
                    request.zero,
                    &request.track,
                    request.number,
                ));
            });
        let thread = spawned
            .inspect_err(|error| failed(Err(error.to_string())))
            .ok();
        Self {
            candidate,
            bitrate,
            video,
            state,
            thread,
        }
    }

    /// Gives it a frame.
    pub(super) fn push(&self, frame: RawFrame) {
        let mut state = lock(&self.state);
        if let Some(Ok(encoder)) = &mut state.result {
            encoder.push(frame);
            return;
        }
        state.waiting.push_back(frame);
        let video = self.video;
        while state.has_too_many(video) {
            // The encoder still has to begin with a key frame.
            let dropped = state.waiting.pop_front();
            if let (Some(dropped), Some(next)) = (dropped, state.waiting.front_mut()) {
                next.keyframe |= dropped.keyframe;
            }
        }
    }

    /// No more frames: what waits is encoded, and then the track ends.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        if let Some(Ok(encoder)) = &state.result {
            encoder.end();
        }
    }

    /// Waits until it is open, and closes it.
    pub(super) fn close(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some((Ok(encoder), _)) = self.result() {
            encoder.stop();
        }
    }

    /// How it went, once that is known, and the frames that nobody took.
    pub(super) fn result(&self) -> Option<(Result<EncoderPipeline, String>, VecDeque<RawFrame>)> {
        let mut state = lock(&self.state);
        let result = state.result.take()?;
        Some((result, std::mem::take(&mut state.waiting)))
    }
}

impl State {
    fn finish(&mut self, mut result: Result<EncoderPipeline, String>, track: &RenditionTrack) {
        if let Ok(encoder) = &mut result {
            for frame in self.waiting.drain(..) {
                encoder.push(frame);
            }
        }
        if self.ended {
            match &result {
                Ok(encoder) => encoder.end(),
                Err(_) => track.finish(),
            }
        }
        self.result = Some(result);
    }

    fn has_too_many(&self, video: bool) -> bool {
        if video {
            return self.waiting.len() > VIDEO_BACKLOG;
        }
        match (self.waiting.front(), self.waiting.back()) {
            (Some(first), Some(last)) => last.time.saturating_sub(first.time) > AUDIO_BACKLOG,
            _ => false,
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
