//! What clients and the engine ask of the host.

use super::{
    Stop, World,
    node::{Call, Engine, Phase},
};
use crate::{
    invariants::i10_bounded,
    model::{Existence, Sent, VolumeModel},
};
use holdfast_replica::NewVolume;
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, Epoch, HistoryId, Lsn, NodeId, RECORD_BLOCKS_MAX, ReplicaId,
    SLOT_BLOCKS, VolumeId, block_crc,
};
use holdfast_wire::{Append, Fence, Record, RecordOp, StreamSession};

/// The node that every engine is on.
const NODE: NodeId = NodeId::from_u128(1);
/// Blocks of a volume when it is created.
const BLOCKS: std::ops::Range<u64> = 100..700;
/// Blocks that a volume grows to at most.
const BLOCKS_MAX: u64 = 1200;
/// Volumes at once at most.
const VOLUMES_MAX: usize = 4;
/// Reads of one volume in flight at most.
const READS_MAX: usize = 8;
/// Records of one volume in flight at most.
const RECORDS_MAX: u64 = 24;
/// Records in one append at most.
const BATCH_MAX: u64 = 4;
/// Blocks of a read at most.
const READ_BLOCKS: u64 = 80;
/// WAL bytes that a record without payload takes: a frame of its own.
const RECORD_WAL_BYTES: u64 = 4096;

impl World {
    /// One thing that a client or the engine may do now; often nothing.
    pub(super) fn act(&mut self) -> Result<(), Stop> {
        if self.model.volumes.is_empty() || (self.model.volumes.len() < 2 && self.rng.percent(20)) {
            self.create_volume();
            return Ok(());
        }
        let index = self.rng.within(0..self.model.volumes.len() as u64) as usize;
        let Some(id) = self.model.volumes.keys().nth(index).copied() else { return Ok(()) };
        let Some(engine) = self.node().engines.get(&id).copied() else { return Ok(()) };
        if engine.phase != Phase::Serving {
            return Ok(());
        }
        if let Some((range, true)) = engine.reserved {
            return self.write(id, &[range], true);
        }
        match self.rng.within(0..200) {
            0..110 => {
                let batch =
                    if self.rng.percent(20) { self.rng.within(2..BATCH_MAX + 1) } else { 1 };
                let ranges: Vec<_> = (0..batch).map(|_| self.write_range(id)).collect();
                self.write(id, &ranges, false)?;
            }
            110..124 => self.discard(id)?,
            124..158 => self.read_some(id),
            158..166 => self.status_some(id),
            166..170 => self.resize(id)?,
            170..173 => self.fence(id),
            173..175 => self.create_volume(),
            175..177 => self.delete_volume(id),
            177..180 => {
                if let Some(engine) = self.node().engines.get_mut(&id) {
                    engine.stuck = !engine.stuck;
                }
            }
            180..188 => self.tell_commit(id),
            188..190 => self.node().host.drain(),
            190..196 => {
                self.now_ms += self.rng.within(1..3000);
                let now_ms = self.now_ms;
                self.node().host.tick(now_ms);
            }
            _ => self.look_at_reports()?,
        }
        Ok(())
    }

    /// What the host reports about itself keeps to its limits.
    fn look_at_reports(&mut self) -> Result<(), Stop> {
        let reports = self.node().host.volumes();
        let mut unapplied = 0;
        for report in &reports {
            let Some(volume) = self.model.volumes.get(&report.volume) else { continue };
            crate::invariants::i7_applied_is_committed::check_applied(volume, report.applied_lsn)?;
            for (_, entry) in volume.entries_above(report.applied_lsn) {
                if let Sent::Write(range, _) = entry.sent
                    && range.count < SLOT_BLOCKS as u64
                {
                    unapplied += range.bytes();
                }
            }
        }
        i10_bounded::check_unapplied(unapplied, self.shape.host.unapplied_bytes_max)?;
        Ok(())
    }

    /// Tells the host what is committed, unless the volume is stuck.
    pub(super) fn tell_commit(&mut self, id: VolumeId) {
        let Some(volume) = self.model.volumes.get_mut(&id) else { return };
        let Some(node) = &mut self.node else { return };
        if node.engines.get(&id).is_some_and(|engine| !engine.stuck) {
            volume.told = volume.acked;
            node.host.advance_commit(id, volume.acked);
        }
    }

    fn create_volume(&mut self) {
        if self.model.volumes.len() >= VOLUMES_MAX {
            return;
        }
        let reuse = !self.model.deleted.is_empty() && self.rng.percent(50);
        let id = match reuse {
            true => {
                let index = self.rng.within(0..self.model.deleted.len() as u64) as usize;
                self.model.deleted.swap_remove(index)
            }
            false => VolumeId::from_u128(u128::from(self.rng.bits()) << 64 | 1),
        };
        if self.model.volumes.contains_key(&id) {
            return;
        }
        let replica = ReplicaId::from_u128(u128::from(self.rng.bits()) << 64 | 2);
        let history = HistoryId::from_u128(u128::from(self.rng.bits()) << 64 | 3);
        let blocks = self.rng.within(BLOCKS);
        self.model.volumes.insert(id, VolumeModel::new(id, replica, history, blocks));
        self.trace.note(&[40, blocks], || format!("engine: create {id}, {blocks} blocks"));
        let node = self.node();
        let tag = node.call(Call::Create(id));
        node.host.create_volume(tag, &NewVolume { volume: id, replica, history, blocks });
    }

    fn delete_volume(&mut self, id: VolumeId) {
        let busy = self.node().has_calls(id);
        let Some(volume) = self.model.volumes.get_mut(&id) else { return };
        if busy || volume.acked != volume.sent || volume.existence != Existence::Here {
            return;
        }
        volume.existence = Existence::Deleting;
        self.trace.note(&[41], || format!("engine: delete {id}"));
        let node = self.node();
        if let Some(engine) = node.engines.get_mut(&id) {
            engine.phase = Phase::Closed;
        }
        let tag = node.call(Call::Delete(id));
        node.host.delete_volume(tag, id);
    }

    /// Starts an engine for a volume that is there.
    pub(super) fn open_volume(&mut self, id: VolumeId) {
        let engine = Engine {
            phase: Phase::Closed,
            epoch: Epoch::ZERO,
            session: StreamSession(0),
            stuck: self.rng.percent(10),
            reserved: None,
        };
        self.node().engines.insert(id, engine);
        self.fence(id);
    }

    /// Takes a new epoch.
    fn fence(&mut self, id: VolumeId) {
        let Some(volume) = self.model.volumes.get_mut(&id) else { return };
        volume.granted = volume.granted.next();
        let (epoch, history) = (volume.granted, volume.history);
        self.trace.note(&[42, epoch.get()], || format!("engine: fence {id} for epoch {epoch}"));
        let node = self.node();
        let Some(engine) = node.engines.get_mut(&id) else { return };
        *engine = Engine {
            phase: Phase::Fencing,
            epoch,
            session: StreamSession(engine.session.0 + 1),
            stuck: engine.stuck,
            // A new promise takes back what was granted.
            reserved: None,
        };
        let tag = node.call(Call::Fence { volume: id, epoch });
        node.host.fence(tag, &Fence { volume: id, history, epoch, node: NODE });
    }

    /// Where clients like to write: most of it small and near the start.
    fn write_range(&mut self, id: VolumeId) -> BlockRange {
        let blocks = self.model.volumes.get(&id).map_or(1, VolumeModel::blocks);
        let slot = SLOT_BLOCKS as u64;
        let hot = if self.rng.percent(50) { blocks.min(4 * slot) } else { blocks };
        let (start, count) = match self.rng.within(0..10) {
            0..6 => (self.rng.within(0..hot), self.rng.within(1..5)),
            6..8 => {
                let slots = self.rng.within(1..5);
                (self.rng.within(0..hot.div_ceil(slot)) * slot, slots * slot)
            }
            _ => (self.rng.within(0..hot), self.rng.within(1..RECORD_BLOCKS_MAX as u64 + 1)),
        };
        BlockRange::new(BlockNo::new(start), count.min(blocks - start))
    }

    /// Writes ranges, one record each, if the host has room for them.
    fn write(&mut self, id: VolumeId, ranges: &[BlockRange], reserved: bool) -> Result<(), Stop> {
        let slots: u64 = ranges.iter().map(|range| range.slots().count() as u64).sum();
        let bytes: u64 = ranges.iter().map(|range| range.bytes() + RECORD_WAL_BYTES).sum();
        let Some(volume) = self.model.volumes.get(&id) else { return Ok(()) };
        let window = volume.sent.get() - volume.acked.get();
        let credits = self.node().host.credits_of(id);
        if credits.wal_bytes < bytes || window >= RECORDS_MAX {
            self.counts.log_full += u64::from(credits.wal_bytes < bytes);
            self.tell_commit(id);
            return Ok(());
        }
        if credits.slots < slots && !reserved {
            let range = ranges[0];
            let node = self.node();
            let Some(engine) = node.engines.get_mut(&id) else { return Ok(()) };
            if engine.reserved.is_none() {
                engine.reserved = Some((range, false));
                let tag = node.call(Call::Reserve { volume: id, range });
                node.host.reserve(tag, id, range);
            }
            return Ok(());
        }
        if reserved && let Some(engine) = self.node().engines.get_mut(&id) {
            engine.reserved = None;
        }
        let sent: Vec<_> =
            ranges.iter().map(|range| Sent::Write(*range, self.model.next_write())).collect();
        self.append(id, &sent).map(|_| ())
    }

    fn has_room_for_one(&mut self, id: VolumeId) -> bool {
        let Some(volume) = self.model.volumes.get(&id) else { return false };
        let window = volume.sent.get() - volume.acked.get();
        window < RECORDS_MAX && self.node().host.credits_of(id).wal_bytes >= RECORD_WAL_BYTES
    }

    fn discard(&mut self, id: VolumeId) -> Result<(), Stop> {
        if !self.has_room_for_one(id) {
            return Ok(());
        }
        let range = match self.rng.percent(30) {
            true => {
                let blocks = self.model.volumes.get(&id).map_or(1, VolumeModel::blocks);
                let start = self.rng.within(0..blocks);
                BlockRange::new(BlockNo::new(start), self.rng.within(1..blocks - start + 1))
            }
            false => self.write_range(id),
        };
        self.counts.discards += 1;
        self.append(id, &[Sent::Discard(range)]).map(|_| ())
    }

    fn resize(&mut self, id: VolumeId) -> Result<(), Stop> {
        let blocks = self.model.volumes.get(&id).map_or(0, VolumeModel::blocks);
        if !self.has_room_for_one(id) || blocks >= BLOCKS_MAX {
            return Ok(());
        }
        self.counts.resizes += 1;
        let blocks = blocks + self.rng.within(1..200);
        self.append(id, &[Sent::Resize(blocks)]).map(|_| ())
    }

    /// Sends records; the LSN of the last.
    pub(super) fn append(&mut self, id: VolumeId, sent: &[Sent]) -> Result<Lsn, Stop> {
        let Some(engine) = self.node().engines.get(&id).copied() else {
            unreachable!("records are sent by an engine")
        };
        let oldest_read = self.node().oldest_read(id);
        let tell = !engine.stuck && self.rng.percent(70);
        let Some(volume) = self.model.volumes.get_mut(&id) else {
            unreachable!("a volume with an engine is known")
        };
        let prev_lsn = volume.sent;
        let prev_epoch = volume.epoch_at(prev_lsn);
        if tell {
            volume.told = volume.acked;
        }
        let mut records = Vec::with_capacity(sent.len());
        for sent in sent {
            let lsn = volume.send(engine.epoch, *sent, oldest_read);
            let op = match *sent {
                Sent::EpochStart => RecordOp::EpochStart,
                Sent::Resize(blocks) => RecordOp::Resize { blocks },
                Sent::Discard(range) => RecordOp::Discard { range },
                Sent::Write(range, write) => {
                    let mut data = self.pool.alloc(range.bytes() as usize);
                    let numbers = range.start.get()..range.end().get();
                    let mut crcs = holdfast_wire::BlockCrcs::new();
                    for (bytes, number) in data.chunks_exact_mut(BLOCK_BYTES).zip(numbers) {
                        write.fill(BlockNo::new(number), bytes);
                        crcs.push(block_crc(bytes));
                    }
                    RecordOp::Write { range, data: data.freeze(), crcs }
                }
            };
            self.trace.note(&[43, lsn.get()], || {
                format!("engine: {id} LSN {lsn} epoch {}: {sent:?}", engine.epoch)
            });
            records.push(Record { lsn, epoch: engine.epoch, op });
        }
        self.counts.records += records.len() as u64;
        let (last, history, commit_lsn) = (volume.sent, volume.history, volume.told);
        self.node().host.append(Append {
            volume: id,
            history,
            epoch: engine.epoch,
            generation: holdfast_types::Generation::new(1),
            session: engine.session,
            prev_epoch,
            prev_lsn,
            records,
            commit_lsn,
        });
        Ok(last)
    }

    fn read_some(&mut self, id: VolumeId) {
        let blocks = self.model.volumes.get(&id).map_or(1, VolumeModel::blocks);
        let start = self.rng.within(0..blocks);
        let count = self.rng.within(1..READ_BLOCKS).min(blocks - start);
        self.read(id, BlockRange::new(BlockNo::new(start), count));
    }

    /// Reads at the commit LSN, if that record is of this size already.
    pub(super) fn read(&mut self, id: VolumeId, range: BlockRange) -> bool {
        let Some(volume) = self.model.volumes.get(&id) else { return false };
        let at = volume.acked;
        if range.end().get() > volume.blocks_at(at) {
            return false;
        }
        let node = self.node();
        let Some(engine) = node.engines.get(&id).copied() else { return false };
        let reads = node.calls.values().filter(|call| matches!(call, Call::Read { .. })).count();
        if engine.phase != Phase::Serving || reads >= READS_MAX {
            return false;
        }
        let epoch = engine.epoch;
        let tag = node.call(Call::Read { volume: id, epoch, at, range });
        node.host.read(tag, id, epoch, at, range);
        self.trace.note(&[44, tag.0, at.get(), range.start.get(), range.count], || {
            format!("engine: read {} of {id} {range:?} at LSN {at}", tag.0)
        });
        true
    }

    fn status_some(&mut self, id: VolumeId) {
        let Some(volume) = self.model.volumes.get(&id) else { return };
        let at = volume.acked;
        let blocks = volume.blocks_at(at);
        let start = self.rng.within(0..blocks);
        let count = self.rng.within(1..blocks - start + 1);
        let range = BlockRange::new(BlockNo::new(start), count);
        let node = self.node();
        let Some(engine) = node.engines.get(&id).copied() else { return };
        let tag = node.call(Call::Status { volume: id, epoch: engine.epoch, at, range });
        node.host.status(tag, id, engine.epoch, at, range);
    }
}
