//! What a node is told at its start.

use holdfast_io::BackendChoice;
use holdfast_meta::VolumeName;
use std::{net::SocketAddr, path::PathBuf};

/// Everything that a node is told. The defaults of the command line are the constants here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the node keeps its identity, the metadata group's state and its sockets.
    pub data_dir: PathBuf,
    /// Its name, unique in the cluster; `None` is the host's name.
    pub name: Option<String>,
    /// What fails together with it; may be empty.
    pub zone: String,
    /// Where other nodes connect; port 0 takes any free one. `None`: no other node can,
    /// and the node is a cluster by itself.
    pub listen: Option<SocketAddr>,
    /// What other nodes are told to connect to, `HOST:PORT`; `None` is `listen`.
    pub advertise: Option<String>,
    /// Where nodes of the cluster are found at the first start. None, or only itself: the
    /// node is a cluster by itself.
    pub seeds: Vec<String>,
    /// NBD over TCP; port 0 takes any free one; `None` is off.
    pub nbd: Option<SocketAddr>,
    /// What clients are told to connect to, `HOST:PORT`; `None` is `nbd`.
    pub nbd_advertise: Option<String>,
    /// NBD over a unix socket; `None` is `nbd.sock` in the data directory.
    pub nbd_socket: Option<PathBuf>,
    /// The management API over TCP; `None` is off: the socket in the data directory remains.
    pub api: Option<SocketAddr>,
    /// What others are told to ask, `HOST:PORT`; `None` is `api`.
    pub api_advertise: Option<String>,
    /// Its disks; none stands for `disk` in the data directory.
    pub disks: Vec<DiskConfig>,
    /// How disks are laid out and run.
    pub store: StoreConfig,
    /// How long things may take.
    pub timing: TimingConfig,
    /// Voters that the metadata group keeps: 1, 3 or 5.
    pub voters: u8,
    /// A volume to create, if there is none of that name, and to attach here.
    pub volume: Option<VolumeConfig>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// A directory or a raw block device.
    pub path: PathBuf,
    /// Bytes for slots at most; used when the disk is formatted.
    pub capacity_bytes: Option<u64>,
}

/// How disks are laid out and run.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// What carries their I/O out.
    pub backend: BackendChoice,
    /// Bytes of a WAL segment; used when a disk is formatted.
    pub segment_bytes: u32,
    /// WAL segments; used when a disk is formatted.
    pub segments: u32,
    /// Logged and not yet applied, at most.
    pub unapplied_bytes_max: u64,
    /// Faults to inject, for tests of the daemon as a process.
    pub fault: Option<String>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingConfig {
    /// Length of the leases that this node grants.
    pub lease_ms: u64,
    /// A replica that has not kept up for so long is taken out of its set.
    pub shrink_after_ms: u64,
    /// A request that waits longer is answered with an error; 0 waits for ever.
    pub io_timeout_ms: u64,
    /// How often the leader of the metadata group is heard.
    pub heartbeat_ms: u64,
    /// How long it may be silent before another is elected: at least, at most.
    pub election_ms: (u64, u64),
}

impl Default for TimingConfig {
    fn default() -> Self {
        Self {
            lease_ms: 1000,
            shrink_after_ms: 5000,
            io_timeout_ms: 0,
            heartbeat_ms: 150,
            election_ms: (600, 1200),
        }
    }
}

/// The volume of a quick start.
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
    /// Voters of the metadata group when nothing else is said.
    pub const VOTERS_DEFAULT: u8 = 3;
    /// The port that IANA registered for NBD.
    pub const NBD_PORT_DEFAULT: u16 = 10809;
    /// Where nodes listen for each other.
    pub const PEER_PORT_DEFAULT: u16 = 10819;
    /// Where the management API is over TCP.
    pub const API_PORT_DEFAULT: u16 = 10829;

    /// The disks, the one that stands for none included.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskConfig> {
        match self.disks.is_empty() {
            true => vec![DiskConfig { path: self.data_dir.join("disk"), capacity_bytes: None }],
            false => self.disks.clone(),
        }
    }
}
