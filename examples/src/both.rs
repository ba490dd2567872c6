//! Publishes in a second process, and watches it in this one with nothing but the ticket.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{check_file, publish::CHILD_FLAG, ticket, watch};

/// How long the publisher may take to say good-bye to its viewers.
const FAREWELL: Duration = Duration::from_secs(4);

/// The other process.
pub struct Publisher(Child);

/// Runs both until somebody ends it, the file is over or one of them fails.
pub fn run(file: Option<PathBuf>) -> Result<()> {
    if let Some(file) = &file {
        check_file(file)?;
    }
    let mut publisher = Publisher::start(file)?;
    let ticket = publisher.ticket()?;
    ticket::show(&ticket)?;
    eprintln!(
        "This ticket is for this machine and its network, as relays are left out here, so that it works without\n\
         internet. Between two machines: `make publish` on one, and on the other `make watch TICKET=…`\n"
    );
    watch::run(&ticket, true, Some(publisher))
}

impl Publisher {
    fn start(file: Option<PathBuf>) -> Result<Self> {
        let program = std::env::current_exe().context("This program's own file is not found")?;
        let child = Command::new(program)
            .args(["publish", "--local", CHILD_FLAG])
            .args(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Two ends with one identity would be one peer, and nobody connects to himself.
            .env_remove("IROH_SECRET")
            // Ctrl-C is for this process, which then ends the other in good order.
            .process_group(0)
            .spawn()
            .context("A second process could not be started")?;
        Ok(Self(child))
    }

    /// Waits for the ticket, which the publisher prints first.
    fn ticket(&mut self) -> Result<String> {
        let output = self
            .0
            .stdout
            .take()
            .context("the publisher has an output")?;
        let mut lines = BufReader::new(output).lines();
        match lines.next() {
            Some(Ok(ticket)) => {
                // Later tickets are of no interest here, but it must be able to print them.
                std::thread::spawn(move || lines.for_each(drop));
                Ok(ticket)
            }
            // It has said why.
            _ => bail!("{}", explain(self.0.wait()?)),
        }
    }

    /// Why it has ended, if it has.
    pub fn ended(&mut self) -> Option<Result<()>> {
        match self.0.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(status)) => Some(Err(anyhow!("{}", explain(status)))),
            Err(error) => Some(Err(anyhow!("The publisher is lost: {error}"))),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // The end of its input is the sign for it to end.
        drop(self.0.stdin.take());
        let deadline = Instant::now() + FAREWELL;
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Nothing for an exit code, as the publisher has then given its reason on standard error.
fn explain(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("The publisher was killed by signal {signal}."),
        None => String::new(),
    }
}
