//! The shard: one thread that owns disks, the replicas on them, the engines of
//! the volumes attached here, and their client connections.
//!
//! [`Shard::spawn`] starts the thread and gives a [`ShardHandle`], which any
//! thread may use. What runs on the shard gets a [`Shard`], the same thing seen
//! from inside, from which a frontend takes a volume as a
//! [`holdfast_block::BlockDevice`].

mod agenda;
mod backoff;
mod disks;
mod driver;
mod error;
pub mod greeting;
mod handle;
mod inbound;
mod link;
mod local;
mod peers;
mod proposal;
mod remote;
mod serve;
mod sets;
mod shard;
mod status;
mod volume;

pub use crate::core::{REQUEST_BYTES_MAX, StateName, StopReason, VolumeCounters};
pub use error::{
    AttachError, DetachError, DiskChangeError, ReplicaError, ResizeError, ShardGone, SpawnError,
};
pub use handle::ShardHandle;
pub use inbound::INBOUND_MAX;
pub use link::{SEND_QUEUE_BYTES_MAX, SEND_STALL_MS};
pub use peers::PEER_SILENT_MS;
pub use proposal::{SetAnswer, SetProposal};
pub use shard::Shard;
pub use status::{
    CatchUpStatus, DiskStatus, MemberState, MemberStatus, PeerStatus, ShardStatus, StreamStatus,
    VolumeStatus,
};
pub use volume::Volume;

use holdfast_io::{BufPool, Disk};
use holdfast_replica::{Host, RecoveryReport};
use holdfast_types::{DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId};
use std::time::Duration;
use tokio::sync::mpsc;

/// An attach that has not led to serving by then is given up: recovery of a
/// local log takes at most 2 s, an owed lease 1 s.
pub const ATTACH_MAX: Duration = Duration::from_secs(30);
/// A detach stops waiting for requests in flight after this long; what is left
/// is answered with an error.
pub const DETACH_DRAIN_MAX: Duration = Duration::from_secs(10);
/// A shutdown stops waiting for disks to apply and checkpoint after this long;
/// the next start replays what is left.
pub const SHUTDOWN_DRAIN_MAX: Duration = Duration::from_secs(20);

/// What a shard is built from; made on the shard's own thread, since buffers and
/// disks are confined to it.
pub struct ShardParts {
    /// The shard's buffers.
    pub pool: BufPool,
    /// Its disks.
    pub disks: Vec<DiskParts>,
    /// The node that it belongs to.
    pub node: NodeId,
    /// Length of the leases that this node grants, in milliseconds.
    pub lease_ms: u64,
    /// A member that has not streamed for so many milliseconds is proposed out of its set.
    pub shrink_after_ms: u64,
    /// Where engines ask for another replica set. Whoever receives asks the metadata
    /// group; bounded, and an engine whose question finds no room asks later.
    pub proposals: mpsc::Sender<SetProposal>,
}

/// One disk of a shard.
pub struct DiskParts {
    /// Where it is, for logs and status: a path.
    pub label: String,
    /// The backend.
    pub disk: Box<dyn Disk>,
    /// The replicas on it, opened with the shard's pool.
    pub host: Host,
    /// What opening found.
    pub recovery: RecoveryReport,
}

/// One copy of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberSpec {
    /// The copy.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// The disk that it is on.
    pub disk: DiskId,
    /// Whether it counts for quorums; a learner only receives the log.
    pub voter: bool,
}

/// Which volume to serve, and by what right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachVolume {
    /// The volume.
    pub volume: VolumeId,
    /// The volume's history.
    pub history: HistoryId,
    /// The epoch that was granted for this attach: higher than every one before.
    pub epoch: Epoch,
    /// Generation of the replica set.
    pub generation: Generation,
    /// Size in blocks of 4096 bytes.
    pub size_blocks: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// Refuse writes.
    pub read_only: bool,
    /// The members of the set and its learners; at most one of them on a node, and
    /// that of this node on a disk of this shard.
    pub members: Vec<MemberSpec>,
    /// The engine never proposes a set of fewer members.
    pub min_replicas: u8,
}
