//! Removing a replica: its map is walked leaf by leaf, each leaf's slots are
//! freed and the leaf is dropped, a few at a time between checkpoints. The
//! volume's page says that it is being removed, so a restart goes on where the
//! last checkpoint left off; when no leaf is left, the page goes too.

use super::{
    PhysSlot, Store, Work, cache::Key, map::leaf_records, read_result, slots::Use, volume::Volumes,
};
use holdfast_io::{BufMut, DiskError, IoQueue, OpResult};
use std::collections::BTreeMap;

/// Leaves being read, or read and not yet freed, at most: background work that
/// leaves the device to others.
const READS_MAX: usize = 8;
/// Leaves freed per turn at most, so that a turn stays short.
const LEAVES_PER_TURN: usize = 32;
/// Slots waiting for a checkpoint at most (8 MiB of memory) before removal pauses.
const DEFERRED_MAX: usize = 1 << 20;

struct Removal {
    /// All leaves below are freed or being read.
    next: u64,
    reads: usize,
    /// Nothing is left of the map: the next checkpoint drops the volume.
    finished: bool,
    /// A leaf could not be read: what it maps is unknown, so nothing more is
    /// freed until the disk is opened again.
    stuck: bool,
}

/// The replicas being removed, by their index in the catalogue.
pub(super) struct Removals {
    running: BTreeMap<u32, Removal>,
    /// Leaves that were read while a checkpoint ran.
    waiting: Vec<(Key, BufMut)>,
}

impl Removals {
    /// Those that a restart found half done.
    pub(super) fn new(volumes: &Volumes) -> Self {
        let mut this = Self { running: BTreeMap::new(), waiting: Vec::new() };
        for (index, volume) in volumes.iter() {
            if volume.removing {
                this.add(index);
            }
        }
        this
    }

    pub(super) fn add(&mut self, index: u32) {
        let removal = Removal { next: 0, reads: 0, finished: false, stuck: false };
        self.running.insert(index, removal);
    }

    pub(super) fn forget(&mut self, index: u32) {
        self.running.remove(&index);
    }

    pub(super) fn is_finished(&self, index: u32) -> bool {
        self.running.get(&index).is_some_and(|removal| removal.finished)
    }

    /// Whether no read is under way.
    pub(super) fn is_waiting(&self) -> bool {
        self.reads() == 0 && self.waiting.is_empty()
    }

    fn reads(&self) -> usize {
        self.running.values().map(|removal| removal.reads).sum()
    }
}

impl Store {
    /// Whether replicas are still being removed: checkpoints are wanted, since
    /// removal pauses when [`Self::dirty_bytes`] reaches [`Self::dirty_limit`]
    /// or many slots wait for one, and the last step is one.
    pub(crate) fn is_removing(&self) -> bool {
        self.removals.running.values().any(|removal| !removal.stuck)
    }

    /// Frees what can be freed and queues reads. While a checkpoint runs it only
    /// reads ahead, for maps do not change then.
    pub(super) fn flush_removals(&mut self, queue: &mut IoQueue) {
        if self.removals.running.is_empty() {
            return;
        }
        if self.checkpoint.is_none() {
            self.step_removals();
        }
        let mut turn = LEAVES_PER_TURN;
        let indexes: Vec<u32> = self.removals.running.keys().copied().collect();
        for index in indexes {
            while turn > 0
                && self.dirty_bytes() < self.dirty_limit()
                && self.deferred.len() < DEFERRED_MAX
                && self.remove_next(index, queue)
            {
                turn -= 1;
            }
        }
    }

    /// Frees the leaves that were read and finishes what has none left. Part of
    /// every checkpoint's beginning, so that checkpoints in a row starve no removal.
    pub(super) fn step_removals(&mut self) {
        for (key, page) in std::mem::take(&mut self.removals.waiting) {
            self.free_read_leaf(key, &page);
        }
        self.free_cached_leaves();
        for (index, removal) in &mut self.removals.running {
            let Some(volume) = self.volumes.get(*index) else { continue };
            let is_done = volume.map.next_leaf(removal.next).is_none()
                && removal.reads == 0
                // A load under way still answers under the volume's index.
                && !self.loads.keys().any(|key| key.0 == *index);
            if is_done && !removal.stuck && !removal.finished {
                removal.finished = true;
                self.volumes.dirty.insert(*index);
            }
        }
    }

    /// Frees the leaves that come next and are in memory: those are not read, and
    /// when checkpoints follow each other at once, this is the only time for it.
    fn free_cached_leaves(&mut self) {
        let mut turn = LEAVES_PER_TURN;
        let indexes: Vec<u32> = self.removals.running.keys().copied().collect();
        for index in indexes {
            while turn > 0
                && self.dirty_bytes() < self.dirty_limit()
                && self.deferred.len() < DEFERRED_MAX
                && self.free_cached_leaf(index)
            {
                turn -= 1;
            }
        }
    }

    fn free_cached_leaf(&mut self, index: u32) -> bool {
        let Some(removal) = self.removals.running.get_mut(&index) else { return false };
        let Some(volume) = self.volumes.get(index) else { return false };
        if removal.stuck || removal.finished {
            return false;
        }
        let Some(leaf) = volume.map.next_leaf(removal.next) else { return false };
        let key = (index, leaf);
        let Some(page) = self.cache.peek(key) else { return false };
        if self.cache.is_pinned(key) {
            return false;
        }
        let page = *page;
        removal.next = leaf + 1;
        self.free_leaf(key, &page);
        true
    }

    /// Frees the next leaf of a volume if it is in memory, else queues its read;
    /// `false` if the volume has to wait or has none left.
    fn remove_next(&mut self, index: u32, queue: &mut IoQueue) -> bool {
        let reads = self.removals.reads() + self.removals.waiting.len();
        let Some(removal) = self.removals.running.get_mut(&index) else { return false };
        let Some(volume) = self.volumes.get(index) else { return false };
        if removal.stuck || removal.finished {
            return false;
        }
        let Some(leaf) = volume.map.next_leaf(removal.next) else { return false };
        let key = (index, leaf);
        if self.cache.peek(key).is_some() {
            return self.checkpoint.is_none() && self.free_cached_leaf(index);
        }
        if reads >= READS_MAX {
            return false;
        }
        removal.next = leaf + 1;
        removal.reads += 1;
        self.push_leaf_read(queue, Work::ReadRemoved, key);
        true
    }

    pub(super) fn removed_leaf_read(&mut self, key: Key, result: Result<OpResult, DiskError>) {
        let Some(removal) = self.removals.running.get_mut(&key.0) else {
            unreachable!("a removal ends after its reads")
        };
        removal.reads -= 1;
        match result {
            // Maps do not change while a checkpoint runs.
            Ok(result) => self.removals.waiting.push((key, read_result(result))),
            Err(error) => {
                removal.stuck = true;
                tracing::warn!("removal of a volume stopped: {error}");
            }
        }
    }

    fn free_read_leaf(&mut self, key: Key, page: &[u8]) {
        let Some(volume) = self.volumes.get(key.0) else { unreachable!("removals name volumes") };
        let id = volume.state.volume;
        match self.check_leaf(key, id, page) {
            Ok(()) => self.free_leaf(key, page),
            Err(why) => {
                tracing::warn!(volume = %id, "removal stopped: {why}");
                if let Some(removal) = self.removals.running.get_mut(&key.0) {
                    removal.stuck = true;
                }
            }
        }
    }

    fn free_leaf(&mut self, key: Key, page: &[u8]) {
        let places = leaf_records(key.1, page).filter_map(|(_, record)| record.phys);
        for place in places {
            self.free_mapped(place);
        }
        self.cache.remove(key);
        let Some(volume) = self.volumes.get_mut(key.0) else {
            unreachable!("removals name volumes")
        };
        let before = volume.map.dirty_pages() as u64;
        let old = volume.map.remove_leaf(key.1);
        self.map_dirty = self.map_dirty + volume.map.dirty_pages() as u64 - before;
        if !old.is_none() {
            self.freed_pages.push(old.page);
        }
        self.volumes.dirty.insert(key.0);
    }

    fn free_mapped(&mut self, place: PhysSlot) {
        self.slots.set(place, Use::Held);
        self.free_deferred(place);
    }
}
