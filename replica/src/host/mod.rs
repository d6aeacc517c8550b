//! The replica core of one disk: see the crate's documentation.
//!
//! The way of a record, file by file: `append` takes it into the log (`log`) and
//! the index (`index`) of its volume (`volume`), and puts it, described by a meta
//! (`meta`), into the WAL; durable, it is acknowledged. `read` and `status` look
//! into the index first and into the store's maps second. A round (`round`)
//! applies what is settled (`apply`), carries forward what is not (`carry`) and
//! checkpoints. `space` sets slots aside, `control` persists promises and the
//! like, `recover` builds all of it again from the disk.

mod admit;
mod api;
mod append;
mod apply;
mod cache;
mod carry;
mod control;
mod copy;
mod digest;
mod fill;
mod index;
mod jump;
mod log;
mod meta;
mod note;
mod peer;
mod read;
mod recover;
mod rejoin;
mod round;
mod slab;
mod source;
mod space;
mod status;
mod volume;
mod waiters;

pub use api::{
    Credits, Event, Extents, FormatOptions, HostError, HostOptions, NewVolume, ReadError,
    ReadSegments, RecoveryReport, Tag, VolumeReport,
};
pub use meta::{Body, FreshSlots, META_VERSION, Meta, MetaError, MetaOp};
pub use peer::{DIGEST_SLOTS_MAX, FillError, HOLD_MS_MAX, SlotDigest};

use self::{
    append::{FreshWrite, Outgoing, Pending},
    cache::{Counts, PayloadCache},
    carry::Carry,
    control::Control,
    copy::Copies,
    fill::Fills,
    index::Nodes,
    read::Reads,
    rejoin::Reset,
    round::Round,
    slab::Slab,
    space::Space,
    status::StatusTask,
    volume::{VolIx, Volume},
    waiters::Waiting,
};
use crate::store::{self, Store, StoreEvent, StoreOptions};
use holdfast_io::{Buf, BufPool, Completion, Disk, DiskError, IoQueue, Token};
use holdfast_types::{BlockRange, DiskId, Epoch, Lsn, ReplicaId, VolumeId};
use holdfast_wal::{EntryId, Placed, Wal};
use holdfast_wire::{Append, Fence, Record, Refusal, Truncate};
use std::collections::{HashMap, VecDeque};

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
    /// Copy task and run of blocks.
    Copy = 6,
    /// Fill task.
    Fill = 7,
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
    /// Suspect replicas that are to start over.
    resets: Vec<Reset>,
    /// Deletions that are durable, of replicas that are still here.
    deletions: Vec<Control>,

    waiting: Vec<Waiting>,
    woken: Vec<Waiting>,
    acks_due: Vec<VolIx>,
    events: Vec<Event>,
    store_events: Vec<StoreEvent>,
    ops: IoQueue,
    spare_bufs: Vec<Vec<Buf>>,
    /// What is read for other replicas and for comparisons.
    copies: Copies,
    /// What was fetched from another replica.
    fills: Fills,
    /// Calls that wait until all that a log holds is applied.
    settling: Vec<(Tag, VolIx)>,
    /// The time that was told last.
    now_ms: u64,
    /// Counts calls that change something, for [`Self::tick`].
    activity: u64,
    failed: Option<DiskError>,
}

impl Host {
    /// Lays out an empty disk. Durable on return.
    pub fn format(disk: &mut dyn Disk, options: &FormatOptions) -> Result<DiskId, HostError> {
        // With less, a ring's headroom leaves no room for the largest record.
        if options.segment_bytes == 0 || !options.segment_bytes.is_multiple_of(1 << 20) {
            let found = options.segment_bytes;
            return Err(HostError::Options(format!(
                "a log segment has {found} bytes; give a multiple of 1 MiB"
            )));
        }
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

    /// State of the replica of `volume`, if it is here.
    #[must_use]
    pub fn volume_report(&self, volume: VolumeId) -> Option<VolumeReport> {
        let volume = self.volume(self.serving(volume).ok()?)?;
        volume.created.then(|| volume.report())
    }

    /// Creates an empty replica. Answered by [`Event::VolumeChanged`].
    pub fn create_volume(&mut self, tag: Tag, new: &NewVolume) {
        self.take_create(tag, new);
    }

    /// Deletes a replica and frees its space. Answered by [`Event::VolumeChanged`].
    pub fn delete_volume(&mut self, tag: Tag, volume: VolumeId) {
        self.take_delete(tag, volume);
    }

    /// Tells a suspect replica how high the promises can have been that it may have
    /// lost: the epoch that the metadata group has granted, read in a way that cannot be old.
    /// Until then it answers no fence. Durable when [`Event::VolumeChanged`] answers it.
    pub fn set_floor(&mut self, tag: Tag, volume: VolumeId, replica: ReplicaId, epoch: Epoch) {
        self.take_floor(tag, volume, replica, epoch);
    }

    /// Has a suspect replica start over, as one that lags: what is applied stays, the
    /// log above is dropped, and it may be trusted again. Only for a replica that counts for
    /// no quorum, by the metadata group's word under `epoch`, whose engine has asked for its
    /// promise since the disk was opened (see `rejoin` for why). Nothing happens to one
    /// that is not suspect. Durable when [`Event::VolumeChanged`] answers it.
    pub fn reset(&mut self, tag: Tag, volume: VolumeId, replica: ReplicaId, epoch: Epoch) {
        self.take_reset(tag, volume, replica, epoch);
    }

    /// As [`Self::reset`], of a replica of a volume that is deleted, so that it can be deleted too:
    /// nobody counts on what it says, and no engine will ask it. Answered in the same way.
    pub fn abandon(&mut self, tag: Tag, volume: VolumeId, replica: ReplicaId) {
        self.take_abandon(tag, volume, replica);
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

    /// Gives back all that [`Self::reserve`] has granted for `volume` and no write has
    /// used: the engine that asked is gone. Calls that are open stay so.
    pub fn unreserve_all(&mut self, volume: VolumeId) {
        if let Ok(at) = self.serving(volume) {
            self.drop_grants(at);
        }
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
            6 => self.copy_read(number, part, result),
            7 => self.fill_written(number, result),
            kind => unreachable!("a token of kind {kind}"),
        }
    }

    /// The end of a turn: groups what was appended into frames and queues every
    /// disk operation that can start. May leave events to be drained.
    pub fn flush(&mut self, queue: &mut IoQueue) {
        self.empty_outbox();
        self.retry_reserves(false);
        self.turn_fills(false);
        self.turn_round();
        self.turn_applied();
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
        // A checkpoint that runs must not sync what the failed write or flush may
        // have dropped, and then name it as applied.
        self.store.stop(&error);
        self.events.push(Event::DiskFailed(error.clone()));
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
        for reset in self.resets.drain(..) {
            let result = Err(error.clone().into());
            self.events.push(Event::VolumeChanged { tag: reset.tag, result });
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
