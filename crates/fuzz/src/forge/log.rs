//! Frames of the write-ahead log (`docs/format/wal.md`).

use crate::disk::{BLOCK, Image};
use holdfast_wal::Ring;

/// First bytes of a frame.
pub const MAGIC: &[u8; 8] = b"HFwalfrm";
const CRC_AT: usize = 12;
const STREAM_AT: usize = 16;
const LIFE_AT: usize = 40;
const HEADER_BYTES_AT: usize = 68;
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
