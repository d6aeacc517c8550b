//! The source of a catch-up: where it stands, its slots, its records.
//!
//! Slots are shown as of the *floor*: what a round is applying counts as applied,
//! since it is settled and in place it may be half written; the log has it until the
//! map says otherwise. So every slot shown is exact as of its LSN, and all are
//! committed (I7).

use super::{
    Event, Host, ReadError, Tag,
    copy::{COPY_BYTES_MAX, Run, What, add_block},
    log::LogOp,
    round::applied_epochs,
    volume::VolIx,
};
use crate::store::{Lookup, PhysSlot};
use holdfast_io::{Buf, BufPool, FileId};
use holdfast_types::{
    BLOCK_BYTES, BlockMask, BlockNo, BlockRange, Epoch, Lsn, SLOT_BLOCKS, SLOT_BYTES, SlotNo,
    VolumeId, unbind_crc,
};
use holdfast_wire::{
    BlockCrcs, Record, RecordOp, Refusal,
    catchup::{Opened, SlotCopy},
};
use std::iter::Peekable;

/// Map records looked at for one answer, and records in one: what a turn can spare.
const LOOKED_MAX: usize = 4096;
/// Sources that apply before they answer, at most; the one that waits longest gives way,
/// whoever asked may be gone.
const OPENS_MAX: usize = 16;

/// A source that applies before it answers.
#[derive(Debug)]
pub(super) struct Open {
    tag: Tag,
    volume: VolIx,
    until: Lsn,
}

/// A question for slots.
#[derive(Debug)]
pub(super) struct SlotsTask {
    above: Lsn,
    from: SlotNo,
    /// Where to go on; `None`: nothing is left.
    next: Option<SlotNo>,
    looked: usize,
    items: Vec<SlotItem>,
}

/// A slot that will be handed out.
#[derive(Debug)]
pub(super) struct SlotItem {
    pub(super) slot: SlotNo,
    lsn: Lsn,
    pub(super) mask: BlockMask,
}

/// A slot as of some LSN.
pub(super) struct SlotView {
    lsn: Lsn,
    mask: BlockMask,
    /// Place and checksum of each present block.
    at: [(FileId, u64, u32); SLOT_BLOCKS],
}

impl SlotView {
    /// The slot as an item of an answer; its blocks are to be read.
    pub(super) fn item(&self, slot: SlotNo, number: u32, runs: &mut Vec<Run>) -> SlotItem {
        for i in (0..SLOT_BLOCKS).filter(|i| self.mask & (1 << i) != 0) {
            let (file, offset, crc) = self.at[i];
            let block = slot.first_block().get() + i as u64;
            add_block(runs, number, block, (file, offset), crc);
        }
        SlotItem { slot, lsn: self.lsn, mask: self.mask }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mask == 0
    }
}

/// Why a slot cannot be viewed now.
pub(super) enum Unseen {
    /// The map leaf is not in memory.
    Miss,
    /// The volume has gone.
    Gone,
}

impl SlotsTask {
    pub(super) fn rewind(&mut self) {
        self.next = Some(self.from);
        self.looked = 0;
        self.items.clear();
    }

    pub(super) fn take_answer(&mut self, runs: Vec<Run>) -> (Vec<SlotCopy>, Option<SlotNo>) {
        let mut runs = runs.into_iter().peekable();
        let copies = self.items.drain(..).zip(0..).map(|(SlotItem { slot, lsn, mask }, number)| {
            let mut copy = SlotCopy {
                slot,
                lsn,
                mask,
                crcs: BlockCrcs::new(),
                data: smallvec::SmallVec::new(),
            };
            while let Some(run) = next_of(&mut runs, number) {
                copy.crcs.extend(run.crcs.iter().copied());
                copy.data.extend(run.data);
            }
            copy
        });
        (copies.collect(), self.next)
    }
}

/// Bytes that are to be read.
pub(super) fn bytes_of(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.crcs.len() * BLOCK_BYTES).sum()
}

/// The next run, if it belongs to this item.
fn next_of(runs: &mut Peekable<impl Iterator<Item = Run>>, item: u32) -> Option<Run> {
    runs.next_if(|run| run.item == item)
}

/// A question for records.
#[derive(Debug)]
pub(super) struct RecordsTask {
    from: Lsn,
    /// Records from here on can no longer be read.
    end: Option<Lsn>,
    prev_epoch: Epoch,
    items: Vec<RecordItem>,
}

#[derive(Debug)]
struct RecordItem {
    lsn: Lsn,
    epoch: Epoch,
    /// Without data where that is read.
    op: RecordOp,
}

impl RecordsTask {
    pub(super) fn rewind(&mut self) {
        self.items.clear();
    }

    /// Whether item `number`, which cannot be read, is being applied: then the answer
    /// ends before it.
    pub(super) fn gives_up_applied(&mut self, number: u32, floor: Lsn) -> bool {
        let lsn = self.items[number as usize].lsn;
        if lsn <= floor {
            self.end = Some(lsn);
        }
        lsn <= floor
    }

    pub(super) fn take_answer(&mut self, pool: &BufPool, runs: Vec<Run>) -> (Vec<Record>, Epoch) {
        let mut runs = runs.into_iter().peekable();
        let records = self.items.drain(..).zip(0..).map(|(item, number)| {
            let RecordItem { lsn, epoch, mut op } = item;
            if let RecordOp::Write { range, data, .. } = &mut op
                && data.is_empty()
            {
                *data = joined(pool, range.bytes() as usize, &mut runs, number);
            }
            Record { lsn, epoch, op }
        });
        (records.collect(), self.prev_epoch)
    }
}

/// The data of an item in one buffer.
fn joined(
    pool: &BufPool,
    bytes: usize,
    runs: &mut Peekable<impl Iterator<Item = Run>>,
    item: u32,
) -> Buf {
    let first = next_of(runs, item).and_then(|run| run.data).unwrap_or_else(no_data);
    if first.len() == bytes {
        return first;
    }
    let mut all = pool.alloc(bytes);
    all[..first.len()].copy_from_slice(&first);
    let mut at = first.len();
    while let Some(data) = next_of(runs, item).and_then(|run| run.data) {
        all[at..at + data.len()].copy_from_slice(&data);
        at += data.len();
    }
    assert_eq!(at, bytes, "every block of the record was read");
    all.freeze()
}

impl Host {
    /// The replica of `volume`, if it can show anything of itself to others.
    pub(super) fn may_show(&self, volume: VolumeId) -> Result<VolIx, Refusal> {
        let at = self.serving(volume)?;
        match self.volume(at) {
            Some(volume) if volume.suspect || self.damaged => Err(Refusal::Suspect),
            Some(volume) if !volume.created => Err(Refusal::Unknown),
            _ => Ok(at),
        }
    }

    pub(super) fn take_source_open(&mut self, tag: Tag, id: VolumeId, above: Lsn, settle: Lsn) {
        if let Err(refusal) = self.try_source_open(tag, id, above, settle) {
            self.events.push(Event::SourceOpened { tag, result: Err(refusal.into()) });
        }
    }

    fn try_source_open(
        &mut self,
        tag: Tag,
        id: VolumeId,
        above: Lsn,
        settle: Lsn,
    ) -> Result<(), Refusal> {
        let at = self.may_show(id)?;
        let Some(volume) = self.volume(at) else { return Err(Refusal::Unknown) };
        // What was fetched here has to be exact before it is shown.
        let until = settle.max(volume.fetched);
        if volume.log.applied() <= above || volume.log.applied() >= until {
            let event = self.opened(tag, at);
            self.events.push(event);
            return Ok(());
        }
        if volume.log.last() < until {
            return Err(Refusal::Behind { wanted: until });
        }
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed);
        }
        if self.copies.opens.len() >= OPENS_MAX {
            let Open { tag, .. } = self.copies.opens.remove(0);
            let result = Err(Refusal::Full.into());
            self.events.push(Event::SourceOpened { tag, result });
        }
        self.copies.opens.push(Open { tag, volume: at, until });
        Ok(())
    }

    fn opened(&self, tag: Tag, at: VolIx) -> Event {
        let result = match self.volume(at).filter(|volume| !volume.closing) {
            None => Err(Refusal::Unknown.into()),
            Some(volume) => Ok(Opened {
                applied: volume.log.applied(),
                applied_epoch: volume.log.applied_epoch(),
                epochs: applied_epochs(&volume.log).collect(),
                blocks: volume.log.blocks_at(volume.log.applied()),
                commit: volume.log.settled(),
            }),
        };
        Event::SourceOpened { tag, result }
    }

    /// Answers sources that have applied enough, or never will.
    pub(super) fn turn_opens(&mut self) {
        let mut at = 0;
        while let Some(open) = self.copies.opens.get(at) {
            let volume = self.volume(open.volume).filter(|volume| !volume.closing);
            let done = volume.is_none_or(|volume| volume.log.applied() >= open.until);
            if !done && self.failed.is_none() {
                at += 1;
                continue;
            }
            let Open { tag, volume, .. } = self.copies.opens.remove(at);
            let event = match done {
                true => self.opened(tag, volume),
                false => {
                    let result = Err(Refusal::DiskFailed.into());
                    Event::SourceOpened { tag, result }
                }
            };
            self.events.push(event);
        }
    }

    /// Whether a source that waits can be answered by applying what there is.
    pub(super) fn is_open_due(&self) -> bool {
        self.copies.opens.iter().any(|open| {
            self.volume(open.volume).is_some_and(|volume| volume.log.appliable() >= open.until)
        })
    }

    pub(super) fn take_source_slots(&mut self, tag: Tag, id: VolumeId, from: SlotNo, above: Lsn) {
        match self.may_show(id) {
            Err(refusal) => {
                self.events.push(Event::SourceSlots { tag, result: Err(refusal.into()) });
            }
            Ok(at) => {
                let (next, items) = (Some(from), Vec::new());
                let task = SlotsTask { above, from, next, looked: 0, items };
                self.start_copy(tag, at, What::Slots(task));
            }
        }
    }

    /// Looks up slots to hand out; a slot whose map leaf is missing, if it meets one.
    pub(super) fn look_up_slots(
        &mut self,
        at: VolIx,
        slots: &mut SlotsTask,
        runs: &mut Vec<Run>,
    ) -> Result<Option<SlotNo>, ReadError> {
        let mut bytes = bytes_of(runs);
        while let Some(from) = slots.next {
            let Some(volume) = self.volume(at) else { return Err(Refusal::Unknown.into()) };
            let (id, floor) = (volume.id, volume.log.floor());
            if volume.fetched > volume.log.applied() {
                return Err(Refusal::Behind { wanted: volume.fetched }.into());
            }
            slots.next = self.store.next_leaf(id, from);
            let Some(slot) = slots.next else { break };
            if slots.looked >= LOOKED_MAX || bytes + SLOT_BYTES > COPY_BYTES_MAX {
                break;
            }
            match self.view_slot(at, floor, slot) {
                Err(Unseen::Gone) => return Err(Refusal::Unknown.into()),
                Err(Unseen::Miss) => return Ok(Some(slot)),
                Ok(Some(view)) if view.lsn > slots.above => {
                    let item = view.item(slot, slots.items.len() as u32, runs);
                    bytes += item.mask.count_ones() as usize * BLOCK_BYTES;
                    slots.items.push(item);
                }
                Ok(_) => {}
            }
            slots.looked += 1;
            slots.next = Some(SlotNo::new(slot.get() + 1));
        }
        Ok(None)
    }

    /// The slot as of `seen`, which is not below the floor: where each block lies on
    /// the device. All of it is durable.
    pub(super) fn view_slot(
        &mut self,
        at: VolIx,
        seen: Lsn,
        slot: SlotNo,
    ) -> Result<Option<SlotView>, Unseen> {
        let Some(volume) = self.volumes[at.0 as usize].as_ref() else { return Err(Unseen::Gone) };
        let map = match self.store.lookup(volume.id, slot) {
            Lookup::Miss => return Err(Unseen::Miss),
            Lookup::Absent => None,
            Lookup::Record(map) => Some(map),
        };
        let none = (FileId(0), 0, 0);
        let mut view = SlotView { lsn: Lsn::ZERO, mask: 0, at: [none; SLOT_BLOCKS] };
        let mut wanted = BlockMask::MAX;
        for (lsn, covers) in volume.index.chain(&self.nodes, slot) {
            // A fetched slot has what records at or below its LSN did.
            if lsn > seen || map.is_some_and(|map| lsn <= map.lsn) {
                continue;
            }
            view.lsn = view.lsn.max(lsn);
            let take = wanted & covers;
            wanted &= !take;
            let Some(record) = volume.log.record(lsn) else {
                unreachable!("the index names records of the log")
            };
            for i in (0..SLOT_BLOCKS).filter(|i| take & (1 << i) != 0) {
                let block = slot.first_block().get() + i as u64;
                view.at[i] = match &record.op {
                    LogOp::Write { range, crcs, .. } => {
                        let nth = (block - range.start.get()) as usize;
                        let Some(at) = record.logged.and_then(|logged| logged.payload_at) else {
                            unreachable!("what is durable has its place")
                        };
                        let ring = self.wal.ring();
                        (ring.file, ring.offset(at.plus((nth * BLOCK_BYTES) as u64)), crcs[nth])
                    }
                    LogOp::Fresh { range, crcs, slots, .. } => {
                        let nth = (block - range.start.get()) as usize;
                        let (file, base) = self.store.place(PhysSlot(slots[nth / SLOT_BLOCKS]));
                        (file, base + (i * BLOCK_BYTES) as u64, crcs[nth])
                    }
                    LogOp::Discard { .. } => continue,
                    LogOp::EpochStart | LogOp::Resize { .. } => {
                        unreachable!("it covers no block")
                    }
                };
                view.mask |= 1 << i;
            }
        }
        if let Some(map) = map {
            view.lsn = view.lsn.max(map.lsn);
            for i in (0..SLOT_BLOCKS).filter(|i| map.mask & wanted & (1 << i) != 0) {
                let Some(phys) = map.phys else { break };
                let (file, base) = self.store.place(phys);
                let block = BlockNo::new(slot.first_block().get() + i as u64);
                let crc = unbind_crc(map.crcs[i], volume.id, block);
                view.at[i] = (file, base + (i * BLOCK_BYTES) as u64, crc);
                view.mask |= 1 << i;
            }
        }
        Ok((view.lsn > Lsn::ZERO).then_some(view))
    }

    pub(super) fn take_source_records(&mut self, tag: Tag, id: VolumeId, from: Lsn) {
        match self.may_show(id) {
            Err(refusal) => {
                self.events.push(Event::SourceRecords { tag, result: Err(refusal.into()) });
            }
            Ok(at) => {
                let prev_epoch = Epoch::ZERO;
                let task = RecordsTask { from, end: None, prev_epoch, items: Vec::new() };
                self.start_copy(tag, at, What::Records(task));
            }
        }
    }

    /// Looks up records to hand out.
    pub(super) fn look_up_records(
        &mut self,
        at: VolIx,
        records: &mut RecordsTask,
        runs: &mut Vec<Run>,
    ) -> Option<SlotNo> {
        let log = &self.volume(at)?.log;
        let mut lsn = records.from;
        records.prev_epoch = log.epoch_at(lsn.prev()?)?;
        let mut bytes = 0;
        while lsn <= log.followed() && records.end.is_none_or(|end| lsn < end) {
            let record = log.record(lsn)?;
            let op = match &record.op {
                LogOp::Write { range, crcs, payload }
                | LogOp::Fresh { range, crcs, payload, .. } => {
                    let (range, crcs) = (*range, crcs.clone());
                    bytes += range.bytes() as usize;
                    RecordOp::Write { range, data: payload.clone().unwrap_or_else(no_data), crcs }
                }
                LogOp::Discard { range } => RecordOp::Discard { range: *range },
                LogOp::EpochStart => RecordOp::EpochStart,
                LogOp::Resize { blocks } => RecordOp::Resize { blocks: *blocks },
            };
            let number = records.items.len();
            if number >= LOOKED_MAX || number > 0 && bytes > COPY_BYTES_MAX {
                break;
            }
            match &record.op {
                LogOp::Write { range, crcs, payload: None } => {
                    let Some(start) = record.logged.and_then(|logged| logged.payload_at) else {
                        unreachable!("what is durable has its place")
                    };
                    let ring = self.wal.ring();
                    add_blocks(runs, number as u32, *range, crcs, |nth| {
                        (ring.file, ring.offset(start.plus((nth * BLOCK_BYTES) as u64)))
                    });
                }
                LogOp::Fresh { range, crcs, slots, payload: None, .. } => {
                    add_blocks(runs, number as u32, *range, crcs, |nth| {
                        let (slot, i) = (slots[nth / SLOT_BLOCKS], nth % SLOT_BLOCKS);
                        let (file, base) = self.store.place(PhysSlot(slot));
                        (file, base + (i * BLOCK_BYTES) as u64)
                    });
                }
                _ => {}
            }
            records.items.push(RecordItem { lsn, epoch: record.epoch, op });
            lsn = lsn.next();
        }
        None
    }
}

/// In place of what is to be read.
fn no_data() -> Buf {
    Buf::zeroes(0)
}

fn add_blocks(
    runs: &mut Vec<Run>,
    item: u32,
    range: BlockRange,
    crcs: &[u32],
    place: impl Fn(usize) -> (FileId, u64),
) {
    for (nth, crc) in crcs.iter().enumerate() {
        add_block(runs, item, range.start.get() + nth as u64, place(nth), *crc);
    }
}
