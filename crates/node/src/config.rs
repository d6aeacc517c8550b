//! What a node is told at its start.

use holdfast_io::BackendChoice;
use holdfast_meta::VolumeName;
use std::{net::SocketAddr, path::PathBuf};

/// Default NBD address: the port that IANA registered for NBD, on loopback.
pub(crate) const NBD_ADDRESS_DEFAULT: &str = "127.0.0.1:10809";

/// Everything that a node is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node keeps its data.
    pub data_dir: PathBuf,
    /// NBD over TCP; port 0 takes any free one; `None` is off.
    pub nbd: Option<SocketAddr>,
    /// NBD over a unix socket; `None` is `nbd.sock` in the data directory.
    pub nbd_socket: Option<PathBuf>,
    /// The disk.
    pub disk: DiskConfig,
    /// A volume to create if there is none of that name.
    pub volume: VolumeConfig,
}

/// How the disk is laid out and run.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// A directory or a raw block device; `None` is `disk` in the data directory.
    pub path: Option<PathBuf>,
    /// What carries its I/O out.
    pub backend: BackendChoice,
    /// Bytes of a WAL segment; used when the disk is formatted.
    pub segment_bytes: u32,
    /// WAL segments; used when the disk is formatted.
    pub segments: u32,
    /// Bytes for slots at most; used when the disk is formatted.
    pub capacity_bytes: Option<u64>,
    /// Logged and not yet applied, at most.
    pub unapplied_bytes_max: u64,
    /// Faults to inject, for tests of the daemon as a process.
    pub fault: Option<String>,
}

/// The volume that the quick start makes.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// Its name.
    pub name: VolumeName,
    /// Its size if it is created; if it exists, it must have this size.
    pub size_bytes: Option<u64>,
    /// Its logical block size, likewise.
    pub logical_block_bytes: Option<u32>,
}

impl VolumeConfig {
    /// Size of a volume when none is given.
    pub const SIZE_BYTES_DEFAULT: u64 = 1 << 30;
    /// Logical block size when none is given: what every client can address.
    pub const LOGICAL_BLOCK_BYTES_DEFAULT: u32 = 512;
}

impl Config {
    /// The NBD address when none is given.
    #[must_use]
    pub fn nbd_default() -> &'static str {
        NBD_ADDRESS_DEFAULT
    }
}
