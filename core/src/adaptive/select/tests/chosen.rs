//! What the program chooses.

use super::*;

#[test]
fn the_program_chooses() {
    let chosen = |quality| {
        let mut rig = Rig::new(quality, ladder());
        rig.run(Duration::from_secs(20), |_| {
            bad(100_000, Congestion::Growing)
        });
        rig.selector
            .current()
            .map(str::to_owned)
            .unwrap_or_default()
    };
    assert_eq!(chosen(Quality::Lowest), "low");
    assert_eq!(chosen(Quality::Highest), "high");
    assert_eq!(chosen(Quality::UpTo(500)), "mid");
    assert_eq!(chosen(Quality::UpTo(100)), "low");
    assert_eq!(chosen(Quality::Named("mid".into())), "mid");
    assert_eq!(chosen(Quality::Named("none".into())), "low");
}

#[test]
fn the_program_changes_its_mind_while_a_switch_is_under_way() {
    let mut rig = Rig::new(Quality::Lowest, ladder());
    rig.run(TICK, |_| fine(0));
    rig.selector.set_quality(Quality::Highest);
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Switch("high".into())));
    rig.selector.set_quality(Quality::Named("mid".into()));
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Abandon));
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Switch("mid".into())));
}

#[test]
fn while_the_chosen_one_has_to_wait_another_is_opened_and_not_given_up_at_once() {
    let mut rig = Rig::new(Quality::Highest, ladder());
    rig.settle_on("high");
    rig.selector.lost(rig.now);
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Switch("low".into())));
    assert_eq!(rig.decide(&fine(0)), None);
    // The chosen one may be tried again after half a second.
    rig.now += FIRST_RETRY;
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Abandon));
    assert_eq!(rig.decide(&fine(0)), Some(Decision::Switch("high".into())));
}

#[test]
fn automatic_with_a_limit_stays_below_it() {
    let mut rig = Rig::new(Quality::AutoUpTo(400), ladder());
    let switches = rig.run(Duration::from_secs(60), |_| fine(500_000));
    assert_eq!(names(&switches), ["low", "mid"]);
    rig.selector.set_quality(Quality::AutoUpTo(200));
    assert_eq!(names(&rig.run(TICK, |_| fine(500_000))), ["low"]);
}
