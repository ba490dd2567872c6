//! The programs in `examples/core`, each run against itself or against its counterpart, as a reader would run them.

use std::{fs, path::PathBuf, process::Command};

use iroh_live::LiveTicket;
use iroh_live_tests::{Pipe, Process, Test, start};

/// An example as a process, in the test's own folder.
fn example(test: &Test, name: &str, instance: &str, args: &[&str]) -> Process {
    // This program lies in the folder `deps` beside the folder `examples`.
    let me = std::env::current_exe().expect("the system knows");
    let path: PathBuf = me
        .ancestors()
        .nth(2)
        .expect("it lies in target/release/deps")
        .join("examples")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build --release --workspace --examples",
        path.display()
    );
    let mut command = Command::new(path);
    command.args(args).current_dir(test.path(""));
    for display in ["DISPLAY", "WAYLAND_DISPLAY"] {
        command.env_remove(display);
    }
    Process::run(test, instance, command)
}

/// Waits for a line of the process that begins with `start`.
fn line(process: &mut Process, start: &str) -> String {
    let what = format!("a line that begins with {start:?}");
    let log = process.log_location();
    process.wait(&what, || {
        let log = fs::read_to_string(&log).ok()?;
        let mut lines = log
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        Some(
            lines
                .find(|line| line.starts_with(start))?
                .trim()
                .to_owned(),
        )
    })
}

fn ticket(process: &mut Process) -> String {
    line(process, "iroh-live:")
}

fn ends_well(mut process: Process) -> String {
    let outcome = process.end();
    assert!(outcome.status.success(), "{}", outcome.log);
    outcome.log
}

#[test]
fn publish_and_watch() {
    let test = start();
    let mut publisher = example(&test, "publish", "publisher", &[]);
    let ticket = ticket(&mut publisher);
    let mut viewer = example(&test, "watch", "viewer", &[&ticket]);
    line(&mut viewer, "no display: the picture is in");
    let png = fs::read(test.path("watch.png")).expect("it was said to be there");
    assert!(png.starts_with(b"\x89PNG"), "{} bytes", png.len());
    publisher.interrupt();
    let log = ends_well(publisher);
    // The identity is a secret; a log is no place for it.
    let is_key = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let words = log.split(|c: char| !c.is_ascii_alphanumeric());
    assert!(!words.into_iter().any(is_key), "{log}");
    assert!(log.contains("export IROH_SECRET="), "{log}");
}

/// `irohlive-demo`, which keeps what it keeps in the test's own folder.
fn demo(test: &Test, instance: &str, args: &[&str]) -> Process {
    let me = std::env::current_exe().expect("the system knows");
    let folder = me
        .ancestors()
        .nth(2)
        .expect("it lies in target/release/deps");
    let mut command = Command::new(folder.join("irohlive-demo"));
    command
        .args(args)
        .env("XDG_DATA_HOME", test.path("data"))
        .env("XDG_CACHE_HOME", test.path("cache"));
    for display in ["DISPLAY", "WAYLAND_DISPLAY"] {
        command.env_remove(display);
    }
    Process::run(test, instance, command)
}

#[test]
fn viewers_of_a_publisher_that_is_stopped_wait_and_find_it_again_by_its_identity() {
    let test = start();
    let id = |ticket: &str| {
        let ticket: LiveTicket = ticket.parse().expect("it is a ticket");
        ticket.addr().id
    };
    let mut publisher = demo(&test, "publisher", &["publish", "--local"]);
    let first = ticket(&mut publisher);
    let mut viewer = demo(&test, "viewer", &["watch", "--local", &first]);
    let mut second = demo(&test, "second-viewer", &["watch", "--local", &first]);
    line(&mut viewer, "Connected.");
    // Viewers on one machine do not write the same picture.
    let picture = "No display here: the latest frame is kept in";
    assert_ne!(line(&mut viewer, picture), line(&mut second, picture));
    second.interrupt();
    ends_well(second);
    // Another one at the same time is somebody else.
    let mut other = demo(&test, "other", &["publish", "--local"]);
    assert_ne!(id(&ticket(&mut other)), id(&first));
    publisher.interrupt();
    ends_well(publisher);
    line(&mut viewer, "Nothing has come for 3 s.");
    let mut publisher = demo(&test, "publisher-again", &["publish", "--local"]);
    assert_eq!(id(&ticket(&mut publisher)), id(&first));
    viewer.interrupt();
    let log = ends_well(viewer);
    assert!(!log.contains("ended the broadcast"), "{log}");
    for mut publisher in [publisher, other] {
        publisher.interrupt();
        ends_well(publisher);
    }
}

#[test]
fn a_call_and_its_end() {
    let test = start();
    let mut callee = example(&test, "call", "callee", &[]);
    let ticket = ticket(&mut callee);
    let mut caller = example(&test, "call", "caller", &[&ticket]);
    for side in [&mut callee, &mut caller] {
        line(side, "in a call with");
        line(side, "30 frames, 640x360");
    }
    caller.interrupt();
    assert!(ends_well(caller).contains("the call has ended: LocalClose"));
    assert!(ends_well(callee).contains("the call has ended: RemoteClose"));
}

#[test]
fn following_the_network() {
    let test = start();
    let mut publisher = example(&test, "publish", "publisher", &[]);
    let ticket = ticket(&mut publisher);
    let mut viewer = example(&test, "follow", "viewer", &[&ticket]);
    line(&mut viewer, "direct: round trip");
    // Nothing holds the loopback interface back.
    line(&mut viewer, "now 720p (1280x720)");
}

#[test]
fn pushed_pictures() {
    let test = start();
    let mut publisher = example(&test, "push", "publisher", &[]);
    let ticket = ticket(&mut publisher);
    let mut viewer = example(&test, "watch", "viewer", &[&ticket]);
    line(&mut viewer, "640x360");
    line(&mut viewer, "no display: the picture is in");
}

#[test]
fn beside_another_protocol() {
    let test = start();
    let log = ends_well(example(&test, "beside", "beside", &[]));
    assert!(log.contains("live media: [\"lq\"]"), "{log}");
    assert!(log.contains("echo: hello"), "{log}");
}

#[test]
fn encoded_frames_without_gstreamer() {
    let test = start();
    let pipe = Pipe::parse(&format!(
        "videotestsrc num-buffers=90 ! video/x-raw,width=160,height=120,framerate=30/1 ! \
         vp8enc deadline=1 keyframe-max-dist=30 ! avmux_ivf ! filesink location={}",
        test.file("movie.ivf")
    ));
    pipe.play();
    pipe.wait_eos();
    pipe.stop();
    let mut publisher = example(&test, "encoded", "publisher", &["publish", "movie.ivf"]);
    let ticket = ticket(&mut publisher);
    let viewer = example(&test, "encoded", "viewer", &["watch", &ticket, "copy.ivf"]);
    ends_well(publisher);
    ends_well(viewer);
    let frames = |name: &str| ivf_frames(&fs::read(test.path(name)).expect("it was written"));
    let (sent, received) = (frames("movie.ivf"), frames("copy.ivf"));
    assert_eq!(sent.len(), 90);
    // The viewer comes a moment later, and begins with the group of pictures that is being sent.
    assert!(received.len() >= 30, "{} frames", received.len());
    assert_eq!(sent[sent.len() - received.len()..], received[..]);
}

/// The frames of an IVF file: behind a header of 32 bytes each has its size, in four, and its time, in eight bytes.
fn ivf_frames(file: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = &file[32..];
    while let Some((head, behind)) = rest.split_at_checked(12) {
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((frame, next)) = behind.split_at_checked(size) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = next;
    }
    frames
}
