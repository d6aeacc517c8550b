//! One volume as its engine knows it.

use super::WriteId;
use holdfast_types::{BlockNo, BlockRange, Epoch, EpochSpan, HistoryId, Lsn, ReplicaId, VolumeId};
use std::collections::BTreeMap;

/// Whether a volume must be there after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// Its creation was not answered yet: it may or may not be there.
    Creating,
    /// It must.
    Here,
    /// Its deletion was not answered yet: it may or may not be there, but if it
    /// is, with all that it held.
    Deleting,
}

/// What a record that was sent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Stores this write's content.
    Write(BlockRange, WriteId),
    /// Discards.
    Discard(BlockRange),
    /// Begins an epoch.
    EpochStart,
    /// Grows the volume to this many blocks.
    Resize(u64),
}

/// A record that was sent.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry {
    /// The epoch that it was sent under.
    pub epoch: Epoch,
    /// What it does.
    pub sent: Sent,
}

/// Versions of a block above which old ones are dropped when a new one comes.
const VERSIONS_KEPT: usize = 8;

/// One volume; see the module's documentation.
#[derive(Clone, Debug)]
pub struct VolumeModel {
    /// Its id.
    pub id: VolumeId,
    /// The copy on the disk.
    pub replica: ReplicaId,
    /// Its history.
    pub history: HistoryId,
    /// Whether it must be there.
    pub existence: Existence,
    /// Highest epoch ever granted.
    pub granted: Epoch,
    /// Highest epoch whose promise was answered.
    pub promised: Epoch,
    /// Last record sent.
    pub sent: Lsn,
    /// All up to here was acknowledged, and is thereby committed.
    pub acked: Lsn,
    /// The replica was told that all up to here is committed.
    pub told: Lsn,
    /// The replica said that it holds all up to here: by an ack or in a promise.
    pub answered: Lsn,
    log: BTreeMap<Lsn, LogEntry>,
    versions: Vec<Vec<(Lsn, WriteId)>>,
    sizes: Vec<(Lsn, u64)>,
}

impl VolumeModel {
    /// A volume that is about to be created with `blocks` blocks.
    #[must_use]
    pub fn new(id: VolumeId, replica: ReplicaId, history: HistoryId, blocks: u64) -> Self {
        Self {
            id,
            replica,
            history,
            existence: Existence::Creating,
            granted: Epoch::ZERO,
            promised: Epoch::ZERO,
            sent: Lsn::ZERO,
            acked: Lsn::ZERO,
            told: Lsn::ZERO,
            answered: Lsn::ZERO,
            log: BTreeMap::new(),
            versions: vec![Vec::new(); blocks as usize],
            sizes: vec![(Lsn::ZERO, blocks)],
        }
    }

    /// Size in blocks after the last record sent.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.sizes.last().map_or(0, |size| size.1)
    }

    /// Size in blocks after record `at`.
    #[must_use]
    pub fn blocks_at(&self, at: Lsn) -> u64 {
        self.sizes.iter().rev().find(|size| size.0 <= at).map_or(0, |size| size.1)
    }

    /// Epoch of record `at`; zero before the first.
    #[must_use]
    pub fn epoch_at(&self, at: Lsn) -> Epoch {
        self.log.get(&at).map_or(Epoch::ZERO, |entry| entry.epoch)
    }

    /// The records above `above`, in order.
    pub fn entries_above(&self, above: Lsn) -> impl Iterator<Item = (Lsn, &LogEntry)> {
        self.log.range(above.next()..).map(|(lsn, entry)| (*lsn, entry))
    }

    /// First LSN of each epoch up to record `last`.
    #[must_use]
    pub fn epochs_up_to(&self, last: Lsn) -> Vec<EpochSpan> {
        let mut spans: Vec<EpochSpan> = Vec::new();
        for (lsn, entry) in self.log.range(..=last) {
            if spans.last().is_none_or(|span| span.epoch < entry.epoch) {
                spans.push(EpochSpan { epoch: entry.epoch, first: *lsn });
            }
        }
        spans
    }

    /// Notes a record that is about to be sent; versions that no read at or
    /// above `oldest_read` can ask for may be forgotten.
    pub fn send(&mut self, epoch: Epoch, sent: Sent, oldest_read: Lsn) -> Lsn {
        self.sent = self.sent.next();
        let lsn = self.sent;
        self.log.insert(lsn, LogEntry { epoch, sent });
        let floor = oldest_read.min(self.told);
        match sent {
            Sent::Write(range, id) => self.push_versions(range, lsn, id, floor),
            Sent::Discard(range) => self.push_versions(range, lsn, WriteId::ZEROES, floor),
            Sent::Resize(blocks) => {
                self.sizes.push((lsn, blocks));
                self.versions.resize(blocks as usize, Vec::new());
            }
            Sent::EpochStart => {}
        }
        lsn
    }

    fn push_versions(&mut self, range: BlockRange, lsn: Lsn, id: WriteId, floor: Lsn) {
        let (start, end) = (range.start.get() as usize, range.end().get() as usize);
        for versions in &mut self.versions[start..end] {
            if versions.len() >= VERSIONS_KEPT {
                let needed = versions.iter().rposition(|version| version.0 <= floor).unwrap_or(0);
                versions.drain(..needed);
            }
            versions.push((lsn, id));
        }
    }

    /// The records above `last` are gone for good.
    pub fn truncate(&mut self, last: Lsn) {
        assert!(self.acked <= last, "an acknowledged record is never truncated");
        for (_, entry) in self.log.split_off(&last.next()) {
            let (Sent::Write(range, _) | Sent::Discard(range)) = entry.sent else { continue };
            for block in range.start.get()..range.end().get() {
                let versions = &mut self.versions[block as usize];
                while versions.last().is_some_and(|version| version.0 > last) {
                    versions.pop();
                }
            }
        }
        self.sizes.retain(|size| size.0 <= last);
        let blocks = self.blocks() as usize;
        self.versions.truncate(blocks);
        self.sent = last;
    }

    /// What a read of `block` at record `at` may give, when the replica may have
    /// applied up to `applied` by the time it answers.
    pub fn readable(
        &self,
        block: BlockNo,
        at: Lsn,
        applied: Lsn,
    ) -> impl Iterator<Item = WriteId> + '_ {
        let versions = self.versions.get(block.get() as usize).map_or(&[][..], |v| &v[..]);
        let oldest = versions.iter().rposition(|version| version.0 <= at);
        let newer = oldest.map_or(0, |index| index + 1);
        let base = oldest.map_or(WriteId::ZEROES, |index| versions[index].1);
        let newer = versions[newer..].iter().take_while(move |version| version.0 <= applied);
        std::iter::once(base).chain(newer.map(|version| version.1))
    }

    /// Which record put `id` into `block`, as far as that is remembered.
    #[must_use]
    pub fn record_of(&self, block: BlockNo, id: WriteId) -> Option<Lsn> {
        let versions = self.versions.get(block.get() as usize)?;
        versions.iter().find(|version| version.1 == id).map(|version| version.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> VolumeModel {
        let id = VolumeId::from_u128(1);
        VolumeModel::new(id, ReplicaId::from_u128(2), HistoryId::from_u128(3), 8)
    }

    fn readable(volume: &VolumeModel, at: u64, applied: u64) -> Vec<u64> {
        let block = BlockNo::new(1);
        volume.readable(block, Lsn::new(at), Lsn::new(applied)).map(|id| id.0).collect()
    }

    #[test]
    fn a_read_may_see_its_own_version_or_what_was_applied_since() {
        let mut volume = volume();
        let range = BlockRange::new(BlockNo::new(0), 4);
        for id in 1..=3 {
            volume.send(Epoch::new(1), Sent::Write(range, WriteId(id)), Lsn::ZERO);
        }
        assert_eq!(readable(&volume, 0, 0), [0]);
        assert_eq!(readable(&volume, 2, 2), [2]);
        assert_eq!(readable(&volume, 1, 3), [1, 2, 3]);
        volume.truncate(Lsn::new(2));
        assert_eq!(readable(&volume, 1, 3), [1, 2]);
        assert_eq!(volume.sent, Lsn::new(2));
    }

    #[test]
    fn old_versions_are_forgotten_only_below_every_read() {
        let mut volume = volume();
        let range = BlockRange::new(BlockNo::new(0), 4);
        for id in 1..=20 {
            volume.told = Lsn::new(id);
            volume.send(Epoch::new(1), Sent::Write(range, WriteId(id)), Lsn::new(5));
        }
        assert_eq!(readable(&volume, 5, 6), [5, 6]);
    }
}
