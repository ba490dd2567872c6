//! Keeps the latest frame as a picture, for machines without a display.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use gst::{glib, prelude::*};

use crate::numbered::Numbered;

/// How often the picture is made anew.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes the last frame of a sink to a file, again and again, until it is dropped.
pub struct Snapshots {
    // Hanging up is what ends the thread.
    _end: mpsc::Sender<()>,
}

impl Snapshots {
    /// Begins with it. `sink` is one that keeps its `last-sample`.
    ///
    /// On a thread of its own, as making a PNG takes longer than a frame may.
    pub fn start(sink: glib::WeakRef<gst::Element>) -> Self {
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            // Several viewers have a picture each.
            let file = match Numbered::picture() {
                Ok(file) => file,
                Err(error) => return eprintln!("No frame can be kept as a picture: {error:#}"),
            };
            let path = file.path();
            let mut said = None;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let Some(sink) = sink.upgrade() else { return };
                let Some(sample) = sink.property::<Option<gst::Sample>>("last-sample") else {
                    continue;
                };
                let line = match png(&sample).and_then(|picture| replace(path, &picture)) {
                    Ok(()) => format!(
                        "No display here: the latest frame is kept in {}",
                        path.display()
                    ),
                    Err(error) => format!("The latest frame cannot be kept: {error:#}"),
                };
                if said.as_ref() != Some(&line) {
                    eprintln!("{line}");
                    said = Some(line);
                }
            }
        });
        Self { _end: end }
    }
}

fn png(sample: &gst::Sample) -> Result<gst::Buffer> {
    let caps = gst::Caps::new_empty_simple("image/png");
    let picture = gst_video::convert_sample(sample, &caps, Some(gst::ClockTime::from_seconds(5)))
        .context("apt install gstreamer1.0-plugins-good may help")?;
    picture.buffer_owned().context("no picture came out")
}

/// Writes a file of another name and moves it there, so that whoever looks sees a whole picture.
fn replace(path: &Path, picture: &gst::Buffer) -> Result<()> {
    let data = picture.map_readable()?;
    let draft = path.with_extension(format!("{}.part", std::process::id()));
    let _ = fs::remove_file(&draft);
    // Only a new file: in a folder that everybody may write to, an old one may lead elsewhere.
    let mut file = File::create_new(&draft).with_context(|| draft.display().to_string())?;
    file.write_all(&data)?;
    drop(file);
    fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_replaces_the_one_before() {
        gst::init().unwrap();
        let path = std::env::temp_dir().join(format!("snapshot-test-{}.png", std::process::id()));
        for content in ["first", "second"] {
            replace(&path, &gst::Buffer::from_slice(content)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
    }
}
