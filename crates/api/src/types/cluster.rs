//! The cluster and its nodes.

use super::{DiskStatus, VolumeStatus};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/status`: everything, as the node that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The program's version on the node that was asked.
    pub version: String,
    /// The id of the node that was asked.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Where its NBD clients connect, as URIs without a volume name.
    pub listeners: Vec<String>,
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// All nodes, by name.
    pub nodes: Vec<NodeStatus>,
    /// All disks, by node.
    pub disks: Vec<DiskStatus>,
    /// All volumes, by name.
    pub volumes: Vec<VolumeStatus>,
}

/// The cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cluster {
    /// Its id; none before the node has formed or joined one.
    pub id: Option<String>,
    /// The name of the node that leads the metadata group, when there is one.
    pub leader: Option<String>,
    /// The group's term.
    pub term: u64,
    /// Why what is said here about the cluster may be old, and changes are refused.
    /// Attached volumes are served all the same.
    pub stale: Option<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Its id; lives with its data.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its zone label; may be empty.
    pub zone: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where its API answers over TCP; empty when it does not.
    pub api: String,
    /// Where its NBD clients connect over TCP; empty when they cannot.
    pub nbd: String,
    /// Its part in the metadata group.
    pub role: NodeRole,
    /// Whether it answered just now.
    pub online: bool,
    /// Why not.
    pub error: Option<String>,
    /// Its program's version, when it answered.
    pub version: Option<String>,
}

/// A node's part in the metadata group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Votes, and leads now.
    Leader,
    /// Votes.
    Voter,
    /// Keeps a copy and does not vote.
    Learner,
    /// Not a member (yet, or any more).
    None,
}

/// `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The program's version.
    pub version: String,
    /// Version of the messages between nodes.
    pub protocol: u16,
}
