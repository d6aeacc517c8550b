//! A host against a model of what it was told: random records, commits that lag
//! behind, reads at any LSN that is committed, rounds in between, new engines
//! that truncate, volumes that come and go, and crashes at any moment.

use super::{
    super::{Event, HostOptions, Tag},
    disk::Rng,
    rig::{MIB, Rig, Writer, history, node, range, values, write_op},
};
use holdfast_io::BufPool;
use holdfast_types::{BlockRange, Epoch, Lsn, VolumeId};
use holdfast_wire::{Fence, RecordOp, Truncate};

/// Blocks of a volume: its map has more leaves than the cache holds.
const BLOCKS: u64 = 1 << 18;
/// Places that are written to: few enough to meet again, in many leaves.
const PLACES: u64 = 60;
const PLACE_BLOCKS: u64 = 46 * 16 * 3 + 16;

/// Slots left free on a disk that is to be full.
const FREE_SLOTS: u64 = 24;

#[derive(Clone, Copy, Debug)]
enum Op {
    Write(BlockRange, u64),
    Discard(BlockRange),
    Other,
}

/// What a replica should hold.
struct Volume {
    writer: Writer,
    /// The records, LSN 1 first, with their epochs.
    log: Vec<(u64, Op)>,
    acked: u64,
    /// Told to the host.
    commit: u64,
}

impl Volume {
    /// The block's value at `lsn`; `None`: not allocated.
    fn at(&self, block: u64, lsn: u64) -> Option<u64> {
        let covers = |range: &BlockRange| range.start.get() <= block && block < range.end().get();
        self.log[..lsn as usize].iter().rev().find_map(|(_, op)| match op {
            Op::Write(range, value) if covers(range) => {
                Some(Some(value + block - range.start.get()))
            }
            Op::Discard(range) if covers(range) => Some(None),
            _ => None,
        })?
    }

    fn last(&self) -> u64 {
        self.log.len() as u64
    }
}

struct Read {
    tag: Tag,
    volume: usize,
    at: u64,
    range: BlockRange,
}

struct Test {
    rig: Rig,
    rng: Rng,
    volumes: Vec<Volume>,
    reads: Vec<Read>,
    next_value: u64,
    next_volume: u128,
    now_ms: u64,
    checked: u64,
    grants: u64,
    refusals: u64,
}

impl Test {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let options = HostOptions {
            unapplied_bytes_max: [MIB, 4 * MIB][rng.below(2) as usize],
            payload_cache_bytes: [0, 65536, MIB][rng.below(3) as usize],
            map_cache_bytes: 0,
        };
        // A third of them on a disk that is nearly always full.
        let rig = Rig::with(seed, [96 * MIB, 96 * MIB, 9 * MIB][seed as usize % 3], options);
        let mut test = Self {
            rig,
            rng,
            volumes: Vec::new(),
            reads: Vec::new(),
            next_value: 1,
            next_volume: 1,
            now_ms: 0,
            checked: 0,
            grants: 0,
            refusals: 0,
        };
        for _ in 0..3 {
            test.create();
        }
        if seed % 3 == 2 {
            test.fill();
        }
        test
    }

    /// Takes nearly all of the disk.
    fn fill(&mut self) {
        let mut slot = BLOCKS / 16;
        while self.rig.host.credits().slots > FREE_SLOTS {
            slot -= 1;
            let value = self.next_value;
            self.next_value += 1000;
            let volume = &mut self.volumes[0];
            let range = range(slot * 16, 16);
            volume.log.push((1, Op::Write(range, value)));
            volume.writer.write(&mut self.rig, slot * 16, 16, value);
            volume.writer.commit_all(&mut self.rig);
            volume.commit = volume.writer.commit;
            volume.acked = volume.commit;
        }
    }

    fn create(&mut self) {
        let volume = VolumeId::from_u128(self.next_volume);
        self.next_volume += 1;
        self.rig.create(volume, BLOCKS);
        let writer = Writer::attach(&mut self.rig, volume, 1);
        self.volumes.push(Volume { writer, log: Vec::new(), acked: 0, commit: 0 });
    }

    fn some_volume(&mut self) -> usize {
        self.rng.below(self.volumes.len() as u64) as usize
    }

    fn some_range(&mut self, blocks_max: u64, whole_slots: bool) -> BlockRange {
        let place = self.rng.below(PLACES) * PLACE_BLOCKS;
        if whole_slots {
            let slots = 1 + self.rng.below(blocks_max / 16);
            return range((place + self.rng.below(48)) / 16 * 16, slots * 16);
        }
        range(place + self.rng.below(48), 1 + self.rng.below(blocks_max))
    }

    fn some_op(&mut self) -> Op {
        let value = self.next_value;
        self.next_value += 1000;
        match self.rng.below(16) {
            0..8 => Op::Write(self.some_range(4, false), value),
            8..10 => Op::Write(self.some_range(64, false), value),
            10..13 => Op::Write(self.some_range(64, true), value),
            13 => Op::Discard(self.some_range(30, false)),
            14 => Op::Discard(self.some_range(96, true)),
            _ => Op::Discard(range(self.rng.below(BLOCKS / 2), 40_000)),
        }
    }

    fn append(&mut self) {
        let at = self.some_volume();
        let (mut ops, mut records) = (Vec::new(), Vec::new());
        let (mut slots, mut bytes) = (0, 0);
        for _ in 0..1 + self.rng.below(3) {
            let op = self.some_op();
            records.push(match op {
                Op::Write(range, value) => {
                    slots += range.slots().count() as u64;
                    bytes += range.bytes();
                    write_op(&BufPool::new(0), range.start.get(), range.count, value)
                }
                Op::Discard(range) => RecordOp::Discard { range },
                Op::Other => RecordOp::EpochStart,
            });
            ops.push(op);
        }
        let credits = self.rig.host.credits();
        if credits.wal_bytes < bytes || credits.slots < slots && !self.reserve(at, &ops) {
            return;
        }
        let volume = &mut self.volumes[at];
        volume.log.extend(ops.into_iter().map(|op| (volume.writer.epoch, op)));
        volume.writer.commit = volume.commit;
        volume.writer.append(&mut self.rig, records);
    }

    /// Whether all of `ops` can have space when it is looked for.
    fn reserve(&mut self, at: usize, ops: &[Op]) -> bool {
        if !self.rng.one_in(4) {
            return false;
        }
        let id = self.volumes[at].writer.volume;
        let mut granted = Vec::new();
        for op in ops {
            let Op::Write(range, _) = op else { continue };
            let (tag, yes) = self.rig.reserve(id, *range);
            if !yes {
                self.refusals += 1;
                for (tag, range) in granted {
                    self.rig.host.unreserve(tag, id, range);
                }
                return false;
            }
            granted.push((tag, *range));
        }
        self.grants += 1;
        let bytes: u64 = granted.iter().map(|(_, range)| range.bytes()).sum();
        // Time went by; what was granted stays ours.
        if self.rig.host.credits().wal_bytes < bytes {
            for (tag, range) in granted {
                self.rig.host.unreserve(tag, id, range);
            }
            return false;
        }
        true
    }

    fn commit(&mut self) {
        let at = self.some_volume();
        let volume = &mut self.volumes[at];
        volume.acked = volume.acked.max(self.rig.acked_lsn(volume.writer.volume));
        volume.commit += self.rng.below(volume.acked - volume.commit + 1);
        self.rig.host.advance_commit(volume.writer.volume, Lsn::new(volume.commit));
    }

    fn start_read(&mut self) {
        let at = self.some_volume();
        let range = self.some_range(80, false);
        let tag = self.rig.tag();
        let volume = &self.volumes[at];
        let lsn = volume.commit - self.rng.below(volume.commit.min(3) + 1);
        let epoch = Epoch::new(volume.writer.epoch);
        self.rig.host.read(tag, volume.writer.volume, epoch, Lsn::new(lsn), range);
        self.reads.push(Read { tag, volume: at, at: lsn, range });
    }

    fn check_reads(&mut self) {
        let ended = self.rig.events.extract_if(.., |event| matches!(event, Event::Read { .. }));
        for event in ended.collect::<Vec<_>>() {
            let Event::Read { tag, result } = event else { unreachable!() };
            let Some(i) = self.reads.iter().position(|read| read.tag == tag) else {
                panic!("{tag:?} was answered twice")
            };
            let read = self.reads.swap_remove(i);
            let got = values(&result.unwrap());
            assert_eq!(got.len() as u64, read.range.count);
            let volume = &self.volumes[read.volume];
            for (got, block) in got.into_iter().zip(read.range.start.get()..) {
                let mut versions = read.at..=volume.commit;
                assert!(
                    versions.any(|lsn| volume.at(block, lsn).unwrap_or(0) == got),
                    "block {block} of {} read at {} gives {got}, at {:?} or later it is {:?}",
                    read.volume,
                    read.at,
                    volume.commit,
                    volume.at(block, read.at),
                );
                self.checked += 1;
            }
        }
        for report in self.rig.host.volumes() {
            let volume = self.volumes.iter().find(|v| v.writer.volume == report.volume).unwrap();
            assert!(report.applied_lsn.get() <= volume.commit, "I7: only what is committed");
        }
    }

    fn wait_for_reads(&mut self) {
        for _ in 0..100_000 {
            self.check_reads();
            if self.reads.is_empty() {
                return;
            }
            self.rig.turn();
        }
        panic!("{} reads without an answer", self.reads.len());
    }

    /// A new engine takes the volume over, and drops some of what is not committed.
    fn take_over(&mut self, at: usize, truncate: bool) {
        self.wait_for_reads();
        let volume = &mut self.volumes[at];
        let id = volume.writer.volume;
        let epoch = volume.writer.epoch + 1;
        let promise = self.rig.fence(id, epoch).unwrap();
        volume.acked = volume.acked.max(self.rig.acked_lsn(id));
        self.rig.acks.remove(&id);
        let last = promise.last_lsn.get();
        assert!(
            volume.acked <= last && last <= volume.last(),
            "acked {} held {last} sent {}",
            volume.acked,
            volume.last()
        );
        volume.log.truncate(last as usize);
        let held_epoch = volume.log.last().map_or(0, |(epoch, _)| *epoch);
        assert_eq!(promise.last_epoch.get(), held_epoch);
        let mut spans = Vec::new();
        for ((epoch, _), lsn) in volume.log.iter().zip(1..) {
            if spans.last().is_none_or(|(last, _)| last != epoch) {
                spans.push((*epoch, lsn));
            }
        }
        let held: Vec<(u64, u64)> =
            promise.epochs.iter().map(|span| (span.epoch.get(), span.first.get())).collect();
        assert_eq!(held, spans, "epoch history");
        let mut keep = last;
        if truncate {
            keep = volume.commit + self.rng.below(last - volume.commit + 1);
            volume.acked = volume.acked.min(keep);
            self.rig.truncate(id, epoch, keep).unwrap();
            volume.log.truncate(keep as usize);
        }
        let last_epoch = volume.log.last().map_or(0, |(epoch, _)| *epoch);
        volume.writer =
            Writer { volume: id, epoch, session: 1, last: keep, last_epoch, commit: volume.commit };
        volume.log.push((epoch, Op::Other));
        volume.writer.append(&mut self.rig, vec![RecordOp::EpochStart]);
        self.rig.acked(id, keep + 1);
        volume.acked = keep + 1;
        volume.commit = keep + 1;
        self.rig.host.advance_commit(id, Lsn::new(volume.commit));
    }

    /// Starts something that the crash will meet half done.
    fn begin_something(&mut self) {
        let at = self.some_volume();
        let tag = self.rig.tag();
        let volume = &mut self.volumes[at];
        let id = volume.writer.volume;
        match self.rng.below(8) {
            0 => self.rig.host.delete_volume(tag, id),
            1 | 2 => {
                volume.writer.epoch += 1;
                let epoch = Epoch::new(volume.writer.epoch);
                self.rig
                    .host
                    .fence(tag, &Fence { volume: id, history: history(), epoch, node: node() });
            }
            3 | 4 => {
                volume.writer.epoch += 1;
                let last = self.rig.fence(id, volume.writer.epoch).unwrap().last_lsn.get();
                let keep = volume.commit + self.rng.below(last - volume.commit + 1);
                volume.acked = volume.acked.min(keep);
                self.rig.acks.remove(&id);
                let (epoch, last) = (Epoch::new(volume.writer.epoch), Lsn::new(keep));
                self.rig.host.truncate(tag, &Truncate { volume: id, epoch, last });
            }
            _ => {}
        }
        for _ in 0..self.rng.below(8) {
            self.rig.turn();
        }
    }

    fn crash(&mut self) {
        self.begin_something();
        match self.rng.below(3) {
            0 => {
                self.rig.disk.kill();
                self.rig.reopen();
            }
            _ => self.rig.crash(),
        }
        self.reads.clear();
        let here: Vec<_> = self.rig.host.volumes().iter().map(|report| report.volume).collect();
        self.volumes.retain(|volume| here.contains(&volume.writer.volume));
        while self.volumes.len() < 3 {
            self.create();
        }
        for at in 0..self.volumes.len() {
            let stays_detached = self.rng.one_in(8);
            if !stays_detached || self.rng.one_in(2) {
                let truncate = self.rng.one_in(4);
                self.take_over(at, truncate);
            } else {
                // Its engine comes only after others have gone on for a while.
                for _ in 0..50 {
                    self.rig.turn();
                }
                self.take_over(at, false);
            }
        }
        self.verify_all();
    }

    /// Reads everything, and compares what is said to be allocated.
    fn verify_all(&mut self) {
        for at in 0..self.volumes.len() {
            for place in 0..PLACES {
                let (id, epoch, commit) = {
                    let volume = &self.volumes[at];
                    (volume.writer.volume, volume.writer.epoch, volume.commit)
                };
                let run = range(place * PLACE_BLOCKS, 160);
                let got = self.rig.read(id, epoch, commit, run).unwrap();
                let status = self.rig.status(id, epoch, commit, run);
                let held = status.iter().flat_map(|(n, held)| (0..*n).map(|_| *held));
                let volume = &self.volumes[at];
                for ((got, held), block) in got.into_iter().zip(held).zip(run.start.get()..) {
                    let want = volume.at(block, commit);
                    assert_eq!(got, want.unwrap_or(0), "block {block} of {at} at {commit}");
                    assert_eq!(held, want.is_some(), "allocation of block {block} of {at}");
                    self.checked += 1;
                }
            }
        }
    }

    fn delete_one(&mut self) {
        self.wait_for_reads();
        let at = self.some_volume();
        let volume = self.volumes.remove(at);
        let tag = self.rig.tag();
        self.rig.host.delete_volume(tag, volume.writer.volume);
        self.rig.changed(tag).unwrap();
        self.create();
    }

    fn step(&mut self) {
        match self.rng.below(400) {
            0..120 => self.append(),
            120..160 => self.commit(),
            160..200 => self.start_read(),
            200..202 => self.rig.host.drain(),
            202..206 => {
                self.now_ms += 700;
                self.rig.host.tick(self.now_ms);
            }
            206 => {
                let at = self.some_volume();
                self.take_over(at, true);
            }
            207 if self.rng.one_in(2) => self.delete_one(),
            _ => self.rig.turn(),
        }
        self.check_reads();
        for volume in &mut self.volumes {
            volume.acked = volume.acked.max(self.rig.acked_lsn(volume.writer.volume));
        }
    }
}

fn run(seed: u64, lives: u64, steps: u64) -> Sums {
    let mut test = Test::new(seed);
    for _ in 0..lives {
        for _ in 0..steps / 2 + test.rng.below(steps) {
            test.step();
        }
        test.crash();
    }
    test.wait_for_reads();
    test.rig.drain();
    test.verify_all();
    let host = &test.rig.host;
    let left: u64 =
        host.volumes().iter().map(|report| report.last_lsn.get() - report.applied_lsn.get()).sum();
    if left == 0 {
        assert_eq!((host.counts.unapplied, host.counts.settled, host.counts.carry), (0, 0, 0));
        assert_eq!((host.counts.cached, host.counts.outgoing), (0, 0));
        assert_eq!((host.nodes.used(), host.space.reserved), (0, 0));
    }
    // A slot that nothing names any more must be free without a restart too.
    let free = test.rig.host.store.free_slots();
    test.rig.crash();
    if left == 0 {
        let after = test.rig.host.store.free_slots();
        assert!(after <= free + 1, "{free} slots were free, {after} after a restart");
    }
    Sums { checked: test.checked, grants: test.grants, refusals: test.refusals }
}

/// What a run has seen.
#[derive(Debug, Default)]
struct Sums {
    checked: u64,
    grants: u64,
    refusals: u64,
}

/// Seeds of one run; a longer one sets HOLDFAST_SEEDS to a range like `0..1000`.
const SEEDS: std::ops::Range<u64> = 0..12;

/// Seeds that once found a fault.
#[test]
fn what_the_model_found_before_stays_found() {
    // A call for space waited for a removal that waited for a checkpoint.
    run(362, 4, 400);
    // A volume was deleted while a round wrote to its slots.
    run(342, 4, 400);
}

#[test]
fn a_host_does_what_the_model_does() {
    let wanted = std::env::var("HOLDFAST_SEEDS").ok();
    let is_full = wanted.is_none();
    let seeds = wanted.map_or(SEEDS, |range| {
        let (first, last) = range.split_once("..").unwrap();
        first.parse().unwrap()..last.parse().unwrap()
    });
    let mut sums = Sums::default();
    for seed in seeds {
        eprintln!("seed {seed}");
        let one = run(seed, 4, 400);
        sums.checked += one.checked;
        sums.grants += one.grants;
        sums.refusals += one.refusals;
    }
    let enough = sums.checked > 100_000 && sums.grants > 10 && sums.refusals > 10;
    assert!(enough || !is_full, "{sums:?}");
}
