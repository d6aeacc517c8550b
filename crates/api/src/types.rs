//! What the API says. Field names are part of the interface: `-o json` prints
//! them, scripts read them.

use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The node's id.
    pub node: String,
    /// Where clients connect, as URIs without a volume name.
    pub listeners: Vec<String>,
    /// The node's disks.
    pub disks: Vec<DiskStatus>,
    /// The volumes it serves.
    pub volumes: Vec<VolumeStatus>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its id.
    pub id: String,
    /// The directory or device.
    pub path: String,
    /// What carries its I/O out, and why that was chosen.
    pub backend: String,
    /// Bytes that can still be given to slots without looking further.
    pub free_bytes: u64,
    /// Payload bytes that the write-ahead log takes now.
    pub wal_free_bytes: u64,
    /// The failure that took it out of service.
    pub failure: Option<String>,
    /// What recovery found at the last start.
    pub recovery: RecoveryStatus,
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its size.
    pub size_bytes: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// `serving`, or why not.
    pub state: String,
    /// The epoch of its engine.
    pub epoch: u64,
    /// All up to here is durable on a commit quorum.
    pub commit_lsn: u64,
    /// All up to here is in the local store.
    pub applied_lsn: u64,
    /// Client connections.
    pub sessions: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Since the engine started.
    pub counters: Counters,
}

/// Operation counts of a volume since its engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
