//! The replica core of one disk: see the crate's documentation.

use holdfast_io::{Buf, BufPool, Completion, Disk, DiskError, IoQueue};
use holdfast_types::{
    BlockRange, DiskId, Epoch, EpochSpan, HistoryId, Lsn, ReplicaId, VolumeId,
};
use holdfast_wire::{Ack, Append, Fence, Promise, Record, Refusal, StreamSession, Truncate};
use smallvec::SmallVec;

/// The caller's number for a call that is answered by an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// Data read, whole blocks in address order.
pub type ReadSegments = SmallVec<[Buf; 2]>;

/// Allocation state in address order: blocks, and whether they hold data.
pub type Extents = Vec<(u64, bool)>;

/// How a disk is laid out; fixed when it is formatted.
#[derive(Clone, Debug)]
pub struct FormatOptions {
    /// Bytes of a WAL segment; a multiple of 1 MiB.
    pub segment_bytes: u32,
    /// Segments in the WAL's ring; at least 4.
    pub segments: u32,
    /// Bytes that slots may take at most; `None`: all that the root has. A
    /// directory's data file grows towards it, a device has it from the start.
    pub capacity_bytes: Option<u64>,
}

/// How a disk is run.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Logged and not yet applied, in bytes of WAL, before appends wait (default 256 MiB).
    pub unapplied_bytes_max: u64,
    /// Payload of unapplied records kept in memory; above it they are read back from the WAL.
    pub payload_cache_bytes: u64,
    /// Map pages kept in memory, dirty ones included.
    pub map_cache_bytes: u64,
}

/// A replica to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// The volume.
    pub volume: VolumeId,
    /// This copy.
    pub replica: ReplicaId,
    /// The volume's history.
    pub history: HistoryId,
    /// Size in blocks.
    pub blocks: u64,
}

/// Space that the disk can promise without looking further. A write costs a
/// slot for each slot that it touches, and its WAL bytes; what turns out to be
/// mapped already is given back when the record is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credits {
    /// Slots.
    pub slots: u64,
    /// Payload bytes that the WAL takes now.
    pub wal_bytes: u64,
}

/// What the host has to say.
#[derive(Debug)]
pub enum Event {
    /// Records are on stable storage.
    Ack(Ack),
    /// An append was refused; nothing of it was logged.
    Refused {
        /// The volume.
        volume: VolumeId,
        /// The append's stream.
        session: StreamSession,
        /// Why.
        refusal: Refusal,
    },
    /// Answer to [`Host::fence`].
    Promised {
        /// The call.
        tag: Tag,
        /// The promise, on stable storage.
        result: Result<Promise, Refusal>,
    },
    /// Answer to [`Host::truncate`].
    Truncated {
        /// The call.
        tag: Tag,
        /// The truncation is on stable storage.
        result: Result<(), Refusal>,
    },
    /// Answer to [`Host::read`].
    Read {
        /// The call.
        tag: Tag,
        /// Exactly the blocks asked for.
        result: Result<ReadSegments, ReadError>,
    },
    /// Answer to [`Host::status`].
    Status {
        /// The call.
        tag: Tag,
        /// Runs that together cover the range asked for.
        result: Result<Extents, ReadError>,
    },
    /// Answer to [`Host::reserve`].
    Reserved {
        /// The call.
        tag: Tag,
        /// Whether the range can be written; space for it is set aside until it is.
        granted: bool,
    },
    /// Answer to [`Host::create_volume`] and [`Host::delete_volume`].
    VolumeChanged {
        /// The call.
        tag: Tag,
        /// On stable storage.
        result: Result<(), HostError>,
    },
    /// Credits grew after having been short.
    CreditsGrew,
    /// The disk failed; nothing more is logged. Said once.
    DiskFailed(DiskError),
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The replica does not answer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A block does not match its checksum, also when read again.
    #[error("block {block} does not match its checksum")]
    Corrupt {
        /// Which.
        block: u64,
    },
    /// The device failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a disk cannot be formatted, opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not formatted, or not by Holdfast.
    #[error("no Holdfast superblock here; format the disk, or check the path")]
    NotFormatted,
    /// Formatted already.
    #[error("the disk already holds a Holdfast store; give an empty one")]
    AlreadyFormatted,
    /// A later version wrote it.
    #[error("on-disk format {found} is newer than {supported}, which this version understands; upgrade holdfast")]
    NewerFormat {
        /// On disk.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Both superblocks are damaged, or what they point to is.
    #[error("the store is damaged: {0}; restore it from another replica")]
    Damaged(String),
    /// Too small for the layout asked for.
    #[error("the disk has {available} bytes; at least {needed} are needed")]
    TooSmall {
        /// Bytes there.
        available: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The volume is there already.
    #[error("a replica of volume {0} is on this disk already")]
    VolumeExists(VolumeId),
    /// It is not.
    #[error("no replica of volume {0} is on this disk")]
    NoVolume(VolumeId),
    /// A device operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Opening a file failed.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What opening a disk found.
#[derive(Clone, Debug)]
pub struct RecoveryReport {
    /// Records found in the WAL and indexed.
    pub records: u64,
    /// Bytes of WAL read.
    pub wal_bytes: u64,
    /// Why the log ended where it did, in words.
    pub end: String,
    /// The log may have lost what it acknowledged: the disk's replicas do not vote.
    pub suspect: bool,
}

/// A replica's state, for status and tools.
#[derive(Clone, Debug)]
pub struct VolumeReport {
    /// The volume.
    pub volume: VolumeId,
    /// This copy.
    pub replica: ReplicaId,
    /// The volume's history.
    pub history: HistoryId,
    /// Size in blocks.
    pub blocks: u64,
    /// Highest epoch promised.
    pub promised: Epoch,
    /// Last record held.
    pub last_lsn: Lsn,
    /// All up to here is known to be committed.
    pub commit_lsn: Lsn,
    /// All up to here is in the store.
    pub applied_lsn: Lsn,
    /// First LSN of each epoch.
    pub epochs: Vec<EpochSpan>,
    /// Its log is suspect.
    pub suspect: bool,
}

/// Everything of one shard on one disk.
pub struct Host {}

#[allow(unused_variables, clippy::unimplemented)]
impl Host {
    /// Lays out an empty disk. Durable on return.
    pub fn format(disk: &mut dyn Disk, options: &FormatOptions) -> Result<DiskId, HostError> {
        unimplemented!()
    }

    /// Opens a disk: reads superblock and WAL, indexes what is not applied, and
    /// is ready to serve before any of that is applied. Blocks.
    pub fn open(
        disk: &mut dyn Disk,
        pool: BufPool,
        options: HostOptions,
    ) -> Result<(Self, RecoveryReport), HostError> {
        unimplemented!()
    }

    /// The disk's id.
    #[must_use]
    pub fn disk_id(&self) -> DiskId {
        unimplemented!()
    }

    /// State of every replica here.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeReport> {
        unimplemented!()
    }

    /// Creates an empty replica. Answered by [`Event::VolumeChanged`].
    pub fn create_volume(&mut self, tag: Tag, new: &NewVolume) {
        unimplemented!()
    }

    /// Deletes a replica and frees its space. Answered by [`Event::VolumeChanged`].
    pub fn delete_volume(&mut self, tag: Tag, volume: VolumeId) {
        unimplemented!()
    }

    /// Persists a promise. Answered by [`Event::Promised`].
    pub fn fence(&mut self, tag: Tag, fence: &Fence) {
        unimplemented!()
    }

    /// Drops records above a point. Answered by [`Event::Truncated`].
    pub fn truncate(&mut self, tag: Tag, truncate: &Truncate) {
        unimplemented!()
    }

    /// Logs records. Answered by [`Event::Ack`] as they become durable (one for
    /// many appends), or by [`Event::Refused`]. Gives the emptied list of records
    /// back, so that the engine can fill it again without allocating.
    pub fn append(&mut self, append: Append) -> Vec<Record> {
        unimplemented!()
    }

    /// Learns that all of `volume` up to `commit` is committed.
    pub fn advance_commit(&mut self, volume: VolumeId, commit: Lsn) {
        unimplemented!()
    }

    /// Reads the newest version of `range` at or below max(`at`, applied).
    /// Answered by [`Event::Read`].
    pub fn read(&mut self, tag: Tag, volume: VolumeId, epoch: Epoch, at: Lsn, range: BlockRange) {
        unimplemented!()
    }

    /// What of `range` is allocated at `at`. Answered by [`Event::Status`].
    pub fn status(&mut self, tag: Tag, volume: VolumeId, epoch: Epoch, at: Lsn, range: BlockRange) {
        unimplemented!()
    }

    /// Space that can be promised now.
    #[must_use]
    pub fn credits(&self) -> Credits {
        unimplemented!()
    }

    /// Asks for space to write `range` when [`Self::credits`] are short: looks at
    /// what is mapped and waits for what is about to be freed. Answered by
    /// [`Event::Reserved`].
    pub fn reserve(&mut self, tag: Tag, volume: VolumeId, range: BlockRange) {
        unimplemented!()
    }

    /// Gives back what [`Self::reserve`] set aside, or will, for the call `tag`:
    /// the write was dropped before it got an LSN, in whole or from `range` on.
    pub fn unreserve(&mut self, tag: Tag, volume: VolumeId, range: BlockRange) {
        unimplemented!()
    }

    /// Takes an ended disk operation.
    pub fn complete(&mut self, completion: Completion) {
        unimplemented!()
    }

    /// The end of a turn: groups what was appended into frames and queues every
    /// disk operation that can start.
    pub fn flush(&mut self, queue: &mut IoQueue) {
        unimplemented!()
    }

    /// The events since the last call, in order.
    pub fn drain_events(&mut self, into: &mut Vec<Event>) {
        unimplemented!()
    }

    /// Time passed: called a few times a second. After a quiet while the host
    /// applies and checkpoints what is left, whatever the thresholds say.
    pub fn tick(&mut self, now_ms: u64) {
        unimplemented!()
    }

    /// Starts applying and checkpointing everything committed, for an orderly stop or a test.
    pub fn drain(&mut self) {
        unimplemented!()
    }

    /// Whether nothing is in flight, unapplied (but uncommitted) or unchecked-pointed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        unimplemented!()
    }

    /// Why the disk has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&DiskError> {
        unimplemented!()
    }
}
