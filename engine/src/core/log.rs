//! The records of this epoch that some member may still need: the uncommitted
//! ones, and behind them those that a member has not confirmed.

use super::credits::{cost, plus};
use holdfast_replica::Credits;
use holdfast_types::Lsn;
use holdfast_wire::{Record, RecordOp};
use std::collections::VecDeque;

/// Records in LSN order without gaps.
#[derive(Debug)]
pub(super) struct RecordLog {
    /// LSN of the first record held, or of the next to come when none is.
    first: Lsn,
    records: VecDeque<Costed>,
    bytes: usize,
    /// What all records below `first` cost.
    spent: Credits,
}

/// A record, and what all up to it cost, itself included.
#[derive(Debug)]
struct Costed {
    record: Record,
    spent: Credits,
}

impl RecordLog {
    /// Empty; the next record is the one after `last`.
    pub(super) fn new(last: Lsn) -> Self {
        let spent = Credits { slots: 0, wal_bytes: 0 };
        Self { first: last.next(), records: VecDeque::new(), bytes: 0, spent }
    }

    pub(super) fn first(&self) -> Lsn {
        self.first
    }

    /// LSN of the last record ever pushed.
    pub(super) fn last(&self) -> Lsn {
        Lsn::new(self.first.get() + self.records.len() as u64 - 1)
    }

    /// Payload bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What all records up to `lsn` cost a member; for one that left the window,
    /// what all that left it did.
    pub(super) fn spent_at(&self, lsn: Lsn) -> Credits {
        match lsn.get().checked_sub(self.first.get()) {
            None => self.spent,
            Some(at) => self.records.get(at as usize).map_or(self.spent(), |costed| costed.spent),
        }
    }

    /// What all records cost.
    pub(super) fn spent(&self) -> Credits {
        self.records.back().map_or(self.spent, |costed| costed.spent)
    }

    /// # Panics
    /// If `record` is not the next.
    pub(super) fn push(&mut self, record: Record) {
        assert_eq!(record.lsn, self.last().next(), "LSNs have no gaps");
        self.bytes += payload_bytes(&record);
        let spent = plus(self.spent(), cost(&record.op));
        self.records.push_back(Costed { record, spent });
    }

    /// The records from `from` on, each with what all up to it cost.
    ///
    /// # Panics
    /// If `from` is no longer held.
    pub(super) fn from(&self, from: Lsn) -> impl Iterator<Item = (&Record, Credits)> {
        assert!(from >= self.first, "LSN {from} left the window, which starts at {}", self.first);
        let records = self.records.range((from.get() - self.first.get()) as usize..);
        records.map(|costed| (&costed.record, costed.spent))
    }

    pub(super) fn pop(&mut self) {
        if let Some(Costed { record, spent }) = self.records.pop_front() {
            self.bytes -= payload_bytes(&record);
            self.first = self.first.next();
            self.spent = spent;
        }
    }
}

pub(super) fn payload_bytes(record: &Record) -> usize {
    match &record.op {
        RecordOp::Write { range, .. } => range.bytes() as usize,
        RecordOp::Discard { .. } | RecordOp::EpochStart | RecordOp::Resize { .. } => 0,
    }
}
