//! A running group: Raft, its store, and what watches it.

use super::bootstrap::{Acceptor, Founding};
use super::message::{Discovery, Place};
use super::network::{Network, Shared};
use super::receive::Receiving;
use super::{MetaConfig, MetaError, MetaStatus, Transport, Tuning};
use crate::Catalogue;
use crate::raft::{Raft, RaftId};
use crate::store::{LogStore, Machine, Store, key};
use holdfast_types::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// One group on one node.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    pub(crate) raft: Raft,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) status: watch::Sender<MetaStatus>,
    pub(crate) bootstrap: tokio::sync::Mutex<Bootstrap>,
    pub(crate) receiving: tokio::sync::Mutex<Receiving>,
    /// Where members may be found, as far as the user said.
    pub(crate) contacts: Mutex<BTreeSet<String>>,
    /// True from shutdown on.
    pub(crate) stop: watch::Sender<bool>,
}

/// This node's part in forming a cluster.
#[derive(Default)]
pub(crate) struct Bootstrap {
    /// As stored.
    pub(crate) acceptor: Acceptor,
    /// As stored, when chosen.
    pub(crate) founding: Option<Founding>,
    /// The list that this node was given; nothing is promised before.
    pub(crate) seeds: Option<Vec<String>>,
    /// When another node's proposal was last heard; time is left to it.
    pub(crate) heard: Option<Instant>,
}

impl Inner {
    pub(crate) async fn open(
        config: MetaConfig,
        tuning: Tuning,
        transport: Arc<dyn Transport>,
    ) -> Result<Arc<Self>, MetaError> {
        let raft_config = raft_config(&config, tuning)?;
        let (dir, node) = (config.dir.clone(), config.node);
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir, node)).await;
        let store = match opened {
            Ok(opened) => opened?,
            Err(error) => return Err(MetaError::Stopped(error.to_string())),
        };
        let machine = Machine::load(store.clone())?;
        let (catalogue, applied) = (machine.catalogue(), machine.applied());
        let bootstrap = Bootstrap {
            acceptor: store.get(key::BALLOT)?.unwrap_or_default(),
            founding: store.get(key::FOUNDING)?,
            ..Bootstrap::default()
        };
        let shared = Arc::new(Shared {
            cluster: watch::Sender::new(store.get(key::CLUSTER)?),
            removed: watch::Sender::new(false),
            config,
            transport,
        });
        let id = RaftId(node);
        let network = Network(shared.clone());
        let log = LogStore::new(store.clone());
        let raft = Raft::new(id, Arc::new(raft_config), network, log, machine)
            .await
            .map_err(|error| MetaError::Stopped(error.to_string()))?;
        let inner = Self {
            shared,
            store,
            raft,
            catalogue,
            applied,
            status: watch::Sender::new(MetaStatus::default()),
            bootstrap: tokio::sync::Mutex::new(bootstrap),
            receiving: tokio::sync::Mutex::default(),
            contacts: Mutex::default(),
            stop: watch::Sender::new(false),
        };
        inner.status.send_replace(inner.read_status());
        Ok(Arc::new(inner))
    }

    /// This node.
    pub(crate) fn me(&self) -> NodeId {
        self.shared.config.node
    }

    /// Who leads, as far as known, and where.
    pub(crate) fn leader(&self) -> Option<Place> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some((leader.0, node.addr.clone()))
    }

    /// The members that Raft knows here.
    pub(crate) fn members(&self) -> BTreeMap<NodeId, String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.nodes().map(|(id, node)| (id.0, node.addr.clone())).collect()
    }

    /// Whether this node is known to the group, at the address that it has now, and knows the
    /// cluster that it is part of.
    pub(crate) fn is_listed(&self) -> bool {
        self.members().get(&self.me()) == Some(&self.shared.config.advertise)
    }

    /// What others want to know who look for a cluster.
    pub(crate) async fn discovery(&self) -> Discovery {
        let founding = self.bootstrap.lock().await.founding.clone();
        let cluster = *self.shared.cluster.borrow();
        Discovery { node: self.me(), cluster, members: self.members(), founding }
    }

    /// Waits until the catalogue here has the log up to `index`; `false` if it does not in time.
    pub(crate) async fn wait_applied(&self, index: u64, until: Instant) -> bool {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= index);
        matches!(tokio::time::timeout_at(until, reached).await, Ok(Ok(_)))
    }

    pub(crate) fn add_contacts(&self, addresses: impl IntoIterator<Item = String>) {
        let mut contacts = self.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        contacts.extend(addresses);
        contacts.remove(&self.shared.config.advertise);
    }

    /// Why this node takes part no longer, if so.
    pub(crate) fn failed(&self) -> Option<String> {
        if *self.shared.removed.borrow() {
            let text = "this node was removed from the cluster; to come back it needs an empty data directory";
            return Some(text.to_owned());
        }
        self.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }

    pub(crate) fn read_status(&self) -> MetaStatus {
        let failed = self.failed();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let nodes = membership.nodes();
        let configs = membership.get_joint_config();
        let votes = |id: &RaftId| configs.iter().all(|config| config.contains(id));
        let (voters, learners): (Vec<_>, Vec<_>) =
            membership.nodes().map(|(id, _)| *id).partition(votes);
        let at = metrics.membership_config.log_id().map(|at| at.index);
        MetaStatus {
            cluster: *self.shared.cluster.borrow(),
            leader: metrics.current_leader.map(|id| id.0),
            term: metrics.current_term,
            voters: voters.into_iter().map(|id| id.0).collect(),
            learners: learners.into_iter().map(|id| id.0).collect(),
            changing: configs.len() > 1 || at > metrics.last_applied.map(|last| last.index),
            addresses: nodes.map(|(id, node)| (id.0, node.addr.clone())).collect(),
            last_applied: metrics.last_applied.map_or(0, |last| last.index),
            last_log: metrics.last_log_index.unwrap_or(0),
            quorum_silent_ms: metrics.millis_since_quorum_ack,
            failed,
        }
    }

    /// Keeps [`Inner::status`] up to date until the group stops.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut metrics = self.raft.metrics();
        let mut cluster = self.shared.cluster.subscribe();
        let mut removed = self.shared.removed.subscribe();
        let mut failed = *removed.borrow();
        loop {
            let status = self.read_status();
            // Who was removed has said so.
            if let Some(cause) = status.failed.as_ref().filter(|_| !failed && !*removed.borrow()) {
                failed = true;
                if !*self.stop.borrow() {
                    tracing::error!(
                        cause,
                        "the metadata group has stopped on this node; what it serves goes on, and changes wait until it is started again"
                    );
                }
            }
            self.status.send_if_modified(|held| {
                let changed = *held != status;
                *held = status;
                changed
            });
            tokio::select! {
                Ok(()) = metrics.changed() => {}
                Ok(()) = cluster.changed() => {}
                Ok(()) = removed.changed() => {}
                else => return,
            }
        }
    }

    /// Waits until `stop`, or `ms`, whichever is first; `true` when it is stopped.
    pub(crate) async fn pause(&self, ms: u64) -> bool {
        let mut stop = self.stop.subscribe();
        let stopped = stop.wait_for(|stop| *stop);
        tokio::time::timeout(Duration::from_millis(ms), stopped).await.is_ok()
    }
}

fn raft_config(config: &MetaConfig, tuning: Tuning) -> Result<openraft::Config, MetaError> {
    if !matches!(config.voters, 1 | 3 | 5) {
        return Err(MetaError::Config("voters: 1, 3 or 5".to_owned()));
    }
    let raft = openraft::Config {
        cluster_name: "holdfast".to_owned(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_ms.0,
        election_timeout_max: config.election_ms.1,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: APPEND_ENTRIES,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        replication_lag_threshold: tuning.snapshot_logs.saturating_mul(2),
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(tuning.snapshot_logs),
        max_in_snapshot_log_to_keep: tuning.keep_logs,
        ..openraft::Config::default()
    };
    raft.validate().map_err(|error| MetaError::Config(error.to_string()))
}

/// Entries sent in one message at most; their bytes are bounded where they are read.
const APPEND_ENTRIES: u64 = 256;
/// Bytes of a snapshot in one message.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;
/// How long a piece of a snapshot may take to be received, the last one to be installed too.
const SNAPSHOT_TIMEOUT_MS: u64 = 20_000;
