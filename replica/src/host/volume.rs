//! One replica on the disk: its identity, its log and the index of the log.

use super::{
    cache::Share,
    index::SlotIndex,
    log::{LogRecord, Step, VolumeLog},
};
use holdfast_types::{Epoch, HistoryId, Lsn, ReplicaId, VolumeId};
use holdfast_wal::EntryId;
use holdfast_wire::Ack;

/// Names a replica while the host is open. Never used again, so that what is
/// still in flight for a deleted replica finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VolIx(pub(super) u32);

/// A replica.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) id: VolumeId,
    pub(super) replica: ReplicaId,
    pub(super) history: HistoryId,
    pub(super) log: VolumeLog,
    pub(super) index: SlotIndex,
    pub(super) suspect: bool,
    /// No promise that it has forgotten is higher than the one it knows: always so,
    /// but for a suspect replica until it was told (see `rejoin`).
    pub(super) floored: bool,
    /// The highest epoch that an engine was promised since the disk was opened.
    pub(super) heard: Epoch,
    /// Its creation is on stable storage.
    pub(super) created: bool,
    /// To be deleted: answers nothing any more.
    pub(super) closing: bool,
    /// The deletion is in the WAL.
    pub(super) deleted: Option<EntryId>,
    /// Slots of the map may be as of up to here, fetched from a source.
    pub(super) fetched: Lsn,
    /// What its unapplied records take.
    pub(super) share: Share,
    /// When its hold ends.
    pub(super) held_until_ms: Option<u64>,
    /// The acknowledgement said last.
    pub(super) acked: Option<Ack>,
    /// Waits in the host's list of volumes to acknowledge.
    pub(super) ack_due: bool,
}

impl Volume {
    pub(super) fn new(
        id: VolumeId,
        replica: ReplicaId,
        history: HistoryId,
        log: VolumeLog,
        created: bool,
    ) -> Self {
        Self {
            id,
            replica,
            history,
            log,
            index: SlotIndex::default(),
            suspect: false,
            floored: true,
            heard: Epoch::ZERO,
            created,
            closing: false,
            deleted: None,
            fetched: Lsn::ZERO,
            share: Share::default(),
            held_until_ms: None,
            acked: None,
            ack_due: false,
        }
    }

    /// Whether what the index and the map say together is right for a reader at
    /// `at`: a fetched slot may be newer than that, and what came between is then
    /// not in the index but in the slot.
    pub(super) fn is_exact_at(&self, at: Lsn) -> bool {
        self.fetched <= at || self.fetched <= self.log.applied()
    }

    pub(super) fn end_hold(&mut self) {
        self.log.step(Step::Hold(None));
        self.held_until_ms = None;
    }

    pub(super) fn report(&self) -> super::VolumeReport {
        super::VolumeReport {
            volume: self.id,
            replica: self.replica,
            history: self.history,
            blocks: self.log.blocks(),
            promised: self.log.promised(),
            last_lsn: self.log.last(),
            durable_lsn: self.log.durable(),
            commit_lsn: self.log.commit().min(self.log.last()),
            applied_lsn: self.log.applied(),
            fetched_lsn: self.fetched,
            epochs: self.log.epochs().to_vec(),
            suspect: self.suspect,
            floored: self.floored,
            heard: self.heard,
        }
    }

    /// The acknowledgement that is due, if it says anything new.
    pub(super) fn next_ack(&mut self) -> Option<Ack> {
        let stream = self.log.stream()?;
        let ack = Ack {
            volume: self.id,
            epoch: self.log.promised(),
            session: stream.session,
            durable_lsn: self.log.durable().min(stream.matched),
        };
        if self.acked == Some(ack) {
            return None;
        }
        self.acked = Some(ack);
        Some(ack)
    }
}

/// The WAL space that a record takes again when it is carried forward.
pub(super) fn carry_charge(record: &LogRecord) -> u64 {
    record.op.ring_bytes()
}

/// A record that has been put into the WAL at least once.
pub(super) fn is_logged(record: &LogRecord) -> bool {
    record.logged.is_some()
}

/// Whether the record's entry, or the copy that replaced it, is one of those up to `upto`.
pub(super) fn is_logged_upto(record: &LogRecord, upto: EntryId) -> bool {
    record.logged.is_some_and(|logged| logged.entry <= upto)
}

/// How far a volume can be applied by a round whose cut lies above the entries
/// up to `upto`: to where everything is settled, durable and below the cut, and the
/// log says so.
pub(super) fn round_target(log: &VolumeLog, upto: EntryId) -> Lsn {
    prefix_upto(log, log.appliable().min(log.known()), upto)
}

/// The last record of those at or below `end` that are logged up to `upto`.
pub(super) fn prefix_upto(log: &VolumeLog, end: Lsn, upto: EntryId) -> Lsn {
    log.records()
        .take_while(|(lsn, record)| *lsn <= end && is_logged_upto(record, upto))
        .last()
        .map_or(log.applied(), |(lsn, _)| lsn)
}
