//! Reads: the newest version of each block at or below what the reader may see.
//!
//! A block is looked for in the index first (newest record at or below
//! max(`at`, floor) that covers it), then in the map; what neither knows is
//! zeroes. The floor is what the round that runs is applying: it is committed,
//! and while it is written in place the old version is gone, so nobody is
//! shown anything below it.
//!
//! Looking up and reading are two moments. Between them a round may overwrite a
//! slot in place or free it, and a checkpoint may recycle the log; whatever the
//! disk then returns does not match the checksum that was looked up. So a
//! mismatch means: look up again, read again. Only a block whose place and
//! checksum have stayed the same over two reads is corrupt.

use super::{
    Event, Host, Kind, ReadError, ReadSegments, Tag, log::LogOp, token, volume::VolIx,
    waiters::Waiter,
};
use crate::store::{Lookup, PhysSlot};
use holdfast_io::{Buf, DiskError, FileId, Op, OpResult};
use holdfast_types::{
    BLOCK_BYTES, BlockMask, BlockNo, BlockRange, Epoch, Lsn, SLOT_BLOCKS, SlotNo, VolumeId,
    block_crc,
    mutant::{self, Mutant},
    unbind_crc,
};
use holdfast_wire::Refusal;
use std::collections::VecDeque;

/// Disk reads in flight at most, for all reads of the host; others wait in
/// order. Deep enough for any NVMe device, and bounds the buffers in use.
const READS_IN_FLIGHT_MAX: usize = 256;
/// Bytes of one disk read at most: the largest buffer that comes from the arena.
const READ_BLOCKS_MAX: u32 = 64;
/// Times that a read is looked up again because something moved. Each takes a
/// round or a checkpoint that ends within the read, so a few are already rare.
const READ_RETRIES_MAX: u8 = 16;

/// A read.
#[derive(Debug)]
pub(super) struct ReadTask {
    tag: Tag,
    volume: VolIx,
    epoch: Epoch,
    at: Lsn,
    range: BlockRange,
    /// Blocks of the range that are looked up.
    resolved: u64,
    pieces: Vec<Piece>,
    /// For blocks that come from the disk: the checksum of the payload.
    crcs: Vec<u32>,
    /// Pieces queued or in flight.
    waiting: u32,
    retries: u8,
    mismatches: Vec<Mismatch>,
    /// Those of the time before.
    before: Vec<Mismatch>,
    error: Option<DiskError>,
}

/// A block that did not match its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mismatch {
    /// Number in the range.
    block: u32,
    file: FileId,
    offset: u64,
    crc: u32,
}

/// A run of blocks that come from one place.
#[derive(Debug)]
struct Piece {
    /// Number in the range.
    first: u32,
    count: u32,
    from: From,
}

#[derive(Debug)]
enum From {
    Zeroes,
    /// The record's payload in memory, from this block of it on.
    Memory {
        lsn: Lsn,
        block: u32,
        data: Buf,
    },
    Disk {
        file: FileId,
        offset: u64,
        data: Option<Buf>,
    },
}

/// Where a block is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Zeroes,
    /// Payload in memory of this record.
    Record(Lsn),
    /// On the disk, with the checksum of the payload.
    Disk(FileId, u64, u32),
}

/// All reads of a host.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) tasks: super::slab::Slab<ReadTask>,
    /// Emptied tasks, kept for their lists.
    spare: Vec<ReadTask>,
    /// Disk reads that wait: task and piece.
    queue: VecDeque<(u32, u32)>,
    in_flight: usize,
}

/// Emptied tasks kept: as many as can have a disk read in flight.
const SPARE_TASKS_MAX: usize = READS_IN_FLIGHT_MAX;

impl Host {
    pub(super) fn take_read(
        &mut self,
        tag: Tag,
        volume: VolumeId,
        epoch: Epoch,
        at: Lsn,
        range: BlockRange,
    ) {
        match self.may_read(volume, epoch, at) {
            Err(refusal) => {
                self.events.push(Event::Read { tag, result: Err(refusal.into()) });
            }
            Ok(volume) => {
                let mut task = self.reads.spare.pop().unwrap_or_else(ReadTask::empty);
                (task.tag, task.volume, task.epoch) = (tag, volume, epoch);
                (task.at, task.range) = (at, range);
                let task = self.reads.tasks.insert(task);
                self.resolve_read(task);
            }
        }
    }

    /// Whether this replica can answer a read of `epoch` at `at`.
    pub(super) fn may_read(&self, id: VolumeId, epoch: Epoch, at: Lsn) -> Result<VolIx, Refusal> {
        let ix = self.serving(id)?;
        let Some(volume) = self.volume(ix) else { return Err(Refusal::Unknown) };
        if volume.suspect {
            return Err(Refusal::Suspect);
        }
        let promised = volume.log.promised();
        if epoch < promised {
            return Err(Refusal::Fenced { promised });
        }
        if !volume.is_exact_at(at) {
            return Err(Refusal::Behind { wanted: volume.fetched });
        }
        // An epoch that was not promised here has matched nothing here.
        let readable = if epoch == promised { volume.log.readable() } else { volume.log.settled() };
        let lags = at > readable && !mutant::active(Mutant::LaggingRead);
        if lags { Err(Refusal::Behind { wanted: at }) } else { Ok(ix) }
    }

    /// Goes on looking blocks up; waits for a map leaf if need be.
    pub(super) fn resolve_read(&mut self, number: u32) {
        let Some(task) = self.reads.tasks.get_mut(number) else { return };
        let mut task = std::mem::replace(task, ReadTask::empty());
        while task.resolved < task.range.count {
            let block = BlockNo::new(task.range.start.get() + task.resolved);
            let first = block.index_in_slot();
            let count = (SLOT_BLOCKS - first).min((task.range.count - task.resolved) as usize);
            let mask = (((1u32 << count) - 1) << first) as BlockMask;
            match self.find_blocks(task.volume, task.at, block.slot(), mask) {
                Err(Refusal::Unknown) => break,
                Err(_) => {
                    let waiter = Waiter::Read(number);
                    self.wait_for_leaf(task.volume, block.slot(), waiter);
                    self.put_back(number, task);
                    return;
                }
                Ok(found) => {
                    for found in &found[first..first + count] {
                        self.add_block(&mut task, *found);
                    }
                }
            }
        }
        for (i, piece) in task.pieces.iter().enumerate() {
            if matches!(piece.from, From::Disk { data: None, .. }) {
                task.waiting += 1;
                self.reads.queue.push_back((number, i as u32));
            }
        }
        let done = task.waiting == 0;
        self.put_back(number, task);
        if done {
            self.answer_read(number);
        } else {
            self.start_reads();
        }
    }

    fn put_back(&mut self, number: u32, task: ReadTask) {
        if let Some(place) = self.reads.tasks.get_mut(number) {
            *place = task;
        }
    }

    /// Finds the blocks `mask` of a slot. `Err(Unknown)`: the volume has gone;
    /// any other: the map leaf is not in memory.
    pub(super) fn find_blocks(
        &mut self,
        at: VolIx,
        lsn: Lsn,
        slot: SlotNo,
        mask: BlockMask,
    ) -> Result<[Found; SLOT_BLOCKS], Refusal> {
        let mut found = [Found::Zeroes; SLOT_BLOCKS];
        let Some(volume) = self.volumes[at.0 as usize].as_ref() else {
            return Err(Refusal::Unknown);
        };
        let seen = match mutant::active(Mutant::UncommittedRead) {
            true => volume.log.last(),
            false => lsn.max(volume.log.floor()),
        };
        let mut wanted = mask;
        for (lsn, covers) in volume.index.chain(&self.nodes, slot) {
            let take = wanted & covers;
            if lsn > seen || take == 0 {
                continue;
            }
            wanted &= !take;
            let Some(record) = volume.log.record(lsn) else {
                unreachable!("the index names records of the log")
            };
            for (i, found) in found.iter_mut().enumerate().filter(|(i, _)| take & (1 << i) != 0) {
                let block = slot.first_block().get() + i as u64;
                *found = match &record.op {
                    LogOp::Write { payload: Some(_), .. }
                    | LogOp::Fresh { payload: Some(_), .. } => Found::Record(lsn),
                    LogOp::Write { range, crcs, payload: None } => {
                        let nth = (block - range.start.get()) as usize;
                        let Some(at) = record.logged.and_then(|logged| logged.payload_at) else {
                            unreachable!("payload leaves memory when it is durable")
                        };
                        let at = at.plus((nth * BLOCK_BYTES) as u64);
                        let ring = self.wal.ring();
                        Found::Disk(ring.file, ring.offset(at), crcs[nth])
                    }
                    LogOp::Fresh { range, crcs, slots, payload: None, .. } => {
                        let nth = (block - range.start.get()) as usize;
                        let phys = PhysSlot(slots[nth / SLOT_BLOCKS]);
                        let (file, offset) = self.store.place(phys);
                        Found::Disk(file, offset + (i * BLOCK_BYTES) as u64, crcs[nth])
                    }
                    LogOp::Discard { .. } => Found::Zeroes,
                    LogOp::EpochStart | LogOp::Resize { .. } => {
                        unreachable!("it covers no block")
                    }
                };
            }
            if wanted == 0 {
                return Ok(found);
            }
        }
        match self.store.lookup(volume.id, slot) {
            Lookup::Absent => {}
            Lookup::Miss => return Err(Refusal::Behind { wanted: lsn }),
            Lookup::Record(map) => {
                if let Some(phys) = map.phys {
                    let (file, offset) = self.store.place(phys);
                    for (i, found) in found.iter_mut().enumerate() {
                        if wanted & map.mask & (1 << i) != 0 {
                            let block = BlockNo::new(slot.first_block().get() + i as u64);
                            let crc = unbind_crc(map.crcs[i], volume.id, block);
                            *found = Found::Disk(file, offset + (i * BLOCK_BYTES) as u64, crc);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds the next block of a read, to the piece before where it continues it.
    fn add_block(&self, task: &mut ReadTask, found: Found) {
        let first = task.resolved as u32;
        task.resolved += 1;
        let last = task.pieces.last_mut();
        let crc = if let Found::Disk(_, _, crc) = found { crc } else { 0 };
        task.crcs.push(crc);
        let from = match (found, last) {
            (Found::Zeroes, Some(piece @ Piece { from: From::Zeroes, .. })) => {
                piece.count += 1;
                return;
            }
            (
                Found::Disk(file, offset, _),
                Some(Piece { count, from: From::Disk { file: f, offset: start, .. }, .. }),
            ) if file == *f
                && offset == *start + u64::from(*count) * BLOCK_BYTES as u64
                && *count < READ_BLOCKS_MAX =>
            {
                *count += 1;
                return;
            }
            (Found::Zeroes, _) => From::Zeroes,
            (Found::Disk(file, offset, _), _) => From::Disk { file, offset, data: None },
            (Found::Record(lsn), last) => {
                let record = self.volume(task.volume).and_then(|v| v.log.record(lsn));
                let Some((range, payload)) = record.and_then(|record| match &record.op {
                    LogOp::Write { range, payload: Some(data), .. }
                    | LogOp::Fresh { range, payload: Some(data), .. } => Some((range, data)),
                    _ => None,
                }) else {
                    unreachable!("it was found in memory just now")
                };
                let block = (task.range.start.get() + u64::from(first) - range.start.get()) as u32;
                if let Some(Piece { count, from: From::Memory { lsn: l, block: b, data }, .. }) =
                    last
                    && *l == lsn
                    && *b + *count == block
                {
                    *count += 1;
                    *data = blocks_of(payload, *b, *count);
                    return;
                }
                From::Memory { lsn, block, data: blocks_of(payload, block, 1) }
            }
        };
        task.pieces.push(Piece { first, count: 1, from });
    }

    /// Starts disk reads as far as the limit allows.
    pub(super) fn start_reads(&mut self) {
        while self.reads.in_flight < READS_IN_FLIGHT_MAX {
            let Some((number, at)) = self.reads.queue.pop_front() else { return };
            let Some(task) = self.reads.tasks.get_mut(number) else { continue };
            let Some(Piece { count, from: From::Disk { file, offset, .. }, .. }) =
                task.pieces.get(at as usize)
            else {
                unreachable!("queued pieces are read from the disk")
            };
            let buf = self.pool.alloc(*count as usize * BLOCK_BYTES);
            self.reads.in_flight += 1;
            self.ops.push(
                token(Kind::Read, number, at),
                Op::Read { file: *file, offset: *offset, buf },
            );
        }
    }

    pub(super) fn read_done(&mut self, number: u32, at: u32, result: Result<OpResult, DiskError>) {
        self.reads.in_flight -= 1;
        let Some(task) = self.reads.tasks.get_mut(number) else {
            unreachable!("a read without a task ended")
        };
        task.waiting -= 1;
        match result {
            Ok(OpResult::Read(buf)) => task.verify(at as usize, buf.freeze()),
            Ok(other) => unreachable!("a read ended as {other:?}"),
            Err(error) => task.error = Some(error),
        }
        let ended = task.waiting == 0;
        if ended {
            self.answer_read(number);
        }
        self.start_reads();
    }

    /// Everything asked of the disk is there: answers, or looks up again what moved.
    fn answer_read(&mut self, number: u32) {
        let Some(task) = self.reads.tasks.get_mut(number) else { return };
        let (volume, epoch) = (task.volume, task.epoch);
        let failed = task.error.is_some();
        if !failed && !task.mismatches.is_empty() && self.look_again(number) {
            return;
        }
        let promised = self.volume(volume).map(|volume| volume.log.promised());
        let Some(mut task) = self.reads.tasks.remove(number) else { return };
        let result = match (promised, task.error.take()) {
            (None, _) => Err(Refusal::Unknown.into()),
            (Some(promised), _) if epoch < promised => Err(Refusal::Fenced { promised }.into()),
            (Some(_), Some(error)) => Err(error.into()),
            (Some(_), None) => match task.mismatches.first() {
                Some(bad) => {
                    let block = task.range.start.get() + u64::from(bad.block);
                    Err(ReadError::Corrupt { block })
                }
                None => Ok(task.segments()),
            },
        };
        self.events.push(Event::Read { tag: task.tag, result });
        if self.reads.spare.len() < SPARE_TASKS_MAX {
            task.clear();
            self.reads.spare.push(task);
        }
    }

    /// Reads again after a mismatch; `false` when that would say nothing new.
    fn look_again(&mut self, number: u32) -> bool {
        let Some(task) = self.reads.tasks.get_mut(number) else { return false };
        task.retries += 1;
        if task.retries > READ_RETRIES_MAX || task.is_hopeless() {
            return false;
        }
        std::mem::swap(&mut task.before, &mut task.mismatches);
        task.mismatches.clear();
        task.pieces.clear();
        task.crcs.clear();
        task.resolved = 0;
        self.resolve_read(number);
        true
    }

    /// A leaf that a read needs cannot be had.
    pub(super) fn fail_read(&mut self, number: u32, slot: SlotNo, error: Option<DiskError>) {
        let Some(task) = self.reads.tasks.get_mut(number) else { return };
        match error {
            Some(error) => task.error = Some(error),
            None => {
                let first = slot.first_block().get().max(task.range.start.get());
                let block = (first - task.range.start.get()) as u32;
                task.mismatches.push(Mismatch { block, file: FileId(0), offset: 0, crc: 0 });
                task.retries = READ_RETRIES_MAX;
            }
        }
        self.answer_read(number);
    }
}

impl ReadTask {
    fn empty() -> Self {
        Self {
            tag: Tag(0),
            volume: VolIx(0),
            epoch: Epoch::ZERO,
            at: Lsn::ZERO,
            range: BlockRange::new(BlockNo::new(0), 0),
            resolved: 0,
            pieces: Vec::new(),
            crcs: Vec::new(),
            waiting: 0,
            retries: 0,
            mismatches: Vec::new(),
            before: Vec::new(),
            error: None,
        }
    }

    fn clear(&mut self) {
        self.resolved = 0;
        self.pieces.clear();
        self.crcs.clear();
        self.waiting = 0;
        self.retries = 0;
        self.mismatches.clear();
        self.before.clear();
        self.error = None;
    }

    /// Whether a block did not match twice, at the same place and with the same checksum.
    fn is_hopeless(&self) -> bool {
        self.mismatches.iter().any(|mismatch| self.before.contains(mismatch))
    }

    /// Takes what was read for a piece and checks every block of it.
    fn verify(&mut self, at: usize, read: Buf) {
        let Self { pieces, crcs, mismatches, .. } = self;
        let Some(Piece { first, count, from: From::Disk { file, offset, data } }) =
            pieces.get_mut(at)
        else {
            unreachable!("only pieces on the disk are read")
        };
        for i in 0..*count {
            let bytes = i as usize * BLOCK_BYTES;
            let crc = crcs[(*first + i) as usize];
            let differs = block_crc(&read[bytes..bytes + BLOCK_BYTES]) != crc;
            if differs && !mutant::active(Mutant::ReadUnverified) {
                mismatches.push(Mismatch {
                    block: *first + i,
                    file: *file,
                    offset: *offset + bytes as u64,
                    crc,
                });
            }
        }
        *data = Some(blocks_of(&read, 0, *count));
    }

    /// The data in address order.
    fn segments(&mut self) -> ReadSegments {
        let mut out = ReadSegments::with_capacity(self.pieces.len());
        for piece in self.pieces.drain(..) {
            match piece.from {
                From::Memory { data, .. } | From::Disk { data: Some(data), .. } => out.push(data),
                From::Disk { data: None, .. } => unreachable!("every piece was read"),
                From::Zeroes => {
                    let mut left = piece.count;
                    while left > 0 {
                        let count = left.min(READ_BLOCKS_MAX);
                        out.push(Buf::zeroes(count as usize * BLOCK_BYTES));
                        left -= count;
                    }
                }
            }
        }
        out
    }
}

fn blocks_of(data: &Buf, first: u32, count: u32) -> Buf {
    data.slice(first as usize * BLOCK_BYTES..(first + count) as usize * BLOCK_BYTES)
}
