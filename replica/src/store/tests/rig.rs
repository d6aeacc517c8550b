//! A store on a test disk beside a model of what it must hold.

use super::super::*;
use super::disk::{Rng, TestDisk};
use holdfast_io::Op;
use holdfast_types::{
    BLOCK_BYTES, BlockNo, Epoch, HistoryId, Lsn, ReplicaId, SLOT_BLOCKS, SLOT_BYTES, SlotNo,
    block_crc, bound_crc,
};
use std::collections::BTreeMap;

pub(super) const CACHE_BYTES: u64 = 64 * 4096;

pub(super) fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 512 * 1024, segments: 4, capacity_bytes: None }
}

pub(super) fn volume_state(id: u128) -> VolumeState {
    VolumeState {
        volume: VolumeId::from_u128(id),
        replica: ReplicaId::from_u128(id + 1000),
        history: HistoryId::from_u128(id + 2000),
        blocks: 1 << 20,
        applied: Lsn::ZERO,
        fetched: Lsn::ZERO,
        applied_epoch: Epoch::ZERO,
        promised: Epoch::new(1),
        suspect: false,
        epochs: Vec::new(),
    }
}

/// Everything that one checkpoint must make durable.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) volumes: BTreeMap<VolumeId, VolumeState>,
    pub(super) maps: BTreeMap<VolumeId, BTreeMap<u64, MapRecord>>,
}

pub(super) struct Rig {
    pub(super) disk: TestDisk,
    pub(super) store: Store,
    pub(super) log: LogInfo,
    pub(super) model: Model,
    pub(super) events: Vec<StoreEvent>,
    lsn: u64,
}

impl Rig {
    pub(super) fn new(mut disk: TestDisk) -> Self {
        Store::format(&mut disk, &options()).unwrap();
        Self::open(disk)
    }

    pub(super) fn open(mut disk: TestDisk) -> Self {
        let (store, log) = Store::open(&mut disk, BufPool::new(1 << 20), CACHE_BYTES).unwrap();
        Self { disk, store, log, model: Model::default(), events: Vec::new(), lsn: 0 }
    }

    pub(super) fn add(&mut self, id: u128) -> VolumeId {
        let state = volume_state(id);
        let volume = state.volume;
        assert!(self.store.add_volume(state.clone()));
        self.model.volumes.insert(volume, state);
        self.model.maps.insert(volume, BTreeMap::new());
        volume
    }

    pub(super) fn remove(&mut self, volume: VolumeId) {
        assert!(self.store.remove_volume(volume));
        self.model.volumes.remove(&volume);
        self.model.maps.remove(&volume);
    }

    /// One turn: queue, carry out, take in. `false` when nothing is in flight.
    pub(super) fn turn(&mut self) -> bool {
        let mut queue = IoQueue::new();
        self.store.flush(&mut queue);
        self.disk.submit(&mut queue);
        let mut done = Vec::new();
        self.disk.wait(&mut done);
        for completion in done {
            self.store.complete(completion, &mut self.events);
        }
        self.disk.in_flight() > 0
    }

    pub(super) fn idle(&mut self) {
        while self.turn() || !self.store.is_idle() {}
    }

    pub(super) fn checkpoint(&mut self) {
        self.store.begin_checkpoint(self.log);
        while self.store.checkpoint.is_some() {
            self.turn();
        }
        assert!(self.store.failure.is_none(), "{:?}", self.store.failure);
    }

    pub(super) fn lookup(&mut self, volume: VolumeId, slot: u64) -> Lookup {
        let slot = SlotNo::new(slot);
        loop {
            match self.store.lookup(volume, slot) {
                Lookup::Miss => {
                    self.store.load(volume, slot);
                    while !self.events.iter().any(|event| {
                        matches!(
                            event,
                            StoreEvent::LeafLoaded { .. } | StoreEvent::LeafFailed { .. }
                        )
                    }) {
                        self.turn();
                    }
                    if let Some(StoreEvent::LeafFailed { .. }) = self.events.pop() {
                        return Lookup::Miss;
                    }
                }
                found => return found,
            }
        }
    }

    /// Writes one slot of data into a fresh slot and maps it.
    pub(super) fn write(&mut self, volume: VolumeId, slot: u64, mask: u16) -> Option<PhysSlot> {
        assert_ne!(self.lookup(volume, slot), Lookup::Miss);
        let phys = self.store.alloc_run(1)?.start;
        self.lsn += 1;
        let mut data = vec![0; SLOT_BYTES];
        let mut crcs = [0; SLOT_BLOCKS];
        for (i, block) in data.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            if mask & 1 << i != 0 {
                block[..8].copy_from_slice(&self.lsn.to_le_bytes());
                let at = BlockNo::new(slot * SLOT_BLOCKS as u64 + i as u64);
                crcs[i] = bound_crc(block_crc(block), volume, at);
            }
        }
        let (file, offset) = self.store.place(phys);
        let mut buf = self.store.pool.alloc(SLOT_BYTES);
        buf.copy_from_slice(&data);
        let bufs = vec![buf.freeze()];
        while self.disk.in_flight() > 0 {
            self.turn();
        }
        self.disk.run(Op::Write { file, offset, bufs, durable: true }).unwrap();
        let record = MapRecord { phys: Some(phys), lsn: Lsn::new(self.lsn), mask, flags: 0, crcs };
        self.update(volume, slot, Some(record));
        Some(phys)
    }

    pub(super) fn update(&mut self, volume: VolumeId, slot: u64, record: Option<MapRecord>) {
        self.store.update(volume, SlotNo::new(slot), record);
        let map = self.model.maps.get_mut(&volume).unwrap();
        match record {
            Some(record) => map.insert(slot, record),
            None => map.remove(&slot),
        };
        let state = self.store.volume_mut(volume).unwrap();
        state.applied = state.applied.max(Lsn::new(self.lsn));
        self.model.volumes.insert(volume, state.clone());
    }

    pub(super) fn discard(&mut self, volume: VolumeId, slot: u64) {
        if let Lookup::Record(record) = self.lookup(volume, slot) {
            self.lsn += 1;
            let tombstone = MapRecord::tombstone(Lsn::new(self.lsn).max(record.lsn));
            self.update(volume, slot, Some(tombstone));
        }
    }

    /// One random change; keeps below the dirty limit as a caller must.
    pub(super) fn random_change(&mut self, rng: &mut Rng, slots: u64) {
        if self.store.dirty_bytes() >= self.store.dirty_limit() || self.model.volumes.is_empty() {
            return;
        }
        let at = rng.below(self.model.volumes.len() as u64) as usize;
        let volume = *self.model.volumes.keys().nth(at).unwrap();
        let slot = rng.below(slots);
        match rng.below(10) {
            0 | 1 => self.discard(volume, slot),
            2 => {
                if let Some(run) = self.store.alloc_run(3) {
                    for phys in run.start.0..run.start.0 + u64::from(run.count) {
                        match rng.below(2) {
                            0 => self.store.free_unused(PhysSlot(phys)),
                            _ => self.store.free_deferred(PhysSlot(phys)),
                        }
                    }
                }
            }
            _ => {
                self.write(volume, slot, rng.next() as u16 | 1);
            }
        }
    }

    /// Everything that the store holds, read through its own lookups.
    pub(super) fn contents(&mut self) -> Model {
        let mut model = Model::default();
        let states: Vec<VolumeState> = self.store.volumes().cloned().collect();
        for state in states {
            let volume = state.volume;
            let mut map = BTreeMap::new();
            let index = self.store.volumes.index(volume).unwrap();
            let mut from = 0;
            while let Some(leaf) = self.store.volumes.get(index).unwrap().map.next_leaf(from) {
                for slot in leaf * 46..(leaf + 1) * 46 {
                    match self.lookup(volume, slot) {
                        Lookup::Record(record) => drop(map.insert(slot, record)),
                        Lookup::Absent => {}
                        Lookup::Miss => panic!("leaf {leaf} cannot be read"),
                    }
                }
                from = leaf + 1;
            }
            model.maps.insert(volume, map);
            model.volumes.insert(volume, state);
        }
        model
    }

    /// Checks the durable state of the disk, as of now.
    pub(super) fn fsck(&mut self) -> FsckReport {
        let mut disk = self.disk.fork(1);
        fsck_clean(&mut disk, true)
    }

    /// As [`Self::fsck`], of the metadata only.
    pub(super) fn fsck_shallow(&mut self) -> FsckReport {
        let mut disk = self.disk.fork(1);
        fsck_clean(&mut disk, false)
    }
}

pub(super) fn fsck_clean(disk: &mut TestDisk, deep: bool) -> FsckReport {
    let options = FsckOptions { deep, ..FsckOptions::default() };
    let report = fsck(disk, &options).unwrap();
    assert_eq!(report.faults, [], "{report}");
    assert_eq!(report.slots, report.free_slots + report.data_slots + report.meta_slots);
    assert_eq!(report.data_slots, report.volumes.iter().map(|v| v.mapped_slots).sum::<u64>());
    report
}
