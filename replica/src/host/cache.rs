//! What unapplied records take: the sums that limits are held against, and the
//! payload that is kept in memory beside the log.

use super::{
    Host,
    log::{LogOp, LogRecord},
    volume::{VolIx, carry_charge, is_logged},
};
use holdfast_io::Buf;
use holdfast_types::Lsn;
use holdfast_wal::EntryId;
use std::collections::VecDeque;

/// Entries of the list of droppable payloads before it is first swept.
const CACHE_SWEEP_MIN: usize = 4096;

/// Payload of unapplied records in memory.
#[derive(Debug)]
pub(super) struct PayloadCache {
    /// Durable ones, oldest first; some have gone meanwhile.
    pub(super) droppable: VecDeque<(VolIx, Lsn, EntryId)>,
    sweep_at: usize,
}

impl Default for PayloadCache {
    fn default() -> Self {
        Self { droppable: VecDeque::new(), sweep_at: CACHE_SWEEP_MIN }
    }
}

/// Sums over all unapplied records, in bytes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// What counts against the limit.
    pub(super) unapplied: u64,
    /// Volumes that have a part in it.
    pub(super) active: u64,
    /// The part of it that is settled.
    pub(super) settled: u64,
    /// WAL space that carrying the unsettled ones forward may take.
    pub(super) carry: u64,
    /// The part that waits to go into the WAL.
    pub(super) outgoing: u64,
    /// Payload in memory.
    pub(super) cached: u64,
}

/// One volume's part of [`Counts`].
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) unapplied: u64,
    pub(super) settled: u64,
}

impl Counts {
    /// Takes a record out that leaves the log.
    pub(super) fn remove(&mut self, share: &mut Share, record: &LogRecord, settled: bool) {
        let charge = record.op.charge();
        self.unapplied -= charge;
        share.unapplied -= charge;
        self.active -= u64::from(share.unapplied == 0);
        if settled {
            self.settled -= charge;
            share.settled -= charge;
        } else if is_logged(record) {
            self.carry -= carry_charge(record);
        }
        if let LogOp::Write { payload: Some(payload), .. } = &record.op {
            self.cached -= payload.len() as u64;
        }
    }
}

impl Host {
    /// Drops payload that can be read back from the WAL, oldest first, until the
    /// rest fits the cache.
    pub(super) fn trim_cache(&mut self) {
        while self.counts.cached > self.options.payload_cache_bytes {
            let Some((at, lsn, entry)) = self.cache.droppable.pop_front() else { break };
            if let Some(payload) = self.cached_payload(at, lsn, entry) {
                let bytes = payload.take().map_or(0, |payload| payload.len() as u64);
                self.counts.cached -= bytes;
            }
        }
        // Most of what was applied leaves from the front; what a stuck volume
        // holds back is swept when the list has doubled.
        while let Some((at, lsn, entry)) = self.cache.droppable.front().copied()
            && self.cached_payload(at, lsn, entry).is_none()
        {
            self.cache.droppable.pop_front();
        }
        if self.cache.droppable.len() > self.cache.sweep_at {
            let mut droppable = std::mem::take(&mut self.cache.droppable);
            droppable.retain(|(at, lsn, entry)| self.cached_payload(*at, *lsn, *entry).is_some());
            self.cache.sweep_at = (2 * droppable.len()).max(CACHE_SWEEP_MIN);
            self.cache.droppable = droppable;
        }
    }

    fn cached_payload(&mut self, at: VolIx, lsn: Lsn, entry: EntryId) -> Option<&mut Option<Buf>> {
        let record = self.volumes[at.0 as usize].as_mut()?.log.record_mut(lsn)?;
        if record.logged?.entry != entry {
            return None;
        }
        match &mut record.op {
            LogOp::Write { payload, .. } if payload.is_some() => Some(payload),
            _ => None,
        }
    }
}
