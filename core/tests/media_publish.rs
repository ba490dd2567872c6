//! Sources, encoders and renditions, over the loopback interface.
#![cfg(feature = "media")]

use std::{
    future::Future,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::prelude::*;
use iroh_live::{
    EncodedFrame, Live, LocalBroadcast, RemoteBroadcast, TrackConfig,
    broadcast::{Catalog, EncodedReader},
    endpoint::EndpointConfig,
    media::{
        AudioCodec, AudioPreset, AudioSource, EncoderError, LocalVideo, MediaSource,
        PublishMediaError, PushError, RenditionInfo, SetSourceError, SourceError, SourceStatus,
        VideoCodec, VideoEncoder, VideoPreset, VideoSource,
    },
};
use tokio::sync::watch;

/// Generous: a limit for what hangs, not a measure of speed.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// So that those who could do something wrong have the time to.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(1200)).await;
}

async fn live() -> Live {
    let endpoint = EndpointConfig::local().bind().await.expect("an endpoint");
    Live::builder(endpoint).with_router().spawn()
}

/// A publisher and a viewer, who see each other only over the network.
struct Pair {
    local: LocalBroadcast,
    remote: RemoteBroadcast,
    publisher: Live,
    viewer: Live,
    name: String,
}

impl Pair {
    async fn new() -> Self {
        let (publisher, viewer) = (live().await, live().await);
        let local = LocalBroadcast::new();
        let name = format!("stream-{}", publisher.endpoint().id().fmt_short());
        publisher.publish(name.as_str(), &local).expect("published");
        let subscription = viewer.subscribe(publisher.endpoint().addr(), name.as_str());
        let subscription = soon("subscription", subscription).await.expect("found");
        let (_, remote, _) = subscription.into_parts();
        Self {
            local,
            remote,
            publisher,
            viewer,
            name,
        }
    }

    /// Publishes a small test card, and gives its rendition's name.
    fn test_card(&self, encoder: impl Into<VideoEncoder>) -> (LocalVideo, String) {
        let (video, preset) = (self.local.video(), small(200_000));
        video
            .set_source(VideoSource::test(), encoder, [preset])
            .unwrap();
        (video, preset.name())
    }

    /// The first catalog that is as it should be.
    async fn catalog(&self, mut good: impl FnMut(&Catalog) -> bool) -> Catalog {
        let mut catalogs = soon("catalog", self.remote.catalog()).await.expect("one");
        loop {
            let catalog = soon("a catalog that is as it should be", catalogs.next()).await;
            let catalog = catalog.expect("sound").expect("not the end");
            if good(&catalog) {
                return catalog;
            }
        }
    }

    async fn video(&self, name: &str) -> EncodedReader {
        let catalog = self
            .catalog(|catalog| catalog.video.renditions.contains_key(name))
            .await;
        let config = TrackConfig::Video(catalog.video.renditions[name].clone());
        self.read(name, &config).await
    }

    async fn audio(&self, name: &str) -> EncodedReader {
        let catalog = self
            .catalog(|catalog| catalog.audio.renditions.contains_key(name))
            .await;
        let config = TrackConfig::Audio(catalog.audio.renditions[name].clone());
        self.read(name, &config).await
    }

    async fn read(&self, name: &str, config: &TrackConfig) -> EncodedReader {
        let reader = self.remote.subscribe(name, config, Duration::from_secs(2));
        soon("track", reader).await.expect("there")
    }

    async fn close(self) {
        self.viewer.shutdown().await;
        self.publisher.shutdown().await;
    }
}

async fn next(reader: &mut EncodedReader) -> EncodedFrame {
    soon("frame", reader.next())
        .await
        .expect("sound")
        .expect("not the end")
}

/// A small picture that costs little to encode.
fn small(bitrate: u64) -> VideoPreset {
    VideoPreset::Custom {
        width: 160,
        height: 120,
        framerate: 30,
        bitrate,
    }
}

fn rendition(video: &LocalVideo, name: &str) -> RenditionInfo {
    let found = video.renditions().into_iter().find(|r| r.name == name);
    found.unwrap_or_else(|| panic!("no rendition {name}"))
}

/// Waits for the end of a source.
async fn ended(mut status: watch::Receiver<SourceStatus>) {
    let ended = status.wait_for(|status| matches!(status, SourceStatus::Ended));
    soon("told of the end", ended).await.unwrap();
}

/// Waits for a failure of a source or what becomes of it.
async fn failed(mut status: watch::Receiver<SourceStatus>) -> PublishMediaError {
    let failed = status.wait_for(|status| matches!(status, SourceStatus::Failed(_)));
    match &*soon("told of the failure", failed).await.unwrap() {
        SourceStatus::Failed(error) => error.clone(),
        status => panic!("{status:?}"),
    }
}

fn has(element: &str) -> bool {
    iroh_live::media::init().expect("GStreamer");
    gst::ElementFactory::find(element).is_some()
}

/// The H.264 NAL unit types of an access unit.
fn nal_types(data: &[u8]) -> Vec<u8> {
    data.windows(4)
        .filter(|window| window[..3] == [0, 0, 1])
        .map(|window| window[3] & 31)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fragments_of_the_documentation_work() {
    let local = LocalBroadcast::new();
    let camera = VideoSource::test();
    let mic = AudioSource::test();
    let set = || -> Result<(), SetSourceError> {
        local
            .video()
            .set_source(camera, VideoCodec::H264, [VideoPreset::P720])?;
        local
            .audio()
            .set(mic, AudioCodec::Opus, [AudioPreset::Hq])?;
        Ok(())
    };
    set().unwrap();
    until("both described", || {
        let catalog = local.catalog();
        catalog.video.renditions.contains_key("720p") && catalog.audio.renditions.contains_key("hq")
    })
    .await;
    let catalog = local.catalog();
    let video = &catalog.video.renditions["720p"];
    assert_eq!(
        (video.coded_width, video.coded_height, video.bitrate),
        (Some(1280), Some(720), Some(2_000_000))
    );
    assert_eq!(video.framerate, Some(30.0));
    let audio = &catalog.audio.renditions["hq"];
    assert_eq!((audio.sample_rate, audio.channel_count), (48_000, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_publishes_and_begins_with_a_key_frame() {
    let pair = Pair::new().await;
    let mut seen = 0;
    for (codec, prefix, element) in [
        (VideoCodec::H264, "avc3.", "x264enc"),
        (VideoCodec::H264, "avc3.", "openh264enc"),
        (VideoCodec::H265, "hev1.", "x265enc"),
        (VideoCodec::Vp8, "vp8", "vp8enc"),
        (VideoCodec::Vp9, "vp09.", "vp9enc"),
        (VideoCodec::Av1, "av01.", "av1enc"),
        (VideoCodec::Av1, "av01.", "svtav1enc"),
    ] {
        if !has(element) {
            continue;
        }
        seen += 1;
        let video = pair.local.video();
        // A name for each: the viewer may hear late that the one before is over.
        let preset = small(200_000 + seen * 1000);
        video
            .set_source(VideoSource::test(), codec.by(element), [preset])
            .unwrap();
        let name = preset.name();
        until(element, || {
            pair.local
                .catalog()
                .video
                .renditions
                .get(&name)
                .is_some_and(|config| config.codec.to_string().starts_with(prefix))
                && rendition(&video, &name).encoder.as_deref() == Some(element)
        })
        .await;
        let mut reader = pair.video(&name).await;
        let mut last = None;
        for n in 0..10 {
            let frame = next(&mut reader).await;
            assert_eq!(frame.keyframe, n == 0, "{element}: frame {n}");
            assert!(Some(frame.timestamp) > last, "{element}: {last:?}");
            last = Some(frame.timestamp);
        }
        let age = LocalBroadcast::now().abs_diff(last.unwrap());
        assert!(age < Duration::from_secs(5), "{element}: {age:?}");
        video.stop();
    }
    assert!(seen >= 5, "{seen} encoders");
    pair.close().await;
}

/// Encoders of VP9 that are better than all others, if one believes their rank.
mod braggart {
    use std::sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    };

    use gst::{glib, prelude::*, subclass::prelude::*};

    pub const NAMES: [&str; 2] = ["braggart0enc", "braggart1enc"];
    /// The next one does not start.
    pub static REFUSES: AtomicBool = AtomicBool::new(true);
    /// One that started broke at its first frame.
    pub static BROKE: AtomicBool = AtomicBool::new(false);

    pub fn register() {
        iroh_live::media::init().unwrap();
        for name in NAMES {
            let rank = gst::Rank::PRIMARY + 1;
            gst::Element::register(None, name, rank, Braggart::static_type()).unwrap();
        }
    }

    glib::wrapper! {
        pub struct Braggart(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
    }

    #[derive(Default)]
    pub struct Imp;

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "TestBraggart";
        type Type = Braggart;
        type ParentType = gst::Element;
    }

    fn template(name: &str, direction: gst::PadDirection, caps: &str) -> gst::PadTemplate {
        let caps = gst::Caps::new_empty_simple(caps);
        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).unwrap()
    }

    impl ObjectImpl for Imp {
        fn constructed(&self) {
            self.parent_constructed();
            let element = self.obj();
            let sink = gst::Pad::builder_from_template(&element.pad_template("sink").unwrap())
                .event_function(|_, _, _| true)
                .chain_function(|_, parent, _| {
                    BROKE.store(true, Ordering::Relaxed);
                    let element = parent.and_then(|parent| parent.downcast_ref::<Braggart>());
                    gst::element_error!(element.unwrap(), gst::StreamError::Encode, ["broken"]);
                    Err(gst::FlowError::Error)
                })
                .build();
            let src = gst::Pad::from_template(&element.pad_template("src").unwrap());
            element.add_pad(&sink).unwrap();
            element.add_pad(&src).unwrap();
        }
    }

    impl GstObjectImpl for Imp {}

    impl ElementImpl for Imp {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Braggart",
                    "Codec/Encoder/Video",
                    "Encodes nothing",
                    "A test",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<[gst::PadTemplate; 2]> = LazyLock::new(|| {
                [
                    template("sink", gst::PadDirection::Sink, "video/x-raw"),
                    template("src", gst::PadDirection::Src, "video/x-vp9"),
                ]
            });
            &*TEMPLATES
        }

        fn change_state(
            &self,
            transition: gst::StateChange,
        ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if transition == gst::StateChange::NullToReady && REFUSES.swap(false, Ordering::Relaxed)
            {
                gst::element_imp_error!(self, gst::ResourceError::OpenWrite, ["no such device"]);
                return Err(gst::StateChangeError);
            }
            self.parent_change_state(transition)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_does_not_start_or_breaks_at_once_makes_room_for_the_next() {
    braggart::register();
    let pair = Pair::new().await;
    // No other test of this process leaves the choice of an encoder of VP9 to the rank.
    let (video, name) = pair.test_card(VideoCodec::Vp9);
    let mut reader = pair.video(&name).await;
    for n in 0..10 {
        assert_eq!(next(&mut reader).await.keyframe, n == 0, "frame {n}");
    }
    assert!(!braggart::REFUSES.load(Ordering::Relaxed));
    assert!(braggart::BROKE.load(Ordering::Relaxed));
    let encoder = rendition(&video, &name).encoder.unwrap();
    assert_eq!(encoder, "vp9enc");
    assert!(matches!(*video.status().borrow(), SourceStatus::Running));
    // One that the program names stands alone, and the program hears of it.
    braggart::REFUSES.store(true, Ordering::Relaxed);
    pair.test_card(VideoCodec::Vp9.by(braggart::NAMES[0]));
    let error = failed(video.status()).await.to_string();
    assert!(error.contains("no such device"), "{error}");
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audio_codecs_publish() {
    let mut seen = 0;
    for (codec, element) in [
        (AudioCodec::Opus, "opusenc"),
        (AudioCodec::Aac, "avenc_aac"),
        (AudioCodec::Aac, "voaacenc"),
    ] {
        if !has(element) {
            continue;
        }
        seen += 1;
        let pair = Pair::new().await;
        let audio = pair.local.audio();
        audio
            .set(
                AudioSource::test(),
                codec.by(element),
                [AudioPreset::Hq, AudioPreset::Lq],
            )
            .unwrap();
        until(element, || {
            let catalog = pair.local.catalog();
            let renditions = audio.renditions();
            catalog.audio.renditions.len() == 2
                && renditions.len() == 2
                && renditions
                    .iter()
                    .all(|rendition| rendition.encoder.as_deref() == Some(element))
        })
        .await;
        let catalog = pair.local.catalog();
        assert_eq!(catalog.audio.renditions["lq"].channel_count, 1, "{element}");
        assert_eq!(catalog.audio.renditions["hq"].channel_count, 2, "{element}");
        let mut reader = pair.audio("lq").await;
        let first = next(&mut reader).await;
        for _ in 0..10 {
            let frame = next(&mut reader).await;
            assert!(!frame.payload.is_empty());
            assert!(frame.timestamp > first.timestamp);
        }
        audio.stop();
        assert!(pair.local.catalog().audio.renditions.is_empty());
        pair.close().await;
    }
    assert!(seen >= 2, "{seen} encoders");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_presets_make_two_renditions_of_one_capture() {
    let pair = Pair::new().await;
    let video = pair.local.video();
    // 4:3, in pixels that are not square, so that both have to be scaled.
    let source = VideoSource::description(
        "videotestsrc is-live=true ! video/x-raw,width=720,height=576,framerate=25/1,pixel-aspect-ratio=16/15",
    );
    let presets = [VideoPreset::P1080, VideoPreset::P360, VideoPreset::P180];
    video.set_source(source, VideoCodec::H264, presets).unwrap();
    until("three renditions", || {
        pair.local.catalog().video.renditions.len() == 3
    })
    .await;
    let catalog = pair.local.catalog();
    let size = |name: &str| {
        let config = &catalog.video.renditions[name];
        (config.coded_width, config.coded_height)
    };
    assert_eq!(size("1080p"), (Some(720), Some(540)), "not scaled up");
    assert_eq!(size("360p"), (Some(480), Some(360)));
    assert_eq!(size("180p"), (Some(240), Some(180)));
    assert_eq!(catalog.video.renditions["180p"].framerate, Some(25.0));
    let (mut large, mut thin) = (pair.video("360p").await, pair.video("180p").await);
    let (a, b) = (next(&mut large).await, next(&mut thin).await);
    assert!(a.keyframe && b.keyframe);
    // One capture: the same frames at the same times.
    let mut times = Vec::new();
    for _ in 0..20 {
        times.push(next(&mut large).await.timestamp);
    }
    let mut common = 0;
    while common < 5 {
        let time = next(&mut thin).await.timestamp;
        assert!(time <= times[times.len() - 1], "no common frames");
        common += usize::from(times.contains(&time));
    }
    assert_eq!(rendition(&video, "1080p").frames_sent, 0);
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_encoded_for_nobody_and_the_first_viewer_gets_a_key_frame_at_once() {
    let pair = Pair::new().await;
    let (video, name) = pair.test_card(VideoCodec::H264);
    until("described", || {
        pair.local.catalog().video.renditions.contains_key(&name)
    })
    .await;
    // What was inside the encoder comes out.
    a_while().await;
    let before = rendition(&video, &name);
    assert!(!before.watched);
    assert_eq!(before.frames_sent, 0);
    a_while().await;
    assert_eq!(
        rendition(&video, &name).frames_encoded,
        before.frames_encoded
    );

    for round in 0..2 {
        let asked = LocalBroadcast::now();
        let mut reader = pair.video(&name).await;
        let first = next(&mut reader).await;
        assert!(first.keyframe, "round {round}");
        assert!(
            nal_types(&first.payload).contains(&5),
            "round {round}: an IDR picture: {:?}",
            nal_types(&first.payload)
        );
        // A picture of now, not of before the sleep, and well before the encoder's own next key frame.
        assert!(
            first.timestamp + Duration::from_millis(500) > asked,
            "round {round}: {:?} old",
            asked - first.timestamp
        );
        let encoded = rendition(&video, &name);
        for _ in 0..10 {
            assert!(!next(&mut reader).await.keyframe);
        }
        assert!(rendition(&video, &name).watched);
        drop(reader);
        until("asleep", || !rendition(&video, &name).watched).await;
        a_while().await;
        let asleep = rendition(&video, &name);
        assert!(asleep.frames_encoded > encoded.frames_encoded);
        a_while().await;
        assert_eq!(
            rendition(&video, &name).frames_encoded,
            asleep.frames_encoded
        );
    }
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_viewer_gets_a_key_frame_before_the_next_is_due() {
    let pair = Pair::new().await;
    let (_, name) = pair.test_card(VideoCodec::H264);
    let mut first = pair.video(&name).await;
    assert!(next(&mut first).await.keyframe);
    for _ in 0..40 {
        assert!(!next(&mut first).await.keyframe);
    }
    let third = live().await;
    let subscription = third.subscribe(pair.publisher.endpoint().addr(), pair.name.as_str());
    let (_, remote, _) = soon("subscription", subscription)
        .await
        .unwrap()
        .into_parts();
    let config = pair.local.catalog().video.renditions[&name].clone();
    let asked = LocalBroadcast::now();
    let mut second = soon(
        "track",
        remote.subscribe(&name, &config.into(), Duration::ZERO),
    )
    .await
    .unwrap();
    assert!(next(&mut second).await.keyframe);
    // The encoder's own interval is four seconds, of which little more than one is over.
    let keyframe = loop {
        let frame = next(&mut first).await;
        if frame.keyframe {
            break frame.timestamp;
        }
    };
    assert!(
        keyframe < asked + Duration::from_millis(2500),
        "{:?} later",
        keyframe - asked
    );
    third.shutdown().await;
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_for_the_sound_alone_causes_no_key_frame() {
    let pair = Pair::new().await;
    let (_, name) = pair.test_card(VideoCodec::H264);
    pair.local
        .audio()
        .set(AudioSource::test(), AudioCodec::Opus, [AudioPreset::Hq])
        .unwrap();
    let mut picture = pair.video(&name).await;
    assert!(next(&mut picture).await.keyframe);
    for _ in 0..30 {
        assert!(!next(&mut picture).await.keyframe);
    }
    // A catalog and a sound of their own.
    let mut sound = pair.audio("hq").await;
    next(&mut sound).await;
    // Of the four seconds between the encoder's own key frames not three are over.
    for _ in 0..50 {
        assert!(!next(&mut picture).await.keyframe);
    }
    pair.close().await;
}

fn frame_of(info: &gst_video::VideoInfo, luma: u8) -> gst::Buffer {
    gst::Buffer::from_slice(vec![luma; info.size()])
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_can_be_pushed() {
    iroh_live::media::init().unwrap();
    let pair = Pair::new().await;
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 161, 121)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .unwrap();
    let (pusher, source) = VideoSource::push(info.clone());
    // Nobody takes it yet; that is no error.
    pusher.push(frame_of(&info, 10)).unwrap();
    let video = pair.local.video();
    video
        .set_source(source, VideoCodec::Vp8, [VideoPreset::P360])
        .unwrap();
    assert_eq!(
        pusher.push(gst::Buffer::from_slice([0u8; 3])),
        Err(PushError::Size {
            got: 3,
            expected: info.size()
        })
    );
    let pushing = std::thread::spawn({
        let info = info.clone();
        move || {
            let begin = std::time::Instant::now();
            let wall = LocalBroadcast::now();
            for n in 0..150u32 {
                let at = begin + Duration::from_millis(33) * n;
                pusher.push_at(frame_of(&info, 100), at).unwrap();
                assert_eq!(
                    pusher.push_at(frame_of(&info, 100), at),
                    Err(PushError::Order)
                );
                std::thread::sleep(Duration::from_millis(33));
            }
            wall
        }
    });
    let mut reader = pair.video("360p").await;
    let catalog = pair.local.catalog();
    let config = &catalog.video.renditions["360p"];
    assert_eq!(
        (config.coded_width, config.coded_height),
        (Some(160), Some(120)),
        "odd sizes become even"
    );
    let mut times = Vec::new();
    // Until the pusher is dropped, which ends the track.
    while let Some(frame) = soon("frame", reader.next()).await.unwrap() {
        assert!(frame.keyframe || !times.is_empty());
        times.push(frame.timestamp);
    }
    let begin = pushing.join().unwrap();
    assert!(times.len() > 10, "{} frames", times.len());
    assert!(times[0] + Duration::from_secs(1) > begin, "wall-clock time");
    for time in &times {
        // The distances are the program's, to the microsecond.
        let micros = (*time - times[0]).as_micros();
        let off = (micros + 5) % 33_000;
        assert!(off <= 10, "{micros} µs");
    }
    ended(video.status()).await;
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_can_be_pushed() {
    iroh_live::media::init().unwrap();
    let pair = Pair::new().await;
    let info = gst_audio::AudioInfo::builder(gst_audio::AUDIO_FORMAT_S16, 44_100, 1)
        .build()
        .unwrap();
    let (pusher, source) = AudioSource::push(info.clone());
    pair.local
        .audio()
        .set(source, AudioCodec::Opus, [AudioPreset::Hq])
        .unwrap();
    assert!(matches!(
        pusher.push(gst::Buffer::from_slice([0u8; 3])),
        Err(PushError::Size { .. })
    ));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let pushing = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                pusher
                    .push(gst::Buffer::from_slice(vec![1u8; 441 * 2]))
                    .unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let mut reader = pair.audio("hq").await;
    let first = next(&mut reader).await.timestamp;
    let mut last = first;
    for _ in 0..20 {
        last = next(&mut reader).await.timestamp;
    }
    assert!(last > first);
    assert!(LocalBroadcast::now().abs_diff(last) < Duration::from_secs(5));
    stop.store(true, Ordering::Relaxed);
    pushing.join().unwrap();
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused() {
    let local = LocalBroadcast::new();
    let video = local.video();
    let error = video
        .set_source(VideoSource::test(), VideoCodec::H264, [])
        .unwrap_err();
    assert!(matches!(error, SetSourceError::NoPreset));
    let error = video
        .set_source(
            VideoSource::test(),
            VideoCodec::H264,
            [VideoPreset::P180, VideoPreset::P180],
        )
        .unwrap_err();
    assert!(matches!(error, SetSourceError::SamePreset(_)));
    let error = video
        .set_source(
            VideoSource::test(),
            VideoCodec::H264.by("nosuchenc"),
            [VideoPreset::P180],
        )
        .unwrap_err();
    assert!(
        matches!(&error, SetSourceError::Encoder(EncoderError::Unknown { name }) if name == "nosuchenc"),
        "{error}"
    );
    let error = video.replace_source(VideoSource::test()).unwrap_err();
    assert!(matches!(error, SetSourceError::NotSet));
    let error = video
        .set_source(
            VideoSource::file("/nonexistent/film.mp4"),
            VideoCodec::H264,
            [VideoPreset::P180],
        )
        .unwrap_err();
    assert!(
        matches!(error, SetSourceError::Source(SourceError::File { .. })),
        "{error}"
    );
    let error = video
        .set_source(
            VideoSource::description("videotestsrc ! nosuchelement"),
            VideoCodec::H264,
            [VideoPreset::P180],
        )
        .unwrap_err();
    assert!(
        matches!(
            error,
            SetSourceError::Source(SourceError::Description { .. })
        ),
        "{error}"
    );
    let error = video
        .set_source(
            VideoSource::camera_named("no such camera"),
            VideoCodec::H264,
            [VideoPreset::P180],
        )
        .unwrap_err();
    assert!(
        matches!(
            &error,
            SetSourceError::Source(SourceError::NoDevice { what: "camera", .. })
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_on_the_way_is_told() {
    let local = LocalBroadcast::new();
    let video = local.video();
    // Fails after ten frames.
    video
        .set_source(
            VideoSource::description("videotestsrc is-live=true ! identity error-after=10"),
            VideoCodec::Vp8,
            [small(100_000)],
        )
        .unwrap();
    let error = failed(video.status()).await;
    assert!(error.to_string().contains("identity"), "{error}");
    // Another source takes its place.
    video.replace_source(VideoSource::test()).unwrap();
    let mut status = video.status();
    let running = status.wait_for(|status| matches!(status, SourceStatus::Running));
    soon("running", running).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn video_can_be_switched_off_and_on() {
    let pair = Pair::new().await;
    let (video, name) = pair.test_card(VideoCodec::H264);
    let mut reader = pair.video(&name).await;
    assert!(next(&mut reader).await.keyframe);
    next(&mut reader).await;
    video.set_enabled(false);
    // What was on its way arrives, and then nothing.
    while let Ok(frame) = tokio::time::timeout(Duration::from_millis(1500), reader.next()).await {
        frame.unwrap().expect("not the end");
    }
    let off = rendition(&video, &name);
    assert!(off.watched);
    a_while().await;
    assert_eq!(rendition(&video, &name).frames_encoded, off.frames_encoded);
    assert!(
        pair.local.catalog().video.renditions.contains_key(&name),
        "it stays in the catalog"
    );
    // The preview goes on.
    let mut preview = video.preview();
    soon("preview", preview.next_frame()).await.unwrap();
    let again = LocalBroadcast::now();
    video.set_enabled(true);
    let frame = next(&mut reader).await;
    assert!(frame.keyframe && frame.discontinuity, "{frame:?}");
    assert!(frame.timestamp + Duration::from_millis(500) > again);
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn muted_sound_is_silence_and_next_to_nothing() {
    let pair = Pair::new().await;
    let audio = pair.local.audio();
    audio
        .set(AudioSource::test(), AudioCodec::Opus, [AudioPreset::Hq])
        .unwrap();
    let mut reader = pair.audio("hq").await;
    for _ in 0..50 {
        next(&mut reader).await;
    }
    let loud = next(&mut reader).await.payload.len();
    assert!(loud > 40, "{loud} bytes");
    audio.set_muted(true);
    assert!(audio.is_muted());
    // The encoder needs a moment to believe it.
    let mut quiet = 0;
    for n in 0.. {
        let size = next(&mut reader).await.payload.len();
        quiet = if size <= 8 { quiet + 1 } else { 0 };
        if quiet >= 10 {
            break;
        }
        assert!(n < 500, "still {size} bytes a packet");
    }
    audio.set_muted(false);
    for n in 0.. {
        if next(&mut reader).await.payload.len() > 40 {
            break;
        }
        assert!(n < 500, "still silent");
    }
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_can_be_replaced() {
    let pair = Pair::new().await;
    let video = pair.local.video();
    let source = |size: &str| {
        VideoSource::description(format!("videotestsrc is-live=true ! video/x-raw,{size}"))
    };
    video
        .set_source(
            source("width=320,height=180,framerate=30/1"),
            VideoCodec::H264,
            [VideoPreset::P180],
        )
        .unwrap();
    let mut reader = pair.video("180p").await;
    next(&mut reader).await;
    let before = next(&mut reader).await.timestamp;
    video
        .replace_source(source("width=240,height=180,framerate=25/1"))
        .unwrap();
    let changed = loop {
        let frame = next(&mut reader).await;
        assert!(frame.timestamp > before);
        if frame.discontinuity {
            break frame;
        }
    };
    assert!(changed.keyframe, "{changed:?}");
    let catalog = pair
        .catalog(|catalog| {
            let config = catalog.video.renditions.get("180p");
            config.is_some_and(|config| config.coded_width == Some(240))
        })
        .await;
    assert_eq!(catalog.video.renditions["180p"].framerate, Some(25.0));
    for _ in 0..10 {
        next(&mut reader).await;
    }
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bit_rate_follows_while_it_runs() {
    let pair = Pair::new().await;
    let video = pair.local.video();
    // Noise takes whatever there is.
    let source = VideoSource::description(
        "videotestsrc is-live=true pattern=snow ! video/x-raw,width=160,height=120,framerate=30/1",
    );
    let presets = [small(1_000_000), small(250_000)];
    let (large, thin) = (presets[0].name(), presets[1].name());
    video.set_source(source, VideoCodec::H264, presets).unwrap();
    let mut reader = pair.video(&large).await;
    async fn rate(reader: &mut EncodedReader) -> u64 {
        let (mut bytes, begin) = (0, next(reader).await.timestamp);
        loop {
            let frame = next(reader).await;
            bytes += frame.payload.len() as u64;
            let spent = frame.timestamp - begin;
            if spent >= Duration::from_secs(2) {
                return bytes * 8000 / spent.as_millis() as u64;
            }
        }
    }
    rate(&mut reader).await;
    let full = rate(&mut reader).await;
    video.set_bitrate_limit(Some(200_000));
    until("told", || rendition(&video, &large).bitrate == 200_000).await;
    rate(&mut reader).await;
    let little = rate(&mut reader).await;
    assert!(little * 2 < full, "{full} bit/s became {little}");
    // The other one takes part only when it is watched.
    assert_eq!(rendition(&video, &thin).bitrate, 250_000);
    let mut other = pair.video(&thin).await;
    next(&mut other).await;
    until("shared", || {
        rendition(&video, &large).bitrate == 160_000 && rendition(&video, &thin).bitrate == 40_000
    })
    .await;
    video.set_bitrate_limit(None);
    until("back", || rendition(&video, &large).bitrate == 1_000_000).await;
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preview_shows_what_is_captured() {
    let local = LocalBroadcast::new();
    let video = local.video();
    let mut preview = video.preview();
    video
        .set_source(
            VideoSource::description(
                "videotestsrc is-live=true pattern=white ! video/x-raw,format=I420,width=64,height=48",
            ),
            VideoCodec::Vp8,
            [VideoPreset::P180],
        )
        .unwrap();
    let frame = soon("preview", preview.next_frame()).await.unwrap();
    let picture = frame.video_frame().unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 48));
    assert!(picture.plane_data(0).unwrap()[0] > 200, "white");
    let second = soon("preview", preview.next_frame()).await.unwrap();
    assert!(second.timestamp() > frame.timestamp());
    drop((video, local));
    soon("the end", async {
        while preview.next_frame().await.is_some() {}
    })
    .await;
}

/// A film of four seconds, made here.
fn film(name: &str) -> PathBuf {
    iroh_live::media::init().unwrap();
    let path = std::env::temp_dir().join(format!("iroh-live-{}-{name}.mkv", std::process::id()));
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc num-buffers=100 ! video/x-raw,width=320,height=180,framerate=25/1 ! vp8enc deadline=1 ! mux. \
         audiotestsrc num-buffers=200 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! mux. \
         matroskamux name=mux ! filesink location={}",
        path.display()
    ))
    .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let message = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    let message = message.expect("the film is made");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_published_in_sync_paced_and_to_its_end() {
    let path = film("both");
    let pair = Pair::new().await;
    let (pictures, sound) = MediaSource::file(&path).split();
    let (video, audio) = (pair.local.video(), pair.local.audio());
    video
        .set_source(pictures, VideoCodec::H264, [VideoPreset::P180])
        .unwrap();
    audio
        .set(sound, AudioCodec::Opus, [AudioPreset::Hq])
        .unwrap();
    let begin = Instant::now();
    let (mut pictures, mut sound) = tokio::join!(pair.video("180p"), pair.audio("hq"));
    async fn all(reader: &mut EncodedReader) -> Vec<Duration> {
        let mut times = Vec::new();
        while let Some(frame) = soon("frame", reader.next()).await.unwrap() {
            times.push(frame.timestamp);
        }
        times
    }
    let (seen, heard) = tokio::join!(all(&mut pictures), all(&mut sound));
    assert!(
        seen.len() > 20 && heard.len() > 40,
        "{} {}",
        seen.len(),
        heard.len()
    );
    // The film is four seconds long; played as fast as it goes it would take no time.
    assert!(begin.elapsed() > Duration::from_millis(2500), "not paced");
    let (seen, heard) = (seen[seen.len() - 1], heard[heard.len() - 1]);
    assert!(
        seen.abs_diff(heard) < Duration::from_millis(150),
        "pictures end at {seen:?}, sound at {heard:?}"
    );
    ended(video.status()).await;
    ended(audio.status()).await;
    // Another one after it.
    video.replace_source(VideoSource::file(&path)).unwrap();
    let mut again = pair.video("180p").await;
    assert!(next(&mut again).await.keyframe);
    std::fs::remove_file(&path).unwrap();
    pair.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_film_can_be_left_out() {
    let path = film("half");
    let local = LocalBroadcast::new();
    let (pictures, sound) = MediaSource::file(&path).split();
    drop(sound);
    let video = local.video();
    video
        .set_source(pictures, VideoCodec::Vp8, [VideoPreset::P180])
        .unwrap();
    ended(video.status()).await;
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_without_sound_says_so() {
    iroh_live::media::init().unwrap();
    let local = LocalBroadcast::new();
    let path = film("silent");
    let mute = path.with_extension("mute.mkv");
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! matroskademux ! video/x-vp8 ! matroskamux ! filesink location={}",
        path.display(),
        mute.display()
    ))
    .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    let audio = local.audio();
    audio
        .set(
            AudioSource::file(&mute),
            AudioCodec::Opus,
            [AudioPreset::Hq],
        )
        .unwrap();
    let error = failed(audio.status()).await;
    let PublishMediaError::Source(SourceError::Nothing("sound")) = error else {
        panic!("{error:?}")
    };
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(&mute).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_can_be_the_source() {
    iroh_live::media::init().unwrap();
    let local = LocalBroadcast::new();
    let element = gst::ElementFactory::make("videotestsrc")
        .property("is-live", true)
        .build()
        .unwrap();
    local
        .video()
        .set_source(element.clone(), VideoCodec::Vp8, [VideoPreset::P180])
        .unwrap();
    until("described", || {
        local.catalog().video.renditions.contains_key("180p")
    })
    .await;
    let weak = element.downgrade();
    drop(element);
    drop(local);
    until("the pipeline is gone", || weak.upgrade().is_none()).await;
}

/// A source on the network that sends in real time, and stalls.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stalls_is_not_late_ever_after() {
    iroh_live::media::init().unwrap();
    const STALL: Duration = Duration::from_secs(3);
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 160, 120)
        .fps(gst::Fraction::new(25, 1))
        .build()
        .unwrap();
    let source = gst_app::AppSrc::builder()
        .caps(&info.to_caps().unwrap())
        .format(gst::Format::Time)
        .build();
    let local = LocalBroadcast::new();
    let video = local.video();
    let mut preview = video.preview();
    let element: gst::Element = source.clone().upcast();
    video
        .set_source(element, VideoCodec::Vp8, [small(100_000)])
        .unwrap();
    let buffering = |source: &gst_app::AppSrc, percent| {
        let message = gst::message::Buffering::builder(percent)
            .src(source)
            .build();
        source.post_message(message).unwrap();
    };
    let feeding = tokio::spawn({
        let source = source.clone();
        async move {
            for number in 0..100 {
                if number == 25 {
                    buffering(&source, 0);
                    tokio::time::sleep(STALL).await;
                    buffering(&source, 100);
                }
                let mut buffer = gst::Buffer::from_slice(vec![80; 160 * 120]);
                let time = gst::ClockTime::from_mseconds(40 * number);
                buffer.get_mut().unwrap().set_pts(time);
                if source.push_buffer(buffer).is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            // The end would come by itself.
        }
    });
    let mut late = Vec::new();
    for _ in 0..60 {
        let frame = soon("a frame", preview.next_frame()).await.unwrap();
        late.push(LocalBroadcast::now().saturating_sub(frame.timestamp()));
    }
    let last = late[late.len() - 5..].iter().min().unwrap();
    assert!(*last < STALL / 2, "{late:?}");
    video.stop();
    feeding.await.unwrap();
}
