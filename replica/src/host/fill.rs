//! The sink of a catch-up: slots that were fetched from a source become slots here.
//!
//! No log protects them, so nothing is overwritten: the data of a slot goes into a
//! *fresh* place, and when it is there, the map record turns to it; the old place
//! is free after the next checkpoint, whose sync makes the new one durable. The volume's
//! page says since the same checkpoint how new the source was (*fetched*): a
//! crash leaves a store that knows what it may hold of the future.
//!
//! A slot that is as new here already is left alone. A discarded one gets its
//! tombstone even where nothing ever was: this replica may be the source of the next,
//! which may have data there.
//!
//! Maps do not change while a checkpoint writes them or a round has planned what
//! it dirties; then fetched slots wait.

use super::{
    Event, FillError, Host, Kind, ReadError, Tag,
    jump::{LSN_MAX, PendingJump},
    round::Phase,
    space::RESERVE_CHECKPOINTS,
    token,
    volume::VolIx,
    waiters::Waiter,
};
use crate::store::{Lookup, MAP_SLOTS_MAX, MapRecord, PhysSlot};
use holdfast_io::{Buf, DiskError, Op, OpResult};
use holdfast_types::{BLOCK_BYTES, BlockNo, Lsn, SLOT_BLOCKS, SlotNo, VolumeId, bound_crc};
use holdfast_wire::{Refusal, catchup::SlotCopy};

/// Calls that are open at most: a source's answer each, 4 MiB of data.
const FILLS_MAX: usize = 16;
/// Slots in one call at most; a source looks at 4096 for an answer.
const FILL_SLOTS_MAX: usize = 8192;

/// A call of [`Host::fill`].
#[derive(Debug)]
struct FillTask {
    tag: Tag,
    volume: VolIx,
    /// How new the source was.
    applied: Lsn,
    slots: Vec<SlotCopy>,
    /// What becomes of the first of them.
    plans: Vec<Plan>,
    /// Of these, those that are in the map.
    turned: usize,
    /// Writes in flight: neither placing nor turning goes on meanwhile.
    writes: u32,
    /// Waits for a map leaf.
    on_leaf: bool,
    /// Found no free slot.
    is_short: bool,
    /// Checkpoints since it went on.
    checkpoints: u8,
    failed: Option<FillError>,
}

/// What becomes of a slot.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// It is as new here.
    Keep,
    Tombstone,
    Move(PhysSlot),
}

/// What a host fetches.
#[derive(Debug, Default)]
pub(super) struct Fills {
    tasks: super::slab::Slab<FillTask>,
    pub(super) jumps: Vec<PendingJump>,
    /// A map has changed since the last checkpoint began.
    unsaved: bool,
}

impl Fills {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.jumps.is_empty()
    }

    /// Whether one waits for slots to be freed.
    pub(super) fn is_short(&self) -> bool {
        self.tasks.find(|task| task.is_short).is_some()
    }

    /// Whether a call of this volume is open.
    pub(super) fn is_filling(&self, at: VolIx) -> bool {
        self.tasks.find(|task| task.volume == at).is_some()
    }

    /// Whether a checkpoint would save what was fetched.
    pub(super) fn are_unsaved(&self) -> bool {
        self.unsaved
    }

    /// A checkpoint begins.
    pub(super) fn saved(&mut self) {
        self.unsaved = false;
    }
}

impl Host {
    pub(super) fn take_fill(&mut self, tag: Tag, id: VolumeId, slots: Vec<SlotCopy>, applied: Lsn) {
        let taken = self.may_fill(id).and_then(|at| {
            match slots.iter().find_map(|slot| fault_of(slot, applied)) {
                Some(fault) => Err(FillError::Malformed(fault)),
                None if slots.len() > FILL_SLOTS_MAX => {
                    Err(FillError::Malformed("more slots than an answer holds"))
                }
                None if self.fills.tasks.len() >= FILLS_MAX => Err(Refusal::Full.into()),
                None => Ok(at),
            }
        });
        let volume = match taken {
            Err(error) => return self.events.push(Event::Filled { tag, result: Err(error) }),
            Ok(volume) => volume,
        };
        let task = FillTask {
            tag,
            volume,
            applied,
            plans: Vec::with_capacity(slots.len()),
            slots,
            turned: 0,
            writes: 0,
            on_leaf: false,
            is_short: false,
            checkpoints: 0,
            failed: None,
        };
        self.activity += 1;
        let number = self.fills.tasks.insert(task);
        self.advance_fill(number);
    }

    /// The replica of a volume, if it can be a sink.
    pub(super) fn may_fill(&self, id: VolumeId) -> Result<VolIx, FillError> {
        let at = self.may_show(id)?;
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed.into());
        }
        // What is fetched next would be newer than what the log is about to begin with.
        if self.fills.is_jumping(at) {
            return Err(FillError::Malformed("fetching goes on after its end"));
        }
        Ok(at)
    }

    /// Takes up every call that can go on; `checkpointed`: a checkpoint has ended.
    pub(super) fn turn_fills(&mut self, checkpointed: bool) {
        if self.fills.tasks.is_empty() {
            return;
        }
        for number in 0..self.fills.tasks.places() {
            let Some(task) = self.fills.tasks.get_mut(number) else { continue };
            task.checkpoints += u8::from(checkpointed);
            if !task.on_leaf {
                self.advance_fill(number);
            }
        }
    }

    pub(super) fn resume_fill(&mut self, number: u32) {
        if let Some(task) = self.fills.tasks.get_mut(number) {
            task.on_leaf = false;
            self.advance_fill(number);
        }
    }

    /// A leaf that a slot needs cannot be had.
    pub(super) fn fail_fill(&mut self, number: u32, slot: SlotNo, error: Option<DiskError>) {
        if let Some(task) = self.fills.tasks.get_mut(number) {
            task.on_leaf = false;
            let block = slot.first_block().get();
            let error = error.map_or(ReadError::Corrupt { block }, ReadError::Disk);
            task.failed = Some(error.into());
            self.advance_fill(number);
        }
    }

    /// Data is in its place.
    pub(super) fn fill_written(&mut self, number: u32, result: Result<OpResult, DiskError>) {
        let Some(task) = self.fills.tasks.get_mut(number) else {
            unreachable!("a write without a task ended")
        };
        task.writes -= 1;
        match result {
            Ok(OpResult::Written(bufs)) => self.keep_bufs(bufs),
            Ok(other) => unreachable!("a write ended as {other:?}"),
            Err(error) => self.fail(error),
        }
        self.advance_fill(number);
    }

    fn advance_fill(&mut self, number: u32) {
        let Some(mut task) = self.fills.tasks.remove(number) else { return };
        if task.failed.is_none() {
            let gone = self.volume(task.volume).is_none_or(|volume| volume.closing);
            if gone {
                task.failed = Some(Refusal::Unknown.into());
            } else if self.failed.is_some() {
                task.failed = Some(Refusal::DiskFailed.into());
            }
        }
        let mut missing = None;
        while task.failed.is_none() && task.writes == 0 && missing.is_none() {
            let before = (task.plans.len(), task.turned);
            missing = match task.turned == task.plans.len() {
                true => self.place_slots(number, &mut task),
                false => self.turn_slots(&mut task),
            };
            if before == (task.plans.len(), task.turned) {
                break;
            }
            task.checkpoints = 0;
        }
        let done = task.failed.is_some() || task.turned == task.slots.len();
        if done && task.writes == 0 {
            return self.end_fill(task);
        }
        let at = task.volume;
        task.on_leaf = missing.is_some();
        // The place that was just emptied is the next to be filled.
        let again = self.fills.tasks.insert(task);
        assert_eq!(again, number, "a task keeps its number");
        if let Some(slot) = missing {
            self.wait_for_leaf(at, slot, Waiter::Fill(number));
        }
    }

    fn end_fill(&mut self, task: FillTask) {
        // After a failure nothing is allocated any more, so nothing need be freed.
        if self.failed.is_none() {
            for plan in &task.plans[task.turned..] {
                if let Plan::Move(place) = plan {
                    self.store.free_unused(*place);
                }
            }
        }
        let result = match task.failed {
            Some(error) => Err(error),
            None => Ok(()),
        };
        self.events.push(Event::Filled { tag: task.tag, result });
    }

    /// Finds places for as many slots as there are, and starts writing; a slot whose
    /// map leaf is missing, if it meets one.
    fn place_slots(&mut self, number: u32, task: &mut FillTask) -> Option<SlotNo> {
        task.is_short = false;
        while let Some(copy) = task.slots.get(task.plans.len()) {
            let volume = self.volume(task.volume)?.id;
            let here = match self.store.lookup(volume, copy.slot) {
                Lookup::Miss => return Some(copy.slot),
                Lookup::Absent => None,
                Lookup::Record(map) => Some(map.lsn),
            };
            if here.is_some_and(|here| here >= copy.lsn) {
                task.plans.push(Plan::Keep);
                continue;
            }
            // A tombstone too may need a map page of its own.
            let has_space = self.space.available(&self.store) > 0 || here.is_some();
            let plan = match copy.mask {
                0 => has_space.then_some(Plan::Tombstone),
                _ if self.space.available(&self.store) > 0 => {
                    self.store.alloc_run(1).map(|run| Plan::Move(run.start))
                }
                _ => None,
            };
            let Some(plan) = plan else {
                // First those that have places: what they replace becomes free.
                if task.turned == task.plans.len() {
                    task.is_short = self.may_free_space(task.checkpoints);
                    if !task.is_short {
                        task.failed = Some(FillError::Full);
                    }
                }
                return None;
            };
            if let Plan::Move(place) = plan {
                task.writes += self.write_copy(number, place, copy);
            }
            task.plans.push(plan);
        }
        None
    }

    /// Starts to write a slot's blocks; the number of writes.
    fn write_copy(&mut self, number: u32, place: PhysSlot, copy: &SlotCopy) -> u32 {
        let (file, base) = self.store.place(place);
        let mut left = Pieces { bufs: &copy.data, at: 0 };
        let mut writes = 0;
        let mut i = 0;
        while i < SLOT_BLOCKS {
            let blocks = (i..SLOT_BLOCKS).take_while(|i| copy.mask & (1 << i) != 0).count();
            if blocks == 0 {
                i += 1;
                continue;
            }
            let bufs = left.take(blocks * BLOCK_BYTES);
            let offset = base + (i * BLOCK_BYTES) as u64;
            self.ops.push(
                token(Kind::Fill, number, 0),
                Op::Write { file, offset, bufs, durable: false },
            );
            writes += 1;
            i += blocks;
        }
        writes
    }

    /// Turns the map to slots whose data is in place, as far as it may be changed now.
    fn turn_slots(&mut self, task: &mut FillTask) -> Option<SlotNo> {
        while let Some(plan) = task.plans.get(task.turned).copied() {
            let copy = &task.slots[task.turned];
            let phase = self.round.phase;
            if matches!(phase, Phase::Applying | Phase::Checkpoint) {
                return None;
            }
            if self.store.dirty_bytes() >= self.store.dirty_limit() {
                // A checkpoint that comes of it helps, unless there is no room for one page.
                if task.checkpoints > RESERVE_CHECKPOINTS {
                    task.failed = Some(FillError::Full);
                }
                return None;
            }
            let volume = self.volumes[task.volume.0 as usize].as_mut()?;
            let place = match plan {
                Plan::Keep => {
                    task.turned += 1;
                    continue;
                }
                Plan::Tombstone => None,
                Plan::Move(place) => Some(place),
            };
            let here = match self.store.lookup(volume.id, copy.slot) {
                Lookup::Miss => return Some(copy.slot),
                Lookup::Absent => None,
                Lookup::Record(map) => Some(map),
            };
            task.turned += 1;
            if here.is_some_and(|here| here.lsn >= copy.lsn) {
                // What was applied meanwhile is as new.
                if let Some(place) = place {
                    self.store.free_unused(place);
                }
                continue;
            }
            // In the same checkpoint as the slot, or one before.
            volume.fetched = volume.fetched.max(task.applied);
            if let Some(state) = self.store.volume_mut(volume.id) {
                state.fetched = volume.fetched;
            }
            let record = record_of(volume.id, copy, place);
            self.store.update(volume.id, copy.slot, Some(record));
            self.fills.unsaved = true;
            let (at, slot) = (task.volume, copy.slot);
            self.settle_space(at, slot, place.is_some());
        }
        None
    }
}

fn record_of(volume: VolumeId, copy: &SlotCopy, phys: Option<PhysSlot>) -> MapRecord {
    let mut crcs = [0; SLOT_BLOCKS];
    let present = (0..SLOT_BLOCKS).filter(|i| copy.mask & (1 << i) != 0);
    for (i, crc) in present.zip(&copy.crcs) {
        let block = BlockNo::new(copy.slot.first_block().get() + i as u64);
        crcs[i] = bound_crc(*crc, volume, block);
    }
    MapRecord { phys, lsn: copy.lsn, mask: copy.mask, flags: 0, crcs }
}

/// What is wrong with a slot that a source has sent.
fn fault_of(copy: &SlotCopy, applied: Lsn) -> Option<&'static str> {
    let blocks = copy.mask.count_ones() as usize;
    let bytes: usize = copy.data.iter().map(|data| data.len()).sum();
    let whole = copy.data.iter().all(|data| data.len().is_multiple_of(BLOCK_BYTES));
    let SlotCopy { slot, lsn, crcs, .. } = copy;
    let faults = [
        (slot.get() >= MAP_SLOTS_MAX, "a slot beyond any volume"),
        (applied > LSN_MAX, "more records than there can be"),
        (*lsn == Lsn::ZERO || *lsn > applied, "a slot that is newer than its source"),
        (crcs.len() != blocks, "not one checksum a block"),
        (bytes != blocks * BLOCK_BYTES || !whole, "not the data of the blocks present"),
    ];
    faults.into_iter().find_map(|(is_so, fault)| is_so.then_some(fault))
}

/// Takes data off the front of a list of buffers.
struct Pieces<'a> {
    bufs: &'a [Buf],
    /// Bytes of the first that are taken.
    at: usize,
}

impl Pieces<'_> {
    fn take(&mut self, mut bytes: usize) -> Vec<Buf> {
        let mut taken = Vec::new();
        while bytes > 0
            && let Some((first, rest)) = self.bufs.split_first()
        {
            let count = bytes.min(first.len() - self.at);
            taken.push(first.slice(self.at..self.at + count));
            (bytes, self.at) = (bytes - count, self.at + count);
            if self.at == first.len() {
                (self.bufs, self.at) = (rest, 0);
            }
        }
        taken
    }
}
