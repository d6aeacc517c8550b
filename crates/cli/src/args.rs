//! The command line. Help texts are written for someone who has never seen the
//! program; every default is shown by `--help`.
//!
//! A setting of a node has one name: the flag `--wal-segments` is the environment
//! variable `HOLDFAST_WAL_SEGMENTS` and the key `wal_segments` of a configuration
//! file. `docs/configuration.md` is printed from the declarations below.

mod client;
mod node;
mod quick_start;
mod store;
mod values;

pub(crate) use client::{ApiArgs, DiskCommand, ReplicaCommand, VolumeCommand};
pub(crate) use node::{NodeArgs, NodeCommand, NodeSettings};
pub(crate) use quick_start::QuickStartArgs;
pub(crate) use store::{DISKS, FaultArg, StoreArgs, TIMING, TimingArgs};
pub(crate) use values::{Listen, Output};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

/// What the exit codes mean; stands below `--help`.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, standard error says why and what to do; 2 the command line cannot be \
understood; 3 `replica verify` found differences; 4 it could not compare all replicas.

The log goes to standard error; HOLDFAST_LOG filters it, such as HOLDFAST_LOG=debug.";

/// Replicated, crash-safe block volumes, served over NBD.
///
/// Without a subcommand: the quick start. It runs three nodes on this machine, makes a
/// volume with a replica on each, serves it until Ctrl-C or SIGTERM, and serves the same
/// bytes when started again.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = EXIT_CODES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) quick_start: QuickStartArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one node of a cluster, or look after the nodes of one.
    ///
    /// Without a subcommand this runs a node until SIGTERM or Ctrl-C. Nodes that name the
    /// same seeds form a cluster by themselves, started in any order; a majority of the
    /// seeds has to be there. A node that is restarted takes up what it did.
    ///
    /// Each setting is taken from its flag, else from the environment, else from the file
    /// that --config names, else from its default.
    Node(Box<NodeArgs>),
    /// Create, change, attach and delete volumes.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Show, add and remove the disks that hold replicas.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Check replicas: those of a running cluster, or of a stopped node.
    #[command(subcommand)]
    Replica(ReplicaCommand),
    /// Show the state of the cluster: nodes, disks, volumes.
    Status {
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Look into the write-ahead log of a stopped node.
    #[command(subcommand)]
    Wal(WalCommand),
    /// Print the version of this program, and of the node that answers, if one does.
    Version {
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Print a completion script, to be sourced by a shell.
    ///
    /// For bash: holdfast completions bash > ~/.local/share/bash-completion/completions/holdfast
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print docs/configuration.md.
    #[command(hide = true)]
    ConfigurationPage,
}

/// `holdfast wal …`
#[derive(Debug, Subcommand)]
pub(crate) enum WalCommand {
    /// Print every frame and record, and where and why the log ends.
    Dump {
        #[command(flatten)]
        disk: OfflineDisk,
        /// How to print it; `json` is one object a line.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// How to print an answer.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArg {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// The data directory.
#[derive(Clone, Debug, Args)]
pub(crate) struct DirArg {
    /// Where the node keeps its data; the quick start keeps its nodes' in DIR/node1, DIR/node2 …
    #[arg(long, value_name = "DIR", default_value = "./holdfast-data", env = "HOLDFAST_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

/// A stopped node's disk.
#[derive(Debug, Args)]
pub(crate) struct OfflineDisk {
    #[command(flatten)]
    pub(crate) dir: DirArg,
    /// The node's disk, when it is not DIR/disk.
    #[arg(long, value_name = "PATH", env = "HOLDFAST_DISK")]
    pub(crate) disk: Option<PathBuf>,
}

impl OfflineDisk {
    /// The directory or device.
    pub(crate) fn disk_path(&self) -> PathBuf {
        self.disk.clone().unwrap_or_else(|| self.dir.data_dir.join("disk"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    pub(crate) fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["holdfast"].iter().chain(args))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_input_is_refused() {
        for bad in [
            &["--nbd", "localhost"][..],
            &["--block-size", "1024"],
            &["--volume", "A"],
            &["--nodes", "0"],
            &["--nodes", "10"],
            &["--address", "here"],
            &["volume", "create", "Demo", "--size", "1GiB"],
            &["volume", "create", "demo"],
            &["volume", "create", "demo", "--size", "much"],
            &["volume", "create", "demo", "--size", "1GiB", "--replicas", "0"],
            &["volume", "resize", "demo"],
            &["node", "--lease-ms", "0"],
            &["node", "remove"],
            &["status", "-o", "yaml"],
            &["status", "--api", "ftp://x"],
            &["completions", "csh"],
            &["--data-dir", "x", "status"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
