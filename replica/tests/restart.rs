//! A restart with a log as full as it may get: what it reads, that it serves
//! before anything is applied, and how long that took (printed, and judged only
//! against a bound that a slow machine keeps).
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use holdfast_io::{BackendChoice, BufPool, Disk, IoQueue, open_disk};
use holdfast_replica::{Event, FormatOptions, Host, HostOptions, NewVolume, Tag};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, ReplicaId,
    VolumeId, block_crc,
};
use holdfast_wire::{Append, Fence, Record, RecordOp, StreamSession};
use std::{path::Path, time::Instant};

const MIB: u64 = 1 << 20;
const VOLUME: VolumeId = VolumeId::from_u128(1);
const HISTORY: HistoryId = HistoryId::from_u128(2);
const LIMIT_BYTES: u64 = 256 * MIB;
/// Generous: the figure itself is printed.
const OPEN_MAX_SECONDS: f64 = 30.0;

struct Node {
    disk: Box<dyn Disk>,
    host: Host,
    pool: BufPool,
    queue: IoQueue,
    events: Vec<Event>,
}

impl Node {
    fn open(root: &Path, format: bool) -> (Self, String, u64, f64) {
        let pool = BufPool::new(64 << 20);
        let mut disk = open_disk(root, BackendChoice::Auto, std::slice::from_ref(&pool)).unwrap();
        if format {
            let options =
                FormatOptions { segment_bytes: 64 << 20, segments: 16, capacity_bytes: None };
            Host::format(&mut *disk, &options).unwrap();
        }
        let options = HostOptions {
            unapplied_bytes_max: LIMIT_BYTES,
            payload_cache_bytes: 16 * MIB,
            map_cache_bytes: 16 * MIB,
        };
        let start = Instant::now();
        let (host, report) = Host::open(&mut *disk, pool.clone(), options).unwrap();
        let took = start.elapsed().as_secs_f64();
        let node = Self { disk, host, pool, queue: IoQueue::new(), events: Vec::new() };
        (node, report.end, report.wal_bytes, took)
    }

    fn turn(&mut self) {
        let mut done = Vec::new();
        self.disk.wait(&mut done);
        done.into_iter().for_each(|completion| self.host.complete(completion));
        self.host.flush(&mut self.queue);
        self.disk.submit(&mut self.queue);
        self.host.drain_events(&mut self.events);
    }

    fn until<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.events.iter().find_map(&pick) {
                self.events.clear();
                return found;
            }
            self.events.clear();
            self.turn();
        }
    }

    fn append(&mut self, epoch: Epoch, prev_epoch: Epoch, prev: u64, records: Vec<Record>) {
        self.host.append(Append {
            volume: VOLUME,
            history: HISTORY,
            epoch,
            generation: Generation::new(1),
            session: StreamSession(epoch.get()),
            prev_epoch,
            prev_lsn: Lsn::new(prev),
            records,
            commit_lsn: Lsn::ZERO,
        });
    }

    fn fence(&mut self, epoch: u64) {
        let (epoch_asked, node) = (Epoch::new(epoch), NodeId::from_u128(1));
        let fence = Fence { volume: VOLUME, history: HISTORY, epoch: epoch_asked, node };
        self.host.fence(Tag(1), &fence);
        self.until(|event| match event {
            Event::Promised { result, .. } => Some(result.clone().unwrap()),
            _ => None,
        });
    }
}

/// What record `lsn` stores in its blocks.
fn fill(lsn: u64) -> u8 {
    (lsn % 251) as u8
}

/// Logs records of `blocks` blocks each, none committed, until the log takes no
/// more; drops everything where it is; opens again and reads the newest of all.
fn restart_with_full_log(blocks: u64) {
    let root = tempfile::tempdir().unwrap();
    let (mut node, ..) = Node::open(root.path(), true);
    let new = NewVolume {
        volume: VOLUME,
        replica: ReplicaId::random(),
        history: HISTORY,
        blocks: 1 << 20,
    };
    node.host.create_volume(Tag(0), &new);
    node.until(|event| matches!(event, Event::VolumeChanged { .. }).then_some(()));
    node.fence(1);
    let place = |lsn: u64| BlockRange::new(BlockNo::new(lsn * 7919 % ((1 << 20) - 16)), blocks);
    let mut last = 0;
    while node.host.credits().wal_bytes >= blocks * BLOCK_BYTES as u64 {
        let lsn = last + 1;
        if node.host.credits().slots < 2 {
            // The disk has to grow first, as an engine would have it.
            node.host.reserve(Tag(2), VOLUME, place(lsn));
            let granted = node.until(|event| match event {
                Event::Reserved { granted, .. } => Some(*granted),
                _ => None,
            });
            assert!(granted, "record {lsn}");
        }
        let op = if lsn == 1 {
            RecordOp::EpochStart
        } else {
            let range = place(lsn);
            let mut data = node.pool.alloc(range.bytes() as usize);
            data.fill(fill(lsn));
            let crc = block_crc(&data[..BLOCK_BYTES]);
            RecordOp::Write { range, data: data.freeze(), crcs: (0..blocks).map(|_| crc).collect() }
        };
        let epoch = Epoch::new(1);
        let prev_epoch = if last == 0 { Epoch::ZERO } else { epoch };
        node.append(epoch, prev_epoch, last, vec![Record { lsn: Lsn::new(lsn), epoch, op }]);
        last = lsn;
        if lsn.is_multiple_of(32) {
            node.turn();
        }
    }
    let all = Lsn::new(last);
    node.until(|event| match event {
        Event::Ack(ack) if ack.durable_lsn == all => Some(()),
        _ => None,
    });
    drop(node);

    let (mut node, end, wal_bytes, took) = Node::open(root.path(), false);
    println!(
        "{last} records of {blocks} blocks, {wal_bytes} bytes of log: open in {took:.3} s; {end}"
    );
    assert!(wal_bytes >= LIMIT_BYTES / 4, "the log was hardly filled");
    assert!(took < OPEN_MAX_SECONDS, "{took} s");
    let report = node.host.volumes().remove(0);
    assert_eq!((report.last_lsn, report.applied_lsn), (all, Lsn::ZERO), "served from the log");
    node.fence(2);
    // The new epoch's engine finds that the logs match, as it does with an empty append.
    node.append(Epoch::new(2), Epoch::new(1), last, Vec::new());
    node.host.read(Tag(9), VOLUME, Epoch::new(2), all, place(last));
    let data = node.until(|event| match event {
        Event::Read { tag: Tag(9), result } => Some(result.as_ref().unwrap().clone()),
        _ => None,
    });
    assert_eq!(data.iter().map(|part| part.len()).sum::<usize>(), blocks as usize * BLOCK_BYTES);
    assert!(data.iter().all(|part| part.iter().all(|byte| *byte == fill(last))));
}

#[test]
fn a_log_full_of_large_records_is_served_before_it_is_applied() {
    restart_with_full_log(15);
}

#[test]
fn a_log_full_of_small_records_is_served_before_it_is_applied() {
    restart_with_full_log(1);
}
