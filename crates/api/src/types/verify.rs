//! The comparison of a volume's replicas.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/volumes/{name}/verify`: every replica's own store and log, read from its
/// device and compared at one LSN: which blocks are present, and their checksums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyReport {
    /// The volume.
    pub volume: String,
    /// What came out.
    pub verdict: Verdict,
    /// The LSN that was compared.
    pub lsn: u64,
    /// Slots of the volume that were looked at.
    pub slots_compared: u64,
    /// Blocks that some replica has.
    pub blocks_compared: u64,
    /// The replicas.
    pub replicas: Vec<VerifiedReplica>,
    /// All differences found.
    pub differences_found: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All replicas were read and hold the same.
    Identical,
    /// At least two differ, or a block cannot be read.
    Different,
    /// No difference was found, and not all could be compared.
    Incomplete,
}

/// A replica in a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifiedReplica {
    /// Its id.
    pub id: String,
    /// The name of its node.
    pub node: String,
    /// Counts for quorums; otherwise it is a learner.
    pub voter: bool,
    /// Blocks that it has at the LSN compared.
    pub blocks: u64,
    /// Why it was not compared to the end.
    pub error: Option<String>,
}

/// One block in which a replica differs from what most of the others hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The replica.
    pub replica: String,
    /// The name of its node.
    pub node: String,
    /// The slot, of 64 KiB, in the volume.
    pub slot: u64,
    /// The block, of 4 KiB, in the volume.
    pub block: u64,
    /// How it differs.
    pub what: String,
}
