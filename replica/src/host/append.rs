//! Taking records: into the log and the index at once, into the WAL by the next
//! [`Host::flush`], acknowledged when they are on stable storage.
//!
//! Small writes go into the WAL with their payload. Writes of whole slots go
//! straight into *fresh* slots of the data area, at the same time as their
//! description goes into the WAL; the WAL counts the entry as durable only once
//! the data is ([`holdfast_wal::Wal::release`]), so an acknowledgement is of both.
//!
//! Everything that goes to the WAL passes the *outbox* in order, records and
//! control entries alike. It empties in the same turn unless the ring is short
//! of space.

use super::{
    Event, Host, Kind,
    control::Control,
    log::{LogOp, LogRecord, Logged, Step},
    meta::{Body, FreshSlots, Meta, MetaOp},
    round::APPLY_IN_FLIGHT_MAX,
    token,
    volume::{VolIx, carry_charge, is_logged},
};
use crate::store::PhysSlot;
use holdfast_io::{Buf, DiskError, IoQueue, Op, OpResult};
use holdfast_types::{
    BlockRange, Lsn, SLOT_BLOCKS, SLOT_BYTES, VolumeId,
    mutant::{self, Mutant},
};
use holdfast_wal::{AppendError, Entry, EntryId, Position};
use holdfast_wire::{Append, BlockCrcs, Record, RecordOp, Refusal, StreamSession};

/// Something that waits to go into the WAL.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// With what it was charged.
    Record {
        volume: VolIx,
        lsn: Lsn,
        charge: u64,
    },
    Control(Control),
}

/// An entry of the WAL that is not durable yet.
#[derive(Debug)]
pub(super) enum Pending {
    Record {
        volume: VolIx,
        lsn: Lsn,
        committed: Lsn,
    },
    /// A copy of a durable record; replaces the original, which was `of`.
    Carried {
        volume: VolIx,
        lsn: Lsn,
        of: EntryId,
        payload_at: Option<Position>,
        committed: Lsn,
    },
    /// Says what is committed, for a round.
    Note {
        volume: VolIx,
        committed: Lsn,
    },
    Control(Control),
}

/// Data on its way into fresh slots.
#[derive(Debug)]
pub(super) struct FreshWrite {
    volume: VolIx,
    lsn: Lsn,
    /// Operations in flight.
    ops: u32,
    /// Once it is in the WAL.
    entry: Option<EntryId>,
}

impl Host {
    pub(super) fn take_append(&mut self, mut append: Append) -> Vec<Record> {
        if let Err(refusal) = self.try_append(&mut append) {
            self.refuse(append.volume, append.session, refusal);
        }
        append.records.clear();
        append.records
    }

    fn refuse(&mut self, volume: VolumeId, session: StreamSession, refusal: Refusal) {
        self.events.push(Event::Refused { volume, session, refusal });
    }

    fn try_append(&mut self, append: &mut Append) -> Result<(), Refusal> {
        let at = self.serving(append.volume)?;
        if self.failed.is_some() {
            return Err(Refusal::DiskFailed);
        }
        let Some(volume) = self.volume(at) else { return Err(Refusal::Unknown) };
        if volume.suspect {
            return Err(Refusal::Suspect);
        }
        let accepted = volume.log.accept(volume.history, append)?;
        self.may_take(at, volume, &append.records[accepted.known..])?;
        let plenty = self.may_place(at, &append.records[accepted.known..])?;
        for record in append.records.drain(..).skip(accepted.known) {
            self.take_record(at, record, plenty);
        }
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else {
            unreachable!("it was just there")
        };
        let before = volume.log.settled();
        volume.log.step(Step::Match(append.session, accepted.last));
        volume.log.step(Step::Commit(append.commit_lsn));
        self.settled_since(at, before);
        self.ack_later(at);
        Ok(())
    }

    pub(super) fn commit_to(&mut self, volume: VolumeId, commit: Lsn) {
        let Ok(at) = self.serving(volume) else { return };
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        let before = volume.log.settled();
        volume.log.step(Step::Commit(commit));
        self.settled_since(at, before);
    }

    /// What was settled since then needs no space to be carried any more.
    fn settled_since(&mut self, at: VolIx, before: Lsn) {
        let Some(volume) = self.volume(at) else { return };
        let (mut charge, mut carry) = (0, 0);
        let mut lsn = before;
        while lsn < volume.log.settled() {
            lsn = lsn.next();
            if let Some(record) = volume.log.record(lsn) {
                charge += record.op.charge();
                if is_logged(record) {
                    carry += carry_charge(record);
                }
            }
        }
        self.counts.settled += charge;
        self.counts.carry -= carry;
        if charge > 0 {
            self.note_settled(at, charge);
        }
    }

    /// `plenty`: there are slots for all that comes with it, also fresh ones.
    fn take_record(&mut self, at: VolIx, record: Record, plenty: bool) {
        let lsn = record.lsn;
        let op = match record.op {
            RecordOp::Write { range, data, crcs } if plenty => {
                self.place_write(at, lsn, range, data, crcs)
            }
            RecordOp::Write { range, data, crcs } => {
                LogOp::Write { range, crcs, payload: Some(data) }
            }
            RecordOp::Discard { range } => LogOp::Discard { range },
            RecordOp::EpochStart => LogOp::EpochStart,
            RecordOp::Resize { blocks } => LogOp::Resize { blocks },
        };
        if let LogOp::Write { payload: Some(payload), .. } = &op {
            self.counts.cached += payload.len() as u64;
        }
        let charge = op.charge();
        self.counts.unapplied += charge;
        self.counts.outgoing += charge;
        self.index_record(at, lsn, &op);
        if let Some(volume) = self.volumes[at.0 as usize].as_mut() {
            self.counts.active += u64::from(volume.share.unapplied == 0);
            volume.share.unapplied += charge;
            volume.log.step(Step::Push(LogRecord { epoch: record.epoch, op, logged: None }));
        }
        self.outbox.push_back(Outgoing::Record { volume: at, lsn, charge });
        self.activity += 1;
    }

    /// Puts the record into the index and sets space aside for what it may need.
    pub(super) fn index_record(&mut self, at: VolIx, lsn: Lsn, op: &LogOp) {
        let Some(range) = op.range() else { return };
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        let stores = op.stores_data();
        for (slot, mask) in range.slots() {
            let entry = volume.index.push(&mut self.nodes, slot, lsn, mask, stores);
            if !stores {
                continue;
            }
            entry.grants = entry.grants.saturating_sub(1);
            if entry.reserved || matches!(op, LogOp::Fresh { .. }) || entry.writes > 1 {
                // What an earlier record needed is enough: one slot of the disk
                // for one of the volume. A fresh write has its place already.
                continue;
            }
            if !self.space.is_mapped(&mut self.store, volume.id, slot) {
                entry.reserved = true;
                self.space.reserved += 1;
            }
        }
    }

    /// Decides where a write's data goes, and starts it if that is a fresh slot.
    fn place_write(
        &mut self,
        at: VolIx,
        lsn: Lsn,
        range: BlockRange,
        data: Buf,
        crcs: BlockCrcs,
    ) -> LogOp {
        let Some(slots) = self.take_fresh_slots(range) else {
            return LogOp::Write { range, crcs, payload: Some(data) };
        };
        let write = self.fresh.insert(FreshWrite { volume: at, lsn, ops: 0, entry: None });
        let mut first = 0;
        while first < slots.len() {
            let mut end = first + 1;
            while end < slots.len() && slots[end] == slots[end - 1] + 1 {
                end += 1;
            }
            let (file, offset) = self.store.place(PhysSlot(slots[first]));
            let mut bufs = self.spare_bufs.pop().unwrap_or_default();
            bufs.push(data.slice(first * SLOT_BYTES..end * SLOT_BYTES));
            self.ops.push(
                token(Kind::Fresh, write, 0),
                Op::Write { file, offset, bufs, durable: !mutant::active(Mutant::FreshNotSynced) },
            );
            if let Some(write) = self.fresh.get_mut(write) {
                write.ops += 1;
            }
            first = end;
        }
        LogOp::Fresh { range, crcs, slots, payload: Some(data), writing: Some(write) }
    }

    /// Fresh slots for a write of whole slots, if there are any to spare.
    fn take_fresh_slots(&mut self, range: BlockRange) -> Option<FreshSlots> {
        let wanted = range.count / SLOT_BLOCKS as u64;
        if !range.is_slot_aligned() || self.space.available(&self.store) < wanted {
            return None;
        }
        let mut slots = FreshSlots::new();
        while (slots.len() as u64) < wanted {
            let Some(run) = self.store.alloc_run((wanted - slots.len() as u64) as u32) else {
                for slot in slots {
                    self.store.free_unused(PhysSlot(slot));
                }
                return None;
            };
            slots.extend((0..u64::from(run.count)).map(|i| run.start.0 + i));
        }
        Some(slots)
    }

    pub(super) fn fresh_written(&mut self, write: u32, result: Result<OpResult, DiskError>) {
        match result {
            Ok(OpResult::Written(bufs)) => self.keep_bufs(bufs),
            Ok(other) => unreachable!("a write ended as {other:?}"),
            Err(error) => return self.fail(error),
        }
        let Some(state) = self.fresh.get_mut(write) else { unreachable!("an unknown write ended") };
        state.ops -= 1;
        if state.ops > 0 {
            return;
        }
        let Some(state) = self.fresh.remove(write) else { return };
        if let Some(volume) = self.volumes[state.volume.0 as usize].as_mut()
            && let Some(record) = volume.log.record_mut(state.lsn)
            && let LogOp::Fresh { payload, writing, .. } = &mut record.op
            && *writing == Some(write)
        {
            *payload = None;
            *writing = None;
        }
        if let Some(entry) = state.entry {
            self.wal.release(entry);
            self.durable_advanced();
        }
    }

    /// Moves what waits into the WAL, as far as the ring has room.
    pub(super) fn empty_outbox(&mut self) {
        self.blocked = false;
        while let Some(next) = self.outbox.front() {
            let logged = match next {
                Outgoing::Record { volume, lsn, .. } => {
                    let (volume, lsn) = (*volume, *lsn);
                    self.log_record(volume, lsn)
                }
                Outgoing::Control(control) => {
                    let meta = self.control_meta(control);
                    meta.map_or(Ok(None), |meta| {
                        let (meta, crcs) = (&meta.encode(), &[]);
                        let entry = Entry { meta, crcs, payload: None, external: false };
                        self.wal.append_reserved(entry).map(Some)
                    })
                }
            };
            match logged {
                Ok(entry) => {
                    let Some(sent) = self.outbox.pop_front() else { return };
                    self.was_logged(sent, entry);
                }
                // The log's failure is taken up where its completion is.
                Err(AppendError::Failed | AppendError::Damaged) => return,
                Err(AppendError::Full) => {
                    self.blocked = true;
                    return;
                }
            }
        }
    }

    fn was_logged(&mut self, sent: Outgoing, entry: Option<EntryId>) {
        if let Outgoing::Record { charge, .. } = &sent {
            self.counts.outgoing -= charge;
        }
        match (sent, entry) {
            (Outgoing::Record { volume, lsn, .. }, Some(entry)) => {
                let committed = self.volume(volume).map_or(Lsn::ZERO, |v| v.log.settled());
                self.pending.push_back((entry, Pending::Record { volume, lsn, committed }));
            }
            (Outgoing::Control(control), Some(entry)) => {
                self.control_logged(&control, entry);
                self.pending.push_back((entry, Pending::Control(control)));
            }
            // Its volume went before it got there.
            (Outgoing::Record { .. }, None) => {}
            (Outgoing::Control(control), None) => self.control_moot(control),
        }
        self.entries_since_cut += 1;
    }

    /// Puts a record into the WAL. `Ok(None)`: there is nothing to put any more.
    fn log_record(&mut self, at: VolIx, lsn: Lsn) -> Result<Option<EntryId>, AppendError> {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return Ok(None) };
        let (settled, replica) = (volume.log.settled(), volume.replica);
        let Some(record) = volume.log.record_mut(lsn) else { return Ok(None) };
        let carry = carry_charge(record);
        // What begins an epoch settles all before it, and nothing else can: after
        // crashes in the middle of carrying, the ring is full until it is logged.
        let settles = matches!(record.op, LogOp::EpochStart);
        // Whatever is not settled has to fit into the ring a second time, or a
        // checkpoint could not carry it forward and the ring would stay full.
        if !settles && self.wal.free_reserved_bytes() < self.counts.carry + 2 * carry {
            return Err(AppendError::Full);
        }
        let writing = match &record.op {
            LogOp::Fresh { writing, .. } => *writing,
            _ => None,
        };
        let meta = record_meta(replica, lsn, settled, record, false);
        let meta = meta.encode();
        let entry = Entry {
            meta: &meta,
            crcs: record_crcs(record),
            payload: record_payload(record),
            // What is on stable storage already needs no release, and no look at recovery.
            external: writing.is_some(),
        };
        let entry = match settles {
            true => self.wal.append_reserved(entry),
            false => self.wal.append(entry),
        }?;
        record.logged = Some(Logged { entry, payload_at: None });
        if let Some(write) = writing.and_then(|write| self.fresh.get_mut(write)) {
            write.entry = Some(entry);
        }
        if lsn > settled {
            self.counts.carry += carry;
        }
        Ok(Some(entry))
    }

    /// Writes what the WAL holds back, and learns where it came to lie.
    pub(super) fn flush_wal(&mut self, queue: &mut IoQueue) {
        // The log itself may be sound; but what waits for a frame has been refused.
        if self.failed.is_some() {
            return;
        }
        let mut placed = std::mem::take(&mut self.placed);
        self.wal.flush(queue, &mut placed);
        for placed in placed.drain(..) {
            let found = self.pending.binary_search_by_key(&placed.entry, |(entry, _)| *entry);
            let Ok(found) = found else { unreachable!("{} is not pending", placed.entry) };
            self.placed_upto = placed.entry;
            match &mut self.pending[found].1 {
                Pending::Record { volume, lsn, .. } => {
                    if let Some(volume) = self.volumes[volume.0 as usize].as_mut()
                        && let Some(record) = volume.log.record_mut(*lsn)
                        && let Some(logged) = &mut record.logged
                        && logged.entry == placed.entry
                    {
                        logged.payload_at = Some(placed.payload_at);
                    }
                }
                Pending::Carried { payload_at, .. } => *payload_at = Some(placed.payload_at),
                Pending::Note { .. } | Pending::Control(_) => {}
            }
        }
        self.placed = placed;
        self.durable_advanced();
    }

    /// Takes up what the WAL has made durable.
    pub(super) fn durable_advanced(&mut self) {
        let durable = self.wal.durable();
        while let Some((entry, _)) = self.pending.front()
            && *entry <= durable
        {
            let Some((entry, pending)) = self.pending.pop_front() else { return };
            match pending {
                Pending::Record { volume, lsn, committed } => {
                    self.commit_durable(volume, committed, entry);
                    self.record_durable(volume, lsn, entry);
                }
                Pending::Carried { volume, lsn, of, payload_at, committed } => {
                    self.commit_durable(volume, committed, entry);
                    self.carried_durable(volume, lsn, of, Logged { entry, payload_at });
                }
                Pending::Note { volume, committed } => {
                    self.commit_durable(volume, committed, entry);
                }
                Pending::Control(control) => self.control_durable(control),
            }
        }
    }

    fn record_durable(&mut self, at: VolIx, lsn: Lsn, entry: EntryId) {
        let Some(volume) = self.volumes[at.0 as usize].as_mut() else { return };
        let Some(record) = volume.log.record(lsn) else { return };
        // A record that was truncated may have been followed by another of its number.
        if record.logged.is_none_or(|logged| logged.entry != entry) {
            return;
        }
        if let LogOp::Write { payload: Some(_), .. } = &record.op {
            self.cache.droppable.push_back((at, lsn, entry));
        }
        volume.log.step(Step::Durable(lsn));
        self.ack_later(at);
    }

    fn carried_durable(&mut self, at: VolIx, lsn: Lsn, of: EntryId, copy: Logged) {
        if let Some(volume) = self.volumes[at.0 as usize].as_mut()
            && let Some(record) = volume.log.record_mut(lsn)
            && record.logged.is_some_and(|logged| logged.entry == of)
        {
            record.logged = Some(copy);
            if let LogOp::Write { payload: Some(_), .. } = &record.op {
                self.cache.droppable.push_back((at, lsn, copy.entry));
            }
        }
    }

    pub(super) fn ack_later(&mut self, at: VolIx) {
        if let Some(volume) = self.volumes[at.0 as usize].as_mut()
            && !std::mem::replace(&mut volume.ack_due, true)
        {
            self.acks_due.push(at);
        }
    }

    /// One acknowledgement a volume for all that became durable since the last.
    pub(super) fn say_acks(&mut self) {
        while let Some(at) = self.acks_due.pop() {
            if let Some(volume) = self.volumes[at.0 as usize].as_mut() {
                volume.ack_due = false;
                if !volume.closing
                    && let Some(ack) = volume.next_ack()
                {
                    self.events.push(Event::Ack(ack));
                }
            }
        }
    }

    pub(super) fn keep_bufs(&mut self, mut bufs: Vec<Buf>) {
        bufs.clear();
        if self.spare_bufs.len() < SPARE_BUFS_MAX {
            self.spare_bufs.push(bufs);
        }
    }
}

/// Emptied lists of buffers kept for the next writes: as many as are in flight, when every slot
/// that is being applied has blocks written in half as many places as it has blocks.
const SPARE_BUFS_MAX: usize = APPLY_IN_FLIGHT_MAX * SLOT_BLOCKS / 2;

/// The meta of a record.
pub(super) fn record_meta(
    replica: holdfast_types::ReplicaId,
    lsn: Lsn,
    settled: Lsn,
    record: &LogRecord,
    carried: bool,
) -> Meta {
    let op = match &record.op {
        LogOp::Write { range, .. } => MetaOp::Write { range: *range },
        LogOp::Fresh { range, slots, .. } => MetaOp::Fresh { range: *range, slots: slots.clone() },
        LogOp::Discard { range } => MetaOp::Discard { range: *range },
        LogOp::EpochStart => MetaOp::EpochStart,
        LogOp::Resize { blocks } => MetaOp::Resize { blocks: *blocks },
    };
    Meta {
        replica,
        carried,
        body: Body::Record { lsn, epoch: record.epoch, committed: settled, op },
    }
}

/// The block checksums of a record's data.
pub(super) fn record_crcs(record: &LogRecord) -> &[u32] {
    match &record.op {
        LogOp::Write { crcs, .. } | LogOp::Fresh { crcs, .. } => crcs,
        LogOp::Discard { .. } | LogOp::EpochStart | LogOp::Resize { .. } => &[],
    }
}

fn record_payload(record: &LogRecord) -> Option<Buf> {
    match &record.op {
        LogOp::Write { payload, .. } => payload.clone(),
        _ => None,
    }
}
