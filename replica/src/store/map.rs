//! Looking slots up in the maps, and changing them.

use super::{
    MapRecord, PhysSlot, Store, StoreEvent, Work,
    cache::{Key, LEAF_RECORDS},
    key_detail,
    page::{HEADER_BYTES, PAGE_BYTES, check},
    read_result,
    record::RECORD_BYTES,
    slots::Use,
    token,
};
use holdfast_io::{DiskError, IoQueue, Op, OpResult};
use holdfast_types::{SlotNo, VolumeId};

/// What the store knows about a slot of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// This. (A tombstone is a record too.)
    Record(MapRecord),
    /// Never written.
    Absent,
    /// Its map leaf is not in memory: [`Store::load`] it and wait for
    /// [`StoreEvent::LeafLoaded`].
    Miss,
}

/// Number of a map leaf within a volume's map; see [`LeafNo::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeafNo(pub(crate) u64);

/// Slots that a map can have: what its leaves are numbered by.
pub(crate) const MAP_SLOTS_MAX: u64 = LEAF_RECORDS << super::LEAF_BITS;

impl LeafNo {
    /// The leaf that holds the record of `slot`.
    #[must_use]
    pub(crate) fn of(slot: SlotNo) -> Self {
        Self(slot.get() / LEAF_RECORDS)
    }
}

/// Where in its page the record of `slot` is.
fn record_at(slot: SlotNo) -> std::ops::Range<usize> {
    let at = HEADER_BYTES + (slot.get() % LEAF_RECORDS) as usize * RECORD_BYTES;
    at..at + RECORD_BYTES
}

/// The records of a leaf page, with the slots they belong to.
pub(super) fn leaf_records(leaf: u64, page: &[u8]) -> impl Iterator<Item = (SlotNo, MapRecord)> {
    let first = leaf * LEAF_RECORDS;
    (first..first + LEAF_RECORDS)
        .map(SlotNo::new)
        .filter_map(move |slot| Some((slot, MapRecord::decode(&page[record_at(slot)])?)))
}

impl Store {
    fn key(&self, volume: VolumeId, slot: SlotNo) -> Key {
        let Some(index) = self.volumes.index(volume) else {
            unreachable!("volume {volume} is not on this disk");
        };
        (index, LeafNo::of(slot).0)
    }

    fn has_leaf(&self, (volume, leaf): Key) -> bool {
        self.volumes.get(volume).is_some_and(|volume| !volume.map.leaf(leaf).is_none())
    }

    /// What the map says about a slot. No allocation, no I/O.
    ///
    /// # Panics
    /// If the volume is not here.
    pub(crate) fn lookup(&mut self, volume: VolumeId, slot: SlotNo) -> Lookup {
        let key = self.key(volume, slot);
        if let Some(page) = self.cache.get(key) {
            return MapRecord::decode(&page[record_at(slot)])
                .map_or(Lookup::Absent, Lookup::Record);
        }
        if self.has_leaf(key) { Lookup::Miss } else { Lookup::Absent }
    }

    /// The lowest slot at or above `from` whose map leaf exists, be it mapped or not.
    ///
    /// # Panics
    /// If the volume is not here.
    pub(crate) fn next_leaf(&self, volume: VolumeId, from: SlotNo) -> Option<SlotNo> {
        let (index, leaf) = self.key(volume, from);
        let next = self.volumes.get(index)?.map.next_leaf(leaf)?;
        Some(from.max(SlotNo::new(next * LEAF_RECORDS)))
    }

    /// Fetches the leaf of `slot` into memory; queued by the next [`Self::flush`].
    /// Calls for a leaf that is already on its way are merged into one event.
    ///
    /// # Panics
    /// If [`Self::lookup`] would not say [`Lookup::Miss`].
    pub(crate) fn load(&mut self, volume: VolumeId, slot: SlotNo) {
        let key = self.key(volume, slot);
        assert!(!self.cache.contains(key) && self.has_leaf(key), "load of a leaf without a miss");
        if self.loads.insert(key, volume).is_none() {
            self.load_queue.push(key);
        }
    }

    pub(super) fn flush_loads(&mut self, queue: &mut IoQueue) {
        while let Some(key) = self.load_queue.pop() {
            self.push_leaf_read(queue, Work::Load, key);
        }
    }

    /// Queues the read of a leaf; of nothing at all if it has gone meanwhile,
    /// which the check of what is read will find.
    pub(super) fn push_leaf_read(&self, queue: &mut IoQueue, work: Work, key: Key) {
        let page = self.volumes.get(key.0).map_or(0, |volume| volume.map.leaf(key.1).page);
        queue.push(
            token(work, key_detail(key)),
            Op::Read {
                file: self.files.data,
                offset: self.superblock.page_offset(page),
                buf: self.pool.alloc(PAGE_BYTES),
            },
        );
    }

    pub(super) fn loaded(
        &mut self,
        key: Key,
        result: Result<OpResult, DiskError>,
    ) -> Option<StoreEvent> {
        let Some(volume) = self.loads.remove(&key) else { unreachable!("load nobody asked for") };
        let leaf = LeafNo(key.1);
        let failed = |error| Some(StoreEvent::LeafFailed { volume, leaf, error });
        let page = match result {
            Ok(result) => read_result(result),
            Err(error) => return failed(Some(error)),
        };
        if !self.cache.contains(key) {
            if let Err(why) = self.check_leaf(key, volume, &page) {
                tracing::warn!(%volume, "{why}");
                return failed(None);
            }
            self.cache.insert(key, Some(&page), true);
        }
        Some(StoreEvent::LeafLoaded { volume, leaf })
    }

    /// Whether `page` is the current version of a leaf of `volume`, and names
    /// no slot that the slot states give to something else.
    pub(super) fn check_leaf(&self, key: Key, volume: VolumeId, page: &[u8]) -> Result<(), String> {
        match self.volumes.get(key.0) {
            Some(here) if here.state.volume == volume => {
                check(page, &here.map.identity(0, key.1), here.map.leaf(key.1))?;
            }
            _ => return Err("the volume was removed while its map was read".to_owned()),
        }
        let mut places = leaf_records(key.1, page).filter_map(|(_, record)| record.phys);
        match places.find(|phys| self.slots.get(*phys) != Some(Use::Data)) {
            Some(phys) => Err(format!("the map names slot {}, which holds no data", phys.0)),
            None => Ok(()),
        }
    }

    /// Keeps the leaf of `slot`, which must be in memory or absent, in memory. Counted.
    pub(crate) fn pin(&mut self, volume: VolumeId, slot: SlotNo) {
        let key = self.key(volume, slot);
        self.make_resident(key);
        self.cache.pin(key);
    }

    /// Takes one [`Self::pin`] back.
    pub(crate) fn unpin(&mut self, volume: VolumeId, slot: SlotNo) {
        let key = self.key(volume, slot);
        self.cache.unpin(key);
    }

    fn make_resident(&mut self, key: Key) {
        if !self.cache.contains(key) {
            assert!(!self.has_leaf(key), "leaf {key:?} is not in memory");
            self.cache.insert(key, None, false);
        }
    }

    /// Replaces the record of a slot. The place that the old record named, when
    /// the new one names another, is freed (deferred); the new place must have
    /// come from [`Self::alloc_run`] or [`Self::mark_used`]. A discard of what
    /// [`Lookup::Absent`] says was never written needs no tombstone, and must
    /// not leave one: map pages are paid for by the slots that they map.
    ///
    /// # Panics
    /// If [`Self::lookup`] would say [`Lookup::Miss`]; while a checkpoint runs.
    pub(crate) fn update(&mut self, volume: VolumeId, slot: SlotNo, record: Option<MapRecord>) {
        assert!(self.checkpoint.is_none(), "a checkpoint runs");
        let key = self.key(volume, slot);
        self.make_resident(key);
        let Some(page) = self.cache.get_mut(key) else { unreachable!("just made resident") };
        let at = &mut page[record_at(slot)];
        let old = MapRecord::decode(at).and_then(|old| old.phys);
        match &record {
            Some(record) => record.encode(at),
            None => at.fill(0),
        }
        self.touch_leaf(key);
        self.replace_place(old, record.and_then(|record| record.phys));
    }

    fn touch_leaf(&mut self, (index, leaf): Key) {
        let Some(volume) = self.volumes.get_mut(index) else { unreachable!("keys name volumes") };
        let before = volume.map.dirty_pages();
        volume.map.touch(leaf);
        self.map_dirty += (volume.map.dirty_pages() - before) as u64;
        self.volumes.dirty.insert(index);
    }

    fn replace_place(&mut self, old: Option<PhysSlot>, new: Option<PhysSlot>) {
        if old == new {
            return;
        }
        if let Some(new) = new {
            assert_eq!(self.slots.get(new), Some(Use::Held), "slot {} was not taken", new.0);
            self.slots.set(new, Use::Data);
        }
        if let Some(old) = old {
            self.slots.set(old, Use::Held);
            self.free_deferred(old);
        }
    }
}
