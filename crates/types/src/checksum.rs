//! Block checksums: CRC-32 (IEEE) of the 4 KiB payload, computed once where the
//! data enters the engine, and mixed with the block's place before it is stored
//! in a map, so that a block read from the wrong place never verifies.

use crate::{BLOCK_BYTES, BlockNo, VolumeId};

/// CRC-32 of one block of payload.
///
/// # Panics
/// If `block` is not exactly [`BLOCK_BYTES`] long.
#[must_use]
pub fn block_crc(block: &[u8]) -> u32 {
    assert_eq!(block.len(), BLOCK_BYTES, "a checksum covers one whole block");
    crc32fast::hash(block)
}

/// `crc` bound to the address it belongs to; what map records store.
#[must_use]
pub fn bound_crc(crc: u32, volume: VolumeId, block: BlockNo) -> u32 {
    crc ^ place_crc(volume, block)
}

/// The payload checksum that [`bound_crc`] was made from.
#[must_use]
pub fn unbind_crc(bound: u32, volume: VolumeId, block: BlockNo) -> u32 {
    bound ^ place_crc(volume, block)
}

fn place_crc(volume: VolumeId, block: BlockNo) -> u32 {
    let mut place = [0u8; 24];
    place[..16].copy_from_slice(&volume.to_bytes());
    place[16..].copy_from_slice(&block.get().to_le_bytes());
    crc32fast::hash(&place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_checksum_differs_by_volume_and_by_block() {
        let crc = block_crc(&[7; BLOCK_BYTES]);
        let volume = VolumeId::from_u128(1);
        let here = bound_crc(crc, volume, BlockNo::new(5));
        assert_ne!(here, bound_crc(crc, volume, BlockNo::new(6)));
        assert_ne!(here, bound_crc(crc, VolumeId::from_u128(2), BlockNo::new(5)));
        assert_eq!(unbind_crc(here, volume, BlockNo::new(5)), crc);
    }
}
