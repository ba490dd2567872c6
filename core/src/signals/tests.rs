//! The meter, with counters and times made up.

use super::*;

fn sample(ms: u64, sent: u64, lost: u64, received: u64) -> Sample {
    let path = PathInfo {
        kind: PathKind::Direct,
        rtt: Duration::from_millis(50),
        cwnd: 12_500,
        sent_packets: sent,
        lost_packets: lost,
        ..PathInfo::default()
    };
    Sample {
        at: Duration::from_millis(ms),
        path,
        received_bytes: received,
        sent_bytes: received / 2,
        ..Sample::default()
    }
}

/// A sample with these counts of packets and acknowledgements received, and of frames of streams and pings sent.
fn counted(ms: u64, received: u64, acknowledged: u64, streams: u64, pings: u64) -> Sample {
    Sample {
        received_packets: received,
        acknowledgements: acknowledged,
        stream_frames: streams,
        questions: streams + pings,
        ..sample(ms, 0, 0, 0)
    }
}

const RTT: Duration = Duration::from_millis(50);

#[test]
fn a_peer_that_is_silent_has_no_old_round_trip() {
    let mut meter = SignalMeter::default();
    let mut sample = |ms, packets, pings| {
        let mut sample = counted(ms, packets, packets, 0, pings);
        sample.download_bandwidth = Some(1_000_000);
        meter.sample(sample)
    };
    sample(0, 100, 0);
    assert_eq!(sample(200, 110, 0).silence, Duration::ZERO);
    // Nothing comes, and nothing was asked yet: no more is known of the round trip.
    let waiting = sample(1000, 110, 0);
    assert_eq!((waiting.rtt, waiting.silence.as_millis()), (RTT, 800));
    assert_eq!(waiting.download_bandwidth, Some(1_000_000));
    assert_eq!(sample(1200, 110, 1).rtt, RTT);
    let silent = sample(4200, 110, 4);
    assert_eq!(
        (silent.rtt.as_millis(), silent.silence.as_millis()),
        (3000, 4000)
    );
    assert_eq!(silent.download_bandwidth, None);
    let back = sample(4400, 111, 4);
    assert_eq!((back.rtt, back.silence), (RTT, Duration::ZERO));
}

#[test]
fn what_nobody_acknowledges_counts_also_where_the_peer_is_heard() {
    let mut meter = SignalMeter::default();
    meter.sample(counted(0, 10, 10, 10, 0));
    meter.sample(counted(200, 12, 10, 20, 0));
    let deaf = meter.sample(counted(1200, 14, 10, 30, 0));
    assert_eq!((deaf.rtt.as_millis(), deaf.silence.as_millis()), (1000, 0));
    assert_eq!(meter.sample(counted(1400, 15, 11, 30, 0)).rtt, RTT);
    // Who only receives acknowledges, and asks for nothing.
    for second in 2..20 {
        let receiving = counted(second * 1000, second * 100, 11, 30, 0);
        assert_eq!(meter.sample(receiving).rtt, RTT);
    }
}

#[test]
fn another_connection_begins_its_counters_anew() {
    let mut meter = SignalMeter::default();
    let mut first = sample(0, 1000, 10, 50_000);
    first.path.congestion_events = 3;
    meter.sample(first.clone());
    let mut second = sample(200, 5, 4, 20);
    second.connection = 1;
    second.path.congestion_events = 1;
    let signals = meter.sample(second.clone());
    assert_eq!((signals.loss_rate, signals.receive_rate), (0.0, 0));
    assert_eq!(signals.congestion_events, 4);
    second.at += INTERVAL;
    second.path.sent_packets += 9;
    second.path.lost_packets += 1;
    assert_eq!(meter.sample(second).loss_rate, 0.1);
    // The first is in use again; what it had seen before was counted then.
    first.at += 3 * INTERVAL;
    first.path.congestion_events += 2;
    assert_eq!(meter.sample(first).congestion_events, 6);
}

#[test]
fn loss_is_counted_in_packets_of_the_interval() {
    let mut meter = SignalMeter::default();
    assert_eq!(meter.sample(sample(0, 1000, 500, 0)).loss_rate, 0.0);
    assert_eq!(meter.sample(sample(200, 1090, 510, 0)).loss_rate, 0.1);
    assert_eq!(meter.sample(sample(400, 1090, 510, 0)).loss_rate, 0.0);
}

#[test]
fn the_rate_is_the_controllers_own_where_it_has_one() {
    let mut meter = SignalMeter::default();
    // 12500 bytes in 50 ms.
    assert_eq!(
        meter.sample(sample(0, 0, 0, 0)).available_bandwidth,
        2_000_000
    );
    let mut better = sample(200, 0, 0, 0);
    better.path.rate = Some(3_000_000);
    assert_eq!(meter.sample(better).available_bandwidth, 3_000_000);
    let mut unknown = sample(400, 0, 0, 0);
    unknown.path.rtt = Duration::ZERO;
    assert_eq!(meter.sample(unknown).available_bandwidth, 0);
}

#[test]
fn rates_are_measured_over_the_time_that_passed() {
    let mut meter = SignalMeter::default();
    meter.sample(sample(0, 0, 0, 1000));
    let signals = meter.sample(sample(400, 0, 0, 51_000));
    assert_eq!(
        (signals.receive_rate, signals.send_rate),
        (1_000_000, 500_000)
    );
}

#[test]
fn a_new_path_begins_its_counters_anew_and_congestion_events_never_fall() {
    let mut meter = SignalMeter::default();
    let mut first = sample(0, 1000, 10, 0);
    first.path.congestion_events = 5;
    assert_eq!(meter.sample(first).congestion_events, 5);
    let mut second = sample(200, 8, 2, 0);
    second.path.kind = PathKind::Relayed;
    second.path.congestion_events = 1;
    let signals = meter.sample(second);
    assert_eq!((signals.loss_rate, signals.congestion_events), (0.2, 6));
}

#[test]
fn a_path_that_is_used_again_goes_on_where_it_was_left() {
    let on = |ms, address: &str, sent, lost| {
        let mut sample = sample(ms, sent, lost, 0);
        sample.path.address = address.to_owned();
        sample.path.congestion_events = lost;
        sample
    };
    let mut meter = SignalMeter::default();
    meter.sample(on(0, "a", 1000, 500));
    meter.sample(on(200, "b", 10, 0));
    // Nothing was lost since, on either.
    let back = meter.sample(on(400, "a", 1010, 500));
    assert_eq!((back.loss_rate, back.congestion_events), (0.0, 500));
    assert_eq!(meter.sample(on(600, "b", 18, 2)).loss_rate, 0.2);
    // However many paths there were, a few are remembered.
    for n in 0..100_u64 {
        meter.sample(on(800 + n, &n.to_string(), 1, 0));
    }
    assert!(meter.left.len() <= PATHS);
}

#[test]
fn who_is_silent_has_no_bandwidth_and_loses_all() {
    let mut meter = SignalMeter::default();
    let mut sample = |ms, packets, pings, sent, lost| {
        let mut counted = counted(ms, packets, packets, 0, pings);
        counted.path = sample(ms, sent, lost, 0).path;
        let signals = meter.sample(counted);
        (signals.available_bandwidth, signals.loss_rate)
    };
    sample(0, 100, 0, 100, 0);
    assert_eq!(sample(200, 110, 0, 110, 0), (2_000_000, 0.0));
    assert_eq!(sample(1400, 110, 1, 130, 0), (2_000_000, 0.0));
    assert_eq!(sample(1800, 110, 2, 132, 0), (0, 1.0));
    // Also when nothing more is sent.
    assert_eq!(sample(2000, 110, 2, 132, 0), (0, 1.0));
    // It speaks again, and that is what is so now. What was lost meanwhile is found.
    assert_eq!(sample(2200, 111, 3, 133, 9), (2_000_000, 0.9));
    assert_eq!(sample(2400, 112, 3, 134, 9), (2_000_000, 0.0));
    // Who has asked for nothing knows of no loss.
    assert_eq!(sample(4400, 112, 3, 134, 9), (0, 0.0));
}
