use super::{stream::lossy, *};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Both without what the peer says, and with it.
fn both(mut scenario: impl FnMut(&mut Simulation)) {
    for peer_reports in [false, true] {
        for seed in 1..=3 {
            let mut simulation = Simulation::new(peer_reports, seed);
            scenario(&mut simulation);
            simulation.check();
        }
    }
}

#[test]
fn on_a_wide_link_the_best_is_reached_in_seconds_without_a_gap() {
    both(|simulation| {
        simulation.run(seconds(60), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        assert!(
            simulation.shown[0].at < Duration::from_millis(300),
            "a picture at once"
        );
        let (last, _) = simulation.switches.last().copied().unwrap();
        assert!(last < seconds(10), "{:?}", simulation.switches);
        assert_eq!(simulation.gaps(Duration::ZERO), 0);
        assert!(simulation.longest_freeze(Duration::ZERO) < Duration::from_millis(200));
    });
}

#[test]
fn under_a_cap_of_500_kbit_it_stays_at_what_fits() {
    both(|simulation| {
        simulation.run(seconds(300), thin(500e3));
        let rest = seconds(60);
        assert!(
            simulation.share(rest, "low") > 0.9,
            "{:?}",
            simulation.switches
        );
        assert!(simulation.switches.len() <= 25, "{:?}", simulation.switches);
        assert_eq!(simulation.share(Duration::ZERO, "high"), 0.0);
        let freeze = simulation.longest_freeze(Duration::ZERO);
        assert!(freeze < Duration::from_millis(1500), "{freeze:?}");
    });
}

#[test]
fn a_link_that_becomes_thin_is_followed_down_and_up_again() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        simulation.run(seconds(6), thin(500e3));
        assert_eq!(simulation.rung(), Some("low"), "{:?}", simulation.switches);
        let freeze = simulation.longest_freeze(seconds(30));
        assert!(freeze < Duration::from_millis(1500), "{freeze:?}");
        simulation.run(seconds(24), thin(500e3));
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
    });
}

#[test]
fn a_link_that_comes_and_goes_does_not_make_it_flap() {
    both(|simulation| {
        for _ in 0..20 {
            simulation.run(seconds(10), FINE);
            simulation.run(seconds(10), thin(500e3));
        }
        // Each change would be worth four switches: up to the top, and down.
        assert!(
            simulation.switches.len() <= 45,
            "{:?}",
            simulation.switches.len()
        );
    });
}

#[test]
fn heavy_loss_makes_it_go_down_within_15_s_and_up_again_within_30() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        simulation.run(seconds(15), lossy(0.25));
        assert_ne!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        simulation.run(seconds(15), lossy(0.25));
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
    });
}

#[test]
fn a_burst_of_loss_leaves_nothing_behind() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        simulation.run(seconds(3), lossy(0.2));
        let clear = simulation.now + seconds(3);
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        assert!(simulation.longest_freeze(clear) < Duration::from_millis(300));
    });
}

#[test]
fn after_a_blackout_it_plays_within_3_s() {
    for blackout in [1500, 20_000] {
        both(|simulation| {
            simulation.run(seconds(30), FINE);
            simulation.run(Duration::from_millis(blackout), thin(1.0));
            let back = simulation.now;
            simulation.run(seconds(40), FINE);
            let first = simulation.since(back).next().expect("a picture").at - back;
            assert!(first < seconds(3), "{first:?}");
            let freeze = simulation.longest_freeze(back + seconds(3));
            assert!(freeze < Duration::from_millis(300), "{freeze:?}");
            assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
            if blackout < 2000 {
                assert!(
                    simulation.switches.iter().all(|(at, _)| *at < back),
                    "it is no reason to switch"
                );
            }
        });
    }
}

#[test]
fn a_longer_path_is_no_reason_to_switch() {
    both(|simulation| {
        simulation.run(seconds(30), FINE);
        for delay in [300, 500, 25] {
            let link = LinkState {
                delay: Duration::from_millis(delay),
                ..FINE
            };
            simulation.run(seconds(30), link);
        }
        assert!(
            simulation.switches.iter().all(|(at, _)| *at < seconds(30)),
            "{:?}",
            simulation.switches
        );
    });
}

#[test]
fn whatever_the_link_does_the_picture_continues_and_in_the_end_it_is_the_best() {
    for seed in 1..=40 {
        let mut simulation = Simulation::new(seed % 2 == 0, seed);
        let mut random = Random(seed * 7919);
        for _ in 0..12 {
            let link = LinkState {
                capacity: 100e3 * 60f64.powf(random.next()),
                delay: MS * (5 + (random.next() * 150.0) as u32),
                loss: if random.chance(0.3) {
                    random.next() * 0.2
                } else {
                    0.0
                },
            };
            simulation.run(Duration::from_secs_f64(1.0 + random.next() * 12.0), link);
        }
        simulation.run(seconds(120), FINE);
        simulation.check();
        assert_eq!(
            simulation.rung(),
            Some("high"),
            "{seed}: {:?}",
            simulation.switches
        );
    }
}

#[test]
fn a_link_that_carries_the_next_rendition_but_not_both_at_once_is_used() {
    both(|simulation| {
        simulation.run(seconds(90), thin(2.4e6));
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        let share = simulation.share(seconds(40), "high");
        assert!(share > 0.9, "{share} {:?}", simulation.switches);
        let freeze = simulation.longest_freeze(Duration::ZERO);
        assert!(freeze < Duration::from_millis(600), "{freeze:?}");
    });
}

#[test]
fn it_goes_down_before_the_picture_has_been_late_for_long() {
    for capacity in [1.7e6, 1.9e6] {
        for begin in [30_200, 30_600, 31_000] {
            both(|simulation| {
                simulation.run(Duration::from_millis(begin), FINE);
                let from = simulation.now;
                simulation.run(seconds(20), thin(capacity));
                let late = simulation.too_late(from, BUDGET);
                assert!(late < Duration::from_millis(1300), "{late:?}");
            });
        }
    }
}

/// A call: the publisher fits its encoders to the link, which becomes thin for two minutes; `told` says whether the viewer
/// knows that.
fn call(told: bool, peer_reports: bool, capacity: f64) -> Simulation {
    let mut simulation = Simulation::new(peer_reports, 1);
    simulation.publisher = Some(PublisherRate::default());
    simulation.selector.set_publisher_adapts(told);
    simulation.run(seconds(30), FINE);
    assert_eq!(simulation.rung(), Some("high"));
    simulation.run(seconds(120), thin(capacity));
    simulation
}

#[test]
fn in_a_call_the_publisher_follows_the_link_and_the_viewer_stays() {
    for capacity in [300e3, 1e6] {
        for peer_reports in [false, true] {
            let mut simulation = call(true, peer_reports, capacity);
            let share = |simulation: &Simulation| simulation.publisher.as_ref().unwrap().share();
            let rate = share(&simulation) * 2e6;
            assert!(
                (capacity * 0.5..capacity * 1.3).contains(&rate),
                "{capacity} {rate}"
            );
            let freeze = simulation.longest_freeze(seconds(40));
            assert!(freeze < Duration::from_millis(1500), "{freeze:?}");
            simulation.run(seconds(90), FINE);
            simulation.check();
            let whole = share(&simulation);
            assert!(whole > 0.9, "{capacity} {whole}");
            assert_eq!(simulation.switches.len(), 1, "{:?}", simulation.switches);
            // A viewer that does not know of it works against the publisher.
            let fight = call(false, peer_reports, capacity);
            assert!(fight.switches.len() > 6, "{:?}", fight.switches);
        }
    }
}

#[test]
fn where_the_publisher_cannot_go_low_enough_the_viewer_chooses_a_smaller_rendition() {
    for seed in 1..=3 {
        // The publisher says that it fits its encoders to the link, and does not.
        let mut simulation = Simulation::new(false, seed);
        simulation.selector.set_publisher_adapts(true);
        simulation.run(seconds(30), FINE);
        assert_eq!(simulation.rung(), Some("high"));
        simulation.run(seconds(30), thin(300e3));
        assert_eq!(simulation.rung(), Some("low"), "{:?}", simulation.switches);
        simulation.run(seconds(90), FINE);
        assert_eq!(simulation.rung(), Some("high"), "{:?}", simulation.switches);
        simulation.check();
    }
}
