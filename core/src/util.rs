//! Small things that every program around live media needs.

use std::env::VarError;

use data_encoding::HEXLOWER;
use iroh::SecretKey;

pub use crate::signals::{spawn_signal_producer, spawn_stats_recorder};

/// The environment variable that holds the secret key.
pub const SECRET_ENV: &str = "IROH_SECRET";

/// A text is not a secret key.
///
/// Says nothing of what was there, as that may be a key with a slip of the pen.
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

/// The secret key in `IROH_SECRET`; a new one where that is not set, which is printed to standard error for reuse.
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
    match found {
        Ok(text) => parse_secret_key(&text),
        Err(VarError::NotPresent) => {
            let key = SecretKey::generate();
            show(&format_secret_key(&key));
            Ok(key)
        }
        Err(VarError::NotUnicode(_)) => Err(SecretKeyError::NotUnicode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unshown(_: &str) {
        panic!("a key that is known already was shown");
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
