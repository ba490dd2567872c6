use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, mpsc},
};

use super::*;

const LATENCY: Duration = Duration::from_millis(200);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Frames that come at a running time each.
struct Script {
    frames: VecDeque<(Duration, FeedFrame)>,
    next: Option<tokio::time::Instant>,
    now: Arc<AtomicU64>,
    overruns: usize,
    /// The pipeline takes nothing until this is gone, or it is said that it is too slow.
    blocked: Option<mpsc::Sender<()>>,
    appsrc: gst_app::AppSrc,
}

impl FrameSource for Script {
    type Error = Infallible;

    async fn next_frame(&mut self) -> Result<Option<FeedFrame>, Infallible> {
        // So that what is held while the clock is being recovered is looked at in between, as it would be in time.
        let next = tokio::time::Instant::now() + HOLD_TICK * 2;
        tokio::time::sleep_until(*self.next.get_or_insert(next)).await;
        self.next = None;
        // The times are not those of this machine: a pipeline that is not blocked keeps up with them.
        while self.blocked.is_none() && self.appsrc.current_level_buffers() > 0 {
            tokio::time::sleep(ms(1)).await;
        }
        let Some((at, frame)) = self.frames.pop_front() else {
            return Ok(None);
        };
        let at = u64::try_from(at.as_nanos()).expect("soon");
        self.now.store(at, Ordering::Relaxed);
        Ok(Some(frame))
    }

    fn overrun(&mut self) {
        self.overruns += 1;
        self.blocked = None;
    }
}

/// What went into the appsrc.
#[derive(Debug, Clone)]
struct Fed {
    timestamp: Duration,
    at: Duration,
    pts: Duration,
    hidden: bool,
    discont: bool,
}

/// Feeds these frames into `pipeline`, whose elements are named `src` and `sink`; returns what came out.
async fn feed(
    pipeline: &str,
    caps: gst::Caps,
    video: bool,
    frames: Vec<(Duration, FeedFrame)>,
    setup: impl FnOnce(Feed) -> Feed,
) -> (Vec<gst::Buffer>, usize) {
    feed_into(pipeline, caps, video, frames, setup, None).await
}

/// The same, where the pipeline takes nothing for as long as `blocked` is there.
async fn feed_into(
    pipeline: &str,
    caps: gst::Caps,
    video: bool,
    frames: Vec<(Duration, FeedFrame)>,
    setup: impl FnOnce(Feed) -> Feed,
    blocked: Option<mpsc::Sender<()>>,
) -> (Vec<gst::Buffer>, usize) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(pipeline).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let appsrc = pipeline.by_name("src").unwrap();
    let appsrc = appsrc.downcast::<gst_app::AppSrc>().unwrap();
    appsrc.set_format(gst::Format::Time);
    appsrc.set_max_bytes(0);
    appsrc.set_caps(Some(&caps));
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let feed = setup(Feed::new(appsrc.clone(), video));
    let now = Arc::new(AtomicU64::new(0));
    let mut source = Script {
        frames: frames.into(),
        next: None,
        now: now.clone(),
        overruns: 0,
        blocked,
        appsrc,
    };
    let clock = PlayoutClock::new(LATENCY);
    // Up to then the pipeline has no clock.
    let running_time = || {
        let now = now.load(Ordering::Relaxed);
        (now > 0).then_some(gst::ClockTime::from_nseconds(now))
    };
    let end = feed
        .run(&mut source, &clock, Some(UNIX_EPOCH), &running_time)
        .await;
    assert!(matches!(end, FeedEnd::Finished), "{end:?}");
    source.blocked = None;
    feed.appsrc().end_of_stream().unwrap();
    let mut buffers = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        buffers.push(sample.buffer_owned().unwrap());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    (buffers, source.overruns)
}

/// The same for pictures that nobody decodes.
async fn pictures(frames: Vec<(Duration, FeedFrame)>) -> Vec<Fed> {
    let times: Vec<_> = frames
        .iter()
        .map(|(at, frame)| (frame.frame.timestamp, *at))
        .collect();
    gst::init().unwrap();
    let caps = gst::Caps::new_empty_simple("video/x-vp8");
    let pipeline = "appsrc name=src ! appsink name=sink sync=false";
    let (buffers, _) = feed(pipeline, caps, true, frames, Feed::hiding_backlog).await;
    assert_eq!(buffers.len(), times.len());
    buffers
        .iter()
        .zip(times)
        .map(|(buffer, (timestamp, at))| Fed {
            timestamp,
            at,
            pts: buffer.pts().unwrap().into(),
            hidden: is_hidden(buffer),
            discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
        })
        .collect()
}

fn picture(timestamp: Duration, keyframe: bool) -> FeedFrame {
    EncodedFrame::new(timestamp, b"picture".as_slice(), keyframe).into()
}

/// Packets of Opus, each of 20 ms.
fn opus(count: usize) -> (gst::Caps, Vec<gst::Buffer>) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "audiotestsrc num-buffers={count} samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1
         ! opusenc ! appsink name=sink sync=false"
    ))
    .unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut caps = None;
    let mut packets = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        caps = sample.caps_owned();
        packets.push(sample.buffer_owned().unwrap());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    (caps.unwrap(), packets)
}

/// The holes in what a decoder of Opus makes of packets of which some are missing, if the packet after them says so.
async fn holes(missing: std::ops::Range<usize>) -> Vec<(Duration, Duration)> {
    let (caps, packets) = opus(60);
    let frames = packets.iter().enumerate();
    let frames = frames
        .filter(|(n, _)| !missing.contains(n))
        .map(|(n, packet)| {
            let time = ms(1000 + 20 * n as u64);
            let bytes = packet.map_readable().unwrap().to_vec();
            let mut frame = EncodedFrame::new(time, bytes, true);
            frame.discontinuity = n == missing.end;
            (time, frame.into())
        });
    let pipeline = "appsrc name=src ! opusdec plc=true ! appsink name=sink sync=false";
    let (buffers, _) = feed(pipeline, caps, false, frames.collect(), |feed| feed).await;
    let mut holes = Vec::new();
    for pair in buffers.windows(2) {
        let end = pair[0].pts().unwrap() + pair[0].duration().unwrap();
        let hole = pair[1].pts().unwrap().saturating_sub(end);
        if hole > gst::ClockTime::from_mseconds(1) {
            holes.push((end.into(), hole.into()));
        }
    }
    holes
}

#[tokio::test]
async fn sound_that_was_skipped_is_made_up_for_by_the_decoder() {
    assert_eq!(holes(30..31).await, []);
    assert_eq!(holes(30..35).await, []);
    // Nobody wants to hear what a decoder makes up for longer.
    let holes = holes(30..50).await;
    assert_eq!(holes.len(), 1, "{holes:?}");
    assert!(holes[0].1 > ms(350), "{holes:?}");
}

#[tokio::test]
async fn of_a_backlog_the_key_frame_is_shown_and_then_what_is_live() {
    // A viewer joins two seconds after the last key frame.
    let frames = (0..120).map(|n| {
        let timestamp = ms(10_000 + n * 33);
        let at = timestamp.max(ms(12_000) + Duration::from_micros(n * 100));
        (at, picture(timestamp, n == 0))
    });
    let fed = pictures(frames.collect()).await;
    assert!(!fed[0].hidden, "a picture at once");
    let live = 1 + fed.iter().rposition(|fed| fed.hidden).unwrap();
    assert!(fed[1..live].iter().all(|fed| fed.hidden));
    // It was too late when the burst was over, which is waited for.
    let due = fed[live].pts + LATENCY;
    assert!(ms(12_000) <= due && due < ms(12_300), "{due:?}");
}

#[tokio::test]
async fn a_backlog_that_does_not_catch_up_is_shown_all_the_same() {
    // All of it is late by three seconds against the first frame, and stays so for a while.
    let frames = (0..100).map(|n| {
        let timestamp = ms(10_000 + n * 33);
        let late = if n == 0 { ms(0) } else { ms(3000) };
        (timestamp + late, picture(timestamp, n == 0))
    });
    let fed = pictures(frames.collect()).await;
    let last = fed.iter().rposition(|fed| fed.hidden);
    assert!(last.is_none_or(|last| last < 40), "{last:?}");
}

#[tokio::test]
async fn what_a_switch_holds_back_is_not_taken_for_a_longer_path() {
    let frames = (0..400).map(|n| {
        let timestamp = ms(10_000 + n * 33);
        let mut frame = picture(timestamp, n % 60 == 0);
        // A climb that takes eight seconds.
        if (60..300).contains(&n) {
            frame.held = ms(100);
        }
        (timestamp + frame.held, frame)
    });
    let fed = pictures(frames.collect()).await;
    assert!(fed[1..].iter().all(|fed| !fed.discont));
    let worst = fed.iter().map(|fed| fed.pts.abs_diff(fed.timestamp)).max();
    assert!(worst < Some(ms(5)), "{worst:?}");
}

#[tokio::test]
async fn a_slower_encoder_of_another_rendition_costs_no_second() {
    let frames = (0..200).map(|n| {
        let timestamp = ms(10_000 + n * 33);
        let mut frame = picture(timestamp, n % 60 == 0);
        frame.begins = n == 0 || n == 60;
        let delay = if n < 60 { ms(0) } else { ms(400) };
        (timestamp + delay, frame)
    });
    let fed = pictures(frames.collect()).await;
    let late = fed.iter().filter(|fed| fed.pts + LATENCY < fed.at);
    let late: Vec<_> = late.collect();
    assert!(late.len() <= 5, "{late:?}");
}

#[tokio::test]
async fn what_came_before_the_pipeline_had_a_clock_still_says_what_follows_is() {
    gst::init().unwrap();
    let caps = gst::Caps::new_empty_simple("video/x-vp8");
    let other = gst::Caps::builder("video/x-vp8")
        .field("width", 320)
        .build();
    let mut first = picture(ms(9000), true);
    first.caps = Some(other.clone());
    let frames = (0..100).map(|n| {
        let timestamp = ms(10_000 + n * 33);
        (timestamp, picture(timestamp, n % 50 == 0))
    });
    let frames = std::iter::once((ms(0), first)).chain(frames).collect();
    let mut appsrc = None;
    let pipeline = "appsrc name=src ! appsink name=sink sync=false";
    let (buffers, _) = feed(pipeline, caps, true, frames, |feed| {
        appsrc = Some(feed.appsrc().clone());
        feed
    })
    .await;
    assert_eq!(buffers.len(), 100);
    assert_eq!(appsrc.unwrap().caps(), Some(other));
}

#[tokio::test]
async fn when_the_pipeline_takes_no_more_the_source_is_told_and_it_goes_on_at_a_key_frame() {
    let frames = (0..300).map(|n| {
        let timestamp = ms(10_000 + n * 33);
        (timestamp, picture(timestamp, n % 60 == 0))
    });
    gst::init().unwrap();
    let caps = gst::Caps::new_empty_simple("video/x-vp8");
    let pipeline = "appsrc name=src ! appsink name=sink sync=false";
    let latency = gst::ClockTime::try_from(LATENCY).unwrap();
    let (blocked, released) = mpsc::channel();
    let setup = |feed: Feed| {
        let pad = feed.appsrc().static_pad("src").unwrap();
        let released = Mutex::new(released);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            // Nobody sends anything: this is until the sender is gone.
            let _ = released.lock().unwrap().recv();
            gst::PadProbeReturn::Ok
        });
        feed.skipping(latency)
    };
    let fed = feed_into(pipeline, caps, true, frames.collect(), setup, Some(blocked));
    let (buffers, overruns) = fed.await;
    assert_eq!(overruns, 1, "once, however many frames are left out");
    let number = |buffer: &gst::Buffer| {
        let captured = captured(buffer).unwrap().duration_since(UNIX_EPOCH);
        (captured.unwrap() - ms(10_000)).as_millis() / 33
    };
    let skip = buffers
        .windows(2)
        .position(|pair| number(&pair[1]) != number(&pair[0]) + 1);
    let skip = skip.expect("frames were left out");
    // The queue is more than a second behind, and the sinks wait for 200 ms.
    assert!((35..60).contains(&number(&buffers[skip])), "{skip}");
    let next = &buffers[skip + 1];
    assert_eq!(number(next) % 60, 0, "a key frame");
    assert!(next.flags().contains(gst::BufferFlags::DISCONT));
    for pair in buffers[skip + 1..].windows(2) {
        assert_eq!(number(&pair[1]), number(&pair[0]) + 1);
    }
}

#[test]
fn what_the_network_held_up_is_not_blamed_on_the_pipeline() {
    let ms = gst::ClockTime::from_mseconds;
    // Three seconds of pictures come at once, two seconds late, and leave within a moment.
    let mut residence = Residence::default();
    for n in 0..90 {
        let (pts, now) = (ms(n * 33), ms(5000 + n / 3));
        residence.update(ms(n.saturating_sub(60) * 33), now);
        residence.pushed(pts, now);
    }
    assert!(!residence.is_long());
    // They come as they should, and every third waits for the one before it.
    let mut residence = Residence::default();
    for n in 0..150 {
        let (pts, now) = (ms(n * 33), ms(n * 33));
        residence.update(ms(n * 2 / 3 * 33), now);
        residence.pushed(pts, now);
    }
    assert!(residence.is_long());
}
