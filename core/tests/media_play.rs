//! Decoding and playing of real media over the loopback interface.
#![cfg(feature = "media")]

use std::{
    future::Future,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use gst::prelude::*;
use gst_video::VideoFrameExt;
use iroh_live::{
    CloseCode, EncodedFrame, Live, LocalBroadcast, Quality, Subscription,
    broadcast::LocalTrack,
    endpoint::EndpointConfig,
    media::{
        AudioBackend, AudioCodec, AudioPreset, AudioSamples, AudioSource, AudioTrack, Decoders,
        DefaultDecoders, EncoderError, PlaybackConfig, PlaybackError, SetSourceError,
        SoftwareDecoders, Synchronisation, VideoCodec, VideoFrame, VideoOutput, VideoPreset,
        VideoSource, VideoTrack, caps::Codec,
    },
};

/// Generous: a limit for what hangs, not a measure of speed.
const LIMIT: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, met).await;
}

async fn live() -> Live {
    let endpoint = EndpointConfig::local().bind().await.expect("an endpoint");
    Live::builder(endpoint).with_router().spawn()
}

const H264: &str = "videotestsrc is-live=true pattern=red ! video/x-raw,format=I420,width=160,height=120,framerate=15/1 \
     ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=8 ! h264parse config-interval=-1";
const VP8: &str = "videotestsrc is-live=true pattern=red ! video/x-raw,format=I420,width=160,height=120,framerate=15/1 \
     ! vp8enc deadline=1 keyframe-max-dist=8";
const VP8_LARGE: &str = "videotestsrc is-live=true pattern=red ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 \
     ! vp8enc deadline=1 keyframe-max-dist=8";
const OPUS: &str = "audiotestsrc is-live=true samplesperbuffer=960 volume=0.5 \
     ! audio/x-raw,rate=48000,channels=2 ! opusenc";
const AAC: &str = "audiotestsrc is-live=true samplesperbuffer=1024 volume=0.5 \
     ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse";

/// The tracks of a publisher, and what is done to their frames on the way: the number of the frame, the frame.
type Alter = Box<dyn FnMut(u64, EncodedFrame) -> Option<EncodedFrame> + Send>;

struct Published {
    pipeline: gst::Pipeline,
    track: Arc<Mutex<Option<LocalTrack>>>,
}

impl Published {
    /// Encodes with `description`, and writes that to a track.
    fn start(broadcast: &LocalBroadcast, name: &str, description: &str, codec: Codec) -> Self {
        let track = Arc::default();
        Self::start_with(
            broadcast,
            track,
            name,
            description,
            codec,
            Box::new(|_, frame| Some(frame)),
        )
    }

    fn start_with(
        broadcast: &LocalBroadcast,
        track: Arc<Mutex<Option<LocalTrack>>>,
        name: &str,
        description: &str,
        codec: Codec,
        mut alter: Alter,
    ) -> Self {
        gst::init().unwrap();
        let form = codec.wire_caps();
        let pipeline = gst::parse::launch(&format!(
            "{description} ! {form} ! appsink name=sink sync=false"
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        let sink = pipeline
            .by_name("sink")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        let (broadcast, name, writes) = (broadcast.clone(), name.to_owned(), track.clone());
        let weak = pipeline.downgrade();
        let mut numbers = 0..;
        let mut described = None;
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let pipeline = weak.upgrade().ok_or(gst::FlowError::Eos)?;
                    let buffer = sample.buffer().unwrap();
                    let caps = sample.caps().unwrap();
                    let bytes = buffer.map_readable().unwrap().to_vec();
                    let segment = sample.segment().unwrap().downcast_ref::<gst::ClockTime>();
                    let Some(time) = segment.unwrap().to_running_time(buffer.pts()) else {
                        return Ok(gst::FlowSuccess::Ok);
                    };
                    let base = Duration::from(pipeline.base_time().unwrap());
                    let timestamp = clock_zero() + base + Duration::from(time);
                    let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                    let mut track = writes.lock().unwrap();
                    if described.as_ref() != Some(&caps.to_owned()) {
                        let config = codec.describe(caps, &bytes).unwrap();
                        match &mut *track {
                            Some(track) => track.set_config(config).unwrap(),
                            None => *track = Some(broadcast.publish_track(&*name, config).unwrap()),
                        }
                        described = Some(caps.to_owned());
                    }
                    let frame = EncodedFrame::new(timestamp, bytes, key);
                    let number = numbers.next().unwrap();
                    if let Some(frame) = alter(number, frame) {
                        // The track may be over.
                        let _ = track.as_mut().unwrap().write(frame);
                    }
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, track }
    }

    /// Stops without ending the track.
    fn stop(&self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }

    fn finish(&self) {
        self.stop();
        let mut track = self.track.lock().unwrap().take().unwrap();
        track.finish().unwrap();
    }

    fn is_watched(&self) -> bool {
        let track = self.track.lock().unwrap();
        track.as_ref().is_some_and(LocalTrack::is_watched)
    }
}

/// When the clock that all pipelines use was zero, as a timestamp: one timeline for all of them.
fn clock_zero() -> Duration {
    static ZERO: OnceLock<Duration> = OnceLock::new();
    *ZERO.get_or_init(|| LocalBroadcast::now() - Duration::from(gst::SystemClock::obtain().time()))
}

impl Drop for Published {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A publisher, a viewer, and what the one publishes as the other sees it.
struct Pair {
    publisher: Live,
    viewer: Live,
    broadcast: LocalBroadcast,
}

impl Pair {
    async fn new() -> Self {
        let (publisher, viewer) = (live().await, live().await);
        let broadcast = LocalBroadcast::new();
        publisher.publish("test", &broadcast).unwrap();
        Self {
            publisher,
            viewer,
            broadcast,
        }
    }

    fn add(&self, name: &str, description: &str, codec: Codec) -> Published {
        Published::start(&self.broadcast, name, description, codec)
    }

    fn add_altered(&self, description: &str, codec: Codec, alter: Alter) -> Published {
        Published::start_with(
            &self.broadcast,
            Arc::default(),
            "video",
            description,
            codec,
            alter,
        )
    }

    async fn subscribe(&self) -> Subscription {
        let subscribing = self
            .viewer
            .subscribe(self.publisher.endpoint().addr(), "test");
        soon("subscribe", subscribing).await.unwrap()
    }

    async fn video<D: Decoders>(&self, config: PlaybackConfig) -> VideoTrack {
        let sub = self.subscribe().await;
        let audio_backend = AudioBackend::none();
        let media = sub.media_with_decoders::<D>(&audio_backend, config);
        soon("media", media).await.unwrap().video.unwrap()
    }
}

async fn next(video: &VideoTrack) -> VideoFrame {
    soon("frame", video.next_frame())
        .await
        .unwrap()
        .expect("the track goes on")
}

async fn next_samples(audio: &AudioTrack) -> AudioSamples {
    soon("samples", audio.next_samples())
        .await
        .unwrap()
        .expect("the track goes on")
}

fn rgb() -> PlaybackConfig {
    PlaybackConfig::default().with_output(VideoOutput::Format(gst_video::VideoFormat::Rgba))
}

/// The colour in the middle of the picture.
fn middle(frame: &VideoFrame) -> [u8; 3] {
    let picture = frame.map().unwrap();
    let stride = picture.plane_stride()[0] as usize;
    let (x, y) = (picture.width() as usize / 2, picture.height() as usize / 2);
    let at = y * stride + x * 4;
    picture.plane_data(0).unwrap()[at..at + 3]
        .try_into()
        .unwrap()
}

fn is_red(frame: &VideoFrame) -> bool {
    let [r, g, b] = middle(frame);
    r > 200 && g < 60 && b < 60
}

/// The largest sample.
fn loudest(samples: &AudioSamples) -> f32 {
    let samples = samples.to_vec().unwrap();
    samples.iter().fold(0f32, |a, b| a.max(b.abs()))
}

/// Local time minus the publisher's, for what is due at a running time.
fn offset(running_time: Duration, captured: SystemTime) -> f64 {
    let captured = captured
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    running_time.as_secs_f64() - captured
}

/// Whether there is an encoder; says so if there is none.
fn has_encoder(set: Result<(), SetSourceError>) -> bool {
    match set {
        Err(SetSourceError::Encoder(error @ EncoderError::NotInstalled { .. })) => {
            println!("left out: {error}");
            false
        }
        set => {
            set.unwrap();
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_each_codec_are_what_was_published() {
    for codec in [
        VideoCodec::H264,
        VideoCodec::H265,
        VideoCodec::Av1,
        VideoCodec::Vp8,
        VideoCodec::Vp9,
    ] {
        let pair = Pair::new().await;
        // Small and slow, so that software keeps up with every codec.
        let red = VideoSource::description(
            "videotestsrc is-live=true pattern=red \
             ! video/x-raw,format=I420,width=160,height=120,framerate=15/1",
        );
        let preset = VideoPreset::P180;
        if !has_encoder(pair.broadcast.video().set_source(red, codec, [preset])) {
            continue;
        }
        let video = pair.video::<DefaultDecoders>(rgb()).await;
        let mut last = None;
        for _ in 0..15 {
            let frame = next(&video).await;
            assert_eq!((frame.width(), frame.height()), (160, 120), "{codec}");
            assert!(is_red(&frame), "{codec}: {:?}", middle(&frame));
            let captured = frame.captured().expect("the broadcast has a clock");
            assert!(
                Some(captured) > last,
                "{codec}: {captured:?} after {last:?}"
            );
            last = Some(captured);
            let age = SystemTime::now().duration_since(captured).unwrap();
            assert!(age < LIMIT, "{codec}: captured {age:?} ago");
        }
        assert_eq!(video.rendition().unwrap().name, preset.name());
        assert!(video.decoder().is_some());
        assert_eq!(video.counts().failures, 0, "{codec}");
        assert!(pair.broadcast.video().renditions()[0].watched);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_of_each_codec_is_what_was_published() {
    for codec in [AudioCodec::Opus, AudioCodec::Aac] {
        for (preset, channels) in [(AudioPreset::Hq, 2), (AudioPreset::Lq, 1)] {
            let pair = Pair::new().await;
            let tone = AudioSource::description(
                "audiotestsrc is-live=true samplesperbuffer=960 volume=0.5 \
                 ! audio/x-raw,rate=48000,channels=2",
            );
            if !has_encoder(pair.broadcast.audio().set(tone, codec, [preset])) {
                continue;
            }
            let sub = pair.subscribe().await;
            let audio_backend = AudioBackend::samples();
            let tracks = soon("media", sub.media(&audio_backend, Default::default()))
                .await
                .unwrap();
            let audio = tracks.audio.unwrap();
            let (mut last, mut loud) = (None, 0);
            // The first ones may be what a decoder needs to find its feet.
            while loud < 20 {
                let samples = next_samples(&audio).await;
                assert_eq!(samples.info().rate(), 48_000, "{codec}");
                assert_eq!(samples.info().channels(), channels, "{codec}");
                assert!(samples.captured() > last, "{codec}");
                last = samples.captured();
                loud = if (0.3..0.7).contains(&loudest(&samples)) {
                    loud + 1
                } else {
                    0
                };
            }
            assert_eq!(audio.rendition().unwrap().name, preset.name());
            assert_eq!(audio.counts().failures, 0, "{codec}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_come_as_the_decoder_gives_them_unless_asked_otherwise() {
    let pair = Pair::new().await;
    let _published = pair.add("video", H264, Codec::H264);
    for output in [VideoOutput::System, VideoOutput::Native] {
        let config = PlaybackConfig::default()
            .with_output(output)
            .with_hardware(false);
        let video = pair.video::<DefaultDecoders>(config).await;
        let frame = next(&video).await;
        let info = frame.info().unwrap();
        assert_eq!(info.format(), gst_video::VideoFormat::I420, "{output:?}");
        let picture = frame.map().unwrap();
        // Red in BT.601.
        assert!(picture.plane_data(0).unwrap()[0].abs_diff(81) < 6);
        assert!(picture.plane_data(2).unwrap()[0].abs_diff(240) < 12);
        assert!(frame.png().unwrap().starts_with(b"\x89PNG"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn software_decodes_on_request() {
    let pair = Pair::new().await;
    let _published = pair.add("video", VP8, Codec::Vp8);
    let video = pair.video::<SoftwareDecoders>(rgb()).await;
    assert!(is_red(&next(&video).await));
    let decoder = video.decoder().unwrap();
    let factory = decoder.split_whitespace().next().unwrap();
    let factory = gst::ElementFactory::find(factory).unwrap();
    assert!(!factory.has_type(gst::ElementFactoryType::HARDWARE));
}

#[tokio::test(flavor = "multi_thread")]
async fn synced_frames_wait_for_the_latency_and_immediate_ones_do_not() {
    let pair = Pair::new().await;
    let _published = pair.add("video", VP8, Codec::Vp8);
    let latency = Duration::from_millis(800);
    let synced = pair
        .video::<DefaultDecoders>(rgb().with_latency(latency))
        .await;
    let age = |frame: &VideoFrame| {
        SystemTime::now()
            .duration_since(frame.captured().unwrap())
            .unwrap()
    };
    // The first ones may be those from before, which are late by nature: late is later, too.
    for _ in 0..10 {
        let age = age(&next(&synced).await);
        assert!(age >= latency - Duration::from_millis(20), "{age:?}");
    }
    drop(synced);
    // A frame that waited for this would come after the limit.
    let config = rgb()
        .with_latency(2 * LIMIT)
        .with_sync(Synchronisation::Immediate);
    let immediate = pair.video::<DefaultDecoders>(config).await;
    for _ in 0..10 {
        assert!(age(&next(&immediate).await) < LIMIT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_and_picture_are_together() {
    for (description, codec) in [(OPUS, Codec::Opus), (AAC, Codec::Aac)] {
        let pair = Pair::new().await;
        let _video = pair.add("video", VP8, Codec::Vp8);
        let _audio = pair.add("audio", description, codec);
        until("both tracks", || {
            let catalog = pair.broadcast.catalog();
            !catalog.video.renditions.is_empty() && !catalog.audio.renditions.is_empty()
        })
        .await;
        let sub = pair.subscribe().await;
        let audio_backend = AudioBackend::samples();
        let tracks = soon("media", sub.media(&audio_backend, Default::default()))
            .await
            .unwrap();
        let (video, audio) = (tracks.video.unwrap(), tracks.audio.unwrap());
        // Until both have settled, the timeline may move.
        for _ in 0..20 {
            next(&video).await;
        }
        while !audio_waits_for_nothing(&audio).await {}
        // Ten pairs in a row: the timeline may still move a little in the beginning.
        let mut together = 0;
        let started = SystemTime::now();
        while together < 10 {
            let frame = next(&video).await;
            let samples = next_samples(&audio).await;
            let picture = offset(frame.running_time(), frame.captured().unwrap());
            let sound = offset(samples.running_time(), samples.captured().unwrap());
            let apart = (picture - sound).abs();
            together = if apart < 0.005 { together + 1 } else { 0 };
            assert!(
                started.elapsed().unwrap() < LIMIT,
                "{codec:?}: {apart} s apart"
            );
            assert_eq!(samples.info().channels(), 2);
            let loudest = loudest(&samples);
            assert!((0.3..0.7).contains(&loudest), "{codec:?}: {loudest}");
            assert_eq!(
                samples.map().unwrap().n_samples() * 2,
                samples.to_vec().unwrap().len()
            );
        }
    }
}

/// Takes what has been decoded so far.
async fn audio_waits_for_nothing(audio: &AudioTrack) -> bool {
    let waiting = Duration::from_millis(1);
    match tokio::time::timeout(waiting, audio.next_samples()).await {
        Ok(samples) => {
            samples.unwrap().expect("the track goes on");
            false
        }
        Err(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_is_as_loud_as_the_program_says() {
    let pair = Pair::new().await;
    let _audio = pair.add("audio", OPUS, Codec::Opus);
    let sub = pair.subscribe().await;
    let tracks = soon(
        "media",
        sub.media(&AudioBackend::samples(), Default::default()),
    )
    .await
    .unwrap();
    assert!(tracks.video.is_none());
    let audio = tracks.audio.unwrap();
    let loudness = |range: std::ops::Range<f32>| {
        let audio = &audio;
        async move {
            loop {
                let samples = next_samples(audio).await;
                if range.contains(&loudest(&samples)) {
                    break;
                }
            }
        }
    };
    soon("full", loudness(0.4..0.6)).await;
    audio.set_volume(0.5);
    soon("half", loudness(0.2..0.3)).await;
    audio.set_muted(true);
    assert!(audio.is_muted());
    soon("none", loudness(0.0..0.001)).await;
    audio.set_muted(false);
    soon("half again", loudness(0.2..0.3)).await;
    audio.set_volume(f64::NAN);
    assert!(audio.volume() <= 10.0);
}

/// A decoder that says when it cannot go on.
struct Strict;

impl Decoders for Strict {
    fn candidates(_: &gst::Caps, _: bool) -> Vec<String> {
        vec!["vp8dec max-errors=0".to_owned()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_the_middle_does_not_end_a_track() {
    for (description, codec, strict) in [
        (H264, Codec::H264, false),
        (VP8, Codec::Vp8, false),
        (VP8, Codec::Vp8, true),
    ] {
        let pair = Pair::new().await;
        let healed = Arc::new(Mutex::new(None));
        let heals = healed.clone();
        let alter = move |number, mut frame: EncodedFrame| {
            if (30..50).contains(&number) {
                let length = frame.payload.len().max(20);
                frame.payload = (0..length)
                    .map(|n| (n * 7 % 251) as u8)
                    .collect::<Vec<_>>()
                    .into();
            } else if number == 50 {
                *heals.lock().unwrap() = Some(SystemTime::now());
            }
            Some(frame)
        };
        let _published = pair.add_altered(description, codec, Box::new(alter));
        let video = if strict {
            pair.video::<Strict>(rgb()).await
        } else {
            pair.video::<DefaultDecoders>(rgb()).await
        };
        assert!(is_red(&next(&video).await));
        let mut after = 0;
        while after < 10 {
            let frame = next(&video).await;
            let healed = *healed.lock().unwrap();
            if healed.is_some_and(|healed| frame.captured().unwrap() > healed) {
                after += 1;
            }
            // What is left of the last damaged group may look odd.
            assert!(after < 9 || is_red(&frame), "{codec:?}");
        }
        assert!(!strict || video.counts().failures > 0);
    }
}

/// What is not installed, what cannot be linked, what fails at once, and what works for a while.
struct Troubled;

impl Decoders for Troubled {
    fn candidates(_: &gst::Caps, _: bool) -> Vec<String> {
        [
            "nosuchelement",
            "fakesink",
            "opusdec",
            "identity error-after=1 ! vp8dec",
            "identity error-after=8 ! vp8dec",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoder_that_fails_is_replaced_and_one_that_worked_is_made_anew() {
    let pair = Pair::new().await;
    let _published = pair.add("video", VP8, Codec::Vp8);
    let video = pair.video::<Troubled>(rgb()).await;
    let mut last = None;
    for _ in 0..20 {
        let frame = next(&video).await;
        assert!(is_red(&frame));
        assert!(frame.captured() > last);
        last = frame.captured();
    }
    // Three or four of the candidates, and the last one now and then.
    assert!(video.counts().failures >= 5, "{:?}", video.counts());
}

struct Nothing;

impl Decoders for Nothing {
    fn candidates(_: &gst::Caps, _: bool) -> Vec<String> {
        Vec::new()
    }
}

struct Broken;

impl Decoders for Broken {
    fn candidates(_: &gst::Caps, _: bool) -> Vec<String> {
        vec!["nosuchelement".to_owned()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_decoder_the_error_names_the_package() {
    let pair = Pair::new().await;
    let _published = pair.add("video", VP8, Codec::Vp8);
    let video = pair.video::<Nothing>(rgb()).await;
    let error = soon("error", video.next_frame()).await.unwrap_err();
    assert!(matches!(error, PlaybackError::MissingDecoder { .. }));
    assert!(
        error.to_string().contains("gstreamer1.0-plugins-good"),
        "{error}"
    );
    // Told once.
    assert!(soon("end", video.next_frame()).await.unwrap().is_none());

    let video = pair.video::<Broken>(rgb()).await;
    let error = soon("error", video.next_frame()).await.unwrap_err();
    assert!(matches!(error, PlaybackError::Decoder { .. }), "{error}");
    assert!(error.to_string().contains("nosuchelement"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_resolution_goes_through() {
    let pair = Pair::new().await;
    let small = pair.add("video", VP8, Codec::Vp8);
    let video = pair.video::<DefaultDecoders>(rgb()).await;
    assert_eq!(next(&video).await.width(), 160);
    small.stop();
    let _large = Published::start_with(
        &pair.broadcast,
        small.track.clone(),
        "video",
        VP8_LARGE,
        Codec::Vp8,
        Box::new(|_, frame| Some(frame)),
    );
    let grown = async {
        loop {
            let frame = next(&video).await;
            if frame.width() == 320 {
                assert_eq!(frame.height(), 240);
                assert!(is_red(&frame));
                break;
            }
        }
    };
    soon("the larger picture", grown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publishers_end_is_the_end_and_the_last_frame_is_seen() {
    let pair = Pair::new().await;
    let last = Arc::new(Mutex::new(Duration::ZERO));
    let writes = last.clone();
    let alter = move |_, frame: EncodedFrame| {
        *writes.lock().unwrap() = frame.timestamp;
        Some(frame)
    };
    let published = pair.add_altered(VP8, Codec::Vp8, Box::new(alter));
    let video = pair.video::<DefaultDecoders>(rgb()).await;
    next(&video).await;
    published.finish();
    pair.broadcast.finish();
    let mut seen = None;
    while let Some(frame) = soon("end", video.next_frame()).await.unwrap() {
        seen = frame.captured();
    }
    let zero = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    let last = zero + *last.lock().unwrap();
    let between = last.duration_since(seen.unwrap()).unwrap_or_default();
    assert!(between < Duration::from_millis(1), "{between:?}");
    assert!(soon("end", video.next_frame()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_that_leaves_ends_and_the_other_goes_on() {
    let pair = Pair::new().await;
    let picture = pair.add("video", VP8, Codec::Vp8);
    let _sound = pair.add("audio", OPUS, Codec::Opus);
    let sub = pair.subscribe().await;
    let video = sub.broadcast().video().unwrap();
    let audio = sub.broadcast().audio(&AudioBackend::samples()).unwrap();
    next(&video).await;
    picture.finish();
    while soon("end", video.next_frame()).await.unwrap().is_some() {}
    for _ in 0..20 {
        next_samples(&audio).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendition_of_another_codec_takes_over() {
    one_takes_over_from_the_other(H264, Codec::H264).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendition_of_the_same_codec_takes_over() {
    one_takes_over_from_the_other(VP8, Codec::Vp8).await;
}

/// From a small one of this codec to a large one of VP8, and back.
async fn one_takes_over_from_the_other(description: &str, codec: Codec) {
    let pair = Pair::new().await;
    let small = pair.add("small", description, codec);
    let large = pair.add("large", VP8_LARGE, Codec::Vp8);
    until("both renditions", || {
        pair.broadcast.catalog().video.renditions.len() == 2
    })
    .await;
    let video = pair
        .video::<DefaultDecoders>(rgb().with_quality(Quality::Lowest))
        .await;
    assert_eq!(next(&video).await.width(), 160);
    let mut last = None;
    for (quality, width) in [(Quality::Highest, 320), (Quality::Lowest, 160)] {
        video.set_quality(quality).unwrap();
        let switched = async {
            loop {
                let frame = next(&video).await;
                assert!(is_red(&frame));
                let of = if frame.width() == 160 {
                    "small"
                } else {
                    "large"
                };
                let name = video.rendition().unwrap().name.clone();
                assert_eq!(name, of);
                assert!(frame.captured() > last, "no frame comes twice");
                last = frame.captured();
                if frame.width() == width {
                    break;
                }
            }
        };
        soon("the other rendition", switched).await;
    }
    assert_eq!(video.counts().failures, 0);
    assert!(
        video
            .set_quality(Quality::Named("none".to_owned()))
            .is_err()
    );
    // Two are received only while it switches.
    until("the end of the other download", || !large.is_watched()).await;
    assert!(small.is_watched());
}

/// Decodes H.264 only, which shows when it is too late.
struct NoVp8;

impl Decoders for NoVp8 {
    fn candidates(caps: &gst::Caps, hardware: bool) -> Vec<String> {
        if caps
            .structure(0)
            .is_some_and(|structure| structure.name() == "video/x-vp8")
        {
            return vec!["there-is-no-such-element".to_owned()];
        }
        DefaultDecoders::candidates(caps, hardware)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_before_another_codec_is_seen_also_if_that_does_not_play() {
    let pair = Pair::new().await;
    let _small = pair.add("small", H264, Codec::H264);
    // When the other one began, once it is to.
    let begun = Arc::new(Mutex::new((false, None)));
    let begins = begun.clone();
    let _large = Published::start_with(
        &pair.broadcast,
        Arc::default(),
        "large",
        VP8_LARGE,
        Codec::Vp8,
        Box::new(move |_, frame| {
            let (wanted, first) = &mut *begins.lock().unwrap();
            if first.is_none() && *wanted && frame.keyframe {
                *first = Some(frame.timestamp);
            }
            first.map(|_| frame)
        }),
    );
    until("both renditions", || {
        pair.broadcast.catalog().video.renditions.len() == 2
    })
    .await;
    let config = rgb().with_quality(Quality::Lowest);
    let config = config.with_latency(Duration::from_secs(2));
    let video = pair.video::<NoVp8>(config).await;
    next(&video).await;
    begun.lock().unwrap().0 = true;
    video.set_quality(Quality::Highest).unwrap();
    let mut seen = None;
    let error = loop {
        match soon("the end", video.next_frame()).await {
            Ok(frame) => seen = frame.expect("no end without the error").captured(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PlaybackError::Decoder { .. }), "{error}");
    let zero = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    let begun = zero + begun.lock().unwrap().1.unwrap();
    let missing = begun.duration_since(seen.unwrap()).unwrap_or_default();
    // A frame is 67 ms.
    assert!(missing < Duration::from_millis(200), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_session_gives_ends_with_an_error_when_that_is_lost() {
    let pair = Pair::new().await;
    let _published = pair.add("video", VP8, Codec::Vp8);
    let address = pair.publisher.endpoint().addr();
    let session = pair.viewer.transport().connect(address).await.unwrap();
    let broadcast = soon("broadcast", session.subscribe("test")).await.unwrap();
    let tracks = broadcast.media(&AudioBackend::none(), rgb()).await.unwrap();
    let video = tracks.video.unwrap();
    next(&video).await;
    soon("shutdown", pair.publisher.shutdown()).await;
    let error = async {
        loop {
            match video.next_frame().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the track ended as if the publisher had wanted it"),
                Err(error) => break error,
            }
        }
    };
    let error = soon("error", error).await;
    assert!(matches!(error, PlaybackError::Source(_)), "{error}");
}

/// Picture and sound, over a publisher that begins again, and with another codec at last.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscription_plays_goes_on_when_the_publisher_has_come_back() {
    let mut pair = Pair::new().await;
    let mut published = Some((
        pair.add("video", VP8, Codec::Vp8),
        pair.add("audio", OPUS, Codec::Opus),
    ));
    until("the catalog", || {
        let catalog = pair.broadcast.catalog();
        catalog.video.renditions.len() + catalog.audio.renditions.len() == 2
    })
    .await;
    let address = pair.publisher.endpoint().addr();
    let subscriber = pair.viewer.subscriber(address, "test").spawn();
    let audio_backend = AudioBackend::samples();
    let playing = subscriber.broadcast().media(&audio_backend, rgb());
    let tracks = soon("media", playing).await.unwrap();
    let (video, audio) = (tracks.video.unwrap(), tracks.audio.unwrap());
    next(&video).await;
    next_samples(&audio).await;
    for (description, codec) in [(VP8, Codec::Vp8), (H264, Codec::H264)] {
        published.take();
        pair.broadcast = LocalBroadcast::new();
        for session in pair.publisher.transport().sessions().borrow().iter() {
            session.close(CloseCode::new(CloseCode::FIRST_OWN), "for a test");
        }
        let mut state = subscriber.state();
        let lost = state.wait_for(|state| !state.is_up());
        soon("lost", lost).await.unwrap();
        let begun = SystemTime::now();
        pair.publisher.publish("test", &pair.broadcast).unwrap();
        published = Some((
            pair.add("video", description, codec),
            pair.add("audio", OPUS, Codec::Opus),
        ));
        let new = async {
            while next(&video).await.captured().unwrap() < begun {}
            while next_samples(&audio).await.captured().unwrap() < begun {}
        };
        soon("the new picture and sound", new).await;
    }
    assert_eq!((video.counts().failures, audio.counts().failures), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_tracks_stops_the_download() {
    let pair = Pair::new().await;
    let published = pair.add("video", VP8, Codec::Vp8);
    let _audio = pair.add("audio", OPUS, Codec::Opus);
    until("the catalog", || {
        !pair.broadcast.catalog().audio.renditions.is_empty()
    })
    .await;
    let audio_backend = AudioBackend::samples();
    let watching = pair.viewer.subscribe_media(
        pair.publisher.endpoint().addr(),
        "test",
        &audio_backend,
        PlaybackConfig::default(),
    );
    let (session, tracks) = soon("media", watching).await.unwrap();
    next(tracks.video.as_ref().unwrap()).await;
    assert!(published.is_watched());
    drop(tracks.video);
    until("the video's end", || !published.is_watched()).await;
    // The other one goes on.
    let audio = tracks.audio.unwrap();
    for _ in 0..10 {
        next_samples(&audio).await;
    }
    drop(audio);
    assert!(session.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_track_of_a_broadcast_opens_when_it_is_wanted() {
    let pair = Pair::new().await;
    let sub = pair.subscribe().await;
    let remote_broadcast = sub.broadcast();
    let video = remote_broadcast.video().unwrap();
    let audio = remote_broadcast.audio(&AudioBackend::samples()).unwrap();
    assert!(remote_broadcast.audio(&AudioBackend::none()).is_err());
    // There was nothing yet when it was asked for.
    let published = pair.add("video", H264, Codec::H264);
    let sound = pair.add("audio", OPUS, Codec::Opus);
    until("the tracks", || {
        let catalog = pair.broadcast.catalog();
        !catalog.video.renditions.is_empty() && !catalog.audio.renditions.is_empty()
    })
    .await;
    assert!(!published.is_watched());
    assert_eq!(next(&video).await.width(), 160);
    assert!(published.is_watched());
    assert!(!sound.is_watched());
    next_samples(&audio).await;
    // One timeline for both.
    let frame = next(&video).await;
    let picture = offset(frame.running_time(), frame.captured().unwrap());
    let samples = next_samples(&audio).await;
    let sound = offset(samples.running_time(), samples.captured().unwrap());
    assert!((picture - sound).abs() < 1.0, "{picture} {sound}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_program_gets_the_newest_picture() {
    let pair = Pair::new().await;
    let _published = pair.add("video", VP8, Codec::Vp8);
    let video = pair.video::<DefaultDecoders>(rgb()).await;
    let first = next(&video).await;
    let before = video.counts();
    until("frames are dropped", || {
        video.counts().dropped >= before.dropped + 10
    })
    .await;
    let then = next(&video).await;
    // Ten frames at 15 a second are left out.
    let between = then.running_time() - first.running_time();
    assert!(between > Duration::from_millis(600), "{between:?}");
    assert!(video.counts().decoded >= 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audio_output_plays_and_one_that_is_not_there_is_an_error() {
    let pair = Pair::new().await;
    let audio = pair.add("audio", OPUS, Codec::Opus);
    let sub = pair.subscribe().await;
    let nowhere = AudioBackend::device("alsasink device=nosuchdevice");
    let tracks = soon("media", sub.media(&nowhere, Default::default()))
        .await
        .unwrap();
    let error = soon("error", tracks.audio.unwrap().next_samples()).await;
    let error = error.map(|_| ()).unwrap_err();
    assert!(matches!(error, PlaybackError::Output(_)), "{error}");

    let mistyped = AudioBackend::device("nosuchsink");
    let tracks = soon("media", sub.media(&mistyped, Default::default()))
        .await
        .unwrap();
    let error = soon("error", tracks.audio.unwrap().next_samples()).await;
    assert!(
        error
            .map(|_| ())
            .unwrap_err()
            .to_string()
            .contains("nosuchsink")
    );

    // A sink that writes what it would play.
    let folder = std::env::temp_dir().join(format!("iroh-live-play-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("sound.raw");
    let device = AudioBackend::device(format!(
        "filesink buffer-mode=2 location={}",
        file.display()
    ));
    let tracks = soon("media", sub.media(&device, Default::default()))
        .await
        .unwrap();
    until("sound", || {
        std::fs::metadata(&file).is_ok_and(|file| file.len() > 100_000)
    })
    .await;
    audio.finish();
    pair.broadcast.finish();
    let end = soon("end", tracks.audio.unwrap().next_samples()).await;
    assert!(end.unwrap().is_none());
    std::fs::remove_dir_all(&folder).unwrap();
}
