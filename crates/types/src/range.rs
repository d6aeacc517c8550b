//! Block and slot numbers, block ranges, and their arithmetic.

use crate::{BLOCK_BYTES, SLOT_BLOCKS};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of a 4 KiB block within a volume.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BlockNo(u64);

/// Number of a 64 KiB slot within a volume (its logical address, not its place on a disk).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SlotNo(u64);

/// One bit for each block of a slot; bit 0 is the lowest address.
pub type BlockMask = u16;

impl BlockNo {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The block that holds byte `offset` of the volume.
    #[must_use]
    pub const fn containing(offset: u64) -> Self {
        Self(offset / BLOCK_BYTES as u64)
    }

    /// Byte offset of the block's start within the volume.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 * BLOCK_BYTES as u64
    }

    /// The slot that the block lies in.
    #[must_use]
    pub const fn slot(self) -> SlotNo {
        SlotNo(self.0 / SLOT_BLOCKS as u64)
    }

    /// The block's position in its slot, 0..16.
    #[must_use]
    pub const fn index_in_slot(self) -> usize {
        (self.0 % SLOT_BLOCKS as u64) as usize
    }
}

impl SlotNo {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The slot's first block.
    #[must_use]
    pub const fn first_block(self) -> BlockNo {
        BlockNo(self.0 * SLOT_BLOCKS as u64)
    }
}

impl fmt::Display for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SlotNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A run of blocks: `start .. start + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlockRange {
    /// First block.
    pub start: BlockNo,
    /// Number of blocks; never zero in a record.
    pub count: u64,
}

impl BlockRange {
    /// The run of `count` blocks from `start`.
    #[must_use]
    pub const fn new(start: BlockNo, count: u64) -> Self {
        Self { start, count }
    }

    /// The smallest run of whole blocks that covers `len` bytes from `offset`.
    #[must_use]
    pub const fn covering(offset: u64, len: u64) -> Self {
        let start = offset / BLOCK_BYTES as u64;
        let end = (offset + len).div_ceil(BLOCK_BYTES as u64);
        Self { start: BlockNo(start), count: end - start }
    }

    /// The block after the last.
    #[must_use]
    pub const fn end(self) -> BlockNo {
        BlockNo(self.start.0 + self.count)
    }

    /// Length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.count * BLOCK_BYTES as u64
    }

    /// Whether the two runs share a block.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }

    /// Whether the run starts and ends on slot boundaries and is not empty.
    #[must_use]
    pub const fn is_slot_aligned(self) -> bool {
        self.count > 0
            && self.start.0.is_multiple_of(SLOT_BLOCKS as u64)
            && self.count.is_multiple_of(SLOT_BLOCKS as u64)
    }

    /// The slots that the run touches, in address order, each with the mask of
    /// the blocks in it.
    pub fn slots(self) -> impl Iterator<Item = (SlotNo, BlockMask)> {
        let (start, end) = (self.start.0, self.end().0);
        let per = SLOT_BLOCKS as u64;
        // Nothing touches no slot, also in the middle of one.
        let end_slot = if self.count == 0 { start / per } else { end.div_ceil(per) };
        (start / per..end_slot).map(move |slot| {
            let first = start.max(slot * per) - slot * per;
            let last = end.min((slot + 1) * per) - slot * per;
            let mask = ((1u32 << last) - (1u32 << first)) as BlockMask;
            (SlotNo(slot), mask)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_a_run_carry_the_right_masks() {
        let run = BlockRange::new(BlockNo::new(14), 20);
        let slots: Vec<_> = run.slots().map(|(s, m)| (s.get(), m)).collect();
        assert_eq!(slots, [(0, 0xc000), (1, 0xffff), (2, 0x0003)]);
        assert_eq!(BlockRange::new(BlockNo::new(3), 0).slots().count(), 0);
    }

    #[test]
    fn covering_rounds_outwards() {
        assert_eq!(BlockRange::covering(4095, 2), BlockRange::new(BlockNo::new(0), 2));
        assert_eq!(BlockRange::covering(4096, 4096), BlockRange::new(BlockNo::new(1), 1));
    }

    #[test]
    fn overlap_is_strict() {
        let a = BlockRange::new(BlockNo::new(0), 4);
        assert!(!a.overlaps(BlockRange::new(BlockNo::new(4), 1)));
        assert!(a.overlaps(BlockRange::new(BlockNo::new(3), 1)));
    }
}
