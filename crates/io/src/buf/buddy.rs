//! Which pages of an arena are free: a buddy allocator over page numbers. It
//! knows nothing of memory, so all of it is safe code.
//!
//! A run of pages is cut from the smallest free block that holds it, and what
//! is left of that block behind the run stays free. Freeing decomposes the run
//! into aligned power-of-two blocks and merges each with its free buddies.
//! Free blocks of an order form a doubly linked list through the page table:
//! every step is O(orders), nothing allocates after construction.

/// A free block has at most 2^6 pages, 256 KiB: the payload of one record.
pub(super) const ORDER_MAX: usize = 6;

/// Pages in the longest run that can be allocated.
pub(super) const RUN_PAGES_MAX: u32 = 1 << ORDER_MAX;

const NONE: u32 = u32::MAX;

/// State of a page that does not start a free block.
const NO_BLOCK: u8 = u8::MAX;

#[derive(Clone, Copy)]
struct Page {
    /// Order of the free block that starts here, or [`NO_BLOCK`].
    order: u8,
    /// Neighbours in the list of its order.
    next: u32,
    prev: u32,
}

pub(super) struct Buddy {
    pages: Box<[Page]>,
    /// First free block of each order.
    heads: [u32; ORDER_MAX + 1],
    used: u32,
}

impl Buddy {
    pub(super) fn new(pages: u32) -> Self {
        let page = Page { order: NO_BLOCK, next: NONE, prev: NONE };
        let mut buddy = Self {
            pages: vec![page; pages as usize].into_boxed_slice(),
            heads: [NONE; ORDER_MAX + 1],
            used: pages,
        };
        buddy.free(0, pages);
        buddy
    }

    /// Pages handed out.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// The first page of a free run of `count` ≤ [`RUN_PAGES_MAX`] pages.
    pub(super) fn alloc(&mut self, count: u32) -> Option<u32> {
        assert!((1..=RUN_PAGES_MAX).contains(&count), "run of {count} pages");
        let wanted = count.next_power_of_two().trailing_zeros() as usize;
        let order = (wanted..=ORDER_MAX).find(|&order| self.heads[order] != NONE)?;
        let first = self.heads[order];
        self.unlink(first);
        let whole = 1u32 << order;
        self.used += whole;
        self.free(first + count, whole - count);
        Some(first)
    }

    /// Takes back the run of `count` pages from `first`.
    pub(super) fn free(&mut self, first: u32, count: u32) {
        assert!(count <= self.used, "freeing more than is in use");
        self.used -= count;
        let (mut at, end) = (first, first + count);
        while at < end {
            let aligned = if at == 0 { ORDER_MAX as u32 } else { at.trailing_zeros() };
            let fits = (end - at).ilog2();
            let order = aligned.min(fits).min(ORDER_MAX as u32);
            self.free_block(at, order as usize);
            at += 1 << order;
        }
    }

    fn free_block(&mut self, mut at: u32, mut order: usize) {
        assert_eq!(self.pages[at as usize].order, NO_BLOCK, "page {at} freed twice");
        while order < ORDER_MAX {
            let buddy = at ^ (1 << order);
            match self.pages.get(buddy as usize) {
                Some(page) if page.order as usize == order => self.unlink(buddy),
                _ => break,
            }
            at = at.min(buddy);
            order += 1;
        }
        let next = self.heads[order];
        self.pages[at as usize] = Page { order: order as u8, next, prev: NONE };
        if next != NONE {
            self.pages[next as usize].prev = at;
        }
        self.heads[order] = at;
    }

    fn unlink(&mut self, at: u32) {
        let Page { order, next, prev } = self.pages[at as usize];
        self.pages[at as usize] = Page { order: NO_BLOCK, next: NONE, prev: NONE };
        match prev {
            NONE => self.heads[order as usize] = next,
            prev => self.pages[prev as usize].next = next,
        }
        if next != NONE {
            self.pages[next as usize].prev = prev;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_cut_block_stays_free() {
        let mut buddy = Buddy::new(64);
        let run = buddy.alloc(33).unwrap();
        assert_eq!(buddy.used(), 33);
        let rest = buddy.alloc(16).unwrap();
        assert_eq!(rest, run + 48, "the aligned half of what is left");
        assert!(buddy.alloc(16).is_none());
        assert!(buddy.alloc(15).is_none(), "15 pages are free, but no block holds them");
        assert!(buddy.alloc(8).is_some());
    }

    #[test]
    fn everything_merges_again_also_when_the_size_is_odd() {
        for pages in [1, 63, 64, 65, 200] {
            let mut buddy = Buddy::new(pages);
            let mut runs = Vec::new();
            while let Some(first) = buddy.alloc(1) {
                runs.push(first);
            }
            runs.sort_unstable();
            assert_eq!(runs, (0..pages).collect::<Vec<_>>());
            // Evens, then odds: every merge happens in the second pass.
            for parity in [0, 1] {
                runs.iter().filter(|p| *p % 2 == parity).for_each(|&p| buddy.free(p, 1));
            }
            assert_eq!(buddy.used(), 0);
            assert_eq!((0..).map_while(|_| buddy.alloc(64)).count() as u32, pages / 64);
        }
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn freeing_twice_is_noticed() {
        let mut buddy = Buddy::new(64);
        let (a, _b) = (buddy.alloc(1).unwrap(), buddy.alloc(1).unwrap());
        buddy.free(a, 1);
        buddy.free(a, 1);
    }
}
