//! The replica core of one disk: see the crate's documentation.
//!
//! The way of a record, file by file: `append` takes it into the log (`log`) and
//! the index (`index`) of its volume (`volume`), and puts it, described by a meta
//! (`meta`), into the WAL; durable, it is acknowledged. `read` and `status` look
//! into the index first and into the store's maps second. A round (`round`)
//! applies what is settled (`apply`), carries forward what is not (`carry`) and
//! checkpoints. `space` sets slots aside, `control` persists promises and the
//! like, `recover` builds all of it again from the disk.

mod append;
mod apply;
mod carry;
mod control;
mod index;
mod log;
mod meta;
mod read;
mod recover;
mod round;
mod slab;
mod space;
mod status;
mod volume;
mod waiters;

pub use meta::{Body, FreshSlots, META_VERSION, Meta, MetaError, MetaOp};

use self::{
    append::{Counts, FreshWrite, Outgoing, PayloadCache, Pending},
    carry::Carry,
    control::Control,
    index::Nodes,
    read::Reads,
    round::Round,
    slab::Slab,
    space::Space,
    status::StatusTask,
    volume::{VolIx, Volume},
    waiters::Waiting,
};
use crate::store::{self, Store, StoreEvent, StoreOptions};
use holdfast_io::{Buf, BufPool, Completion, Disk, DiskError, IoQueue, Token};
use holdfast_types::{BlockRange, DiskId, Epoch, EpochSpan, HistoryId, Lsn, ReplicaId, VolumeId};
use holdfast_wal::{EntryId, Placed, Wal};
use holdfast_wire::{Ack, Append, Fence, Promise, Record, Refusal, StreamSession, Truncate};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};

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

/// Top byte of the tokens of the host's own operations.
const TOKEN_OWNER: u8 = 0x48;

/// What an operation of the host is for; the token's second byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Read and piece.
    Read = 1,
    /// Fresh write.
    Fresh = 2,
    /// Slot task and run of blocks.
    ApplyRead = 3,
    /// Slot task.
    ApplyWrite = 4,
    /// Carried record.
    Carry = 5,
}

const NUMBER_BITS: u32 = 24;

fn token(kind: Kind, number: u32, part: u32) -> Token {
    assert!(number >> NUMBER_BITS == 0 && part >> NUMBER_BITS == 0, "{number}, {part}");
    let kind = u64::from(TOKEN_OWNER) << 56 | (kind as u64) << (2 * NUMBER_BITS);
    Token(kind | u64::from(number) << NUMBER_BITS | u64::from(part))
}

/// Everything of one shard on one disk.
pub struct Host {
    pool: BufPool,
    options: HostOptions,
    /// The limit in force: the option's, or what the ring allows.
    unapplied_max: u64,
    /// What the WAL takes when nothing in it is needed.
    ring_capacity: u64,
    wal: Wal,
    store: Store,
    /// The log is damaged and takes no entries.
    damaged: bool,
    volumes: Vec<Option<Volume>>,
    by_id: HashMap<VolumeId, VolIx>,
    nodes: Nodes,

    /// On the way into the WAL, and there but not durable yet.
    outbox: VecDeque<Outgoing>,
    pending: VecDeque<(EntryId, Pending)>,
    placed: Vec<Placed>,
    placed_upto: EntryId,
    /// Entries that are not copies, since the last round's cut.
    entries_since_cut: u64,
    /// The ring had no room for the outbox.
    blocked: bool,
    counts: Counts,
    cache: PayloadCache,
    fresh: Slab<FreshWrite>,

    reads: Reads,
    statuses: Slab<StatusTask>,
    space: Space,
    round: Round,
    carry: Carry,
    /// Controls that a checkpoint makes durable (damaged log).
    by_checkpoint: Vec<Control>,
    /// Deletions that are durable, of replicas that are still here.
    deletions: Vec<Control>,

    waiting: Vec<Waiting>,
    woken: Vec<Waiting>,
    acks_due: Vec<VolIx>,
    events: Vec<Event>,
    store_events: Vec<StoreEvent>,
    ops: IoQueue,
    spare_bufs: Vec<Vec<Buf>>,
    /// Counts calls that change something, for [`Self::tick`].
    activity: u64,
    failed: Option<DiskError>,
}

impl Host {
    /// Lays out an empty disk. Durable on return.
    pub fn format(disk: &mut dyn Disk, options: &FormatOptions) -> Result<DiskId, HostError> {
        let options = StoreOptions {
            segment_bytes: options.segment_bytes,
            segments: options.segments,
            capacity_bytes: options.capacity_bytes,
        };
        Ok(Store::format(disk, &options)?)
    }

    /// Opens a disk: reads superblock and WAL, indexes what is not applied, and
    /// is ready to serve before any of that is applied. Blocks.
    pub fn open(
        disk: &mut dyn Disk,
        pool: BufPool,
        options: HostOptions,
    ) -> Result<(Self, RecoveryReport), HostError> {
        Self::open_disk(disk, pool, options)
    }

    /// The disk's id.
    #[must_use]
    pub fn disk_id(&self) -> DiskId {
        self.store.disk_id()
    }

    /// State of every replica here.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeReport> {
        let shown = |volume: &&Volume| volume.created && !volume.closing;
        let volumes = self.volumes.iter().flatten().filter(shown);
        volumes.map(Volume::report).collect()
    }

    /// Creates an empty replica. Answered by [`Event::VolumeChanged`].
    pub fn create_volume(&mut self, tag: Tag, new: &NewVolume) {
        self.take_create(tag, new);
    }

    /// Deletes a replica and frees its space. Answered by [`Event::VolumeChanged`].
    pub fn delete_volume(&mut self, tag: Tag, volume: VolumeId) {
        self.take_delete(tag, volume);
    }

    /// Persists a promise. Answered by [`Event::Promised`].
    pub fn fence(&mut self, tag: Tag, fence: &Fence) {
        self.take_fence(tag, fence);
    }

    /// Drops records above a point. Answered by [`Event::Truncated`].
    pub fn truncate(&mut self, tag: Tag, truncate: &Truncate) {
        self.take_truncate(tag, truncate);
    }

    /// Logs records. Answered by [`Event::Ack`] as they become durable (one for
    /// many appends), or by [`Event::Refused`]. Gives the emptied list of records
    /// back, so that the engine can fill it again without allocating.
    ///
    /// # Panics
    /// If the engine overruns the credits by more than the limit itself.
    pub fn append(&mut self, append: Append) -> Vec<Record> {
        self.take_append(append)
    }

    /// Learns that all of `volume` up to `commit` is committed.
    pub fn advance_commit(&mut self, volume: VolumeId, commit: Lsn) {
        self.commit_to(volume, commit);
    }

    /// Reads the newest version of `range` at or below max(`at`, applied).
    /// Answered by [`Event::Read`].
    pub fn read(&mut self, tag: Tag, volume: VolumeId, epoch: Epoch, at: Lsn, range: BlockRange) {
        self.take_read(tag, volume, epoch, at, range);
    }

    /// What of `range` is allocated at `at`. Answered by [`Event::Status`].
    pub fn status(&mut self, tag: Tag, volume: VolumeId, epoch: Epoch, at: Lsn, range: BlockRange) {
        self.take_status(tag, volume, epoch, at, range);
    }

    /// Space that can be promised now.
    #[must_use]
    pub fn credits(&self) -> Credits {
        self.credits_now()
    }

    /// Asks for space to write `range` when [`Self::credits`] are short: looks at
    /// what is mapped and waits for what is about to be freed. Answered by
    /// [`Event::Reserved`].
    pub fn reserve(&mut self, tag: Tag, volume: VolumeId, range: BlockRange) {
        self.take_reserve(tag, volume, range);
    }

    /// Gives back what [`Self::reserve`] set aside, or will, for the call `tag`:
    /// the write was dropped before it got an LSN, in whole or from `range` on.
    /// A call that is still open is answered as not granted.
    pub fn unreserve(&mut self, tag: Tag, volume: VolumeId, range: BlockRange) {
        self.take_unreserve(tag, volume, range);
    }

    /// Takes an ended disk operation.
    pub fn complete(&mut self, completion: Completion) {
        match (completion.token.0 >> 56) as u8 {
            holdfast_wal::TOKEN_OWNER => {
                self.wal.complete(completion);
                if let Some(error) = self.wal.failure().cloned() {
                    self.fail(error);
                }
                self.durable_advanced();
            }
            store::TOKEN_OWNER => {
                self.store.complete(completion, &mut self.store_events);
                self.store_said();
            }
            TOKEN_OWNER => self.own_completion(completion),
            owner => unreachable!("a completion of owner {owner:#x}"),
        }
    }

    fn own_completion(&mut self, Completion { token, result }: Completion) {
        let mask = (1 << NUMBER_BITS) - 1;
        let number = (token.0 >> NUMBER_BITS & mask) as u32;
        let part = (token.0 & mask) as u32;
        match (token.0 >> (2 * NUMBER_BITS)) as u8 {
            1 => self.read_done(number, part, result),
            2 => self.fresh_written(number, result),
            3 => self.apply_read(number, part, result),
            4 => self.apply_written(number, result),
            5 => self.carry_read(number, result),
            kind => unreachable!("a token of kind {kind}"),
        }
    }

    /// The end of a turn: groups what was appended into frames and queues every
    /// disk operation that can start. May leave events to be drained.
    pub fn flush(&mut self, queue: &mut IoQueue) {
        self.empty_outbox();
        self.retry_reserves(false);
        self.turn_round();
        self.trim_cache();
        self.flush_wal(queue);
        self.store.flush(queue);
        for (token, op) in self.ops.drain() {
            queue.push(token, op);
        }
        self.compare_credits();
    }

    /// The events since the last call, in order.
    pub fn drain_events(&mut self, into: &mut Vec<Event>) {
        self.say_acks();
        into.append(&mut self.events);
    }

    /// Time passed: called a few times a second. After a quiet while the host
    /// applies and checkpoints what is left, whatever the thresholds say.
    pub fn tick(&mut self, now_ms: u64) {
        self.take_tick(now_ms);
    }

    /// Starts applying and checkpointing everything committed, for an orderly stop or a test.
    pub fn drain(&mut self) {
        self.round.draining = true;
    }

    /// Whether nothing is in flight, unapplied (but uncommitted) or unchecked-pointed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.nothing_left()
    }

    /// Why the disk has failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&DiskError> {
        self.failed.as_ref()
    }

    /// The replica of `volume`, unless there is none or it is being deleted.
    fn serving(&self, volume: VolumeId) -> Result<VolIx, Refusal> {
        let at = self.by_id.get(&volume).copied().ok_or(Refusal::Unknown)?;
        match self.volume(at) {
            Some(volume) if !volume.closing => Ok(at),
            _ => Err(Refusal::Unknown),
        }
    }

    fn volume(&self, at: VolIx) -> Option<&Volume> {
        self.volumes.get(at.0 as usize)?.as_ref()
    }

    fn add_volume(&mut self, volume: Volume) -> VolIx {
        let at = VolIx(self.volumes.len() as u32);
        self.by_id.insert(volume.id, at);
        self.volumes.push(Some(volume));
        at
    }

    /// The first failed write or sync is the last: nothing more is logged,
    /// applied or promised. Reads go on as far as the device lets them.
    fn fail(&mut self, error: DiskError) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(error.clone());
        self.events.push(Event::DiskFailed(error));
        let mut controls: Vec<Control> = std::mem::take(&mut self.by_checkpoint);
        controls.append(&mut self.deletions);
        for (_, pending) in self.pending.drain(..) {
            if let Pending::Control(control) = pending {
                controls.push(control);
            }
        }
        for outgoing in self.outbox.drain(..) {
            if let Outgoing::Control(control) = outgoing {
                controls.push(control);
            }
        }
        for control in controls {
            self.refuse_control(&control, control.tag, Refusal::DiskFailed);
        }
        for volume in self.volumes.iter().flatten().filter(|volume| !volume.closing) {
            if let Some(stream) = volume.log.stream()
                && volume.log.durable() < volume.log.last()
            {
                let (volume, session) = (volume.id, stream.session);
                let refusal = Refusal::DiskFailed;
                self.events.push(Event::Refused { volume, session, refusal });
            }
        }
        self.retry_reserves(false);
    }
}

#[cfg(test)]
mod tests;
