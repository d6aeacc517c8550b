//! Disks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A disk. What only its node knows is absent while that node does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskStatus {
    /// Its id.
    pub id: String,
    /// The name of its node.
    pub node: String,
    /// The directory or device.
    pub path: String,
    /// Most that it may take for data.
    pub capacity_bytes: u64,
    /// Replicas that the catalogue has placed on it.
    pub replicas: u64,
    /// What carries its I/O out, and why that was chosen.
    pub backend: Option<String>,
    /// Bytes that can still be given to slots without looking further.
    pub free_bytes: Option<u64>,
    /// Payload bytes that the write-ahead log takes now.
    pub wal_free_bytes: Option<u64>,
    /// The failure that took it out of service.
    pub failure: Option<String>,
    /// What recovery found at the last start.
    pub recovery: Option<RecoveryStatus>,
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryStatus {
    /// Records indexed from the write-ahead log.
    pub records: u64,
    /// Bytes of log read.
    pub wal_bytes: u64,
    /// Milliseconds from opening the disk to being ready.
    pub took_ms: u64,
    /// Why the log ended where it did.
    pub end: String,
    /// The log may have lost what it acknowledged.
    pub suspect: bool,
}
