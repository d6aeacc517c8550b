//! A host on a test disk, with calls that wait for their answers.

use super::{
    super::{
        Event, Extents, FormatOptions, Host, HostOptions, NewVolume, ReadError, Tag, log::LogOp,
    },
    disk::TestDisk,
};
use crate::store::{FsckOptions, PhysSlot, fsck};
use holdfast_io::{Buf, BufPool, Disk, IoQueue, Op, Token};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, ReplicaId,
    VolumeId, block_crc,
};
use holdfast_wire::{
    Ack, Append, Fence, Promise, Record, RecordOp, Refusal, StreamSession, Truncate,
};
use std::collections::HashMap;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn history() -> HistoryId {
    HistoryId::from_u128(77)
}

pub(super) fn node() -> NodeId {
    NodeId::from_u128(1)
}

pub(super) fn options() -> HostOptions {
    HostOptions { unapplied_bytes_max: 4 * MIB, payload_cache_bytes: MIB, map_cache_bytes: MIB }
}

/// See the module's documentation.
pub(super) struct Rig {
    pub(super) disk: TestDisk,
    pub(super) host: Host,
    pub(super) events: Vec<Event>,
    pub(super) options: HostOptions,
    queue: IoQueue,
    next_tag: u64,
    /// The acknowledgement of each volume that came last.
    pub(super) acks: HashMap<VolumeId, Ack>,
}

pub(super) fn range(start: u64, count: u64) -> BlockRange {
    BlockRange::new(BlockNo::new(start), count)
}

/// Blocks that each say `value`, counted up.
pub(super) fn data(pool: &BufPool, value: u64, blocks: u64) -> Buf {
    let mut buf = pool.alloc(blocks as usize * BLOCK_BYTES);
    for (block, value) in buf.chunks_exact_mut(BLOCK_BYTES).zip(value..) {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
    buf.freeze()
}

/// What the blocks say; zero for blocks of zeroes.
pub(super) fn values(segments: &[Buf]) -> Vec<u64> {
    let blocks = segments.iter().flat_map(|segment| segment.chunks_exact(BLOCK_BYTES));
    let value = |block: &[u8]| {
        let (first, rest) = block.split_at(8);
        assert!(rest.chunks_exact(8).all(|word| word == first), "a torn block was served");
        u64::from_le_bytes(first.try_into().unwrap())
    };
    blocks.map(value).collect()
}

impl Rig {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, 64 * MIB, options())
    }

    pub(super) fn with(seed: u64, available: u64, options: HostOptions) -> Self {
        let mut disk = TestDisk::new(seed, available + 4 * MIB);
        let format = FormatOptions { segment_bytes: MIB as u32, segments: 4, capacity_bytes: None };
        Host::format(&mut disk, &format).unwrap();
        let (host, _) = Host::open(&mut disk, BufPool::new(0), options.clone()).unwrap();
        let (events, queue) = (Vec::new(), IoQueue::new());
        Self { disk, host, events, options, queue, next_tag: 1, acks: HashMap::new() }
    }

    pub(super) fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        Tag(self.next_tag)
    }

    /// One turn: what has ended, then what can start.
    pub(super) fn turn(&mut self) {
        let mut done = Vec::new();
        self.disk.poll(&mut done);
        for completion in done {
            self.host.complete(completion);
        }
        self.host.flush(&mut self.queue);
        self.disk.submit(&mut self.queue);
        self.host.drain_events(&mut self.events);
        for event in self.events.extract_if(.., |event| matches!(event, Event::Ack(_))) {
            if let Event::Ack(ack) = event {
                self.acks.insert(ack.volume, ack);
            }
        }
    }

    /// Turns until nothing is in flight.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            self.turn();
            if self.disk.in_flight() == 0 {
                return;
            }
        }
        panic!("never quiet");
    }

    /// Submits what waits, and takes the one read among it off the disk.
    pub(super) fn hold_read(&mut self) -> (Token, Op) {
        self.host.flush(&mut self.queue);
        let mut held = None;
        for (token, op) in self.queue.drain().collect::<Vec<_>>() {
            match op {
                Op::Read { .. } => assert!(held.replace((token, op)).is_none(), "one read"),
                op => self.queue.push(token, op),
            }
        }
        self.disk.submit(&mut self.queue);
        held.unwrap()
    }

    /// Turns until everything is applied and checkpointed, though a read is out.
    pub(super) fn drain_but_for_reads(&mut self) {
        self.host.drain();
        for _ in 0..100_000 {
            self.turn();
            if !self.host.has_work() && self.disk.in_flight() == 0 {
                return;
            }
        }
        panic!("never drained");
    }

    /// Has the disk do what was held.
    pub(super) fn end(&mut self, (token, op): (Token, Op)) {
        self.queue.push(token, op);
        self.disk.submit(&mut self.queue);
    }

    /// Applies and checkpoints all that can be.
    pub(super) fn drain(&mut self) {
        self.host.drain();
        for _ in 0..100_000 {
            self.turn();
            if self.host.is_drained() {
                return;
            }
        }
        panic!("never drained");
    }

    /// The first event that fits, taken out; turns until there is one.
    pub(super) fn wait<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        for _ in 0..100_000 {
            let found = self.events.iter().position(|event| pick(event).is_some());
            if let Some(at) = found {
                return pick(&self.events.remove(at)).unwrap();
            }
            self.turn();
        }
        panic!("no such event; {:?}", self.events);
    }

    pub(super) fn create(&mut self, volume: VolumeId, blocks: u64) {
        let tag = self.tag();
        let replica = ReplicaId::random();
        self.host.create_volume(tag, &NewVolume { volume, replica, history: history(), blocks });
        self.changed(tag).unwrap();
    }

    pub(super) fn changed(&mut self, tag: Tag) -> Result<(), String> {
        self.wait(|event| match event {
            Event::VolumeChanged { tag: t, result } if *t == tag => {
                Some(result.as_ref().copied().map_err(ToString::to_string))
            }
            _ => None,
        })
    }

    pub(super) fn fence(&mut self, volume: VolumeId, epoch: u64) -> Result<Promise, Refusal> {
        let tag = self.tag();
        let epoch = Epoch::new(epoch);
        self.host.fence(tag, &Fence { volume, history: history(), epoch, node: node() });
        self.wait(|event| match event {
            Event::Promised { tag: t, result } if *t == tag => Some(result.clone()),
            _ => None,
        })
    }

    fn replica(&self, volume: VolumeId) -> ReplicaId {
        self.host.volumes().iter().find(|report| report.volume == volume).unwrap().replica
    }

    /// What the node does first with a suspect replica.
    pub(super) fn floor(&mut self, volume: VolumeId, epoch: u64) {
        let (tag, replica) = (self.tag(), self.replica(volume));
        self.host.set_floor(tag, volume, replica, Epoch::new(epoch));
        self.changed(tag).unwrap();
    }

    /// Has a suspect replica start over.
    pub(super) fn reset(&mut self, volume: VolumeId, epoch: u64) -> Result<(), String> {
        let (tag, replica) = (self.tag(), self.replica(volume));
        self.host.reset(tag, volume, replica, Epoch::new(epoch));
        self.changed(tag)
    }

    pub(super) fn truncate(
        &mut self,
        volume: VolumeId,
        epoch: u64,
        last: u64,
    ) -> Result<(), Refusal> {
        let tag = self.tag();
        let (epoch, last) = (Epoch::new(epoch), Lsn::new(last));
        self.host.truncate(tag, &Truncate { volume, epoch, last });
        self.wait(|event| match event {
            Event::Truncated { tag: t, result } if *t == tag => Some(*result),
            _ => None,
        })
    }

    pub(super) fn read(
        &mut self,
        volume: VolumeId,
        epoch: u64,
        at: u64,
        range: BlockRange,
    ) -> Result<Vec<u64>, ReadError> {
        let tag = self.tag();
        self.host.read(tag, volume, Epoch::new(epoch), Lsn::new(at), range);
        self.wait(|event| match event {
            Event::Read { tag: t, result } if *t == tag => {
                Some(result.as_ref().map(|segments| values(segments)).map_err(Clone::clone))
            }
            _ => None,
        })
    }

    pub(super) fn status(
        &mut self,
        volume: VolumeId,
        epoch: u64,
        at: u64,
        range: BlockRange,
    ) -> Extents {
        let tag = self.tag();
        self.host.status(tag, volume, Epoch::new(epoch), Lsn::new(at), range);
        self.wait(|event| match event {
            Event::Status { tag: t, result } if *t == tag => Some(result.as_ref().unwrap().clone()),
            _ => None,
        })
    }

    pub(super) fn reserve(&mut self, volume: VolumeId, range: BlockRange) -> (Tag, bool) {
        let tag = self.tag();
        self.host.reserve(tag, volume, range);
        let granted = self.wait(|event| match event {
            Event::Reserved { tag: t, granted } if *t == tag => Some(*granted),
            _ => None,
        });
        (tag, granted)
    }

    /// Waits until `lsn` is acknowledged.
    pub(super) fn acked(&mut self, volume: VolumeId, lsn: u64) -> Ack {
        for _ in 0..100_000 {
            match self.acks.get(&volume) {
                Some(ack) if ack.durable_lsn >= Lsn::new(lsn) => return *ack,
                _ => self.turn(),
            }
        }
        panic!("no acknowledgement of {lsn}");
    }

    /// What is acknowledged by now.
    pub(super) fn acked_lsn(&self, volume: VolumeId) -> u64 {
        self.acks.get(&volume).map_or(0, |ack| ack.durable_lsn.get())
    }

    pub(super) fn refused(&mut self) -> Refusal {
        self.wait(|event| match event {
            Event::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        })
    }

    /// Loses everything that is in memory, and what the disk had not made durable;
    /// the store must be sound afterwards.
    pub(super) fn crash(&mut self) {
        self.disk.power_cut();
        self.reopen();
    }

    pub(super) fn reopen(&mut self) {
        self.events.clear();
        self.acks.clear();
        self.queue = IoQueue::new();
        let options = self.options.clone();
        let (host, report) = Host::open(&mut self.disk, BufPool::new(0), options).unwrap();
        assert!(!report.suspect, "{}", report.end);
        self.host = host;
        self.check_store();
    }

    /// As [`Self::reopen`], of a log that is damaged.
    pub(super) fn reopen_suspect(&mut self) {
        self.events.clear();
        self.acks.clear();
        self.queue = IoQueue::new();
        let options = self.options.clone();
        let (host, report) = Host::open(&mut self.disk, BufPool::new(0), options).unwrap();
        assert!(report.suspect, "{}", report.end);
        self.host = host;
        self.check_store();
    }

    /// As it is, without looking at the store; whether its replicas are suspect.
    pub(super) fn open_again(&mut self) -> bool {
        self.events.clear();
        self.acks.clear();
        self.queue = IoQueue::new();
        let options = self.options.clone();
        self.host = Host::open(&mut self.disk, BufPool::new(0), options).unwrap().0;
        self.host.volumes().iter().all(|volume| volume.suspect)
    }

    /// Every page and every block of the store is sound; but for blocks that committed
    /// records of the log cover, which a round may have begun to overwrite.
    fn check_store(&mut self) {
        let Host { volumes, by_id, nodes, .. } = &self.host;
        let covered = |id: VolumeId, block: BlockNo| {
            let Some(volume) = by_id.get(&id).and_then(|at| volumes[at.0 as usize].as_ref()) else {
                // Being removed: an apply may have been under way when it was deleted.
                return true;
            };
            let mut chain = volume.index.chain(nodes, block.slot());
            // A round applies what the log says is committed, and no more.
            chain.any(|(lsn, mask)| {
                lsn <= volume.log.settled() && mask & (1 << block.index_in_slot()) != 0
            })
        };
        let external: Vec<PhysSlot> = volumes
            .iter()
            .flatten()
            .flat_map(|volume| volume.log.records())
            .flat_map(|(_, record)| match &record.op {
                LogOp::Fresh { slots, .. } => slots.to_vec(),
                _ => Vec::new(),
            })
            .map(PhysSlot)
            .collect();
        let options = FsckOptions { deep: true, skip: &covered, external: &external };
        let report = fsck(&mut self.disk, &options).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

/// An engine of a set of one: numbers records and knows what is committed.
pub(super) struct Writer {
    pub(super) volume: VolumeId,
    pub(super) epoch: u64,
    pub(super) session: u64,
    pub(super) last: u64,
    pub(super) last_epoch: u64,
    pub(super) commit: u64,
}

impl Writer {
    pub(super) fn attach(rig: &mut Rig, volume: VolumeId, epoch: u64) -> Self {
        let promise = rig.fence(volume, epoch).unwrap();
        Self {
            volume,
            epoch,
            session: 1,
            last: promise.last_lsn.get(),
            last_epoch: promise.last_epoch.get(),
            commit: promise.applied_lsn.get(),
        }
    }

    pub(super) fn append(&mut self, rig: &mut Rig, ops: Vec<RecordOp>) -> u64 {
        let (prev_lsn, prev_epoch) = (Lsn::new(self.last), Epoch::new(self.last_epoch));
        let epoch = Epoch::new(self.epoch);
        let mut records = Vec::new();
        for op in ops {
            self.last += 1;
            self.last_epoch = self.epoch;
            records.push(Record { lsn: Lsn::new(self.last), epoch, op });
        }
        rig.host.append(Append {
            volume: self.volume,
            history: history(),
            epoch,
            generation: Generation::new(1),
            session: StreamSession(self.session),
            prev_epoch,
            prev_lsn,
            records,
            commit_lsn: Lsn::new(self.commit),
        });
        self.last
    }

    /// Writes blocks that say `value`, `value + 1` …
    pub(super) fn write(&mut self, rig: &mut Rig, start: u64, count: u64, value: u64) -> u64 {
        let op = write_op(&BufPool::new(0), start, count, value);
        self.append(rig, vec![op])
    }

    pub(super) fn discard(&mut self, rig: &mut Rig, start: u64, count: u64) -> u64 {
        self.append(rig, vec![RecordOp::Discard { range: range(start, count) }])
    }

    /// All that was appended is durable, and so committed; the replica is told.
    pub(super) fn commit_all(&mut self, rig: &mut Rig) {
        if self.last > 0 {
            self.append(rig, Vec::new());
            rig.acked(self.volume, self.last);
        }
        self.commit = self.last;
        rig.host.advance_commit(self.volume, Lsn::new(self.commit));
    }

    pub(super) fn read(&self, rig: &mut Rig, start: u64, count: u64) -> Vec<u64> {
        rig.read(self.volume, self.epoch, self.commit, range(start, count)).unwrap()
    }
}

pub(super) fn write_op(pool: &BufPool, start: u64, count: u64, value: u64) -> RecordOp {
    let data = data(pool, value, count);
    let crcs = data.chunks_exact(BLOCK_BYTES).map(block_crc).collect();
    RecordOp::Write { range: range(start, count), data, crcs }
}
