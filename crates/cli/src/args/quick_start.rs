//! `holdfast` without a subcommand.

use super::{DirArg, FaultArg, Listen, StoreArgs, TimingArgs, values};
use clap::{Args, value_parser};
use holdfast_meta::VolumeName;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

/// What the quick start is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct QuickStartArgs {
    #[command(flatten)]
    pub(crate) dir: DirArg,

    /// Nodes to run, each as a process of its own; 1 runs a single node in this very
    /// process, on the data directory itself.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u8).range(1..=9), env = "HOLDFAST_NODES")]
    pub(crate) nodes: u8,

    /// Where the nodes listen, with NBD on ports 10809, 10810 …, for each other on 10819 …
    /// and with the management API on 10829 …
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), env = "HOLDFAST_ADDRESS")]
    pub(crate) address: IpAddr,

    /// The volume to serve; created if there is none of that name.
    #[arg(long, value_name = "NAME", default_value = "demo", env = "HOLDFAST_VOLUME")]
    pub(crate) volume: VolumeName,

    /// Size of the volume when it is created, such as 10GiB [default: 1GiB]
    #[arg(long, value_parser = values::size, env = "HOLDFAST_SIZE")]
    pub(crate) size: Option<u64>,

    /// Logical block size of the volume when it is created: 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES", value_parser = values::block_size, env = "HOLDFAST_BLOCK_SIZE")]
    pub(crate) block_size: Option<u32>,

    #[command(flatten)]
    pub(crate) single: SingleArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) fault: FaultArg,

    #[command(flatten)]
    pub(crate) timing: TimingArgs,
}

/// Settings that only one node can have.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "With --nodes 1 only")]
pub(crate) struct SingleArgs {
    /// Serve NBD on this TCP address; port 0 takes any free port, `none` turns TCP off
    /// [default: port 10809 of --address]. There is no authentication: whoever can connect
    /// can read and write.
    #[arg(long, value_name = "IP:PORT", env = "HOLDFAST_NBD")]
    pub(crate) nbd: Option<Listen>,

    /// Serve NBD on this unix socket [default: DIR/nbd.sock]
    #[arg(long, value_name = "PATH", env = "HOLDFAST_NBD_SOCKET")]
    pub(crate) nbd_socket: Option<PathBuf>,

    /// A directory or raw block device for the data [default: DIR/disk].
    /// A device is overwritten when it is empty, and refused when it is not.
    #[arg(long, value_name = "PATH", env = "HOLDFAST_DISK")]
    pub(crate) disk: Option<PathBuf>,
}
