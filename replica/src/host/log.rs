//! A volume's log: the records above the applied LSN, what is known of them,
//! and the rules by which any of that changes.
//!
//! Five marks divide the log, and every change keeps them in order:
//!
//! ```text
//!   applied ≤ floor ≤ known ≤ settled,   floor ≤ durable ≤ last,   settled ≤ last
//! ```
//!
//! - *applied*: in map and data; records at or below it are gone from here.
//! - *floor*: being applied; reads look at least this high (see `read.rs`).
//! - *held*: nothing above it is applied for now, though it may be settled.
//! - *known*: what the entries that a recovery would find say is committed, or the store.
//!   Nothing above it is applied: a crash in the middle would leave blocks that are newer
//!   than all that this replica can still tell to be committed, and that it could not
//!   show to others.
//! - *settled*: known to be committed, and known to be the committed record: at or
//!   below both the commit LSN and the last LSN that an engine matched under the
//!   epoch in force. Only what is settled is ever applied (I7).
//! - *durable*: on stable storage.
//! - *last*: the newest record held.
//!
//! All changes go through [`VolumeLog::step`], which refuses to leave this order.

use super::{Credits, admit::is_well_formed, meta::FreshSlots};
use holdfast_io::Buf;
use holdfast_types::{
    BlockRange, Epoch, EpochSpan, HistoryId, Lsn,
    mutant::{self, Mutant},
};
use holdfast_wal::{Entry, EntryId, Position};
use holdfast_wire::{Append, BlockCrcs, Refusal, StreamSession};
use std::collections::VecDeque;

/// Where a record's entry lies in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logged {
    /// The entry.
    pub(super) entry: EntryId,
    /// Its payload; `None` until its frame is formed.
    pub(super) payload_at: Option<Position>,
}

/// A record that is not applied yet.
#[derive(Debug)]
pub(super) struct LogRecord {
    pub(super) epoch: Epoch,
    pub(super) op: LogOp,
    /// `None` while it waits for room in the WAL.
    pub(super) logged: Option<Logged>,
}

/// What it does.
#[derive(Debug)]
pub(super) enum LogOp {
    /// Stores blocks, payload in the WAL.
    Write {
        range: BlockRange,
        crcs: BlockCrcs,
        /// In memory too; must be there until the entry is durable.
        payload: Option<Buf>,
    },
    /// Stores slots, payload in slots of the data area.
    Fresh {
        range: BlockRange,
        crcs: BlockCrcs,
        slots: FreshSlots,
        /// In memory until it is written.
        payload: Option<Buf>,
        /// The write, while it is in flight.
        writing: Option<u32>,
    },
    Discard {
        range: BlockRange,
    },
    EpochStart,
    Resize {
        blocks: u64,
    },
}

impl LogOp {
    /// The blocks that it changes.
    pub(super) fn range(&self) -> Option<BlockRange> {
        match self {
            Self::Write { range, .. } | Self::Fresh { range, .. } | Self::Discard { range } => {
                Some(*range)
            }
            Self::EpochStart | Self::Resize { .. } => None,
        }
    }

    /// Whether it stores data (and may need a slot for it).
    pub(super) fn stores_data(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Fresh { .. })
    }

    /// What it takes of the WAL's ring at most, in a frame of its own.
    pub(super) fn ring_bytes(&self) -> u64 {
        let payload = match self {
            Self::Write { range, .. } => range.bytes(),
            Self::Fresh { .. } | Self::Discard { .. } | Self::EpochStart | Self::Resize { .. } => 0,
        };
        Entry::ring_bytes(payload)
    }

    /// What it counts against the limit of unapplied bytes: its part of the ring,
    /// and the memory of its index nodes where there are many.
    pub(super) fn charge(&self) -> u64 {
        match self {
            Self::Discard { range } => Credits::discard_wal_bytes(range.count),
            _ => self.ring_bytes(),
        }
    }
}

/// The stream that appends come on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) session: StreamSession,
    /// Up to here this log is known to be the engine's.
    pub(super) matched: Lsn,
}

/// A change of the log.
#[derive(Debug)]
pub(super) enum Step {
    /// The stream in force matched the log up to here.
    Match(StreamSession, Lsn),
    /// A new record, the next.
    Push(LogRecord),
    /// All up to here is committed, an engine says.
    Commit(Lsn),
    /// All up to here is on stable storage.
    Durable(Lsn),
    /// A durable entry of the WAL says that all up to `committed` is.
    Known { committed: Lsn, above_cut: bool },
    /// The WAL is cut: what its entries said so far counts until the next [`Step::Start`].
    Cut,
    /// Recovery starts from the cut.
    Start,
    /// All up to here is being applied.
    Floor(Lsn),
    /// All up to here is in map and data.
    Applied(Lsn),
    /// Records above are dropped; the caller took them out with [`VolumeLog::pop`].
    Truncate(Lsn),
    /// No engine of a lower epoch is heard any more.
    Promise(Epoch),
    /// Nothing above is applied until this is taken back.
    Hold(Option<Lsn>),
    /// The store has, from another replica, all that is committed up to there: the
    /// log, which is empty, goes on above.
    Jump(Jump),
}

/// See [`Step::Jump`].
#[derive(Debug)]
pub(super) struct Jump {
    pub(super) applied: Lsn,
    pub(super) applied_epoch: Epoch,
    pub(super) epochs: Vec<EpochSpan>,
    pub(super) blocks: u64,
}

/// The log of one volume.
#[derive(Debug)]
pub(super) struct VolumeLog {
    applied: Lsn,
    applied_epoch: Epoch,
    floor: Lsn,
    held: Option<Lsn>,
    known: Lsn,
    /// As `known`, by what lies above the cut alone.
    known_above_cut: Lsn,
    settled: Lsn,
    commit: Lsn,
    durable: Lsn,
    promised: Epoch,
    epochs: Vec<EpochSpan>,
    stream: Option<Stream>,
    records: VecDeque<LogRecord>,
    /// Size at the last record.
    blocks: u64,
    applied_blocks: u64,
}

/// What an [`Append`] is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Records at its front that are here already.
    pub(super) known: usize,
    /// Its last LSN.
    pub(super) last: Lsn,
}

impl VolumeLog {
    /// The log of a store that has applied up to `applied`.
    pub(super) fn new(
        applied: Lsn,
        applied_epoch: Epoch,
        promised: Epoch,
        epochs: Vec<EpochSpan>,
        blocks: u64,
    ) -> Self {
        Self {
            applied,
            applied_epoch,
            floor: applied,
            held: None,
            known: applied,
            known_above_cut: applied,
            settled: applied,
            commit: applied,
            durable: applied,
            promised,
            epochs,
            stream: None,
            records: VecDeque::new(),
            blocks,
            applied_blocks: blocks,
        }
    }

    pub(super) fn applied(&self) -> Lsn {
        self.applied
    }

    pub(super) fn applied_epoch(&self) -> Epoch {
        self.applied_epoch
    }

    pub(super) fn floor(&self) -> Lsn {
        self.floor
    }

    pub(super) fn settled(&self) -> Lsn {
        self.settled
    }

    /// The greatest commit LSN heard of.
    pub(super) fn commit(&self) -> Lsn {
        self.commit
    }

    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    pub(super) fn promised(&self) -> Epoch {
        self.promised
    }

    pub(super) fn epochs(&self) -> &[EpochSpan] {
        &self.epochs
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.stream
    }

    /// Size in blocks, as of the last record.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Size in blocks, as of the record at `lsn`, which is not below the applied one.
    pub(super) fn blocks_at(&self, lsn: Lsn) -> u64 {
        let held = lsn.get().saturating_sub(self.applied.get()) as usize;
        let resized = self.records.iter().take(held).rev().find_map(|record| match record.op {
            LogOp::Resize { blocks } => Some(blocks),
            _ => None,
        });
        resized.unwrap_or(self.applied_blocks)
    }

    pub(super) fn last(&self) -> Lsn {
        Lsn::new(self.applied.get() + self.records.len() as u64)
    }

    pub(super) fn last_epoch(&self) -> Epoch {
        self.records.back().map_or(self.applied_epoch, |record| record.epoch)
    }

    /// Settled and on stable storage: what others can be given.
    pub(super) fn firm(&self) -> Lsn {
        self.settled.min(self.durable)
    }

    /// What a replica that lags can be given as records: what is settled, and what else is
    /// the log of the engine that this replica follows. After a loss of all power the
    /// best log may end with records that nobody knows to be committed; they have to
    /// reach a quorum before the epoch's first record can.
    ///
    /// One that still follows an older engine may get records here that are not in that
    /// one's log, and be counted for them. No harm: this replica follows the newer engine
    /// only once a quorum has promised it, which the asker was not part of, and
    /// which meets every commit quorum of the older engine without the asker too.
    pub(super) fn followed(&self) -> Lsn {
        let matched = self.stream.map_or(Lsn::ZERO, |stream| stream.matched);
        self.firm().max(matched.min(self.durable))
    }

    /// What may be applied.
    pub(super) fn appliable(&self) -> Lsn {
        self.held.map_or(self.firm(), |held| self.firm().min(held))
    }

    /// Up to here, a recovery would know all to be committed.
    pub(super) fn known(&self) -> Lsn {
        if mutant::active(Mutant::AppliesAheadOfLog) { self.settled } else { self.known }
    }

    /// What a hold leaves unapplied.
    pub(super) fn held(&self) -> Option<Lsn> {
        self.held
    }

    /// Up to here, reads can be answered.
    pub(super) fn readable(&self) -> Lsn {
        let matched = self.stream.map_or(Lsn::ZERO, |stream| stream.matched);
        self.settled.max(matched.min(self.last()))
    }

    pub(super) fn record(&self, lsn: Lsn) -> Option<&LogRecord> {
        let at = lsn.get().checked_sub(self.applied.get() + 1)?;
        self.records.get(at as usize)
    }

    pub(super) fn record_mut(&mut self, lsn: Lsn) -> Option<&mut LogRecord> {
        let at = lsn.get().checked_sub(self.applied.get() + 1)?;
        self.records.get_mut(at as usize)
    }

    /// The unapplied records with their LSNs.
    pub(super) fn records(&self) -> impl Iterator<Item = (Lsn, &LogRecord)> {
        let first = self.applied.get() + 1;
        self.records.iter().enumerate().map(move |(i, record)| (Lsn::new(first + i as u64), record))
    }

    /// Epoch of the record at `lsn`; `None` when there is none, or it is too old
    /// for the epoch history.
    pub(super) fn epoch_at(&self, lsn: Lsn) -> Option<Epoch> {
        if lsn == Lsn::ZERO {
            return Some(Epoch::ZERO);
        }
        if lsn > self.last() {
            return None;
        }
        match self.epochs.partition_point(|span| span.first <= lsn) {
            0 => (lsn == self.applied).then_some(self.applied_epoch),
            n => Some(self.epochs[n - 1].epoch),
        }
    }

    pub(super) fn mismatch(&self) -> Refusal {
        Refusal::Mismatch { last: self.last(), last_epoch: self.last_epoch() }
    }

    /// Whether an append may be taken: everything is checked before anything changes.
    pub(super) fn accept(&self, held: HistoryId, append: &Append) -> Result<Accepted, Refusal> {
        if append.history != held {
            return Err(Refusal::History { held });
        }
        if append.epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        let stale = self.stream.is_some_and(|stream| append.session < stream.session);
        let prev = self.epoch_at(append.prev_lsn);
        let other_prev = prev != Some(append.prev_epoch);
        if stale || prev.is_none() || other_prev && !mutant::active(Mutant::PrevEpochIgnored) {
            return Err(self.mismatch());
        }
        let (mut lsn, mut epoch, mut known) = (append.prev_lsn, append.prev_epoch, 0);
        let mut blocks = self.blocks;
        for record in &append.records {
            lsn = lsn.next();
            let follows =
                record.lsn == lsn && record.epoch >= epoch && record.epoch <= append.epoch;
            // One that is here already was looked at when it came.
            let is_known = lsn <= self.last();
            let fits = match is_known {
                true => self.epoch_at(lsn) == Some(record.epoch),
                false => is_well_formed(record, &mut blocks),
            };
            if !follows || !fits {
                return Err(self.mismatch());
            }
            epoch = record.epoch;
            known += usize::from(is_known);
        }
        Ok(Accepted { known, last: lsn })
    }

    /// Whether the log may be truncated to `last` for the engine of `epoch`.
    pub(super) fn accept_truncate(&self, epoch: Epoch, last: Lsn) -> Result<(), Refusal> {
        if epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        // What is settled was committed: no engine that recovered rightly asks to drop it.
        if last < self.settled { Err(self.mismatch()) } else { Ok(()) }
    }

    /// Takes the newest record out, on the way to [`Step::Truncate`].
    pub(super) fn pop(&mut self) -> Option<(Lsn, LogRecord)> {
        let lsn = self.last();
        self.records.pop_back().map(|record| (lsn, record))
    }

    /// Takes the oldest record out, on the way to [`Step::Applied`].
    pub(super) fn pop_applied(&mut self) -> Option<(Lsn, LogRecord)> {
        let record = self.records.pop_front()?;
        self.applied = self.applied.next();
        self.applied_epoch = record.epoch;
        if let LogOp::Resize { blocks } = record.op {
            self.applied_blocks = blocks;
        }
        Some((self.applied, record))
    }

    /// The one place where the log changes.
    ///
    /// # Panics
    /// If the step breaks the order of the marks: the caller checked it against
    /// [`Self::accept`], [`Self::accept_truncate`] or the marks before.
    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Match(session, lsn) => {
                assert!(lsn <= self.last(), "matched records are held");
                let matched = self.stream.map_or(lsn, |stream| stream.matched.max(lsn));
                self.stream = Some(Stream { session, matched });
                self.settle();
            }
            Step::Push(record) => {
                assert!(record.epoch >= self.last_epoch(), "epochs never go back");
                if self.epochs.last().is_none_or(|span| span.epoch < record.epoch) {
                    let first = self.last().next();
                    self.epochs.push(EpochSpan { epoch: record.epoch, first });
                }
                if let LogOp::Resize { blocks } = record.op {
                    self.blocks = blocks;
                }
                self.records.push_back(record);
            }
            Step::Commit(lsn) => {
                self.commit = self.commit.max(lsn);
                self.settle();
            }
            Step::Durable(lsn) => {
                assert!(lsn >= self.durable, "what is durable stays durable");
                self.durable = lsn;
            }
            Step::Known { committed, above_cut } => {
                self.known = self.known.max(committed);
                if above_cut {
                    self.known_above_cut = self.known_above_cut.max(committed);
                }
            }
            Step::Cut => self.known_above_cut = self.applied,
            Step::Start => self.known = self.known_above_cut.max(self.applied),
            Step::Floor(lsn) => {
                assert!(lsn >= self.floor && lsn <= self.appliable(), "only settled is applied");
                self.floor = lsn;
            }
            Step::Applied(lsn) => {
                assert!(lsn == self.applied && lsn == self.floor, "a round is applied whole");
                let keep = self.epochs.partition_point(|span| span.first <= lsn);
                let excess = keep.saturating_sub(EPOCHS_KEPT);
                self.epochs.drain(..excess);
            }
            Step::Truncate(last) => {
                assert!(last >= self.settled && last >= self.last(), "records were taken out");
                self.durable = self.durable.min(last).min(self.last());
                self.epochs.retain(|span| span.first <= last);
                self.blocks = self.blocks_at(last);
                if let Some(stream) = &mut self.stream {
                    stream.matched = stream.matched.min(last);
                }
            }
            Step::Promise(epoch) => {
                let back = mutant::active(Mutant::PromiseRegresses);
                assert!(epoch >= self.promised || back, "promises never go back");
                if epoch > self.promised || back {
                    self.promised = epoch;
                    self.stream = None;
                }
            }
            Step::Hold(held) => {
                assert!(held.is_none_or(|held| held >= self.floor), "what is applied is applied");
                self.held = held;
            }
            Step::Jump(Jump { applied, applied_epoch, epochs, blocks }) => {
                assert!(self.records.is_empty() && applied >= self.applied, "only forward");
                (self.applied, self.applied_epoch) = (applied, applied_epoch);
                (self.floor, self.durable, self.settled) = (applied, applied, applied);
                (self.known, self.known_above_cut) = (applied, applied);
                self.commit = self.commit.max(applied);
                self.epochs = epochs;
                (self.blocks, self.applied_blocks) = (blocks, blocks);
            }
        }
        self.check();
    }

    /// Everything recovered was found in the log, so it is durable; and up to
    /// `settled` it was known to be committed when it was written.
    pub(super) fn recovered(&mut self, settled: Lsn) {
        self.durable = self.last();
        self.settled = self.settled.max(settled.min(self.last()));
        self.commit = self.commit.max(self.settled);
        self.known = self.settled;
        self.check();
    }

    fn settle(&mut self) {
        if let Some(stream) = self.stream {
            let early = mutant::active(Mutant::ApplyBeforeCommit);
            let commit = if early { self.last() } else { self.commit };
            self.settled = self.settled.max(commit.min(stream.matched).min(self.last()));
        }
    }

    fn check(&self) {
        let last = self.last();
        assert!(self.applied <= self.floor && self.floor <= self.settled, "{self:?}");
        assert!(self.floor <= self.known() && self.known <= self.settled, "{self:?}");
        assert!(self.floor <= self.durable && self.durable <= last, "{self:?}");
        assert!(self.settled <= last, "{self:?}");
    }
}

/// Epoch spans of applied records kept: what a volume page of the store holds.
pub(super) const EPOCHS_KEPT: usize = 160;

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
