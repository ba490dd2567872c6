use super::*;

const PATIENCE: Patience = Patience {
    hold: Duration::from_millis(100),
    lag: Duration::from_millis(300),
    decode_only: true,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Frames 30 ms apart; the payload says of which rendition.
fn frame(of: &'static str, n: u64, keyframe: bool) -> Arrived {
    Arrived {
        frame: EncodedFrame::new(ms(30 * n), of.as_bytes(), keyframe),
        at: Duration::ZERO,
    }
}

/// Brings a frame of the old rendition.
fn push_old(handover: &mut Handover, frame: Arrived, lateness: Duration, at: Duration) {
    handover.push_old(Arrived { at, ..frame }, lateness);
}

fn handover(played: u64) -> Handover {
    Handover::new(PATIENCE, Some(ms(30 * played)))
}

/// Everything that can be handed out at `now`, as the numbers of the frames, and the frames of the cut.
fn drain(handover: &mut Handover, now: Duration) -> (Vec<u64>, Option<Vec<Arrived>>) {
    let mut out = Vec::new();
    loop {
        match handover.step(now) {
            Step::Frame(frame) => out.push(frame.frame.timestamp.as_millis() as u64 / 30),
            Step::Cut(frames) => return (out, Some(frames)),
            Step::Wait(_) => return (out, None),
        }
    }
}

fn numbers(frames: &[Arrived]) -> Vec<u64> {
    frames
        .iter()
        .map(|frame| frame.frame.timestamp.as_millis() as u64 / 30)
        .collect()
}

#[test]
fn the_new_one_takes_over_at_its_key_frame_and_nothing_is_missing_or_doubled() {
    let mut handover = handover(20);
    // The group that is under way: too old.
    for n in 5..=22 {
        handover.push_new(frame("new", n, n == 5));
    }
    push_old(
        &mut handover,
        frame("old", 21, false),
        Duration::ZERO,
        ms(0),
    );
    push_old(
        &mut handover,
        frame("old", 22, false),
        Duration::ZERO,
        ms(0),
    );
    assert_eq!(drain(&mut handover, ms(0)), (vec![21, 22], None));
    // Both go on; the new one's next group begins at 25.
    for n in 23..=27 {
        handover.push_new(frame("new", n, n == 25));
    }
    assert_eq!(
        drain(&mut handover, ms(0)),
        (vec![], None),
        "23 and 24 are the old one's"
    );
    for n in 23..=26 {
        push_old(&mut handover, frame("old", n, false), Duration::ZERO, ms(0));
    }
    let (out, cut) = drain(&mut handover, ms(0));
    assert_eq!(out, [23, 24]);
    let cut = cut.expect("the cut");
    assert_eq!(numbers(&cut), [25, 26, 27]);
    assert!(
        cut.iter()
            .all(|frame| frame.frame.payload == "new" && !frame.frame.discontinuity)
    );
}

#[test]
fn a_key_frame_that_was_missed_by_little_still_serves() {
    let mut handover = handover(10);
    handover.push_new(frame("new", 6, true));
    handover.push_new(frame("new", 10, false));
    push_old(
        &mut handover,
        frame("old", 11, false),
        Duration::ZERO,
        ms(0),
    );
    assert_eq!(drain(&mut handover, ms(0)), (vec![], None));
    handover.push_new(frame("new", 11, false));
    let (out, cut) = drain(&mut handover, ms(0));
    let cut = cut.expect("the cut");
    assert_eq!((out, numbers(&cut)), (vec![], vec![6, 10, 11]));
    assert!(cut.iter().all(|frame| !frame.frame.discontinuity));
}

#[test]
fn a_key_frame_that_comes_a_little_later_is_not_missed() {
    let mut handover = handover(10);
    handover.push_new(frame("new", 0, true));
    handover.push_new(frame("new", 10, false));
    // The old one's frame of the same moment is there first.
    push_old(
        &mut handover,
        frame("old", 11, false),
        Duration::ZERO,
        ms(330),
    );
    assert_eq!(handover.step(ms(330)), Step::Wait(Some(ms(430))));
    handover.push_new(frame("new", 11, true));
    let (out, cut) = drain(&mut handover, ms(380));
    assert_eq!((out, numbers(&cut.unwrap())), (vec![], vec![11]));
}

#[test]
fn no_frame_is_held_longer_than_allowed_and_late_ones_not_at_all() {
    let mut handover = handover(10);
    push_old(&mut handover, frame("old", 11, false), ms(0), ms(330));
    push_old(&mut handover, frame("old", 12, false), ms(40), ms(400));
    push_old(&mut handover, frame("old", 13, false), ms(140), ms(530));
    assert_eq!(drain(&mut handover, ms(429)).0, [0; 0]);
    assert_eq!(drain(&mut handover, ms(430)).0, [11]);
    assert_eq!(drain(&mut handover, ms(530)).0, [12, 13]);
}

#[test]
fn when_the_old_one_ends_the_new_one_begins_where_it_was_and_only_decodes_what_was_shown() {
    let mut handover = handover(10);
    for n in 0..=10 {
        handover.push_new(frame("new", n, n % 8 == 0));
    }
    push_old(
        &mut handover,
        frame("old", 11, false),
        Duration::ZERO,
        ms(0),
    );
    handover.end_old();
    assert_eq!(
        drain(&mut handover, ms(0)),
        (vec![11], None),
        "nothing new to show yet"
    );
    handover.push_new(frame("new", 11, false));
    assert_eq!(drain(&mut handover, ms(0)).1, None);
    handover.push_new(frame("new", 12, false));
    let cut = drain(&mut handover, ms(0)).1.expect("the cut");
    assert_eq!(numbers(&cut), [8, 9, 10, 11, 12]);
    assert!(cut.iter().all(|frame| !frame.frame.discontinuity));
}

#[test]
fn an_old_one_that_falls_behind_is_left() {
    let mut handover = handover(25);
    for n in 8..=35 {
        handover.push_new(frame("new", n, n == 8));
    }
    assert_eq!(drain(&mut handover, ms(0)).1, None, "300 ms behind");
    handover.push_new(frame("new", 36, false));
    let cut = drain(&mut handover, ms(0)).1.expect("the cut");
    assert_eq!(numbers(&cut), (8..=36).collect::<Vec<_>>());
}

#[test]
fn a_gap_that_cannot_be_helped_is_marked() {
    let mut handover = handover(10);
    for n in 15..=21 {
        handover.push_new(frame("new", n, n == 15));
    }
    let cut = drain(&mut handover, ms(0)).1.expect("the cut");
    assert_eq!(numbers(&cut)[0], 15);
    assert!(cut[0].frame.discontinuity);
}

#[test]
fn what_the_old_one_lost_before_the_key_frame_is_marked() {
    for lost in [false, true] {
        let mut handover = handover(20);
        handover.push_new(frame("new", 25, true));
        let mut next = frame("old", 25, true);
        next.frame.discontinuity = lost;
        push_old(&mut handover, next, Duration::ZERO, ms(0));
        let cut = drain(&mut handover, ms(0)).1.expect("the cut");
        assert_eq!(numbers(&cut), [25]);
        assert_eq!(cut[0].frame.discontinuity, lost);
    }
}

#[test]
fn without_decoding_only_the_next_key_frame_is_waited_for() {
    let patience = Patience {
        decode_only: false,
        ..PATIENCE
    };
    let mut handover = Handover::new(patience, Some(ms(300)));
    for n in 8..=30 {
        handover.push_new(frame("new", n, n == 8));
    }
    handover.end_old();
    assert_eq!(drain(&mut handover, ms(9000)), (vec![], None));
    handover.push_new(frame("new", 31, true));
    let cut = drain(&mut handover, ms(9000)).1.expect("the cut");
    assert_eq!(numbers(&cut), [31]);
    assert!(cut[0].frame.discontinuity);
}

#[test]
fn before_anything_was_shown_any_key_frame_will_do() {
    let mut handover = Handover::new(PATIENCE, None);
    assert_eq!(handover.step(ms(0)), Step::Wait(None));
    handover.push_new(frame("new", 3, false));
    assert_eq!(handover.step(ms(0)), Step::Wait(None));
    handover.push_new(frame("new", 4, true));
    assert!(matches!(handover.step(ms(0)), Step::Cut(frames) if numbers(&frames) == [4]));
}

#[test]
fn a_publisher_that_began_anew_with_an_earlier_time_is_followed() {
    let mut handover = handover(1000);
    handover.end_old();
    handover.push_new(frame("new", 3, true));
    handover.push_new(frame("new", 4, false));
    assert_eq!(numbers(&drain(&mut handover, ms(0)).1.unwrap()), [3, 4]);
}

#[test]
fn a_group_that_was_cut_short_is_not_decoded() {
    let mut handover = handover(10);
    handover.push_new(frame("new", 4, true));
    let mut torn = frame("new", 8, false);
    torn.frame.discontinuity = true;
    handover.push_new(torn);
    handover.end_old();
    handover.push_new(frame("new", 11, false));
    assert_eq!(drain(&mut handover, ms(0)).1, None);
}

#[test]
fn what_was_held_back_is_not_lost_when_the_switch_is_given_up() {
    let mut handover = handover(10);
    push_old(
        &mut handover,
        frame("old", 11, false),
        Duration::ZERO,
        ms(0),
    );
    push_old(
        &mut handover,
        frame("old", 12, false),
        Duration::ZERO,
        ms(0),
    );
    assert_eq!(handover.step(ms(0)), Step::Wait(Some(ms(100))));
    let frames: Vec<_> = handover.abandon().collect();
    assert_eq!(numbers(&frames), [11, 12]);
}

#[test]
fn frames_that_were_reordered_before_the_key_frame_are_handed_out() {
    let mut handover = handover(10);
    handover.push_new(frame("new", 14, true));
    for n in [13, 11, 12] {
        push_old(&mut handover, frame("old", n, false), Duration::ZERO, ms(0));
    }
    assert_eq!(drain(&mut handover, ms(0)).0, [13, 11, 12]);
    push_old(&mut handover, frame("old", 14, true), Duration::ZERO, ms(0));
    assert_eq!(numbers(&drain(&mut handover, ms(0)).1.unwrap()), [14]);
}

#[test]
fn a_key_frame_that_follows_what_was_shown_is_not_kept_waiting() {
    let mut handover = handover(10);
    for n in [11, 12] {
        push_old(&mut handover, frame("old", n, false), ms(0), ms(30 * n));
    }
    handover.push_new(frame("new", 12, false));
    assert_eq!(drain(&mut handover, ms(360)), (vec![11, 12], None));
    // The old one's frame of the same moment is held up, as the new one is served first.
    handover.push_new(frame("new", 13, true));
    let (out, cut) = drain(&mut handover, ms(390));
    let cut = cut.expect("the cut");
    assert_eq!((out, numbers(&cut)), (vec![], vec![13]));
    assert!(!cut[0].frame.discontinuity);
}
