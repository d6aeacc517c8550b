//! A whole replica on one disk: the shipping host, behind the smallest engine
//! that can drive one. A volume's set has one member, so what the host
//! acknowledges is committed; the engine tells it so soon, late or much later.
//!
//! Everything is small (segments, ring, limits, volumes), so that rounds,
//! checkpoints, recycling and full disks come all the time.

mod client;
mod crash;
mod damage;
mod events;
mod format;
mod life;
mod node;

pub use life::{enumerate, plan, run_seed};

use crate::{
    counts::Counts,
    disk::{DiskOptions, SimDisk},
    invariants::Violation,
    model::Model,
    rng::SimRng,
    trace::Trace,
};
use holdfast_io::BufPool;
use holdfast_replica::{FormatOptions, HostOptions};
use node::Node;

const MIB: u64 = 1 << 20;
/// What a world's buffers come from: more than everything that can be in flight.
const POOL_BYTES: usize = 32 << 20;

/// Why a stretch of simulated time ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An invariant does not hold.
    Violation(Violation),
    /// The power failed.
    PowerLost,
    /// The disk latched as failed; the process gives it up.
    DiskFailed,
    /// The disk was damaged on purpose, and does not open.
    Unreadable,
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Sizes of one world, drawn from its seed.
#[derive(Clone, Debug)]
struct Shape {
    disk: DiskOptions,
    format: FormatOptions,
    host: HostOptions,
}

impl Shape {
    fn draw(rng: &mut SimRng) -> Self {
        let segments = rng.within(4..7) as u32;
        let ring = MIB * u64::from(segments);
        let data = MIB * rng.within(10..24);
        let device = rng.percent(25);
        Self {
            disk: DiskOptions { device, capacity_bytes: ring + data + 2 * MIB },
            format: FormatOptions {
                segment_bytes: MIB as u32,
                segments,
                capacity_bytes: rng.percent(50).then_some(data - MIB),
            },
            host: HostOptions {
                unapplied_bytes_max: MIB * rng.within(1..3),
                payload_cache_bytes: (64 << 10) * rng.within(1..16),
                map_cache_bytes: (64 << 10) * rng.within(1..4),
            },
        }
    }
}

/// One disk, the node on it while it runs, and what the world knows about both.
pub struct World {
    shape: Shape,
    disk: SimDisk,
    model: Model,
    rng: SimRng,
    trace: Trace,
    pool: BufPool,
    node: Option<Node>,
    now_ms: u64,
    /// Turns of work in a life at most.
    turns_max: u64,
    /// A fault that excuses errors (never wrong data) is on the disk.
    damaged: bool,
    /// What happened.
    pub counts: Counts,
}

impl World {
    /// A formatted disk, perhaps one whose format was cut short at first.
    pub fn new(seed: u64, trace: Trace) -> Result<Self, Violation> {
        let mut rng = SimRng::of(seed, "replica");
        let shape = Shape::draw(&mut rng);
        let pool = BufPool::new(POOL_BYTES);
        let (disk, counts) = format::formatted(seed, &shape, &pool, &trace)?;
        Ok(Self {
            shape,
            disk,
            model: Model::default(),
            rng,
            trace,
            pool,
            node: None,
            now_ms: 0,
            turns_max: u64::MAX,
            damaged: false,
            counts,
        })
    }
}
