//! `holdfast node …`

use super::{
    ApiArgs, DISKS, FaultArg, Listen, OutputArg, StoreArgs, TimingArgs,
    values::{host_and_port, label, socket_address},
};
use clap::{Args, Subcommand, builder::ValueParser, value_parser};
use std::{net::SocketAddr, path::PathBuf};

/// A node's settings, or what to do with the nodes of a cluster.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) settings: NodeSettings,
    #[command(subcommand)]
    pub(crate) command: Option<NodeCommand>,
}

/// All that a node is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeSettings {
    /// A TOML file with settings: `wal_segments = 8` is --wal-segments 8. Flags and the
    /// environment come first.
    #[arg(long, value_name = "FILE", env = "HOLDFAST_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Where the node keeps its identity, the metadata group's state and its sockets.
    #[arg(long, value_name = "DIR", default_value = "./holdfast-data", env = "HOLDFAST_DATA_DIR")]
    pub(crate) data_dir: PathBuf,

    /// The node's name, unique in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = label, env = "HOLDFAST_NAME")]
    pub(crate) name: Option<String>,

    /// What fails together with this node: a rack, a room. Replicas go to different zones
    /// as far as there are some [default: none]
    #[arg(long, value_name = "ZONE", value_parser = label, env = "HOLDFAST_ZONE")]
    pub(crate) zone: Option<String>,

    /// Nodes that vote in the metadata group: 1, 3 or 5; it works while a majority of them
    /// does. Further nodes follow and take the place of a voter that is removed.
    #[arg(long, value_name = "N", default_value = "3", value_parser = voters(), env = "HOLDFAST_VOTERS")]
    pub(crate) voters: u8,

    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    #[command(flatten)]
    pub(crate) disks: DiskArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,

    #[command(flatten)]
    pub(crate) fault: FaultArg,

    #[command(flatten)]
    pub(crate) timing: TimingArgs,

    /// Process that this one ends with; the quick start gives it.
    #[arg(long, value_name = "PID", hide = true, value_parser = value_parser!(i32).range(1..))]
    pub(crate) parent: Option<i32>,
}

/// Addresses of a node.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Where other nodes connect. There is no encryption and no authentication: only nodes
    /// should be able to reach it.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10819", value_parser = socket_address, env = "HOLDFAST_LISTEN")]
    pub(crate) listen: SocketAddr,

    /// What other nodes are told to connect to [default: what --listen says]. Needed when
    /// that is 0.0.0.0 or its like, or when there is a translation between.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, env = "HOLDFAST_ADVERTISE")]
    pub(crate) advertise: Option<String>,

    /// Where nodes of the cluster are found at the first start: the same list on each, with
    /// its own address or without. A majority of them forms the cluster; later nodes
    /// name any that are there. Without seeds the node is a cluster by itself.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = host_and_port, env = "HOLDFAST_SEED")]
    pub(crate) seed: Vec<String>,

    /// Serve NBD on this TCP address; port 0 takes any free port, `none` turns TCP off.
    /// There is no authentication: whoever can connect can read and write.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10809", env = "HOLDFAST_NBD")]
    pub(crate) nbd: Listen,

    /// What NBD clients are told to connect to [default: what --nbd says]
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, env = "HOLDFAST_NBD_ADVERTISE")]
    pub(crate) nbd_advertise: Option<String>,

    /// Serve NBD on this unix socket too [default: DIR/nbd.sock]
    #[arg(long, value_name = "PATH", env = "HOLDFAST_NBD_SOCKET")]
    pub(crate) nbd_socket: Option<PathBuf>,

    /// Serve the management API (HTTP) on this TCP address; `none` turns TCP off, and the
    /// unix socket in the data directory stays. There is no authentication.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10829", env = "HOLDFAST_API")]
    pub(crate) api: Listen,

    /// What clients are told to ask [default: what --api says]
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, env = "HOLDFAST_API_ADVERTISE")]
    pub(crate) api_advertise: Option<String>,
}

/// Disks of a node.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = DISKS)]
pub(crate) struct DiskArgs {
    /// A directory or raw block device for replicas; several are separated by commas
    /// [default: DIR/disk]. A device is overwritten when it is empty, and refused when it is not.
    #[arg(long, value_name = "PATH,…", value_delimiter = ',', env = "HOLDFAST_DISK")]
    pub(crate) disk: Vec<PathBuf>,
}

fn voters() -> ValueParser {
    ValueParser::new(|text: &str| match text {
        "1" => Ok(1u8),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("the metadata group has 1, 3 or 5 voters".to_owned()),
    })
}

/// `holdfast node list|join|remove`
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show the nodes of the cluster.
    List {
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Make the node that is asked join a cluster.
    Join {
        /// A node of the cluster, where other nodes connect to it (its --listen or --advertise).
        #[arg(value_name = "HOST:PORT", value_parser = host_and_port)]
        seed: String,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Take a node out of the cluster. It may hold no replica that counts and nothing that is attached.
    Remove {
        /// Its name or id.
        #[arg(value_name = "NODE")]
        node: String,
        /// It is gone for good: drop its replicas that do not count, too.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}
