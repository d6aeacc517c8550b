//! openraft's view of the group: the types it is given, the forms in which its values are
//! stored and sent, and the state that it replicates.

pub(crate) mod forms;
pub(crate) mod snapshot;
pub(crate) mod state;

use crate::Command;
use holdfast_types::NodeId;
use serde::{Deserialize, Serialize};
use std::{fmt, io::Cursor};

pub(crate) use state::{Applied, State};

/// A node, as openraft counts it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct RaftId(pub(crate) NodeId);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// For openraft's own test suite, which counts nodes.
#[cfg(test)]
impl From<u64> for RaftId {
    fn from(number: u64) -> Self {
        Self(NodeId::from_u128(u128::from(number)))
    }
}

/// Names one proposal, however often it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RequestId(pub(crate) u128);

impl RequestId {
    pub(crate) fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }
}

/// What a log entry asks of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    /// The same in every repetition, so that a repetition gets the first answer.
    pub(crate) request: RequestId,
    /// The proposer had applied the log up to here when it first sent the proposal: no copy of it
    /// has a lower index. See [`state::ANSWERS_SPAN`].
    pub(crate) since: u64,
    /// What is asked.
    pub(crate) command: Command,
}

openraft::declare_raft_types!(
    /// What openraft is told about its values.
    pub(crate) Types:
        D = Proposal,
        R = Applied,
        NodeId = RaftId,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<RaftId>;
pub(crate) type Vote = openraft::Vote<RaftId>;
pub(crate) type Membership = openraft::Membership<RaftId, openraft::BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<RaftId, openraft::BasicNode>;
pub(crate) type StorageError = openraft::StorageError<RaftId>;
