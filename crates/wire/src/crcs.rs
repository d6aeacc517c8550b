//! The checksums of a record's blocks. A few stand in the record itself; more are shared by
//! all of its clones (one for each member of a replica set), in lists that are used again.

use holdfast_types::RECORD_BLOCKS_MAX;
use std::{cell::RefCell, fmt, ops::Deref, rc::Rc};

/// So many stand in the record: what a random write has.
const INLINE: usize = 4;
/// Lists that a thread keeps: about as many as a round gives back that applies records of a
/// slot each (some 280 KiB in all).
const SPARE_MAX: usize = 1024;

/// Room for any record's.
#[derive(Clone)]
struct List {
    len: usize,
    crcs: [u32; RECORD_BLOCKS_MAX],
}

thread_local! {
    /// Nobody else has them.
    static SPARE: RefCell<Vec<Rc<List>>> = const { RefCell::new(Vec::new()) };
}

/// Checksums of a record's blocks, in address order.
#[derive(Clone)]
pub struct BlockCrcs(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u32; INLINE]),
    Shared(Rc<List>),
}

impl BlockCrcs {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::Inline(0, [0; INLINE]))
    }

    /// `count` times the same.
    #[must_use]
    pub fn from_elem(crc: u32, count: usize) -> Self {
        std::iter::repeat_n(crc, count).collect()
    }

    /// Adds that of the next block.
    ///
    /// # Panics
    /// If these are those of [`RECORD_BLOCKS_MAX`] blocks already.
    pub fn push(&mut self, crc: u32) {
        match &mut self.0 {
            Repr::Inline(len, crcs) if usize::from(*len) < INLINE => {
                crcs[usize::from(*len)] = crc;
                *len += 1;
            }
            Repr::Inline(_, crcs) => {
                let spare = SPARE.with_borrow_mut(Vec::pop);
                let new = || Rc::new(List { len: 0, crcs: [0; RECORD_BLOCKS_MAX] });
                let mut shared = spare.unwrap_or_else(new);
                let list = Rc::make_mut(&mut shared);
                list.crcs[..INLINE].copy_from_slice(crcs);
                list.crcs[INLINE] = crc;
                list.len = INLINE + 1;
                self.0 = Repr::Shared(shared);
            }
            Repr::Shared(list) => {
                let list = Rc::make_mut(list);
                list.crcs[list.len] = crc;
                list.len += 1;
            }
        }
    }
}

impl<'a> IntoIterator for &'a BlockCrcs {
    type Item = &'a u32;
    type IntoIter = std::slice::Iter<'a, u32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Extend<u32> for BlockCrcs {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, crcs: I) {
        crcs.into_iter().for_each(|crc| self.push(crc));
    }
}

impl Default for BlockCrcs {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for BlockCrcs {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            Repr::Inline(len, crcs) => &crcs[..usize::from(*len)],
            Repr::Shared(list) => &list.crcs[..list.len],
        }
    }
}

impl FromIterator<u32> for BlockCrcs {
    fn from_iter<I: IntoIterator<Item = u32>>(crcs: I) -> Self {
        let mut all = Self::new();
        all.extend(crcs);
        all
    }
}

impl PartialEq for BlockCrcs {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for BlockCrcs {}

impl fmt::Debug for BlockCrcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Drop for BlockCrcs {
    fn drop(&mut self) {
        let last = std::mem::replace(&mut self.0, Repr::Inline(0, [0; INLINE]));
        let Repr::Shared(mut list) = last else { return };
        if Rc::get_mut(&mut list).is_none() {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(list);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn they_are_what_was_put_in() {
        for count in 0..20 {
            let crcs: BlockCrcs = (0..count).collect();
            assert!(crcs.iter().copied().eq(0..count));
            assert_eq!(BlockCrcs::from_elem(3, count as usize)[..], vec![3; count as usize]);
        }
    }

    #[test]
    fn clones_share_a_list_and_part_when_one_changes() {
        let first: BlockCrcs = (0..6).collect();
        let mut second = first.clone();
        assert_eq!(first.as_ptr(), second.as_ptr());
        second.push(6);
        assert_eq!(
            (&first[..], &second[..]),
            (&[0, 1, 2, 3, 4, 5][..], &[0, 1, 2, 3, 4, 5, 6][..])
        );
    }

    #[test]
    fn a_list_is_used_again_when_its_last_owner_is_gone() {
        let first: BlockCrcs = (0..64).collect();
        let place = first.as_ptr();
        let second = first.clone();
        let before = kept();
        drop(first);
        assert_eq!(kept(), before, "someone still has it");
        drop(second);
        assert_eq!(kept(), before + 1);
        let third: BlockCrcs = (7..50).collect();
        assert_eq!((third.as_ptr(), kept()), (place, before));
        assert!(third.iter().copied().eq(7..50));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let all: Vec<BlockCrcs> = (0..2 * SPARE_MAX).map(|_| (0..5).collect()).collect();
        drop(all);
        assert_eq!(kept(), SPARE_MAX);
    }
}
