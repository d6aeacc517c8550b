//! Applying one slot: the newest settled version of each block, from however
//! many records, becomes the slot's data and its map record.
//!
//! Data is written in place: into the slot's place in the map; or, when a fresh
//! write is among the versions, into that fresh slot, which takes the place
//! over. Writing in place is safe because everything that is overwritten is
//! still in the log, which is known to be durable up to there, and reads are
//! served from the log until the map record says otherwise.

use super::{Host, Kind, log::LogOp, token, volume::VolIx, waiters::Waiter};
use crate::store::{Lookup, MapRecord, PhysSlot};
use holdfast_io::{Buf, DiskError, DiskErrorKind, Op, OpResult};
use holdfast_types::{
    BLOCK_BYTES, BlockMask, BlockNo, Lsn, SLOT_BLOCKS, SlotNo, block_crc, bound_crc,
    mutant::{self, Mutant},
};
use smallvec::SmallVec;

/// A slot that is being applied.
#[derive(Debug)]
pub(super) struct SlotTask {
    volume: VolIx,
    slot: SlotNo,
    target: Lsn,
    outcome: Outcome,
    /// Payload to be written, by block.
    data: [Option<Buf>; SLOT_BLOCKS],
    /// Runs of payload to be read from the log first.
    reads: SmallVec<[LogRead; SLOT_BLOCKS]>,
    /// Fresh slots that nothing needs any more.
    superseded: SmallVec<[PhysSlot; 8]>,
    /// Operations in flight.
    waiting: u32,
}

/// What becomes of the map record.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// It is right as it is; whether it has a place.
    Stays(bool),
    Becomes(MapRecord),
}

/// A run of blocks whose payload is only in the log.
#[derive(Clone, Copy, Debug)]
struct LogRead {
    /// First block in the slot.
    first: usize,
    count: usize,
    /// Byte offset in the log's file.
    offset: u64,
}

impl SlotTask {
    pub(super) fn new(volume: VolIx, slot: SlotNo, target: Lsn) -> Self {
        Self {
            volume,
            slot,
            target,
            outcome: Outcome::Stays(false),
            data: [const { None }; SLOT_BLOCKS],
            reads: SmallVec::new(),
            superseded: SmallVec::new(),
            waiting: 0,
        }
    }

    /// Notes that block `i` is at `offset` of the log's file.
    fn read_from_log(&mut self, i: usize, offset: u64) {
        if let Some(last) = self.reads.last_mut()
            && last.first + last.count == i
            && last.offset + (last.count * BLOCK_BYTES) as u64 == offset
        {
            last.count += 1;
            return;
        }
        self.reads.push(LogRead { first: i, count: 1, offset });
    }
}

impl Host {
    /// Merges the slot's settled records; waits for its map leaf if need be.
    pub(super) fn start_apply(&mut self, number: u32) {
        let Some(task) = self.round.tasks.get_mut(number) else { return };
        let (at, slot) = (task.volume, task.slot);
        let Some(volume) = self.volumes[at.0 as usize].as_ref() else {
            unreachable!("no volume is forgotten while a piece is applied")
        };
        let id = volume.id;
        let map = match self.store.lookup(id, slot) {
            Lookup::Miss => return self.wait_for_leaf(at, slot, Waiter::Apply(number)),
            Lookup::Absent => None,
            Lookup::Record(record) => Some(record),
        };
        self.store.pin(id, slot);
        let mut merge = Merge::over(map);
        for (lsn, covers) in volume.index.chain(&self.nodes, slot) {
            if lsn > task.target {
                continue;
            }
            let Some(record) = volume.log.record(lsn) else {
                unreachable!("the index names records of the log")
            };
            let take = merge.take(lsn, covers);
            match &record.op {
                LogOp::Write { range, crcs, payload } => {
                    merge.stores_data = true;
                    for i in bits(take) {
                        let block = BlockNo::new(slot.first_block().get() + i as u64);
                        let nth = (block.get() - range.start.get()) as usize;
                        let bytes = nth * BLOCK_BYTES;
                        merge.set(i, bound_crc(crcs[nth], id, block));
                        match payload {
                            Some(payload) => {
                                task.data[i] = Some(payload.slice(bytes..bytes + BLOCK_BYTES));
                            }
                            None => {
                                let logged = record.logged.and_then(|logged| logged.payload_at);
                                let Some(payload_at) = logged else {
                                    unreachable!("payload leaves memory when it is durable")
                                };
                                let offset = self.wal.ring().offset(payload_at.plus(bytes as u64));
                                task.read_from_log(i, offset);
                            }
                        }
                    }
                }
                LogOp::Fresh { range, crcs, slots, .. } => {
                    merge.stores_data = true;
                    let first = slot.first_block();
                    let nth = (first.get() - range.start.get()) as usize;
                    let place = PhysSlot(slots[nth / SLOT_BLOCKS]);
                    if take == 0 {
                        if merge.old_place() != Some(place) {
                            task.superseded.push(place);
                        }
                        continue;
                    }
                    merge.place = Some(place);
                    for i in bits(take) {
                        let block = BlockNo::new(first.get() + i as u64);
                        merge.set(i, bound_crc(crcs[nth + i], id, block));
                    }
                }
                LogOp::Discard { .. } => {
                    if mutant::active(Mutant::DiscardOverNewer) && task.reads.is_empty() {
                        merge.mask &= !covers;
                        bits(covers).for_each(|i| task.data[i] = None);
                    }
                }
                LogOp::EpochStart | LogOp::Resize { .. } => unreachable!("it covers no block"),
            }
        }
        if merge.needs_place() {
            // A fresh slot that is not needed for its data is as good as a new one.
            let spare = task.superseded.pop();
            let taken = spare.or_else(|| self.store.alloc_run(1).map(|run| run.start));
            if taken.is_none() {
                return self.fail(no_space(slot));
            }
            merge.place = taken;
        }
        task.outcome = merge.outcome();
        if task.reads.is_empty() {
            return self.write_slot(number);
        }
        let file = self.wal.ring().file;
        task.waiting = task.reads.len() as u32;
        for (i, read) in task.reads.iter().enumerate() {
            let buf = self.pool.alloc(read.count * BLOCK_BYTES);
            self.ops.push(
                token(Kind::ApplyRead, number, i as u32),
                Op::Read { file, offset: read.offset, buf },
            );
        }
    }

    /// Payload that was only in the log has come.
    pub(super) fn apply_read(
        &mut self,
        number: u32,
        nth: u32,
        result: Result<OpResult, DiskError>,
    ) {
        let read = match result {
            Ok(OpResult::Read(buf)) => buf.freeze(),
            Ok(other) => unreachable!("a read ended as {other:?}"),
            Err(error) => return self.fail(error),
        };
        let Some(task) = self.round.tasks.get_mut(number) else {
            unreachable!("a read without a task ended")
        };
        let Some(volume) = self.volumes[task.volume.0 as usize].as_ref() else {
            unreachable!("no volume is forgotten while a piece is applied")
        };
        let Outcome::Becomes(map) = &task.outcome else {
            unreachable!("data is read to be written")
        };
        let run = task.reads[nth as usize];
        for k in 0..run.count {
            let i = run.first + k;
            let bytes = read.slice(k * BLOCK_BYTES..(k + 1) * BLOCK_BYTES);
            let block = BlockNo::new(task.slot.first_block().get() + i as u64);
            if bound_crc(block_crc(&bytes), volume.id, block) != map.crcs[i] {
                let offset = run.offset + (k * BLOCK_BYTES) as u64;
                return self.fail(bad_payload(offset));
            }
            task.data[i] = Some(bytes);
        }
        task.waiting -= 1;
        if task.waiting == 0 {
            self.write_slot(number);
        }
    }

    /// Writes the slot's new blocks, neighbours together.
    fn write_slot(&mut self, number: u32) {
        let Some(task) = self.round.tasks.get_mut(number) else { return };
        if let Outcome::Becomes(MapRecord { phys: Some(place), .. }) = task.outcome {
            let (file, base) = self.store.place(place);
            let mut i = 0;
            while i < SLOT_BLOCKS {
                if task.data[i].is_none() {
                    i += 1;
                    continue;
                }
                let offset = base + (i * BLOCK_BYTES) as u64;
                let mut bufs = self.spare_bufs.pop().unwrap_or_default();
                while let Some(data) = task.data.get_mut(i).and_then(Option::take) {
                    bufs.push(data);
                    i += 1;
                }
                task.waiting += 1;
                self.ops.push(
                    token(Kind::ApplyWrite, number, 0),
                    Op::Write { file, offset, bufs, durable: false },
                );
            }
        }
        if task.waiting == 0 {
            self.slot_applied(number);
        }
    }

    pub(super) fn apply_written(&mut self, number: u32, result: Result<OpResult, DiskError>) {
        match result {
            Ok(OpResult::Written(bufs)) => self.keep_bufs(bufs),
            Ok(other) => unreachable!("a write ended as {other:?}"),
            Err(error) => return self.fail(error),
        }
        let Some(task) = self.round.tasks.get_mut(number) else {
            unreachable!("a write without a task ended")
        };
        task.waiting -= 1;
        if task.waiting == 0 {
            self.slot_applied(number);
        }
    }

    /// The slot's data is where it belongs: map and index follow, at once.
    fn slot_applied(&mut self, number: u32) {
        let Some(task) = self.round.tasks.remove(number) else { return };
        let (at, slot) = (task.volume, task.slot);
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else {
            unreachable!("no volume is forgotten while a piece is applied")
        };
        let has_place = match task.outcome {
            Outcome::Stays(has_place) => has_place,
            Outcome::Becomes(record) => {
                self.store.update(volume.id, slot, Some(record));
                record.phys.is_some()
            }
        };
        self.store.unpin(volume.id, slot);
        for place in task.superseded {
            self.store.free_deferred(place);
        }
        let log = &volume.log;
        volume.index.remove_upto(&mut self.nodes, slot, task.target, |lsn| {
            log.record(lsn).is_some_and(|record| record.op.stores_data())
        });
        self.settle_space(at, slot, has_place);
    }
}

/// The newest versions over what the map has.
struct Merge {
    map: Option<MapRecord>,
    wanted: BlockMask,
    newest: Lsn,
    mask: BlockMask,
    crcs: [u32; SLOT_BLOCKS],
    /// Where the slot goes, if a record decides it.
    place: Option<PhysSlot>,
    stores_data: bool,
}

impl Merge {
    fn over(map: Option<MapRecord>) -> Self {
        Self {
            map,
            wanted: BlockMask::MAX,
            newest: Lsn::ZERO,
            mask: 0,
            crcs: [0; SLOT_BLOCKS],
            place: None,
            stores_data: false,
        }
    }

    fn old_place(&self) -> Option<PhysSlot> {
        self.map.and_then(|map| map.phys)
    }

    /// The blocks that the next older record decides: none if the map has it already.
    fn take(&mut self, lsn: Lsn, covers: BlockMask) -> BlockMask {
        if self.map.is_some_and(|map| lsn <= map.lsn) {
            return 0;
        }
        self.newest = self.newest.max(lsn);
        let take = self.wanted & covers;
        self.wanted &= !take;
        take
    }

    fn set(&mut self, i: usize, crc: u32) {
        self.mask |= 1 << i;
        self.crcs[i] = crc;
    }

    /// The blocks that stay as the map has them.
    fn kept(&self) -> BlockMask {
        self.map.map_or(0, |map| map.mask & self.wanted)
    }

    fn needs_place(&self) -> bool {
        self.mask | self.kept() != 0 && self.place.or(self.old_place()).is_none()
    }

    fn outcome(self) -> Outcome {
        let old = self.old_place();
        let kept = self.kept();
        if self.newest == Lsn::ZERO {
            return Outcome::Stays(old.is_some());
        }
        let mask = self.mask | kept;
        if mask == 0 {
            // A discard of what was never written leaves no trace.
            if self.map.is_none() && !self.stores_data {
                return Outcome::Stays(false);
            }
            return Outcome::Becomes(MapRecord::tombstone(self.newest));
        }
        let mut crcs = self.crcs;
        if let Some(map) = self.map {
            for i in bits(kept) {
                crcs[i] = map.crcs[i];
            }
        }
        Outcome::Becomes(MapRecord {
            phys: self.place.or(old),
            lsn: self.newest,
            mask,
            flags: 0,
            crcs,
        })
    }
}

fn bits(mask: BlockMask) -> impl Iterator<Item = usize> {
    (0..SLOT_BLOCKS).filter(move |i| mask & (1 << i) != 0)
}

fn no_space(slot: SlotNo) -> DiskError {
    DiskError {
        op: "allocate",
        file: "data".to_owned(),
        offset: 0,
        len: holdfast_types::SLOT_BYTES as u64,
        kind: DiskErrorKind::NoSpace,
        message: format!("no free slot for slot {slot}, though one was reserved"),
    }
}

/// What is durable in the log does not match its checksum any more.
pub(super) fn bad_payload(offset: u64) -> DiskError {
    DiskError {
        op: "read",
        file: "wal".to_owned(),
        offset,
        len: BLOCK_BYTES as u64,
        kind: DiskErrorKind::Io,
        message: "a logged block does not match its checksum".to_owned(),
    }
}
