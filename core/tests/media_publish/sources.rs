//! Where pictures and sound come from.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_video::prelude::*;
use iroh_live::{
    LocalBroadcast,
    broadcast::EncodedReader,
    media::{
        AudioCodec, AudioPreset, AudioSource, MediaSource, PublishMediaError, PushError,
        SourceError, SourceStatus, VideoCodec, VideoPreset, VideoSource,
    },
};

use super::pair::{Pair, ended, failed, next, rendition, small, soon, until};

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
    let mut again = pair.video("180p.2").await;
    let catalog_name = rendition(&video, "180p").catalog_name;
    assert_eq!(catalog_name.as_deref(), Some("180p.2"));
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
