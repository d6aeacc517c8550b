//! Why a node does not start or had to stop. Each is one line that names the
//! cause and what to do.

use holdfast_meta::Rejected;
use holdfast_replica::HostError;
use std::{io, path::PathBuf};

/// Why a node does not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Permission, read-only file system and the like.
    #[error("cannot use the data directory {}: {source}; choose another with --data-dir, or make it writable", path.display())]
    DirectoryAccess {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{0} (--data-dir)")]
    InUse(io::Error),
    /// It holds something that is not ours.
    #[error("{} holds other files and is no holdfast data directory; choose an empty or new one with --data-dir", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error("the data directory {} has format {found}, and this version understands {}; start the newer holdfast that wrote it", path.display(), crate::FORMAT_VERSION)]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Tools need one.
    #[error("{} is no holdfast data directory; name one with --data-dir", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A listener could not be bound.
    #[error("{source} ({option})")]
    Listen {
        /// What was tried, what the system said, what to do.
        source: io::Error,
        /// The option that chooses another address.
        option: &'static str,
    },
    /// The catalogue cannot be read or written.
    #[error("the catalogue {} cannot be used: {reason}; make room or repair what is named, or put back a copy of the data directory", path.display())]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The catalogue refused a change.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The disk cannot be opened at all.
    #[error("cannot use the disk {}: {source} (--disk)", path.display())]
    DiskOpen {
        /// The directory or device.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk's directory holds something that is not ours.
    #[error("{} holds other files and is no holdfast disk; choose an empty or new directory with --disk", path.display())]
    ForeignDisk {
        /// The directory.
        path: PathBuf,
    },
    /// The disk holds replicas that this node's catalogue does not know.
    #[error("the disk {} holds volumes of another data directory; start with that --data-dir, or choose another --disk", path.display())]
    OthersDisk {
        /// The directory or device.
        path: PathBuf,
    },
    /// The disk's store cannot be used.
    #[error("cannot use the disk {}: {source}", path.display())]
    Disk {
        /// The directory or device.
        path: PathBuf,
        /// Why.
        source: HostError,
    },
    /// A volume that has held data has no replica on this disk any more.
    #[error("the disk {} does not hold the replica of volume {name} that the catalogue names; give the disk back that it was written on", path.display())]
    ReplicaLost {
        /// The directory or device.
        path: PathBuf,
        /// The volume.
        name: String,
    },
    /// The volume exists with another geometry than was asked for.
    #[error(
        "volume {name} exists with {held}; leave --size and --block-size out, or choose another --volume"
    )]
    Geometry {
        /// The volume.
        name: String,
        /// Its geometry.
        held: String,
    },
    /// The engine does not serve.
    #[error("volume {name} cannot be served: {reason}")]
    Attach {
        /// The volume.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The system refused something that every start needs.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
