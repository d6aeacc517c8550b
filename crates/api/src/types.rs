//! What the API says. Field names are part of the interface: `-o json` prints
//! them, scripts read them, `/openapi.json` describes them. Fields are added, never
//! renamed; whoever reads ignores what it does not know.

mod change;
mod cluster;
mod disk;
mod error;
mod verify;
mod volume;

pub use change::{AddDisk, AttachVolume, Changed, CreateVolume, JoinCluster, ResizeVolume};
pub use cluster::{Cluster, NodeRole, NodeStatus, Status, Version};
pub use disk::{DiskStatus, RecoveryStatus};
pub use error::{ErrorBody, ErrorCode};
pub use verify::{Difference, Verdict, VerifiedReplica, VerifyReport};
pub use volume::{Attachment, Counters, ReplicaStatus, VolumePhase, VolumeStatus};
