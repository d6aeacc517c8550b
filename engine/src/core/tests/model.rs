//! A replica as the engine may assume it: a durable log, versioned reads. It
//! asserts what no engine may ever do to it.

use holdfast_io::BufPool;
use holdfast_replica::{ReadError, ReadSegments};
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, Epoch, EpochSpan, Lsn, VolumeId};
use holdfast_wire::{Ack, Append, Fence, Promise, Record, RecordOp, Refusal, Truncate};

pub(super) struct Model {
    pool: BufPool,
    pub(super) log: Vec<Record>,
    pub(super) promised: Epoch,
    pub(super) applied: Lsn,
    commit: Lsn,
}

impl Model {
    pub(super) fn new(pool: BufPool) -> Self {
        Self { pool, log: vec![], promised: Epoch::ZERO, applied: Lsn::ZERO, commit: Lsn::ZERO }
    }

    pub(super) fn last(&self) -> (Epoch, Lsn) {
        self.log.last().map_or((Epoch::ZERO, Lsn::ZERO), |record| (record.epoch, record.lsn))
    }

    pub(super) fn epoch_at(&self, lsn: Lsn) -> Option<Epoch> {
        match lsn.get() {
            0 => Some(Epoch::ZERO),
            n => self.log.get(n as usize - 1).map(|record| record.epoch),
        }
    }

    pub(super) fn fence(&mut self, fence: &Fence) -> Result<Promise, Refusal> {
        if fence.epoch < self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        self.promised = fence.epoch;
        let mut epochs: Vec<EpochSpan> = Vec::new();
        for record in &self.log {
            if epochs.last().is_none_or(|span| span.epoch < record.epoch) {
                epochs.push(EpochSpan { epoch: record.epoch, first: record.lsn });
            }
        }
        let (last_epoch, last_lsn) = self.last();
        Ok(Promise {
            volume: VolumeId::from_u128(1),
            epoch: fence.epoch,
            last_epoch,
            last_lsn,
            epochs,
            applied_lsn: self.applied,
            fetched_lsn: Lsn::ZERO,
            blocks: super::random::BLOCKS,
            lease_owed_ms: 0,
            suspect: false,
        })
    }

    pub(super) fn truncate(&mut self, truncate: &Truncate) -> Result<(), Refusal> {
        if truncate.epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        assert!(truncate.last >= self.applied, "applied records are never truncated (I7)");
        self.log.truncate(truncate.last.get() as usize);
        Ok(())
    }

    pub(super) fn append(&mut self, append: &Append) -> Result<Ack, Refusal> {
        if append.epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        let (last_epoch, last) = self.last();
        if last != append.prev_lsn || last_epoch != append.prev_epoch {
            return Err(Refusal::Mismatch { last, last_epoch });
        }
        for record in &append.records {
            assert_eq!(record.lsn, self.last().1.next(), "no gaps");
            assert!(record.epoch >= self.last().0, "epochs grow");
            self.log.push(record.clone());
        }
        self.commit(append.commit_lsn);
        Ok(Ack {
            volume: append.volume,
            epoch: append.epoch,
            session: append.session,
            durable_lsn: self.last().1,
        })
    }

    pub(super) fn commit(&mut self, lsn: Lsn) {
        self.commit = self.commit.max(lsn);
    }

    /// Applies some of what is committed.
    pub(super) fn apply(&mut self, most: u64) {
        let all = self.commit.min(self.last().1);
        self.applied = self.applied.max(Lsn::new(all.get().min(self.applied.get() + most)));
    }

    pub(super) fn read(
        &self,
        epoch: Epoch,
        at: Lsn,
        range: BlockRange,
    ) -> Result<ReadSegments, ReadError> {
        if epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised }.into());
        }
        if self.last().1 < at {
            return Err(Refusal::Behind { wanted: at }.into());
        }
        let visible = at.max(self.applied).get() as usize;
        let blocks = range.start.get()..range.end().get();
        Ok(blocks.map(|block| self.version(visible, BlockNo::new(block))).collect())
    }

    fn version(&self, visible: usize, block: BlockNo) -> holdfast_io::Buf {
        let one = BlockRange::new(block, 1);
        for record in self.log[..visible].iter().rev() {
            match &record.op {
                RecordOp::Write { range, data, .. } if range.overlaps(one) => {
                    let at = (block.get() - range.start.get()) as usize * BLOCK_BYTES;
                    return data.slice(at..at + BLOCK_BYTES);
                }
                RecordOp::Discard { range } if range.overlaps(one) => break,
                _ => {}
            }
        }
        self.pool.alloc_zeroed(BLOCK_BYTES).freeze()
    }
}
