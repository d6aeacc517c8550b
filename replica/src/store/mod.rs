//! The slot store of one disk: where blocks lie, what their checksums are, which
//! slots are free; and the checkpoints that move all of it, with the applied
//! LSNs, from one whole durable state to the next.

mod codec;
mod error;
mod record;
mod volume;

pub(crate) use error::StoreError;
pub(crate) use record::{MapRecord, PhysSlot};
pub(crate) use volume::{EPOCH_SPANS_MAX, VolumeState};

use holdfast_io::{BufPool, Completion, Disk, DiskError, FileId, IoQueue};
use holdfast_types::{DiskId, SlotNo, VolumeId};

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
pub(crate) struct LogInfo {}

/// A run of free slots that was just taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PhysRun {
    /// The lowest.
    pub(crate) start: PhysSlot,
    /// How many; at least one.
    pub(crate) count: u32,
}

/// What the store knows about a slot of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// This. (A tombstone is a record too.)
    Record(MapRecord),
    /// Never written.
    Absent,
    /// Its map leaf is not in memory: [`Store::load`] it and wait for
    /// [`StoreEvent::LeafLoaded`].
    Miss,
}

/// Number of a map leaf within a volume's map; see [`LeafNo::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LeafNo(pub(crate) u64);

impl LeafNo {
    /// The leaf that holds the record of `slot`.
    pub(crate) fn of(slot: SlotNo) -> Self {
        Self(slot.get() / 46)
    }
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
        /// The device's error; `None`: the page does not match its checksum
        /// (or the volume was removed meanwhile).
        error: Option<DiskError>,
    },
    /// The checkpoint is durable in both superblocks: the WAL below its start is
    /// no longer needed, and what was freed before it can be allocated.
    CheckpointDone {
        /// Its number.
        generation: u64,
    },
    /// A write or sync failed: no checkpoint will ever be durable again. Said once.
    Failed(DiskError),
}

/// The slot store of one disk.
pub(crate) struct Store {}

#[allow(unused_variables, clippy::unimplemented, dead_code)]
impl Store {
    /// Lays out an empty disk, its WAL ring included. Durable on return.
    pub(crate) fn format(
        disk: &mut dyn Disk,
        options: &StoreOptions,
    ) -> Result<DiskId, StoreError> {
        unimplemented!()
    }

    /// Opens a formatted disk. Blocks. `cache_bytes` bounds the map leaves in memory.
    pub(crate) fn open(
        disk: &mut dyn Disk,
        pool: BufPool,
        cache_bytes: u64,
    ) -> Result<(Self, LogInfo), StoreError> {
        unimplemented!()
    }

    /// The disk's id.
    pub(crate) fn disk_id(&self) -> DiskId {
        unimplemented!()
    }

    /// Every replica here, in no particular order; not those being removed.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &VolumeState> {
        std::iter::empty()
    }

    /// A replica's state.
    pub(crate) fn volume(&self, id: VolumeId) -> Option<&VolumeState> {
        unimplemented!()
    }

    /// A replica's state, to be changed; the next checkpoint to *begin* stores it.
    /// Ids must not be changed; a size may be raised.
    pub(crate) fn volume_mut(&mut self, id: VolumeId) -> Option<&mut VolumeState> {
        unimplemented!()
    }

    /// Adds an empty replica. `false` if it is here already.
    pub(crate) fn add_volume(&mut self, state: VolumeState) -> bool {
        unimplemented!()
    }

    /// Takes a replica out of [`Self::volumes`] at once; its map and slots are
    /// freed a few leaves per [`Self::flush`], across crashes and checkpoints.
    /// `false` if it is not here.
    pub(crate) fn remove_volume(&mut self, id: VolumeId) -> bool {
        unimplemented!()
    }

    /// Whether replicas are still being removed: checkpoints are wanted, since
    /// removal stops when [`Self::dirty_bytes`] reaches [`Self::dirty_limit`].
    pub(crate) fn is_removing(&self) -> bool {
        unimplemented!()
    }

    /// What the map says about a slot. No allocation, no I/O.
    ///
    /// # Panics
    /// If the volume is not here.
    pub(crate) fn lookup(&mut self, volume: VolumeId, slot: SlotNo) -> Lookup {
        unimplemented!()
    }

    /// Fetches the leaf of `slot` into memory; queued by the next [`Self::flush`].
    /// Calls for a leaf that is already on its way are merged; each wave gets one event.
    pub(crate) fn load(&mut self, volume: VolumeId, slot: SlotNo) {
        unimplemented!()
    }

    /// Keeps the leaf of `slot`, which must be in memory or absent, in memory. Counted.
    pub(crate) fn pin(&mut self, volume: VolumeId, slot: SlotNo) {
        unimplemented!()
    }

    /// Takes one [`Self::pin`] back.
    pub(crate) fn unpin(&mut self, volume: VolumeId, slot: SlotNo) {
        unimplemented!()
    }

    /// Replaces the record of a slot. The slot that the old record lay in, when
    /// the new one lies elsewhere, is freed (deferred); the new place must have
    /// come from [`Self::alloc_run`] or [`Self::mark_used`].
    ///
    /// # Panics
    /// If the last [`Self::lookup`] would say [`Lookup::Miss`]; while a checkpoint runs.
    pub(crate) fn update(&mut self, volume: VolumeId, slot: SlotNo, record: Option<MapRecord>) {
        unimplemented!()
    }

    /// Bytes of metadata that a checkpoint would write now.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// At [`Self::dirty_bytes`] above this, apply must stop and checkpoint.
    pub(crate) fn dirty_limit(&self) -> u64 {
        unimplemented!()
    }

    /// Takes up to `max` contiguous free slots, fewer if no such run is near;
    /// `None` when only the headroom is left. They count as free on disk until
    /// [`Self::update`] puts them into a map.
    pub(crate) fn alloc_run(&mut self, max: u32) -> Option<PhysRun> {
        unimplemented!()
    }

    /// Recovery: a WAL record names `phys`. Call for all before the first
    /// [`Self::alloc_run`]. `false` if the slot does not exist or is not free.
    pub(crate) fn mark_used(&mut self, phys: PhysSlot) -> bool {
        unimplemented!()
    }

    /// Gives back a slot from [`Self::alloc_run`] that no logged record names:
    /// allocatable at once.
    pub(crate) fn free_unused(&mut self, phys: PhysSlot) {
        unimplemented!()
    }

    /// Gives back a slot from [`Self::alloc_run`] or [`Self::mark_used`] that no
    /// map names: allocatable once the next checkpoint to begin is durable. That
    /// checkpoint's WAL start must lie above every record that names the slot.
    pub(crate) fn free_deferred(&mut self, phys: PhysSlot) {
        unimplemented!()
    }

    /// Slots that [`Self::alloc_run`] can give now; the headroom is not in it.
    pub(crate) fn free_slots(&self) -> u64 {
        unimplemented!()
    }

    /// Slots freed that the next checkpoints will make allocatable.
    pub(crate) fn deferred_slots(&self) -> u64 {
        unimplemented!()
    }

    /// Free slots kept back for map pages, so that a checkpoint never lacks space.
    pub(crate) fn headroom(&self) -> u64 {
        unimplemented!()
    }

    /// Whether the data file may still grow: not at its capacity, and the last
    /// attempt did not run out of space.
    pub(crate) fn can_grow(&self) -> bool {
        unimplemented!()
    }

    /// Lets growth be tried again after it ran out of space; for a slow timer.
    pub(crate) fn retry_growth(&mut self) {
        unimplemented!()
    }

    /// File and byte offset of a slot.
    pub(crate) fn place(&self, phys: PhysSlot) -> (FileId, u64) {
        unimplemented!()
    }

    /// Starts a checkpoint of everything updated so far; `start` is where WAL
    /// recovery shall begin after it. The caller has no data write in flight
    /// that the state relies on. Driven by [`Self::flush`] and
    /// [`Self::complete`]; ends in [`StoreEvent::CheckpointDone`].
    ///
    /// # Panics
    /// If one runs already, or after a failure.
    pub(crate) fn begin_checkpoint(&mut self, start: LogInfo) {
        unimplemented!()
    }

    /// Whether a checkpoint runs: no [`Self::update`] then.
    pub(crate) fn is_checkpointing(&self) -> bool {
        unimplemented!()
    }

    /// Queues every operation that can start: leaf loads, the checkpoint's next
    /// step, growth, removal. Once per turn.
    pub(crate) fn flush(&mut self, queue: &mut IoQueue) {
        unimplemented!()
    }

    /// Takes an ended operation whose token's top byte is [`TOKEN_OWNER`].
    pub(crate) fn complete(&mut self, completion: Completion, events: &mut Vec<StoreEvent>) {
        unimplemented!()
    }

    /// Whether the store waits for no operation and has none to queue.
    pub(crate) fn is_idle(&self) -> bool {
        unimplemented!()
    }

    /// Why no checkpoint can succeed any more, if so.
    pub(crate) fn failure(&self) -> Option<&DiskError> {
        unimplemented!()
    }
}

/// Top byte of every token that the store uses.
pub(crate) const TOKEN_OWNER: u8 = 0x53;
