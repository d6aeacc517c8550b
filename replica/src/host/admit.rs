//! What an append must be to be taken, beside following the log: records that an
//! engine can make, and no more of them than there is room for. Both are questions to
//! a remote peer's message, so both are answered by a refusal.

use super::{
    Credits, Host,
    index::SlotEntry,
    volume::{VolIx, Volume},
};
use crate::store::Lookup;
use holdfast_types::{BlockRange, DISCARD_SLOTS_MAX, RECORD_BLOCKS_MAX, SLOT_BLOCKS};
use holdfast_wal::Entry;
use holdfast_wire::{Record, RecordOp, Refusal};
use std::collections::BTreeSet;

/// What may be unapplied beyond twice the limit: memory, for what several engines sent on
/// the same credits.
const OVERRUN_BYTES_MAX: u64 = 64 << 20;
/// What may be unsettled, as parts of the limit: more than one engine is told of, less
/// than what makes others wait.
const UNSETTLED_MAX: (u64, u64) = (3, 2);
/// But it has to fit into the ring twice, or nothing behind it would ever be logged.
const RING_PER_UNSETTLED: u64 = 2;
/// Records that an epoch begins with: its start, and the volume's new size.
const BEGIN_RECORDS_MAX: usize = 2;

impl Host {
    /// Whether there is room for new records. Engines on several nodes may each have been
    /// told of the same room, so even one that minds its credits can be refused.
    pub(super) fn may_take(
        &self,
        at: VolIx,
        volume: &Volume,
        new: &[Record],
    ) -> Result<(), Refusal> {
        let Some(first) = new.first() else { return Ok(()) };
        // The store is about to say that the log goes on elsewhere.
        if self.fills.is_jumping(at) {
            return Err(volume.log.mismatch());
        }
        // What begins an epoch settles all before it, so it must pass; and it comes
        // once an epoch.
        let begins = matches!(first.op, RecordOp::EpochStart)
            && first.epoch > volume.log.last_epoch()
            && new.len() <= BEGIN_RECORDS_MAX;
        let charge: u64 = new.iter().map(|record| charge_of(&record.op)).sum();
        let memory = self.counts.unapplied + charge > 2 * self.unapplied_max + OVERRUN_BYTES_MAX;
        let unsettled = self.counts.unapplied - self.counts.settled;
        let (parts, of) = UNSETTLED_MAX;
        let limit = self.unapplied_max * parts / of;
        let limit = limit.min(self.ring_capacity / RING_PER_UNSETTLED);
        // However small the limit, what comes alone passes.
        let ring = unsettled > 0 && unsettled + charge > limit;
        if !begins && (memory || ring) { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Whether there are slots for the data of new records: applying must never lack one. An
    /// engine sends also to those of its members that have no room for what the others have.
    /// True: so many that data may go into fresh ones too.
    pub(super) fn may_place(&mut self, at: VolIx, new: &[Record]) -> Result<bool, Refusal> {
        let available = self.space.available(&self.store);
        let writes = || {
            new.iter().filter_map(|record| match &record.op {
                RecordOp::Write { range, .. } => Some(*range),
                _ => None,
            })
        };
        if writes().map(|range| range.slots().count() as u64).sum::<u64>() <= available {
            return Ok(true);
        }
        let Some(volume) = self.volumes[at.0 as usize].as_ref() else {
            return Err(Refusal::Unknown);
        };
        let mut lacking = BTreeSet::new();
        for (slot, _) in writes().flat_map(|range| range.slots()) {
            let spoken_for = |entry: &SlotEntry| entry.reserved || entry.wants_space();
            if volume.index.get(slot).is_some_and(spoken_for) {
                continue;
            }
            match self.store.lookup(volume.id, slot) {
                Lookup::Record(map) if map.phys.is_some() => continue,
                // It may well have a place: that is known when it is asked again.
                Lookup::Miss => self.store.load(volume.id, slot),
                Lookup::Record(_) | Lookup::Absent => {}
            }
            lacking.insert(slot);
        }
        if lacking.len() as u64 <= available { Ok(false) } else { Err(Refusal::Full) }
    }
}

/// What a record counts against the limit of unapplied bytes, or less.
fn charge_of(op: &RecordOp) -> u64 {
    match op {
        RecordOp::Write { range, .. } => Entry::ring_bytes(range.bytes()),
        RecordOp::Discard { range } => Credits::discard_wal_bytes(range.count),
        RecordOp::EpochStart | RecordOp::Resize { .. } => Entry::ring_bytes(0),
    }
}

/// Whether a record is one that an engine may make; `blocks` is the volume's size.
pub(super) fn is_well_formed(record: &Record, blocks: &mut u64) -> bool {
    match &record.op {
        RecordOp::Write { range, data, crcs } => {
            range.count > 0
                && range.count <= RECORD_BLOCKS_MAX as u64
                && data.len() as u64 == range.bytes()
                && crcs.len() as u64 == range.count
                && ends_within(*range, *blocks)
        }
        RecordOp::Discard { range } => {
            range.count > 0
                && range.count <= DISCARD_SLOTS_MAX * SLOT_BLOCKS as u64
                && ends_within(*range, *blocks)
        }
        RecordOp::EpochStart => true,
        RecordOp::Resize { blocks: new } => {
            // A volume that shrinks would leave data behind its end, to be seen when it grows.
            let grows = *new >= *blocks;
            *blocks = (*blocks).max(*new);
            grows
        }
    }
}

fn ends_within(range: BlockRange, blocks: u64) -> bool {
    range.start.get().checked_add(range.count).is_some_and(|end| end <= blocks)
}
