//! An encoder that is being opened, on a thread of its own: a device may take seconds.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    closing::Closing,
    pipeline::{AUDIO_BACKLOG, EncoderPipeline, RawFrame, VIDEO_BACKLOG},
    track::RenditionTrack,
};
use crate::media::ladder::plan::RenditionSpec;

/// An encoder that is not open after so long hangs.
const LIMIT: Duration = Duration::from_secs(10);

/// How long it is waited for an earlier encoder to close. One that hangs is not to keep the next from opening.
const PATIENCE: Duration = Duration::from_secs(5);

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
    pub after: Option<Closing>,
}

#[derive(Debug)]
pub(super) struct Opening {
    /// Of the candidates, the one that is opened.
    pub candidate: usize,
    pub factory: gst::ElementFactory,
    /// With which bit rate, bits a second.
    pub bitrate: u64,
    /// When it was begun, in the time of frames.
    since: Duration,
    video: bool,
    state: Arc<Mutex<State>>,
    /// The thread that opens it.
    thread: Closing,
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
        let factory = request.factory.clone();
        let (bitrate, since) = (request.spec.bitrate, request.zero);
        let done = {
            let state = state.clone();
            move |result| lock(&state).finish(result, &track)
        };
        let thread = Closing::start("open-encoder", move || {
            if let Some(after) = request.after {
                after.wait(PATIENCE);
            }
            done(EncoderPipeline::start(
                &request.factory,
                &request.spec,
                request.zero,
                &request.track,
                request.number,
            ));
        });
        Self {
            candidate,
            factory,
            bitrate,
            since,
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
    fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        if let Some(Ok(encoder)) = &state.result {
            encoder.end();
        }
    }

    /// Whether it takes so long that it will never be open, at the time of a frame.
    pub(super) fn hangs(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) >= LIMIT
    }

    /// Waits until it is open, and closes it.
    pub(super) fn close(self) {
        if let Some(encoder) = self.opened() {
            encoder.stop();
        }
    }

    /// Waits until it is open and what waits for it is encoded, ends the track, and closes it.
    pub(super) fn finish(self, track: &RenditionTrack) {
        self.end();
        if !self.thread.wait(LIMIT) {
            track.finish();
        }
        match self.opened() {
            Some(encoder) => encoder.finish(track),
            None => track.finish(),
        }
    }

    /// Waits until it is open.
    fn opened(self) -> Option<EncoderPipeline> {
        self.thread.join();
        lock(&self.state).result.take()?.ok()
    }

    /// The frames that wait for it.
    pub(super) fn take_waiting(&self) -> VecDeque<RawFrame> {
        std::mem::take(&mut lock(&self.state).waiting)
    }

    /// How it went, once that is known.
    pub(super) fn result(&self) -> Option<Result<EncoderPipeline, String>> {
        // Looked at first: when it is done, its result is there, unless there was no thread to be had, or it broke off.
        let done = self.thread.is_done();
        let lost = || Err("there is no thread to open it on".to_owned());
        let result = lock(&self.state).result.take();
        result.or_else(|| done.then(lost))
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
