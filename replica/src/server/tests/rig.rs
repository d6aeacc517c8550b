//! One node: a host on a disk in memory, and the server before it. Its peers are the
//! test itself, which sends messages and sees exactly what comes of them.

use super::disk::MemDisk;
use crate::host::{Event, FormatOptions, Host, HostOptions, NewVolume, Tag};
use crate::server::{ConnId, Output, Server};
use holdfast_io::{Buf, BufPool, Disk, IoQueue};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, ReplicaId,
    VolumeId, block_crc,
};
use holdfast_wire::{
    Append, Fence, FromReplica, Promise, Record, RecordOp, StreamSession, ToReplica,
};

const MIB: u64 = 1 << 20;
pub(crate) const LEASE_MS: u64 = 1000;
pub(crate) const VOLUME: VolumeId = VolumeId::from_u128(1);
pub(crate) const HISTORY: HistoryId = HistoryId::from_u128(77);
/// The volume's size.
pub(crate) const BLOCKS: u64 = 4096;
/// The node itself, and two with engines.
pub(crate) const HERE: NodeId = NodeId::from_u128(100);
pub(crate) const A: NodeId = NodeId::from_u128(101);
pub(crate) const B: NodeId = NodeId::from_u128(102);

pub(crate) fn replica(volume: VolumeId) -> ReplicaId {
    ReplicaId::from_u128(1000 + u128::from(volume.to_bytes()[15]))
}

pub(crate) fn range(start: u64, count: u64) -> BlockRange {
    BlockRange::new(BlockNo::new(start), count)
}

pub(crate) fn fence(epoch: u64, node: NodeId) -> Fence {
    Fence { volume: VOLUME, history: HISTORY, epoch: Epoch::new(epoch), node }
}

/// A write of blocks that each say `value`.
pub(crate) fn write(start: u64, count: u64, value: u8) -> RecordOp {
    let mut buf = BufPool::new(0).alloc(count as usize * BLOCK_BYTES);
    buf.fill(value);
    let data: Buf = buf.freeze();
    let crcs = data.chunks_exact(BLOCK_BYTES).map(block_crc).collect();
    RecordOp::Write { range: range(start, count), data, crcs }
}

/// See the module's documentation.
pub(crate) struct Rig {
    pub(crate) disk: MemDisk,
    pub(crate) host: Host,
    pub(crate) server: Server,
    pub(crate) now_ms: u64,
    queue: IoQueue,
    /// What the server did not take.
    pub(crate) others: Vec<Event>,
    next_tag: u64,
}

impl Rig {
    /// With one blank replica.
    pub(crate) fn new() -> Self {
        Self::sized(64, 2)
    }

    /// With one blank replica on a disk of this size, of which so much may be unapplied.
    pub(crate) fn sized(disk_mib: u64, unapplied_mib: u64) -> Self {
        let mut disk = MemDisk::new(disk_mib * MIB);
        let segments = 4 * unapplied_mib as u32;
        let format = FormatOptions { segment_bytes: MIB as u32, segments, capacity_bytes: None };
        Host::format(&mut disk, &format).unwrap();
        let mut rig = Self::open(disk, 10_000, unapplied_mib);
        rig.create(VOLUME);
        rig
    }

    fn open(mut disk: MemDisk, now_ms: u64, unapplied_mib: u64) -> Self {
        let options = HostOptions {
            unapplied_bytes_max: unapplied_mib * MIB,
            payload_cache_bytes: MIB,
            map_cache_bytes: MIB,
        };
        let (host, _) = Host::open(&mut disk, BufPool::new(0), options).unwrap();
        let mut server = Server::new(HERE, LEASE_MS, now_ms);
        server.adopt(&host, now_ms);
        let (queue, others) = (IoQueue::new(), Vec::new());
        Self { disk, host, server, now_ms, queue, others, next_tag: 0 }
    }

    /// The process dies and starts again.
    pub(crate) fn restart(self) -> Self {
        Self::open(self.disk, self.now_ms, 2)
    }

    pub(crate) fn create(&mut self, volume: VolumeId) {
        let new = NewVolume { volume, replica: replica(volume), history: HISTORY, blocks: BLOCKS };
        let tag = self.tag();
        self.host.create_volume(tag, &new);
        self.settle();
        let done = self.others.pop();
        assert!(matches!(done, Some(Event::VolumeChanged { result: Ok(()), .. })), "{done:?}");
    }

    /// A tag of the driver's.
    pub(crate) fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        Tag(self.next_tag)
    }

    /// Turns until nothing is in flight.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.host.flush(&mut self.queue);
            let mut moved = !self.queue.is_empty();
            self.disk.submit(&mut self.queue);
            let mut done = Vec::new();
            self.disk.poll(&mut done);
            for completion in done {
                self.host.complete(completion);
            }
            let mut events = Vec::new();
            self.host.drain_events(&mut events);
            moved |= !events.is_empty();
            for event in events {
                let other = self.server.event(event, &mut self.host, self.now_ms);
                self.others.extend(other.filter(|other| !matches!(other, Event::CreditsGrew)));
            }
            if !moved && self.disk.in_flight() == 0 {
                return;
            }
        }
        panic!("never quiet");
    }

    /// What the server wants done since the last call, after the host has done its part.
    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        self.settle();
        self.outputs_now()
    }

    pub(crate) fn outputs_now(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.server.take(&mut out);
        out
    }

    /// As [`Self::outputs`], but for credits.
    pub(crate) fn says(&mut self) -> Vec<Output> {
        let mut out = self.outputs();
        out.retain(|out| !matches!(out, Output::Send(_, FromReplica::Credits { .. })));
        out
    }

    pub(crate) fn connect(&mut self, conn: u64, from: NodeId) {
        self.server.open_stream(ConnId(conn), VOLUME, replica(VOLUME), from, &self.host).unwrap();
    }

    pub(crate) fn send(&mut self, conn: u64, message: ToReplica) {
        self.server.message(ConnId(conn), message, &mut self.host, self.now_ms);
    }

    pub(crate) fn close(&mut self, conn: u64) {
        self.server.close(ConnId(conn), &mut self.host, self.now_ms);
    }

    /// Asks for a promise on a stream, on a session, and gets it.
    pub(crate) fn promise(&mut self, conn: u64, epoch: u64, session: u64, node: NodeId) -> Promise {
        self.send(conn, ToReplica::Fence(fence(epoch, node), StreamSession(session)));
        let mut said = self.says();
        said.retain(|out| matches!(out, Output::Send(..)));
        said.retain(|out| !matches!(out, Output::Send(_, FromReplica::Refused(..))));
        match said.as_slice() {
            [Output::Send(ConnId(to), FromReplica::Promised(Ok(promise)))] if *to == conn => {
                promise.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    /// A stream that is open, with its promise.
    pub(crate) fn attach(&mut self, conn: u64, epoch: u64, node: NodeId) -> Engine {
        self.connect(conn, node);
        let promise = self.promise(conn, epoch, 1, node);
        Engine {
            conn,
            epoch,
            session: 1,
            last: promise.last_lsn.get(),
            last_epoch: promise.last_epoch.get(),
        }
    }

    /// What the replica reads, at the latest.
    pub(crate) fn contents(&mut self, range: BlockRange) -> Vec<u8> {
        let report = self.host.volume_report(VOLUME).unwrap();
        let (tag, at) = (self.tag(), report.commit_lsn);
        self.host.read(tag, VOLUME, report.promised, at, range);
        self.settle();
        match self.others.pop() {
            Some(Event::Read { result: Ok(segments), .. }) => {
                let blocks = segments.iter().flat_map(|buf| buf.chunks_exact(BLOCK_BYTES));
                let value = |block: &[u8]| {
                    assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
                    block[0]
                };
                blocks.map(value).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An engine elsewhere, as far as it numbers records.
#[derive(Clone, Copy)]
pub(crate) struct Engine {
    pub(crate) conn: u64,
    pub(crate) epoch: u64,
    pub(crate) session: u64,
    pub(crate) last: u64,
    pub(crate) last_epoch: u64,
}

impl Engine {
    /// The next records, all of what was before being committed.
    pub(crate) fn append(&mut self, ops: Vec<RecordOp>) -> Append {
        let (prev_lsn, prev_epoch) = (Lsn::new(self.last), Epoch::new(self.last_epoch));
        let epoch = Epoch::new(self.epoch);
        let mut records = Vec::new();
        for op in ops {
            self.last += 1;
            self.last_epoch = self.epoch;
            records.push(Record { lsn: Lsn::new(self.last), epoch, op });
        }
        Append {
            volume: VOLUME,
            history: HISTORY,
            epoch,
            generation: Generation::new(3),
            session: StreamSession(self.session),
            prev_epoch,
            prev_lsn,
            records,
            commit_lsn: prev_lsn,
        }
    }

    pub(crate) fn send(&mut self, rig: &mut Rig, ops: Vec<RecordOp>) {
        let append = self.append(ops);
        rig.send(self.conn, ToReplica::Append(append));
    }

    /// Sends records, and says that they are committed when they are durable.
    pub(crate) fn commit(&mut self, rig: &mut Rig, ops: Vec<RecordOp>) {
        self.send(rig, ops);
        let said = rig.says();
        let acked = |out: &Output| matches!(out, Output::Send(_, FromReplica::Ack(ack)) if ack.durable_lsn.get() == self.last);
        assert!(said.iter().any(acked), "{said:?}");
        rig.send(self.conn, ToReplica::Commit(Lsn::new(self.last)));
    }
}
