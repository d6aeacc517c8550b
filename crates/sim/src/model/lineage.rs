//! Every record that any engine of a volume ever made, whoever holds it, and
//! which of them are committed: the one true history that logs are held against.
//!
//! An engine makes records under its own epoch only, one behind the other, the
//! first of them behind a record of an earlier epoch. So a record, named by its
//! LSN and epoch, determines all before it.

use super::{WriteId, content::SECTOR_BYTES};
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, Epoch, EpochSpan, Lsn, block_crc};
use holdfast_wire::{Append, Record, RecordOp};
use std::collections::BTreeMap;

/// What a record does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// Stores blocks with these checksums.
    Write(BlockNo, Vec<u32>),
    /// Discards.
    Discard(BlockRange),
    /// Begins its epoch.
    EpochStart,
    /// The volume has this many blocks.
    Resize(u64),
}

impl Made {
    fn of(record: &Record) -> Self {
        match &record.op {
            RecordOp::Write { range, data, .. } => {
                Self::Write(range.start, data.chunks(BLOCK_BYTES).map(block_crc).collect())
            }
            RecordOp::Discard { range } => Self::Discard(*range),
            RecordOp::EpochStart => Self::EpochStart,
            RecordOp::Resize { blocks } => Self::Resize(*blocks),
        }
    }
}

/// A record by name; all before it is meant too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Its number; zero: before the first.
    pub lsn: Lsn,
    /// Its epoch.
    pub epoch: Epoch,
}

#[derive(Clone, Debug)]
struct Reign {
    first: Lsn,
    /// The epoch of the record before its first.
    behind: Epoch,
    records: Vec<Made>,
}

impl Reign {
    fn last(&self) -> Lsn {
        Lsn::new(self.first.get() + self.records.len() as u64 - 1)
    }

    fn get(&self, lsn: Lsn) -> Option<&Made> {
        let index = lsn.get().checked_sub(self.first.get())?;
        self.records.get(index as usize)
    }
}

/// The history of one volume's records; see the module's documentation.
#[derive(Clone, Debug)]
pub struct Lineage {
    reigns: BTreeMap<Epoch, Reign>,
    committed: Point,
    /// Checksums of what is stored; `None`: nothing.
    blocks: Vec<Option<u32>>,
    /// Writes, by number: the last record of each.
    records_of: BTreeMap<WriteId, Point>,
}

impl Lineage {
    /// A volume that was just created, of so many blocks.
    #[must_use]
    pub fn new(blocks: u64) -> Self {
        Self {
            reigns: BTreeMap::new(),
            committed: Point::default(),
            blocks: vec![None; blocks as usize],
            records_of: BTreeMap::new(),
        }
    }

    /// An engine sends records.
    ///
    /// # Errors
    /// One of them is not what it was before, or not behind what it was.
    pub fn sent(&mut self, append: &Append) -> Result<(), String> {
        let mut behind = Point { lsn: append.prev_lsn, epoch: append.prev_epoch };
        for record in &append.records {
            self.take(record, behind)?;
            behind = Point { lsn: record.lsn, epoch: record.epoch };
        }
        Ok(())
    }

    fn take(&mut self, record: &Record, behind: Point) -> Result<(), String> {
        let (lsn, epoch) = (record.lsn, record.epoch);
        if lsn != behind.lsn.next() || epoch < behind.epoch {
            return Err(format!("record {lsn} of epoch {epoch} is sent behind {behind:?}"));
        }
        let made = Made::of(record);
        let reign = self.reigns.entry(epoch).or_insert_with(|| Reign {
            first: lsn,
            behind: behind.epoch,
            records: Vec::new(),
        });
        if (lsn == reign.first && reign.behind != behind.epoch)
            || (lsn > reign.first && behind.epoch != epoch)
        {
            return Err(format!("record {lsn} of epoch {epoch} has come behind {behind:?}"));
        }
        let next = reign.first.get() + reign.records.len() as u64;
        if lsn.get() == next {
            reign.records.push(made);
            if let RecordOp::Write { data, .. } = &record.op {
                for block in data.chunks(BLOCK_BYTES) {
                    self.note_writes(block, Point { lsn, epoch });
                }
            }
            return Ok(());
        }
        match reign.get(lsn) {
            Some(before) if *before == made => Ok(()),
            before => Err(format!("record {lsn} of epoch {epoch} is {made:?}, was {before:?}")),
        }
    }

    /// Which writes a record's block is of. A block of several is a part written into what
    /// was there, so the others were recorded before.
    fn note_writes(&mut self, block: &[u8], at: Point) {
        let first = WriteId::named_in(block).0;
        let ids = || block.chunks(SECTOR_BYTES).map(|sector| WriteId::named_in(sector).0);
        match ids().all(|id| id == first) {
            true => {
                self.records_of.insert(first, at);
            }
            false => {
                for id in ids() {
                    self.records_of.entry(id).or_insert(at);
                }
            }
        }
    }

    /// Whether a record was ever made.
    #[must_use]
    pub fn knows(&self, point: Point) -> bool {
        point == Point::default()
            || self.reigns.get(&point.epoch).is_some_and(|reign| reign.get(point.lsn).is_some())
    }

    /// The epoch of record `lsn` in the log that ends at `end`.
    #[must_use]
    pub fn epoch_at(&self, end: Point, lsn: Lsn) -> Option<Epoch> {
        if lsn > end.lsn {
            return None;
        }
        let mut epoch = end.epoch;
        loop {
            if lsn == Lsn::ZERO {
                return Some(Epoch::ZERO);
            }
            let reign = self.reigns.get(&epoch)?;
            if lsn >= reign.first {
                return Some(epoch);
            }
            epoch = reign.behind;
        }
    }

    /// Whether the log that ends at `end` holds `point`.
    #[must_use]
    pub fn holds(&self, end: Point, point: Point) -> bool {
        self.epoch_at(end, point.lsn) == Some(point.epoch)
    }

    /// First LSN of each epoch of the log that ends at `end`.
    #[must_use]
    pub fn spans(&self, end: Point) -> Vec<EpochSpan> {
        let mut spans = Vec::new();
        let mut epoch = end.epoch;
        while let Some(reign) = self.reigns.get(&epoch) {
            spans.push(EpochSpan { epoch, first: reign.first });
            epoch = reign.behind;
        }
        spans.reverse();
        spans
    }

    /// The last record of an engine's, if it has made any.
    #[must_use]
    pub fn last_of(&self, epoch: Epoch) -> Option<Point> {
        self.reigns.get(&epoch).map(|reign| Point { lsn: reign.last(), epoch })
    }

    /// The first record of an engine's, if it has made any.
    #[must_use]
    pub fn first_of(&self, epoch: Epoch) -> Option<Lsn> {
        self.reigns.get(&epoch).map(|reign| reign.first)
    }

    /// All that is known to be committed.
    #[must_use]
    pub fn committed(&self) -> Point {
        self.committed
    }

    /// The log that ends at `end` is committed; it holds all that was.
    pub fn commit(&mut self, end: Point) {
        assert!(self.holds(end, self.committed), "the caller checks");
        for lsn in self.committed.lsn.get() + 1..=end.lsn.get() {
            let lsn = Lsn::new(lsn);
            let Some(epoch) = self.epoch_at(end, lsn) else { break };
            let made = self.reigns.get(&epoch).and_then(|reign| reign.get(lsn));
            match made {
                Some(Made::Write(start, crcs)) => {
                    let blocks = &mut self.blocks[start.get() as usize..];
                    for (block, crc) in blocks.iter_mut().zip(crcs) {
                        *block = Some(*crc);
                    }
                }
                Some(Made::Discard(range)) => {
                    let range = range.start.get() as usize..range.end().get() as usize;
                    self.blocks[range].fill(None);
                }
                Some(Made::Resize(blocks)) => {
                    self.blocks.resize(*blocks as usize, None);
                }
                Some(Made::EpochStart) | None => {}
            }
        }
        self.committed = end;
    }

    /// Checksums of what every block holds, as of all that is committed; `None`: nothing.
    #[must_use]
    pub fn blocks(&self) -> &[Option<u32>] {
        &self.blocks
    }

    /// The last record of a write, if an engine has sent it.
    #[must_use]
    pub fn record_of(&self, id: WriteId) -> Option<Point> {
        self.records_of.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Generation, HistoryId, VolumeId};
    use holdfast_wire::StreamSession;

    fn append(epoch: u64, prev: (u64, u64), records: &[(u64, u64)]) -> Append {
        let record = |(lsn, epoch): &(u64, u64)| Record {
            lsn: Lsn::new(*lsn),
            epoch: Epoch::new(*epoch),
            op: RecordOp::Resize { blocks: 100 * epoch + lsn },
        };
        Append {
            volume: VolumeId::from_u128(1),
            history: HistoryId::from_u128(2),
            epoch: Epoch::new(epoch),
            generation: Generation::new(1),
            session: StreamSession(1),
            prev_epoch: Epoch::new(prev.1),
            prev_lsn: Lsn::new(prev.0),
            records: records.iter().map(record).collect(),
            commit_lsn: Lsn::ZERO,
        }
    }

    fn point(lsn: u64, epoch: u64) -> Point {
        Point { lsn: Lsn::new(lsn), epoch: Epoch::new(epoch) }
    }

    #[test]
    fn a_record_determines_all_before_it() {
        let mut lineage = Lineage::new(10);
        lineage.sent(&append(1, (0, 0), &[(1, 1), (2, 1), (3, 1)])).unwrap();
        lineage.sent(&append(3, (2, 1), &[(3, 3), (4, 3)])).unwrap();
        lineage.sent(&append(3, (1, 1), &[(2, 1), (3, 3)])).unwrap();
        assert_eq!(lineage.epoch_at(point(4, 3), Lsn::new(2)), Some(Epoch::new(1)));
        assert!(
            lineage.holds(point(4, 3), point(2, 1)) && !lineage.holds(point(4, 3), point(3, 1))
        );
        assert!(!lineage.holds(point(2, 1), point(3, 1)), "beyond its end");
        let spans: Vec<_> =
            lineage.spans(point(4, 3)).iter().map(|s| (s.epoch.get(), s.first.get())).collect();
        assert_eq!(spans, [(1, 1), (3, 3)]);
        lineage.commit(point(3, 3));
        assert_eq!(lineage.blocks().len(), 303);
    }

    #[test]
    fn a_record_never_changes_its_place_or_content() {
        let mut lineage = Lineage::new(10);
        lineage.sent(&append(1, (0, 0), &[(1, 1), (2, 1)])).unwrap();
        lineage.sent(&append(2, (2, 1), &[(3, 2)])).unwrap();
        assert!(lineage.sent(&append(3, (1, 1), &[(2, 2)])).is_err(), "epoch 2 began at 3");
        assert!(lineage.sent(&append(3, (2, 2), &[(3, 2)])).is_err(), "behind another record");
        assert!(lineage.sent(&append(3, (3, 2), &[(4, 1)])).is_err(), "epochs only grow");
        assert!(lineage.sent(&append(3, (3, 2), &[(5, 3)])).is_err(), "a gap");
    }
}
