use moq_mux::{
    catalog::hang::Container,
    container::{Container as _, Frame},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::broadcast::{
    Catalog, VideoConfig, activity::Activity, catalog::VideoCodec, upstream::LAST_FRAMES,
};

const GOP: u64 = 10;

fn timestamp(number: u64) -> moq_lite::Timestamp {
    moq_lite::Timestamp::from_millis(40 * number).expect("small")
}

/// Writes these frames into a group.
fn write(group: &mut moq_lite::group::Producer, wire: &Container, frames: std::ops::Range<u64>) {
    for number in frames {
        let frame = Frame {
            timestamp: timestamp(number),
            duration: None,
            payload: vec![0; 100].into(),
            keyframe: number.is_multiple_of(GOP),
        };
        wire.write(group, &[frame]).expect("written");
    }
}

/// Groups of ten frames, of which the second one breaks off before its last frame: one is missing, no more than what a
/// camera leaves out now and then.
#[tokio::test]
async fn a_group_that_breaks_off_is_a_gap() {
    let broadcast = broadcast::Info::new().produce();
    let track = broadcast.create_track("video", None).expect("a track");
    let remote = RemoteBroadcast::new("test".to_owned(), broadcast.consume());
    let config = VideoConfig::new(VideoCodec::VP8);
    let wire = Container::try_from(&config).expect("known");
    let mut reader = remote
        .subscribe("video", &config.into(), Duration::from_secs(10))
        .await
        .expect("there");
    let mut seen = Vec::new();
    for begin in [0, 10, 20, 30] {
        let mut group = track.append_group().expect("a group");
        let broken = begin == 10;
        let end = begin + GOP - u64::from(broken);
        write(&mut group, &wire, begin..end);
        for number in begin..end {
            let frame = reader.next().await.expect("sound").expect("not the end");
            assert_eq!(frame.timestamp, Duration::from(timestamp(number)));
            seen.push(frame.discontinuity);
        }
        if broken {
            group.abort(moq_lite::Error::Old).expect("open until now");
        } else {
            group.finish().expect("open until now");
        }
    }
    let gaps: Vec<_> = (0..seen.len()).filter(|at| seen[*at]).collect();
    assert_eq!(gaps, [19], "the first frame after the gap");
    assert_eq!(reader.stats().discontinuities, 1);
    // If this is no longer so, `TrackContainer` need not take note of groups.
    assert_eq!(reader.skipped_by_consumer(), 0, "nobody else noticed");
}

/// What a subscription that lasts has found, and a broadcast that reads it.
fn lasting() -> (watch::Sender<Upstream>, RemoteBroadcast) {
    let (upstream, read) = watch::channel(Upstream::Absent);
    let guard = CancellationToken::new().drop_guard();
    let lasting = Lasting::new(read, Activity::default(), guard);
    (
        upstream,
        RemoteBroadcast::lasting("test".to_owned(), lasting),
    )
}

/// The incarnation of this number, whose catalog lists one track.
fn incarnation(number: u64, broadcast: &broadcast::Producer) -> Upstream {
    let mut catalog = Catalog::default();
    let config = VideoConfig::new(VideoCodec::VP8);
    catalog.video.renditions.insert("video".to_owned(), config);
    Upstream::Present(Incarnation {
        number,
        broadcast: broadcast.consume(),
        peer_rate: None,
        lease: None,
        readers: Readers::default(),
        catalog: Some(Arc::new(catalog)),
        catalog_guard: CatalogGuard::default(),
    })
}

/// A broadcast with one track of one group, which stays open.
fn movie() -> (broadcast::Producer, moq_lite::track::Producer) {
    let broadcast = broadcast::Info::new().produce();
    let track = broadcast.create_track("video", None).expect("a track");
    let config = VideoConfig::new(VideoCodec::VP8);
    let wire = Container::try_from(&config).expect("known");
    let mut group = track.append_group().expect("a group");
    write(&mut group, &wire, 0..GOP);
    group.finish().expect("open until now");
    (broadcast, track)
}

async fn open(remote: &RemoteBroadcast) -> EncodedReader {
    let config = VideoConfig::new(VideoCodec::VP8).into();
    let opening = remote.subscribe("video", &config, Duration::from_secs(10));
    opening.await.expect("there")
}

#[tokio::test(start_paused = true)]
async fn a_track_that_goes_on_without_a_frame_after_the_broadcasts_end_is_cut_off() {
    let (upstream, remote) = lasting();
    let (movie, _track) = movie();
    upstream.send_replace(incarnation(0, &movie));
    let mut reader = open(&remote).await;
    upstream.send_replace(Upstream::Ended(Instant::now()));
    drop(upstream);
    for _ in 0..GOP {
        assert!(reader.next().await.expect("sound").is_some(), "to its end");
    }
    let begin = Instant::now();
    // However often it is asked.
    let end = async {
        loop {
            let asked = tokio::time::timeout(Duration::from_millis(100), reader.next());
            if let Ok(next) = asked.await {
                return next;
            }
        }
    };
    let end = tokio::time::timeout(LAST_FRAMES * 2, end).await;
    assert!(end.expect("it is cut off").expect("no error").is_none());
    assert!(begin.elapsed() >= LAST_FRAMES);
}

#[tokio::test(start_paused = true)]
async fn a_track_that_is_not_answered_is_asked_for_again_of_the_broadcast_that_is_put_in_its_place()
{
    let (upstream, remote) = lasting();
    let silent = broadcast::Info::new().produce();
    // Somebody who takes requests and does not answer them.
    let _handler = silent.dynamic();
    let (movie, _track) = movie();
    upstream.send_replace(incarnation(0, &silent));
    let replace = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        upstream.send_replace(incarnation(1, &movie));
    };
    let opening = tokio::time::timeout(Duration::from_secs(60), open(&remote));
    let (reader, ()) = tokio::join!(opening, replace);
    let mut reader = reader.expect("the new one answers");
    assert!(reader.next().await.expect("sound").is_some());
    // The same for one that is read already.
    upstream.send_replace(incarnation(2, &silent));
    let reading = async {
        for _ in 1..=GOP {
            let frame = reader.next().await.expect("sound").expect("not the end");
            if frame.incarnation == 3 {
                return frame;
            }
        }
        panic!("of the third there is one");
    };
    let replace = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        upstream.send_replace(incarnation(3, &movie));
    };
    let reading = tokio::time::timeout(Duration::from_secs(60), reading);
    let (frame, ()) = tokio::join!(reading, replace);
    assert!(frame.expect("it is read on").discontinuity);
}
