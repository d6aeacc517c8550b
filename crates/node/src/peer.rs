//! Connections between nodes. One listener takes them all: the first frame says what
//! a connection is for. The metadata group's, and what nodes ask each other for
//! the management API, stay on the control plane; the data plane's move to the shard.

mod ask;
mod links;
mod listen;
#[cfg(test)]
mod tests;

pub(crate) use ask::{
    Answer, Ask, LocalDisk, LocalEngine, LocalMember, LocalReplica, Report, SlotSum,
};
pub(crate) use links::Links;
pub(crate) use listen::{Answers, PeerListener};

use holdfast_types::{ClusterId, NodeId};
use std::sync::{Arc, OnceLock};

/// Who this node is, to others. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    cluster: Arc<OnceLock<ClusterId>>,
}

impl Identity {
    /// A node that is in no cluster, as far as is known yet.
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, cluster: Arc::default() }
    }

    /// Its cluster.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get().copied()
    }

    /// It is part of this cluster, for ever.
    pub(crate) fn set_cluster(&self, cluster: ClusterId) {
        // Said again, it is the same one: a cluster's id never changes.
        let _ = self.cluster.set(cluster);
    }
}
