//! Allocation status: which blocks hold data, from the index and the maps.

use super::{Event, Extents, Host, ReadError, Tag, volume::VolIx, waiters::Waiter};
use crate::store::Lookup;
use holdfast_io::DiskError;
use holdfast_types::{BlockMask, BlockNo, BlockRange, Epoch, Lsn, SLOT_BLOCKS, SlotNo, VolumeId};
use holdfast_wire::Refusal;

/// Extents of one answer at most. It then ends early, and whoever asked asks again:
/// bounds the memory of answers about ranges full of holes.
pub(super) const EXTENTS_MAX: usize = 8192;

/// A question for allocation.
#[derive(Debug)]
pub(super) struct StatusTask {
    tag: Tag,
    volume: VolIx,
    at: Lsn,
    range: BlockRange,
    /// Blocks of the range that are answered.
    resolved: u64,
    extents: Extents,
}

impl Host {
    pub(super) fn take_status(
        &mut self,
        tag: Tag,
        volume: VolumeId,
        epoch: Epoch,
        at: Lsn,
        range: BlockRange,
    ) {
        match self.may_read(volume, epoch, at) {
            Err(refusal) => self.events.push(Event::Status { tag, result: Err(refusal.into()) }),
            Ok(volume) => {
                let extents = Extents::new();
                let task = StatusTask { tag, volume, at, range, resolved: 0, extents };
                let task = self.statuses.insert(task);
                self.resolve_status(task);
            }
        }
    }

    pub(super) fn resolve_status(&mut self, number: u32) {
        let Some(mut task) = self.statuses.remove(number) else { return };
        while task.resolved < task.range.count && task.extents.len() < EXTENTS_MAX {
            let block = BlockNo::new(task.range.start.get() + task.resolved);
            let first = block.index_in_slot();
            let count = (SLOT_BLOCKS - first).min((task.range.count - task.resolved) as usize);
            let Some(held) = self.held_blocks(task.volume, task.at, block.slot()) else {
                if self.volume(task.volume).is_none() {
                    let result = Err(Refusal::Unknown.into());
                    self.events.push(Event::Status { tag: task.tag, result });
                    return;
                }
                let at = task.volume;
                // The place that was just emptied is the next to be filled.
                let again = self.statuses.insert(task);
                assert_eq!(again, number, "a task keeps its number");
                return self.wait_for_leaf(at, block.slot(), Waiter::Status(number));
            };
            for i in first..first + count {
                add(&mut task.extents, held & (1 << i) != 0);
            }
            task.resolved += count as u64;
        }
        self.events.push(Event::Status { tag: task.tag, result: Ok(task.extents) });
    }

    /// The blocks of a slot that hold data; `None`: its map leaf is not in
    /// memory, or the volume has gone.
    fn held_blocks(&mut self, at: VolIx, lsn: Lsn, slot: SlotNo) -> Option<BlockMask> {
        let volume = self.volumes[at.0 as usize].as_ref()?;
        let seen = lsn.max(volume.log.floor());
        let (mut wanted, mut held) = (BlockMask::MAX, 0);
        for (lsn, covers) in volume.index.chain(&self.nodes, slot) {
            let take = wanted & covers;
            if lsn > seen || take == 0 {
                continue;
            }
            wanted &= !take;
            if volume.log.record(lsn).is_some_and(|record| record.op.stores_data()) {
                held |= take;
            }
        }
        if wanted == 0 {
            return Some(held);
        }
        match self.store.lookup(volume.id, slot) {
            Lookup::Miss => None,
            Lookup::Absent => Some(held),
            Lookup::Record(map) => Some(held | (map.mask & wanted)),
        }
    }

    pub(super) fn fail_status(&mut self, number: u32, slot: SlotNo, error: Option<DiskError>) {
        let Some(task) = self.statuses.remove(number) else { return };
        let gone = self.volume(task.volume).is_none();
        let error = match error {
            Some(error) => error.into(),
            None if gone => Refusal::Unknown.into(),
            None => ReadError::Corrupt { block: slot.first_block().get() },
        };
        self.events.push(Event::Status { tag: task.tag, result: Err(error) });
    }
}

fn add(extents: &mut Extents, held: bool) {
    match extents.last_mut() {
        Some((blocks, last)) if *last == held => *blocks += 1,
        _ => extents.push((1, held)),
    }
}
