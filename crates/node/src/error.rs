//! Why a node does not start or had to stop. Each is one line that names the
//! cause and what to do.

use holdfast_meta::{MetaError, Rejected};
use holdfast_replica::HostError;
use holdfast_types::NodeId;
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
    /// An earlier version wrote it.
    #[error("the data directory {} has format {found} of an earlier version, from before there were clusters; copy its volumes out with that version (nbdcopy), and start with a new --data-dir", path.display())]
    OlderFormat {
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
    /// An address that others could not connect to.
    #[error(
        "other nodes cannot connect to {address}; name an address of this machine that they can reach ({option})"
    )]
    Advertise {
        /// What they would have been told.
        address: String,
        /// The option that names another.
        option: &'static str,
    },
    /// The metadata group's store cannot be used, or a setting of it.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The catalogue does not take the node in.
    #[error("the cluster does not take this node: {0}")]
    NotTaken(Rejected),
    /// The node was taken out of the cluster.
    #[error(
        "node {node} was removed from its cluster; with an empty data directory and empty disks it comes back as a new one"
    )]
    Removed {
        /// This node.
        node: NodeId,
    },
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
    /// The volume of a quick start cannot be made or served.
    #[error("volume {name} cannot be served: {reason}")]
    Volume {
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

impl NodeError {
    /// The shard's thread is no more.
    pub(crate) fn shard_gone() -> Self {
        let source = io::Error::other("its thread ended");
        Self::System { what: "the shard stopped by itself", source }
    }
}
