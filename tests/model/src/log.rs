//! Logs as the model sees them: a few records, each of an epoch.

use std::fmt;

/// Records that a log holds at most: the first one of every epoch, and all writes.
pub const LOG_MAX: u8 = 8;

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

/// Records 1, 2, 3 … without gaps: a byte each, the first one lowest; bytes beyond the end are zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log(u64);

impl Log {
    /// LSN of the last record; zero when there is none.
    #[must_use]
    pub fn len(&self) -> u8 {
        (u64::BITS - self.0.leading_zeros()).div_ceil(u8::BITS) as u8
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The record at `lsn`; the empty one for 0 and beyond the end.
    #[must_use]
    pub fn at(&self, lsn: u8) -> Record {
        match lsn {
            1..=LOG_MAX => Record((self.0 >> (8 * (lsn - 1))) as u8),
            _ => Record::default(),
        }
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the bounds allow more records than fit.
    pub fn push(&mut self, record: Record) {
        let len = self.len();
        assert!(len < LOG_MAX, "the bounds allow longer logs than the model has room for");
        self.0 |= u64::from(record.0) << (8 * len);
    }

    /// Drops all records above `last`.
    pub fn truncate(&mut self, last: u8) {
        self.0 &= u64::MAX.checked_shr(u64::BITS - 8 * u32::from(last)).unwrap_or(0);
    }

    /// All records as one number, a different one for every log.
    pub(crate) fn bits(&self) -> u64 {
        self.0
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
        f.debug_list().entries((1..=self.len()).map(|lsn| self.at(lsn))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(epochs: &[u8]) -> Log {
        let mut log = Log::default();
        for (at, epoch) in epochs.iter().enumerate() {
            log.push(Record::write(*epoch, at as u8 + 1));
        }
        log
    }

    #[test]
    fn a_log_is_its_records() {
        let full = log(&[1, 1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(
            (full.len(), full.at(4), full.at(0)),
            (8, Record::write(2, 4), Record::default())
        );
        for last in 0..=8 {
            let cut = full.up_to(last);
            assert_eq!((cut.len(), cut.is_empty()), (last, last == 0));
            assert!(cut.is_prefix_of(&full) && cut.at(last + 1) == Record::default());
        }
        assert!(!full.is_prefix_of(&full.up_to(7)));
    }

    #[test]
    fn logs_part_at_the_end_of_the_last_epoch_they_share() {
        let common = |a: &[u8], b: &[u8]| log(a).common(&log(b));
        assert_eq!(common(&[1, 1, 1], &[1, 1, 1]), 3, "equal");
        assert_eq!(common(&[1, 1, 1], &[1, 1]), 2, "shorter");
        assert_eq!(common(&[1, 1, 3], &[1, 1, 2]), 2, "other epochs");
        assert_eq!(common(&[1, 3], &[1, 1, 2]), 1, "ours parted first");
        assert_eq!(common(&[1, 3, 3], &[1, 3, 3, 4]), 3, "theirs went on");
        assert_eq!(common(&[3], &[2, 2]), 0, "nothing in common");
        assert_eq!(common(&[], &[1]), 0, "empty");
    }
}
