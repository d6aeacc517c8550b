//! Commands to the catalogue, and their answers.
//!
//! Stored forms: variants and fields are appended, never reordered or removed.

use crate::{Member, Volume, VolumeName};
use holdfast_types::{Epoch, HistoryId, NodeId, VolumeId};
use serde::{Deserialize, Serialize};

/// A change asked of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Adds a volume with its first replica set.
    CreateVolume {
        /// Its id, chosen by the proposer so that applying stays deterministic.
        volume: VolumeId,
        /// Its name.
        name: VolumeName,
        /// Size in bytes; a multiple of 4096.
        size_bytes: u64,
        /// 512 or 4096.
        logical_block_bytes: u32,
        /// Its first history.
        history: HistoryId,
        /// Its first members.
        members: Vec<Member>,
    },
    /// Removes a volume that no engine has attached.
    DeleteVolume {
        /// Which.
        volume: VolumeId,
    },
    /// Gives the right to write to the engine on `node`.
    GrantEpoch {
        /// Of which volume.
        volume: VolumeId,
        /// To the engine on which node.
        node: NodeId,
        /// The epoch that the proposer believes to be in force.
        expected: Epoch,
    },
    /// Ends an attachment.
    Detach {
        /// Of which volume.
        volume: VolumeId,
        /// The epoch that ends.
        epoch: Epoch,
    },
}

/// What an accepted command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The volume as it is now: created, granted or detached.
    Volume(Volume),
    /// The volume as it was before it was deleted.
    Deleted(Volume),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The name is taken by another volume.
    #[error("a volume named {0} exists; choose another name")]
    NameTaken(VolumeName),
    /// The id is taken.
    #[error("volume {0} exists")]
    Exists(VolumeId),
    /// No such volume.
    #[error("there is no volume {0}")]
    NoVolume(VolumeId),
    /// Size or block size is out of range.
    #[error("{0}")]
    Geometry(&'static str),
    /// Another engine was granted an epoch meanwhile.
    #[error("epoch {held} is in force, not {expected}; read the catalogue again")]
    EpochMoved {
        /// In force.
        held: Epoch,
        /// Expected by the proposer.
        expected: Epoch,
    },
    /// An engine has the volume.
    #[error("the volume is attached on node {0}; detach it first")]
    Attached(NodeId),
    /// A replica set needs 1 to 7 members, each of its own.
    #[error("a replica set has 1 to 7 members on different disks")]
    Members,
}
