//! Space: giving slots out and taking them back, what has to stay free for
//! metadata, and the growth of the data file.

use super::{
    PhysSlot, Store, Work,
    cache::LEAF_RECORDS,
    page::{PAGE_BYTES, SLOT_PAGES},
    slots::Use,
    superblock::Superblock,
    token,
    tree::FANOUT,
};
use holdfast_io::{DiskError, DiskErrorKind, FileId, IoQueue, Op, OpResult};
use holdfast_types::{
    DISCARD_SLOTS_MAX, SLOT_BYTES,
    mutant::{self, Mutant},
};

/// Free pages that a checkpoint may need beyond those counted as dirty: upper
/// levels, and the slot-state pages that describe the slots it takes.
const PAGES_SLACK: u64 = 64;
/// Map leaves that one record changes at most: that of the largest discard, which
/// is applied whole, however much is dirty already.
const RECORD_PAGES_MAX: u64 = DISCARD_SLOTS_MAX.div_ceil(LEAF_RECORDS) + 1;
/// Dirty pages at most, as a part of the slots: a small disk must not keep more
/// room for checkpoints than it has for data.
const DIRTY_LIMIT_DIVISOR: u64 = 8;
/// But at least these, else rounds get too short to coalesce anything.
const DIRTY_LIMIT_MIN: u64 = 64;
/// In the worst case, each slot that is mapped alone brings a leaf and an
/// interior page of its own: ⅛ slot. So of nine free slots, eight are promised.
const PROMISED_OF: (u64, u64) = (8, 9);

/// The data file grows in steps of an eighth of its size, within these bounds:
/// few steps on a large disk, no waste on a small one (64 MiB … 1 GiB).
const GROWTH_SLOTS: std::ops::RangeInclusive<u64> = 1024..=16384;
/// A last step is tried with this when a full one does not fit (4 MiB).
const GROWTH_SLOTS_LAST: u64 = 64;

/// A run of free slots that was just taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhysRun {
    /// The lowest.
    pub(crate) start: PhysSlot,
    /// How many; at least one.
    pub(crate) count: u32,
}

/// How the data area grows.
pub(super) struct Growth {
    /// Slots it may have at most.
    capacity: u64,
    running: bool,
    /// The last full step did not fit: try small ones.
    tight: bool,
    /// Not even a small one did.
    no_space: bool,
    /// Someone waits for space, though there are free slots.
    wanted: bool,
}

impl Growth {
    pub(super) fn new(superblock: &Superblock, slots: u64) -> Self {
        let capacity = if superblock.device { slots } else { superblock.slot_capacity };
        Self { capacity, running: false, tight: false, no_space: false, wanted: false }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }
}

/// Slots that the data file of `slots` slots should grow by next.
pub(super) fn growth_step(slots: u64) -> u64 {
    (slots / 8).clamp(*GROWTH_SLOTS.start(), *GROWTH_SLOTS.end())
}

impl Store {
    /// Takes up to `max` contiguous free slots, fewer if no such run is near;
    /// `None` when only the headroom is left. They count as free on disk until
    /// [`Self::update`] puts them into a map.
    pub(crate) fn alloc_run(&mut self, max: u32) -> Option<PhysRun> {
        let spare = self.slots.total(Use::Free).saturating_sub(self.headroom());
        let max = u64::from(max).min(spare) as u32;
        if max == 0 {
            return None;
        }
        let run = self.slots.find_run(max)?;
        for slot in run.start.0..run.start.0 + u64::from(run.count) {
            self.slots.set(PhysSlot(slot), Use::Held);
        }
        Some(run)
    }

    /// Recovery: a WAL record names `phys`. Call for all before the first
    /// [`Self::alloc_run`]. `false` if the slot does not exist or is not free.
    pub(crate) fn mark_used(&mut self, phys: PhysSlot) -> bool {
        match self.slots.get(phys) {
            Some(Use::Free) => {}
            // Emptied by the last checkpoint and used again after it, before
            // another could say so on disk.
            Some(Use::Meta) if self.pages.is_empty_slot(phys.0) => {
                self.pages.remove_slot(phys.0);
            }
            _ => return false,
        }
        self.slots.set(phys, Use::Held);
        true
    }

    /// Gives back a slot from [`Self::alloc_run`] that no logged record names:
    /// allocatable at once.
    pub(crate) fn free_unused(&mut self, phys: PhysSlot) {
        assert_eq!(self.slots.get(phys), Some(Use::Held), "slot {} was not taken", phys.0);
        self.slots.set(phys, Use::Free);
    }

    /// Gives back a slot from [`Self::alloc_run`] or [`Self::mark_used`] that no
    /// map names: allocatable once the next checkpoint to begin is durable. That
    /// checkpoint's WAL start must lie above every record that names the slot.
    pub(crate) fn free_deferred(&mut self, phys: PhysSlot) {
        assert_eq!(self.slots.get(phys), Some(Use::Held), "slot {} was not taken", phys.0);
        if mutant::active(Mutant::SlotReusedBeforeCheckpoint) {
            return self.slots.set(phys, Use::Free);
        }
        self.deferred.push(phys);
    }

    /// Slots that can be promised: [`Self::alloc_run`] will give this many, and
    /// what maps and checkpoints need for them is there too.
    pub(crate) fn free_slots(&self) -> u64 {
        let (promised, of) = PROMISED_OF;
        self.slots.total(Use::Free).saturating_sub(self.headroom()) * promised / of
    }

    /// Slots freed that the checkpoint that runs and the next will make allocatable.
    pub(crate) fn deferred_slots(&self) -> u64 {
        let running = self.checkpoint.as_ref().map_or(0, |running| running.deferred.len());
        (self.deferred.len() + running) as u64
    }

    /// Free slots kept back for metadata pages, so that a checkpoint never lacks
    /// space: what one at the dirty limit needs, less the pages that are there.
    pub(crate) fn headroom(&self) -> u64 {
        self.pages_wanted().saturating_sub(self.pages_coming()).div_ceil(SLOT_PAGES)
    }

    /// Free pages that the next checkpoint may need.
    pub(super) fn pages_wanted(&self) -> u64 {
        let dirty = match self.checkpoint {
            Some(_) => self.volumes.dirty.len() as u64,
            None => self.dirty_pages(),
        };
        let most = dirty.max(self.dirty_limit_wanted() + RECORD_PAGES_MAX);
        most + most / 4 + PAGES_SLACK
    }

    /// Free pages that it will find.
    fn pages_coming(&self) -> u64 {
        match &self.checkpoint {
            Some(running) => (self.pages.free() + running.freed_pages.len() as u64)
                .saturating_sub(running.pages_to_write),
            None => self.pages.free(),
        }
    }

    /// Pages that a checkpoint would write now, an upper bound.
    pub(super) fn dirty_pages(&self) -> u64 {
        let volumes = self.volumes.dirty.len() as u64;
        let catalogue = match volumes {
            0 => 0,
            n => n.div_ceil(FANOUT) + self.volumes.catalogue.height() as u64,
        };
        self.map_dirty + volumes + catalogue + self.slots.tree.dirty_pages() as u64
    }

    /// The dirty limit that size and cache ask for.
    fn dirty_limit_wanted(&self) -> u64 {
        let by_slots = (self.slots.count() / DIRTY_LIMIT_DIVISOR).max(DIRTY_LIMIT_MIN);
        by_slots.min(self.cache.limit() as u64 / 2)
    }

    /// The dirty limit that there is space for: less than is wanted when a full
    /// disk is opened with a larger cache than it was filled with.
    fn dirty_limit_pages(&self) -> u64 {
        let pages = self.pages_coming() + self.slots.total(Use::Free) * SLOT_PAGES;
        self.dirty_limit_wanted().min(pages.saturating_sub(PAGES_SLACK) * 4 / 5)
    }

    /// Bytes of metadata that a checkpoint would write now.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty_pages() * PAGE_BYTES as u64
    }

    /// At [`Self::dirty_bytes`] at or above this, apply must stop and checkpoint.
    pub(crate) fn dirty_limit(&self) -> u64 {
        self.dirty_limit_pages() * PAGE_BYTES as u64
    }

    /// Whether the data file may still grow: not at its capacity, and the last
    /// attempt did not run out of space.
    pub(crate) fn can_grow(&self) -> bool {
        self.slots.count() < self.growth.capacity && !self.growth.no_space
    }

    /// Has the data file grow by a step, if it can, though there are free slots:
    /// they are spoken for.
    pub(crate) fn want_growth(&mut self) {
        // A step that is under way comes first.
        self.growth.wanted = !self.growth.running;
    }

    /// Lets growth be tried again after it ran out of space; for a slow timer.
    pub(crate) fn retry_growth(&mut self) {
        self.growth.no_space = false;
    }

    /// Whether the data area is large enough to have the slot.
    pub(crate) fn has_slot(&self, phys: PhysSlot) -> bool {
        self.slots.get(phys).is_some()
    }

    /// File and byte offset of a slot.
    pub(crate) fn place(&self, phys: PhysSlot) -> (FileId, u64) {
        (self.files.data, self.superblock.slot_offset(phys))
    }

    /// Starts a step of growth while more than a step's worth is still free, so
    /// that writers do not have to wait for it.
    pub(super) fn flush_growth(&mut self, queue: &mut IoQueue) {
        let slots = self.slots.count();
        let step = growth_step(slots);
        let plenty = self.slots.total(Use::Free) > 2 * step && !self.growth.wanted;
        if self.growth.running || !self.can_grow() || plenty {
            return;
        }
        self.growth.wanted = false;
        let step = if self.growth.tight { GROWTH_SLOTS_LAST } else { step };
        let to = (slots + step).min(self.growth.capacity);
        self.growth.running = true;
        queue.push(
            token(Work::Grow, to),
            Op::Allocate {
                file: self.files.data,
                offset: self.superblock.slot_offset(PhysSlot(slots)),
                len: (to - slots) * SLOT_BYTES as u64,
            },
        );
    }

    pub(super) fn grown(&mut self, to: u64, result: Result<OpResult, DiskError>) {
        self.growth.running = false;
        match result {
            Ok(_) => {
                self.slots.grow(to);
                tracing::debug!(slots = to, "data file grew");
            }
            Err(error) if error.kind == DiskErrorKind::NoSpace => {
                // A full disk is no fault: it only grows no further.
                self.growth.no_space = self.growth.tight;
                self.growth.tight = !self.growth.tight;
            }
            Err(error) => self.fail(error),
        }
    }

    /// Makes at least as many pages free as a checkpoint of what is dirty now
    /// needs; `false` if there are not enough slots. Each slot taken may dirty a
    /// slot-state page and those above it, but brings more pages than that.
    pub(super) fn reserve_pages(&mut self) -> bool {
        while self.pages.free() < self.pages_to_write() {
            let Some(run) = self.slots.find_run(1) else { return false };
            self.slots.set(run.start, Use::Meta);
            self.pages.add_slot(run.start.0);
        }
        true
    }

    /// Pages that are to be written now, an upper bound.
    pub(super) fn pages_to_write(&self) -> u64 {
        self.map_dirty
            + (self.volumes.catalogue.dirty_pages() + self.slots.tree.dirty_pages()) as u64
    }

    /// Ends a checkpoint's part of space: what it freed can be used, and
    /// metadata slots that became empty go back unless they will be wanted. Empties both lists.
    pub(super) fn release(&mut self, pages: &mut Vec<u64>, slots: &mut Vec<PhysSlot>) {
        for page in pages.drain(..) {
            self.pages.give(page);
        }
        for slot in slots.drain(..) {
            self.slots.set(slot, Use::Free);
        }
        while let Some(slot) = self.pages.surplus(self.pages_wanted()) {
            self.pages.remove_slot(slot);
            self.slots.set(PhysSlot(slot), Use::Free);
        }
        self.growth.no_space = false;
        self.growth.tight = false;
    }
}
