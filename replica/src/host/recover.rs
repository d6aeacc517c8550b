//! Opening a disk: what the log says above the store's checkpoint is replayed
//! into the index, and nothing else: no payload is kept, nothing is applied, so
//! a restart serves as soon as the log has been read once.
//!
//! The store may be *newer* than the point where the log starts (a checkpoint
//! holds what was true when it began, the start lies at the cut before), so each
//! entry is absolute and replaying it a second time changes nothing: records at
//! or below the applied LSN are skipped, promises only grow, a truncation drops
//! what lies above it at that point of the log, a creation of what is there and
//! a deletion of what is gone do nothing.

use super::{
    Host, HostError, HostOptions, RecoveryReport,
    cache::{Counts, PayloadCache},
    carry::Carry,
    control::blank_state,
    log::{LogOp, LogRecord, Logged, VolumeLog},
    meta::{Body, FreshSlots, Meta, MetaOp},
    read::Reads,
    round::Round,
    space::Space,
    volume::{Volume, carry_charge},
};
use crate::store::{PhysSlot, Store, StoreError, VolumeState};
use holdfast_io::{BufPool, Disk, DiskError, IoQueue, Op, OpResult};
use holdfast_types::{BLOCK_BYTES, Lsn, ReplicaId, SLOT_BLOCKS, SLOT_BYTES, block_crc};
use holdfast_wal::{EntryId, RecoverError, RecoveredEntry, Visitor, Wal};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// The unapplied limit is this part of the ring at most: what is not settled has
/// to fit twice, and as much again is being written while a round runs.
const RING_PER_UNAPPLIED: u64 = 4;

impl Host {
    pub(super) fn open_disk(
        disk: &mut dyn Disk,
        pool: BufPool,
        options: HostOptions,
    ) -> Result<(Self, RecoveryReport), HostError> {
        let (mut store, log) = Store::open(disk, pool.clone(), options.map_cache_bytes)?;
        // What recovery verifies in fresh slots must not be in a cache only.
        let (data, _) = store.place(PhysSlot(0));
        disk.run(Op::Sync { file: data })?;
        let mut replay = Replay::new(&store, pool.clone());
        let (wal, end) = Wal::recover(disk, pool.clone(), log.ring, log.start, &mut replay)?;
        let replayed = replay.finish(end.is_suspect())?;
        let unapplied_max =
            options.unapplied_bytes_max.min(log.ring.config.ring_bytes() / RING_PER_UNAPPLIED);
        let volumes = settle_store(&mut store, replayed.replicas)?;
        let mut host = Self {
            pool,
            options,
            unapplied_max,
            round: Round::new(log.start),
            damaged: wal.is_damaged(),
            ring_capacity: ring_capacity(log.ring.config),
            wal,
            store,
            volumes: Vec::new(),
            by_id: HashMap::new(),
            nodes: super::index::Nodes::default(),
            outbox: VecDeque::new(),
            pending: VecDeque::new(),
            placed: Vec::new(),
            placed_upto: EntryId::ZERO,
            entries_since_cut: end.entries,
            blocked: false,
            counts: Counts::default(),
            cache: PayloadCache::default(),
            fresh: super::slab::Slab::default(),
            reads: Reads::default(),
            statuses: super::slab::Slab::default(),
            space: Space::default(),
            carry: Carry::default(),
            by_checkpoint: Vec::new(),
            resets: Vec::new(),
            deletions: Vec::new(),
            waiting: Vec::new(),
            woken: Vec::new(),
            acks_due: Vec::new(),
            events: Vec::new(),
            store_events: Vec::new(),
            ops: IoQueue::new(),
            spare_bufs: Vec::new(),
            copies: super::copy::Copies::default(),
            fills: super::fill::Fills::default(),
            settling: Vec::new(),
            now_ms: 0,
            activity: 0,
            failed: None,
        };
        host.placed_upto = replayed.last_entry;
        let mut records = 0;
        for volume in volumes {
            records += host.adopt(volume)?;
        }
        for (entry, slot) in replayed.held {
            // One that a map or a record names since, or twice, is not ours to
            // free: a piece of a round frees slots that the log still names.
            if host.store.mark_used(slot) {
                host.space.hold(entry, slot);
            }
        }
        let report = RecoveryReport {
            records,
            wal_bytes: end.log_bytes,
            end: end.to_string(),
            suspect: end.is_suspect(),
        };
        Ok((host, report))
    }

    /// Takes a replica over as replay has left it; the number of its records.
    fn adopt(&mut self, found: Replica) -> Result<u64, HostError> {
        let state = found.state;
        let mut log = VolumeLog::new(
            state.applied,
            state.applied_epoch,
            state.promised,
            state.epochs,
            state.blocks,
        );
        let mut records = found.records;
        let mut end = None;
        'records: for (lsn, record) in &records {
            let LogOp::Fresh { slots, .. } = &record.op else { continue };
            for (at, slot) in slots.iter().enumerate() {
                if self.store.mark_used(PhysSlot(*slot)) {
                    continue;
                }
                if !self.damaged {
                    return Err(HostError::Damaged(format!(
                        "the log of volume {} names slot {slot}, which is in use",
                        state.volume
                    )));
                }
                // A damaged log may lack that the record was dropped, and its slots were
                // given to another. What is committed is never dropped, so all that this
                // takes away is not known to be.
                let Some(logged) = record.logged else { unreachable!("it was found in the log") };
                for slot in &slots[..at] {
                    self.space.hold(logged.entry, PhysSlot(*slot));
                }
                end = Some(*lsn);
                break 'records;
            }
        }
        if let Some(end) = end {
            records.split_off(&end);
        }
        for record in records.into_values() {
            log.step(super::log::Step::Push(record));
        }
        log.recovered(found.committed);
        let volume = Volume {
            suspect: state.suspect,
            floored: !state.suspect,
            fetched: state.fetched,
            ..Volume::new(state.volume, state.replica, state.history, log, true)
        };
        let at = self.add_volume(volume);
        // Taken out and put back, since indexing needs the whole host.
        let (mut lsn, mut count) = (state.applied, 0);
        loop {
            lsn = lsn.next();
            let Some(volume) = self.volumes[at.0 as usize].as_mut() else { break };
            let settled = lsn <= volume.log.settled();
            let Some(record) = volume.log.record_mut(lsn) else { break };
            let charge = record.op.charge();
            self.counts.unapplied += charge;
            self.counts.active += u64::from(volume.share.unapplied == 0);
            volume.share.unapplied += charge;
            if settled {
                self.counts.settled += charge;
                volume.share.settled += charge;
            } else {
                self.counts.carry += carry_charge(record);
            }
            let op = std::mem::replace(&mut record.op, LogOp::EpochStart);
            self.index_record(at, lsn, &op);
            if let Some(volume) = self.volumes[at.0 as usize].as_mut()
                && let Some(record) = volume.log.record_mut(lsn)
            {
                record.op = op;
            }
            count += 1;
        }
        Ok(count)
    }
}

/// What an empty ring takes, as [`Wal::free_bytes`] counts: a segment is kept
/// back, and each may lose the rest that its last record does not fit.
fn ring_capacity(config: holdfast_wal::Config) -> u64 {
    let lost = (BLOCK_BYTES + holdfast_types::RECORD_BYTES_MAX) as u64;
    let kept_back = config.segment();
    (u64::from(config.segments) * (config.segment() - lost)).saturating_sub(kept_back)
}

/// A replica as far as replay has come.
#[derive(Debug)]
struct Replica {
    state: VolumeState,
    records: BTreeMap<Lsn, LogRecord>,
    committed: Lsn,
    /// The store does not have it.
    is_new: bool,
    deleted: bool,
}

/// Reads the log's entries.
struct Replay<'a> {
    store: &'a Store,
    pool: BufPool,
    replicas: HashMap<ReplicaId, Replica>,
    /// Named by entries, but neither in the store nor created: deleted since, or else damage.
    strangers: HashSet<ReplicaId>,
    deleted: HashSet<ReplicaId>,
    /// Fresh slots of records that are no longer in any log.
    held: Vec<(EntryId, PhysSlot)>,
    last_entry: EntryId,
    /// The first entry that makes no sense.
    fault: Option<String>,
}

/// What replay found.
struct Replayed {
    replicas: Vec<Replica>,
    held: Vec<(EntryId, PhysSlot)>,
    last_entry: EntryId,
}

impl<'a> Replay<'a> {
    fn new(store: &'a Store, pool: BufPool) -> Self {
        let replica = |state: &VolumeState| {
            let replica = Replica {
                state: state.clone(),
                records: BTreeMap::new(),
                committed: state.applied,
                is_new: false,
                deleted: false,
            };
            (state.replica, replica)
        };
        Self {
            replicas: store.volumes().map(replica).collect(),
            store,
            pool,
            strangers: HashSet::new(),
            deleted: HashSet::new(),
            held: Vec::new(),
            last_entry: EntryId::ZERO,
            fault: None,
        }
    }

    fn take(&mut self, entry: &RecoveredEntry<'_>) -> Result<(), String> {
        let meta = Meta::decode(entry.meta).map_err(|error| error.to_string())?;
        let Some(replica) = self.replicas.get_mut(&meta.replica) else {
            self.take_stranger(entry, meta);
            return Ok(());
        };
        match meta.body {
            Body::Record { lsn, epoch, committed, op } => {
                replica.committed = replica.committed.max(committed);
                if lsn <= replica.state.applied {
                    return Ok(());
                }
                let logged = Some(Logged { entry: entry.id, payload_at: Some(entry.payload_at) });
                match replica.records.get_mut(&lsn) {
                    Some(held) if held.epoch == epoch => held.logged = logged,
                    Some(held) => {
                        return Err(format!(
                            "volume {} has two records {lsn}, of epochs {} and {epoch}",
                            replica.state.volume, held.epoch
                        ));
                    }
                    None => {
                        let op = log_op(op, entry)?;
                        replica.records.insert(lsn, LogRecord { epoch, op, logged });
                    }
                }
            }
            Body::Promise { epoch } => replica.state.promised = replica.state.promised.max(epoch),
            Body::Truncate { epoch, last } => {
                replica.state.promised = replica.state.promised.max(epoch);
                let dropped = replica.records.split_off(&last.next());
                self.hold_all(entry.id, dropped);
            }
            Body::Note { committed } => replica.committed = replica.committed.max(committed),
            Body::Create { .. } => {}
            Body::Delete { .. } => {
                replica.deleted = true;
                let dropped = std::mem::take(&mut replica.records);
                self.hold_all(entry.id, dropped);
            }
        }
        Ok(())
    }

    fn take_stranger(&mut self, entry: &RecoveredEntry<'_>, meta: Meta) {
        match meta.body {
            Body::Create { volume, history, blocks } => {
                let replica = meta.replica;
                let new = super::NewVolume { volume, replica, history, blocks };
                let found = Replica {
                    state: blank_state(&new),
                    records: BTreeMap::new(),
                    committed: Lsn::ZERO,
                    is_new: true,
                    deleted: false,
                };
                self.replicas.insert(replica, found);
            }
            Body::Delete { .. } => {
                self.deleted.insert(meta.replica);
            }
            Body::Record { op, .. } => {
                self.strangers.insert(meta.replica);
                if let MetaOp::Fresh { slots, .. } = op {
                    self.held.extend(slots.iter().map(|slot| (entry.id, PhysSlot(*slot))));
                }
            }
            Body::Promise { .. } | Body::Truncate { .. } | Body::Note { .. } => {
                self.strangers.insert(meta.replica);
            }
        }
    }

    fn hold_all(&mut self, entry: EntryId, records: BTreeMap<Lsn, LogRecord>) {
        for record in records.into_values() {
            if let LogOp::Fresh { slots, .. } = record.op {
                self.held.extend(slots.iter().map(|slot| (entry, PhysSlot(*slot))));
            }
        }
    }

    fn finish(self, suspect: bool) -> Result<Replayed, HostError> {
        if let Some(fault) = self.fault {
            return Err(HostError::Damaged(fault));
        }
        // A log that was cut short by damage may lack the deletion.
        if let Some(stranger) = self.strangers.difference(&self.deleted).next()
            && !suspect
        {
            return Err(HostError::Damaged(format!(
                "the log has entries of replica {stranger}, which is not here"
            )));
        }
        let mut replicas: Vec<_> = self.replicas.into_values().collect();
        // In the same order at every start.
        replicas.sort_by_key(|replica| replica.state.volume);
        for replica in &mut replicas {
            replica.state.suspect |= suspect;
            let mut next = replica.state.applied.next();
            let mut epoch = replica.state.applied_epoch;
            // Where a truncation was lost, what it dropped would follow what the
            // store has of a later epoch.
            let gap = replica.records.iter().find(|(lsn, record)| {
                let fits = **lsn == next && record.epoch >= epoch;
                (next, epoch) = (next.next(), record.epoch);
                !fits
            });
            if let Some((gap, _)) = gap {
                let gap = *gap;
                if !suspect {
                    return Err(HostError::Damaged(format!(
                        "the log of volume {} lacks what is before record {gap}",
                        replica.state.volume
                    )));
                }
                replica.records.split_off(&gap);
            }
        }
        Ok(Replayed { replicas, held: self.held, last_entry: self.last_entry })
    }

    /// Whether the fresh slots of a record hold what it says.
    fn verify_fresh(
        &self,
        disk: &mut dyn Disk,
        slots: &FreshSlots,
        crcs: &[u32],
    ) -> Result<bool, DiskError> {
        for (slot, crcs) in slots.iter().zip(crcs.chunks(SLOT_BLOCKS)) {
            // The growth that made it was lost, and with it what was written there.
            if !self.store.has_slot(PhysSlot(*slot)) {
                return Ok(false);
            }
            let (file, offset) = self.store.place(PhysSlot(*slot));
            let buf = self.pool.alloc(SLOT_BYTES);
            let read = match disk.run(Op::Read { file, offset, buf })? {
                OpResult::Read(read) => read,
                other => unreachable!("a read ended as {other:?}"),
            };
            let blocks = read.chunks_exact(BLOCK_BYTES);
            if blocks.zip(crcs).any(|(block, crc)| block_crc(block) != *crc) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Visitor for Replay<'_> {
    fn verify(
        &mut self,
        disk: &mut dyn Disk,
        entry: &RecoveredEntry<'_>,
    ) -> Result<bool, DiskError> {
        let Ok(meta) = Meta::decode(entry.meta) else { return Ok(true) };
        match meta.body {
            Body::Record { op: MetaOp::Fresh { slots, .. }, .. } => {
                self.verify_fresh(disk, &slots, entry.crcs)
            }
            _ => Ok(true),
        }
    }

    fn entry(&mut self, entry: &RecoveredEntry<'_>) {
        self.last_entry = entry.id;
        if self.fault.is_none()
            && let Err(fault) = self.take(entry)
        {
            self.fault = Some(format!("log entry at {}: {fault}", entry.frame));
        }
    }
}

/// Brings the store's list of replicas up to what the log says; the live ones.
fn settle_store(store: &mut Store, found: Vec<Replica>) -> Result<Vec<Replica>, HostError> {
    let (gone, live): (Vec<_>, Vec<_>) = found.into_iter().partition(|replica| replica.deleted);
    for replica in gone.iter().filter(|replica| !replica.is_new) {
        store.remove_volume(replica.state.volume);
    }
    for replica in live.iter().filter(|replica| replica.is_new) {
        if !store.add_volume(VolumeState { epochs: Vec::new(), ..replica.state.clone() }) {
            return Err(HostError::Damaged(format!(
                "the log creates volume {}, which is here already",
                replica.state.volume
            )));
        }
    }
    Ok(live)
}

fn log_op(op: MetaOp, entry: &RecoveredEntry<'_>) -> Result<LogOp, String> {
    let crcs = || entry.crcs.iter().copied().collect();
    let fits = |blocks: u64| {
        if entry.crcs.len() as u64 == blocks {
            Ok(())
        } else {
            Err(format!("{} checksums for {blocks} blocks", entry.crcs.len()))
        }
    };
    Ok(match op {
        MetaOp::Write { range } => {
            fits(range.count)?;
            if u64::from(entry.payload_bytes) != range.bytes() {
                return Err(format!("{} bytes for {} blocks", entry.payload_bytes, range.count));
            }
            LogOp::Write { range, crcs: crcs(), payload: None }
        }
        MetaOp::Fresh { range, slots } => {
            fits(range.count)?;
            LogOp::Fresh { range, crcs: crcs(), slots, payload: None, writing: None }
        }
        MetaOp::Discard { range } => LogOp::Discard { range },
        MetaOp::EpochStart => LogOp::EpochStart,
        MetaOp::Resize { blocks } => LogOp::Resize { blocks },
    })
}

impl From<StoreError> for HostError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFormatted => Self::NotFormatted,
            StoreError::AlreadyFormatted => Self::AlreadyFormatted,
            StoreError::Foreign(what) => Self::Foreign(what),
            StoreError::Options(what) => Self::Options(what),
            StoreError::NewerFormat { found, supported } => Self::NewerFormat { found, supported },
            StoreError::Damaged(what) => Self::Damaged(what),
            StoreError::TooSmall { available, needed } => Self::TooSmall { available, needed },
            StoreError::Disk(error) => Self::Disk(error),
            StoreError::Io { context, source } => Self::Io { context, source },
        }
    }
}

impl From<RecoverError> for HostError {
    fn from(error: RecoverError) -> Self {
        match error {
            RecoverError::Disk(error) => Self::Disk(error),
            RecoverError::NewerFormat { found, supported, .. } => {
                Self::NewerFormat { found, supported }
            }
            RecoverError::NoRoom => Self::Damaged(error.to_string()),
        }
    }
}
