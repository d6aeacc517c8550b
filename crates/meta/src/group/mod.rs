//! The Raft group, as the daemon uses it.

mod bootstrap;
mod form;
mod handle;
mod inner;
mod manager;
pub(crate) mod message;
mod network;
mod propose;
mod receive;
mod types;

#[cfg(test)]
mod tests;

pub use message::MESSAGE_BYTES_MAX;
pub use types::{BoxFuture, MetaConfig, MetaError, MetaStatus, ProposeError, Transport};

use crate::{Catalogue, Command, Outcome, Rejected};
use holdfast_types::{ClusterId, NodeId};
use inner::Inner;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two attempts to reach a leader: well below an election, well above a round trip.
const RETRY: Duration = Duration::from_millis(50);

/// When the log is cut.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// A snapshot is made after so many entries: they are what a restart applies again.
    snapshot_logs: u64,
    /// So many entries before it are kept, for followers that were away for a moment.
    keep_logs: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { snapshot_logs: 2000, keep_logs: 500 }
    }
}

/// This node's part in the metadata group. Clones are the same one.
#[derive(Clone)]
pub struct MetaGroup {
    inner: Arc<Inner>,
    /// What runs beside Raft; ends with the last clone.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl MetaGroup {
    /// Opens the store in `config.dir`, which is made if it is not there (its parent must be). A node
    /// that is part of a cluster takes part from here on; one that is not waits for
    /// [`form_or_join`](Self::form_or_join).
    ///
    /// # Errors
    /// The store cannot be opened or belongs to another node; a setting is out of range.
    pub async fn open(
        config: MetaConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, MetaError> {
        Self::open_tuned(config, Tuning::default(), transport).await
    }

    async fn open_tuned(
        config: MetaConfig,
        tuning: Tuning,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, MetaError> {
        let inner = Inner::open(config, tuning, transport).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(inner.clone().follow());
        tasks.spawn(inner.clone().attend());
        tasks.spawn(inner.clone().manage());
        Ok(Self { inner, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// The catalogue as applied on this node.
    #[must_use]
    pub fn catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.inner.catalogue.clone()
    }

    /// Has `command` agreed on and applied; also on a node that is not the leader. Repeated inside
    /// until it is answered, and carried out at most once. The catalogue on this node has it when this
    /// returns, unless the node was cut off in that moment.
    ///
    /// # Errors
    /// It was rejected; or nothing came of it; or what came of it could not be learnt `within` the time.
    pub async fn propose(
        &self,
        command: Command,
        within: Duration,
    ) -> Result<Outcome, ProposeError> {
        self.inner.propose(command, within).await
    }

    /// Answers a message of another node's [`Transport`]. Takes at most some seconds.
    pub async fn handle(&self, request: Vec<u8>) -> Vec<u8> {
        self.inner.handle(&request).await
    }

    /// Returns when the catalogue on this node has everything that was agreed on before the call.
    ///
    /// # Errors
    /// No leader confirmed it `within` the time.
    pub async fn read_barrier(&self, within: Duration) -> Result<(), ProposeError> {
        self.inner.read_barrier(within).await
    }

    /// The cluster that this node is bound to, if any: formed, or asked to be let in.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        *self.inner.shared.cluster.borrow()
    }

    /// What this node knows of the group.
    #[must_use]
    pub fn status(&self) -> MetaStatus {
        self.inner.read_status()
    }

    /// Follows [`status`](Self::status).
    #[must_use]
    pub fn watch_status(&self) -> watch::Receiver<MetaStatus> {
        self.inner.status.subscribe()
    }

    /// Returns when this node is part of a cluster and knows its catalogue: the one it is bound to already;
    /// else the one that one of `seeds` (addresses, its own may be among them) knows; else one that
    /// a majority of the seeds forms. No seeds, or none but itself: forms a cluster of its own.
    /// Tries for ever.
    ///
    /// # Errors
    /// The store failed, the group was shut down, the node was removed, or it lost its store and must
    /// not come back under its id.
    pub async fn form_or_join(&self, seeds: Vec<String>) -> Result<(), MetaError> {
        self.inner.form_or_join(seeds).await
    }

    /// Takes `node` out of the catalogue (see [`Command::RemoveNode`] for `force`), and out of the Raft
    /// group, where another takes its vote over if there is one. Removing a node again does no harm.
    ///
    /// # Errors
    /// As [`propose`](Self::propose); [`ProposeError::Unknown`] when it was removed from the catalogue
    /// but still is in the Raft group when the time is over: the leader goes on by itself.
    pub async fn remove_node(
        &self,
        node: NodeId,
        force: bool,
        within: Duration,
    ) -> Result<(), ProposeError> {
        let until = Instant::now() + within;
        let members = self.inner.members();
        if members.len() == 1 && members.contains_key(&node) {
            let text = "the last node of a cluster cannot be removed";
            return Err(Rejected::Text(text.to_owned()).into());
        }
        self.propose(Command::RemoveNode { node, force }, within).await?;
        let mut status = self.watch_status();
        let left = |status: &MetaStatus| !status.changing && !status.addresses.contains_key(&node);
        let gone = status.wait_for(left);
        match tokio::time::timeout_at(until, gone).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// Stops taking part. The store is closed when this returns.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "the metadata group did not stop cleanly");
        }
        let store = self.inner.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            tracing::warn!(%error, "the metadata store was not closed");
        }
    }
}
