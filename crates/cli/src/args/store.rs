//! Settings that the quick start hands to each of its nodes, and a node takes itself.

use super::values::{Backend, size};
use clap::{Args, value_parser};

/// Heading of what concerns disks.
pub(crate) const DISKS: &str = "Disks";
/// Heading of what concerns time.
pub(crate) const TIMING: &str = "Timing (the same on all nodes of a cluster)";

/// How disks are run and laid out.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = DISKS)]
pub(crate) struct StoreArgs {
    /// What carries disk I/O out.
    #[arg(long, value_enum, default_value_t = Backend::Auto, env = "HOLDFAST_BACKEND")]
    pub(crate) backend: Backend,

    /// MiB of a write-ahead log segment, when a disk is formatted.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = value_parser!(u32).range(1..=1024), env = "HOLDFAST_WAL_SEGMENT_MIB")]
    pub(crate) wal_segment_mib: u32,

    /// Segments of the write-ahead log, when a disk is formatted.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = value_parser!(u32).range(4..=1024), env = "HOLDFAST_WAL_SEGMENTS")]
    pub(crate) wal_segments: u32,

    /// MiB that may be logged and not yet applied; bounds memory and the time of a
    /// restart. At most a quarter of the write-ahead log counts.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=65536), env = "HOLDFAST_UNAPPLIED_MIB")]
    pub(crate) unapplied_mib: u32,

    /// Most that data may take on a disk, such as 100GiB, when it is formatted [default: all]
    #[arg(long, value_name = "SIZE", value_parser = size, env = "HOLDFAST_CAPACITY")]
    pub(crate) capacity: Option<u64>,
}

/// Faults for tests of the program as a process.
#[derive(Clone, Debug, Args)]
pub(crate) struct FaultArg {
    /// Faults to inject below the store, for tests.
    #[arg(long, hide = true, env = holdfast_io::fault::FAULTS_ENV)]
    pub(crate) fault: Option<String>,
}

/// How long to wait for what. All nodes of a cluster should have the same.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = TIMING)]
pub(crate) struct TimingArgs {
    /// How long a node may serve reads without hearing from the others; what a hand-over
    /// from a node that is gone has to wait. Before it is made shorter, stop all nodes for as
    /// long as it was.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = value_parser!(u32).range(100..=60_000), env = "HOLDFAST_LEASE_MS")]
    pub(crate) lease_ms: u32,

    /// A replica that does not keep up for so long is taken out of its volume's set, so
    /// that the set can lose another; it is caught up and counted again when it is back.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = value_parser!(u32).range(500..=3_600_000), env = "HOLDFAST_SHRINK_AFTER_MS")]
    pub(crate) shrink_after_ms: u32,

    /// A request that waits longer, for replicas that cannot be reached, is answered with
    /// an error; a write answered so may still happen. 0 waits for ever.
    #[arg(long, value_name = "MS", default_value_t = 0, env = "HOLDFAST_IO_TIMEOUT_MS")]
    pub(crate) io_timeout_ms: u32,

    /// How often the leader of the metadata group says that it is there.
    #[arg(long, value_name = "MS", default_value_t = 150, value_parser = value_parser!(u32).range(10..=10_000), env = "HOLDFAST_HEARTBEAT_MS")]
    pub(crate) heartbeat_ms: u32,

    /// A metadata voter that hears nothing of a leader for a time between this and
    /// --election-max-ms elects a new one.
    #[arg(long, value_name = "MS", default_value_t = 600, value_parser = value_parser!(u32).range(50..=60_000), env = "HOLDFAST_ELECTION_MIN_MS")]
    pub(crate) election_min_ms: u32,

    /// See --election-min-ms.
    #[arg(long, value_name = "MS", default_value_t = 1200, value_parser = value_parser!(u32).range(100..=120_000), env = "HOLDFAST_ELECTION_MAX_MS")]
    pub(crate) election_max_ms: u32,
}
