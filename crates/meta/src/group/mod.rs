//! The Raft group, as the daemon uses it.

mod types;

pub use types::{BoxFuture, MetaConfig, MetaError, MetaStatus, ProposeError, Transport};

use crate::{Catalogue, Command, Outcome};
use holdfast_types::{ClusterId, NodeId};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Longest request and answer of [`Transport::call`], in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// This node's part in the metadata group. Clones are the same one.
#[derive(Clone)]
pub struct MetaGroup;

impl MetaGroup {
    /// Opens the store in `config.dir`, which is made if it is not there. Nothing is sent before
    /// [`form_or_join`](Self::form_or_join), except by a node that is part of a cluster already.
    ///
    /// # Errors
    /// The store cannot be opened or belongs to another node; a setting is out of range.
    pub async fn open(
        config: MetaConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, MetaError> {
        let _ = (config, transport);
        unimplemented!()
    }

    /// The catalogue as applied on this node.
    #[must_use]
    pub fn catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        unimplemented!()
    }

    /// Has `command` agreed on and applied; also on a node that is not the leader. The catalogue on
    /// this node has it when this returns. Repeated inside, but applied at most once.
    ///
    /// # Errors
    /// It was rejected; or nothing came of it; or what came of it could not be learnt `within` the time.
    pub async fn propose(
        &self,
        command: Command,
        within: Duration,
    ) -> Result<Outcome, ProposeError> {
        let _ = (command, within);
        unimplemented!()
    }

    /// Answers a message of another node's [`Transport`].
    pub async fn handle(&self, request: Vec<u8>) -> Vec<u8> {
        request
    }

    /// Returns when the catalogue on this node has everything that was agreed on before the call.
    ///
    /// # Errors
    /// No leader confirmed it `within` the time.
    pub async fn read_barrier(&self, within: Duration) -> Result<(), ProposeError> {
        let _ = within;
        unimplemented!()
    }

    /// The cluster that this node is part of, if any.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        unimplemented!()
    }

    /// What this node knows of the group.
    #[must_use]
    pub fn status(&self) -> MetaStatus {
        unimplemented!()
    }

    /// Follows [`status`](Self::status).
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<MetaStatus> {
        unimplemented!()
    }

    /// Returns when this node is part of a cluster: at once if it is already; else the one that one of
    /// `seeds` (addresses, its own may be among them) knows; else one that a majority of the seeds
    /// forms. No seeds, or none but itself: forms a cluster of its own. Tries for ever.
    ///
    /// # Errors
    /// The store failed, or the group was shut down.
    pub async fn form_or_join(&self, seeds: Vec<String>) -> Result<(), MetaError> {
        let _ = seeds;
        unimplemented!()
    }

    /// Takes `node` out of the Raft group (another takes its vote over, if there is one), then out of
    /// the catalogue. See [`Command::RemoveNode`] for `force`.
    ///
    /// # Errors
    /// As [`propose`](Self::propose).
    pub async fn remove_node(
        &self,
        node: NodeId,
        force: bool,
        within: Duration,
    ) -> Result<(), ProposeError> {
        let _ = (node, force, within);
        unimplemented!()
    }

    /// Stops taking part. The store is closed when this returns.
    pub async fn shutdown(&self) {}
}
