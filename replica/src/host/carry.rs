//! Carrying forward: records below a round's cut that are not settled are logged
//! again, so that one volume that stands still never pins the log.
//!
//! A copy takes over when it is durable; until then reads and a crash find the
//! original. What is only in the log is read back first.

use super::{
    Host, Kind,
    append::{Pending, record_crcs, record_meta},
    apply::bad_payload,
    log::LogOp,
    token,
    volume::{VolIx, is_logged_upto},
};
use holdfast_io::{Buf, DiskError, Op, OpResult};
use holdfast_types::{
    BLOCK_BYTES, Lsn, block_crc,
    mutant::{self, Mutant},
};
use holdfast_wal::{AppendError, Entry, EntryId};

/// Payloads read back at the same time (4 MiB).
const CARRY_READS_MAX: usize = 16;
/// Part of a segment that copies leave for promises and epoch starts: with these
/// even a ring full of copies, left by crashes in the middle of carrying, gets
/// settled and empty. Frames for 2048 of them with segments of 64 MiB.
const KEPT_FOR_EPOCHS_DIVISOR: u64 = 8;

/// Records on their way forward.
#[derive(Debug, Default)]
pub(super) struct Carry {
    /// Where to go on looking: volume and the LSN looked at last.
    volume: u32,
    lsn: Lsn,
    tasks: super::slab::Slab<CarryTask>,
    /// Tasks whose payload has come.
    ready: Vec<u32>,
}

#[derive(Debug)]
struct CarryTask {
    volume: VolIx,
    lsn: Lsn,
    of: EntryId,
    payload: Option<Buf>,
}

impl Host {
    pub(super) fn begin_carry(&mut self) {
        (self.carry.volume, self.carry.lsn) = (0, Lsn::ZERO);
    }

    /// Logs again what can be, reads back what must be; goes on to the barrier
    /// when nothing is left.
    pub(super) fn carry_more(&mut self) {
        while let Some(number) = self.carry.ready.pop() {
            let Some(task) = self.carry.tasks.get_mut(number) else { continue };
            let (at, lsn, of, payload) = (task.volume, task.lsn, task.of, task.payload.clone());
            if !self.log_copy(at, lsn, of, payload) {
                self.carry.ready.push(number);
                return;
            }
            self.carry.tasks.remove(number);
        }
        while (self.carry.volume as usize) < self.volumes.len() {
            let at = VolIx(self.carry.volume);
            let Some((lsn, of)) = self.next_to_carry(at) else {
                self.carry.volume += 1;
                self.carry.lsn = Lsn::ZERO;
                continue;
            };
            if !self.carry_one(at, lsn, of) {
                return;
            }
            self.carry.lsn = lsn;
        }
        if self.carry.tasks.is_empty() && self.failed.is_none() {
            self.enter_barrier();
        }
    }

    fn next_to_carry(&self, at: VolIx) -> Option<(Lsn, EntryId)> {
        let volume = self.volume(at).filter(|volume| volume.deleted.is_none())?;
        if mutant::active(Mutant::CarrySkipped) {
            return None;
        }
        let mut lsn = self.carry.lsn.max(volume.log.applied());
        loop {
            lsn = lsn.next();
            let record = volume.log.record(lsn)?;
            if let Some(logged) = record.logged
                && is_logged_upto(record, self.round.upto)
            {
                return Some((lsn, logged.entry));
            }
        }
    }

    /// Starts to carry a record; `false` if that has to wait.
    fn carry_one(&mut self, at: VolIx, lsn: Lsn, of: EntryId) -> bool {
        let Some(record) = self.volume(at).and_then(|volume| volume.log.record(lsn)) else {
            return true;
        };
        match &record.op {
            LogOp::Write { payload: Some(payload), .. } => {
                let payload = Some(payload.clone());
                self.log_copy(at, lsn, of, payload)
            }
            LogOp::Write { range, payload: None, .. } => {
                let Some(payload_at) = record.logged.and_then(|logged| logged.payload_at) else {
                    unreachable!("payload leaves memory when it is durable")
                };
                if self.carry.tasks.len() >= CARRY_READS_MAX {
                    return false;
                }
                let ring = self.wal.ring();
                let (file, offset) = (ring.file, ring.offset(payload_at));
                let buf = self.pool.alloc(range.bytes() as usize);
                let task = CarryTask { volume: at, lsn, of, payload: None };
                let task = self.carry.tasks.insert(task);
                self.ops.push(token(Kind::Carry, task, 0), Op::Read { file, offset, buf });
                true
            }
            _ => self.log_copy(at, lsn, of, None),
        }
    }

    pub(super) fn carry_read(&mut self, number: u32, result: Result<OpResult, DiskError>) {
        let read = match result {
            Ok(OpResult::Read(buf)) => buf.freeze(),
            Ok(other) => unreachable!("a read ended as {other:?}"),
            Err(error) => return self.fail(error),
        };
        let Some(task) = self.carry.tasks.get_mut(number) else {
            unreachable!("a read without a task ended")
        };
        let record = self.volumes[task.volume.0 as usize]
            .as_ref()
            .and_then(|volume| volume.log.record(task.lsn))
            .filter(|record| record.logged.is_some_and(|logged| logged.entry == task.of));
        if let Some(record) = record {
            let crcs = record_crcs(record);
            let bytes = crcs.len() * BLOCK_BYTES;
            let bad = read[..bytes]
                .chunks_exact(BLOCK_BYTES)
                .zip(crcs)
                .position(|(block, crc)| block_crc(block) != *crc);
            if let Some(bad) = bad {
                let payload_at = record.logged.and_then(|logged| logged.payload_at);
                let at = payload_at.map_or(0, |at| self.wal.ring().offset(at));
                return self.fail(bad_payload(at + (bad * BLOCK_BYTES) as u64));
            }
            task.payload = Some(read.slice(0..bytes));
        }
        self.carry.ready.push(number);
    }

    /// Logs a copy; `false` if the log has no room now. A record that has gone
    /// meanwhile needs none.
    fn log_copy(&mut self, at: VolIx, lsn: Lsn, of: EntryId, payload: Option<Buf>) -> bool {
        let Some(volume) = self.volumes[at.0 as usize].as_ref() else { return true };
        // Behind its deletion a record would come back without those before it.
        if volume.deleted.is_some() {
            return true;
        }
        let Some(record) = volume.log.record(lsn) else { return true };
        if record.logged.is_none_or(|logged| logged.entry != of) {
            return true;
        }
        let committed = volume.log.settled();
        let meta = record_meta(volume.replica, lsn, committed, record, true);
        // Data in fresh slots is durable since the original is.
        let (meta, crcs) = (&meta.encode(), record_crcs(record));
        let copy = Entry { meta, crcs, payload, external: false };
        let bytes =
            Entry::ring_bytes(copy.payload.as_ref().map_or(0, |payload| payload.len()) as u64);
        let kept = self.wal.ring().config.segment() / KEPT_FOR_EPOCHS_DIVISOR;
        let fits = self.wal.free_reserved_bytes() >= bytes + kept;
        let appended = match fits {
            true => self.wal.append_reserved(copy),
            false => Err(AppendError::Full),
        };
        match appended {
            Ok(entry) => {
                let copy = Pending::Carried { volume: at, lsn, of, payload_at: None, committed };
                self.pending.push_back((entry, copy));
                true
            }
            Err(AppendError::Full) => {
                self.apply_instead();
                false
            }
            Err(AppendError::Failed | AppendError::Damaged) => false,
        }
    }
}
