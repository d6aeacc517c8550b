//! Logs as the model sees them: a few records, each of an epoch.

use std::fmt;

/// Records that a log holds at most: the first one of every epoch, and all writes.
pub const LOG_MAX: usize = 8;

/// A record: its epoch, and which write it is. Two writes are never the same record.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record(u8);

impl Record {
    /// The record that starts `epoch`.
    #[must_use]
    pub fn start(epoch: u8) -> Self {
        Self(epoch << 4)
    }

    /// The write numbered `write`, from 1 on.
    #[must_use]
    pub fn write(epoch: u8, write: u8) -> Self {
        Self(epoch << 4 | write)
    }

    /// Its epoch; zero where there is no record.
    #[must_use]
    pub fn epoch(self) -> u8 {
        self.0 >> 4
    }

    /// The write's number; zero for the start of an epoch.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0 & 15
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            0 => write!(f, "e{}", self.epoch()),
            number => write!(f, "e{}w{number}", self.epoch()),
        }
    }
}

/// Records 1, 2, 3 … without gaps. What is beyond the end is zero, so that equal
/// logs are equal values.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    records: [Record; LOG_MAX],
}

impl Log {
    /// LSN of the last record; zero when there is none.
    #[must_use]
    pub fn len(&self) -> u8 {
        let empty = Record::default();
        self.records.iter().position(|record| *record == empty).unwrap_or(LOG_MAX) as u8
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record at `lsn`; the empty one for 0 and beyond the end.
    #[must_use]
    pub fn at(&self, lsn: u8) -> Record {
        match lsn {
            0 => Record::default(),
            _ => self.records.get(lsn as usize - 1).copied().unwrap_or_default(),
        }
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the bounds allow more records than fit.
    pub fn push(&mut self, record: Record) {
        let len = self.len() as usize;
        assert!(len < LOG_MAX, "the bounds allow longer logs than the model has room for");
        self.records[len] = record;
    }

    /// Drops all records above `last`.
    pub fn truncate(&mut self, last: u8) {
        self.records[last as usize..].fill(Record::default());
    }

    /// The records up to `last`.
    #[must_use]
    pub fn up_to(mut self, last: u8) -> Self {
        self.truncate(last);
        self
    }

    /// Epoch of the last record.
    #[must_use]
    pub fn last_epoch(&self) -> u8 {
        self.at(self.len()).epoch()
    }

    /// Whether all of `self` is in `other`, at its beginning.
    #[must_use]
    pub fn is_prefix_of(&self, other: &Self) -> bool {
        *self == other.up_to(self.len())
    }

    /// LSN of the newest write at or below `lsn`, zero for none: what a read returns as of `lsn`.
    #[must_use]
    pub fn newest_write(&self, lsn: u8) -> u8 {
        (1..=lsn).rev().find(|lsn| self.at(*lsn).number() > 0).unwrap_or(0)
    }

    /// Last record of `epoch`; zero for none.
    fn end_of(&self, epoch: u8) -> u8 {
        (1..=self.len()).rev().find(|lsn| self.at(*lsn).epoch() == epoch).unwrap_or(0)
    }

    /// Up to where two logs are the same, as their epoch histories say: the end, in the shorter
    /// one, of the highest epoch that both have records of.
    #[must_use]
    pub fn common(&self, other: &Self) -> u8 {
        let shared = (1..=self.last_epoch()).rev();
        let ends = shared.map(|epoch| self.end_of(epoch).min(other.end_of(epoch)));
        ends.into_iter().find(|end| *end > 0).unwrap_or(0)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.records[..self.len() as usize]).finish()
    }
}
