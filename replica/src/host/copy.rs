//! Reading slots and records for others: from the device, each block compared with
//! its checksum before it is handed out.
//!
//! As with reads (`read.rs`), looking up and reading are two moments, and a mismatch
//! means that something may have moved between them: the whole answer is looked up
//! and read again. Only a block whose place and checksum have stayed the same over
//! two reads is corrupt.

use super::{
    Event, Host, Kind, ReadError, Tag,
    digest::DigestTask,
    source::{RecordsTask, SlotsTask},
    token,
    volume::VolIx,
};
use holdfast_io::{Buf, DiskError, FileId, Op, OpResult};
use holdfast_types::{BLOCK_BYTES, SlotNo, block_crc};
use holdfast_wire::{BlockCrcs, Refusal};
use std::collections::VecDeque;

/// Payload of one answer at most, but for a single record that has more.
pub(super) const COPY_BYTES_MAX: usize = 4 << 20;
/// Questions that are being answered at most: bounds their payload to 64 MiB.
const COPY_TASKS_MAX: usize = 16;
/// Disk reads in flight for them: background work, beside up to 256 reads of clients.
const COPY_READS_MAX: usize = 16;
/// Times that an answer is looked up again because something moved; see `read.rs`.
const COPY_RETRIES_MAX: u8 = 16;

/// A question that needs the device.
#[derive(Debug)]
pub(super) struct CopyTask {
    pub(super) tag: Tag,
    pub(super) volume: VolIx,
    pub(super) what: What,
    pub(super) runs: Vec<Run>,
    /// Runs queued or in flight.
    waiting: u32,
    retries: u8,
    /// What did not match, the time before.
    before: Vec<Mismatch>,
    error: Option<ReadError>,
}

#[derive(Debug)]
pub(super) enum What {
    Slots(SlotsTask),
    Digest(DigestTask),
    Records(RecordsTask),
}

/// Neighbouring blocks of one item (a slot or a record) that lie side by side.
#[derive(Debug)]
pub(super) struct Run {
    /// Number of the item in the answer.
    pub(super) item: u32,
    /// The first block.
    block: u64,
    file: FileId,
    offset: u64,
    pub(super) crcs: BlockCrcs,
    pub(super) data: Option<Buf>,
    bad: Option<Mismatch>,
}

impl Run {
    fn new(item: u32, block: u64, (file, offset): (FileId, u64), crc: u32) -> Self {
        let crcs = BlockCrcs::from_iter([crc]);
        Self { item, block, file, offset, crcs, data: None, bad: None }
    }

    /// Adds a block if it is the next here and on the device.
    fn continues(&mut self, item: u32, block: u64, place: (FileId, u64), crc: u32) -> bool {
        let blocks = self.crcs.len() as u64;
        let next = (self.file, self.offset + blocks * BLOCK_BYTES as u64);
        let fits = self.item == item && self.block + blocks == block && next == place;
        if fits {
            self.crcs.push(crc);
        }
        fits
    }
}

/// A block that did not match its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mismatch {
    block: u64,
    file: FileId,
    offset: u64,
    crc: u32,
}

/// All questions of a host that need the device, and those that wait to be asked.
#[derive(Debug, Default)]
pub(super) struct Copies {
    tasks: super::slab::Slab<CopyTask>,
    /// Runs to be read: task and run.
    queue: VecDeque<(u32, u32)>,
    in_flight: usize,
    /// Sources that apply before they answer.
    pub(super) opens: Vec<super::source::Open>,
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.opens.is_empty()
    }
}

/// Has a block read, with the run before where it continues it.
pub(super) fn add_block(
    runs: &mut Vec<Run>,
    item: u32,
    block: u64,
    place: (FileId, u64),
    crc: u32,
) {
    if !runs.last_mut().is_some_and(|last| last.continues(item, block, place, crc)) {
        runs.push(Run::new(item, block, place, crc));
    }
}

impl Host {
    /// Begins to answer a question.
    pub(super) fn start_copy(&mut self, tag: Tag, volume: VolIx, what: What) {
        if self.copies.tasks.len() >= COPY_TASKS_MAX {
            return self.events.push(what.answer_error(tag, Refusal::Full.into()));
        }
        let (runs, before) = (Vec::new(), Vec::new());
        let task =
            CopyTask { tag, volume, what, runs, waiting: 0, retries: 0, before, error: None };
        let number = self.copies.tasks.insert(task);
        self.resume_copy(number);
    }

    /// Looks up what is to be read next, and reads it; waits for a map leaf if need be.
    pub(super) fn resume_copy(&mut self, number: u32) {
        let Some(mut task) = self.copies.tasks.remove(number) else { return };
        if self.volume(task.volume).is_none_or(|volume| volume.closing) {
            return self.events.push(task.what.answer_error(task.tag, Refusal::Unknown.into()));
        }
        let (at, runs) = (task.volume, &mut task.runs);
        let looked = match &mut task.what {
            What::Slots(slots) => self.look_up_slots(at, slots, runs),
            What::Digest(digest) => self.look_up_digest(at, digest, runs),
            What::Records(records) => Ok(self.look_up_records(at, records, runs)),
        };
        let missing = match looked {
            Ok(missing) => missing,
            Err(error) => return self.events.push(task.what.answer_error(task.tag, error)),
        };
        task.waiting = if missing.is_none() { task.runs.len() as u32 } else { 0 };
        let waiting = task.waiting;
        // The place that was just emptied is the next to be filled.
        let again = self.copies.tasks.insert(task);
        assert_eq!(again, number, "a task keeps its number");
        match missing {
            Some(slot) => self.wait_for_leaf(at, slot, super::waiters::Waiter::Copy(number)),
            None if waiting == 0 => self.copy_is_read(number),
            None => {
                self.copies.queue.extend((0..waiting).map(|run| (number, run)));
                self.start_copy_reads();
            }
        }
    }

    fn start_copy_reads(&mut self) {
        while self.copies.in_flight < COPY_READS_MAX {
            let Some((number, at)) = self.copies.queue.pop_front() else { return };
            let task = self.copies.tasks.get_mut(number);
            let Some(run) = task.and_then(|task| task.runs.get(at as usize)) else {
                unreachable!("a task stays until its runs are read")
            };
            let (file, offset) = (run.file, run.offset);
            let buf = self.pool.alloc(run.crcs.len() * BLOCK_BYTES);
            self.copies.in_flight += 1;
            self.ops.push(token(Kind::Copy, number, at), Op::Read { file, offset, buf });
        }
    }

    pub(super) fn copy_read(&mut self, number: u32, at: u32, result: Result<OpResult, DiskError>) {
        self.copies.in_flight -= 1;
        let Some(task) = self.copies.tasks.get_mut(number) else {
            unreachable!("a read without a task ended")
        };
        task.waiting -= 1;
        match result {
            Ok(OpResult::Read(buf)) => {
                let is_digest = matches!(task.what, What::Digest(_));
                task.runs[at as usize].verify(buf.freeze(), is_digest);
            }
            Ok(other) => unreachable!("a read ended as {other:?}"),
            Err(error) => task.error = Some(error.into()),
        }
        let ended = task.waiting == 0;
        if ended {
            self.copy_is_read(number);
        }
        self.start_copy_reads();
    }

    /// All that was looked up is there: answers, goes on, or looks up again what moved.
    fn copy_is_read(&mut self, number: u32) {
        let Some(mut task) = self.copies.tasks.remove(number) else { return };
        let bad: Vec<Mismatch> = task.runs.iter().filter_map(|run| run.bad).collect();
        if task.error.is_none() && !bad.is_empty() {
            if self.gives_up_applied(&mut task) {
                // What is left is asked for again.
            } else if let Some(same) = bad.iter().find(|bad| task.before.contains(bad)) {
                task.error = Some(ReadError::Corrupt { block: same.block });
            } else if task.retries >= COPY_RETRIES_MAX {
                task.error = Some(ReadError::Corrupt { block: bad[0].block });
            }
        }
        if let Some(error) = task.error {
            return self.events.push(task.what.answer_error(task.tag, error));
        }
        if self.volume(task.volume).is_none_or(|volume| volume.closing) {
            return self.events.push(task.what.answer_error(task.tag, Refusal::Unknown.into()));
        }
        if bad.is_empty() {
            (task.retries, task.before) = (0, Vec::new());
            if let Some(event) = self.answer_copy(&mut task) {
                return self.events.push(event);
            }
        } else {
            task.retries += 1;
            task.before = bad;
            match &mut task.what {
                What::Slots(slots) => slots.rewind(),
                What::Digest(digest) => digest.rewind(),
                What::Records(records) => records.rewind(),
            }
        }
        task.runs.clear();
        let again = self.copies.tasks.insert(task);
        assert_eq!(again, number, "a task keeps its number");
        self.resume_copy(number);
    }

    /// A record that is being applied, or has been, may be overwritten where it lies:
    /// then the log no longer reaches back to it.
    fn gives_up_applied(&self, task: &mut CopyTask) -> bool {
        let Some(volume) = self.volume(task.volume) else { return false };
        let What::Records(records) = &mut task.what else { return false };
        let bad = task.runs.iter().find(|run| run.bad.is_some());
        bad.is_some_and(|bad| records.gives_up_applied(bad.item, volume.log.floor()))
    }

    fn answer_copy(&mut self, task: &mut CopyTask) -> Option<Event> {
        let tag = task.tag;
        let floor = self.volume(task.volume)?.log.floor();
        let runs = std::mem::take(&mut task.runs);
        match &mut task.what {
            What::Slots(slots) => {
                let (copies, next) = slots.take_answer(runs);
                Some(Event::SourceSlots { tag, result: Ok((copies, next, floor)) })
            }
            What::Records(records) => {
                let settled = self.volume(task.volume)?.log.settled();
                let (records, prev_epoch) = records.take_answer(&self.pool, runs);
                Some(Event::SourceRecords { tag, result: Ok((records, prev_epoch, settled)) })
            }
            What::Digest(digest) => {
                digest.take_wave(&runs);
                let slots = digest.take_answer()?;
                Some(Event::Digest { tag, result: Ok(slots) })
            }
        }
    }

    /// A leaf that a question needs cannot be had.
    pub(super) fn fail_copy(&mut self, number: u32, slot: SlotNo, error: Option<DiskError>) {
        let Some(task) = self.copies.tasks.remove(number) else { return };
        let gone = self.volume(task.volume).is_none();
        let error = match error {
            Some(error) => error.into(),
            None if gone => Refusal::Unknown.into(),
            None => ReadError::Corrupt { block: slot.first_block().get() },
        };
        self.events.push(task.what.answer_error(task.tag, error));
    }
}

impl Run {
    /// Takes what was read; `drop_data`: only the checksums are of interest.
    fn verify(&mut self, read: Buf, drop_data: bool) {
        let blocks = read.chunks_exact(BLOCK_BYTES).zip(&self.crcs);
        let bad = blocks.enumerate().find(|(_, (block, crc))| block_crc(block) != **crc);
        self.bad = bad.map(|(i, (_, crc))| Mismatch {
            block: self.block + i as u64,
            file: self.file,
            offset: self.offset + (i * BLOCK_BYTES) as u64,
            crc: *crc,
        });
        if !drop_data {
            self.data = Some(read.slice(0..self.crcs.len() * BLOCK_BYTES));
        }
    }
}

impl What {
    fn answer_error(&self, tag: Tag, error: ReadError) -> Event {
        match self {
            Self::Slots(_) => Event::SourceSlots { tag, result: Err(error) },
            Self::Digest(_) => Event::Digest { tag, result: Err(error) },
            Self::Records(_) => Event::SourceRecords { tag, result: Err(error) },
        }
    }
}
