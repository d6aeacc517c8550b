//! What passes between the group and the daemon.

use crate::Rejected;
use holdfast_types::{ClusterId, NodeId};
use std::{collections::BTreeMap, path::PathBuf, pin::Pin};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How to take part.
#[derive(Clone, Debug)]
pub struct MetaConfig {
    /// The store's directory; this node's alone.
    pub dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Where other nodes reach it: `host:port`, as the seeds' lists name it. Empty when none can:
    /// a cluster of one.
    pub advertise: String,
    /// How often a leader is heard.
    pub heartbeat_ms: u64,
    /// How long a leader may be silent: at least, at most.
    pub election_ms: (u64, u64),
    /// How many voters to keep, if there are as many nodes: 1, 3 or 5.
    pub voters: u8,
}

/// Takes messages to other nodes' [`MetaGroup::handle`](crate::MetaGroup::handle).
pub trait Transport: Send + Sync + 'static {
    /// One request, one answer. `to` is who must be found at `address`; `None` when nothing
    /// but the address is known. The caller drops the future when it waited long enough.
    ///
    /// # Errors
    /// Why there is no answer. The request may have arrived.
    fn call(
        &self,
        to: Option<NodeId>,
        address: &str,
        request: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>>;
}

/// What a node knows of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaStatus {
    /// The cluster, when it is part of one.
    pub cluster: Option<ClusterId>,
    /// The leader, as far as known.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Who votes; while that changes, who does so before and after.
    pub voters: Vec<NodeId>,
    /// Who only receives.
    pub learners: Vec<NodeId>,
    /// Whether a change of these is under way: until it ends, it counts on both sets of voters.
    pub changing: bool,
    /// Where each of them is reached.
    pub addresses: BTreeMap<NodeId, String>,
    /// Index of the last log entry that is in this node's catalogue.
    pub last_applied: u64,
    /// Index of the last log entry that this node has.
    pub last_log: u64,
    /// Milliseconds since a quorum of voters was last known to answer the leader; on the leader only.
    pub quorum_silent_ms: Option<u64>,
    /// Why this node takes part no longer: its store failed, say.
    pub failed: Option<String>,
}

/// Why a node cannot take part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The store failed; nothing is known of what was to be written.
    #[error("the metadata store {path}: {cause}", path = path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// What the system or the store says.
        cause: String,
    },
    /// The store is another node's.
    #[error("the metadata store {path} belongs to node {held}, not to this one", path = path.display())]
    OtherNode {
        /// Which.
        path: PathBuf,
        /// Whose.
        held: NodeId,
    },
    /// A setting is out of range.
    #[error("{0}")]
    Config(String),
    /// The cluster knows this node, but its store is empty: it cannot know what it voted for.
    #[error(
        "cluster {cluster} knows node {node}, whose metadata store is empty; empty the whole data directory, so that it joins under a new id"
    )]
    LostState {
        /// This node.
        node: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// The Raft core stopped.
    #[error("the metadata group on this node has stopped: {0}")]
    Stopped(String),
}

/// Why nothing was answered to a proposal, or no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The catalogue says no; nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It was not agreed on, and will not be.
    #[error("the metadata group does not answer: {0}")]
    Unavailable(String),
    /// It may have been agreed on, or may be yet: look at the catalogue, or ask again if
    /// repeating does no harm.
    #[error("the metadata group did not answer in time; it may have been done")]
    Unknown,
}
