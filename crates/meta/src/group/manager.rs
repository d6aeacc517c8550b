//! What the leader sees to: the cluster's id in the catalogue, as many voters as wanted, and
//! nobody left in the group who was removed.

use super::handle::WORK;
use super::inner::Inner;
use super::message::{Answer, Request};
use crate::Command;
use crate::raft::{Proposal, RaftId, RequestId};
use holdfast_types::NodeId;
use openraft::ChangeMembers;
use std::collections::{BTreeMap, BTreeSet};
use std::{sync::Arc, time::Duration};

/// How often it looks.
const MANAGE_MS: u64 = 400;
/// How long a learner may take to say that it is there.
const ASK: Duration = Duration::from_secs(1);
/// A learner that lags by no more entries than this is close enough to vote.
const CLOSE_ENTRIES: u64 = 64;
/// How long a change of voters may take; it goes on in the background when it takes longer.
const CHANGE: Duration = Duration::from_secs(10);

/// What decides about the next change.
#[derive(Clone, Debug, Default)]
struct View {
    /// Who votes, after the change that is under way, if one is.
    voters: BTreeSet<NodeId>,
    /// Whether a change was begun and not ended.
    joint: bool,
    /// Where every member is reached.
    addresses: BTreeMap<NodeId, String>,
    /// Who does not vote, has nearly the whole log, and answers.
    fit: BTreeSet<NodeId>,
    /// Members that the catalogue has removed.
    removed: BTreeSet<NodeId>,
    /// How many shall vote.
    target: usize,
}

/// A change of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// These vote; others that did are dropped.
    Voters(BTreeSet<NodeId>),
    /// These are dropped; none of them votes.
    Drop(BTreeSet<NodeId>),
}

impl View {
    /// The next change, if one is due. Adds one voter at most: each must first carry its part.
    fn next(&self) -> Option<Change> {
        let mut voters: BTreeSet<_> = self.voters.difference(&self.removed).copied().collect();
        let mut fit = self.fit.iter().filter(|id| !self.removed.contains(id));
        // A voter whose address another node answers at is gone: its machine was wiped and
        // came back as that node, which takes its place.
        let swap = fit.clone().find_map(|new| {
            let at = self.addresses.get(new).filter(|at| !at.is_empty())?;
            let old = voters.iter().find(|old| self.addresses.get(old) == Some(at))?;
            Some((*old, *new))
        });
        if let Some((old, new)) = swap {
            voters.remove(&old);
            voters.insert(new);
        } else if voters.len() < self.target {
            voters.extend(fit.next());
        }
        if voters.is_empty() {
            return None;
        }
        if self.joint || voters != self.voters {
            return Some(Change::Voters(voters));
        }
        let gone: BTreeSet<_> =
            self.removed.iter().filter(|id| self.addresses.contains_key(id)).copied().collect();
        (!gone.is_empty()).then_some(Change::Drop(gone))
    }
}

impl Inner {
    /// Runs on every node; acts on the leader.
    pub(crate) async fn manage(self: Arc<Self>) {
        while !self.pause(MANAGE_MS).await {
            if self.leads() {
                self.name_cluster().await;
                self.change_group().await;
            }
        }
    }

    async fn name_cluster(&self) {
        let Some(cluster) = *self.shared.cluster.borrow() else { return };
        if self.catalogue.borrow().cluster().is_some() {
            return;
        }
        let since = *self.applied.borrow();
        let command = Command::InitCluster { cluster };
        let proposal = Proposal { request: RequestId::random(), since, command };
        match self.propose_here(proposal, WORK).await {
            Answer::Proposed { .. } => {}
            other => tracing::debug!(?other, "the cluster's id is not in the catalogue yet"),
        }
    }

    async fn change_group(&self) {
        let view = self.view().await;
        let Some(change) = view.next() else { return };
        tracing::info!(?change, voters = ?view.voters, "the metadata group changes");
        let ids = |ids: BTreeSet<NodeId>| ids.into_iter().map(RaftId).collect();
        let change = match change {
            Change::Voters(voters) => ChangeMembers::ReplaceAllVoters(ids(voters)),
            Change::Drop(gone) => ChangeMembers::RemoveNodes(ids(gone)),
        };
        match tokio::time::timeout(CHANGE, self.raft.change_membership(change, false)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the group did not change"),
            Err(_) => tracing::warn!("a change of the metadata group takes long"),
        }
    }

    async fn view(&self) -> View {
        let mut close = Vec::new();
        let mut view = View {
            target: usize::from(self.shared.config.voters),
            addresses: self.members(),
            ..View::default()
        };
        {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let configs = metrics.membership_config.membership().get_joint_config();
            view.joint = configs.len() > 1;
            view.voters = configs.iter().next_back().into_iter().flatten().map(|id| id.0).collect();
            let last = metrics.last_log_index.unwrap_or(0);
            for (id, matched) in metrics.replication.iter().flatten() {
                let near = matched.is_some_and(|at| at.index + CLOSE_ENTRIES >= last);
                if near && !view.voters.contains(&id.0) {
                    close.push(id.0);
                }
            }
        }
        {
            let catalogue = self.catalogue.borrow();
            let members = view.addresses.keys();
            view.removed = members.filter(|id| catalogue.was_removed(**id)).copied().collect();
        }
        // Whether a learner is wanted at all shows before anyone is asked.
        let wanted = View { fit: close.iter().copied().collect(), ..view.clone() };
        if wanted.next() == view.next() {
            return view;
        }
        for id in close {
            if self.answers(id, &view.addresses).await {
                view.fit.insert(id);
            }
        }
        view
    }

    /// Whether the member is there: nobody is made a voter who would only be counted.
    async fn answers(&self, id: NodeId, addresses: &BTreeMap<NodeId, String>) -> bool {
        let Some(address) = addresses.get(&id) else { return false };
        let answer = self.shared.ask(Some(id), address, Request::Discover, ASK).await;
        matches!(answer, Ok(Answer::Discovered(found)) if found.node == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u128]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId::from_u128).collect()
    }

    fn view(voters: &[u128], fit: &[u128]) -> View {
        let all = voters.iter().chain(fit);
        let place = |id: &u128| (NodeId::from_u128(*id), format!("h{id}"));
        View {
            voters: ids(voters),
            fit: ids(fit),
            addresses: all.map(place).collect(),
            target: 3,
            ..View::default()
        }
    }

    fn voters(list: &[u128]) -> Option<Change> {
        Some(Change::Voters(ids(list)))
    }

    #[test]
    fn learners_become_voters_one_at_a_time_up_to_the_target() {
        assert_eq!(view(&[1], &[2, 3]).next(), voters(&[1, 2]));
        assert_eq!(view(&[1, 2], &[3, 4]).next(), voters(&[1, 2, 3]));
        assert_eq!(view(&[1, 2, 3], &[4]).next(), None);
        assert_eq!(view(&[1, 2], &[]).next(), None);
    }

    #[test]
    fn a_removed_voter_is_replaced_or_just_dropped() {
        let mut view = view(&[1, 2, 3], &[4, 5]);
        view.removed = ids(&[3, 4]);
        assert_eq!(view.next(), voters(&[1, 2, 5]));
        view.fit.clear();
        assert_eq!(view.next(), voters(&[1, 2]));
        view.voters = ids(&[1, 2]);
        assert_eq!(view.next(), Some(Change::Drop(ids(&[3, 4]))));
        view.voters = ids(&[3]);
        assert_eq!(view.next(), None, "nobody would be left");
    }

    #[test]
    fn whoever_came_back_wiped_takes_the_vote_of_its_old_self() {
        let mut view = view(&[1, 2, 3], &[4, 5]);
        view.addresses.insert(NodeId::from_u128(5), "h3".to_owned());
        assert_eq!(view.next(), voters(&[1, 2, 5]));
        view.fit = ids(&[4]);
        assert_eq!(view.next(), None, "it is not there yet");
    }

    #[test]
    fn a_change_that_was_begun_is_ended() {
        let mut view = view(&[1, 2, 3], &[]);
        view.joint = true;
        assert_eq!(view.next(), voters(&[1, 2, 3]));
    }
}
