//! Which physical slots are free, and what the others are used for: two bits
//! per slot in memory, and the tree of slot-state pages that a checkpoint
//! writes from them.

use super::{
    PhysRun, PhysSlot,
    page::{BODY_BYTES, HEADER_BYTES, Page, TreeKind},
    tree::Tree,
};

/// Slots that one slot-state page describes.
pub(super) const SLOTS_PER_PAGE: u64 = (BODY_BYTES * 4) as u64;
const SLOTS_PER_WORD: u64 = 32;
const WORDS_PER_PAGE: usize = BODY_BYTES / 8;
/// Low bit of each pair.
const LOW: u64 = 0x5555_5555_5555_5555;
/// Runs that an allocation looks at before it takes the longest: keeps the
/// search short on a fragmented disk.
const LOOK_RUNS: usize = 8;

/// What a slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Can be allocated.
    Free = 0,
    /// Named by exactly one map record.
    Data = 1,
    /// Split into metadata pages.
    Meta = 2,
    /// Free on disk, but not to be allocated: handed out and not yet in a map,
    /// or freed and waiting for a checkpoint. Stored as [`Use::Free`].
    Held = 3,
}

impl Use {
    fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Free,
            1 => Self::Data,
            2 => Self::Meta,
            _ => Self::Held,
        }
    }

    fn stored(self) -> Self {
        if self == Self::Held { Self::Free } else { self }
    }
}

/// State of all slots of a disk.
pub(super) struct Slots {
    words: Vec<u64>,
    count: u64,
    /// Slots by [`Use`].
    totals: [u64; 4],
    /// Free slots by slot-state page, to skip full regions.
    free_in_page: Vec<u32>,
    /// No slot below is free.
    lowest_free: u64,
    /// The stored form.
    pub(super) tree: Tree,
}

impl Slots {
    pub(super) fn new(tree: Tree) -> Self {
        Self {
            words: Vec::new(),
            count: 0,
            totals: [0; 4],
            free_in_page: Vec::new(),
            lowest_free: 0,
            tree,
        }
    }

    pub(super) fn empty_tree() -> Tree {
        Tree::new(TreeKind::SlotStates, [0; 16])
    }

    /// Slots there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn total(&self, of: Use) -> u64 {
        self.totals[of as usize]
    }

    /// Adds free slots at the end, up to `count` in all.
    pub(super) fn grow(&mut self, count: u64) {
        assert!(count >= self.count, "a data area never shrinks");
        let pages = count.div_ceil(SLOTS_PER_PAGE) as usize;
        self.words.resize(pages * WORDS_PER_PAGE, 0);
        self.free_in_page.resize(pages, 0);
        for page in self.count / SLOTS_PER_PAGE..pages as u64 {
            let first = (page * SLOTS_PER_PAGE).max(self.count);
            let end = ((page + 1) * SLOTS_PER_PAGE).min(count);
            self.free_in_page[page as usize] += (end - first) as u32;
        }
        self.totals[Use::Free as usize] += count - self.count;
        self.count = count;
    }

    /// A slot's use; `None` beyond the end.
    pub(super) fn get(&self, slot: PhysSlot) -> Option<Use> {
        (slot.0 < self.count).then(|| {
            let word = self.words[(slot.0 / SLOTS_PER_WORD) as usize];
            Use::from_bits(word >> (2 * (slot.0 % SLOTS_PER_WORD)))
        })
    }

    /// Changes a slot's use; its slot-state page is to be written if that shows on disk.
    pub(super) fn set(&mut self, slot: PhysSlot, to: Use) {
        let Some(from) = self.get(slot) else { unreachable!("slot {} does not exist", slot.0) };
        if from == to {
            return;
        }
        let shift = 2 * (slot.0 % SLOTS_PER_WORD);
        let word = &mut self.words[(slot.0 / SLOTS_PER_WORD) as usize];
        *word = *word & !(3 << shift) | (to as u64) << shift;
        self.totals[from as usize] -= 1;
        self.totals[to as usize] += 1;
        let page = slot.0 / SLOTS_PER_PAGE;
        if from == Use::Free {
            self.free_in_page[page as usize] -= 1;
        }
        if to == Use::Free {
            self.free_in_page[page as usize] += 1;
            self.lowest_free = self.lowest_free.min(slot.0);
        }
        if from.stored() != to.stored() {
            self.tree.touch(page);
        }
    }

    /// The lowest free slots, so that extents written before are used again
    /// first: the first run of `max` among the lowest few runs, else the longest of them.
    pub(super) fn find_run(&mut self, max: u32) -> Option<PhysRun> {
        let mut from = self.lowest_free;
        let mut best: Option<PhysRun> = None;
        for look in 0..LOOK_RUNS {
            let start = match self.next_free(from) {
                Some(start) => start,
                None => {
                    if look == 0 {
                        self.lowest_free = self.count;
                    }
                    break;
                }
            };
            if look == 0 {
                self.lowest_free = start;
            }
            let end = (start + u64::from(max)).min(self.count);
            let after = (start + 1..end).find(|slot| self.get(PhysSlot(*slot)) != Some(Use::Free));
            let count = (after.unwrap_or(end) - start) as u32;
            if best.is_none_or(|best| count > best.count) {
                best = Some(PhysRun { start: PhysSlot(start), count });
            }
            if count == max {
                break;
            }
            from = start + u64::from(count);
        }
        best
    }

    fn next_free(&self, from: u64) -> Option<u64> {
        let mut slot = from;
        while slot < self.count {
            let page = slot / SLOTS_PER_PAGE;
            if self.free_in_page[page as usize] == 0 {
                slot = (page + 1) * SLOTS_PER_PAGE;
                continue;
            }
            let word = self.words[(slot / SLOTS_PER_WORD) as usize];
            let ahead = u64::MAX << (2 * (slot % SLOTS_PER_WORD));
            let free = !(word | word >> 1) & LOW & ahead;
            if free != 0 {
                let found =
                    slot / SLOTS_PER_WORD * SLOTS_PER_WORD + u64::from(free.trailing_zeros()) / 2;
                return (found < self.count).then_some(found);
            }
            slot = (slot / SLOTS_PER_WORD + 1) * SLOTS_PER_WORD;
        }
        None
    }

    /// Writes the body of slot-state page `index`; `false` if all its slots are
    /// free: then it needs no page.
    pub(super) fn encode(&self, index: u64, page: &mut [u8]) -> bool {
        let first = index as usize * WORDS_PER_PAGE;
        let mut any = 0;
        let body = &mut page[HEADER_BYTES..];
        for (at, word) in body.chunks_exact_mut(8).zip(&self.words[first..first + WORDS_PER_PAGE]) {
            let held = word & word >> 1 & LOW;
            let stored = word & !(held | held << 1);
            any |= stored;
            at.copy_from_slice(&stored.to_le_bytes());
        }
        any != 0
    }

    /// Takes in slot-state page `index`; says what is wrong with it if anything is.
    pub(super) fn decode(&mut self, index: u64, page: &Page) -> Result<(), String> {
        for (at, bytes) in page[HEADER_BYTES..].chunks_exact(8).enumerate() {
            let mut word = super::codec::u64_at(bytes, 0);
            while word != 0 {
                let lane = u64::from(word.trailing_zeros()) / 2;
                let slot = index * SLOTS_PER_PAGE + at as u64 * SLOTS_PER_WORD + lane;
                let state = Use::from_bits(word >> (2 * lane));
                if slot >= self.count || state == Use::Held {
                    return Err(format!(
                        "slot-state page {index} has slot {slot} in no valid state"
                    ));
                }
                self.set_loaded(PhysSlot(slot), state);
                word &= !(3 << (2 * lane));
            }
        }
        Ok(())
    }

    /// As [`Self::set`] of a free slot, without making its page dirty.
    fn set_loaded(&mut self, slot: PhysSlot, to: Use) {
        self.words[(slot.0 / SLOTS_PER_WORD) as usize] |=
            (to as u64) << (2 * (slot.0 % SLOTS_PER_WORD));
        self.totals[Use::Free as usize] -= 1;
        self.totals[to as usize] += 1;
        self.free_in_page[(slot.0 / SLOTS_PER_PAGE) as usize] -= 1;
    }

    /// Every slot in use `of`, ascending.
    pub(super) fn all(&self, of: Use) -> impl Iterator<Item = PhysSlot> {
        (0..self.count).map(PhysSlot).filter(move |slot| self.get(*slot) == Some(of))
    }
}
