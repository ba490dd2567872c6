//! Small things that every program around live media needs.

use std::{
    env::VarError,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use iroh::SecretKey;

pub(crate) mod window;

pub use crate::signals::{spawn_signal_producer, spawn_stats_recorder};

/// The environment variable that holds the secret key.
pub const SECRET_ENV: &str = "IROH_SECRET";

/// What is longer is no key file, and not read to its end.
const LONGEST_KEY_FILE: u64 = 4096;

/// There is no secret key where one was looked for.
///
/// Says nothing of the text that was there, as that may be a key with a slip of the pen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretKeyError {
    /// Not 32 bytes in hexadecimal.
    #[error(
        "not a secret key: one is 64 hexadecimal digits (make one with `openssl rand -hex 32`)"
    )]
    Malformed,
    /// The environment variable is not text.
    #[error("{SECRET_ENV} is not text; a secret key is 64 hexadecimal digits")]
    NotUnicode,
    /// The key file can be neither read nor made.
    #[error(
        "the key file {} cannot be used: {source}; name a file that this program can read and write", .path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something other than a key.
    #[error(
        "{} is not a key file, which holds 64 hexadecimal digits; name another one, or one that does not exist yet, and \
         it is made", .path.display()
    )]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a secret key: 64 hexadecimal digits, or the base32 form that iroh's own tools print.
///
/// # Errors
/// [`SecretKeyError::Malformed`].
pub fn parse_secret_key(text: &str) -> Result<SecretKey, SecretKeyError> {
    text.trim()
        .to_ascii_lowercase()
        .parse()
        .map_err(|_| SecretKeyError::Malformed)
}

/// A secret key as [`parse_secret_key`] reads it.
pub fn format_secret_key(key: &SecretKey) -> String {
    HEXLOWER.encode(&key.to_bytes())
}

/// The secret key in a file, which is made with a new key if it does not exist.
///
/// Only its owner can read a file that is made here (mode 0600, where files have modes), and of several programs that
/// make the same file at once all get the same key. Blocks for as long as the file system takes.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use iroh_live::{Live, endpoint::EndpointConfig};
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let mut config = EndpointConfig::default();
/// config.secret_key = Some(iroh_live::util::secret_key_from_file("publisher.key")?);
/// let live = Live::builder(config.bind().await?).with_router().spawn();
/// # Ok(()) }) }
/// ```
///
/// # Errors
/// [`SecretKeyError::File`], [`SecretKeyError::NotAKeyFile`].
pub fn secret_key_from_file(path: impl AsRef<Path>) -> Result<SecretKey, SecretKeyError> {
    let path = path.as_ref();
    let text = read_key_file(path)
        .or_else(|error| match error.kind() {
            ErrorKind::NotFound => make_key_file(path),
            // A key is plain ASCII.
            ErrorKind::InvalidData => Ok(String::new()),
            _ => Err(error),
        })
        .map_err(|source| SecretKeyError::File {
            path: path.to_owned(),
            source,
        })?;
    parse_secret_key(&text).map_err(|_| SecretKeyError::NotAKeyFile {
        path: path.to_owned(),
    })
}

fn read_key_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LONGEST_KEY_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the file and returns its text, or that of the file that another program made in the meantime.
fn make_key_file(path: &Path) -> io::Result<String> {
    let text = format_secret_key(&SecretKey::generate()) + "\n";
    // It is whole before it gets its name, so that nobody reads a part of a key.
    let mut draft = path.to_owned().into_os_string();
    draft.push(format!(".{:016x}.part", rand::random::<u64>()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let made = options
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        // Unlike renaming, this never takes the place of a file that is there.
        .and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match made {
        Ok(()) => Ok(text),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read_key_file(path),
        Err(error) => Err(error),
    }
}

/// The secret key in `IROH_SECRET`, or `None` where that is unset or empty.
///
/// # Errors
/// [`SecretKeyError::Malformed`], [`SecretKeyError::NotUnicode`].
pub fn secret_key_in_env() -> Result<Option<SecretKey>, SecretKeyError> {
    secret_key_if_set(std::env::var(SECRET_ENV))
}

/// The secret key in `IROH_SECRET`; a new one where that is unset or empty, which is printed to standard error for
/// reuse.
///
/// The key is printed this once, and never logged.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = iroh_live::util::secret_key_from_env()?;
/// println!("This endpoint is {}", key.public());
/// # Ok(()) }
/// ```
///
/// # Errors
/// See [`SecretKeyError`].
pub fn secret_key_from_env() -> Result<SecretKey, SecretKeyError> {
    secret_key_or_new(std::env::var(SECRET_ENV), |key| {
        eprintln!("A new identity was made. To keep it: export {SECRET_ENV}={key}");
    })
}

fn secret_key_or_new(
    found: Result<String, VarError>,
    show: impl FnOnce(&str),
) -> Result<SecretKey, SecretKeyError> {
    match secret_key_if_set(found)? {
        Some(key) => Ok(key),
        None => {
            let key = SecretKey::generate();
            show(&format_secret_key(&key));
            Ok(key)
        }
    }
}

/// The secret key in the environment, if there is one: a variable that is set to nothing is as good as unset.
fn secret_key_if_set(found: Result<String, VarError>) -> Result<Option<SecretKey>, SecretKeyError> {
    match found {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => parse_secret_key(&text).map(Some),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(SecretKeyError::NotUnicode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unshown(_: &str) {
        panic!("a key that is known already was shown");
    }

    /// A new folder.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("key-{name}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn a_new_key_is_shown_once_and_can_be_used_again() {
        let mut shown = Vec::new();
        let new = secret_key_or_new(Err(VarError::NotPresent), |key| shown.push(key.to_owned()));
        assert_eq!(shown.len(), 1);
        let again = secret_key_or_new(Ok(shown.remove(0)), unshown).unwrap();
        assert_eq!(again.to_bytes(), new.unwrap().to_bytes());
    }

    #[test]
    fn an_empty_variable_is_as_good_as_unset() {
        for text in ["", " \n"] {
            let mut shown = 0;
            secret_key_or_new(Ok(text.to_owned()), |_| shown += 1).unwrap();
            assert_eq!(shown, 1);
            assert!(secret_key_if_set(Ok(text.to_owned())).unwrap().is_none());
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_is_private() {
        let folder = folder("made");
        let path = folder.join("key");
        // The first to come make it together.
        let keys: Vec<_> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| secret_key_from_file(&path).unwrap().to_bytes()))
                .collect();
            readers.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(secret_key_from_file(&path).unwrap().to_bytes(), keys[0]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let names = fs::read_dir(&folder).unwrap().count();
        assert_eq!(names, 1, "drafts are left behind");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_file_that_cannot_serve_is_an_error_with_the_mend_and_stays_as_it_is() {
        let folder = folder("unfit");
        let path = folder.join("notes.txt");
        for text in [&b"my notes"[..], b"", b"\xff\xfe"] {
            fs::write(&path, text).unwrap();
            let error = secret_key_from_file(&path).unwrap_err();
            assert!(
                matches!(error, SecretKeyError::NotAKeyFile { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("name another one"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), text);
        }
        for nowhere in [folder.join("none/key"), folder.clone()] {
            let error = secret_key_from_file(&nowhere).unwrap_err();
            assert!(matches!(error, SecretKeyError::File { .. }), "{error}");
            assert!(error.to_string().contains("name a file"), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_no_key_is_not_repeated_in_the_error() {
        let slip = format!("{}x", "ab".repeat(31));
        let error = secret_key_or_new(Ok(slip.clone()), unshown).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&slip[..8]));
        let other = VarError::NotUnicode("?".into());
        assert!(matches!(
            secret_key_or_new(Err(other), unshown),
            Err(SecretKeyError::NotUnicode)
        ));
    }
}
