//! The write-ahead log by itself, driven the way a host drives it: appends with
//! payload, with external data and with neither, groups of frames in flight,
//! checkpoints that carry live entries forward and recycle; then power cuts,
//! kills, and damage.

mod check;
mod node;

pub use check::{plan, run_seed};

use crate::{
    counts::Counts,
    disk::{DiskOptions, SimDisk},
    invariants::Violation,
    model::WriteId,
    rng::SimRng,
    trace::Trace,
};
use holdfast_io::{BufPool, Disk, OpenMode};
use holdfast_types::BlockNo;
use holdfast_wal::{Config, Ring, Start, StreamId};

/// Bytes of a segment: small ones come round often, in large ones what a
/// checkpoint carries forward reaches far.
const SEGMENT_BYTES: [u32; 3] = [512 << 10, 1 << 20, 2 << 20];
/// Segments in the ring: the fewest.
const SEGMENTS: u32 = 4;
/// Bytes of the largest ring.
const RING_BYTES_MAX: u64 = 8 << 20;
/// Blocks that external data is written to, in the file beside the log.
const EXTERNAL_BLOCKS: u64 = 256;
/// Room for ring, external data and the superblock.
const CAPACITY_BYTES: u64 = RING_BYTES_MAX + (2 << 20);

/// An entry as it was appended.
#[derive(Clone, Copy, Debug)]
struct Logged {
    /// Number of the append, also the write that its payload is made of.
    serial: u64,
    /// Blocks of payload, or of external data.
    blocks: u64,
    /// First block of external data.
    external: Option<u64>,
}

/// What outlives a crash.
#[derive(Clone, Debug)]
struct LogModel {
    /// The superblock, and the one whose write is in flight.
    start: Start,
    next_start: Option<(Start, usize)>,
    /// Entries from `start` on, in the order of their appends.
    entries: Vec<Logged>,
    /// Of these, how many are known to be durable.
    durable: usize,
    last_serial: u64,
}

/// A log on a disk, between crashes or crashed.
pub struct LogWorld {
    disk: SimDisk,
    model: LogModel,
    rng: SimRng,
    trace: Trace,
    pool: BufPool,
    stream: StreamId,
    config: Config,
    /// What happened.
    pub counts: Counts,
    /// Greatest recorded mark that the log admitted to, if it ran.
    recorded_mark: u64,
}

impl LogWorld {
    /// An empty log, created.
    pub fn new(seed: u64, trace: Trace) -> Result<Self, Violation> {
        let mut rng = SimRng::of(seed, "log");
        let device = rng.percent(30);
        let options = DiskOptions { device, capacity_bytes: CAPACITY_BYTES };
        let mut disk = SimDisk::new(seed, options, trace.clone());
        let segment_bytes = SEGMENT_BYTES[rng.within(0..SEGMENT_BYTES.len() as u64) as usize];
        let config = Config { segment_bytes, segments: SEGMENTS };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&rng.bits().to_le_bytes());
        let stream = StreamId::from_bytes(id);
        let mut created = None;
        for name in ["wal", "external", "superblock"] {
            let file = disk.open(name, OpenMode::CreateNew);
            let Ok(file) = file else { unreachable!("an empty disk takes files") };
            if name == "wal" {
                let ring = Ring { file, base: WAL_BASE, config, stream };
                created = Some(holdfast_wal::Wal::create(&mut disk, ring));
            }
        }
        let Some(Ok(start)) = created else { unreachable!("a healthy disk takes a log") };
        Ok(Self {
            disk,
            model: LogModel {
                start,
                next_start: None,
                entries: Vec::new(),
                durable: 0,
                last_serial: 0,
            },
            rng,
            trace,
            pool: BufPool::new(8 << 20),
            stream,
            config,
            counts: Counts::default(),
            recorded_mark: 0,
        })
    }
}

/// Where the ring begins, on a device also: behind the superblock.
const WAL_BASE: u64 = 8192;
/// Where external data begins, on a device behind the ring.
const EXTERNAL_BASE: u64 = WAL_BASE + RING_BYTES_MAX;

/// The content of block `index` of the payload of append `serial`.
fn fill(serial: u64, index: u64, into: &mut [u8]) {
    WriteId(serial).fill(BlockNo::new(index), into);
}
