//! Peers that want nothing good, and what they cost: whoever is served beside them loses no frame, and the process grows by
//! less than 32 MiB, or where the attack is a group of pictures by little more than the largest that there may be. The peers are processes of their own, see `tests/src/hostile.rs`.
//!
//! One attack at a time, as the memory of the whole process is counted.

use std::{
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use gst::prelude::*;
use iroh_live::transport::CloseCode;
use iroh_live_tests::{LOCAL, Pipe, Process, Publisher, Test, start};

/// What an attack may make the process grow by.
const GROWTH: usize = 32 << 20;

/// The same where a publisher sends groups as large as those of honest ones may be: 40 MiB are under way at most.
const GROWTH_BY_GROUPS: usize = 48 << 20;

/// How many frames a second the good stream has, and how many bytes each.
const RATE: u64 = 50;
const SIZE: usize = 1000;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes the process has been given and has not given back.
fn allocated() -> usize {
    // SAFETY: it only reads the allocator's books, which it locks meanwhile.
    let memory = unsafe { libc::mallinfo2() };
    memory.uordblks + memory.hblkhd
}

/// Measures how far the process grows, every few milliseconds.
struct Meter {
    before: usize,
    most: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Meter {
    fn begin() -> Self {
        let before = allocated();
        let meter = Self {
            before,
            most: Arc::new(before.into()),
            over: Arc::default(),
        };
        let (most, over) = (meter.most.clone(), meter.over.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(allocated(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
            }
        });
        meter
    }

    /// The most that it grew by.
    fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.most.load(Ordering::Relaxed) - self.before
    }
}

/// A publisher whose frames are numbered.
struct Numbered {
    publisher: Publisher,
    over: Arc<AtomicBool>,
}

impl Numbered {
    /// With frames of `size` bytes.
    fn start(size: usize) -> Self {
        let publisher = Publisher::start(
            "appsrc name=frames is-live=true format=time do-timestamp=true \
             caps=video/x-vp8,width=160,height=120,framerate=50/1 ! SINK",
        );
        let source = publisher
            .pipe
            .element("frames")
            .downcast::<gst_app::AppSrc>()
            .expect("that is what it is");
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        thread::spawn(move || {
            for number in 0_u64.. {
                let mut data = vec![0; size];
                data[..8].copy_from_slice(&number.to_be_bytes());
                let mut buffer = gst::Buffer::from_mut_slice(data);
                if number % RATE > 0 {
                    let buffer = buffer.get_mut().expect("it is new");
                    buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
                }
                if stop.load(Ordering::Relaxed) || source.push_buffer(buffer).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(1000 / RATE));
            }
        });
        Self { publisher, over }
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A viewer that takes note of the numbers that come, and of nothing else.
struct GoodViewer {
    pipe: Pipe,
    numbers: Arc<Mutex<Vec<u64>>>,
}

impl GoodViewer {
    /// It takes its time rather than leave out a frame: that the machine is busy is nobody's fault.
    fn start(ticket: &str) -> Self {
        let pipe = Pipe::parse(&format!(
            "irohlivesrc ticket={ticket} {LOCAL} latency=200 max-lag=4000 ! fakesink name=end async=false sync=false"
        ));
        let numbers = Arc::<Mutex<Vec<u64>>>::default();
        let kept = numbers.clone();
        let end = pipe
            .element("end")
            .static_pad("sink")
            .expect("a sink has one");
        end.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                let mut number = [0; 8];
                buffer
                    .copy_to_slice(0, &mut number)
                    .expect("it is long enough");
                let mut numbers = kept.lock().unwrap_or_else(PoisonError::into_inner);
                numbers.push(u64::from_be_bytes(number));
            }
            gst::PadProbeReturn::Ok
        });
        pipe.play();
        let viewer = Self { pipe, numbers };
        viewer.wait_more(25);
        viewer
    }

    fn numbers(&self) -> Vec<u64> {
        let numbers = self.numbers.lock();
        numbers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_more(&self, more: usize) {
        let goal = self.numbers().len() + more;
        self.pipe.wait("frames of the good stream", || {
            (self.numbers().len() >= goal).then_some(())
        });
    }

    /// That no frame was left out, from the first one that came on.
    #[track_caller]
    fn lost_nothing(&self) {
        let numbers = self.numbers();
        let gaps: Vec<_> = numbers
            .windows(2)
            .filter(|pair| pair[1] != pair[0] + 1)
            .collect();
        assert!(
            gaps.is_empty(),
            "of {} frames, gaps: {gaps:?}",
            numbers.len()
        );
    }
}

fn hostile(test: &Test, attack: &str, target: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostile"));
    command.args([attack, target]);
    Process::run(test, "hostile", command)
}

/// Lets an attack do its worst, and says what the attacker wrote of it.
fn suffer(process: &mut Process, good: &GoodViewer, most: usize) -> String {
    let meter = Meter::begin();
    // It has not begun before this.
    let location = process.log_location();
    let read = || std::fs::read_to_string(&location).unwrap_or_default();
    process.wait("the worst to be done", || {
        read().lines().any(|line| line == "done").then_some(())
    });
    good.wait_more(25);
    let growth = meter.end();
    let log = read();
    println!(
        "grew by {:.1} MiB; {log}",
        growth as f64 / f64::from(1 << 20)
    );
    good.lost_nothing();
    assert!(growth < most, "it grew by {growth} bytes");
    log
}

/// An attack on a publisher that serves a good viewer, of a stream with frames of so many bytes; gives what the attacker
/// wrote.
fn publisher_suffers(attack: &str, size: usize) -> String {
    let _alone = alone();
    let test = start();
    let numbered = Numbered::start(size);
    let ticket = numbered.publisher.ticket();
    let good = GoodViewer::start(&ticket);
    if size > 10 * SIZE {
        // What is kept of the stream for good viewers: the last five seconds.
        good.wait_more(7 * 50);
    }
    let mut process = hostile(&test, attack, &ticket);
    let log = suffer(&mut process, &good, GROWTH);
    assert!(numbered.publisher.pipe.error().is_none());
    log
}

/// An attack on a viewer, beside a good one of somebody else; gives what the attacker wrote.
fn viewer_suffers(attack: &str) -> String {
    viewer_grows(attack, GROWTH)
}

/// The same where the process may grow by so many bytes.
fn viewer_grows(attack: &str, most: usize) -> String {
    let _alone = alone();
    let test = start();
    let numbered = Numbered::start(SIZE);
    let good = GoodViewer::start(&numbered.publisher.ticket());
    let file = test.file("ticket");
    let mut process = hostile(&test, attack, &file);
    let ticket = process.ticket(&file);
    let victim = Pipe::parse(&format!(
        "irohlivesrc ticket={ticket} {LOCAL} ! fakesink async=false sync=false"
    ));
    victim.play();
    let log = suffer(&mut process, &good, most);
    // Whatever came, it can be stopped.
    victim.stop();
    good.wait_more(10);
    good.lost_nothing();
    log
}

/// The attacker was closed, and told this.
#[track_caller]
fn told(log: &str, sentence: &str) {
    let line = format!("closed: {:#x} {sentence}", CloseCode::LIMIT.get());
    assert!(log.contains(&line), "{line} is not in: {log}");
}

#[test]
fn announces() {
    let log = publisher_suffers("announces", SIZE);
    told(&log, "too many broadcasts are announced");
}

#[test]
fn subscribes_to_what_is_not_there() {
    let log = publisher_suffers("subscribes", SIZE);
    told(&log, "too many requests for what is not there");
}

#[test]
fn streams_that_never_end() {
    // QUIC lets no more begin.
    let log = publisher_suffers("streams", SIZE);
    assert!(log.contains("open: 256 and 1024"), "{log}");
}

#[test]
fn streams_that_nobody_reads() {
    let log = publisher_suffers("unread", SIZE);
    assert!(log.contains("open: 256"), "{log}");
}

#[test]
fn endless_messages() {
    let log = publisher_suffers("messages", SIZE);
    told(&log, "a message is too long");
}

#[test]
fn connections_of_one_key() {
    let log = publisher_suffers("one-key", SIZE);
    told(&log, "too many connections of one peer");
}

#[test]
fn connections_of_many_keys() {
    let log = publisher_suffers("many-keys", SIZE);
    told(&log, "too many peers are connected");
}

#[test]
fn half_open_handshakes() {
    publisher_suffers("half-open", SIZE);
}

#[test]
fn a_viewer_that_reads_nothing() {
    // As much as comes in ten minutes at 500 kbit/s.
    let log = publisher_suffers("reads-nothing", 80 * SIZE);
    assert!(log.contains("connections: 1, of which ended: 0"), "{log}");
}

#[test]
fn a_hundred_viewers_that_read_nothing() {
    let log = publisher_suffers("stalled", 4 * SIZE);
    assert!(log.contains("connections: 100, of which ended: 0"), "{log}");
}

#[test]
fn a_catalog_that_is_no_frame() {
    told(&viewer_suffers("catalog-60-mb"), "a frame is too large");
}

#[test]
fn a_catalog_that_is_too_long() {
    told(&viewer_suffers("catalog-1-mb"), "a catalog is too large");
}

#[test]
fn a_catalog_of_too_many_renditions() {
    told(&viewer_suffers("renditions"), "a catalog is too large");
}

#[test]
fn a_catalog_that_changes_all_the_time() {
    viewer_suffers("changes");
}

#[test]
fn groups_that_never_end() {
    // QUIC lets no more begin.
    let log = viewer_suffers("endless-groups");
    assert!(log.contains("groups: 1023"), "{log}");
}

#[test]
fn a_group_of_too_many_frames() {
    told(&viewer_suffers("many-frames"), "groups are too large");
}

#[test]
fn a_group_that_is_too_large() {
    told(
        &viewer_grows("large-group", GROWTH_BY_GROUPS),
        "groups are too large",
    );
}

#[test]
fn many_large_groups() {
    viewer_grows("large-groups", GROWTH_BY_GROUPS);
}

#[test]
fn frames_of_a_gigabyte() {
    told(&viewer_suffers("frames-1-gb"), "a frame is too large");
}

#[test]
fn frames_that_are_too_large() {
    told(&viewer_suffers("frames-30-mb"), "a frame is too large");
}

#[test]
fn timestamps_at_both_ends_of_the_range() {
    viewer_suffers("timestamps");
}
