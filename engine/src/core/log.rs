//! The records of this epoch that some member may still need: the uncommitted
//! ones, and behind them those that a streaming member has not confirmed.

use holdfast_types::Lsn;
use holdfast_wire::{Record, RecordOp};
use std::collections::VecDeque;

/// Records in LSN order without gaps.
#[derive(Debug)]
pub(super) struct RecordLog {
    /// LSN of the first record held, or of the next to come when none is.
    first: Lsn,
    records: VecDeque<Record>,
    bytes: usize,
}

impl RecordLog {
    /// Empty; the next record is the one after `last`.
    pub(super) fn new(last: Lsn) -> Self {
        Self { first: last.next(), records: VecDeque::new(), bytes: 0 }
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

    /// # Panics
    /// If `record` is not the next.
    pub(super) fn push(&mut self, record: Record) {
        assert_eq!(record.lsn, self.last().next(), "LSNs have no gaps");
        self.bytes += payload_bytes(&record);
        self.records.push_back(record);
    }

    /// The records from `from` on.
    ///
    /// # Panics
    /// If `from` is no longer held.
    pub(super) fn from(&self, from: Lsn) -> impl Iterator<Item = &Record> {
        assert!(from >= self.first, "LSN {from} left the window, which starts at {}", self.first);
        self.records.range((from.get() - self.first.get()) as usize..)
    }

    pub(super) fn pop(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= payload_bytes(&record);
            self.first = self.first.next();
        }
    }
}

pub(super) fn payload_bytes(record: &Record) -> usize {
    match &record.op {
        RecordOp::Write { range, .. } => range.bytes() as usize,
        RecordOp::Discard { .. } | RecordOp::EpochStart | RecordOp::Resize { .. } => 0,
    }
}
