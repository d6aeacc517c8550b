//! What a node says when it has come up.

use holdfast_io::net::Address;
use holdfast_types::NodeId;
use std::path::PathBuf;

/// Where others find a node that has come up: it is part of a cluster, and its
/// listeners answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where NBD is served: the unix socket, then TCP if it is on.
    pub nbd: Vec<Address>,
    /// Where the management API is served: the unix socket, then TCP if it is on.
    pub api: Vec<Address>,
    /// Where other nodes connect, if they can.
    pub peer: Option<Address>,
    /// What carries the disks' I/O.
    pub backend: String,
    /// The volume of [`crate::Config::volume`], which is served.
    pub volume: Option<ReadyVolume>,
}

/// The volume of a quick start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyVolume {
    /// Its name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether it was made by this start.
    pub created: bool,
}
