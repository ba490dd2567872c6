use super::*;

/// The publisher's time when the viewer's clock shows [`LOCAL`].
const EPOCH: i64 = 1_800_000_000_000 * MS;
const LOCAL: i64 = 60_000 * MS;
const SEC: i64 = 1000 * MS;
const AUDIO: u32 = 0;
const VIDEO: u32 = 1;
const AUDIO_PERIOD: i64 = 20 * MS;
const VIDEO_PERIOD: i64 = 33 * MS;
const BUDGET: Duration = Duration::from_millis(200);
/// The delays of an audio encoder, and of a video encoder that looks ahead.
const FAST: i64 = 50 * MS;
const SLOW: i64 = 1500 * MS;

/// A frame by the time since the start at which it was stamped and the delay it then met.
#[derive(Clone, Copy)]
struct Frame {
    track: u32,
    timestamp: i64,
    arrival: i64,
}

/// A track's frames from `from` to `to`, each delayed by `delay(time)` and never overtaking.
fn track(
    track: u32,
    period: i64,
    (from, to): (i64, i64),
    mut delay: impl FnMut(i64) -> i64,
) -> Vec<Frame> {
    let mut last = i64::MIN;
    (0..)
        .map(|n| from + n * period)
        .take_while(|time| *time < to)
        .map(|time| {
            last = last.max(time + delay(time));
            Frame {
                track,
                timestamp: time,
                arrival: last,
            }
        })
        .collect()
}

/// Audio and video on the same path.
fn both(range: (i64, i64), mut delay: impl FnMut(i64) -> i64) -> Vec<Frame> {
    let audio = track(AUDIO, AUDIO_PERIOD, range, &mut delay);
    merge([audio, track(VIDEO, VIDEO_PERIOD, range, &mut delay)])
}

/// Audio and video with delays of their own, by when they arrive: from a time each, to another.
fn apart(from: (i64, i64), to: i64, (audio, video): (i64, i64)) -> Vec<Frame> {
    let track =
        |id, period, from, delay| track(id, period, (from - delay, to - delay), steady(delay));
    let audio = track(AUDIO, AUDIO_PERIOD, from.0, audio);
    merge([audio, track(VIDEO, VIDEO_PERIOD, from.1, video)])
}

fn merge<const N: usize>(tracks: [Vec<Frame>; N]) -> Vec<Frame> {
    let mut frames = tracks.concat();
    frames.sort_by_key(|frame| frame.arrival);
    frames
}

fn steady(delay: i64) -> impl FnMut(i64) -> i64 {
    move |_| delay
}

/// No delay but for the time between `from` and `to`, at the end of which all that was held
/// up comes at `speed` times real time.
fn blackout(from: i64, to: i64, speed: i64) -> impl FnMut(i64) -> i64 {
    move |time| {
        if time < from {
            0
        } else {
            (to + (time - from) / speed - time).max(0)
        }
    }
}

struct Viewer {
    clock: ClockRecovery,
    /// Added to the publisher's timestamps: what another timeline of his looks like.
    shift: i64,
    adjustments: Vec<(i64, Adjustment)>,
    /// The arrival and the latency after each frame, but for the acquisitions.
    latencies: Vec<(i64, i64)>,
}

impl Viewer {
    fn new(latency: Duration) -> Self {
        Self {
            clock: ClockRecovery::new(latency),
            shift: 0,
            adjustments: Vec::new(),
            latencies: Vec::new(),
        }
    }

    /// One that has watched ten seconds of a path with delay 0.
    fn settled(latency: Duration) -> Self {
        let mut viewer = Self::new(latency);
        viewer.watch(&both((-10 * SEC, 0), steady(0)));
        assert_eq!((viewer.latency(), viewer.adjustments.len()), (0, 0));
        viewer
    }

    /// One that has watched ten seconds of slow video and fast audio.
    fn apart() -> Self {
        let mut viewer = Self::new(BUDGET);
        viewer.watch(&apart((-10 * SEC, -10 * SEC), 0, (FAST, SLOW)));
        assert_eq!((viewer.latency(), viewer.adjustments.len()), (SLOW, 0));
        viewer
    }

    fn observe(&mut self, frame: Frame) -> Adjustment {
        let timestamp = self.timestamp(frame.timestamp);
        let event = self
            .clock
            .observe(frame.track, timestamp, local(frame.arrival));
        if event != Adjustment::Steady {
            self.adjustments.push((frame.arrival, event));
        }
        if self.clock.acquired(local(frame.arrival)) {
            self.latencies.push((frame.arrival, self.latency()));
        }
        event
    }

    fn watch(&mut self, frames: &[Frame]) {
        for frame in frames {
            let _ = self.observe(*frame);
        }
    }

    fn timestamp(&self, time: i64) -> u64 {
        (EPOCH + self.shift + time) as u64
    }

    /// What the mapping adds to the time at which a frame was stamped.
    fn latency(&self) -> i64 {
        self.clock.offset() + EPOCH + self.shift - LOCAL
    }

    /// The extremes of the latency from arrival time `from` on.
    fn range_since(&self, from: i64) -> (i64, i64) {
        let since = || {
            self.latencies
                .iter()
                .filter(|(at, _)| *at >= from)
                .map(|(_, l)| *l)
        };
        (since().min().unwrap(), since().max().unwrap())
    }

    #[track_caller]
    fn assert_latency(&self, from: i64, min: i64, max: i64) {
        let range = self.range_since(from);
        assert!(
            range.0 >= min && range.1 <= max,
            "{range:?} outside of {:?}",
            (min, max)
        );
    }

    #[track_caller]
    fn assert_no_event(&self) {
        assert_eq!(self.adjustments, []);
    }
}

fn local(time: i64) -> u64 {
    (LOCAL + time) as u64
}

/// A small generator of pseudo-random numbers (splitmix64): every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: i64) -> i64 {
        (self.next() % limit as u64) as i64
    }
}

// Acquisition.

#[test]
fn late_join_ends_at_the_smallest_transit() {
    let mut viewer = Viewer::new(BUDGET);
    // Four seconds of video in 40 ms, then real time.
    let frames = track(
        VIDEO,
        VIDEO_PERIOD,
        (-4 * SEC, 2 * SEC),
        blackout(-4 * SEC, 0, 100),
    );
    assert!(!viewer.clock.acquired(local(0)));
    for frame in &frames {
        let _ = viewer.observe(*frame);
        if frame.arrival < 40 * MS {
            assert!(!viewer.clock.acquired(local(frame.arrival)));
        }
    }
    assert!(viewer.clock.acquired(local(2 * SEC)));
    viewer.assert_no_event();
    viewer.assert_latency(150 * MS, 0, 0);
}

#[test]
fn late_join_is_acquired_soon_after_the_burst() {
    let mut viewer = Viewer::new(BUDGET);
    let burst = blackout(-4 * SEC, 0, 100);
    let frames = track(VIDEO, VIDEO_PERIOD, (-4 * SEC, 2 * SEC), burst);
    let acquired = frames.iter().find(|frame| {
        let _ = viewer.observe(**frame);
        viewer.clock.acquired(local(frame.arrival))
    });
    let acquired = acquired.unwrap().arrival;
    assert!(acquired <= 160 * MS, "{acquired}");
    assert_eq!(viewer.latency(), 0);
}

#[test]
fn late_join_with_live_audio_is_acquired_by_the_audio() {
    let mut viewer = Viewer::new(BUDGET);
    let mut frames = track(AUDIO, AUDIO_PERIOD, (0, 2 * SEC), steady(5 * MS));
    frames.extend(track(VIDEO, VIDEO_PERIOD, (-3 * SEC, 2 * SEC), |time| {
        blackout(-3 * SEC, 10 * MS, 10)(time).max(5 * MS)
    }));
    frames.sort_by_key(|frame| frame.arrival);
    viewer.watch(&frames);
    viewer.assert_no_event();
    viewer.assert_latency(0, 5 * MS, 5 * MS);
}

#[test]
fn live_edge_join_is_acquired_in_20_ms() {
    let mut viewer = Viewer::new(BUDGET);
    let _ = viewer.observe(Frame {
        track: VIDEO,
        timestamp: 0,
        arrival: 7 * MS,
    });
    assert!(!viewer.clock.acquired(local(26 * MS)));
    assert!(viewer.clock.acquired(local(27 * MS)));
    assert_eq!(viewer.clock.map(viewer.timestamp(0)), LOCAL + 7 * MS);
}

#[test]
fn acquisition_is_bounded_on_a_slow_link_and_latency_comes_down_after_it() {
    for speed in [2, 3, 5] {
        let mut viewer = Viewer::new(BUDGET);
        let slow = blackout(-5 * SEC, 0, speed);
        let frames = track(VIDEO, VIDEO_PERIOD, (-5 * SEC, 20 * SEC), slow);
        let acquired = frames.iter().find(|frame| {
            let _ = viewer.observe(**frame);
            viewer.clock.acquired(local(frame.arrival))
        });
        assert!(acquired.unwrap().arrival <= 333 * MS);
        for frame in frames.iter().filter(|frame| frame.arrival > 333 * MS) {
            let _ = viewer.observe(*frame);
            // A second's worth of the drain is the most that the offset lags behind.
            let early = frame.timestamp + viewer.latency() - frame.arrival;
            assert!(early <= (speed - 1) * 1100 * MS, "{early}");
        }
        // The backlog is gone when the link has caught up with real time.
        let caught_up = 5 * SEC / (speed - 1);
        viewer.assert_latency(caught_up + 500 * MS, 0, 15 * MS);
        viewer.assert_latency(caught_up + 3 * SEC, 0, 2 * MS);
        assert!(
            viewer
                .adjustments
                .iter()
                .all(|(at, _)| *at <= caught_up + 500 * MS)
        );
    }
}

#[test]
fn burst_in_flights_a_round_trip_apart_is_one_acquisition() {
    let mut viewer = Viewer::new(BUDGET);
    // Flights of 1, 1.2 and 1.8 s, 60 ms apart, the first of them in 15 ms.
    let frames = track(VIDEO, VIDEO_PERIOD, (-4 * SEC, 2 * SEC), |time| {
        let sent = match time + 4 * SEC {
            0..1_000_000_000 => (time + 4 * SEC) / 66,
            1_000_000_000..2_200_000_000 => 60 * MS,
            _ => 120 * MS,
        };
        (sent - time).max(0)
    });
    for frame in &frames {
        let _ = viewer.observe(*frame);
        let acquired = viewer.clock.acquired(local(frame.arrival));
        assert_eq!(acquired, frame.arrival > 200 * MS, "at {}", frame.arrival);
    }
    viewer.assert_no_event();
    assert_eq!(viewer.latency(), 0);
}

// Steady state.

#[test]
fn skew_is_followed_by_a_slow_slew() {
    for ppm in [-1000, -500, 500, 1000] {
        let mut viewer = Viewer::new(BUDGET);
        let mut random = Random(1);
        let skew = |time: i64| time * ppm / 1_000_000;
        // The window is 4 s long; the time constant upwards is 10 s.
        let lag = (14 * SEC / 1_000_000 * ppm).abs();
        let frames = both((0, 600 * SEC), |time| skew(time) + random.below(30 * MS));
        let (mut head, mut before) = (0, 0);
        for frame in &frames {
            assert_eq!(viewer.observe(*frame), Adjustment::Steady);
            let error = viewer.latency() - skew(frame.timestamp);
            if frame.arrival > 5 * SEC {
                assert!(
                    error.abs() < 3 * MS + lag,
                    "{ppm} ppm: {error} at {}",
                    frame.arrival
                );
                let advance = (frame.timestamp - head).max(0);
                assert!((viewer.latency() - before).abs() <= advance / 200);
            }
            (head, before) = (head.max(frame.timestamp), viewer.latency());
        }
    }
}

#[test]
fn gap_does_not_make_the_slew_a_jump() {
    let mut viewer = Viewer::settled(BUDGET);
    viewer.watch(&both((0, 6 * SEC), steady(150 * MS)));
    let before = viewer.latency();
    assert!((MS..150 * MS).contains(&before));
    viewer.watch(&both((60 * SEC, 60 * SEC + 1), steady(150 * MS)));
    viewer.assert_latency(60 * SEC, before, before + 5 * MS);
}

#[test]
fn mapped_time_is_monotonic_where_timestamps_are() {
    let mut viewer = Viewer::new(BUDGET);
    let mut random = Random(2);
    // The delay wanders within the budget, frames come in lumps, and some timestamps repeat.
    let mut frames = track(VIDEO, 7 * MS, (0, 300 * SEC), |time| {
        let wave = (time / SEC % 20 - 10).abs() * 2 * MS;
        let lump = if time / SEC % 7 == 0 {
            50 * MS - time % (50 * MS)
        } else {
            0
        };
        wave + random.below(20 * MS) + lump
    });
    for pair in (1..frames.len()).step_by(5) {
        frames[pair].timestamp = frames[pair - 1].timestamp;
    }
    let mut last = i64::MIN;
    for frame in frames.iter().skip(100) {
        assert_eq!(viewer.observe(*frame), Adjustment::Steady);
        let mapped = viewer.clock.map(viewer.timestamp(frame.timestamp));
        assert!(mapped >= last);
        last = mapped;
    }
}

#[test]
fn an_hour_of_jitter_ends_where_it_began() {
    let mut random = Random(3);
    let jitter = both((0, 3600 * SEC), |_| random.below(100 * MS));
    // Frames of a track do not overtake, so this alone is mild: also each on its own stream.
    let mut random = Random(4);
    let mut reordered = both((0, 3600 * SEC), steady(0));
    for frame in &mut reordered {
        frame.arrival += random.below(100 * MS);
    }
    reordered.sort_by_key(|frame| frame.arrival);
    for frames in [jitter, reordered] {
        let mut viewer = Viewer::new(BUDGET);
        viewer.watch(&frames);
        // The first seconds may step down from a first frame that was hindered.
        assert!(viewer.adjustments.iter().all(|(at, _)| *at < SEC));
        // Less than that, frame after frame, one of the two tracks was not hindered.
        viewer.assert_latency(10 * SEC, 0, 15 * MS);
        assert!(viewer.latency() < 8 * MS);
    }
}

#[test]
fn an_hour_of_spikes_and_stalls_ends_where_it_began() {
    let mut random = Random(5);
    let mut stall_end = 0;
    let frames = both((0, 3600 * SEC), |time| {
        if random.below(1500) == 0 {
            stall_end = time + 500 * MS;
        }
        // A tail like 1/x: a median of 4 ms, one frame in a hundred beyond 190 ms.
        let tail = 2 * MS * 1000 / (1 + random.below(1000));
        (stall_end - time).max(tail.min(2 * SEC) - 2 * MS)
    });
    let mut viewer = Viewer::new(BUDGET);
    viewer.watch(&frames);
    viewer.assert_no_event();
    viewer.assert_latency(5 * SEC, 0, 5 * MS);
    assert!(viewer.latency() < 2 * MS);
}

// Changes of the path's delay.

#[test]
fn delay_beyond_the_budget_steps_up_and_comes_back_down() {
    for budget in [0, 50, 100, 200, 280] {
        let mut viewer = Viewer::settled(Duration::from_millis(budget));
        let mut random = Random(6);
        viewer.watch(&both((0, 60 * SEC), |_| 300 * MS + random.below(20 * MS)));
        let [(at, Adjustment::Stepped { by })] = viewer.adjustments[..] else {
            panic!("{:?}", viewer.adjustments);
        };
        assert!(at < 1500 * MS, "{at}");
        assert!((300 * MS..310 * MS).contains(&by), "{by}");
        viewer.assert_latency(at, 295 * MS, 310 * MS);

        viewer.watch(&both((60 * SEC, 120 * SEC), |_| random.below(20 * MS)));
        assert!(
            matches!(viewer.adjustments[1..], [(_, Adjustment::Stepped { by })] if by < -280 * MS)
        );
        viewer.assert_latency(61 * SEC, 0, 10 * MS);
    }
}

#[test]
fn delay_within_the_budget_is_followed_by_a_slew_and_comes_back_in_3_s() {
    for rise in [20 * MS, 60 * MS, 150 * MS] {
        let mut viewer = Viewer::settled(BUDGET);
        viewer.watch(&both((0, 60 * SEC), steady(rise)));
        viewer.assert_no_event();
        // The window, then 5 ms/s, of the last 50 ms ever less.
        viewer.assert_latency(4 * SEC + rise * 1000 / 5, rise - rise.min(20 * MS), rise);
        viewer.assert_latency(55 * SEC, rise - 4 * MS, rise);

        viewer.watch(&both((60 * SEC, 70 * SEC), steady(0)));
        assert!(viewer.adjustments.len() <= 1);
        viewer.assert_latency(63 * SEC + rise, 0, 16 * MS);
        viewer.assert_latency(68 * SEC, 0, 0);
    }
}

#[test]
fn a_slow_stream_steps_up_too() {
    let mut viewer = Viewer::new(BUDGET);
    let slow = |range, delay| track(VIDEO, 200 * MS, range, steady(delay));
    viewer.watch(&slow((-5 * SEC, 0), 0));
    viewer.watch(&slow((0, 10 * SEC), 300 * MS));
    assert!(matches!(viewer.adjustments[..], [(at, Adjustment::Stepped { .. })] if at < 3 * SEC));
    assert_eq!(viewer.latency(), 300 * MS);
}

#[test]
fn a_few_late_frames_of_a_slow_stream_are_no_new_delay() {
    let mut viewer = Viewer::new(BUDGET);
    viewer.watch(&track(VIDEO, 300 * MS, (-9 * SEC, 20 * SEC), |time| {
        if (0..8 * 300 * MS).contains(&time) {
            250 * MS
        } else {
            0
        }
    }));
    viewer.assert_no_event();
}

#[test]
fn blackout_leaves_latency_as_it_was() {
    for length in [500 * MS, 1500 * MS, 5 * SEC, 20 * SEC, 300 * SEC] {
        for speed in [10, 1000] {
            let mut viewer = Viewer::settled(BUDGET);
            let to = 2 * length + 10 * SEC;
            viewer.watch(&both((0, to), blackout(0, length, speed)));
            if length / (speed - 1) < 4 * SEC {
                viewer.assert_no_event();
                viewer.assert_latency(-SEC, 0, MS);
            }
            viewer.assert_latency(to - 2 * SEC, 0, 0);
        }
    }
    // Drained in 2.5 s: too slow to end within the confirmation, but seen to drain.
    let mut viewer = Viewer::settled(BUDGET);
    viewer.watch(&both((0, 20 * SEC), |time| {
        (SEC + time * 10 / 14 - time).max(0)
    }));
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 4 * MS);
}

#[test]
fn backlog_that_drains_slowly_does_not_freeze_the_picture() {
    // In tenths of real time.
    for (length, speed) in [
        (2, 11),
        (2, 12),
        (5, 13),
        (5, 20),
        (20, 15),
        (20, 30),
        (20, 50),
    ] {
        let mut viewer = Viewer::settled(BUDGET);
        let to = length * SEC;
        let drained = to * speed / (speed - 10);
        let frames = both((0, drained + 10 * SEC), |time| {
            (to + time * 10 / speed - time).max(0)
        });
        let mut on_time = to;
        for frame in &frames {
            let _ = viewer.observe(*frame);
            let timestamp = viewer.timestamp(frame.timestamp);
            if viewer.clock.lateness(timestamp, local(frame.arrival)) <= 200 * MS {
                on_time = frame.arrival;
            }
            assert!(frame.arrival - on_time < 4100 * MS);
        }
        // About one step a second, and then all is as it was.
        assert!((viewer.adjustments.len() as i64) < 3 + (drained - to) / SEC);
        viewer.assert_latency(drained + 1500 * MS, 0, 16 * MS);
        viewer.assert_latency(drained + 5 * SEC, 0, 0);
    }
}

#[test]
fn backlog_of_a_slow_stream_makes_a_step_a_second() {
    let slow =
        |from, to, delay: &mut dyn FnMut(i64) -> i64| track(VIDEO, 100 * MS, (from, to), delay);
    let mut viewer = Viewer::new(BUDGET);
    viewer.watch(&slow(-20 * SEC, 20 * SEC, &mut blackout(-20 * SEC, 0, 5)));
    assert!(
        (1..=6).contains(&viewer.adjustments.len()),
        "{:?}",
        viewer.adjustments
    );
    viewer.assert_latency(10 * SEC, 0, 0);
    // Also after a connection was lost in the midst of another.
    let mut lost = slow(20 * SEC, 80 * SEC, &mut blackout(20 * SEC, 42 * SEC, 5));
    lost.retain(|frame| frame.arrival < 44 * SEC);
    viewer.clock.reconnected(local(42 * SEC));
    viewer.watch(&lost);
    viewer.clock.reconnected(local(45 * SEC));
    viewer.adjustments.clear();
    viewer.watch(&slow(
        20 * SEC,
        80 * SEC,
        &mut blackout(20 * SEC, 46 * SEC, 5),
    ));
    assert!(
        (1..=8).contains(&viewer.adjustments.len()),
        "{:?}",
        viewer.adjustments
    );
    viewer.assert_latency(60 * SEC, 0, 0);
}

#[test]
fn blackout_that_loses_frames_leaves_latency_as_it_was() {
    let mut viewer = Viewer::settled(BUDGET);
    // Back with the key frame of a group that began 2 s ago.
    viewer.watch(&both(
        (18 * SEC, 60 * SEC),
        blackout(18 * SEC, 20 * SEC, 50),
    ));
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 0);
}

#[test]
fn stalls_in_a_row_are_no_new_delay() {
    let mut viewer = Viewer::settled(BUDGET);
    // For a minute all is held up, and let go once in 1.2 s.
    viewer.watch(&both((0, 60 * SEC), |time| 1200 * MS - time % (1200 * MS)));
    viewer.assert_no_event();
    // The last audio frame before each time waits for 20 ms.
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 20 * MS);
    viewer.watch(&both((60 * SEC, 70 * SEC), steady(0)));
    viewer.assert_no_event();
    assert_eq!(viewer.latency(), 0);
}

// Tracks with delays of their own: video from an encoder that looks ahead.

#[test]
fn slow_video_and_fast_audio_are_both_on_time_from_the_start() {
    for (audio, video) in [(FAST, SLOW), (SLOW, FAST), (SLOW, SLOW + 5 * MS)] {
        for from in [0, -3 * SEC, -10 * SEC] {
            // Whoever joins late gets the group of each track that began last.
            let mut viewer = Viewer::new(BUDGET);
            let burst = |delay| move |time: i64| (-time / 40 * 39).max(0) + delay;
            let mut frames = track(AUDIO, AUDIO_PERIOD, (from, 20 * SEC), burst(audio));
            frames.extend(track(VIDEO, VIDEO_PERIOD, (from, 20 * SEC), burst(video)));
            for frame in &mut frames {
                // Only what has left the encoder can be waiting there for the viewer.
                frame.arrival = frame.arrival.max(SLOW);
            }
            frames.sort_by_key(|frame| frame.arrival);
            for frame in frames {
                let _ = viewer.observe(frame);
                let now = local(frame.arrival);
                assert!(!viewer.clock.acquired(now) || viewer.latency() >= SLOW - 20 * MS);
            }
            viewer.assert_no_event();
            viewer.assert_latency(
                SLOW + 300 * MS,
                audio.max(video) - 20 * MS,
                audio.max(video),
            );
        }
    }
}

#[test]
fn slow_track_after_the_fast_one_steps_up_at_once() {
    for (audio, video) in [(FAST, SLOW), (SLOW, FAST)] {
        for later in [30 * MS, SEC, 2 * SEC, 60 * SEC] {
            let (fast, slow) = if audio < video {
                (0, later)
            } else {
                (later, 0)
            };
            let mut viewer = Viewer::new(BUDGET);
            viewer.watch(&apart((fast, slow), 90 * SEC, (audio, video)));
            let [(at, Adjustment::Stepped { by })] = viewer.adjustments[..] else {
                panic!("{:?}", viewer.adjustments);
            };
            assert_eq!(by, SLOW - FAST);
            assert!((later..later + 120 * MS).contains(&at), "{at}");
            viewer.assert_latency(at, SLOW, SLOW);
        }
    }
}

#[test]
fn fast_track_after_the_slow_one_changes_nothing() {
    for (audio, video) in [(FAST, SLOW), (SLOW, FAST)] {
        for later in [2 * SEC, 60 * SEC] {
            let from = if audio < video {
                (later, 0)
            } else {
                (0, later)
            };
            let mut viewer = Viewer::new(BUDGET);
            viewer.watch(&apart(from, 90 * SEC, (audio, video)));
            viewer.assert_no_event();
            viewer.assert_latency(0, SLOW, SLOW);
        }
    }
}

#[test]
fn slightly_slower_track_is_followed_by_a_slew() {
    let mut viewer = Viewer::new(BUDGET);
    viewer.watch(&apart((0, SEC), 60 * SEC, (10 * MS, 70 * MS)));
    viewer.assert_no_event();
    viewer.assert_latency(0, 10 * MS, 70 * MS);
    viewer.assert_latency(55 * SEC, 69 * MS, 70 * MS);
    // But not if it uses up most of the budget.
    let mut viewer = Viewer::new(BUDGET);
    viewer.watch(&apart((0, SEC), 60 * SEC, (10 * MS, 110 * MS)));
    assert!(matches!(viewer.adjustments[..], [(at, _)] if at < 1250 * MS));
    viewer.assert_latency(1250 * MS, 110 * MS, 110 * MS);
}

#[test]
fn old_group_of_a_new_slow_track_makes_one_step() {
    // In flights of 600 ms of video each, a round trip apart.
    for round_trip in [20 * MS, 100 * MS, 200 * MS] {
        let mut viewer = Viewer::new(BUDGET);
        let mut frames = track(AUDIO, AUDIO_PERIOD, (-10 * SEC, 20 * SEC), steady(FAST));
        frames.extend(track(VIDEO, VIDEO_PERIOD, (-4 * SEC, 20 * SEC), |time| {
            let flight = (time + 4 * SEC) / (600 * MS);
            (flight * round_trip - time).max(SLOW)
        }));
        frames.sort_by_key(|frame| frame.arrival);
        viewer.watch(&frames);
        assert!(
            matches!(viewer.adjustments[..], [(at, Adjustment::Stepped { by })]
                if at < 2100 * MS && by == SLOW - FAST),
            "{:?}",
            viewer.adjustments
        );
    }
}

#[test]
fn old_group_of_a_new_track_that_hardly_drains_does_not_freeze_the_picture() {
    let mut viewer = Viewer::settled(BUDGET);
    let audio = track(AUDIO, AUDIO_PERIOD, (0, 60 * SEC), steady(0));
    let video = track(7, VIDEO_PERIOD, (-9 * SEC, 60 * SEC), |time| {
        ((time + 9 * SEC) * 5 / 7 - time).max(0)
    });
    viewer.watch(&merge([audio, video]));
    assert!(
        matches!(viewer.adjustments[0], (at, Adjustment::Stepped { by: SEC.. })
        if at < 4100 * MS)
    );
    viewer.assert_latency(35 * SEC, 0, 0);
}

#[test]
fn new_track_does_not_hasten_a_slew() {
    let mut viewer = Viewer::settled(BUDGET);
    viewer.watch(&both((0, 6 * SEC), steady(150 * MS)));
    let third = track(7, AUDIO_PERIOD, (6 * SEC, 10 * SEC), steady(20 * MS));
    let both = both((6 * SEC, 10 * SEC), steady(150 * MS));
    viewer.watch(&merge([both, third]));
    viewer.assert_no_event();
}

#[test]
fn latency_comes_down_when_the_slow_track_ends() {
    let mut viewer = Viewer::apart();
    viewer.clock.unsubscribed(VIDEO);
    viewer.watch(&track(AUDIO, AUDIO_PERIOD, (0, 20 * SEC), steady(FAST)));
    let [(at, Adjustment::Stepped { by })] = viewer.adjustments[..] else {
        panic!("{:?}", viewer.adjustments);
    };
    assert!((by - (FAST - SLOW)).abs() < MS, "{by}");
    // The window, and the wait for a falling minimum.
    assert!((4 * SEC..6 * SEC).contains(&at), "{at}");
    viewer.assert_latency(at, FAST, FAST);
    // And it goes up again when the track comes back, as the same or another.
    let again = track(7, VIDEO_PERIOD, (20 * SEC, 40 * SEC), steady(SLOW));
    let audio = track(AUDIO, AUDIO_PERIOD, (20 * SEC, 40 * SEC), steady(FAST));
    viewer.watch(&merge([audio, again]));
    assert_eq!(viewer.adjustments.len(), 2);
    viewer.assert_latency(20 * SEC + SLOW + 120 * MS, SLOW, SLOW);
}

#[test]
fn a_screen_that_stands_still_for_minutes_keeps_its_delay() {
    let mut viewer = Viewer::apart();
    let audio = track(AUDIO, AUDIO_PERIOD, (0, 240 * SEC), steady(FAST));
    let video = track(VIDEO, VIDEO_PERIOD, (200 * SEC, 240 * SEC), steady(SLOW));
    viewer.watch(&merge([audio, video]));
    viewer.assert_no_event();
    viewer.assert_latency(0, SLOW, SLOW);
    // Until nobody remembers.
    viewer.watch(&track(
        AUDIO,
        AUDIO_PERIOD,
        (240 * SEC, 600 * SEC),
        steady(FAST),
    ));
    viewer.assert_latency(560 * SEC, FAST, FAST);
}

#[test]
fn a_resting_track_goes_with_the_path_and_with_the_clocks() {
    // The path becomes shorter by 100 ms while the screen stands still, and the clocks drift by 9 ms.
    let mut viewer = Viewer::apart();
    let path = |time: i64| {
        let step = if time < 20 * SEC { 0 } else { -40 * MS };
        step + time / 10_000
    };
    let audio = track(AUDIO, AUDIO_PERIOD, (0, 100 * SEC), |time| {
        FAST + path(time)
    });
    let video = track(VIDEO, VIDEO_PERIOD, (90 * SEC, 100 * SEC), |time| {
        SLOW + path(time)
    });
    viewer.watch(&merge([audio, video]));
    let end = SLOW - 40 * MS + 9 * MS;
    viewer.assert_latency(85 * SEC, end - 3 * MS, end + 3 * MS);
    assert!(viewer.adjustments.iter().all(|(at, _)| *at < 30 * SEC));
}

#[test]
fn short_gap_of_the_slow_track_changes_nothing() {
    let mut viewer = Viewer::apart();
    viewer.watch(&apart((0, 3 * SEC), 20 * SEC, (FAST, SLOW)));
    // Subscribed again, it is another track to the clock.
    let audio = track(AUDIO, AUDIO_PERIOD, (20 * SEC, 40 * SEC), steady(FAST));
    let video = track(7, VIDEO_PERIOD, (18 * SEC, 40 * SEC), |time| {
        (22 * SEC - time).max(SLOW)
    });
    viewer.watch(&merge([audio, video]));
    viewer.assert_no_event();
    viewer.assert_latency(0, SLOW, SLOW);
}

#[test]
fn drift_of_tracks_with_different_delays_is_followed() {
    for ppm in [-1000, -500, 500, 1000] {
        let mut viewer = Viewer::new(BUDGET);
        let mut random = Random(12);
        let mut skew = |delay| {
            let mut random = Random(random.next());
            move |time: i64| delay + time * ppm / 1_000_000 + random.below(30 * MS)
        };
        let audio = track(AUDIO, AUDIO_PERIOD, (0, 600 * SEC), skew(FAST));
        let video = track(VIDEO, VIDEO_PERIOD, (0, 600 * SEC), skew(SLOW));
        let lag = (14 * SEC / 1_000_000 * ppm).abs();
        for frame in merge([audio, video]) {
            let _ = viewer.observe(frame);
            let error = viewer.latency() - SLOW - frame.timestamp * ppm / 1_000_000;
            assert!(
                frame.arrival < 5 * SEC || error.abs() < 4 * MS + lag,
                "{ppm} ppm: {error} at {}",
                frame.arrival
            );
        }
        assert!(viewer.adjustments.iter().all(|(at, _)| *at < 2 * SEC));
    }
}

#[test]
fn an_hour_of_jitter_of_the_slow_track_ends_where_it_began() {
    let mut random = Random(13);
    let mut viewer = Viewer::apart();
    let audio = track(AUDIO, AUDIO_PERIOD, (0, 3600 * SEC), steady(FAST));
    let video = track(VIDEO, VIDEO_PERIOD, (0, 3600 * SEC), |_| {
        SLOW + random.below(100 * MS)
    });
    viewer.watch(&merge([audio, video]));
    viewer.assert_no_event();
    viewer.assert_latency(0, SLOW, SLOW + 8 * MS);
    assert!(viewer.latency() < SLOW + 4 * MS);
}

#[test]
fn path_of_a_slow_and_a_fast_track_steps_both() {
    let mut viewer = Viewer::apart();
    viewer.watch(&apart((0, 0), 30 * SEC, (FAST + 300 * MS, SLOW + 300 * MS)));
    assert!(
        matches!(viewer.adjustments[..], [(at, Adjustment::Stepped { by })]
        if at < 1500 * MS && by == 300 * MS)
    );
    let back = apart((30 * SEC, 30 * SEC), 60 * SEC, (FAST, SLOW));
    viewer.watch(&back);
    assert!(matches!(viewer.adjustments[1..], [(_, Adjustment::Stepped { by })] if by < -295 * MS));
    viewer.assert_latency(32 * SEC, SLOW, SLOW);
}

#[test]
fn path_of_tracks_that_differ_a_little_makes_one_step() {
    let mut viewer = Viewer::new(BUDGET);
    viewer.watch(&apart((-10 * SEC, -10 * SEC), 0, (0, 50 * MS)));
    viewer.watch(&apart((0, 0), 30 * SEC, (400 * MS, 450 * MS)));
    assert!(matches!(viewer.adjustments[..], [(_, Adjustment::Stepped { by })] if by == 400 * MS));
    assert_eq!(viewer.latency(), 450 * MS);
}

#[test]
fn blackout_of_a_slow_and_a_fast_track_leaves_latency_as_it_was() {
    for length in [SEC, 5 * SEC, 20 * SEC] {
        let mut viewer = Viewer::apart();
        // The path begins where the encoders end.
        let blackout = |delay| move |time| blackout(0, length, 50)(time + delay) + delay;
        let audio = track(AUDIO, AUDIO_PERIOD, (0, 60 * SEC), blackout(FAST));
        let video = track(VIDEO, VIDEO_PERIOD, (0, 60 * SEC), blackout(SLOW));
        viewer.watch(&merge([audio, video]));
        viewer.assert_no_event();
        viewer.assert_latency(0, SLOW, SLOW);
    }
}

#[test]
fn track_that_becomes_late_takes_the_other_with_it() {
    let mut viewer = Viewer::settled(BUDGET);
    viewer.watch(&apart((0, SEC), 30 * SEC, (0, SEC)));
    assert!(
        matches!(viewer.adjustments[..], [(at, Adjustment::Stepped { by })]
        if at < 2100 * MS && by == SEC),
        "{:?}",
        viewer.adjustments
    );
    viewer.assert_latency(2100 * MS, SEC, SEC);
}

#[test]
fn one_stalled_track_does_not_move_the_other() {
    for length in [500 * MS, 2 * SEC, 10 * SEC] {
        let mut viewer = Viewer::settled(BUDGET);
        let audio = track(AUDIO, AUDIO_PERIOD, (0, 20 * SEC), steady(0));
        let video = track(VIDEO, VIDEO_PERIOD, (0, 20 * SEC), blackout(0, length, 30));
        viewer.watch(&merge([audio, video]));
        viewer.assert_no_event();
        viewer.assert_latency(0, 0, 0);
    }
}

#[test]
fn track_of_another_clock_is_not_waited_for() {
    for shift in [-3600 * SEC, -20 * SEC, 20 * SEC, 3600 * SEC] {
        // With the other first, afterwards, and there from the start.
        for (one, other) in [(0, 0), (0, 5 * SEC), (5 * SEC, 0)] {
            let mut viewer = Viewer::new(BUDGET);
            let mut frames = apart((one, other), 60 * SEC, (0, 0));
            for frame in frames.iter_mut().filter(|frame| frame.track == VIDEO) {
                frame.timestamp += shift;
            }
            for frame in frames {
                let _ = viewer.observe(frame);
                // No sink has to wait for long.
                let wait = frame.timestamp + viewer.latency() - frame.arrival;
                assert!(wait <= SPREAD, "{wait}");
            }
            // The fastest is played, that is the one whose timestamps are ahead.
            let latency = 0.min(-shift);
            viewer.assert_latency(7 * SEC, latency, latency);
            assert!(viewer.adjustments.len() <= 1, "{:?}", viewer.adjustments);
        }
    }
}

#[test]
fn jump_of_a_slow_and_a_fast_track_ends_on_time() {
    for jump in [
        -3600 * SEC,
        -5 * SEC,
        -3 * SEC,
        3 * SEC,
        5 * SEC,
        3600 * SEC,
    ] {
        let mut viewer = Viewer::apart();
        // At the encoders both jump at once, so the fast track shows it first.
        for frame in apart((0, 0), 30 * SEC, (FAST, SLOW)) {
            viewer.shift = if frame.timestamp < 0 { 0 } else { jump };
            let _ = viewer.observe(frame);
        }
        assert!(
            viewer
                .adjustments
                .iter()
                .all(|(at, _)| *at < SLOW + 200 * MS)
        );
        assert!(viewer.adjustments.len() <= 4, "{:?}", viewer.adjustments);
        viewer.assert_latency(SLOW + 200 * MS, SLOW, SLOW);
    }
}

#[test]
fn reconnection_keeps_the_offset_of_a_slow_and_a_fast_track() {
    for later in [0, 500 * MS, 2 * SEC] {
        let mut viewer = Viewer::apart();
        viewer.clock.reconnected(local(2 * SEC));
        // Other subscriptions, and the slow track is the last to come back.
        let audio = track(2, AUDIO_PERIOD, (3 * SEC, 30 * SEC), steady(FAST));
        let video = track(3, VIDEO_PERIOD, (SEC, 30 * SEC), |time| {
            (3 * SEC + later + (time - SEC) / 40 - time).max(SLOW)
        });
        viewer.watch(&merge([audio, video]));
        viewer.assert_no_event();
        viewer.assert_latency(0, SLOW, SLOW);
    }
}

#[test]
fn reconnections_in_a_row_keep_the_offset_of_a_slow_and_a_fast_track() {
    let mut viewer = Viewer::apart();
    // The slow track is late to come back, and does so at the second time only.
    viewer.clock.reconnected(local(2 * SEC));
    viewer.watch(&track(2, AUDIO_PERIOD, (3 * SEC, 4 * SEC), steady(FAST)));
    viewer.clock.reconnected(local(5 * SEC));
    let audio = track(3, AUDIO_PERIOD, (6 * SEC, 30 * SEC), steady(FAST));
    let video = track(4, VIDEO_PERIOD, (6 * SEC, 30 * SEC), steady(SLOW));
    viewer.watch(&merge([audio, video]));
    viewer.assert_no_event();
    viewer.assert_latency(0, SLOW, SLOW);
}

#[test]
fn reconnection_of_a_slow_and_a_fast_track_on_another_path_follows_it() {
    for delay in [-200 * MS, 400 * MS] {
        let mut viewer = Viewer::apart();
        viewer.clock.reconnected(local(2 * SEC));
        viewer.watch(&apart(
            (3 * SEC, 3 * SEC),
            30 * SEC,
            (FAST + delay, SLOW + delay),
        ));
        assert!(viewer.adjustments.len() <= 1, "{:?}", viewer.adjustments);
        viewer.assert_latency(5 * SEC, SLOW + delay, SLOW + delay);
    }
}

#[test]
fn reconnection_without_the_slow_track_comes_down() {
    let mut viewer = Viewer::apart();
    viewer.clock.reconnected(local(2 * SEC));
    viewer.watch(&track(2, AUDIO_PERIOD, (3 * SEC, 30 * SEC), steady(FAST)));
    assert!(matches!(viewer.adjustments[..], [(_, Adjustment::Stepped { by })] if by < -1400 * MS));
    viewer.assert_latency(8 * SEC, FAST, FAST);
}

#[test]
fn all_tracks_have_one_offset() {
    let mut viewer = Viewer::apart();
    let mut random = Random(14);
    let audio = track(AUDIO, AUDIO_PERIOD, (0, 60 * SEC), |_| {
        FAST + random.below(90 * MS)
    });
    let mut random = Random(15);
    let video = track(VIDEO, VIDEO_PERIOD, (0, 60 * SEC), |time| {
        SLOW + time / 100 + random.below(90 * MS)
    });
    for frame in merge([audio, video]) {
        let _ = viewer.observe(frame);
        let map = |time| viewer.clock.map(viewer.timestamp(time));
        // What was captured at once is shown at once, whichever track it is of.
        assert_eq!(map(frame.timestamp) - map(0), frame.timestamp);
    }
}

// Jumps of the publisher's timeline.

#[test]
fn jump_of_the_timeline_reanchors_with_its_first_frame() {
    for jump in [
        -1_000_000 * SEC,
        -3600 * SEC,
        -5 * SEC,
        -3 * SEC,
        3 * SEC,
        3600 * SEC,
    ] {
        let mut viewer = Viewer::settled(BUDGET);
        viewer.shift = jump;
        viewer.watch(&both((0, 10 * SEC), steady(0)));
        assert_eq!(viewer.adjustments, [(0, Adjustment::Reanchored)]);
        viewer.assert_latency(0, 0, 0);
        // On the new timeline a backlog is one as before.
        viewer.watch(&both(
            (10 * SEC, 20 * SEC),
            blackout(10 * SEC, 15 * SEC, 100),
        ));
        assert_eq!(viewer.adjustments, [(0, Adjustment::Reanchored)]);
        viewer.assert_latency(0, 0, 0);
    }
}

#[test]
fn reanchoring_acquires_again() {
    let mut viewer = Viewer::settled(BUDGET);
    assert!(viewer.clock.acquired(local(0)));
    viewer.shift = 3600 * SEC;
    // The first frames on the new timeline are a backlog of two seconds.
    let burst = blackout(-2 * SEC, 10 * MS, 100);
    for frame in both((-2 * SEC, 10 * SEC), burst) {
        let _ = viewer.observe(frame);
        let now = local(frame.arrival);
        assert!(!viewer.clock.acquired(now) || viewer.latency() == 0);
    }
    assert_eq!(viewer.adjustments, [(10 * MS, Adjustment::Reanchored)]);
    viewer.assert_latency(100 * MS, 0, 0);
}

#[test]
fn tracks_may_jump_one_after_the_other() {
    for jump in [-3600 * SEC, 3600 * SEC] {
        for (audio, video) in [(0, 150 * MS), (150 * MS, 0)] {
            let mut viewer = Viewer::settled(BUDGET);
            for frame in both((0, 10 * SEC), steady(0)) {
                let from = if frame.track == AUDIO { audio } else { video };
                viewer.shift = if frame.timestamp >= from { jump } else { 0 };
                let _ = viewer.observe(frame);
            }
            assert!(viewer.adjustments.iter().all(|(at, _)| *at <= 200 * MS));
            viewer.assert_latency(200 * MS, 0, 0);
        }
    }
}

#[test]
fn timeline_that_stood_still_steps_after_confirmation() {
    let mut viewer = Viewer::settled(BUDGET);
    // Ten seconds of pause that the timestamps do not count look like a blackout at first.
    viewer.shift = -10 * SEC;
    viewer.watch(&both((10 * SEC, 30 * SEC), steady(0)));
    assert_eq!(viewer.adjustments.len(), 1);
    let (at, event) = viewer.adjustments[0];
    assert_eq!(event, Adjustment::Stepped { by: 10 * SEC });
    assert!(at <= 11_100 * MS);
    assert_eq!(viewer.latency(), 0);
}

#[test]
fn another_tracks_old_key_frame_is_no_jump() {
    let mut viewer = Viewer::settled(BUDGET);
    let mut frames = both((0, 10 * SEC), steady(0));
    frames.extend(track(
        7,
        VIDEO_PERIOD,
        (-5 * SEC, 10 * SEC),
        blackout(-5 * SEC, SEC, 30),
    ));
    frames.sort_by_key(|frame| frame.arrival);
    viewer.watch(&frames);
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 0);
    // Nor if the rest of its group is skipped.
    let mut skipped = track(8, VIDEO_PERIOD, (11 * SEC, 20 * SEC), steady(0));
    skipped[0].timestamp -= 5 * SEC;
    viewer.watch(&merge([both((10 * SEC, 20 * SEC), steady(0)), skipped]));
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 0);
}

#[test]
fn a_timeline_that_goes_back_by_less_than_two_seconds_is_followed_at_once() {
    for back in [600 * MS, SEC, 1900 * MS] {
        let mut viewer = Viewer::settled(BUDGET);
        viewer.shift = -back;
        viewer.watch(&both((0, 10 * SEC), steady(0)));
        let late = |(_, latency): &(i64, i64)| *latency != 0;
        // Of what is shown, nothing is more than a moment late.
        let late = viewer.latencies.iter().filter(|entry| late(entry)).count();
        assert!(late < 5, "{back}: {late} {:?}", viewer.adjustments);
        let last = viewer.adjustments.last().expect("told").0;
        assert!(last < 100 * MS, "{back}: {:?}", viewer.adjustments);
    }
}

#[test]
fn deep_reordering_that_begins_late_is_taken_for_a_jump_once_at_most() {
    let mut viewer = Viewer::settled(BUDGET);
    // Pictures at five a second, of which each fourth comes first.
    let mut frames = Vec::new();
    for group in 0..20 {
        for n in [3, 0, 1, 2] {
            let time = (group * 4 + n) * 200 * MS;
            let arrival = (group * 4 + 3) * 200 * MS + n * MS;
            frames.push(Frame {
                track: VIDEO,
                timestamp: time,
                arrival,
            });
        }
    }
    let audio = track(AUDIO, AUDIO_PERIOD, (0, 16 * SEC), steady(0));
    viewer.watch(&merge([audio, frames]));
    let jumps = viewer.adjustments.iter();
    let jumps = jumps.filter(|(_, adjustment)| *adjustment == Adjustment::Reanchored);
    assert!(jumps.count() <= 1, "{:?}", viewer.adjustments);
}

#[test]
fn frames_that_were_held_back_count_from_their_arrival() {
    // The picture is held for 100 ms, so that sound that came later is observed before it.
    let mut viewer = Viewer::settled(BUDGET);
    let begin = viewer.clock.time;
    let mut frames = both((0, 20 * SEC), steady(0));
    frames.sort_by_key(|frame| frame.arrival + i64::from(frame.track == VIDEO) * 100 * MS);
    viewer.watch(&frames);
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 0);
    // Nor does time pass twice: a blackout is none, and a window takes its four seconds.
    let elapsed = (viewer.clock.time - begin) as i64;
    assert!((elapsed - 20 * SEC).abs() < 50 * MS, "{elapsed}");
}

#[test]
fn reordered_frames_are_no_jump() {
    let mut viewer = Viewer::new(BUDGET);
    // Decode order P B B, so a P frame's timestamp is 66 ms ahead of the next B frame's.
    let frames = track(VIDEO, VIDEO_PERIOD, (0, 60 * SEC), steady(0));
    for group in frames.chunks_exact(3) {
        for (display, decode) in [(2, 0), (0, 1), (1, 2)] {
            let arrival = group[decode].arrival + 66 * MS;
            let _ = viewer.observe(Frame {
                arrival,
                ..group[display]
            });
        }
    }
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 0);
    assert_eq!(viewer.clock.jitter(), Duration::ZERO);
}

// Reconnection.

#[test]
fn reconnection_on_the_same_path_keeps_the_offset() {
    for gop in [0, 500 * MS, 3 * SEC, 6 * SEC] {
        let mut viewer = Viewer::settled(BUDGET);
        viewer.clock.reconnected(local(SEC));
        assert!(!viewer.clock.acquired(local(SEC)));
        // Long groups are sent again from before what was seen already.
        let from = 2 * SEC - gop;
        for frame in both((from, 20 * SEC), blackout(from, 2 * SEC, 40)) {
            let _ = viewer.observe(frame);
            // Known as soon as a frame is on time, and not before.
            let on_time = viewer.latency() == 0;
            assert_eq!(viewer.clock.acquired(local(frame.arrival)), on_time);
            // Nine tenths of the budget.
            assert!(on_time || frame.arrival - frame.timestamp > 180 * MS);
        }
        viewer.assert_no_event();
        viewer.assert_latency(2200 * MS, 0, 0);
    }
}

#[test]
fn reconnection_with_live_audio_and_an_old_group_of_video_keeps_the_offset() {
    let mut viewer = Viewer::settled(BUDGET);
    viewer.clock.reconnected(local(0));
    let mut frames = track(AUDIO, AUDIO_PERIOD, (0, 10 * SEC), steady(0));
    let burst = blackout(-5 * SEC, MS, 50);
    frames.extend(track(VIDEO, VIDEO_PERIOD, (-5 * SEC, 10 * SEC), burst));
    frames.sort_by_key(|frame| frame.arrival);
    viewer.watch(&frames);
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 0);
}

#[test]
fn reconnection_waits_for_flights_a_round_trip_apart() {
    let mut viewer = Viewer::settled(BUDGET);
    viewer.clock.reconnected(local(SEC));
    // One second every 100 ms, and on time after 200 ms.
    let flight = |time: i64| 2 * SEC + (time + SEC) / SEC * 100 * MS;
    let frames = both((-SEC, 20 * SEC), |time| {
        (flight(time.min(SEC)) - time).max(0)
    });
    for frame in frames {
        let _ = viewer.observe(frame);
        let acquired = viewer.clock.acquired(local(frame.arrival));
        assert_eq!(acquired, viewer.latency() == 0);
    }
    viewer.assert_no_event();
    viewer.assert_latency(2300 * MS, 0, 0);
}

#[test]
fn reconnection_soon_after_the_first_frame_keeps_its_offset() {
    let mut viewer = Viewer::new(BUDGET);
    let _ = viewer.observe(Frame {
        track: VIDEO,
        timestamp: 0,
        arrival: 0,
    });
    viewer.clock.reconnected(local(25 * MS));
    viewer.watch(&both((SEC, 2 * SEC), steady(100 * MS)));
    viewer.assert_no_event();
    viewer.assert_latency(0, 0, 5 * MS);
}

#[test]
fn reconnection_within_the_budget_keeps_the_offset_and_slews() {
    for delay in [-20 * MS, 100 * MS] {
        let mut viewer = Viewer::settled(BUDGET);
        viewer.clock.reconnected(local(9 * SEC));
        viewer.watch(&both((10 * SEC, 11 * SEC), steady(delay)));
        viewer.assert_no_event();
        viewer.assert_latency(0, -5 * MS, 5 * MS);
        viewer.watch(&both((11 * SEC, 60 * SEC), steady(delay)));
        viewer.assert_no_event();
        viewer.assert_latency(55 * SEC, delay.min(delay - 3 * MS), delay);
    }
}

#[test]
fn reconnection_on_another_path_acquires_again() {
    for (delay, shift) in [(400 * MS, 0), (0, -3600 * SEC), (0, 3600 * SEC)] {
        let mut viewer = Viewer::settled(BUDGET);
        viewer.clock.reconnected(local(9 * SEC));
        viewer.shift = shift;
        viewer.watch(&both((10 * SEC, 30 * SEC), steady(delay)));
        viewer.assert_no_event();
        viewer.assert_latency(10_000 * MS, delay, delay);
        assert!(viewer.clock.acquired(local(10_700 * MS)));
        // The offset from before is forgotten.
        viewer.watch(&both((30 * SEC, 40 * SEC), steady(delay - 250 * MS)));
        assert!(matches!(
            viewer.adjustments[..],
            [(_, Adjustment::Stepped { .. })]
        ));
    }
}

#[test]
fn reconnection_on_a_shorter_path_comes_down() {
    let mut viewer = Viewer::settled(BUDGET);
    viewer.clock.reconnected(local(9 * SEC));
    viewer.watch(&both((10 * SEC, 30 * SEC), steady(-150 * MS)));
    assert!(matches!(viewer.adjustments[..], [(_, Adjustment::Stepped { by })] if by < -149 * MS));
    viewer.assert_latency(10_500 * MS, -150 * MS, -150 * MS);
}

#[test]
fn reconnections_in_a_row_keep_the_offset() {
    let mut viewer = Viewer::settled(BUDGET);
    for n in 0..100 {
        let (from, to) = (n * 10 * SEC, (n * 10 + 8) * SEC);
        viewer.clock.reconnected(local(from));
        // Now and then the connection is lost again before a frame was on time.
        let to = if n % 3 == 1 { from + 10 * MS } else { to };
        viewer.watch(&both(
            (from - 2 * SEC, to),
            blackout(from - 2 * SEC, from, 20),
        ));
    }
    viewer.assert_no_event();
    assert_eq!(viewer.latency(), 0);
}

#[test]
fn reconnection_before_the_first_frame_is_harmless() {
    let mut viewer = Viewer::new(BUDGET);
    viewer.clock.reconnected(local(0));
    assert!(!viewer.clock.acquired(local(SEC)));
    viewer.watch(&both((SEC, 2 * SEC), steady(0)));
    viewer.assert_no_event();
    assert_eq!(viewer.latency(), 0);
}

// The budget.

#[test]
fn a_smaller_budget_steps_where_the_larger_slewed() {
    let mut viewer = Viewer::settled(Duration::from_millis(500));
    viewer.watch(&both((0, 2 * SEC), steady(300 * MS)));
    viewer.assert_no_event();
    viewer.clock.set_latency(BUDGET);
    viewer.watch(&both((2 * SEC, 4 * SEC), steady(300 * MS)));
    assert!(matches!(
        viewer.adjustments[..],
        [(_, Adjustment::Stepped { .. })]
    ));
    assert_eq!(viewer.latency(), 300 * MS);
}

#[test]
fn no_budget_works_with_jitter() {
    let mut viewer = Viewer::new(Duration::ZERO);
    let mut random = Random(8);
    viewer.watch(&both((0, 3600 * SEC), |_| random.below(100 * MS)));
    assert!(viewer.adjustments.iter().all(|(at, _)| *at < SEC));
    viewer.assert_latency(10 * SEC, 0, 15 * MS);
}

#[test]
fn no_budget_slews_what_sinks_tolerate() {
    let mut viewer = Viewer::settled(Duration::ZERO);
    viewer.watch(&both((0, 60 * SEC), steady(30 * MS)));
    viewer.assert_no_event();
    viewer.assert_latency(55 * SEC, 29 * MS, 30 * MS);
}

#[test]
fn jitter_beyond_the_budget_is_no_new_delay() {
    let mut viewer = Viewer::new(Duration::from_millis(20));
    let mut random = Random(11);
    let jitter = |_| random.below(90 * MS);
    viewer.watch(&track(VIDEO, 100 * MS, (0, 3600 * SEC), jitter));
    assert!(viewer.adjustments.iter().all(|(at, _)| *at < SEC));
    viewer.assert_latency(10 * SEC, 0, 8 * MS);
}

// Statistics.

#[test]
fn lateness_is_relative_to_on_time() {
    let viewer = Viewer::settled(BUDGET);
    let timestamp = viewer.timestamp(SEC);
    assert_eq!(viewer.clock.lateness(timestamp, local(SEC)), 0);
    assert_eq!(
        viewer.clock.lateness(timestamp, local(SEC + 70 * MS)),
        70 * MS
    );
    assert_eq!(
        viewer.clock.lateness(timestamp, local(SEC - 3 * MS)),
        -3 * MS
    );
}

#[test]
fn jitter_is_the_mean_difference_of_transits() {
    let mut viewer = Viewer::settled(BUDGET);
    assert_eq!(viewer.clock.jitter(), Duration::ZERO);
    let mut odd = false;
    viewer.watch(&track(AUDIO, AUDIO_PERIOD, (0, 10 * SEC), |_| {
        odd = !odd;
        if odd { 10 * MS } else { 0 }
    }));
    let jitter = viewer.clock.jitter().as_micros();
    assert!((9_990..=10_000).contains(&jitter), "{jitter}");
}

// Garbage.

#[test]
fn no_value_panics() {
    let values = [
        0,
        1,
        EPOCH as u64,
        i64::MAX as u64 - 1,
        i64::MAX as u64,
        i64::MAX as u64 + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    let mut random = Random(9);
    let mut pick = || {
        let n = random.next();
        if n.is_multiple_of(3) {
            random.next()
        } else {
            values[n as usize / 8 % values.len()]
        }
    };
    for budget in [Duration::ZERO, BUDGET, Duration::MAX] {
        let mut clock = ClockRecovery::new(budget);
        for n in 0..200_000 {
            let (timestamp, arrival) = (pick(), pick());
            let _ = clock.observe((pick() % 40) as u32, timestamp, arrival);
            let _ = clock.map(pick());
            let _ = clock.acquired(pick());
            let _ = clock.lateness(pick(), pick());
            let _ = clock.jitter();
            if n % 1000 == 0 {
                clock.reconnected(pick());
            }
            assert!(clock.tracks.len() <= TRACKS);
        }
    }
}

#[test]
fn one_bad_frame_does_no_lasting_harm() {
    let mut clean = both((0, 20 * SEC), steady(0));
    clean.retain(|frame| frame.track == VIDEO);
    for bad in [0, 1, 1 << 62, i64::MAX as u64, u64::MAX] {
        for at in [0, 1, 100] {
            for bad_arrival in [false, true] {
                let mut viewer = Viewer::new(BUDGET);
                for (n, frame) in clean.iter().enumerate() {
                    if n == at {
                        let (timestamp, arrival) = if bad_arrival {
                            (viewer.timestamp(frame.timestamp), bad)
                        } else {
                            (bad, local(frame.arrival))
                        };
                        let _ = viewer.clock.observe(VIDEO, timestamp, arrival);
                    }
                    let _ = viewer.observe(*frame);
                }
                viewer.assert_latency(10 * SEC, 0, 0);
                assert!(viewer.clock.acquired(local(20 * SEC)));
                assert!(viewer.adjustments.iter().all(|(at, _)| *at < 6 * SEC));
                // And it still follows the path.
                let on = track(VIDEO, VIDEO_PERIOD, (20 * SEC, 60 * SEC), steady(50 * MS));
                viewer.watch(&on);
                viewer.assert_latency(55 * SEC, 45 * MS, 50 * MS);
            }
        }
    }
}

#[test]
fn a_clock_that_stands_still_or_goes_back_a_little_is_tolerated() {
    let mut viewer = Viewer::settled(BUDGET);
    let mut random = Random(10);
    for mut frame in both((0, 600 * SEC), steady(10 * MS)) {
        frame.arrival -= frame.arrival % (10 * MS) + random.below(2 * MS);
        let _ = viewer.observe(frame);
    }
    viewer.assert_no_event();
    viewer.assert_latency(0, -2 * MS, 10 * MS);
}
