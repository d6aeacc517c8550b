//! Requests that change something, and their answer.

use super::VolumeStatus;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// `[a-z0-9][a-z0-9-]{0,62}`.
    pub name: String,
    /// A multiple of 4096, at most 64 TiB.
    pub size_bytes: u64,
    /// 512 (the default) or 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_block_bytes: Option<u32>,
    /// Replicas, each on a node of its own; the default is 3, or the number of nodes
    /// with a disk when there are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u8>,
    /// The set is made smaller than this only by replicas whose log is damaged; the default is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<u8>,
}

/// `POST /v1/volumes/{name}/attach`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    /// Name or id of the node to attach it on; the default is the node that is asked.
    /// If it is attached elsewhere, that engine is fenced off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
}

/// `POST /v1/volumes/{name}/resize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The new size: more than now, a multiple of 4096.
    pub size_bytes: u64,
}

/// Answer to a change of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The volume after the change.
    pub volume: VolumeStatus,
    /// What the one who asked should know although it succeeded.
    pub notice: Option<String>,
}

/// `POST /v1/nodes/join`: the node that is asked joins a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinCluster {
    /// `HOST:PORT` where any node of that cluster listens for other nodes.
    pub seed: String,
}

/// `POST /v1/disks`: the node that is asked takes a disk into use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDisk {
    /// A directory or raw block device on that node.
    pub path: String,
    /// Most that data may take on it; the default is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_bytes: Option<u64>,
}
