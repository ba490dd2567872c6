//! Pipelines in processes of their own.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::{Test, eventually};

/// A `gst-launch-1.0` that runs. It is ended, by its own process id, when this is dropped.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// How a process ended.
pub struct Outcome {
    /// What it exited with.
    pub status: ExitStatus,
    /// What it wrote to standard output and standard error.
    pub log: String,
}

impl Process {
    /// Runs a pipeline. `name` tells the test's processes apart. Values in the description must not have spaces, as it
    /// becomes the arguments of the command.
    ///
    /// # Panics
    /// If there is no `gst-launch-1.0`.
    pub fn launch(test: &Test, name: &str, description: &str) -> Self {
        let mut command = Command::new("gst-launch-1.0");
        command.arg("-v").args(description.split_whitespace());
        Self::run(test, name, command)
    }

    /// Runs a command.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn run(test: &Test, name: &str, mut command: Command) -> Self {
        let log = test.path(&format!("{name}.log"));
        let out = File::create(&log).expect("the test's folder can be written");
        let err = out.try_clone().expect("a file can be opened twice");
        let child = command
            .env("GST_DEBUG_NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child,
            name: name.to_owned(),
            log,
        }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where it writes to.
    pub fn log_location(&self) -> PathBuf {
        self.log.clone()
    }

    /// Waits for something to come about while the process runs.
    ///
    /// # Panics
    /// If it does not, or if the process ends or says that it failed.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let name = self.name.clone();
        let found = eventually(what, || {
            if let Some(found) = look() {
                return Some(Ok(found));
            }
            let log = self.log();
            let ended = self.child.try_wait().expect("the child is ours");
            let failed = ["ERROR", "Caught SIG", "panicked at"]
                .iter()
                .any(|sign| log.contains(sign));
            (ended.is_some() || failed).then_some(Err(()))
        });
        // What it said follows when it is dropped.
        found.unwrap_or_else(|()| panic!("{name} failed before this came about: {what}"))
    }

    /// Waits for the ticket in a file that the process writes.
    pub fn ticket(&mut self, location: &str) -> String {
        self.wait("a ticket", || {
            let ticket = fs::read_to_string(location).ok()?;
            Some(ticket.trim().to_owned()).filter(|ticket| !ticket.is_empty())
        })
    }

    /// Asks it to end, as Ctrl-C does.
    ///
    /// # Panics
    /// If it has ended already.
    pub fn interrupt(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("process ids are small");
        // SAFETY: the child was not waited for yet, or try_wait would know: the id is still its own.
        let sent = unsafe { libc::kill(pid, libc::SIGINT) };
        assert_eq!(sent, 0, "{} has ended", self.name);
    }

    /// Ends it without giving it a chance to say anything to anybody, as a crash would.
    ///
    /// # Panics
    /// If it has ended already.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process runs");
        self.child.wait().expect("the child is ours");
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn end(&mut self) -> Outcome {
        let what = format!("the end of {}", self.name);
        let status = eventually(&what, || {
            let log = self.log();
            assert!(!log.contains("Caught SIG"), "{} crashed", self.name);
            self.child.try_wait().expect("the child is ours")
        });
        Outcome {
            status,
            log: self.log(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Does nothing if it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- {}:\n{}", self.name, self.log());
        }
    }
}
