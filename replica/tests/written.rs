//! What a replica writes to its disk for each byte that it is given, and for what.
//! Counted at the operations, so that the figures are the same on every machine.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use holdfast_io::{BackendChoice, BufPool, Disk, IoQueue, Op, open_disk};
use holdfast_replica::{Event, FormatOptions, Host, HostOptions, NewVolume, Tag};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, RECORD_BLOCKS_MAX,
    ReplicaId, SLOT_BLOCKS, VolumeId, block_crc,
};
use holdfast_wire::{Append, Fence, Record, RecordOp, StreamSession};
use std::{collections::BTreeMap, path::Path};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;
const VOLUME: VolumeId = VolumeId::from_u128(1);
const HISTORY: HistoryId = HistoryId::from_u128(2);
const EPOCH: Epoch = Epoch::new(1);

/// Log, limits and area are this part of the default ones and of 4 GiB: a round then
/// touches each page of the map as often.
const SCALE: u64 = 16;
const AREA_SLOTS: u64 = 65536 / SCALE;
/// Some rounds of blocks: one begins at a quarter of the limit, a block counts as two.
const WRITES: u64 = 10 * 8192 / SCALE;
/// Writes that come together: half of 32 in flight.
const TOGETHER: u64 = 16;

/// A replica and the smallest engine: it hears of a commit when the record is durable.
struct Rig {
    disk: Box<dyn Disk>,
    host: Host,
    pool: BufPool,
    queue: IoQueue,
    events: Vec<Event>,
    last: u64,
    acked: u64,
    /// Bytes and operations by what they are for: the first two bytes of a token.
    written: BTreeMap<(char, u8), (u64, u64)>,
    rng: u64,
}

impl Rig {
    fn new(root: &Path, blocks: u64) -> Self {
        let pool = BufPool::new(64 << 20);
        let mut disk = open_disk(root, BackendChoice::Auto, std::slice::from_ref(&pool)).unwrap();
        let segment_bytes = (64 * MIB / SCALE) as u32;
        let format = FormatOptions { segment_bytes, segments: 16, capacity_bytes: None };
        Host::format(&mut *disk, &format).unwrap();
        let options = HostOptions {
            unapplied_bytes_max: 256 * MIB / SCALE,
            payload_cache_bytes: 64 * MIB / SCALE,
            map_cache_bytes: 64 * MIB,
        };
        let (host, _) = Host::open(&mut *disk, pool.clone(), options).unwrap();
        let mut rig = Self {
            disk,
            host,
            pool,
            queue: IoQueue::new(),
            events: Vec::new(),
            last: 0,
            acked: 0,
            written: BTreeMap::new(),
            rng: 1,
        };
        let new =
            NewVolume { volume: VOLUME, replica: ReplicaId::random(), history: HISTORY, blocks };
        rig.host.create_volume(Tag(0), &new);
        rig.until(|event| matches!(event, Event::VolumeChanged { .. }));
        let fence =
            Fence { volume: VOLUME, history: HISTORY, epoch: EPOCH, node: NodeId::from_u128(1) };
        rig.host.fence(Tag(1), &fence);
        rig.until(|event| matches!(event, Event::Promised { .. }));
        rig.append(vec![RecordOp::EpochStart]);
        rig
    }

    fn turn(&mut self) {
        let mut done = Vec::new();
        self.disk.wait(&mut done);
        done.into_iter().for_each(|completion| self.host.complete(completion));
        self.host.flush(&mut self.queue);
        for (token, op) in self.queue.drain().collect::<Vec<_>>() {
            if let Op::Write { bufs, .. } = &op {
                let owner = char::from((token.0 >> 56) as u8);
                let kind = (token.0 >> 48) as u8;
                let sum =
                    self.written.entry((owner, if owner == 'W' { 0 } else { kind })).or_default();
                sum.0 += bufs.iter().map(|buf| buf.len() as u64).sum::<u64>();
                sum.1 += 1;
            }
            self.queue.push(token, op);
        }
        self.disk.submit(&mut self.queue);
        self.host.drain_events(&mut self.events);
        for event in &self.events {
            if let Event::Ack(ack) = event {
                self.acked = self.acked.max(ack.durable_lsn.get());
            }
            assert!(!matches!(event, Event::Refused { .. } | Event::DiskFailed(_)), "{event:?}");
        }
    }

    fn until(&mut self, pick: impl Fn(&Event) -> bool) {
        while !self.events.iter().any(&pick) {
            self.events.clear();
            self.turn();
        }
        self.events.clear();
    }

    fn append(&mut self, ops: Vec<RecordOp>) {
        let prev_lsn = Lsn::new(self.last);
        let records = ops.into_iter().map(|op| {
            self.last += 1;
            Record { lsn: Lsn::new(self.last), epoch: EPOCH, op }
        });
        self.host.append(Append {
            volume: VOLUME,
            history: HISTORY,
            epoch: EPOCH,
            generation: Generation::new(1),
            session: StreamSession(1),
            prev_epoch: if prev_lsn == Lsn::ZERO { Epoch::ZERO } else { EPOCH },
            prev_lsn,
            records: records.collect(),
            commit_lsn: Lsn::new(self.acked),
        });
    }

    fn write(&self, block: u64, count: u64) -> RecordOp {
        let range = BlockRange::new(BlockNo::new(block), count);
        let mut data = self.pool.alloc(range.bytes() as usize);
        data.fill(block as u8);
        let crc = block_crc(&data[..BLOCK_BYTES]);
        RecordOp::Write { range, data: data.freeze(), crcs: (0..count).map(|_| crc).collect() }
    }

    /// Writes ranges together, when there is room; waits until `depth` records are in flight
    /// at most.
    fn batch(&mut self, ranges: &[(u64, u64)], depth: u64) {
        let need: u64 = ranges.iter().map(|(_, count)| BLOCK + count * BLOCK).sum();
        loop {
            let credits = self.host.credits();
            if credits.wal_bytes >= need && credits.slots >= 8 * ranges.len() as u64 {
                break;
            }
            if credits.slots < 8 * ranges.len() as u64 {
                let (block, count) = ranges[0];
                self.host.reserve(Tag(2), VOLUME, BlockRange::new(BlockNo::new(block), count));
                self.until(|event| matches!(event, Event::Reserved { .. }));
                self.host.unreserve_all(VOLUME);
            } else {
                self.events.clear();
                self.turn();
            }
        }
        let ops = ranges.iter().map(|(block, count)| self.write(*block, *count)).collect();
        self.append(ops);
        loop {
            self.events.clear();
            self.turn();
            self.host.advance_commit(VOLUME, Lsn::new(self.acked));
            if self.last - self.acked <= depth {
                break;
            }
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.rng >> 33) % below
    }

    fn drain(&mut self) {
        while self.acked < self.last {
            self.events.clear();
            self.turn();
        }
        self.host.advance_commit(VOLUME, Lsn::new(self.acked));
        self.host.drain();
        while !self.host.is_drained() {
            self.events.clear();
            self.turn();
        }
    }

    /// Bytes written for each of `given`, in all; printed by purpose.
    fn ratio(&self, what: &str, given: u64) -> f64 {
        let mut all = 0;
        for (purpose, (bytes, ops)) in &self.written {
            println!(
                "{what}: {purpose:?} {:.3} ({bytes} bytes, {ops} writes)",
                *bytes as f64 / given as f64
            );
            all += bytes;
        }
        println!("{what}: {:.3}", all as f64 / given as f64);
        all as f64 / given as f64
    }
}

/// Random writes of a block each over an area that is written, of a volume of so many blocks.
fn random_writes(volume_blocks: u64) -> f64 {
    let root = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(root.path(), volume_blocks);
    for slot in 0..AREA_SLOTS {
        rig.batch(&[(slot * SLOT_BLOCKS as u64, SLOT_BLOCKS as u64)], 64);
    }
    rig.drain();
    rig.written.clear();
    for _ in 0..WRITES / TOGETHER {
        let area = AREA_SLOTS * SLOT_BLOCKS as u64;
        let ranges: Vec<_> = (0..TOGETHER).map(|_| (rig.random(area), 1)).collect();
        rig.batch(&ranges, TOGETHER);
    }
    rig.drain();
    rig.ratio(&format!("random blocks of {volume_blocks}"), WRITES * BLOCK)
}

/// The log, with a share of its frame's first page; the slot; a share of the map's pages.
#[test]
fn small_writes_cost_two_and_a_bit() {
    let ratio = random_writes(AREA_SLOTS * SLOT_BLOCKS as u64);
    assert!(ratio < 2.4, "{ratio}");
}

/// What is not mapped costs nothing.
#[test]
fn small_writes_to_a_volume_of_a_tebibyte_cost_the_same() {
    let ratio = random_writes((1 << 40) / BLOCK);
    assert!(ratio < 2.4, "{ratio}");
}

/// Whole slots go where they stay, and their description into the log.
#[test]
fn large_writes_cost_what_they_are() {
    let root = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(root.path(), 1 << 16);
    let count = RECORD_BLOCKS_MAX as u64;
    let writes = 512;
    for i in 0..writes {
        rig.batch(&[(i * count % (1 << 14), count)], 4);
    }
    rig.drain();
    let ratio = rig.ratio("whole slots", writes * count * BLOCK);
    assert!(ratio < 1.05, "{ratio}");
}
