//! Files of this user that several of these programs have at the same time, one each, and find again the next time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use gst::glib;

/// A file that no other process has in use: `name.extension`, or, where that is in use, `name-2.extension` and so on.
pub struct Numbered {
    path: PathBuf,
    _lock: File,
}

impl Numbered {
    /// The identity of a publisher, in the user's folder for data: viewers find it again with the ticket that they have.
    ///
    /// Two publishers with one identity would take each other's viewers away.
    pub fn key() -> Result<Self> {
        Self::take(&glib::user_data_dir().join("iroh-live"), "publisher", "key")
    }

    /// The latest frame of a viewer, in the user's folder for what may be lost.
    pub fn picture() -> Result<Self> {
        Self::take(&glib::user_cache_dir().join("iroh-live"), "latest", "png")
    }

    fn take(folder: &Path, name: &str, extension: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut number = 1;
        loop {
            let name = match number {
                1 => name.to_owned(),
                number => format!("{name}-{number}"),
            };
            let lock = folder.join(format!("{name}.lock"));
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&lock)
                .with_context(|| lock.display().to_string())?;
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        path: folder.join(format!("{name}.{extension}")),
                        _lock: file,
                    });
                }
                Err(TryLockError::WouldBlock) => number += 1,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| lock.display().to_string());
                }
            }
        }
    }

    /// Where it is, whether it exists yet or not.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_at_the_same_time_has_its_own_and_finds_it_again() {
        let folder = std::env::temp_dir().join(format!("numbered-test-{}", std::process::id()));
        let take = || Numbered::take(&folder, "publisher", "key").unwrap();
        let (first, second) = (take(), take());
        let paths = [first.path().to_owned(), second.path().to_owned()];
        assert_ne!(paths[0], paths[1]);
        drop((first, second));
        let (first, second) = (take(), take());
        assert_eq!(
            [first.path(), second.path()],
            paths.each_ref().map(|path| &**path)
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
