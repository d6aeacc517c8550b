//! How openraft's values are stored and sent: forms of our own, so that an upgrade of openraft
//! changes neither files nor messages. Variants and fields are appended, never
//! reordered or removed.

use super::{Entry, LogId, Membership, Proposal, RaftId, StoredMembership, Vote};
use holdfast_types::NodeId;
use openraft::{BasicNode, EntryPayload, LeaderId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A vote that was given or won.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteForm {
    term: u64,
    node: NodeId,
    committed: bool,
}

impl From<Vote> for VoteForm {
    fn from(vote: Vote) -> Self {
        let LeaderId { term, node_id } = vote.leader_id;
        Self { term, node: node_id.0, committed: vote.committed }
    }
}

impl From<VoteForm> for Vote {
    fn from(form: VoteForm) -> Self {
        let leader_id = LeaderId { term: form.term, node_id: RaftId(form.node) };
        Self { leader_id, committed: form.committed }
    }
}

/// The place of an entry, and the leader that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogIdForm {
    term: u64,
    node: NodeId,
    index: u64,
}

impl From<LogId> for LogIdForm {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id.0, index: id.index }
    }
}

impl From<LogIdForm> for LogId {
    fn from(form: LogIdForm) -> Self {
        let leader_id = LeaderId { term: form.term, node_id: RaftId(form.node) };
        Self { leader_id, index: form.index }
    }
}

/// Who votes (twice while that changes), and where all are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipForm {
    configs: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, String>,
}

impl From<&Membership> for MembershipForm {
    fn from(membership: &Membership) -> Self {
        let voters = |config: &BTreeSet<RaftId>| config.iter().map(|id| id.0).collect();
        Self {
            configs: membership.get_joint_config().iter().map(voters).collect(),
            nodes: membership.nodes().map(|(id, node)| (id.0, node.addr.clone())).collect(),
        }
    }
}

impl From<MembershipForm> for Membership {
    fn from(form: MembershipForm) -> Self {
        let voters = |config: BTreeSet<NodeId>| config.into_iter().map(RaftId).collect();
        let nodes: BTreeMap<_, _> =
            form.nodes.into_iter().map(|(id, addr)| (RaftId(id), BasicNode { addr })).collect();
        Self::new(form.configs.into_iter().map(voters).collect(), nodes)
    }
}

/// A membership, and the entry that brought it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembershipForm {
    at: Option<LogIdForm>,
    membership: MembershipForm,
}

impl From<&StoredMembership> for StoredMembershipForm {
    fn from(stored: &StoredMembership) -> Self {
        Self { at: stored.log_id().map(Into::into), membership: stored.membership().into() }
    }
}

impl From<StoredMembershipForm> for StoredMembership {
    fn from(form: StoredMembershipForm) -> Self {
        Self::new(form.at.map(Into::into), form.membership.into())
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum PayloadForm {
    /// A leader's first.
    Blank,
    /// A command to the catalogue.
    Proposal(Proposal),
    /// Who votes from here on.
    Membership(MembershipForm),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryForm {
    id: LogIdForm,
    payload: PayloadForm,
}

impl From<Entry> for EntryForm {
    fn from(entry: Entry) -> Self {
        let payload = match entry.payload {
            EntryPayload::Blank => PayloadForm::Blank,
            EntryPayload::Normal(proposal) => PayloadForm::Proposal(proposal),
            EntryPayload::Membership(membership) => PayloadForm::Membership((&membership).into()),
        };
        Self { id: entry.log_id.into(), payload }
    }
}

impl From<EntryForm> for Entry {
    fn from(form: EntryForm) -> Self {
        let payload = match form.payload {
            PayloadForm::Blank => EntryPayload::Blank,
            PayloadForm::Proposal(proposal) => EntryPayload::Normal(proposal),
            PayloadForm::Membership(membership) => EntryPayload::Membership(membership.into()),
        };
        Self { log_id: form.id.into(), payload }
    }
}
