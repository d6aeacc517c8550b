//! Volumes and their replicas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A volume. What its engine or a replica's node would say is absent while that
/// node does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its size.
    pub size_bytes: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// Whether it lives or is being deleted.
    pub phase: VolumePhase,
    /// `serving`, `detached`, `unreachable`, or what its engine does instead, with the reason.
    pub state: String,
    /// Where it is attached, which is what is wanted and, when `serving`, what is.
    pub attached: Option<Attachment>,
    /// The epoch last granted.
    pub epoch: u64,
    /// Counts the changes of its replica set.
    pub generation: u64,
    /// Replicas wanted.
    pub replicas_wanted: u8,
    /// The set is made smaller than this only by replicas whose log is damaged.
    pub min_replicas: u8,
    /// All up to here is durable on a commit quorum; 0 while no engine says.
    pub commit_lsn: u64,
    /// All up to here is in the store of the replica beside the engine, or, when there
    /// is none, of the one that has most.
    pub applied_lsn: u64,
    /// Client connections.
    pub sessions: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Since the engine started.
    pub counters: Counters,
    /// Its replicas: members first, then learners.
    pub replicas: Vec<ReplicaStatus>,
}

/// Whether a volume lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VolumePhase {
    /// It lives.
    Active,
    /// Its replicas are being deleted.
    Deleting,
}

/// Where a volume is attached: a wish that its node carries out, again after every restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// The name of the node.
    pub node: String,
    /// The node's NBD URI for this volume; none while the node does not say.
    pub uri: Option<String>,
    /// Writes are refused.
    pub read_only: bool,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaStatus {
    /// Its id.
    pub id: String,
    /// The name of its node.
    pub node: String,
    /// The id of its disk.
    pub disk: String,
    /// Counts for quorums; otherwise it is a learner.
    pub voter: bool,
    /// It exists on its disk, as far as the catalogue knows.
    pub ready: bool,
    /// What the engine says of it (`streaming`, `catching-up`, `down` …), or, when none
    /// runs, its node: `idle`, `creating`, `lost`, `unreachable`.
    pub state: String,
    /// Records that the engine has and it does not hold yet.
    pub lag: Option<u64>,
    /// Last record that it holds.
    pub last_lsn: Option<u64>,
    /// All up to here is in its store.
    pub applied_lsn: Option<u64>,
}

/// Operation counts of a volume since its engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Discards and write-zeroes completed.
    pub discards: u64,
    /// Flushes completed.
    pub flushes: u64,
    /// Requests answered with an error.
    pub errors: u64,
}
