//! Cuts a request's blocks into the ranges of its records.
//!
//! A write is cut at multiples of 256 KiB of the volume's address space, and
//! each part again into blocks before the first whole slot, whole slots, and
//! blocks behind them: a replica stores records of whole slots without writing
//! them twice.

use holdfast_types::{BlockNo, BlockRange, DISCARD_SLOTS_MAX, RECORD_BLOCKS_MAX, SLOT_BLOCKS};

const SLOT: u64 = SLOT_BLOCKS as u64;
const PIECE: u64 = RECORD_BLOCKS_MAX as u64;

/// The first record's range of a write to `next .. end`.
pub(super) fn write(next: BlockNo, end: BlockNo) -> BlockRange {
    let (next, end) = (next.get(), end.get());
    assert!(next < end, "nothing left to cut");
    let piece_end = ((next / PIECE + 1) * PIECE).min(end);
    let slots_start = next.next_multiple_of(SLOT);
    let slots_end = piece_end / SLOT * SLOT;
    let cut = if slots_start >= slots_end {
        piece_end
    } else if next < slots_start {
        slots_start
    } else {
        slots_end
    };
    BlockRange::new(BlockNo::new(next), cut - next)
}

/// The furthest block up to which `next .. end` is cut into whole records of at
/// most `blocks` in all.
pub(super) fn within(next: BlockNo, end: BlockNo, blocks: u64) -> BlockNo {
    assert!(blocks >= PIECE, "less than a record");
    let furthest = next.get() + blocks;
    BlockNo::new(if furthest < end.get() { furthest / PIECE * PIECE } else { end.get() })
}

/// The first record's range of a discard of `next .. end`.
pub(super) fn discard(next: BlockNo, end: BlockNo) -> BlockRange {
    let (next, end) = (next.get(), end.get());
    assert!(next < end, "nothing left to cut");
    let cut = ((next / SLOT + DISCARD_SLOTS_MAX) * SLOT).min(end);
    BlockRange::new(BlockNo::new(next), cut - next)
}

/// Where block `block` lies in a write's buffers, which are cut at multiples of
/// 256 KiB of the address space: the buffer's index and the block's byte offset in it.
pub(super) fn place(start: BlockNo, block: BlockNo) -> (usize, usize) {
    let (start, block) = (start.get(), block.get());
    let piece = block / PIECE - start / PIECE;
    let piece_start = (block / PIECE * PIECE).max(start);
    (piece as usize, BlockRange::new(BlockNo::new(0), block - piece_start).bytes() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(start: u64, end: u64, cut: fn(BlockNo, BlockNo) -> BlockRange) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut next = start;
        while next < end {
            let range = cut(BlockNo::new(next), BlockNo::new(end));
            assert_eq!(range.start.get(), next);
            out.push((next, range.count));
            next = range.end().get();
        }
        out
    }

    #[test]
    fn writes_are_cut_into_head_slots_and_tail() {
        assert_eq!(all(3, 4, write), [(3, 1)]);
        assert_eq!(all(0, 16, write), [(0, 16)]);
        assert_eq!(all(1, 31, write), [(1, 30)], "no whole slot");
        assert_eq!(all(1, 33, write), [(1, 15), (16, 16), (32, 1)]);
        assert_eq!(all(0, 130, write), [(0, 64), (64, 64), (128, 2)]);
        assert_eq!(all(60, 80, write), [(60, 4), (64, 16)]);
        assert_eq!(all(20, 70, write), [(20, 12), (32, 32), (64, 6)]);
    }

    #[test]
    fn every_cut_of_a_write_keeps_the_limits() {
        for start in 0..70 {
            for end in start + 1..start + 140 {
                let mut whole_slots = 0;
                for (at, count) in all(start, end, write) {
                    assert!(count <= PIECE && at / PIECE == (at + count - 1) / PIECE);
                    if BlockRange::new(BlockNo::new(at), count).is_slot_aligned() {
                        whole_slots += count / SLOT;
                    }
                }
                let possible = (end / SLOT).saturating_sub(start.div_ceil(SLOT));
                assert_eq!(whole_slots, possible, "{start}..{end}");
            }
        }
    }

    #[test]
    fn no_record_crosses_what_it_is_within() {
        for start in 0..70 {
            for end in start + 1..start + 300 {
                let until = within(BlockNo::new(start), BlockNo::new(end), 128).get();
                assert!(until > start && until <= end && until - start <= 128);
                assert!(until == end || all(start, end, write).iter().any(|(at, _)| *at == until));
            }
        }
    }

    #[test]
    fn discards_are_cut_at_slots() {
        let limit = DISCARD_SLOTS_MAX * SLOT;
        assert_eq!(all(5, 9, discard), [(5, 4)]);
        assert_eq!(all(5, 2 * limit, discard), [(5, limit - 5), (limit, limit)]);
        for (at, count) in all(7, 3 * limit + 1, discard) {
            let slots = BlockRange::new(BlockNo::new(at), count).slots().count() as u64;
            assert!(slots <= DISCARD_SLOTS_MAX);
        }
    }

    #[test]
    fn blocks_are_found_in_their_buffers() {
        assert_eq!(place(BlockNo::new(60), BlockNo::new(61)), (0, 4096));
        assert_eq!(place(BlockNo::new(60), BlockNo::new(64)), (1, 0));
        assert_eq!(place(BlockNo::new(60), BlockNo::new(130)), (2, 8192));
    }
}
