//! What every part of the node needs: who it is, and how to reach the metadata group,
//! the shard and the other nodes.

use crate::{
    added::AddedDisks,
    attachments::Attachments,
    disks::Inventory,
    exports::ExportList,
    peer::{Answer, Ask, Links, Report},
    report,
};
use holdfast_engine::runtime::{ShardGone, ShardHandle};
use holdfast_meta::{Catalogue, Command, MetaGroup, Node, Outcome, ProposeError, Volume};
use holdfast_types::{NodeId, VolumeId};
use std::{sync::Arc, time::Duration};

/// Longest wait for the metadata group to agree on one command: an election or two.
pub(crate) const PROPOSE_MAX: Duration = Duration::from_secs(10);
/// Longest wait for another node's report; one that is alive answers in milliseconds.
const REPORT_MAX: Duration = Duration::from_millis(1500);

/// This node as a member of its cluster. Clones share everything.
#[derive(Clone)]
pub(crate) struct Member {
    inner: Arc<Inner>,
}

/// See [`Member`].
pub(crate) struct Inner {
    /// Who it is, and where it is found.
    pub(crate) me: Node,
    pub(crate) meta: MetaGroup,
    pub(crate) shard: ShardHandle,
    pub(crate) links: Links,
    pub(crate) exports: ExportList,
    pub(crate) attachments: Attachments,
    pub(crate) disks: Inventory,
    pub(crate) added: AddedDisks,
}

impl std::ops::Deref for Member {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Member {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// The catalogue as applied here.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.meta.catalogue().borrow().clone()
    }

    /// A volume, as the catalogue has it here.
    pub(crate) fn volume(&self, id: VolumeId) -> Option<Volume> {
        self.catalogue().volume(id).cloned()
    }

    /// Has the metadata group agree on a command.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.meta.propose(command, PROPOSE_MAX).await
    }

    /// Whether the engine of a volume serves on this node.
    pub(crate) async fn serves(&self, volume: VolumeId) -> Result<bool, ShardGone> {
        self.shard.run(move |shard| async move { shard.volume(volume).is_some() }).await
    }

    /// Asks any node, this one included.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        question: Ask,
        within: Duration,
    ) -> Result<Answer, String> {
        if node == self.me.id {
            return match report::answer(self, question).await {
                Answer::Failed(reason) => Err(reason),
                answer => Ok(answer),
            };
        }
        let Some(address) = self.catalogue().node(node).map(|node| node.peer.clone()) else {
            return Err(format!("there is no node {node} in the cluster any more"));
        };
        if address.is_empty() {
            return Err(format!("node {node} does not listen for other nodes"));
        }
        self.links.ask(node, &address, &question, within).await
    }

    /// How things stand on a node.
    pub(crate) async fn report(&self, node: NodeId) -> Result<Report, String> {
        match self.ask(node, Ask::Report, REPORT_MAX).await? {
            Answer::Report(report) => Ok(*report),
            _ => Err("it answered something else".to_owned()),
        }
    }
}
