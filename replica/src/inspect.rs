//! Offline tools: what a stopped node's files hold, and whether they agree.
//! Nothing here changes a byte.

use crate::{
    FsckOptions, FsckReport, PhysSlot, StoreError,
    host::{Body, Meta, MetaOp},
    store::{Store, fsck},
};
use holdfast_io::{BufPool, Disk};
use holdfast_types::{BlockNo, Lsn, ReplicaId, VolumeId};
use holdfast_wal::{Dump, RecoverError};
use std::collections::{BTreeMap, BTreeSet};

/// Buffers for reading a log with read-ahead.
const POOL_BYTES: usize = 16 << 20;

/// Why a disk cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Its store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log cannot be read.
    #[error(transparent)]
    Log(#[from] RecoverError),
}

/// What is on a disk.
#[derive(Debug)]
pub struct Inspection {
    /// The slot store, checked.
    pub store: FsckReport,
    /// Frames from the last checkpoint to the log's end.
    pub log_frames: u64,
    /// Entries in them.
    pub log_entries: u64,
    /// Why the log ends where it does, in words.
    pub log_end: String,
    /// The log ends below something that had been durable.
    pub suspect: bool,
}

impl Inspection {
    /// Whether everything agrees.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.store.faults.is_empty() && !self.suspect
    }
}

/// Reads a stopped disk's log from its last checkpoint on.
pub fn read_log(disk: &mut dyn Disk) -> Result<Dump, InspectError> {
    let info = Store::log_info(disk)?;
    Ok(holdfast_wal::dump(disk, &BufPool::new(POOL_BYTES), info.ring, info.start)?)
}

/// Checks a stopped disk. `deep` reads all data too.
pub fn inspect(disk: &mut dyn Disk, deep: bool) -> Result<Inspection, InspectError> {
    let log = read_log(disk)?;
    let names = fsck(disk, &FsckOptions::default())?;
    let volumes = names.volumes.iter().map(|v| (v.replica, v.volume)).collect();
    let live = Live::of(&log, volumes);
    let store = if deep {
        let skip = |volume: VolumeId, block: BlockNo| live.blocks.contains(&(volume, block));
        fsck(disk, &FsckOptions { deep, skip: &skip, external: &live.slots })?
    } else {
        fsck(disk, &FsckOptions { external: &live.slots, ..FsckOptions::default() })?
    };
    Ok(Inspection {
        store,
        log_frames: log.frames.len() as u64,
        log_entries: log.frames.iter().map(|frame| frame.entries.len() as u64).sum(),
        log_end: format!("{} at {}; durable mark {}", log.finding, log.end, log.mark),
        suspect: log.mark > log.end,
    })
}

/// What the log's records own: blocks that an apply may have begun to overwrite,
/// and slots that only the log names.
#[derive(Default)]
struct Live {
    blocks: BTreeSet<(VolumeId, BlockNo)>,
    slots: Vec<PhysSlot>,
}

impl Live {
    fn of(log: &Dump, mut volumes: BTreeMap<ReplicaId, VolumeId>) -> Self {
        let mut live = Self::default();
        let entries = || log.frames.iter().flat_map(|frame| &frame.entries);
        let metas = || entries().filter_map(|entry| Meta::decode(&entry.meta).ok());
        // Nothing is applied that the log does not say is committed; what is deleted is left
        // as it was.
        let mut committed: BTreeMap<ReplicaId, Lsn> = BTreeMap::new();
        for Meta { replica, body, .. } in metas() {
            let upto = match body {
                Body::Record { committed, .. } | Body::Note { committed } => committed,
                Body::Delete { .. } => Lsn::new(u64::MAX),
                _ => continue,
            };
            let known = committed.entry(replica).or_default();
            *known = upto.max(*known);
        }
        for Meta { replica, body, .. } in metas() {
            match body {
                Body::Create { volume, .. } => {
                    volumes.insert(replica, volume);
                }
                Body::Record { lsn, op: MetaOp::Write { range }, .. } => {
                    let known = committed.get(&replica).is_some_and(|known| lsn <= *known);
                    let Some(volume) = volumes.get(&replica).filter(|_| known) else { continue };
                    let blocks = range.start.get()..range.end().get();
                    live.blocks.extend(blocks.map(|block| (*volume, BlockNo::new(block))));
                }
                Body::Record { op: MetaOp::Fresh { slots, .. }, .. } => {
                    live.slots.extend(slots.iter().map(|slot| PhysSlot(*slot)));
                }
                _ => {}
            }
        }
        live
    }
}
