//! What a host is asked and what it says.

use super::peer::{FillError, SlotDigest};
use holdfast_io::{Buf, DiskError};
use holdfast_types::{
    BLOCK_BYTES, Epoch, EpochSpan, HistoryId, Lsn, ReplicaId, SLOT_BLOCKS, SlotNo, VolumeId,
};
use holdfast_wire::{
    Ack, Promise, Record, Refusal, StreamSession,
    catchup::{Opened, SlotCopy},
};
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
    /// Size in blocks, until a record of the log says another; 0 where the log is to say it.
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

impl Credits {
    /// What a discard of `blocks` takes of [`Self::wal_bytes`]: a frame of its own
    /// in the log, and the memory that indexes each slot until it is applied.
    #[must_use]
    pub const fn discard_wal_bytes(blocks: u64) -> u64 {
        BLOCK_BYTES as u64 + NODE_BYTES * blocks.div_ceil(SLOT_BLOCKS as u64)
    }
}

/// Memory that an index node with its hash entry takes, rounded up.
const NODE_BYTES: u64 = 64;

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
    /// Answer to [`Host::fence`](super::Host::fence).
    Promised {
        /// The call.
        tag: Tag,
        /// The promise, on stable storage.
        result: Result<Promise, Refusal>,
    },
    /// Answer to [`Host::truncate`](super::Host::truncate).
    Truncated {
        /// The call.
        tag: Tag,
        /// The truncation is on stable storage.
        result: Result<(), Refusal>,
    },
    /// Answer to [`Host::read`](super::Host::read).
    Read {
        /// The call.
        tag: Tag,
        /// Exactly the blocks asked for.
        result: Result<ReadSegments, ReadError>,
    },
    /// Answer to [`Host::status`](super::Host::status).
    Status {
        /// The call.
        tag: Tag,
        /// Runs that together cover the range asked for, or the first of very many.
        result: Result<Extents, ReadError>,
    },
    /// Answer to [`Host::reserve`](super::Host::reserve).
    Reserved {
        /// The call.
        tag: Tag,
        /// Whether the range can be written; space for it is set aside until it is.
        granted: bool,
    },
    /// Answer to [`Host::create_volume`](super::Host::create_volume), [`Host::delete_volume`](super::Host::delete_volume),
    /// [`Host::set_floor`](super::Host::set_floor) and [`Host::reset`](super::Host::reset).
    VolumeChanged {
        /// The call.
        tag: Tag,
        /// On stable storage.
        result: Result<(), HostError>,
    },
    /// Answer to [`Host::source_open`](super::Host::source_open).
    SourceOpened {
        /// The call.
        tag: Tag,
        /// Where the source stands.
        result: Result<Opened, ReadError>,
    },
    /// Answer to [`Host::source_slots`](super::Host::source_slots).
    SourceSlots {
        /// The call.
        tag: Tag,
        /// Slots in address order; where to go on, unless that was all; and how far
        /// the source had applied: no slot is newer.
        result: Result<(Vec<SlotCopy>, Option<SlotNo>, Lsn), ReadError>,
    },
    /// Answer to [`Host::source_records`](super::Host::source_records).
    SourceRecords {
        /// The call.
        tag: Tag,
        /// Records in order, from the one asked for on; the epoch of the one before;
        /// and up to where all is known to be committed.
        result: Result<(Vec<Record>, Epoch, Lsn), ReadError>,
    },
    /// Answer to [`Host::fill`](super::Host::fill).
    Filled {
        /// The call.
        tag: Tag,
        /// All slots are here; durable with the next checkpoint. After an error
        /// some may be.
        result: Result<(), FillError>,
    },
    /// Answer to [`Host::fill_done`](super::Host::fill_done).
    FillDone {
        /// The call.
        tag: Tag,
        /// The log goes on above, on stable storage.
        result: Result<(), FillError>,
    },
    /// Answer to [`Host::settle_all`](super::Host::settle_all).
    SettledAll {
        /// The call.
        tag: Tag,
        /// All up to here is applied, and the log holds nothing above.
        result: Result<Lsn, Refusal>,
    },
    /// Answer to [`Host::digest`](super::Host::digest).
    Digest {
        /// The call.
        tag: Tag,
        /// The slots in address order.
        result: Result<Vec<SlotDigest>, ReadError>,
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
    /// What was there at the LSN asked for has been overwritten by what came after.
    #[error("the replica has applied all up to LSN {applied}, which is above what was asked for")]
    Overwritten {
        /// Applied, or being applied.
        applied: Lsn,
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
    /// Holds data of something else, which a format must not destroy.
    #[error("{0}; give an empty directory or a device whose first 8 KiB are zero")]
    Foreign(String),
    /// A layout that no disk can have.
    #[error("{0}")]
    Options(String),
    /// A later version wrote it.
    #[error(
        "on-disk format {found} is newer than {supported}, which this version understands; upgrade holdfast"
    )]
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
    /// The disk has as many as it can list.
    #[error("the disk holds as many replicas as it can; delete some or use another disk")]
    TooManyVolumes,
    /// It is not.
    #[error("no replica of volume {0} is on this disk")]
    NoVolume(VolumeId),
    /// The replica cannot start over yet.
    #[error(
        "no engine of epoch {epoch} has asked the replica of volume {volume} since its disk was opened"
    )]
    Unheard {
        /// The volume.
        volume: VolumeId,
        /// The epoch.
        epoch: Epoch,
    },
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
    /// All up to here is on stable storage.
    pub durable_lsn: Lsn,
    /// All up to here is known to be committed.
    pub commit_lsn: Lsn,
    /// All up to here is in the store.
    pub applied_lsn: Lsn,
    /// The store may hold slots as of up to here, fetched from a source; above
    /// `applied_lsn` while a catch-up is unfinished.
    pub fetched_lsn: Lsn,
    /// First LSN of each epoch.
    pub epochs: Vec<EpochSpan>,
    /// Its log is suspect: it may have lost what it acknowledged and promised.
    pub suspect: bool,
    /// It may answer fences. A suspect replica may not until it was told how high its lost
    /// promises can have been ([`Host::set_floor`](super::Host::set_floor)).
    pub floored: bool,
    /// The highest epoch that an engine was promised since the disk was opened; zero: none.
    pub heard: Epoch,
}
