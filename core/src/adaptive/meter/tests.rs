use super::*;

const FRAME: Duration = Duration::from_millis(33);
/// The publisher's clock is far ahead of ours.
const EPOCH: Duration = Duration::from_secs(200_000_000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A track at 30 frames of 5000 bytes a second whose n-th frame takes `transit(n)`; reports are taken 200 ms apart.
fn run(frames: u32, transit: impl Fn(u32) -> Option<Duration>) -> Vec<DownloadReport> {
    let mut arrivals: Vec<_> = (0..frames)
        .filter_map(|n| Some((FRAME * n + transit(n)?, n)))
        .collect();
    // Within a group frames arrive in order.
    let mut latest = Duration::ZERO;
    for (at, _) in &mut arrivals {
        latest = latest.max(*at);
        *at = latest;
    }
    let mut meter = DownloadMeter::new();
    let mut reports = Vec::new();
    let mut arrivals = arrivals.into_iter().peekable();
    let mut now = Duration::ZERO;
    while now < FRAME * frames {
        now += ms(200);
        while let Some((at, n)) = arrivals.next_if(|(at, _)| *at <= now) {
            meter.observe(EPOCH + FRAME * n, 5000, n % 60 == 0, false, at);
        }
        reports.push(meter.report(now));
    }
    reports
}

fn congestions(reports: &[DownloadReport]) -> Vec<Congestion> {
    reports
        .iter()
        .filter_map(|report| report.congestion)
        .collect()
}

#[test]
fn a_track_that_gets_through_is_healthy_and_its_rate_is_known() {
    let reports = run(300, |_| Some(ms(40)));
    assert!(reports[5..].iter().all(|report| report.healthy));
    let last = &reports[reports.len() - 3];
    // 5000 bytes every 33 ms are 1.21 Mbit/s.
    assert!((1_150_000..1_270_000).contains(&last.rate), "{}", last.rate);
    assert_eq!(last.key_interval, Some(FRAME * 60));
    assert_eq!(last.lateness, Duration::ZERO);
}

#[test]
fn a_link_that_is_too_thin_is_found_soon() {
    // 10 % more is sent than gets through, from the third second on.
    let reports = run(240, |n| {
        Some(ms(40) + FRAME.mul_f64(0.1) * n.saturating_sub(90))
    });
    let first = reports
        .iter()
        .position(|report| report.congestion.is_some());
    let first = ms(200) * (first.expect("congestion") as u32 + 1);
    assert!(first > ms(3000) && first < ms(6000), "{first:?}");
    assert_eq!(congestions(&reports)[0], Congestion::Growing);
}

#[test]
fn a_link_that_is_too_thin_by_little_is_found_too() {
    let reports = run(600, |n| Some(ms(40) + FRAME.mul_f64(0.025) * n));
    assert!(congestions(&reports).contains(&Congestion::Growing));
}

#[test]
fn a_longer_path_is_no_congestion() {
    for delay in [100, 300, 500, 900] {
        let reports = run(600, |n| Some(ms(if n < 100 { 20 } else { 20 + delay })));
        assert_eq!(congestions(&reports), [], "{delay} ms");
        assert!(
            reports.last().unwrap().healthy,
            "the new path is taken as it is"
        );
    }
}

#[test]
fn jitter_is_no_congestion() {
    // Deterministic noise of 0 to 110 ms.
    let noise = |n: u32| ms(u64::from(n.wrapping_mul(2_654_435_761) >> 16) % 110);
    let reports = run(600, |n| Some(ms(40) + noise(n)));
    assert_eq!(congestions(&reports), []);
}

#[test]
fn a_short_blackout_is_no_congestion_and_a_long_one_is_a_stall() {
    // What was held up comes at once when the link is back.
    let reports = run(300, |n| {
        let sent = FRAME * n;
        let back = ms(4500);
        Some(if sent > ms(3000) && sent < back {
            back - sent
        } else {
            ms(20)
        })
    });
    assert_eq!(congestions(&reports), []);
    let reports = run(300, |n| (FRAME * n < ms(3000)).then_some(ms(20)));
    assert_eq!(congestions(&reports)[0], Congestion::Stalled);
}

#[test]
fn a_link_that_chokes_is_found_sooner_than_one_that_is_gone() {
    let silent = |last: u64| {
        let reports = run(300, |n| match FRAME * n {
            sent if sent < ms(3000) => Some(ms(20)),
            sent if sent < ms(3200) => Some(ms(last)),
            _ => None,
        });
        let stalled = Some(Congestion::Stalled);
        reports
            .iter()
            .position(|report| report.congestion == stalled)
    };
    assert!(silent(200) < silent(20));
    assert!(silent(20).is_some());
}

#[test]
fn late_frames_again_and_again_are_lost_packets() {
    let reports = run(300, |n| {
        Some(ms(if n % 4 == 0 && n > 100 { 250 } else { 20 }))
    });
    assert!(congestions(&reports).contains(&Congestion::Unsteady));
}

#[test]
fn all_frames_late_by_seconds_are_behind_unless_they_catch_up() {
    // The first frame shows the true delay.
    let late = |n: u32| if n < 30 { ms(20) } else { ms(1500) };
    let reports = run(180, |n| Some(late(n)));
    assert!(congestions(&reports).contains(&Congestion::Behind));
    let drains = |n: u32| ms(20) + ms(2000).saturating_sub(ms(10) * n.saturating_sub(30));
    let reports = run(180, |n| Some(if n < 30 { ms(20) } else { drains(n) }));
    assert_eq!(congestions(&reports), []);
}

#[test]
fn two_skipped_groups_are_congestion_and_one_is_not() {
    let mut meter = DownloadMeter::new();
    for n in 0..60 {
        meter.observe(EPOCH + FRAME * n, 5000, n % 30 == 0, n == 30, FRAME * n);
    }
    let report = meter.report(FRAME * 60);
    assert_eq!(
        (report.skipped, report.congestion, report.healthy),
        (1, None, false)
    );
    meter.observe(EPOCH + FRAME * 61, 5000, true, true, FRAME * 61);
    let report = meter.report(FRAME * 61);
    assert_eq!(report.congestion, Some(Congestion::Skipping));
}

#[test]
fn reordered_frames_are_not_late() {
    let mut meter = DownloadMeter::new();
    // P, then three B-frames that are shown before it.
    for n in 0..40u32 {
        for (offset, order) in [(3, 0), (0, 1), (1, 2), (2, 3)] {
            let arrival = FRAME * (n * 4 + order);
            meter.observe(
                EPOCH + FRAME * (n * 4 + offset),
                5000,
                false,
                false,
                arrival,
            );
        }
    }
    let report = meter.report(FRAME * 160);
    assert!(report.healthy, "{report:?}");
}

#[test]
fn another_timeline_begins_anew() {
    let mut meter = DownloadMeter::new();
    for n in 0..60 {
        meter.observe(EPOCH + FRAME * n, 5000, false, false, FRAME * n);
    }
    for n in 60..120 {
        meter.observe(FRAME * n, 5000, false, false, FRAME * n);
    }
    let report = meter.report(FRAME * 120);
    assert_eq!((report.lateness, report.congestion), (Duration::ZERO, None));
}

#[test]
fn what_was_skipped_long_ago_is_forgotten() {
    let mut meter = DownloadMeter::new();
    for n in 0..10_000_u64 {
        let at = Duration::from_millis(40 * n);
        meter.observe(at, 1000, n % 50 == 0, n % 50 == 0, at);
    }
    assert!(meter.skips.len() <= 3, "{}", meter.skips.len());
}

#[test]
fn the_bitrate_is_that_of_the_timestamps_however_fast_frames_come() {
    let mut meter = DownloadMeter::new();
    // Three seconds of 1 Mbit/s at once, and then two as they are.
    for n in 0..125_u64 {
        let timestamp = Duration::from_millis(40 * n);
        let at = timestamp.max(Duration::from_secs(3));
        meter.observe(timestamp, 5000, n % 50 == 0, false, at);
        let bitrate = meter.report(at).bitrate;
        assert_eq!(bitrate.is_some(), n >= 25);
        let about = |bitrate| (980_000..=1_020_000).contains(&bitrate);
        assert!(bitrate.is_none_or(about), "{bitrate:?}");
    }
}

#[test]
fn a_frame_is_late_when_half_of_the_budget_is_used_up() {
    let healthy = |budget: u64| {
        let mut meter = DownloadMeter::with_budget(Duration::from_millis(budget));
        let mut at = Duration::ZERO;
        for n in 0..200_u64 {
            let late = if n < 100 { 0 } else { 110 };
            let timestamp = Duration::from_millis(40 * n);
            at = timestamp + Duration::from_millis(late);
            meter.observe(timestamp, 5000, n % 50 == 0, false, at);
        }
        meter.report(at).healthy
    };
    assert!(!healthy(200));
    assert!(healthy(300) && healthy(2000));
    assert!(!healthy(0));
}

#[test]
fn the_next_key_frame_is_expected_an_interval_after_the_last() {
    let mut meter = DownloadMeter::new();
    let ms = Duration::from_millis;
    assert_eq!(meter.next_key(ms(0), ms(0)), None);
    for n in 0..120_u64 {
        let timestamp = ms(40 * n);
        meter.observe(timestamp, 5000, n % 50 == 0, false, timestamp + ms(70));
    }
    assert_eq!(meter.last_key(), Some(ms(4000)));
    assert_eq!(meter.next_key(ms(4000), ms(4830)), Some(ms(6070)));
    // Those of the other rendition lie elsewhere, or were not noticed.
    assert_eq!(meter.next_key(ms(1500), ms(4830)), Some(ms(5570)));
}

#[test]
fn a_frame_that_may_have_waited_makes_neither_the_others_nor_itself_late() {
    let mut meter = DownloadMeter::new();
    // Whoever reads this is busy for a while now and then, and finds a frame that may have come at any time since.
    let step = Duration::from_millis(200);
    for n in 0..40_u32 {
        let found = step * n + Duration::from_millis(20);
        let busy = n % 10 == 9;
        let since = if busy { found - step } else { found };
        let found = if busy { found + step / 2 } else { found };
        meter.observe_within(step * n, 5000, n % 10 == 0, false, since..=found);
        let report = meter.report(found);
        assert!(report.healthy, "{n}: {report:?}");
        assert_eq!(report.lateness, Duration::ZERO, "{n}");
    }
}

#[test]
fn no_timestamp_is_too_much() {
    let mut meter = DownloadMeter::new();
    let huge = Duration::from_nanos(i64::MAX as u64);
    for (n, timestamp) in [huge, Duration::ZERO, huge, FRAME, Duration::MAX, FRAME]
        .into_iter()
        .enumerate()
    {
        let at = FRAME * (n as u32 * 20);
        meter.observe(timestamp, 5000, true, false, at);
        meter.lateness(Duration::ZERO, at + FRAME);
        meter.report(at);
        meter.next_key(timestamp, at);
    }
}
