//! Where the publisher fits the rate to the network.

use super::*;

#[test]
fn where_the_publisher_fits_the_rate_it_is_the_best_that_may_be_watched() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.selector.set_publisher_adapts(true);
    let switches = rig.run(Duration::from_secs(20), |_| {
        bad(100_000, Congestion::Growing)
    });
    assert_eq!(names(&switches), ["high"]);
    // What the decoder cannot do counts, and so does the size that is asked for.
    let decision = rig.selector.too_slow(rig.now);
    assert_eq!(decision, Some(Decision::Switch("mid".into())));
    rig.selector.switched(rig.now);
    assert!(
        rig.run(Duration::from_secs(50), |_| fine(800_000))
            .is_empty()
    );
    rig.selector.set_quality(Quality::AutoUpTo(200));
    assert_eq!(names(&rig.run(TICK, |_| fine(800_000))), ["low"]);
    // It does so no longer.
    rig.selector.set_quality(Quality::Auto);
    rig.selector.set_publisher_adapts(false);
    let switches = rig.run(Duration::from_secs(5), |_| {
        bad(100_000, Congestion::Growing)
    });
    assert!(switches.is_empty(), "{switches:?}");
}

#[test]
fn where_the_publishers_control_of_the_rate_fails_it_is_the_viewers_for_a_minute() {
    let mut rig = Rig::new(Quality::Auto, ladder());
    rig.selector.set_publisher_adapts(true);
    rig.run(TICK, |_| fine(0));
    let behind = || bad(150_000, Congestion::Behind);
    assert!(rig.run(Duration::from_secs(4), |_| behind()).is_empty());
    assert!(
        rig.run(TICK, |_| fine(2_000_000)).is_empty(),
        "it came through"
    );
    assert!(rig.run(Duration::from_secs(4), |_| behind()).is_empty());
    let switches = rig.run(Duration::from_secs(3), |_| behind());
    assert_eq!(names(&switches), ["low"]);
    // The network does not carry more.
    let needed = |rung: &str| match rung {
        "low" => fine(200_000),
        _ => bad(150_000, Congestion::Growing),
    };
    let switches = rig.run(Duration::from_secs(55), needed);
    assert!(names(&switches).contains(&"mid"), "it tries, {switches:?}");
    let switches = rig.run(Duration::from_secs(6), needed);
    assert_eq!(names(&switches).last(), Some(&"high"));
}
