//! Frames of the write-ahead log (`docs/format/wal.md`).

use crate::disk::{BLOCK, Image};
use holdfast_wal::Ring;

/// First bytes of a frame.
pub const MAGIC: &[u8; 8] = b"HFwalfrm";
const CRC_AT: usize = 12;
const STREAM_AT: usize = 16;
const LIFE_AT: usize = 40;
const PREVIOUS_AT: usize = 64;
const HEADER_BYTES_AT: usize = 68;
const PAYLOAD_BLOCKS_AT: usize = 72;
const KIND_AT: usize = 80;
/// Kind of the frame behind which the next segment begins.
const SEAL: u32 = 2;
/// Frames that are followed at most.
const FRAMES_MAX: usize = 256;
/// Bytes of header blocks at most.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Seals whatever header blocks start at `block` of the ring: the checksum for the stream and the
/// life that stand in them. `false` if nothing there is like a frame.
pub fn reseal(image: &mut Image, ring: &Ring, block: u64) -> bool {
    let first_block = ring.base / BLOCK as u64;
    let blocks = ring.config.ring_bytes() / BLOCK as u64;
    let mut bytes = image.block(ring.file, first_block + block).to_vec();
    let len = u32::from_le_bytes([
        bytes[HEADER_BYTES_AT],
        bytes[HEADER_BYTES_AT + 1],
        bytes[HEADER_BYTES_AT + 2],
        bytes[HEADER_BYTES_AT + 3],
    ]) as usize;
    let end = block + len.div_ceil(BLOCK) as u64;
    if &bytes[..8] != MAGIC
        || len > HEADER_BYTES_MAX
        || !len.is_multiple_of(BLOCK)
        || len == 0
        || end > blocks
    {
        return false;
    }
    for more in block + 1..end {
        bytes.extend_from_slice(&image.block(ring.file, first_block + more));
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[STREAM_AT..STREAM_AT + 16]);
    crc.update(&bytes[LIFE_AT..LIFE_AT + 8]);
    crc.update(&bytes[..CRC_AT]);
    crc.update(&[0; 4]);
    crc.update(&bytes[STREAM_AT..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.finalize().to_le_bytes());
    let Some(sealed) = bytes.first_chunk::<BLOCK>() else { unreachable!("a block was read") };
    image.set_block(ring.file, first_block + block, sealed);
    true
}

/// Seals the frames of the chain that starts at `position` one after the other, each with its
/// predecessor's checksum: a log that was changed looks as if it had been written so. The blocks
/// at which frames start.
pub fn rechain(image: &mut Image, ring: &Ring, position: u64, chain: u32) -> Vec<u64> {
    let (mut position, mut chain) = (position, chain);
    let mut frames = Vec::new();
    while frames.len() < FRAMES_MAX {
        let at = position % ring.config.ring_bytes() / BLOCK as u64;
        let mut bytes = image.block(ring.file, ring.base / BLOCK as u64 + at);
        if &bytes[..8] != MAGIC {
            break;
        }
        bytes[PREVIOUS_AT..][..4].copy_from_slice(&chain.to_le_bytes());
        image.set_block(ring.file, ring.base / BLOCK as u64 + at, &bytes);
        if !reseal(image, ring, at) {
            break;
        }
        frames.push(at);
        let bytes = image.block(ring.file, ring.base / BLOCK as u64 + at);
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        chain = word(CRC_AT);
        let segment = ring.config.segment();
        position = if word(KIND_AT) == SEAL {
            position - position % segment + segment
        } else {
            let len = u64::from(word(HEADER_BYTES_AT))
                + u64::from(word(PAYLOAD_BLOCKS_AT)) * BLOCK as u64;
            match position.checked_add(len) {
                Some(next) if len <= segment => next,
                _ => break,
            }
        };
    }
    frames
}
