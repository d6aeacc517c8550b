//! What members can take. A member says what it has room for beyond the records
//! that it had received; the engine takes off what it sequenced since, so that an
//! answer that was long on its way promises nothing twice.
//!
//! Costs are counted from the beginning of the log: a member's `limit` is where that
//! count may get to, and what is left is one subtraction.

use super::{EngineCore, MemberId};
use holdfast_replica::Credits;
use holdfast_types::{BlockRange, Lsn, SLOT_BLOCKS};
use holdfast_wire::RecordOp;

/// What a record takes of a replica's credits.
pub(super) fn cost(op: &RecordOp) -> Credits {
    match op {
        RecordOp::Write { range, .. } => cost_of_write(*range),
        RecordOp::Discard { range } => cost_of_discard(*range),
        RecordOp::EpochStart | RecordOp::Resize { .. } => Credits { slots: 0, wal_bytes: 0 },
    }
}

pub(super) fn cost_of_write(range: BlockRange) -> Credits {
    let per = SLOT_BLOCKS as u64;
    let first = range.start.get() / per;
    Credits { slots: range.end().get().div_ceil(per) - first, wal_bytes: range.bytes() }
}

pub(super) fn cost_of_discard(range: BlockRange) -> Credits {
    Credits { slots: 0, wal_bytes: Credits::discard_wal_bytes(range.count) }
}

pub(super) fn plus(a: Credits, b: Credits) -> Credits {
    Credits {
        slots: a.slots.saturating_add(b.slots),
        wal_bytes: a.wal_bytes.saturating_add(b.wal_bytes),
    }
}

/// What is left of `limit` when `spent` is gone.
pub(super) fn left(limit: Credits, spent: Credits) -> Credits {
    Credits {
        slots: limit.slots.saturating_sub(spent.slots),
        wal_bytes: limit.wal_bytes.saturating_sub(spent.wal_bytes),
    }
}

impl EngineCore {
    pub(super) fn credits(&mut self, id: MemberId, as_of: Lsn, credits: Credits) {
        let Some(member) = self.members.get_mut(id) else { return };
        if !member.is_reachable() {
            return;
        }
        let spent = self.log.spent_at(as_of.min(member.sent()));
        let limit = plus(spent, credits);
        member.limit.wal_bytes = limit.wal_bytes;
        member.has_limit = true;
        // What another process said before it read of a reservation still has the slots
        // in it that the reservation takes.
        if member.is_local() || member.reserving == 0 {
            member.limit.slots = limit.slots;
        }
    }
}
