//! The command line. Help texts are written for someone who has never seen the
//! program; every default is shown by `--help`.

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use holdfast_io::BackendChoice;
use holdfast_meta::VolumeName;
use holdfast_node::{Config, DiskConfig, VolumeConfig};
use std::{net::SocketAddr, path::PathBuf};

const MIB: u64 = 1 << 20;

/// A crash-safe block volume, served over NBD.
///
/// Without a subcommand: opens (or makes) the data directory and a volume in it,
/// serves it until Ctrl-C or SIGTERM, and serves the same bytes when started again.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the state of the node that runs on a data directory.
    Status {
        #[command(flatten)]
        dir: DirArg,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Look into the write-ahead log of a stopped node.
    #[command(subcommand)]
    Wal(WalCommand),
    /// Look into the replicas of a stopped node.
    #[command(subcommand)]
    Replica(ReplicaCommand),
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum ReplicaCommand {
    /// Check superblocks, map pages and slot states, and say what they hold.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct DirArg {
    /// Where the node keeps its data.
    #[arg(long, value_name = "DIR", default_value = "./holdfast-data", env = "HOLDFAST_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OfflineDisk {
    #[command(flatten)]
    pub(crate) dir: DirArg,
    /// The node's disk, when it is not DIR/disk.
    #[arg(long, value_name = "PATH", env = "HOLDFAST_DISK")]
    pub(crate) disk: Option<PathBuf>,
}

impl OfflineDisk {
    pub(crate) fn disk_path(&self) -> PathBuf {
        self.disk.clone().unwrap_or_else(|| self.dir.data_dir.join("disk"))
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    dir: DirArg,

    /// Serve NBD on this TCP address; port 0 takes any free port, `none` turns TCP off.
    /// There is no authentication: whoever can connect can read and write.
    #[arg(long, value_name = "ADDR", default_value = Config::nbd_default(), env = "HOLDFAST_NBD")]
    nbd: NbdAddress,

    /// Serve NBD on this unix socket [default: DIR/nbd.sock]
    #[arg(long, value_name = "PATH", env = "HOLDFAST_NBD_SOCKET")]
    nbd_socket: Option<PathBuf>,

    /// The volume to serve; created if there is none of that name.
    #[arg(long, value_name = "NAME", default_value = "demo", env = "HOLDFAST_VOLUME")]
    volume: VolumeName,

    /// Size of the volume when it is created, such as 10GiB [default: 1GiB]
    #[arg(long, env = "HOLDFAST_SIZE")]
    size: Option<ByteSize>,

    /// Logical block size of the volume when it is created: 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES", value_parser = block_size, env = "HOLDFAST_BLOCK_SIZE")]
    block_size: Option<u32>,

    /// A directory or raw block device for the data [default: DIR/disk].
    /// A device is overwritten when it is empty, and refused when it is not.
    #[arg(long, value_name = "PATH", env = "HOLDFAST_DISK")]
    disk: Option<PathBuf>,

    /// What carries disk I/O out.
    #[arg(long, value_enum, default_value_t = Backend::Auto, env = "HOLDFAST_BACKEND")]
    backend: Backend,

    /// MiB of a write-ahead log segment, when the disk is formatted.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024), env = "HOLDFAST_WAL_SEGMENT_MIB")]
    wal_segment_mib: u32,

    /// Segments of the write-ahead log, when the disk is formatted.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(4..=1024), env = "HOLDFAST_WAL_SEGMENTS")]
    wal_segments: u32,

    /// MiB that may be logged and not yet applied; bounds memory and the time of a
    /// restart. At most a quarter of the write-ahead log counts.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536), env = "HOLDFAST_UNAPPLIED_MIB")]
    unapplied_mib: u32,

    /// Most that data may take on the disk, such as 100GiB, when it is formatted [default: all]
    #[arg(long, value_name = "SIZE", env = "HOLDFAST_CAPACITY")]
    capacity: Option<ByteSize>,

    /// Faults to inject below the store, for tests.
    #[arg(long, hide = true, env = holdfast_io::fault::FAULTS_ENV)]
    fault: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// io_uring if the system allows it, else threads.
    Auto,
    /// io_uring with registered buffers, or fail.
    Uring,
    /// io_uring without registered buffers, or fail.
    UringUnregistered,
    /// A pool of threads.
    Threads,
}

#[derive(Clone, Copy, Debug)]
struct NbdAddress(Option<SocketAddr>);

impl std::str::FromStr for NbdAddress {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "none" => Ok(Self(None)),
            _ => s.parse().map(|address| Self(Some(address))).map_err(|_| {
                format!("{s:?} is no address; write IP:PORT, such as 127.0.0.1:10809, or none")
            }),
        }
    }
}

fn block_size(s: &str) -> Result<u32, String> {
    match s {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err("a logical block has 512 or 4096 bytes".to_owned()),
    }
}

impl ServeArgs {
    pub(crate) fn into_config(self) -> Config {
        Config {
            data_dir: self.dir.data_dir,
            nbd: self.nbd.0,
            nbd_socket: self.nbd_socket,
            disk: DiskConfig {
                path: self.disk,
                backend: match self.backend {
                    Backend::Auto => BackendChoice::Auto,
                    Backend::Uring => BackendChoice::Uring,
                    Backend::UringUnregistered => BackendChoice::UringUnregistered,
                    Backend::Threads => BackendChoice::Threads,
                },
                segment_bytes: self.wal_segment_mib * MIB as u32,
                segments: self.wal_segments,
                capacity_bytes: self.capacity.map(|size| size.as_u64()),
                unapplied_bytes_max: u64::from(self.unapplied_mib) * MIB,
                fault: self.fault,
            },
            volume: VolumeConfig {
                name: self.volume,
                size_bytes: self.size.map(|size| size.as_u64()),
                logical_block_bytes: self.block_size,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn config(args: &[&str]) -> Config {
        let all = ["holdfast"].iter().chain(args);
        Cli::try_parse_from(all).unwrap().serve.into_config()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_quick_start() {
        let config = config(&[]);
        assert_eq!(config.nbd, Some("127.0.0.1:10809".parse().unwrap()));
        assert_eq!(config.volume.name.as_str(), "demo");
        assert_eq!(config.disk.unapplied_bytes_max, 256 << 20);
    }

    #[test]
    fn sizes_are_binary_and_addresses_can_be_off() {
        let config = config(&["--size", "10GiB", "--nbd", "none", "--block-size", "4096"]);
        assert_eq!(config.volume.size_bytes, Some(10 << 30));
        assert_eq!(config.nbd, None);
        assert_eq!(config.volume.logical_block_bytes, Some(4096));
        for bad in [&["--nbd", "localhost"][..], &["--block-size", "1024"], &["--volume", "A"]] {
            let all = ["holdfast"].iter().chain(bad);
            assert!(Cli::try_parse_from(all).is_err(), "{bad:?}");
        }
    }
}
