//! A seed's run: work, crash, recover, compare, again.

use super::{
    EXTERNAL_BASE, LogWorld, Logged, WAL_BASE,
    node::{LogNode, meta_of},
};
use crate::{
    counts::Counts,
    disk::Faults,
    invariants::{
        Invariant::{I3CommitIsForever, I5NothingAcknowledgedIsLost, I9NoSilentCorruption},
        Violation, ensure, i5_nothing_acknowledged_is_lost,
    },
    model::WriteId,
    plan::{Plan, Trim},
    rng::SimRng,
    scenario::observe::is_torn,
    trace::Trace,
};
use holdfast_io::{BufPool, Disk, DiskError, FileId, Op, OpResult, OpenMode};
use holdfast_types::{BLOCK_BYTES, BlockNo, block_crc};
use holdfast_wal::{Position, RecoveredEntry, Ring, Visitor, Wal};

/// Crashes in a seed's run.
const ROUNDS: std::ops::Range<u64> = 4..10;
/// Turns between two crashes.
const TURNS: std::ops::Range<u64> = 1..500;
/// Turns of a hundred within a checkpoint that end in a crash.
const CHECKPOINT_CUT_PERCENT: u32 = 3;
/// Completions of a recovery after which a second cut may come.
const RECOVERY_COMPLETIONS: std::ops::Range<u64> = 0..40;

/// What a seed's run is made of: stretches of work, each ended by a crash.
#[must_use]
pub fn plan(seed: u64, trim: &Trim) -> Plan {
    let rounds = SimRng::of(seed, "rounds").within(ROUNDS);
    Plan { steps: trim.steps_of(rounds, "work and a crash"), until: TURNS.end, ..Plan::default() }
}

/// Runs one seed of the scenario, but for what `trim` leaves out.
pub fn run_seed(seed: u64, trim: &Trim, trace: Trace) -> (Counts, Result<(), Violation>) {
    let mut world = match LogWorld::new(seed, trace) {
        Ok(world) => world,
        Err(violation) => return (Counts::default(), Err(violation)),
    };
    let result = world.run(seed, trim);
    world.counts.simulated_ms += world.disk.now_ns() / 1_000_000;
    let disk = world.disk.counts();
    world.counts.bit_flips += disk.bit_flips;
    world.counts.io_errors += disk.io_errors;
    (world.counts, result)
}

struct Seen {
    serial_of: [u8; 24],
    payload_at: Position,
    payload_bytes: u32,
}

struct Collector {
    pool: BufPool,
    external: FileId,
    seen: Vec<Seen>,
}

impl Visitor for Collector {
    fn verify(
        &mut self,
        disk: &mut dyn Disk,
        entry: &RecoveredEntry<'_>,
    ) -> Result<bool, DiskError> {
        let at = entry.meta.get(16..24).and_then(|raw| raw.try_into().ok());
        let Some(at) = at.map(u64::from_le_bytes).and_then(|at| at.checked_sub(1)) else {
            return Ok(false);
        };
        for (index, crc) in entry.crcs.iter().enumerate() {
            let offset = EXTERNAL_BASE + (at + index as u64) * BLOCK_BYTES as u64;
            if block_crc(&read_block(disk, &self.pool, self.external, offset)?) != *crc {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entry(&mut self, entry: &RecoveredEntry<'_>) {
        let mut serial_of = [0; 24];
        let len = entry.meta.len().min(24);
        serial_of[..len].copy_from_slice(&entry.meta[..len]);
        self.seen.push(Seen {
            serial_of,
            payload_at: entry.payload_at,
            payload_bytes: entry.payload_bytes,
        });
    }
}

fn read_block(
    disk: &mut dyn Disk,
    pool: &BufPool,
    file: FileId,
    offset: u64,
) -> Result<holdfast_io::BufMut, DiskError> {
    match disk.run(Op::Read { file, offset, buf: pool.alloc(BLOCK_BYTES) })? {
        OpResult::Read(buf) => Ok(buf),
        other => unreachable!("a read ends with {other:?}"),
    }
}

/// What opening a log gave.
enum Opened {
    Log(Box<LogNode>),
    Suspect,
    PowerLost,
    ReadFailed,
}

impl LogWorld {
    fn run(&mut self, seed: u64, trim: &Trim) -> Result<(), Violation> {
        for (number, _) in plan(seed, trim).steps {
            self.rng = SimRng::nth(seed, "round", number);
            let Some(mut node) = self.recover(None)? else { return Ok(()) };
            let turns = trim.turns(self.rng.within(TURNS));
            if self.rng.percent(10) {
                self.disk.set_faults(Faults { write_errors: 20_000, ..Faults::NONE });
            }
            for _ in 0..turns {
                let Self { disk, model, rng, pool, counts, .. } = self;
                node.turn(disk, model, rng, pool, counts)?;
                if node.in_checkpoint() && rng.percent(CHECKPOINT_CUT_PERCENT) {
                    break;
                }
            }
            self.recorded_mark = node.wal.recorded_mark().get();
            self.disk.set_faults(Faults::NONE);
            self.crash(node.in_checkpoint());
        }
        self.rng = SimRng::of(seed, "last");
        let damage = self.rng.percent(60).then(|| self.damage()).flatten();
        self.recover(damage).map(|_| ())
    }

    /// The process ends, with power or under it.
    fn crash(&mut self, in_checkpoint: bool) {
        self.counts.simulated_ms += self.disk.now_ns() / 1_000_000;
        let seed = self.rng.bits();
        let kill = !self.disk.is_off() && self.rng.percent(25);
        self.disk = match kill {
            true => self.disk.killed(seed),
            false => self.disk.power_cut(seed),
        };
        let fate = self.disk.counts();
        self.counts.kills += u64::from(kill);
        self.counts.cuts += u64::from(!kill);
        self.counts.cuts_in_checkpoint += u64::from(in_checkpoint && !kill);
        self.counts.changes_kept += fate.kept;
        self.counts.changes_lost += fate.lost;
        self.counts.changes_torn += fate.torn;
        // The superblock is another part's business: whole or not there.
        if let Some((start, below)) = self.model.next_start.take()
            && self.rng.percent(50)
        {
            self.model.begin_at(start, below);
        }
    }

    /// Flips a bit of the log; says where.
    fn damage(&mut self) -> Option<Position> {
        let (from, to) = (self.model.start.position.get(), self.recorded_mark);
        if from >= to {
            return None;
        }
        let position = Position::new(from + self.rng.within(0..(to - from) / 4096) * 4096);
        let offset = WAL_BASE + position.get() % self.config.ring_bytes();
        let bit = self.rng.within(0..8 * 4096);
        self.disk.flip_bit("wal", offset / 4096, bit as usize);
        Some(position)
    }

    /// Opens the log until it opens, with more crashes on the way; `None` if it
    /// is suspect, which only damage excuses.
    fn recover(&mut self, damage: Option<Position>) -> Result<Option<LogNode>, Violation> {
        loop {
            if damage.is_none() && self.rng.percent(30) {
                self.disk.power_off_after(self.rng.within(RECOVERY_COMPLETIONS));
            }
            if self.rng.percent(10) {
                self.disk.set_faults(Faults { read_errors: 50_000, ..Faults::NONE });
            }
            match self.open(damage)? {
                Opened::Log(node) => return Ok(Some(*node)),
                Opened::Suspect => return Ok(None),
                Opened::PowerLost => {
                    self.counts.cuts_in_recovery += 1;
                    self.crash(false);
                }
                Opened::ReadFailed => {
                    self.disk.set_faults(Faults::NONE);
                    self.disk = self.disk.killed(self.rng.bits());
                }
            }
        }
    }

    fn open(&mut self, damage: Option<Position>) -> Result<Opened, Violation> {
        let errors_before = self.disk.counts().io_errors;
        let opened = self.open_files();
        let recovered = opened.and_then(|(wal, external, superblock)| {
            let mut collector = Collector { pool: self.pool.clone(), external, seen: Vec::new() };
            let ring = Ring { file: wal, base: WAL_BASE, config: self.config, stream: self.stream };
            let start = self.model.start;
            let (wal, end) =
                Wal::recover(&mut self.disk, self.pool.clone(), ring, start, &mut collector)
                    .map_err(|error| error.to_string())?;
            Ok((wal, end, collector.seen, superblock, external))
        });
        let (wal, end, seen, superblock, external) = match recovered {
            Ok(recovered) => recovered,
            Err(_) if self.disk.is_off() => return Ok(Opened::PowerLost),
            Err(_) if self.disk.counts().io_errors > errors_before => {
                return Ok(Opened::ReadFailed);
            }
            Err(error) => return Err(i5_nothing_acknowledged_is_lost::check_opens(&error)),
        };
        self.disk.set_faults(Faults::NONE);
        self.counts.torn_tails += u64::from(!end.is_suspect() && is_torn(&end.to_string()));
        self.trace.note(&[20, seen.len() as u64, u64::from(end.is_suspect())], || {
            format!("log: recovered {} entries: {end}", seen.len())
        });
        i5_nothing_acknowledged_is_lost::check_trusted(
            damage.is_some(),
            end.is_suspect(),
            &end.to_string(),
        )?;
        let complete = seen.len() >= self.model.durable;
        ensure(I5NothingAcknowledgedIsLost, complete || end.is_suspect(), || {
            format!("{} of {} durable entries recovered: {end}", seen.len(), self.model.durable)
        })?;
        ensure(I3CommitIsForever, seen.len() <= self.model.entries.len(), || {
            format!("{} entries recovered, {} appended", seen.len(), self.model.entries.len())
        })?;
        for (index, seen) in seen.iter().enumerate() {
            if !self.check_entry(index, seen, &wal, external)? {
                return Ok(Opened::PowerLost);
            }
        }
        self.counts.recoveries += 1;
        self.counts.records_recovered += seen.len() as u64;
        if end.is_suspect() {
            self.counts.suspect_logs += 1;
            return Ok(Opened::Suspect);
        }
        let model = &mut self.model;
        self.counts.unacked_recovered += (seen.len() - model.durable) as u64;
        self.counts.unacked_lost += (model.entries.len() - seen.len()) as u64;
        model.entries.truncate(seen.len());
        model.durable = seen.len();
        Ok(Opened::Log(Box::new(LogNode::new(
            wal,
            seen.len(),
            external,
            superblock,
            &mut self.rng,
        ))))
    }

    fn open_files(&mut self) -> Result<(FileId, FileId, FileId), String> {
        let mut open = |name: &str| {
            self.disk.open(name, OpenMode::Existing).map_err(|error| format!("{name}: {error}"))
        };
        let files = (open("wal")?, open("external")?, open("superblock")?);
        self.disk.run(Op::Sync { file: files.1 }).map_err(|error| error.to_string())?;
        Ok(files)
    }

    /// Entry `index` is what was appended; `false` if the power failed meanwhile.
    fn check_entry(
        &mut self,
        index: usize,
        seen: &Seen,
        wal: &Wal,
        external: FileId,
    ) -> Result<bool, Violation> {
        let logged: Logged = self.model.entries[index];
        ensure(I3CommitIsForever, seen.serial_of == meta_of(&logged), || {
            let found = &seen.serial_of[..8];
            format!("entry {index} is not {}, which was appended, but {found:?}", logged.serial)
        })?;
        let (file, offset) = match logged.external {
            Some(at) => (external, EXTERNAL_BASE + at * BLOCK_BYTES as u64),
            None => {
                let bytes = u64::from(seen.payload_bytes);
                ensure(I3CommitIsForever, bytes == logged.blocks * BLOCK_BYTES as u64, || {
                    format!("entry {index} came back with {bytes} bytes of payload")
                })?;
                (wal.ring().file, wal.ring().offset(seen.payload_at))
            }
        };
        for block in 0..logged.blocks {
            let offset = offset + block * BLOCK_BYTES as u64;
            let Ok(bytes) = read_block(&mut self.disk, &self.pool, file, offset) else {
                return Ok(false);
            };
            let whole = WriteId(logged.serial).matches(BlockNo::new(block), &bytes);
            ensure(I9NoSilentCorruption, whole, || {
                let mut expected = [0; 16];
                expected.copy_from_slice(&bytes[..16]);
                format!(
                    "block {block} of entry {index} (serial {}) holds {expected:?}",
                    logged.serial
                )
            })?;
            self.counts.blocks_verified += 1;
        }
        self.counts.operations += 1;
        Ok(true)
    }
}
