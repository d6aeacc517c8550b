//! Where metadata pages lie: the slots that are split into pages, and which of
//! their pages no tree names.

use super::page::SLOT_PAGES;
use std::collections::{BTreeMap, BTreeSet};

const ALL_FREE: u16 = u16::MAX;

/// The metadata pages of a disk.
#[derive(Default)]
pub(super) struct PagePool {
    /// Meta slot → free pages in it.
    slots: BTreeMap<u64, u16>,
    /// Meta slots with a free page.
    open: BTreeSet<u64>,
    /// Meta slots with nothing but free pages.
    empty: BTreeSet<u64>,
    free: u64,
}

impl PagePool {
    /// Pages that can be taken.
    pub(super) fn free(&self) -> u64 {
        self.free
    }

    /// Pages in use.
    pub(super) fn used(&self) -> u64 {
        self.slots.len() as u64 * SLOT_PAGES - self.free
    }

    /// Splits a slot that was just given over to metadata.
    pub(super) fn add_slot(&mut self, slot: u64) {
        let old = self.slots.insert(slot, ALL_FREE);
        assert!(old.is_none(), "slot {slot} is metadata already");
        self.open.insert(slot);
        self.empty.insert(slot);
        self.free += SLOT_PAGES;
    }

    /// Takes the lowest free page: packs metadata into low slots, so that
    /// others become empty.
    pub(super) fn take(&mut self) -> Option<u64> {
        let slot = *self.open.first()?;
        let Some(mask) = self.slots.get(&slot) else { unreachable!("open slots exist") };
        let page = slot * SLOT_PAGES + u64::from(mask.trailing_zeros());
        let taken = self.claim(page);
        assert!(taken, "an open slot has a free page");
        Some(page)
    }

    /// Takes this page; `false` if it is not there or taken already.
    pub(super) fn claim(&mut self, page: u64) -> bool {
        let (slot, bit) = (page / SLOT_PAGES, 1u16 << (page % SLOT_PAGES));
        let Some(mask) = self.slots.get_mut(&slot) else { return false };
        if *mask & bit == 0 {
            return false;
        }
        *mask &= !bit;
        self.free -= 1;
        self.empty.remove(&slot);
        if *mask == 0 {
            self.open.remove(&slot);
        }
        true
    }

    /// Gives a page back.
    pub(super) fn give(&mut self, page: u64) {
        let (slot, bit) = (page / SLOT_PAGES, 1u16 << (page % SLOT_PAGES));
        let Some(mask) = self.slots.get_mut(&slot) else {
            unreachable!("page {page} is not metadata")
        };
        assert_eq!(*mask & bit, 0, "page {page} is free already");
        *mask |= bit;
        self.free += 1;
        self.open.insert(slot);
        if *mask == ALL_FREE {
            self.empty.insert(slot);
        }
    }

    pub(super) fn is_empty_slot(&self, slot: u64) -> bool {
        self.empty.contains(&slot)
    }

    /// Stops using an empty slot for metadata.
    pub(super) fn remove_slot(&mut self, slot: u64) {
        assert!(self.empty.remove(&slot), "slot {slot} still has pages");
        self.open.remove(&slot);
        self.slots.remove(&slot);
        self.free -= SLOT_PAGES;
    }

    /// The highest empty slot, if more than `keep` pages stay free without it.
    pub(super) fn surplus(&self, keep: u64) -> Option<u64> {
        (self.free >= keep + SLOT_PAGES).then(|| self.empty.last().copied()).flatten()
    }
}
