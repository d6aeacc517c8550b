//! Messages between an engine and its replicas.
//!
//! Within a process they pass as values, between nodes as frames. Field by field
//! this is the replication protocol: an [`Append`] is accepted only under the promised
//! epoch and only behind the record it names. What connects two nodes and is not
//! part of a replica's stream, is in [`peer`] (greeting, leases) and [`catchup`].
//!
//! [`SendQueue`] and [`Decoder`] turn frames into bytes and back, without I/O
//! (`docs/format/wire.md`); [`plain`] does for those without payload.

mod body;
pub mod catchup;
mod crcs;
mod frame;
mod message;
mod payload;
pub mod peer;
pub mod plain;
mod receive;
mod records;
mod send;
mod stream;
#[cfg(test)]
mod tests;

pub use crcs::BlockCrcs;
pub use frame::{FRAME_VERSION, Frame, FrameError, HEADER_BYTES, Kind, Kinds};
pub use receive::{Decoder, RECEIVE_BYTES, Room};
pub use send::{PIECES_MAX, Pieces, SendQueue};
pub use stream::{FromReplica, ReadFailure, StreamTag, ToReplica};

use holdfast_io::Buf;
use holdfast_types::{BlockRange, Epoch, EpochSpan, Generation, HistoryId, Lsn, NodeId, VolumeId};
use serde::{Deserialize, Serialize};

/// Names one ordered stream of appends from an engine to a replica, so that an
/// acknowledgement of an older stream is never counted for a newer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamSession(pub u64);

/// One log record of a volume.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number; the previous record has the number before.
    pub lsn: Lsn,
    /// The epoch it was first written under.
    pub epoch: Epoch,
    /// What it does.
    pub op: RecordOp,
}

/// What a record does.
#[derive(Clone, Debug)]
pub enum RecordOp {
    /// Stores whole blocks. At most [`holdfast_types::RECORD_BLOCKS_MAX`] blocks; `data` holds
    /// `range.bytes()` bytes in address order, each piece a multiple of a block.
    Write {
        /// Where.
        range: BlockRange,
        /// What: one buffer, 4096-aligned.
        data: Buf,
        /// `block_crc` of each block.
        crcs: BlockCrcs,
    },
    /// Makes whole blocks read as zeroes and frees what space it can. At most
    /// [`holdfast_types::DISCARD_SLOTS_MAX`] slots.
    Discard {
        /// Where.
        range: BlockRange,
    },
    /// The first record of an epoch; committed before the volume is served.
    EpochStart,
    /// The volume has this many blocks from here on.
    Resize {
        /// New size.
        blocks: u64,
    },
}

impl Record {
    /// The blocks that it changes.
    #[must_use]
    pub fn range(&self) -> Option<BlockRange> {
        match &self.op {
            RecordOp::Write { range, .. } | RecordOp::Discard { range } => Some(*range),
            RecordOp::EpochStart | RecordOp::Resize { .. } => None,
        }
    }
}

/// Engine to replica: consecutive records. May be empty to carry `commit_lsn`.
#[derive(Debug)]
pub struct Append {
    /// The volume.
    pub volume: VolumeId,
    /// Its history.
    pub history: HistoryId,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// Generation of the replica set in force.
    pub generation: Generation,
    /// The stream that this travels on.
    pub session: StreamSession,
    /// Epoch of the record before the first.
    pub prev_epoch: Epoch,
    /// LSN of the record before the first.
    pub prev_lsn: Lsn,
    /// The records, in LSN order without gaps.
    pub records: Vec<Record>,
    /// All up to here is committed.
    pub commit_lsn: Lsn,
}

/// Replica to engine: all of the volume's records up to `durable_lsn` that this
/// stream brought or matched are on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch of the appends.
    pub epoch: Epoch,
    /// Their stream.
    pub session: StreamSession,
    /// Contiguous and durable up to here.
    pub durable_lsn: Lsn,
}

/// Why a replica refuses an append, a read or a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A higher epoch was promised.
    #[error("epoch {promised} was promised to another engine")]
    Fenced {
        /// The promise.
        promised: Epoch,
    },
    /// `prev_lsn` is missing here or has another epoch.
    #[error("log does not match; it ends at LSN {last} of epoch {last_epoch}")]
    Mismatch {
        /// Last LSN held.
        last: Lsn,
        /// Its epoch.
        last_epoch: Epoch,
    },
    /// Another history of the volume.
    #[error("replica belongs to history {held}")]
    History {
        /// The one held.
        held: HistoryId,
    },
    /// No such volume on this disk.
    #[error("no replica of this volume here")]
    Unknown,
    /// The replica's log is suspect: it may have lost what it acknowledged.
    #[error("the replica's log is damaged at or below its durable mark")]
    Suspect,
    /// The disk has failed.
    #[error("the disk has failed")]
    DiskFailed,
    /// The replica took more than its credits allow; nothing of the append was logged.
    #[error("the replica's log is full; it takes records again when it has applied some")]
    Full,
    /// The read needs records that this replica does not hold.
    #[error("replica lags behind LSN {wanted}")]
    Behind {
        /// What the read needs.
        wanted: Lsn,
    },
}

/// Engine to replica: promise `epoch` to me.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The volume.
    pub volume: VolumeId,
    /// Its history.
    pub history: HistoryId,
    /// The epoch that the metadata group granted.
    pub epoch: Epoch,
    /// The engine's node: whom the replica owes the lease from now on.
    pub node: NodeId,
}

/// Replica to engine, after the promise is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch promised.
    pub epoch: Epoch,
    /// Epoch of the last record held.
    pub last_epoch: Epoch,
    /// The last record held.
    pub last_lsn: Lsn,
    /// First LSN of each epoch that the log has records of, ascending.
    pub epochs: Vec<EpochSpan>,
    /// All up to here is in the store.
    pub applied_lsn: Lsn,
    /// The store may hold slots as of up to here, fetched from a peer: it is exact, and a
    /// source of data, only when its log reaches as far. At most `applied_lsn`
    /// for a replica that no catch-up left unfinished.
    pub fetched_lsn: Lsn,
    /// The volume's size in blocks at `last_lsn`.
    pub blocks: u64,
    /// Milliseconds of lease that the replica still owes to an earlier engine.
    pub lease_owed_ms: u64,
    /// Whether the log may have lost what it acknowledged; such a log does not vote.
    pub suspect: bool,
}

/// Engine to replica: drop all records above `last`. Durable before it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truncate {
    /// The volume.
    pub volume: VolumeId,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// The last record to keep.
    pub last: Lsn,
}
