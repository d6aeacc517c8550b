//! Replicas under engines that are wrong about their logs.
//!
//! An engine compares a member's log with its own, has it dropped from where they part,
//! and only then sends records; a replica that holds another record than the one
//! they come behind refuses them nevertheless. In a cluster that second check never has
//! to help, as long as the first is right. Here the first is left out: the engine of each
//! epoch begins behind some record that somebody made, has each replica's log cut to
//! that length, whatever it holds there, and sends.

use crate::{
    counts::Counts,
    disk::{DiskOptions, SimDisk},
    invariants::{Violation, i2_log_matching, i5_nothing_acknowledged_is_lost},
    model::{Lineage, Point, WriteId},
    plan::{Plan, Trim},
    rng::SimRng,
    scenario::pump::pump,
    trace::Trace,
};
use holdfast_io::BufPool;
use holdfast_replica::{Event, FormatOptions, Host, HostOptions, NewVolume, Tag, VolumeReport};
use holdfast_types::{
    BLOCK_BYTES, BlockNo, BlockRange, Epoch, Generation, HistoryId, Lsn, NodeId, ReplicaId,
    VolumeId, block_crc,
};
use holdfast_wire::{Append, Fence, Record, RecordOp, StreamSession, Truncate};

/// Replicas.
const REPLICAS: usize = 3;
/// Epochs of a run.
const EPOCHS: std::ops::Range<u64> = 8..30;
/// Records that an engine sends at most.
const RECORDS_MAX: u64 = 5;
/// Size of the volume.
const BLOCKS: u64 = 64;
/// What buffers come from.
const POOL_BYTES: usize = 8 << 20;
const MIB: u64 = 1 << 20;

const VOLUME: VolumeId = VolumeId::from_u128(1);
const HISTORY: HistoryId = HistoryId::from_u128(2);
const NODE: NodeId = NodeId::from_u128(3);

struct World {
    replicas: Vec<(SimDisk, Host)>,
    lineage: Lineage,
    /// Where any engine's log has ended.
    ends: Vec<Point>,
    pool: BufPool,
    rng: SimRng,
    trace: Trace,
    tags: u64,
    writes: u64,
    counts: Counts,
}

/// What a seed's run is made of: one engine after the other.
#[must_use]
pub fn plan(seed: u64, trim: &Trim) -> Plan {
    let epochs = SimRng::of(seed, "epochs").within(EPOCHS);
    Plan { steps: trim.steps_of(epochs, "an epoch"), ..Plan::default() }
}

/// Runs one seed, but for what `trim` leaves out.
pub fn run_seed(seed: u64, trim: &Trim, trace: Trace) -> (Counts, Result<(), Violation>) {
    let mut world = World {
        replicas: Vec::new(),
        lineage: Lineage::new(BLOCKS),
        ends: vec![Point::default()],
        pool: BufPool::new(POOL_BYTES),
        rng: SimRng::of(seed, "matching"),
        trace,
        tags: 0,
        writes: 0,
        counts: Counts::default(),
    };
    let result = world.run(seed, trim);
    (world.counts, result)
}

impl World {
    fn run(&mut self, seed: u64, trim: &Trim) -> Result<(), Violation> {
        for _ in 0..REPLICAS {
            self.make_replica()?;
        }
        for (number, _) in plan(seed, trim).steps {
            self.rng = SimRng::nth(seed, "epoch", number);
            self.reign(Epoch::new(number as u64 + 1))?;
        }
        Ok(())
    }

    fn make_replica(&mut self) -> Result<(), Violation> {
        let options = DiskOptions { device: false, capacity_bytes: 16 * MIB };
        let format =
            FormatOptions { segment_bytes: MIB as u32, segments: 4, capacity_bytes: Some(8 * MIB) };
        let mut disk = SimDisk::new(self.rng.bits(), options, self.trace.clone());
        let opens = |error| i5_nothing_acknowledged_is_lost::check_opens(&error);
        Host::format(&mut disk, &format).map_err(opens)?;
        let mut host = self.open(&mut disk)?;
        let tag = self.tag();
        let replica = ReplicaId::from_u128(u128::from(self.rng.bits()));
        let new = NewVolume { volume: VOLUME, replica, history: HISTORY, blocks: BLOCKS };
        host.create_volume(tag, &new);
        pump(&mut host, &mut disk, "a creation", |_, _, events| {
            events.iter().any(|event| matches!(event, Event::VolumeChanged { .. }))
        })?;
        self.replicas.push((disk, host));
        Ok(())
    }

    fn open(&self, disk: &mut SimDisk) -> Result<Host, Violation> {
        let options = HostOptions {
            unapplied_bytes_max: MIB,
            payload_cache_bytes: MIB,
            map_cache_bytes: 64 << 10,
        };
        match Host::open(disk, self.pool.clone(), options) {
            Ok((host, _)) => Ok(host),
            Err(error) => Err(i5_nothing_acknowledged_is_lost::check_opens(&error)),
        }
    }

    fn tag(&mut self) -> Tag {
        self.tags += 1;
        Tag(self.tags)
    }

    /// The engine of `epoch` begins behind some record, and sends to everybody.
    fn reign(&mut self, epoch: Epoch) -> Result<(), Violation> {
        self.counts.epochs += 1;
        let end = self.ends[self.rng.within(0..self.ends.len() as u64) as usize];
        let lsn = Lsn::new(self.rng.within(0..end.lsn.get() + 1));
        let Some(behind) = self.lineage.epoch_at(end, lsn) else {
            unreachable!("a log has a record at every LSN up to its end")
        };
        let base = Point { lsn, epoch: behind };
        let records = self.make_records(base, epoch);
        let sent = self.lineage.sent(&append(epoch, base, &records));
        i2_log_matching::check_sent(VOLUME, sent)?;
        let last = records.last().map_or(base, |record| Point { lsn: record.lsn, epoch });
        self.ends.push(last);
        for replica in 0..self.replicas.len() {
            if self.rng.percent(80) {
                self.send(replica, epoch, base, &records)?;
            }
            if self.rng.percent(15) {
                self.cut(replica)?;
            }
            self.check(replica)?;
        }
        Ok(())
    }

    fn make_records(&mut self, base: Point, epoch: Epoch) -> Vec<Record> {
        let mut records = Vec::new();
        for number in 0..self.rng.within(1..RECORDS_MAX + 1) {
            let lsn = Lsn::new(base.lsn.get() + 1 + number);
            let op = if number == 0 { RecordOp::EpochStart } else { self.make_write() };
            records.push(Record { lsn, epoch, op });
        }
        self.counts.records += records.len() as u64;
        records
    }

    fn make_write(&mut self) -> RecordOp {
        self.writes += 1;
        let block = BlockNo::new(self.rng.within(0..BLOCKS));
        let mut data = self.pool.alloc(BLOCK_BYTES);
        WriteId(self.writes).fill(block, &mut data);
        let crcs = [block_crc(&data)].into_iter().collect();
        RecordOp::Write { range: BlockRange::new(block, 1), data: data.freeze(), crcs }
    }

    fn send(
        &mut self,
        replica: usize,
        epoch: Epoch,
        base: Point,
        records: &[Record],
    ) -> Result<(), Violation> {
        let (fence_tag, truncate_tag) = (self.tag(), self.tag());
        let (disk, host) = &mut self.replicas[replica];
        host.fence(fence_tag, &Fence { volume: VOLUME, history: HISTORY, epoch, node: NODE });
        pump(host, disk, "a promise", |_, _, events| {
            events.iter().any(|event| matches!(event, Event::Promised { .. }))
        })?;
        if report(host).last_lsn > base.lsn {
            self.counts.truncations += 1;
            host.truncate(truncate_tag, &Truncate { volume: VOLUME, epoch, last: base.lsn });
            pump(host, disk, "a truncation", |_, _, events| {
                events.iter().any(|event| matches!(event, Event::Truncated { .. }))
            })?;
        }
        host.append(append(epoch, base, records));
        let mut refused = false;
        pump(host, disk, "an answer to an append", |_, _, events| {
            refused |= events.iter().any(|event| matches!(event, Event::Refused { .. }));
            refused || events.iter().any(|event| matches!(event, Event::Ack(_)))
        })?;
        self.counts.mismatches += u64::from(refused);
        self.counts.operations += 1;
        let last = report(&self.replicas[replica].1).last_lsn;
        self.trace.note(&[20, replica as u64, epoch.get(), u64::from(refused), last.get()], || {
            let answer = if refused { "refuses" } else { "takes" };
            format!("replica {replica} {answer} epoch {epoch} behind {base:?}, ends at {last}")
        });
        Ok(())
    }

    fn cut(&mut self, replica: usize) -> Result<(), Violation> {
        let seed = self.rng.bits();
        let mut disk = self.replicas[replica].0.power_cut(seed);
        let host = self.open(&mut disk)?;
        self.counts.cuts += 1;
        self.replicas[replica] = (disk, host);
        Ok(())
    }

    fn check(&self, replica: usize) -> Result<(), Violation> {
        i2_log_matching::check_log(replica, &self.lineage, &report(&self.replicas[replica].1))
    }
}

fn report(host: &Host) -> VolumeReport {
    let Some(report) = host.volumes().into_iter().next() else {
        unreachable!("the volume is never deleted")
    };
    report
}

fn append(epoch: Epoch, base: Point, records: &[Record]) -> Append {
    Append {
        volume: VOLUME,
        history: HISTORY,
        epoch,
        generation: Generation::new(1),
        session: StreamSession(1),
        prev_epoch: base.epoch,
        prev_lsn: base.lsn,
        records: records.to_vec(),
        commit_lsn: Lsn::ZERO,
    }
}
