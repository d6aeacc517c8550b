//! The stored form of the catalogue.
//!
//! A snapshot is `magic (8 bytes) | version u32 | length u32 | CRC-32 of the
//! body u32 | body`, integers little-endian, the body bincode 2 with its standard
//! configuration. Enums in it are append-only; a changed struct raises the version.

use crate::Catalogue;
use holdfast_types::codec;

/// First bytes of a snapshot.
const MAGIC: [u8; 8] = *b"HFcatlg\0";
/// Version written, and newest that is understood.
const VERSION: u32 = 1;
/// Bytes before the body.
const HEADER_BYTES: usize = 20;
/// Largest body accepted: bounds what a damaged length can make us allocate.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Why a snapshot cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a snapshot.
    #[error("not a catalogue")]
    Foreign,
    /// Written by a later version.
    #[error("catalogue format {found} is newer than {VERSION}; upgrade holdfast")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Cut short, or changed since it was written.
    #[error("the catalogue is damaged: {0}")]
    Damaged(String),
}

/// The snapshot of `catalogue`.
///
/// # Panics
/// Never for a catalogue that [`Catalogue::apply`] made.
#[must_use]
pub fn encode(catalogue: &Catalogue) -> Vec<u8> {
    let body = codec::encode(catalogue);
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// The catalogue in `snapshot`.
pub fn decode(snapshot: &[u8]) -> Result<Catalogue, DecodeError> {
    let Some((header, body)) = snapshot.split_at_checked(HEADER_BYTES) else {
        return Err(DecodeError::Foreign);
    };
    if header[..8] != MAGIC {
        return Err(DecodeError::Foreign);
    }
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    match word(8) {
        VERSION => {}
        found => return Err(DecodeError::Newer { found }),
    }
    let len = word(12) as usize;
    if len > BODY_BYTES_MAX || len != body.len() {
        return Err(DecodeError::Damaged(format!("{} bytes instead of {len}", body.len())));
    }
    if crc32fast::hash(body) != word(16) {
        return Err(DecodeError::Damaged("its checksum does not match".to_owned()));
    }
    decode_value(body)
}

fn decode_value(bytes: &[u8]) -> Result<Catalogue, DecodeError> {
    codec::decode::<_, BODY_BYTES_MAX>(bytes)
        .map_err(|error| DecodeError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Member};
    use holdfast_types::{DiskId, Epoch, HistoryId, NodeId, ReplicaId, VolumeId};

    fn sample() -> Catalogue {
        let mut catalogue = Catalogue::default();
        let volume = VolumeId::from_u128(0x11);
        let create = Command::CreateVolume {
            volume,
            name: "demo".parse().unwrap(),
            size_bytes: 1 << 30,
            logical_block_bytes: 512,
            history: HistoryId::from_u128(0x22),
            members: vec![Member {
                replica: ReplicaId::from_u128(0x33),
                node: NodeId::from_u128(0x44),
                disk: DiskId::from_u128(0x55),
            }],
        };
        catalogue.apply(&create).unwrap();
        let node = NodeId::from_u128(0x44);
        catalogue.apply(&Command::GrantEpoch { volume, node, expected: Epoch::ZERO }).unwrap();
        catalogue
    }

    #[test]
    fn the_stored_form_is_pinned() {
        let golden = include_str!("../golden/catalogue-v1.hex");
        let bytes = encode(&sample());
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden.split_whitespace().collect::<String>());
        assert_eq!(decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let good = encode(&sample());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut newer = encode(&sample());
        newer[8] = 7;
        assert_eq!(decode(&newer), Err(DecodeError::Newer { found: 7 }));
    }
}
