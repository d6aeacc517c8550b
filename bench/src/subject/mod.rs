//! The servers that are compared, each on storage of its own.
//!
//! - [`Kind`]: who there is, and what is said of them in the report;
//! - [`Subject`]: one that runs.

pub mod floor;
pub mod holdfast;
pub mod qemu;
pub mod raw;

use crate::ceph::{self, Ceph};
use crate::install::{FIO, Needs, QEMU};
use crate::outcome::{BASELINE, Column, Machine};
use crate::sampling::Process;
use clap::ValueEnum;
use holdfast_tests::Result;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// A server that runs; it ends, and leaves only files behind, when dropped.
pub trait Subject: Debug {
    /// How fio reaches each of its volumes.
    fn volumes(&self) -> &[Volume];

    /// Its processes; none when there is no server.
    ///
    /// # Errors
    /// When one has ended.
    fn processes(&self) -> Result<Vec<Process>>;

    /// Waits until it has nothing left to do in the background, as far as it says so.
    ///
    /// # Errors
    /// When it does not come to rest.
    fn settle(&self) -> Result<()>;
}

/// How fio reaches a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Engine and address, the engine first.
    pub fio_args: Vec<String>,
    /// Variables that fio needs.
    pub environment: Vec<(String, String)>,
}

impl Volume {
    /// One on an NBD server's unix socket.
    #[must_use]
    pub fn nbd(export: &str, socket: &Path) -> Volume {
        Volume::nbd_uri(&format!("nbd+unix:///{export}?socket={}", socket.display()))
    }

    /// One at an NBD URI.
    #[must_use]
    pub fn nbd_uri(uri: &str) -> Volume {
        let fio_args = vec!["--ioengine=nbd".to_owned(), format!("--uri={uri}")];
        Volume { fio_args, environment: Vec::new() }
    }
}

/// What a server is to set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// A directory of its own, or one that it shares with those that do the same to the same files.
    pub dir: PathBuf,
    /// How many volumes.
    pub volumes: u32,
    /// Bytes of each.
    pub volume_bytes: u64,
    /// Further arguments of Holdfast's nodes.
    pub holdfast_args: Vec<String>,
}

impl Layout {
    /// The number of each volume.
    fn numbers(&self) -> std::ops::Range<u32> {
        0..self.volumes
    }
}

/// Who can take part, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Three Holdfast nodes with a replica each.
    HoldfastX3,
    /// One Holdfast node.
    HoldfastX1,
    /// The system calls of a replicated write alone.
    Floor,
    /// The files, without a server.
    Raw,
    /// qemu-nbd on one raw file: unreplicated.
    QemuNbd,
    /// QEMU's quorum driver over three qemu-nbd.
    Quorum,
    /// Ceph with three OSDs.
    Ceph,
}

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Kind> {
        Kind::value_variants().iter().copied()
    }

    /// Stable name.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Kind::HoldfastX3 => "holdfast-x3",
            Kind::HoldfastX1 => "holdfast-x1",
            Kind::Floor => "floor",
            Kind::Raw => "raw",
            Kind::QemuNbd => BASELINE,
            Kind::Quorum => "quorum",
            Kind::Ceph => "ceph",
        }
    }

    /// What the report says of it.
    #[must_use]
    pub fn column(self) -> Column {
        let (title, copies, durable, setup) = match self {
            Kind::HoldfastX3 => {
                let setup = "three node processes, TCP on loopback between them, default settings";
                ("Holdfast, 3 replicas", 3, true, setup)
            }
            Kind::HoldfastX1 => ("Holdfast, 1 replica", 1, true, "one process, default settings"),
            Kind::Floor => {
                let setup = "three processes of the bench that send, log and acknowledge, and do nothing \
                             else; what is written is not read back";
                ("floor, 3 copies", 3, true, setup)
            }
            Kind::Raw => (
                "raw file",
                1,
                false,
                "fio io_uring, O_DIRECT, on the files of qemu-nbd; no server",
            ),
            Kind::QemuNbd => {
                ("qemu-nbd", 1, false, "a raw file for each volume, cache=none, aio=io_uring")
            }
            Kind::Quorum => {
                let setup = "quorum driver, vote-threshold=2, read-pattern=fifo, over three qemu-nbd \
                             (cache=none, aio=io_uring) on unix sockets";
                ("QEMU quorum, 3 copies", 3, false, setup)
            }
            Kind::Ceph => ("Ceph RBD, 3 copies", ceph::COPIES, true, ceph::SETUP),
        };
        Column {
            id: self.id().to_owned(),
            title: title.to_owned(),
            copies,
            durable,
            version: None,
            setup: setup.to_owned(),
            absent: None,
            no_syscalls: None,
        }
    }

    /// Its directory below a block's. The raw files are those of qemu-nbd, which keeps nothing of them in memory.
    #[must_use]
    pub fn dir(self) -> &'static str {
        match self {
            Kind::Raw | Kind::QemuNbd => "plain",
            kind => kind.id(),
        }
    }

    /// Its version, where `machine` or the program itself says so.
    #[must_use]
    pub fn version(self, machine: &Machine) -> Option<String> {
        let program = match self {
            Kind::HoldfastX3 | Kind::HoldfastX1 => "holdfast",
            Kind::Floor => return Some(env!("CARGO_PKG_VERSION").to_owned()),
            Kind::Raw => "fio",
            Kind::QemuNbd | Kind::Quorum => "qemu-nbd",
            Kind::Ceph => return ceph::version(),
        };
        let (_, version) = machine.versions.iter().find(|(name, _)| name == program)?;
        Some(version.clone())
    }

    /// Whether it does all of its rounds while no other server is up.
    #[must_use]
    pub fn is_apart(self) -> bool {
        self == Kind::Ceph
    }

    /// The programs that it takes.
    #[must_use]
    pub fn needs(self) -> &'static [Needs] {
        match self {
            Kind::HoldfastX3 | Kind::HoldfastX1 | Kind::Floor | Kind::Raw => &[FIO],
            Kind::QemuNbd | Kind::Quorum => &[FIO, QEMU],
            Kind::Ceph => &[FIO, ceph::NEEDS],
        }
    }

    /// Bytes of disk that it takes for `area_bytes`, rounded up.
    #[must_use]
    pub fn room_bytes(self, area_bytes: u64) -> u64 {
        /// The write-ahead log of a node by default, and what is written to fresh slots
        /// before old ones are free, twice what may be unapplied.
        const HOLDFAST_BESIDES: u64 = (1 << 30) + (512 << 20);
        /// Maps and checkpoints are below one part in so many.
        const HOLDFAST_MAPS: u64 = 64;
        /// Of three processes.
        const FLOOR_LOGS: u64 = 3 * (512 << 20);
        let holdfast = area_bytes + area_bytes / HOLDFAST_MAPS + HOLDFAST_BESIDES;
        match self {
            Kind::HoldfastX3 => 3 * holdfast,
            Kind::HoldfastX1 => holdfast,
            Kind::Floor => area_bytes + FLOOR_LOGS,
            Kind::Raw | Kind::QemuNbd => area_bytes,
            Kind::Quorum => 3 * area_bytes,
            Kind::Ceph => ceph::room_bytes(area_bytes),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it does not serve.
    pub fn start(self, layout: &Layout) -> Result<Box<dyn Subject>> {
        Ok(match self {
            Kind::HoldfastX3 => Box::new(holdfast::Nodes::three(layout)?),
            Kind::HoldfastX1 => Box::new(holdfast::Nodes::one(layout)?),
            Kind::Floor => Box::new(floor::Floor::start(layout)?),
            Kind::Raw => Box::new(raw::Raw::new(layout)?),
            Kind::QemuNbd => Box::new(qemu::Plain::start(layout)?),
            Kind::Quorum => Box::new(qemu::Quorum::start(layout)?),
            Kind::Ceph => Box::new(Ceph::start(layout)?),
        })
    }
}
