//! A replica as the engine may assume it: a durable log, versioned reads, catch-up
//! from others. It asserts what no engine may ever do to it.

use holdfast_io::BufPool;
use holdfast_replica::{ReadError, ReadSegments};
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, Epoch, EpochSpan, Lsn, VolumeId};
use holdfast_wire::{
    Ack, Append, Fence, Promise, Record, RecordOp, Refusal, StreamSession, Truncate,
};

/// How long a replica owes the lease that it grants.
pub(super) const LEASE_MS: u64 = 150;

/// A fetch that is under way.
pub(super) struct Pull {
    pub(super) session: StreamSession,
    pub(super) epoch: Epoch,
    pub(super) settle: Lsn,
    pub(super) sources: Vec<usize>,
}

pub(super) struct Model {
    pool: BufPool,
    blocks: u64,
    /// From the first record on, for the versions of blocks; what was applied is kept
    /// as a log only from `kept` on.
    pub(super) log: Vec<Record>,
    kept: Lsn,
    pub(super) promised: Epoch,
    pub(super) applied: Lsn,
    pub(super) fetched: Lsn,
    settled: Lsn,
    commit: Lsn,
    /// Of the epoch promised.
    stream: Option<(StreamSession, Lsn)>,
    pub(super) pull: Option<Pull>,
    /// The engine of the epoch promised is owed a lease until then.
    pub(super) lease_until_ms: u64,
    /// An earlier one is owed one until then.
    owed_until_ms: u64,
}

impl Model {
    pub(super) fn new(pool: BufPool, blocks: u64) -> Self {
        Self {
            pool,
            blocks,
            log: vec![],
            kept: Lsn::ZERO,
            promised: Epoch::ZERO,
            applied: Lsn::ZERO,
            fetched: Lsn::ZERO,
            settled: Lsn::ZERO,
            commit: Lsn::ZERO,
            stream: None,
            pull: None,
            lease_until_ms: 0,
            owed_until_ms: 0,
        }
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

    /// The process starts anew: what is durable is there.
    pub(super) fn restart(&mut self, now_ms: u64) {
        self.stream = None;
        self.pull = None;
        self.commit = self.settled;
        self.owed_until_ms = now_ms + LEASE_MS;
    }

    /// What the engine of `epoch` is granted; it counts from when it asked.
    pub(super) fn grant(&mut self, epoch: Epoch, now_ms: u64) -> bool {
        let grants = self.promised == epoch;
        if grants {
            self.lease_until_ms = now_ms + LEASE_MS;
        }
        grants
    }

    pub(super) fn release(&mut self, epoch: Epoch) {
        if self.promised == epoch {
            self.lease_until_ms = 0;
        }
    }

    pub(super) fn fence(&mut self, fence: &Fence, now_ms: u64) -> Result<Promise, Refusal> {
        if fence.epoch < self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        if fence.epoch > self.promised {
            self.promised = fence.epoch;
            self.stream = None;
            self.owed_until_ms = self.owed_until_ms.max(self.lease_until_ms);
            self.lease_until_ms = 0;
        }
        self.pull = None;
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
            fetched_lsn: self.fetched.max(self.applied),
            blocks: self.blocks,
            lease_owed_ms: self.owed_until_ms.saturating_sub(now_ms),
            suspect: false,
        })
    }

    pub(super) fn truncate(&mut self, truncate: &Truncate, in_force: bool) -> Result<(), Refusal> {
        if truncate.epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        if truncate.last < self.settled {
            // An engine that was replaced may, having fetched from a newer one's members.
            assert!(!in_force, "settled records are never truncated (I7)");
            let (last_epoch, last) = self.last();
            return Err(Refusal::Mismatch { last, last_epoch });
        }
        self.log.truncate(truncate.last.get() as usize);
        if let Some((_, matched)) = &mut self.stream {
            *matched = (*matched).min(truncate.last);
        }
        Ok(())
    }

    pub(super) fn append(&mut self, append: &Append) -> Result<Ack, Refusal> {
        if append.epoch != self.promised {
            return Err(Refusal::Fenced { promised: self.promised });
        }
        let (last_epoch, last) = self.last();
        let mismatch = Refusal::Mismatch { last, last_epoch };
        let stale = self.stream.is_some_and(|(session, _)| append.session < session);
        if stale || self.epoch_at(append.prev_lsn) != Some(append.prev_epoch) {
            return Err(mismatch);
        }
        let known = |record: &Record| self.epoch_at(record.lsn);
        if append.records.iter().any(|r| known(r).is_some_and(|epoch| epoch != r.epoch)) {
            return Err(mismatch);
        }
        let mut end = append.prev_lsn;
        for record in &append.records {
            assert_eq!(record.lsn, end.next(), "no gaps");
            end = record.lsn;
            if record.lsn > self.last().1 {
                assert!(record.epoch >= self.last().0, "epochs grow");
                self.log.push(record.clone());
            }
        }
        let matched = self.stream.map_or(end, |(_, matched)| matched.max(end));
        self.stream = Some((append.session, matched));
        self.commit(append.commit_lsn);
        Ok(Ack {
            volume: append.volume,
            epoch: append.epoch,
            session: append.session,
            durable_lsn: matched.min(self.last().1),
        })
    }

    pub(super) fn commit(&mut self, lsn: Lsn) {
        self.commit = self.commit.max(lsn);
        let matched = self.stream.map_or(Lsn::ZERO, |(_, matched)| matched);
        self.settled = self.settled.max(self.commit.min(matched));
    }

    /// Applies some of what is settled, and lets go of its records perhaps.
    pub(super) fn apply(&mut self, most: u64, forget: bool) {
        self.applied = Lsn::new(self.settled.get().min(self.applied.get() + most));
        if forget {
            self.kept = self.applied;
        }
    }

    /// One question of a catch-up and its answer. Says whether there may be more.
    pub(super) fn fetch_from(&mut self, source: &mut Self, pull: &Pull) -> bool {
        let (last_epoch, last) = self.last();
        let Pull { session, epoch, settle, .. } = *pull;
        // What the source knows to be committed is true of its own log, and so of this one
        // only as far as it is the same. Remembered for longer, it would settle what an
        // engine that was replaced sends next.
        let alike = source.epoch_at(last) == Some(last_epoch);
        if epoch != self.promised || !alike {
            return false;
        }
        if source.kept > last {
            // Slots: what is above is fetched as the source has applied it.
            source.applied = source.applied.max(settle.min(source.settled));
            self.commit(source.settled.min(last));
            if self.settled < last || source.fetched > source.last().1 {
                return false;
            }
            if self.fetched < source.applied {
                self.fetched = source.applied;
                return true;
            }
            let held = source.applied.get().min(self.fetched.get());
            if held < self.fetched.get() {
                return false;
            }
            self.log = source.log[..held as usize].to_vec();
            (self.applied, self.kept) = (source.applied, source.applied);
            self.settled = self.settled.max(self.applied);
            self.commit = self.commit.max(self.applied);
            self.stream = Some((session, self.applied));
            return true;
        }
        // Records that the source knows to be the engine's.
        let matched = source.stream.map_or(Lsn::ZERO, |(_, matched)| matched);
        let known = matched.max(source.settled);
        if known <= last {
            return false;
        }
        let end = known.get().min(last.get() + 5) as usize;
        if source.log[..end].iter().any(|record| record.epoch > epoch) {
            return false;
        }
        self.log.extend(source.log[last.get() as usize..end].iter().cloned());
        self.stream = Some((session, self.last().1));
        self.commit(source.settled.min(self.last().1));
        true
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
        let matched = self.stream.map_or(Lsn::ZERO, |(_, matched)| matched);
        if self.settled.max(matched) < at {
            return Err(Refusal::Behind { wanted: at }.into());
        }
        assert!(self.fetched <= at.max(self.applied), "a store that is ahead of the read");
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
