//! What can go wrong when a shard is told to do something, each with its remedy.

use crate::core::StopReason;
use holdfast_replica::HostError;
use holdfast_types::{DiskId, ReplicaId, VolumeId};

/// The shard's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has stopped")]
pub struct ShardGone;

/// Why a shard did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError<E> {
    /// The thread or its runtime could not be created.
    #[error("cannot start a shard thread: {0}")]
    Thread(std::io::Error),
    /// What the caller's build closure said.
    #[error(transparent)]
    Build(E),
}

/// Why a volume is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The shard's thread has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// It is attached here already.
    #[error("volume {0} is attached already; detach it first")]
    Attached(VolumeId),
    /// The shard has no such disk.
    #[error("disk {0} is not on this shard; check the node's disks")]
    NoDisk(DiskId),
    /// The disk holds no such replica, or one that is another size.
    #[error(
        "replica {replica} of volume {volume} with {blocks} blocks is not on this disk; the disk may \
         have been replaced or restored"
    )]
    NoReplica {
        /// The volume.
        volume: VolumeId,
        /// The replica asked for.
        replica: ReplicaId,
        /// The size asked for.
        blocks: u64,
    },
    /// The shard serves as many volumes as it can.
    #[error("the shard already serves {0} volumes; use another shard")]
    TooMany(usize),
    /// The engine stopped before it served.
    #[error("volume {volume} cannot be served: {reason}")]
    Stopped {
        /// The volume.
        volume: VolumeId,
        /// Cause and remedy.
        reason: StopReason,
    },
    /// Not serving within [`crate::runtime::ATTACH_MAX`].
    #[error(
        "volume {0} did not become ready in time; see the log for its replicas, then try again"
    )]
    TimedOut(VolumeId),
}

/// Why a volume is not detached.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The shard's thread has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// It is not attached here.
    #[error("volume {0} is not attached here")]
    NotAttached(VolumeId),
}

/// Why a replica is not created or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The shard's thread has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// The shard has no such disk.
    #[error("disk {0} is not on this shard; check the node's disks")]
    NoDisk(DiskId),
    /// It is attached; deleting is refused.
    #[error("volume {0} is attached; detach it first")]
    Attached(VolumeId),
    /// What the replica's host said.
    #[error(transparent)]
    Host(#[from] HostError),
}
