//! Commands that ask a running node over the management API.

use super::{
    DirArg, OfflineDisk, Output, OutputArg,
    values::{block_size, size},
};
use crate::endpoint::Endpoint;
use clap::{Args, Subcommand, value_parser};
use holdfast_meta::VolumeName;
use std::path::PathBuf;

/// Which node is asked: any one of a cluster will do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whom to ask")]
pub(crate) struct ApiArgs {
    /// A node's management API: http://HOST:PORT, or the path of a unix socket [default: the
    /// socket in the data directory]
    #[arg(long, value_name = "URL|PATH", env = "HOLDFAST_API")]
    pub(crate) api: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) dir: DirArg,
}

/// `holdfast volume …`
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume. It is attached to no node yet.
    Create(VolumeCreateArgs),
    /// Show all volumes.
    List {
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Show one volume and each of its replicas.
    Show {
        /// The volume.
        name: VolumeName,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Delete a volume and its data, without asking. Refused while it is attached.
    Delete {
        /// The volume.
        name: VolumeName,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make a volume larger. NBD clients see it when they connect again.
    Resize(ResizeArgs),
    /// Serve a volume on a node. It stays attached there, also when the node is restarted,
    /// until it is detached or attached elsewhere.
    ///
    /// A volume that is attached elsewhere is taken over: the other node can neither write
    /// nor read it any more from then on.
    Attach {
        /// The volume.
        name: VolumeName,
        /// Name or id of the node [default: the node that is asked]
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Clients may only read.
        #[arg(long)]
        read_only: bool,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Serve a volume no longer. Its clients are disconnected.
    Detach {
        /// The volume.
        name: VolumeName,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `holdfast volume create`
#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// Its name: 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit.
    pub(crate) name: VolumeName,
    /// Its size, such as 10GiB. It takes no space before it is written.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) size: u64,
    /// Logical block size, 512 or 4096.
    #[arg(long, value_name = "BYTES", default_value = "512", value_parser = block_size)]
    pub(crate) block_size: u32,
    /// Copies of its data, each on another node [default: 3, or as many as there are nodes]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(1..=7))]
    pub(crate) replicas: Option<u8>,
    /// When replicas fail one after the other, go on serving down to so many.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u8).range(1..=7))]
    pub(crate) min_replicas: u8,
    #[command(flatten)]
    pub(crate) output: OutputArg,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `holdfast volume resize`
#[derive(Debug, Args)]
pub(crate) struct ResizeArgs {
    /// The volume.
    pub(crate) name: VolumeName,
    /// Its new size, such as 20GiB; not less than it has.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) size: u64,
    #[command(flatten)]
    pub(crate) output: OutputArg,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `holdfast disk …`
#[derive(Debug, Subcommand)]
pub(crate) enum DiskCommand {
    /// Show the disks of all nodes.
    List {
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Give the node that is asked another disk.
    Add {
        /// A directory or raw block device of that node's machine. A device is overwritten
        /// when it is empty, and refused when it is not.
        path: PathBuf,
        /// Most that data may take on it, such as 100GiB [default: all]
        #[arg(long, value_name = "SIZE", value_parser = size)]
        capacity: Option<u64>,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take a disk away from its node. It may hold no replica that counts.
    Remove {
        /// The disk's id.
        #[arg(value_name = "DISK")]
        disk: String,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// `holdfast replica …`
#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaCommand {
    /// Compare all replicas of a volume of a running cluster.
    ///
    /// Every replica's own store and log are read from its disk as of one LSN: which blocks
    /// are present, and what each holds. The volume goes on serving. Exit code 3 when they
    /// differ, 4 when not all could be compared and those that could are identical.
    Verify {
        /// The volume.
        name: VolumeName,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Check superblocks, map pages and slot states of a stopped node, and say what they hold.
    Inspect {
        #[command(flatten)]
        disk: OfflineDisk,
        /// Read all data too, and compare it with its checksums.
        #[arg(long)]
        deep: bool,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}
