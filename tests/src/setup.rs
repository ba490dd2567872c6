//! What every test begins with.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// After this a test counts as hanging, and the process is ended with a word on which test it was: a deadlock in a
/// state change cannot be ended otherwise.
const TEST_LIMIT: Duration = Duration::from_secs(150);

#[cfg(target_os = "macos")]
const PLUGIN: &str = "libgstirohlive.dylib";
#[cfg(not(target_os = "macos"))]
const PLUGIN: &str = "libgstirohlive.so";

/// A test that runs. Dropping it takes its folder away and fails if something panicked in the plugin.
pub struct Test {
    folder: PathBuf,
    _watchdog: mpsc::Sender<()>,
}

/// Prepares the process, once, and begins a test.
///
/// # Panics
/// If GStreamer or the plugin cannot be loaded.
pub fn start() -> Test {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let run = run_folder();
    let folder = run.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir(&folder).expect("the folder for temporary files can be written");
    Test {
        folder,
        _watchdog: watchdog(),
    }
}

impl Test {
    /// A path in the test's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same as text, for pipeline descriptions.
    ///
    /// # Panics
    /// If the folder for temporary files has a name that is not UTF-8.
    pub fn file(&self, name: &str) -> String {
        self.path(name)
            .into_os_string()
            .into_string()
            .expect("the path is UTF-8")
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        if thread::panicking() {
            return;
        }
        // What a panicking thread says comes through a pipe.
        thread::sleep(Duration::from_millis(20));
        let panics = panics().lock().expect("nobody panics with the lock");
        assert!(panics.is_empty(), "the plugin panicked: {panics:#?}");
    }
}

/// The folder of this process, made when first asked for, together with all that concerns the whole process.
fn run_folder() -> &'static Path {
    static RUN: OnceLock<PathBuf> = OnceLock::new();
    RUN.get_or_init(|| {
        let parent = env::temp_dir().join("iroh-live-tests");
        fs::create_dir_all(&parent).expect("the folder for temporary files can be written");
        remove_leftovers(&parent);
        let run = parent.join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&run);
        fs::create_dir(&run).expect("the folder for temporary files can be written");
        // SAFETY: every test comes by here first, and waits until this is done: no other thread of this process looks
        // at its environment yet, but for Rust's own, which takes a lock.
        unsafe {
            if env::var_os("GST_PLUGIN_PATH").is_none_or(|path| path.is_empty()) {
                env::set_var("GST_PLUGIN_PATH", plugin_folder(&run));
            }
            env::set_var("GST_REGISTRY", run.join("registry.bin"));
            // An identity in the environment would make both ends the same peer.
            env::remove_var("IROH_SECRET");
        }
        watch_stderr();
        gst::init().expect("GStreamer is installed");
        assert!(
            gst::ElementFactory::find("irohlivesink").is_some(),
            "GStreamer does not load the plugin from {:?}: see gst-inspect-1.0 -b",
            env::var_os("GST_PLUGIN_PATH")
        );
        run
    })
}

/// A folder with the plugin and nothing else: GStreamer walks what it is given to its depths.
fn plugin_folder(run: &Path) -> PathBuf {
    let exe = env::current_exe().expect("a process knows its executable");
    // target/release/deps/codecs-0123: cargo leaves the plugin here, and in the folder above when it was asked for it.
    let newest = exe
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(PLUGIN))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max();
    let (_, plugin) = newest.unwrap_or_else(|| {
        panic!(
            "there is no {PLUGIN} beside {}: build it, or set GST_PLUGIN_PATH",
            exe.display()
        )
    });
    let folder = run.join("plugins");
    fs::create_dir(&folder).expect("the folder was just made");
    symlink(plugin, folder.join(PLUGIN)).expect("the folder was just made");
    folder
}

/// Removes the folders of processes that are gone.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<i32>();
        // SAFETY: signal 0 is not delivered, it only asks whether there is such a process.
        if pid.is_ok_and(|pid| unsafe { libc::kill(pid, 0) } != 0) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn watchdog() -> mpsc::Sender<()> {
    let (alive, ended) = mpsc::channel();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    thread::spawn(move || {
        if ended.recv_timeout(TEST_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: not over after {TEST_LIMIT:?}");
            // The line goes through a pipe.
            thread::sleep(Duration::from_millis(200));
            std::process::abort();
        }
    });
    alive
}

/// The panics that were reported on standard error so far.
fn panics() -> &'static Mutex<Vec<String>> {
    static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    &PANICS
}

/// Reads along what goes to standard error.
///
/// The plugin is linked with a standard library of its own, so a panic hook of this executable does not see its panics,
/// and those of its worker threads show nowhere else. Panics of the tests themselves are printed by the test harness.
fn watch_stderr() {
    let (mut reader, writer) = std::io::pipe().expect("there are pipes");
    // SAFETY: both descriptors are open and this process's own; the copy is owned by nobody else.
    let mut stderr = unsafe {
        let copy = libc::dup(libc::STDERR_FILENO);
        assert!(copy >= 0 && libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO) >= 0);
        File::from_raw_fd(copy)
    };
    drop(writer);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        let mut line = Vec::new();
        while let Ok(n @ 1..) = reader.read(&mut chunk) {
            let _ = stderr.write_all(&chunk[..n]);
            for byte in &chunk[..n] {
                if *byte == b'\n' {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    let own = text.contains("tests/tests/") || text.contains("tests/src/");
                    if text.contains("panicked at") && !own {
                        panics()
                            .lock()
                            .expect("nobody panics with the lock")
                            .push(text);
                    }
                    line.clear();
                } else {
                    line.push(*byte);
                }
            }
        }
    });
}
