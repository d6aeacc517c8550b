//! The slot store of one disk: where blocks lie, what their checksums are, which
//! slots are free; and the checkpoints that move all of it, with the applied
//! LSNs, from one whole durable state to the next.
//!
//! Everything but the data itself is in 4 KiB pages of copy-on-write trees: the
//! *catalogue* (one leaf per volume), the *slot states* and, per volume, the
//! *map*. A changed page goes to a free place; its parent holds its place and
//! checksum; the superblock holds the two roots. So a durable state is never
//! overwritten, and a checkpoint is the moment when the superblock turns.
//!
//! [`Store`] is sans-IO but for [`Store::format`], [`Store::open`] and [`fsck`],
//! which run while nothing else does. The bytes and the crash order of each
//! write are in docs/format/store.md.

mod cache;
mod checkpoint;
mod codec;
mod error;
mod format;
mod fsck;
mod image;
mod map;
mod page;
mod pages;
mod record;
mod removal;
mod slots;
mod sorted;
mod space;
mod superblock;
mod tree;
mod volume;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use fsck::{Fault, FsckOptions, FsckReport, VolumeSummary, fsck};
pub(crate) use map::{LeafNo, Lookup, MAP_SLOTS_MAX};
pub(crate) use record::MapRecord;
pub use record::PhysSlot;
pub(crate) use space::PhysRun;
pub(crate) use volume::VolumeState;

use self::{
    cache::{Cache, Key},
    checkpoint::{Checkpoint, Lists},
    image::{Files, Image},
    page::PAGE_BYTES,
    pages::PagePool,
    removal::Removals,
    slots::Slots,
    space::Growth,
    superblock::Superblock,
    volume::{Volume, Volumes},
};
use holdfast_io::{BufPool, Completion, Disk, DiskError, IoQueue, OpResult, OpenMode, Token};
use holdfast_types::{DiskId, VolumeId};
use holdfast_wal::{Ring, Start};
use std::collections::HashMap;

/// Top byte of every token that the store uses.
pub(crate) const TOKEN_OWNER: u8 = 0x53;

/// Leaves that the cache holds whatever it is told: less would make no progress.
const CACHE_LEAVES_MIN: usize = 32;

/// How a disk is laid out; fixed when it is formatted.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    /// Bytes of a WAL segment.
    pub(crate) segment_bytes: u32,
    /// Segments in the WAL's ring.
    pub(crate) segments: u32,
    /// Bytes that slots may take at most; `None`: all that the root has.
    pub(crate) capacity_bytes: Option<u64>,
}

/// Where the WAL lies and where recovery starts, as the superblock has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogInfo {
    /// The ring.
    pub(crate) ring: Ring,
    /// The first frame that is still needed.
    pub(crate) start: Start,
}

/// What the store has to say.
#[derive(Debug)]
pub(crate) enum StoreEvent {
    /// A leaf asked for is in memory. It stays there until it is looked at
    /// once, or for as long as it is pinned.
    LeafLoaded {
        /// Whose.
        volume: VolumeId,
        /// Which.
        leaf: LeafNo,
    },
    /// A leaf asked for cannot be had; what lies under it must not be served.
    LeafFailed {
        /// Whose.
        volume: VolumeId,
        /// Which.
        leaf: LeafNo,
        /// The device's error; `None`: the page is not the one that its parent
        /// names, or the volume was removed meanwhile.
        error: Option<DiskError>,
    },
    /// The checkpoint is durable in both superblocks: the WAL below its start is
    /// no longer needed, and what was freed before it can be allocated.
    CheckpointDone,
    /// A write or sync failed, or space for map pages ran out: no checkpoint
    /// will ever be durable again. Said once.
    Failed(DiskError),
}

/// What a token of ours stands for: the byte below the owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Detail: volume index and leaf.
    Load = 1,
    /// Detail: number of pages.
    WritePages = 2,
    SyncData = 3,
    /// Detail: which copy.
    WriteSuperblock = 4,
    /// Detail: slots when it is done.
    Grow = 5,
    /// Detail: volume index and leaf.
    ReadRemoved = 6,
    /// Any operation, to say a failure that no operation brought.
    Nudge = 7,
}

const DETAIL_BITS: u32 = 48;
/// Leaf numbers get this many of the detail's bits: 2³⁴ leaves of 46 slots map 46 PiB.
const LEAF_BITS: u32 = 34;

fn token(work: Work, detail: u64) -> Token {
    assert!(detail < 1 << DETAIL_BITS, "token detail {detail}");
    Token(u64::from(TOKEN_OWNER) << 56 | (work as u64) << DETAIL_BITS | detail)
}

fn key_detail((volume, leaf): Key) -> u64 {
    assert!(leaf < 1 << LEAF_BITS, "leaf {leaf} is beyond any volume");
    u64::from(volume) << LEAF_BITS | leaf
}

fn detail_key(detail: u64) -> Key {
    ((detail >> LEAF_BITS) as u32, detail & ((1 << LEAF_BITS) - 1))
}

fn parse(token: Token) -> (Work, u64) {
    assert_eq!((token.0 >> 56) as u8, TOKEN_OWNER, "a token of another owner");
    let work = match (token.0 >> DETAIL_BITS) as u8 {
        1 => Work::Load,
        2 => Work::WritePages,
        3 => Work::SyncData,
        4 => Work::WriteSuperblock,
        5 => Work::Grow,
        6 => Work::ReadRemoved,
        7 => Work::Nudge,
        other => unreachable!("token kind {other}"),
    };
    (work, token.0 & ((1 << DETAIL_BITS) - 1))
}

/// The slot store of one disk.
pub(crate) struct Store {
    pool: BufPool,
    files: Files,
    /// The durable state.
    superblock: Superblock,
    slots: Slots,
    pages: PagePool,
    volumes: Volumes,
    cache: Cache,
    /// Leaves on their way to memory, and of which volume.
    loads: HashMap<Key, VolumeId>,
    load_queue: Vec<Key>,
    /// Pages of maps that a checkpoint would write.
    map_dirty: u64,
    /// Slots to become free with the next checkpoint to begin.
    deferred: Vec<PhysSlot>,
    /// Pages to become free with the next checkpoint to begin.
    freed_pages: Vec<u64>,
    growth: Growth,
    removals: Removals,
    checkpoint: Option<Checkpoint>,
    lists: Lists,
    failure: Option<DiskError>,
    /// The failure is still to be said.
    failure_unsaid: bool,
}

impl Store {
    /// Lays out an empty disk, its WAL ring included. Durable on return.
    pub(crate) fn format(
        disk: &mut dyn Disk,
        options: &StoreOptions,
    ) -> Result<DiskId, StoreError> {
        format::format(disk, options)
    }

    /// Where the log of a stopped disk lies. Changes nothing.
    pub(crate) fn log_info(disk: &mut dyn Disk) -> Result<LogInfo, StoreError> {
        let image = Image::load(disk, &BufPool::new(0), OpenMode::ReadOnly)?;
        Ok(LogInfo { ring: image.files.ring(&image.superblock), start: image.superblock.start })
    }

    /// Opens a formatted disk. Blocks. `cache_bytes` bounds the map leaves in
    /// memory; `pool` serves the store's reads and writes.
    pub(crate) fn open(
        disk: &mut dyn Disk,
        pool: BufPool,
        cache_bytes: u64,
    ) -> Result<(Self, LogInfo), StoreError> {
        let mut image = Image::load(disk, &pool, OpenMode::Existing)?;
        if let Some(fault) = image.faults.first() {
            return Err(StoreError::Damaged(fault.to_string()));
        }
        image.adopt_growth(disk)?;
        let Image { files, superblock, slots, pages, volumes, .. } = image;
        let log = LogInfo { ring: files.ring(&superblock), start: superblock.start };
        let leaves = (cache_bytes / PAGE_BYTES as u64) as usize;
        let growth = Growth::new(&superblock, slots.count());
        let removals = Removals::new(&volumes);
        let store = Self {
            pool,
            files,
            superblock,
            slots,
            pages,
            volumes,
            cache: Cache::new(leaves.max(CACHE_LEAVES_MIN)),
            loads: HashMap::new(),
            load_queue: Vec::new(),
            map_dirty: 0,
            deferred: Vec::new(),
            freed_pages: Vec::new(),
            growth,
            removals,
            checkpoint: None,
            lists: Lists::default(),
            failure: None,
            failure_unsaid: false,
        };
        Ok((store, log))
    }

    /// The disk's id.
    pub(crate) fn disk_id(&self) -> DiskId {
        self.superblock.disk
    }

    /// Every replica here, in no particular order; not those being removed.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &VolumeState> {
        self.volumes.iter().filter(|(_, volume)| !volume.removing).map(|(_, volume)| &volume.state)
    }

    /// A replica's state.
    pub(crate) fn volume(&self, id: VolumeId) -> Option<&VolumeState> {
        Some(&self.volumes.get(self.volumes.index(id)?)?.state)
    }

    /// A replica's state, to be changed; the next checkpoint to *begin* stores it.
    /// Ids must not be changed; a size may be raised.
    pub(crate) fn volume_mut(&mut self, id: VolumeId) -> Option<&mut VolumeState> {
        let index = self.volumes.index(id)?;
        self.volumes.dirty.insert(index);
        Some(&mut self.volumes.get_mut(index)?.state)
    }

    /// Adds an empty replica. `false` if it is here already, or the disk has
    /// [`volume::VOLUMES_MAX`] of them.
    pub(crate) fn add_volume(&mut self, state: VolumeState) -> bool {
        self.volumes.add(Volume::new(state)).is_some()
    }

    /// Takes a replica out of [`Self::volumes`] at once; its map and slots are
    /// freed a few leaves per [`Self::flush`], across crashes and checkpoints.
    /// `false` if it is not here.
    pub(crate) fn remove_volume(&mut self, id: VolumeId) -> bool {
        let Some(index) = self.volumes.start_removal(id) else { return false };
        self.removals.add(index);
        true
    }

    /// Queues every operation that can start: leaf loads, the checkpoint's next
    /// step, growth, removal. Once per turn.
    pub(crate) fn flush(&mut self, queue: &mut IoQueue) {
        self.flush_loads(queue);
        if self.failure.is_none() {
            self.flush_checkpoint(queue);
            self.flush_growth(queue);
            self.flush_removals(queue);
        } else if self.failure_unsaid {
            self.flush_nudge(queue);
        }
    }

    /// Takes an ended operation whose token's top byte is [`TOKEN_OWNER`].
    pub(crate) fn complete(&mut self, completion: Completion, events: &mut Vec<StoreEvent>) {
        let (work, detail) = parse(completion.token);
        match (work, completion.result) {
            (Work::Load, result) => events.extend(self.loaded(detail_key(detail), result)),
            (Work::ReadRemoved, result) => self.removed_leaf_read(detail_key(detail), result),
            (Work::Grow, result) => self.grown(detail, result),
            (Work::Nudge, _) => {}
            (_, Err(error)) => self.fail(error),
            // A checkpoint that failed is gone; what it had in flight still ends.
            (_, Ok(_)) if self.failure.is_some() => {}
            (Work::WritePages, Ok(written)) => {
                self.lists.keep(written);
                self.pages_written(detail);
            }
            (Work::SyncData, Ok(_)) => self.data_synced(),
            (Work::WriteSuperblock, Ok(written)) => {
                self.lists.keep(written);
                events.extend(self.superblock_written(detail));
            }
        }
        if std::mem::take(&mut self.failure_unsaid)
            && let Some(error) = &self.failure
        {
            events.push(StoreEvent::Failed(error.clone()));
        }
    }

    /// Whether the store waits for no operation and has none to queue.
    pub(crate) fn is_idle(&self) -> bool {
        self.loads.is_empty()
            && self.checkpoint.is_none()
            && !self.growth.is_running()
            && self.removals.is_waiting()
    }

    /// The disk failed elsewhere: nothing is written any more, as after a failure
    /// of the store's own, and no event says so.
    pub(crate) fn stop(&mut self, error: &DiskError) {
        self.fail(error.clone());
        self.failure_unsaid = false;
    }

    /// The first failure latches: nothing is written any more, and what a failed
    /// sync may have dropped is never synced again.
    fn fail(&mut self, error: DiskError) {
        if self.failure.is_none() {
            self.failure = Some(error);
            self.failure_unsaid = true;
            self.checkpoint = None;
        }
    }
}

fn read_result(result: OpResult) -> holdfast_io::BufMut {
    match result {
        OpResult::Read(buf) => buf,
        other => unreachable!("a read ended as {other:?}"),
    }
}
