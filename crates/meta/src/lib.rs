//! The metadata group: what the cluster agrees on, and how.
//!
//! [`Catalogue`] says which nodes, disks and volumes there are, where the replicas
//! are, and which engine may write. [`Catalogue::apply`] is a deterministic state machine
//! whose commands compare before they swap; it knows no clock, no file and no network.
//! [`MetaGroup`] runs it on every node of a cluster: a Raft group (openraft, which only
//! this crate names) over a [`Transport`] that the daemon provides, on a store of its own.
//! It also forms the cluster in the first place, takes in nodes that come later, and keeps the
//! number of voters. [`placement`] chooses disks for new volumes.

mod catalogue;
mod command;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod group;
mod name;
pub mod placement;
mod raft;
mod store;

pub use catalogue::{Attachment, Catalogue, Disk, Member, Node, Phase, ReplicaSet, Volume};
pub use command::{Command, Outcome, Rejected};
pub use group::{
    BoxFuture, MESSAGE_BYTES_MAX, MetaConfig, MetaError, MetaGroup, MetaStatus, ProposeError,
    Transport,
};
pub use name::{BadName, VolumeName};
