//! Small things that every program around live media needs.

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
/// # Errors
/// See [`SecretKeyError`].
pub fn secret_key_from_env() -> Result<SecretKey, SecretKeyError> {
    match std::env::var(SECRET_ENV) {
        Ok(text) => parse_secret_key(&text),
        Err(std::env::VarError::NotPresent) => {
            let key = SecretKey::generate();
            eprintln!(
                "A new identity was made. To keep it: export {SECRET_ENV}={}",
                format_secret_key(&key)
            );
            Ok(key)
        }
        Err(std::env::VarError::NotUnicode(_)) => Err(SecretKeyError::NotUnicode),
    }
}
