mod chosen;
mod publisher;

use super::{super::meter::Congestion, *};

const TICK: Duration = Duration::from_millis(200);

fn rung(name: &str, bitrate: u64, height: u32) -> Rung {
    Rung {
        name: name.to_owned(),
        bitrate: (bitrate > 0).then_some(bitrate),
        height: Some(height),
        size: u64::from(height) * u64::from(height) * 16 / 9 * 30,
        stalled: false,
    }
}

fn ladder() -> Vec<Rung> {
    vec![
        rung("high", 2_000_000, 720),
        rung("low", 200_000, 180),
        rung("mid", 800_000, 360),
    ]
}

fn fine(rate: u64) -> DownloadReport {
    DownloadReport {
        rate,
        bitrate: (rate > 0).then_some(rate),
        healthy: true,
        key_interval: Some(Duration::from_secs(2)),
        ..DownloadReport::default()
    }
}

fn bad(rate: u64, congestion: Congestion) -> DownloadReport {
    DownloadReport {
        rate,
        congestion: Some(congestion),
        ..DownloadReport::default()
    }
}

/// A selector with the time, for which every switch succeeds at once unless told otherwise.
struct Rig {
    selector: Selector,
    now: Duration,
    peer: Option<u64>,
    others: u64,
}

impl Rig {
    fn new(quality: Quality, ladder: Vec<Rung>) -> Self {
        let mut selector = Selector::new(quality);
        selector.set_ladder(ladder);
        Self {
            selector,
            now: Duration::ZERO,
            peer: None,
            others: 0,
        }
    }

    fn decide(&mut self, report: &DownloadReport) -> Option<Decision> {
        self.now += TICK;
        let measured = Measured {
            peer: self.peer,
            others: self.others,
            ..Measured::new(Some(report))
        };
        self.selector.decide(self.now, measured)
    }

    /// Lets time pass with the same report; returns the renditions that were switched to, and when.
    fn run(
        &mut self,
        time: Duration,
        report: impl Fn(&str) -> DownloadReport,
    ) -> Vec<(String, Duration)> {
        let mut switches = Vec::new();
        let end = self.now + time;
        while self.now < end {
            let report = report(self.selector.current().unwrap_or_default());
            if let Some(Decision::Switch(name)) = self.decide(&report) {
                self.selector.switched(self.now);
                switches.push((name, self.now));
            }
        }
        switches
    }

    fn settle_on(&mut self, name: &str) {
        let seconds = Duration::from_secs(30);
        self.run(seconds, |_| fine(100_000));
        assert_eq!(self.selector.current(), Some(name));
    }
}

fn names(switches: &[(String, Duration)]) -> Vec<&str> {
    switches.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn it_begins_low_and_goes_up_step_by_step() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    let switches = rig.run(Duration::from_secs(20), |_| fine(100_000));
    assert_eq!(names(&switches), ["low", "mid", "high"]);
    assert_eq!(switches[0].1, TICK, "a picture at once");
    assert!(switches[2].1 < Duration::from_secs(5), "{switches:?}");
}

#[test]
fn it_begins_higher_and_skips_steps_where_the_peer_says_that_there_is_room() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.peer = Some(1_700_000);
    let switches = rig.run(TICK, |_| fine(0));
    assert_eq!(names(&switches), ["mid"]);
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.run(TICK, |_| fine(0));
    rig.peer = Some(5_000_000);
    let switches = rig.run(Duration::from_secs(3), |_| fine(100_000));
    assert_eq!(names(&switches), ["high"]);
}

#[test]
fn down_it_goes_to_what_gets_through() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let report = bad(1_000_000, Congestion::Growing);
    assert_eq!(rig.decide(&report), None, "once is not enough");
    assert_eq!(rig.decide(&report), Some(Decision::Switch("mid".into())));
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let switches = rig.run(TICK * 2, |_| bad(500_000, Congestion::Growing));
    assert_eq!(names(&switches), ["low"]);
}

#[test]
fn lost_packets_make_it_go_down_one_step_though_the_rate_is_as_promised() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let switches = rig.run(TICK * 2, |_| bad(2_400_000, Congestion::Unsteady));
    assert_eq!(names(&switches), ["mid"]);
}

#[test]
fn one_bad_report_changes_nothing_but_puts_off_a_step_up() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    rig.run(TICK, |_| bad(2_000_000, Congestion::Growing));
    let switches = rig.run(Duration::from_secs(20), |_| fine(2_000_000));
    assert_eq!(names(&switches), [""; 0]);
}

#[test]
fn a_step_up_that_fails_is_tried_ever_more_rarely() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    // Only the lowest gets through.
    let switches = rig.run(Duration::from_secs(600), |current| match current {
        "low" => fine(200_000),
        _ => bad(300_000, Congestion::Growing),
    });
    let ups: Vec<_> = switches
        .iter()
        .filter(|(name, _)| name == "mid")
        .map(|(_, at)| *at)
        .collect();
    assert!((8..=16).contains(&ups.len()), "{ups:?}");
    let waits: Vec<_> = ups.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        waits.windows(2).all(|pair| pair[1] + TICK >= pair[0]),
        "{waits:?}"
    );
    assert!(
        waits.last().unwrap() >= &Duration::from_secs(60),
        "{waits:?}"
    );
    assert!(!names(&switches).contains(&"high"));
}

#[test]
fn a_rendition_that_held_is_forgiven() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    for _ in 0..5 {
        rig.run(TICK * 8, |_| bad(1_000_000, Congestion::Growing));
        assert_ne!(rig.selector.current(), Some("high"));
        let began = rig.now;
        let switches = rig.run(Duration::from_secs(60), |_| fine(500_000));
        let back = switches
            .iter()
            .find(|(name, _)| name == "high")
            .expect("up again")
            .1
            - began;
        assert!(back <= Duration::from_secs(15), "{back:?}");
    }
}

#[test]
fn a_good_report_of_the_peer_shortens_the_wait() {
    let wait = |peer| {
        let mut rig = Rig::new(Quality::Auto, ladder());
        for _ in 0..5 {
            rig.selector.fail("mid", rig.now, None);
        }
        rig.peer = Some(300_000);
        rig.run(TICK, |_| fine(0));
        rig.peer = peer;
        let switches = rig.run(Duration::from_secs(120), |_| fine(100_000));
        switches
            .iter()
            .find(|(name, _)| name == "mid")
            .expect("tried again")
            .1
    };
    assert!(wait(None) >= Duration::from_secs(60));
    assert!(wait(Some(1_500_000)) <= Duration::from_secs(17));
}

#[test]
fn a_peer_that_says_it_cannot_is_asked_later() {
    let first_up = |peer| {
        let mut rig = Rig::new(Quality::Auto, ladder());
        rig.peer = Some(peer);
        let switches = rig.run(Duration::from_secs(20), |_| fine(100_000));
        switches[1].1
    };
    assert!(first_up(300_000) >= first_up(900_000) + RAMP_HOLD - TICK);
}

#[test]
fn a_switch_that_takes_too_long_is_given_up_and_tried_later() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.run(TICK, |_| fine(0));
    let mut begun = None;
    let mut given_up = None;
    let mut again = None;
    while again.is_none() && rig.now < Duration::from_secs(60) {
        match rig.decide(&fine(200_000)) {
            Some(Decision::Switch(name)) if begun.is_none() => {
                assert_eq!(name, "mid");
                assert!(rig.selector.is_rising());
                begun = Some(rig.now);
            }
            Some(Decision::Switch(_)) => again = Some(rig.now),
            Some(Decision::Abandon) => given_up = Some(rig.now),
            Some(Decision::Prefer) | None => {}
        }
    }
    let (begun, given_up, again) = (begun.unwrap(), given_up.unwrap(), again.unwrap());
    // Key frames are two seconds apart.
    assert!(
        given_up - begun >= Duration::from_millis(6500)
            && given_up - begun <= Duration::from_secs(7)
    );
    assert!(again - given_up >= Duration::from_secs(4));
    assert_eq!(rig.selector.current(), Some("low"));
}

#[test]
fn congestion_while_a_better_one_is_opened_ends_the_attempt() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.run(TICK, |_| fine(0));
    while rig.decide(&fine(200_000)).is_none() {}
    assert_eq!(rig.selector.target(), Some("mid"));
    let report = bad(200_000, Congestion::Growing);
    assert_eq!(rig.decide(&report), Some(Decision::Abandon));
    assert_eq!(rig.selector.target(), None);
}

#[test]
fn congestion_does_not_end_a_step_down() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let report = bad(1_000_000, Congestion::Growing);
    while rig.decide(&report).is_none() {}
    assert!(!rig.selector.is_rising());
    assert_eq!(rig.decide(&report), None);
    assert_eq!(rig.selector.target(), Some("mid"));
}

#[test]
fn a_step_down_that_failed_is_tried_again_at_once() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let report = bad(0, Congestion::Stalled);
    let mut tried = Vec::new();
    for _ in 0..40 {
        if let Some(Decision::Switch(name)) = rig.decide(&report) {
            rig.selector.failed(rig.now);
            tried.push(name);
        }
    }
    assert_eq!(tried[..3], ["low", "mid", "low"]);
    assert!(tried.len() >= 10, "{tried:?}");
}

#[test]
fn a_rendition_that_leaves_is_replaced_by_the_next_smaller() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    rig.selector.set_ladder(ladder().split_off(1));
    let switches = rig.run(TICK, |_| fine(2_000_000));
    assert_eq!(names(&switches), ["mid"]);
    // The smallest leaves, with nothing smaller to go to.
    rig.selector.set_ladder(vec![rung("high", 2_000_000, 720)]);
    let switches = rig.run(TICK, |_| fine(2_000_000));
    assert_eq!(names(&switches), ["high"]);
}

#[test]
fn a_target_that_leaves_is_given_up_without_a_penalty() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.run(TICK, |_| fine(0));
    while rig.decide(&fine(200_000)).is_none() {}
    rig.selector.set_ladder(vec![rung("low", 200_000, 180)]);
    assert_eq!(rig.decide(&fine(200_000)), Some(Decision::Abandon));
    rig.selector.set_ladder(ladder());
    assert_eq!(
        rig.decide(&fine(200_000)),
        Some(Decision::Switch("mid".into()))
    );
}

#[test]
fn renditions_without_a_bitrate_are_ordered_by_size_and_learned() {
    let unknown = || {
        vec![
            rung("high", 0, 720),
            rung("low", 0, 180),
            rung("mid", 0, 360),
        ]
    };
    let mut rig = Rig::new(Quality::Auto, unknown());
    let rate = |current: &str| {
        fine(match current {
            "low" => 200_000,
            "mid" => 800_000,
            _ => 2_000_000,
        })
    };
    let switches = rig.run(Duration::from_secs(60), rate);
    assert_eq!(names(&switches), ["low", "mid", "high"]);
    let switches = rig.run(TICK * 2, |_| bad(500_000, Congestion::Growing));
    assert_eq!(
        names(&switches),
        ["low"],
        "the middle one is known to need 800 kbit/s"
    );
    // A guess where nothing but one is known: a quarter of the pixels, 0.35 of the bitrate.
    let mut rig = Rig::new(Quality::Named("high".into()), unknown());
    rig.run(Duration::from_secs(10), rate);
    let mid = rung("mid", 0, 360);
    let guess = rig.selector.needed(&mid).unwrap();
    assert!((690_000.0..720_000.0).contains(&guess), "{guess}");
}

#[test]
fn what_the_publisher_advises_against_is_avoided() {
    let mut rungs = ladder();
    rungs[1].stalled = true;
    let mut rig = Rig::new(Quality::Auto, rungs);
    assert_eq!(names(&rig.run(TICK, |_| fine(0))), ["mid"]);
    let mut rungs = ladder();
    rungs.iter_mut().for_each(|rung| rung.stalled = true);
    let mut rig = Rig::new(Quality::Auto, rungs);
    assert_eq!(names(&rig.run(TICK, |_| fine(0))), ["low"]);
}

#[test]
fn a_track_that_ends_abruptly_is_opened_again() {
    let mut rig = Rig::new(Quality::Auto, vec![rung("only", 500_000, 360)]);
    rig.run(TICK, |_| fine(0));
    let mut attempts = 0;
    for _ in 0..100 {
        if rig.selector.current().is_some() {
            rig.selector.lost(rig.now);
        }
        attempts += rig.run(TICK, |_| fine(0)).len();
    }
    // Half a second, one, two, four, eight.
    assert!((4..=6).contains(&attempts), "{attempts}");
}

#[test]
fn with_nothing_to_watch_another_is_tried_when_one_does_not_come() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Switch("low".into())));
    rig.selector.failed(rig.now);
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Switch("mid".into())));
}

#[test]
fn an_empty_ladder_is_waited_on() {
    let mut rig = Rig::new(Quality::Auto, Vec::new());
    assert_eq!(rig.decide(&fine(0)), None);
    rig.selector.set_ladder(ladder());
    assert!(rig.decide(&fine(0)).is_some());
}

#[test]
fn what_a_rendition_needs_is_forgotten_again() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let mid = rung("mid", 800_000, 360);
    let needed = |rig: &Rig| rig.selector.needed(&mid).unwrap();
    rig.selector.set_quality(Quality::Named("mid".to_owned()));
    rig.run(Duration::from_secs(5), |_| fine(800_000));
    // A backlog comes in at once: that says nothing of what belongs to a second.
    let burst = DownloadReport {
        bitrate: Some(800_000),
        ..fine(8_000_000)
    };
    rig.run(TICK * 5, |_| burst);
    assert_eq!(needed(&rig), 800_000.0);
    // A picture that moves needs more, and one that stands still again does not.
    rig.run(Duration::from_secs(20), |_| fine(1_600_000));
    assert!(needed(&rig) > 1_500_000.0, "{}", needed(&rig));
    rig.run(Duration::from_secs(30), |_| fine(400_000));
    assert_eq!(needed(&rig), 800_000.0, "what is stated");
}

#[test]
fn what_the_peer_can_deliver_is_for_everything_that_is_received() {
    let first = |others| {
        let mut rig = Rig::new(Quality::Auto, ladder());
        rig.run(TICK, |_| fine(0));
        (rig.peer, rig.others) = (Some(2_600_000), others);
        let switches = rig.run(Duration::from_secs(20), |_| fine(200_000));
        switches[0].0.clone()
    };
    assert_eq!(first(0), "high");
    assert_eq!(first(1_000_000), "mid", "one step, as an experiment");
}

#[test]
fn one_experiment_at_a_time() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.run(TICK, |_| fine(0));
    let report = fine(200_000);
    for _ in 0..100 {
        rig.now += TICK;
        let measured = Measured {
            taken: true,
            ..Measured::new(Some(&report))
        };
        assert_eq!(rig.selector.decide(rig.now, measured), None);
    }
    assert!(!rig.run(TICK, |_| report).is_empty());
}

#[test]
fn a_decoder_that_is_too_slow_makes_it_go_down_and_stay_down() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    let down = rig.selector.too_slow(rig.now);
    assert_eq!(down, Some(Decision::Switch("mid".into())));
    rig.selector.switched(rig.now);
    let switches = rig.run(Duration::from_secs(59), |_| fine(800_000));
    assert_eq!(names(&switches), [""; 0], "whatever the network carries");
    let switches = rig.run(Duration::from_secs(2), |_| fine(800_000));
    assert_eq!(names(&switches), ["high"]);
    // The program's own choice stands, and there is nothing below the lowest.
    rig.selector.set_quality(Quality::Highest);
    assert_eq!(rig.selector.too_slow(rig.now), None);
    rig.selector.set_quality(Quality::Auto);
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.run(TICK, |_| fine(0));
    assert_eq!(rig.selector.too_slow(rig.now), None);
}

#[test]
fn what_is_larger_than_a_rendition_that_is_too_much_for_the_decoder_is_left_alone_too() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    // On a link on which a failure of the network would soon be forgiven.
    rig.peer = Some(50_000_000);
    rig.run(TICK, |_| fine(0));
    rig.selector.set_quality(Quality::Named("mid".into()));
    rig.run(TICK, |_| fine(0));
    rig.selector.set_quality(Quality::Auto);
    assert_eq!(rig.selector.current(), Some("mid"));
    let down = rig.selector.too_slow(rig.now);
    assert_eq!(down, Some(Decision::Switch("low".into())));
    rig.selector.switched(rig.now);
    let switches = rig.run(Duration::from_secs(59), |_| fine(200_000));
    assert_eq!(names(&switches), [""; 0]);
    // Nor has the catalog to have named it at the time.
    let mut more = ladder();
    more.push(rung("huge", 8_000_000, 2160));
    rig.selector.set_ladder(more);
    assert_eq!(rig.run(TICK, |_| fine(200_000)), []);
    // The program's own choice is.
    rig.selector.set_quality(Quality::Named("high".into()));
    let switches = rig.run(TICK, |_| fine(200_000));
    assert_eq!(names(&switches), ["high"]);
}

#[test]
fn a_decoder_that_is_too_slow_gets_no_rendition_that_failed_just_now_if_there_is_another() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.settle_on("high");
    rig.run(TICK * 2, |_| bad(1_000_000, Congestion::Growing));
    assert_eq!(rig.selector.current(), Some("mid"));
    rig.run(TICK * 20, |_| bad(500_000, Congestion::Growing));
    assert_eq!(rig.selector.current(), Some("low"));
    rig.selector.set_quality(Quality::Named("high".into()));
    rig.run(Duration::from_secs(5), |_| fine(100_000));
    rig.selector.set_quality(Quality::Auto);
    assert_eq!(rig.selector.current(), Some("high"));
    rig.selector.fail("mid", rig.now, None);
    let down = rig.selector.too_slow(rig.now);
    assert_eq!(down, Some(Decision::Switch("low".into())));
    // Where nothing else is left to watch, it is better than nothing.
    rig.selector.failed(rig.now);
    rig.selector.set_ladder(vec![rung("high", 2_000_000, 720)]);
    rig.selector.current = None;
    let switches = rig.run(TICK, |_| fine(0));
    assert_eq!(names(&switches), ["high"]);
}

#[test]
fn a_rendition_that_gets_through_but_not_beside_the_other_is_served_first() {
    let prefer = |next_rate| {
        let mut rig = Rig::new(Quality::Auto, ladder());
        while rig.selector.current() != Some("mid") {
            rig.run(TICK, |_| fine(200_000));
        }
        let (watched, next) = (fine(800_000), fine(next_rate));
        let mut decisions = Vec::new();
        for _ in 0..100 {
            rig.now += TICK;
            let measured = Measured {
                next: rig.selector.target().map(|_| &next),
                ..Measured::new(Some(&watched))
            };
            decisions.extend(rig.selector.decide(rig.now, measured));
            if decisions.len() == 3 {
                break;
            }
        }
        decisions
    };
    let switch = || Decision::Switch("high".into());
    // 2.2 Mbit/s get through, and 2.0 are needed. If it does not come all the same, that is all.
    let served = [switch(), Decision::Prefer, Decision::Abandon];
    assert_eq!(prefer(1_400_000), served);
    let not = [switch(), Decision::Abandon, switch()];
    assert_eq!(prefer(1_100_000), not);
}
