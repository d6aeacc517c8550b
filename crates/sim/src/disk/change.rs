//! What an operation changes in a file, kept until it is on stable storage, so
//! that a power cut can decide its fate sector by sector.

use super::image::{Image, PAGE_SECTORS, PageData};

/// A change of one file.
#[derive(Clone)]
pub(super) struct Change {
    /// Number of the completion that ended it; a sync submitted later covers it.
    pub(super) completed_at: u64,
    /// First page.
    pub(super) first: u64,
    /// What becomes of the pages from there on.
    pub(super) pages: Vec<PageChange>,
    /// A sync that should have covered it failed: no later sync makes it durable.
    pub(super) doomed: bool,
    /// In flight, and a read has seen some of it: its user's death does not undo it.
    pub(super) seen: bool,
}

/// What becomes of one page.
#[derive(Clone)]
pub(super) enum PageChange {
    /// Nothing, or nothing any more: a later change is already durable.
    Nothing,
    /// New content.
    Write(PageData),
    /// Its space is given back.
    Punch,
    /// It gets space of its own.
    Allocate,
}

impl Change {
    pub(super) fn new(first: u64, pages: Vec<PageChange>) -> Self {
        Self { completed_at: u64::MAX, first, pages, doomed: false, seen: false }
    }

    /// The page after the last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.pages.len() as u64
    }

    pub(super) fn overlaps(&self, first: u64, end: u64) -> bool {
        self.first < end && first < self.end()
    }

    /// It gives space and nothing else.
    pub(super) fn is_allocation(&self) -> bool {
        self.pages.iter().all(|page| matches!(page, PageChange::Allocate))
    }

    /// Sectors that it spans.
    pub(super) fn sectors(&self) -> u64 {
        (self.pages.len() * PAGE_SECTORS) as u64
    }

    /// Carries it out on `image`, as far as `keep` says for each sector, counted
    /// from the change's start. Space is given or taken for whole pages.
    pub(super) fn apply(&self, image: &mut Image, mut keep: impl FnMut(u64) -> bool) {
        for (index, page) in self.pages.iter().enumerate() {
            let base = (index * PAGE_SECTORS) as u64;
            let number = self.first + index as u64;
            match page {
                PageChange::Nothing => {}
                PageChange::Write(data) => {
                    let sectors = (0..PAGE_SECTORS)
                        .filter(|sector| keep(base + *sector as u64))
                        .fold(0u8, |mask, sector| mask | 1 << sector);
                    image.set_sectors(number, data, sectors);
                }
                PageChange::Punch if keep(base) => image.punch(number),
                PageChange::Allocate if keep(base) => image.allocate(number),
                PageChange::Punch | PageChange::Allocate => {}
            }
        }
    }

    /// Carries it out on `image` in full.
    pub(super) fn apply_all(&self, image: &mut Image) {
        self.apply(image, |_| true);
    }

    /// Forgets the pages that `newer`, now durable, has replaced.
    pub(super) fn superseded_by(&mut self, newer: &Change) {
        for number in self.first.max(newer.first)..self.end().min(newer.end()) {
            let replaces = matches!(
                newer.pages[(number - newer.first) as usize],
                PageChange::Write(_) | PageChange::Punch
            );
            if replaces {
                self.pages[(number - self.first) as usize] = PageChange::Nothing;
            }
        }
    }
}
