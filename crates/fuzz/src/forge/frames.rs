//! Frames between nodes (`docs/format/wire.md`).

use holdfast_types::BLOCK_BYTES;
use std::{collections::HashMap, sync::OnceLock};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 16;

/// A frame's header, its checksum right.
#[must_use]
pub fn header(kind: u8, body: &[u8], payload_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(b"HF");
    header[2] = 1;
    header[3] = kind;
    header[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[8..12].copy_from_slice(&payload_bytes.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..12]);
    crc.update(body);
    header[12..].copy_from_slice(&crc.finalize().to_le_bytes());
    header
}

/// CRC-32 of a block of which every byte is `fill`.
#[must_use]
pub fn fill_crc(fill: u8) -> u32 {
    fill_crcs().0[usize::from(fill)]
}

/// Finds the checksums of filled blocks in a body, so that a payload can be made that matches
/// it: the fills, in order, at most `max`.
pub fn announced_fills(body: &[u8], max: usize) -> Vec<u8> {
    let by_crc = &fill_crcs().1;
    let mut fills = Vec::new();
    let mut rest = body;
    while let Some(word) = rest.first_chunk::<4>() {
        if fills.len() == max {
            break;
        }
        let fill = by_crc.get(&u32::from_le_bytes(*word));
        fills.extend(fill);
        rest = &rest[if fill.is_some() { 4 } else { 1 }..];
    }
    fills
}

fn fill_crcs() -> &'static (Vec<u32>, HashMap<u32, u8>) {
    static CRCS: OnceLock<(Vec<u32>, HashMap<u32, u8>)> = OnceLock::new();
    CRCS.get_or_init(|| {
        crate::target::uncounted(|| {
            let crcs = (0..=255u8).map(|fill| crc32fast::hash(&[fill; BLOCK_BYTES]));
            let crcs: Vec<u32> = crcs.collect();
            let by_crc = crcs.iter().copied().zip(0..=255).collect();
            (crcs, by_crc)
        })
    })
}
