//! A stored value: `version u8 | CRC-32 of the body u32 LE | body`. redb verifies its pages only when
//! it repairs the file, so each value brings its own checksum.

use holdfast_types::codec;
use serde::{Serialize, de::DeserializeOwned};

/// Version of every value's form.
const VERSION: u8 = 1;
/// Bytes before the body.
const HEADER_BYTES: usize = 5;
/// Largest body: that of a snapshot. Bounds what damage can make us allocate.
const BODY_BYTES_MAX: usize = crate::raft::snapshot::SNAPSHOT_BYTES_MAX + 64;

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let body = codec::encode(value);
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.push(VERSION);
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let Some((&[version, a, b, c, d], body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(format!("{} bytes are too few", bytes.len()));
    };
    if version != VERSION {
        return Err(format!("version {version} is not {VERSION}; use the release that wrote it"));
    }
    if crc32fast::hash(body) != u32::from_le_bytes([a, b, c, d]) {
        return Err("damaged: its checksum does not match".to_owned());
    }
    codec::decode::<_, BODY_BYTES_MAX>(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_other_versions_are_told() {
        let good = encode(&(7_u64, "x".to_owned()));
        assert_eq!(decode::<(u64, String)>(&good), Ok((7, "x".to_owned())));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<(u64, String)>(&bad).is_err(), "bit {bit}");
        }
        assert!(decode::<(u64, String)>(&good[..4]).is_err());
        assert!(decode::<u64>(&good).is_err(), "bytes left over");
    }
}
