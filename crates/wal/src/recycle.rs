//! Which of the ring's space may be written: whole segments, in order, once
//! nothing in them is needed any more.

use crate::{
    entry::ENTRY_HEADER_MAX,
    frame,
    layout::{BLOCK, Config, Position},
};
use holdfast_types::{
    RECORD_BYTES_MAX,
    mutant::{self, Mutant},
};

/// The largest frame of a single entry, and so the most that stays unused at a
/// segment's end.
const ENTRY_FRAME_MAX: u64 = BLOCK + RECORD_BYTES_MAX as u64;
const _: () = assert!(ENTRY_FRAME_MAX < crate::SEGMENT_BYTES_MIN as u64);
const _: () = assert!(frame::FIXED_BYTES + ENTRY_HEADER_MAX <= BLOCK as usize);

/// The ring's space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    config: Config,
    /// Start of the oldest segment that is still needed.
    floor: Position,
}

impl Space {
    /// All from `needed` on is in use.
    pub(crate) fn new(config: Config, needed: Position) -> Self {
        Self { config, floor: config.segment_start(needed) }
    }

    /// Nothing at or above it may be written.
    pub(crate) fn limit(&self) -> Position {
        self.floor.plus(self.config.ring_bytes())
    }

    /// Frees the whole segments below `needed`.
    pub(crate) fn recycle(&mut self, needed: Position) {
        let mut floor = self.config.segment_start(needed);
        if mutant::active(Mutant::RecyclesOneTooMany) {
            floor = floor.plus(self.config.segment())
        }
        self.floor = self.floor.max(floor);
    }

    /// Bytes of single-entry frames that fit between `head` and the limit,
    /// whatever their sizes: each segment may lose an unused rest.
    pub(crate) fn usable(&self, head: Position) -> u64 {
        let segment = self.config.segment();
        let room = self.limit().since(head);
        let current = room % segment;
        current.saturating_sub(ENTRY_FRAME_MAX) + room / segment * (segment - ENTRY_FRAME_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config { segment_bytes: 1 << 20, segments: 4 };
    const SEGMENT: u64 = 1 << 20;

    #[test]
    fn only_whole_segments_are_freed_and_never_taken_back() {
        let mut space = Space::new(CONFIG, Position::new(SEGMENT + 4096));
        assert_eq!(space.limit(), Position::new(5 * SEGMENT));
        space.recycle(Position::new(3 * SEGMENT - 4096));
        assert_eq!(space.limit(), Position::new(6 * SEGMENT));
        space.recycle(Position::new(3 * SEGMENT));
        assert_eq!(space.limit(), Position::new(7 * SEGMENT));
        space.recycle(Position::new(SEGMENT));
        assert_eq!(space.limit(), Position::new(7 * SEGMENT));
    }

    #[test]
    fn usable_space_counts_the_rest_that_each_segment_may_lose() {
        let space = Space::new(CONFIG, Position::ZERO);
        assert_eq!(space.usable(Position::ZERO), 4 * (SEGMENT - ENTRY_FRAME_MAX));
        let head = Position::new(SEGMENT - 4096);
        assert_eq!(space.usable(head), 3 * (SEGMENT - ENTRY_FRAME_MAX));
        assert_eq!(space.usable(space.limit()), 0);
    }
}
