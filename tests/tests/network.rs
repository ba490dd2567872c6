//! Real media over links that delay, lose and limit, and how soon all is well again afterwards.
//!
//! Publisher and viewer are processes in two network namespaces, and a [`Link`] is the only route between them. What
//! counts is what arrived and when, by the wall clock that both processes share: the time of capture travels with each
//! frame.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use iroh_live::{
    LiveTicket,
    media::{AudioBackend, PlaybackConfig},
};
use iroh_live_tests::{
    LOCAL, Process, Test,
    core::live,
    eventually,
    link::{Conditions, Link},
    start,
};
use tokio::{runtime::Runtime, sync::watch};

/// The delay of the link when nothing is wrong with it.
const DELAY: Duration = ms(20);

/// How soon after the link is well again everything has to be as before.
const RECOVERY: Duration = ms(3000);

/// How much later than before a frame may arrive when all is well again. The machine is busy with other tests.
const LATE: Duration = ms(120);

/// How far the latency, of arriving and of playing, may be from what it was before, in the middle of a window.
const LATENCY: Duration = ms(50);

/// How far sound and picture may be apart.
const LIP_SYNC: Duration = ms(45);

/// How long a stretch of media is judged by.
const WINDOW: Duration = ms(3000);

/// Where a machine is after it has changed its network.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

const FRAMES: Duration = Duration::from_nanos(33_333_333);
const PACKETS: Duration = ms(20);

/// Thirty small pictures a second, with a key frame each second.
const SMALL: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 \
    ! x264enc tune=zerolatency key-int-max=30";

/// The same at 2 Mbit/s.
const LARGE: &str = "videotestsrc is-live=true pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 \
    ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max=30";

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn clear() -> Conditions {
    Conditions::delayed(DELAY)
}

/// Wall-clock time since 1970.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is set")
}

/// A frame that came out of the viewer's source.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    /// When, by the wall clock.
    at: Duration,
    /// When it was captured, by the wall clock.
    captured: Duration,
    /// What its presentation adds to that, on whatever scale the viewer's running time is: the same for all frames that
    /// are presented with the same latency.
    mapping: i128,
}

impl Arrival {
    fn parse(line: &str) -> Option<(bool, Self)> {
        let mut fields = line.split_whitespace();
        let video = fields.next()?.starts_with("video");
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (at, captured) = (number()?, number()?);
        let (running, pts) = (number()?, number()?);
        // The wall clock when running time was zero, as it is not the clock that running time follows.
        let zero = i128::from(at) - i128::from(running);
        Some((
            video,
            Self {
                at: Duration::from_nanos(at),
                captured: Duration::from_nanos(captured),
                mapping: i128::from(pts) + zero - i128::from(captured),
            },
        ))
    }

    fn latency(&self) -> Duration {
        self.at.saturating_sub(self.captured)
    }
}

/// What a track gave.
#[derive(Debug, Default, Clone)]
struct Record {
    arrivals: Vec<Arrival>,
}

impl Record {
    fn captured_in(&self, from: Duration, to: Duration) -> Record {
        let within = |arrival: &&Arrival| (from..to).contains(&arrival.captured);
        let arrivals = self.arrivals.iter().filter(within).copied().collect();
        Self { arrivals }
    }

    fn latency(&self) -> Duration {
        median(self.arrivals.iter().map(Arrival::latency))
    }

    fn mapping(&self) -> i128 {
        median(self.arrivals.iter().map(|arrival| arrival.mapping))
    }

    /// When the last frame came that was late, or had another missing before it.
    fn last_trouble(&self, since: Duration, period: Duration, latency: Duration) -> Duration {
        let mut last = since;
        let mut trouble = since;
        for arrival in &self.arrivals {
            let gap = arrival.captured.saturating_sub(last);
            if gap > period * 3 / 2 || arrival.latency() > latency {
                trouble = arrival.at;
                println!(
                    "at {:?}: {:?} after the frame before, latency {:?}",
                    trouble - since,
                    gap,
                    arrival.latency()
                );
            }
            last = arrival.captured;
        }
        trouble
    }
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<_> = values.collect();
    values.sort();
    let middle = values.len() / 2;
    values.into_iter().nth(middle).expect("there are values")
}

/// How it was when nothing was wrong: latency of arriving, and what presentation adds.
struct Usual {
    latency: Duration,
    mapping: i128,
}

struct Scene {
    link: Link,
    publisher: Process,
    pipeline: String,
    ticket: String,
    viewer: Process,
    file: BufReader<File>,
    line: String,
    video: Record,
    audio: Record,
    // Last, as it takes the folder away.
    test: Test,
}

/// A pipeline that publishes the video and a tone, with the same key and at the same port each time it is run.
fn publisher(test: &Test, video: &str) -> String {
    let (ticket, key) = (test.file("ticket"), test.file("key"));
    let sink = format!(
        "irohlivesink name=stream {LOCAL} bind-address=0.0.0.0:4000 ticket-location={ticket} secret-key-location={key}"
    );
    let tone = "audiotestsrc is-live=true ! audio/x-raw,rate=48000 ! opusenc ! stream.audio_0";
    format!("{sink} {video} ! stream.video_0 {tone}")
}

fn publish(test: &Test, link: &Link, pipeline: &str) -> Process {
    let mut publisher = Command::new("gst-launch-1.0");
    publisher.args(pipeline.split_whitespace());
    link.a().enter(&mut publisher);
    Process::run(test, "publisher", publisher)
}

impl Scene {
    /// Publishes the video and a tone at one end of a link that is well, and watches it at the other end.
    fn start(video: &str) -> Option<Self> {
        let test = start();
        let link = Link::new(clear())?;
        let pipeline = publisher(&test, video);
        let mut publisher = publish(&test, &link, &pipeline);
        let ticket = publisher.ticket(&test.file("ticket"));

        let arrivals = test.path("arrivals");
        let mut viewer = Command::new(env!("CARGO_BIN_EXE_observe"));
        viewer.arg(&arrivals);
        viewer.args(LOCAL.split_whitespace());
        viewer.arg(format!("ticket={ticket}"));
        link.b().enter(&mut viewer);
        let mut viewer = Process::run(&test, "viewer", viewer);
        let file = viewer.wait("the viewer's file", || File::open(&arrivals).ok());
        Some(Self {
            link,
            publisher,
            pipeline,
            ticket,
            viewer,
            file: BufReader::new(file),
            line: String::new(),
            video: Record::default(),
            audio: Record::default(),
            test,
        })
    }

    /// Kills the publisher as a crash would, and starts it again when the viewer has noticed. Returns when that was.
    fn restart_publisher(&mut self) -> Duration {
        let states = self.viewer.log().matches("status:").count();
        self.publisher.kill();
        let viewer = &mut self.viewer;
        let log = viewer.log_location();
        viewer.wait("the viewer to notice", || {
            let log = std::fs::read_to_string(&log).ok()?;
            (log.matches("status:").count() > states).then_some(())
        });
        self.publisher = publish(&self.test, &self.link, &self.pipeline);
        now()
    }

    /// Waits until both tracks have given what was captured up to then.
    fn wait_captured(&mut self, until: Duration) {
        let Self {
            viewer,
            file,
            line,
            video,
            audio,
            ..
        } = self;
        viewer.wait("frames from both tracks", || {
            // A line may be there in part.
            while file.read_line(line).is_ok_and(|size| size > 0) && line.ends_with('\n') {
                let (is_video, arrival) = Arrival::parse(line).expect("the line is whole");
                let record = if is_video { &mut *video } else { &mut *audio };
                record.arrivals.push(arrival);
                line.clear();
            }
            let reached = |record: &Record| {
                let last = record.arrivals.last();
                last.is_some_and(|arrival| arrival.captured >= until)
            };
            (reached(video) && reached(audio)).then_some(())
        });
    }

    /// Watches for a while before anything goes wrong.
    fn usual(&mut self) -> Usual {
        self.wait_captured(Duration::ZERO);
        let from = now() + ms(1000);
        self.wait_captured(from + ms(2000));
        let usual = self.video.captured_in(from, from + ms(2000));
        println!("usual latency: {:?}", usual.latency());
        Usual {
            latency: usual.latency(),
            mapping: usual.mapping(),
        }
    }

    /// Changes the link. Returns when that was.
    fn change(&self, conditions: &Conditions) -> Duration {
        self.link.set(conditions);
        now()
    }

    /// Changes the link for a while, until it is well again. Returns when that was.
    fn trouble(&self, conditions: &Conditions, time: Duration) -> Duration {
        self.change(conditions);
        sleep(time);
        self.change(&clear())
    }

    /// All is well within [`RECOVERY`] of a change of the link, and stays so, with `more` latency than usual.
    fn check(&mut self, changed: Duration, usual: &Usual, more: Duration) {
        let (from, to) = (changed + RECOVERY, changed + RECOVERY + WINDOW);
        self.wait_captured(to);
        let latency = usual.latency + more;
        for (name, record, period) in [
            ("video", &self.video, FRAMES),
            ("audio", &self.audio, PACKETS),
        ] {
            let since = record.captured_in(changed, to);
            let trouble = since.last_trouble(changed, period, latency + LATE);
            let window = record.captured_in(from, to);
            let mapping = (window.mapping() - usual.mapping) / 1_000_000;
            println!(
                "{name}: well after {:?}; then {} frames in {WINDOW:?}, latency {:?}, presented {mapping} ms later than usual",
                trouble - changed,
                window.arrivals.len(),
                window.latency(),
            );
            assert!(
                trouble <= from,
                "{name} was well again only after {:?}",
                trouble - changed
            );
            let apart = window.latency().abs_diff(latency);
            // Sound is encoded sooner than a picture: only the picture's latency is what it was by.
            assert!(
                name == "audio" || apart <= LATENCY,
                "the latency is {:?}, not {latency:?}",
                window.latency()
            );
            let apart = mapping.abs_diff(more.as_millis().cast_signed());
            assert!(
                apart <= LATENCY.as_millis(),
                "{name} is presented {mapping} ms later than usual"
            );
        }
        let [video, audio] =
            [&self.video, &self.audio].map(|record| record.captured_in(from, to).mapping());
        let apart = video.abs_diff(audio) / 1_000_000;
        assert!(
            apart <= LIP_SYNC.as_millis(),
            "sound and picture are {apart} ms apart"
        );
    }
}

#[test]
fn delay_that_comes_and_goes() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    for delay in [ms(300), ms(500), ms(0)] {
        let changed = scene.change(&Conditions::delayed(DELAY + delay));
        scene.check(changed, &usual, delay);
    }
}

#[test]
fn a_fifth_of_the_packets_lost_for_three_seconds() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    let cleared = scene.trouble(&clear().losing(0.2), ms(3000));
    scene.check(cleared, &usual, Duration::ZERO);
}

#[test]
fn a_tenth_of_the_packets_lost_for_five_seconds() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    let cleared = scene.trouble(&clear().losing(0.1), ms(5000));
    scene.check(cleared, &usual, Duration::ZERO);
}

#[test]
fn a_short_blackout() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    let cleared = scene.trouble(&clear().dead(), ms(1500));
    scene.check(cleared, &usual, Duration::ZERO);
}

#[test]
fn a_blackout_that_outlives_the_connection() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    let cleared = scene.trouble(&clear().dead(), ms(20_000));
    scene.check(cleared, &usual, Duration::ZERO);
    let log = scene.viewer.log();
    assert!(log.contains("reconnecting"), "no reconnection: {log}");
}

#[test]
fn the_viewer_changes_its_network() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    scene.link.b_mut().change_address(OTHER);
    scene.check(now(), &usual, Duration::ZERO);
}

/// Watches with `gst-play-1.0`, which writes its pictures into a file.
fn play(scene: &Scene) -> (Process, PathBuf) {
    let pictures = scene.test.path("pictures");
    let mut play = Command::new("gst-play-1.0");
    play.args(["--no-interactive", "--audiosink=fakesink"]);
    let file = pictures.display();
    play.arg(format!(
        "--videosink=jpegenc ! filesink location={file} buffer-mode=unbuffered"
    ));
    play.arg(format!(
        "{}?relay-mode=disabled&address-lookup=none",
        scene.ticket
    ));
    scene.link.b().enter(&mut play);
    (Process::run(&scene.test, "play", play), pictures)
}

/// Watches with the core crate, decoded. Gives when the newest picture was captured, by the wall clock.
fn decode(scene: &Scene, runtime: &Runtime) -> watch::Receiver<Duration> {
    let ticket: LiveTicket = scene.ticket.parse().expect("it is one");
    let (sender, receiver) = watch::channel(Duration::ZERO);
    let live = live(runtime);
    runtime.spawn(async move {
        let (address, name) = (ticket.addr().clone(), ticket.name());
        let config = PlaybackConfig::default();
        let audio = AudioBackend::none();
        let subscribed = live.subscribe_media(address, name, &audio, config);
        let (_, tracks) = subscribed.await.expect("it is there");
        let video = tracks.video.expect("there is a picture");
        while let Some(frame) = video.next_frame().await.expect("it goes on") {
            let captured = frame.captured().expect("the catalog has a clock");
            let captured = captured
                .duration_since(UNIX_EPOCH)
                .expect("long after that");
            sender.send_replace(captured);
        }
    });
    receiver
}

#[test]
fn a_publisher_is_killed_and_started_again_ten_times() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    let runtime = scene.link.b().runtime();
    let decoded = decode(&scene, &runtime);
    let (mut player, pictures) = play(&scene);
    let size = || std::fs::metadata(&pictures).map_or(0, |file| file.len());
    player.wait("a picture", || (size() > 0).then_some(()));
    let mut restarted = Duration::ZERO;
    for _ in 0..10 {
        restarted = scene.restart_publisher();
        let before = size();
        scene.wait_captured(restarted);
        let observed = now();
        eventually("a picture in core", || {
            (*decoded.borrow() > restarted).then_some(())
        });
        let shown = now();
        player.wait("a picture in the player", || {
            (size() > before).then_some(())
        });
        println!(
            "after {:?} the source, {:?} core, {:?} the player",
            observed - restarted,
            shown - restarted,
            now() - restarted
        );
    }
    scene.check(restarted, &usual, Duration::ZERO);
    runtime.shutdown_background();
}

#[test]
fn jitter() {
    let Some(mut scene) = Scene::start(SMALL) else {
        return;
    };
    let usual = scene.usual();
    let shaky = Conditions {
        jitter: ms(100),
        ..Conditions::delayed(ms(10))
    };
    let cleared = scene.trouble(&shaky, ms(6000));
    scene.check(cleared, &usual, Duration::ZERO);
}

#[test]
fn a_quarter_of_the_rate_that_the_stream_needs() {
    let Some(mut scene) = Scene::start(LARGE) else {
        return;
    };
    let usual = scene.usual();
    let narrow = Conditions {
        rate: Some(500_000),
        ..clear()
    };
    let cleared = scene.trouble(&narrow, ms(8000));
    scene.check(cleared, &usual, Duration::ZERO);
    // Sound goes first, and is a tenth of what gets through.
    let (from, to) = (cleared - ms(5000), cleared);
    let audio = scene.audio.captured_in(from, to);
    let expected = (to - from).as_millis() / PACKETS.as_millis();
    println!(
        "sound meanwhile: {} packets of {expected}, latency {:?}",
        audio.arrivals.len(),
        audio.latency()
    );
    assert!(audio.arrivals.len() as u128 * 10 >= expected * 9);
}
