//! serde values as bytes: the only module that names bincode.
//!
//! bincode 2 with its standard configuration (little-endian, variable-length
//! integers). Enums so stored or sent are append-only; a changed struct raises the
//! version of whatever carries it.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes are not the value that they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError(String);

impl std::fmt::Display for CodecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}

/// The bytes of `value`.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    bytes
}

/// Puts the bytes of `value` behind those that are there.
pub fn encode_into<T: Serialize>(value: &T, into: &mut Vec<u8>) {
    let config = bincode::config::standard();
    if let Err(error) = bincode::serde::encode_into_std_write(value, into, config) {
        unreachable!("plain data always encodes: {error}");
    }
}

/// The value whose bytes are exactly `bytes`. Allocates at most about `LIMIT` bytes.
///
/// # Errors
/// They are cut short, too long, or no such value.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(CodecError(format!("{} bytes left over", bytes.len() - used))),
        Err(error) => Err(CodecError(error.to_string())),
    }
}
