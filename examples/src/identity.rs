//! The identity of this machine's publisher, kept so that viewers find it again with the ticket that they have.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use gst::glib;

/// A key file that no other publisher of this user has in use.
pub struct Identity {
    key: PathBuf,
    // Two endpoints with one identity would take each other's viewers away.
    _lock: File,
}

impl Identity {
    /// The first one that is free, in the user's folder for data.
    pub fn take() -> Result<Self> {
        Self::take_in(&glib::user_data_dir().join("iroh-live"))
    }

    fn take_in(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut number = 1;
        loop {
            let name = match number {
                1 => "publisher".to_owned(),
                number => format!("publisher-{number}"),
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
                        key: folder.join(format!("{name}.key")),
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

    /// The file with the key; irohlivesink makes it.
    pub fn key(&self) -> &Path {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_at_the_same_time_have_different_identities_and_each_keeps_its_own() {
        let folder = std::env::temp_dir().join(format!("identity-test-{}", std::process::id()));
        let take = || Identity::take_in(&folder).unwrap();
        let (first, second) = (take(), take());
        let keys = [first.key().to_owned(), second.key().to_owned()];
        assert_ne!(keys[0], keys[1]);
        drop((first, second));
        let (first, second) = (take(), take());
        assert_eq!(
            [first.key(), second.key()],
            keys.each_ref().map(|key| &**key)
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
