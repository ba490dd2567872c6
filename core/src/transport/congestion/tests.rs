use super::*;

const MS: Duration = Duration::from_millis(1);
const SIZE: u16 = 1000;

/// A path on which one in `every` of 250 packets a second is lost: how many of how many losses look like congestion.
fn path(every: u64, smoothed: Duration) -> (usize, usize) {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    watch.measured(start, MS * 50);
    watch.measured(start, smoothed);
    let lost: Vec<_> = (0..5000)
        .filter_map(|number| {
            watch.sent(start + MS * 4 * number, SIZE);
            (u64::from(number) % every == 0).then(|| watch.lost(start + MS * 4 * number))
        })
        .collect();
    (lost.iter().filter(|told| **told).count(), lost.len())
}

#[test]
fn a_path_that_merely_loses_is_not_congested() {
    assert_eq!(path(50, MS * 52), (0, 100));
    assert_eq!(path(20, MS * 60), (0, 250));
}

#[test]
fn losses_behind_a_queue_are_congestion() {
    assert_eq!(path(50, MS * 68), (100, 100));
}

#[test]
fn losing_a_fifth_is_congestion_without_a_queue() {
    let (told, lost) = path(5, MS * 50);
    assert!(told > lost * 9 / 10, "{told} of {lost}");
}

#[test]
fn one_burst_is_no_congestion_but_a_dead_path_is() {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    (0..20).for_each(|_| watch.sent(start, SIZE));
    let told: Vec<_> = (0..20).map(|_| watch.lost(start)).collect();
    assert_eq!(told.iter().position(|told| *told), Some(12));
}

#[test]
fn what_was_lost_long_ago_is_forgotten() {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    watch.sent(start, SIZE);
    while !watch.lost(start) {}
    watch.sent(start + PERIOD, SIZE);
    assert!(watch.lost(start + PERIOD));
    watch.sent(start + PERIOD * 2, SIZE);
    watch.sent(start + PERIOD * 3, SIZE);
    assert!(!watch.lost(start + PERIOD * 3));
}

/// One that has sent 250 kB a second for three seconds.
fn stream(start: Instant, round_trip: Duration) -> Watch {
    let mut watch = Watch::new(start);
    watch.measured(start, round_trip);
    for number in 0..750 {
        watch.sent(start + MS * 4 * number, SIZE);
        watch.acknowledged(start + MS * 4 * number, true);
    }
    watch
}

#[test]
fn the_window_follows_the_stream_and_the_round_trip() {
    let start = Instant::now();
    assert_eq!(Watch::new(start).need(), 0);
    assert_eq!(stream(start, MS * 10).need(), 50_000);
    assert_eq!(stream(start, MS * 640).need(), 320_000);
}

#[test]
fn a_stream_that_is_held_up_has_no_say_until_it_runs_dry_again() {
    let start = Instant::now();
    let mut watch = stream(start, MS * 50);
    let last = start + MS * 4 * 749;
    watch.acknowledged(last + BACKLOG - MS, false);
    assert_eq!(watch.need(), 50_000);
    watch.acknowledged(last + BACKLOG, false);
    assert_eq!(watch.need(), 0);
    watch.acknowledged(last + BACKLOG * 2, true);
    assert_eq!(watch.need(), 50_000);
}

/// A path of 125 kB a second into which 250 kB are sent, with a queue that is full: until when, and what is known.
fn overflowing(start: Instant) -> (Instant, Watch) {
    let mut watch = Watch::new(start);
    watch.measured(start, MS * 40);
    watch.measured(start, MS * 240);
    for number in 0..750 {
        let now = start + MS * 4 * number;
        watch.sent(now, SIZE);
        if number % 2 == 0 {
            watch.arrived(now, u64::from(SIZE));
        } else {
            watch.lost(now);
        }
    }
    (start + MS * 4 * 750, watch)
}

#[test]
fn a_path_that_overflows_shows_what_it_carries() {
    let (now, mut watch) = overflowing(Instant::now());
    let carries = |watch: &Watch| watch.overflow.map(|overflow| overflow.rate);
    assert!((120_000..130_000).contains(&carries(&watch).unwrap()));
    assert!((90_000..98_000).contains(&watch.drain_rate().unwrap()));
    assert_eq!(watch.need(), 0);
    // A single loss afterwards is no overflow any more.
    watch.lost(now + DRAIN / 2);
    watch.arrived(now + DRAIN, 1000);
    assert_eq!(watch.drain_rate(), None);
    assert!(carries(&watch).is_some());
    watch.arrived(now + LEARNED, 1000);
    assert!(carries(&watch).is_none());
}

#[test]
fn more_that_arrives_is_more_that_the_path_carries() {
    let (now, mut watch) = overflowing(Instant::now());
    for number in 0..500 {
        watch.arrived(now + DRAIN + MS * 4 * number, u64::from(SIZE));
    }
    let carries = watch.overflow.unwrap().rate;
    assert!((245_000..260_000).contains(&carries), "{carries}");
}

#[test]
fn losing_much_without_a_full_queue_is_no_overflow() {
    let start = Instant::now();
    let mut watch = Watch::new(start);
    watch.measured(start, MS * 50);
    watch.measured(start, MS * 80);
    for number in 0..5000 {
        let now = start + MS * 4 * number;
        watch.sent(now, SIZE);
        if number % 4 == 0 {
            watch.lost(now);
        }
    }
    assert!(watch.overflow.is_none());
}

#[test]
fn a_controller_estimates_the_rate_of_its_path() {
    let now = Instant::now();
    let controller = Arc::new(Config::default()).build(now, 1200);
    assert!(controller.window() >= 10 * 1200);
    assert_eq!(controller.clone_box().window(), controller.window());
    // What tells BBR3 from controllers that only have a window.
    assert!(controller.metrics().pacing_rate.is_some());
}
