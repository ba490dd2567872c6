//! Which encoders make it.

use std::{sync::atomic::Ordering, time::Duration};

use iroh_live::{
    LocalBroadcast,
    media::{
        AudioCodec, AudioPreset, AudioSource, EncoderError, SetSourceError, SourceError,
        SourceStatus, VideoCodec, VideoPreset, VideoSource,
    },
};

use super::pair::{Pair, failed, next, rendition, small, until};

fn has(element: &str) -> bool {
    iroh_live::media::init().expect("GStreamer");
    gst::ElementFactory::find(element).is_some()
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
