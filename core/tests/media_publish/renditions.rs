//! What is sent of them, when, and to whom.

use std::time::Duration;

use iroh_live::{
    LocalBroadcast,
    broadcast::EncodedReader,
    media::{
        AudioCodec, AudioPreset, AudioSource, SetSourceError, VideoCodec, VideoPreset, VideoSource,
    },
};

use super::pair::{Pair, a_while, live, nal_types, next, rendition, small, soon, until};

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
