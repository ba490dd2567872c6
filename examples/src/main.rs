//! Publishes a test card or a file, watches a ticket, or does both: a first stream in one command.

mod both;
mod narrator;
mod numbered;
mod pipeline;
mod publish;
mod report;
mod snapshot;
mod ticket;
mod watch;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};

const USAGE: &str = "\
Live audio and video, peer to peer.

  irohlive-demo both [FILE]              publish in one process, watch it in another
  irohlive-demo publish [--local] [FILE] publish, and print the ticket to watch it with
  irohlive-demo watch [--local] TICKET   watch what another machine publishes

Without FILE a test card is published. A file is published as it is, paced as live.
--local uses nothing on the internet, neither relays nor lookup: for two machines of one network, or one machine.";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
enum Command {
    Both { file: Option<PathBuf> },
    Publish(publish::Options),
    Watch { ticket: String, local: bool },
    Help,
}

fn main() -> ExitCode {
    let done = parse(std::env::args().skip(1)).and_then(|command| {
        gst::init().context("GStreamer does not start")?;
        match command {
            Command::Both { file } => both::run(file),
            Command::Publish(options) => publish::run(&options),
            Command::Watch { ticket, local } => watch::run(&ticket, local, None),
            Command::Help => say(USAGE),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Somebody who took the first lines only, as `| head` does, has had what they wanted.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("{error:#}");
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Command> {
    let (flags, words): (Vec<_>, Vec<_>) = arguments.partition(|word| word.starts_with("--"));
    let flag = |name: &str| flags.iter().any(|flag| flag == name);
    let (local, child) = (flag("--local"), flag(publish::CHILD_FLAG));
    let unknown = flags
        .iter()
        .find(|flag| !["--local", "--help", publish::CHILD_FLAG].contains(&flag.as_str()));
    ensure!(
        unknown.is_none(),
        "There is no option {}.\n\n{USAGE}",
        unknown.map_or("", |flag| flag)
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let file = |words: &[&str]| words.first().map(PathBuf::from);
    Ok(match words.as_slice() {
        _ if flag("--help") => Command::Help,
        ["both", rest @ ..] if rest.len() < 2 => Command::Both { file: file(rest) },
        ["publish", rest @ ..] if rest.len() < 2 => Command::Publish(publish::Options {
            file: file(rest),
            local,
            child,
        }),
        ["watch", ticket] => Command::Watch {
            ticket: (*ticket).to_owned(),
            local,
        },
        _ => anyhow::bail!("{USAGE}"),
    })
}

/// Says at once what is wrong with a file, before anything is started for it.
fn check_file(path: &Path) -> Result<()> {
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("{name} cannot be read"))?;
    let about = file
        .metadata()
        .with_context(|| format!("{name} cannot be read"))?;
    ensure!(
        !about.is_dir(),
        "{name} is a folder: name a file with H.264 video, for example"
    );
    Ok(())
}

/// Prints a line. Unlike `println!` it returns an error when nobody reads any more.
fn say(line: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_may_stand_anywhere() {
        let watch = Command::Watch {
            ticket: "iroh-live:x/y".into(),
            local: true,
        };
        assert_eq!(parsed("watch iroh-live:x/y --local").unwrap(), watch);
        assert_eq!(parsed("--local watch iroh-live:x/y").unwrap(), watch);
    }

    #[test]
    fn a_file_is_optional() {
        assert_eq!(parsed("both").unwrap(), Command::Both { file: None });
        let file = Some(PathBuf::from("a.mp4"));
        assert_eq!(parsed("both a.mp4").unwrap(), Command::Both { file });
    }

    #[test]
    fn what_is_not_understood_is_answered_with_the_usage() {
        for line in [
            "",
            "watch",
            "watch a b",
            "publish a b",
            "dance",
            "both --fast",
        ] {
            let answer = parsed(line).unwrap_err().to_string();
            assert!(answer.contains("irohlive-demo watch"), "{line}: {answer}");
        }
    }
}
