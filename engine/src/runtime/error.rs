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
    /// The only member that counts is this node's, and the shard has no such disk.
    #[error("disk {0} is not on this shard; check the node's disks")]
    NoDisk(DiskId),
    /// The only member that counts is not on its disk, or is of another size.
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
    /// A list of members that makes no set.
    #[error("the members of volume {volume} make no replica set: {why}")]
    Members {
        /// The volume.
        volume: VolumeId,
        /// What is wrong with them.
        why: &'static str,
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
    /// The replica refuses.
    #[error(transparent)]
    Refused(#[from] holdfast_wire::Refusal),
}

/// Why a volume does not grow.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The shard's thread has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// It is not attached here.
    #[error("volume {0} is not attached here")]
    NotAttached(VolumeId),
    /// It has more blocks already.
    #[error("volume {volume} has {blocks} blocks already; a volume cannot shrink")]
    Shrinks {
        /// The volume.
        volume: VolumeId,
        /// Its size.
        blocks: u64,
    },
    /// The engine stopped before the new size was committed; the next one commits it.
    #[error("volume {volume} stopped before it had grown: {reason}")]
    Stopped {
        /// The volume.
        volume: VolumeId,
        /// Cause and remedy.
        reason: StopReason,
    },
}

/// Why a disk is not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum DiskChangeError<E> {
    /// The shard's thread has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// What the caller's build closure said.
    #[error(transparent)]
    Build(E),
    /// The disk cannot be waited for.
    #[error("the disk cannot be used: {0}")]
    Unusable(std::io::Error),
    /// It is there already.
    #[error("disk {0} is on this shard already")]
    Present(DiskId),
    /// It is not there.
    #[error("disk {0} is not on this shard; check the node's disks")]
    NoDisk(DiskId),
    /// It holds replicas.
    #[error("disk {0} holds replicas; delete or move them first")]
    InUse(DiskId),
}
