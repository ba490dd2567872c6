//! The bad link that other tests use does what it says.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use iroh_live_tests::link::{Conditions, Link, Shaper};

const SIZE: usize = 1250;
const MS: Duration = Duration::from_millis(1);

/// Pushes a packet of 10 000 bits each millisecond, and says when which of them came out.
fn run(shaper: &mut Shaper<u32>, packets: u32) -> Vec<(Duration, u32)> {
    let mut out = Vec::new();
    for number in 0..packets {
        let now = MS * number;
        drain(shaper, now, &mut out);
        shaper.push(now, SIZE, number);
    }
    drain(shaper, Duration::MAX, &mut out);
    out
}

fn drain(shaper: &mut Shaper<u32>, until: Duration, out: &mut Vec<(Duration, u32)>) {
    while let Some(due) = shaper.next().filter(|due| *due <= until) {
        out.push((due, shaper.pop(due).expect("it is due")));
    }
}

fn delays(out: &[(Duration, u32)]) -> impl Iterator<Item = Duration> {
    out.iter().map(|(due, number)| *due - MS * *number)
}

#[test]
fn a_wire_delays_nothing_and_nothing_comes_before_its_time() {
    let mut shaper = Shaper::new(Conditions::default(), 1);
    assert!(delays(&run(&mut shaper, 100)).all(|delay| delay.is_zero()));
    shaper.set(Conditions::delayed(MS * 30));
    shaper.push(Duration::from_secs(9), SIZE, 7);
    assert_eq!(shaper.pop(Duration::from_secs(9) + MS * 29), None);
    assert_eq!(shaper.pop(Duration::from_secs(9) + MS * 30), Some(7));
    assert_eq!(shaper.counters().delivered, 101);
}

#[test]
fn jitter_spreads_to_both_sides_and_keeps_the_order_unless_asked() {
    let conditions = Conditions {
        jitter: MS * 20,
        reorder: true,
        ..Conditions::delayed(MS * 50)
    };
    let out = run(&mut Shaper::new(conditions.clone(), 1), 5000);
    let (least, most) = (delays(&out).min(), delays(&out).max());
    assert!(
        least.is_some_and(|delay| (MS * 30..MS * 31).contains(&delay)),
        "{least:?}"
    );
    assert!(
        most.is_some_and(|delay| (MS * 69..=MS * 70).contains(&delay)),
        "{most:?}"
    );
    assert!(!out.is_sorted_by_key(|(_, number)| *number));

    let conditions = Conditions {
        reorder: false,
        ..conditions
    };
    let out = run(&mut Shaper::new(conditions, 1), 5000);
    assert!(out.is_sorted_by_key(|(_, number)| *number));
    assert!(delays(&out).all(|delay| delay <= MS * 70));
}

#[test]
fn more_jitter_than_delay_never_arrives_before_it_was_sent() {
    let conditions = Conditions {
        jitter: MS * 100,
        reorder: true,
        ..Conditions::delayed(MS * 10)
    };
    let out = run(&mut Shaper::new(conditions, 1), 5000);
    assert_eq!(delays(&out).min(), Some(Duration::ZERO));
    assert!(delays(&out).max() > Some(MS * 108));
}

/// The share of packets that are lost, and how many are in a row.
fn losses(loss: f64, burst: f64) -> (f64, f64) {
    let conditions = Conditions {
        burst,
        ..Conditions::default().losing(loss)
    };
    let packets = 200_000;
    let mut shaper = Shaper::new(conditions, 1);
    let out = run(&mut shaper, packets);
    let lost = shaper.counters().lost;
    assert_eq!(lost + out.len() as u64, u64::from(packets));
    let bursts = out
        .windows(2)
        .filter(|pair| pair[1].1 - pair[0].1 > 1)
        .count();
    (
        lost as f64 / f64::from(packets),
        lost as f64 / bursts as f64,
    )
}

#[test]
fn as_many_are_lost_as_asked_alone_or_in_bursts() {
    let (share, row) = losses(0.2, 1.0);
    assert!((0.195..0.205).contains(&share), "{share}");
    // Independent losses meet by chance: 1 / (1 - 0.2).
    assert!((1.2..1.3).contains(&row), "{row}");
    let (share, row) = losses(0.02, 5.0);
    assert!((0.018..0.022).contains(&share), "{share}");
    assert!((4.6..5.4).contains(&row), "{row}");
}

#[test]
fn nothing_comes_through_a_dead_link_and_all_once_it_lives_again() {
    let mut shaper = Shaper::new(Conditions::default().dead(), 1);
    assert!(run(&mut shaper, 1000).is_empty());
    shaper.set(Conditions::default());
    assert_eq!(run(&mut shaper, 1000).len(), 1000);
}

#[test]
fn a_rate_is_kept_and_what_would_wait_too_long_is_dropped() {
    // A packet takes 10 ms, and each millisecond one comes.
    let conditions = Conditions {
        rate: Some(1_000_000),
        queue: MS * 100,
        ..Conditions::default()
    };
    let mut shaper = Shaper::new(conditions, 1);
    let out = run(&mut shaper, 1000);
    assert!(out.windows(2).all(|pair| pair[1].0 - pair[0].0 == MS * 10));
    assert!(delays(&out).all(|delay| delay <= MS * 110 + MS * 10));
    // A second's worth, and what was still in the queue.
    assert!((100..=112).contains(&out.len()), "{}", out.len());
    assert_eq!(shaper.counters().dropped + out.len() as u64, 1000);
}

#[test]
fn an_idle_limited_link_saves_nothing_up() {
    let conditions = Conditions {
        rate: Some(1_000_000),
        ..Conditions::default()
    };
    let mut shaper = Shaper::new(conditions, 1);
    shaper.push(Duration::from_secs(60), SIZE, 0);
    shaper.push(Duration::from_secs(60), SIZE, 1);
    assert_eq!(shaper.next(), Some(Duration::from_secs(60) + MS * 10));
    assert!(shaper.pop(Duration::MAX).is_some());
    assert_eq!(shaper.next(), Some(Duration::from_secs(60) + MS * 20));
}

#[test]
fn the_link_is_the_only_way_between_its_ends() {
    let Some(link) = Link::new(Conditions::delayed(MS * 40)) else {
        return;
    };
    let (a, b) = (link.a().runtime(), link.b().runtime());
    let bind = |address: std::net::Ipv4Addr| async move {
        tokio::net::UdpSocket::bind((address, 0))
            .await
            .expect("the end has its address")
    };
    let near = a
        .block_on(a.spawn(bind(link.a().address())))
        .expect("it does not panic");
    let far = b
        .block_on(b.spawn(bind(link.b().address())))
        .expect("it does not panic");
    let there = far.local_addr().expect("it is bound");
    b.spawn(async move {
        let mut packet = [0; 100];
        while let Ok((size, from)) = far.recv_from(&mut packet).await {
            let _ = far.send_to(&packet[..size], from).await;
        }
    });
    let echo = |limit: Duration| {
        a.block_on(async {
            let sent = Instant::now();
            near.send_to(b"?", there).await.expect("there is a route");
            let answer = tokio::time::timeout(limit, near.recv(&mut [0; 100])).await;
            answer.is_ok().then(|| sent.elapsed())
        })
    };
    let long = Duration::from_secs(30);
    let round_trip = echo(long).expect("the link is up");
    assert!(round_trip >= MS * 80, "{round_trip:?}");
    link.set(&Conditions::default().dead());
    assert_eq!(echo(MS * 300), None);
    link.set(&Conditions::default());
    assert!(echo(long).is_some());
    let (out, back) = link.counters();
    assert_eq!(
        (out.delivered >= 2, out.lost >= 1, back.delivered >= 2),
        (true, true, true)
    );

    // The rest of the machine does not see this network.
    let outside = UdpSocket::bind("127.0.0.1:0").expect("there are free ports");
    let _ = outside.send_to(b"?", SocketAddr::from(([10, 77, 0, 2], there.port())));
    outside
        .set_read_timeout(Some(MS * 200))
        .expect("it is not zero");
    assert!(outside.recv(&mut [0; 10]).is_err());
}
