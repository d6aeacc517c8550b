//! The cluster at one moment: the catalogue as applied here, and what every node
//! that answers says of itself.

use super::failure;
use crate::{
    member::Member,
    peer::{LocalEngine, LocalReplica, Report},
};
use holdfast_api::types::{
    Attachment, Cluster, DiskStatus, ErrorBody, NodeRole, NodeStatus, ReplicaStatus, VolumePhase,
    VolumeStatus,
};
use holdfast_meta::{Catalogue, Disk, MetaStatus, Node, Phase, Volume};
use holdfast_types::{NodeId, ReplicaId, VolumeId};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinSet;

/// A leader that has not heard a quorum for so long may have been replaced.
const QUORUM_SILENT_MS_MAX: u64 = 3000;

/// See the module.
pub(super) struct View {
    me: Node,
    catalogue: Arc<Catalogue>,
    meta: MetaStatus,
    reports: BTreeMap<NodeId, Result<Report, String>>,
}

impl View {
    /// Asks everyone.
    pub(super) async fn take(member: &Member) -> Self {
        let catalogue = member.catalogue();
        let mut asked = JoinSet::new();
        let mut nodes: Vec<NodeId> = catalogue.nodes().map(|node| node.id).collect();
        if catalogue.node(member.me.id).is_none() {
            nodes.push(member.me.id);
        }
        for node in nodes {
            let member = member.clone();
            asked.spawn(async move { (node, member.report(node).await) });
        }
        let mut reports = BTreeMap::new();
        while let Some(answered) = asked.join_next().await {
            // One that panicked is one that did not answer.
            if let Ok((node, report)) = answered {
                reports.insert(node, report);
            }
        }
        Self { me: member.me.clone(), catalogue, meta: member.meta.status(), reports }
    }

    fn report(&self, node: NodeId) -> Option<&Report> {
        self.reports.get(&node).and_then(|report| report.as_ref().ok())
    }

    fn name(&self, node: NodeId) -> String {
        match self.catalogue.node(node) {
            Some(node) => node.name.clone(),
            None if node == self.me.id => self.me.name.clone(),
            None => node.to_string(),
        }
    }

    /// The cluster as a whole.
    pub(super) fn cluster(&self) -> Cluster {
        let stale = if self.meta.cluster.is_none() {
            Some("this node is in no cluster yet".to_owned())
        } else if let Some(failed) = &self.meta.failed {
            Some(format!("the metadata group on this node has failed: {failed}"))
        } else if self.meta.leader.is_none() {
            Some("the metadata group has no leader that this node knows of".to_owned())
        } else {
            let silent = self.meta.quorum_silent_ms.filter(|ms| *ms > QUORUM_SILENT_MS_MAX);
            silent.map(|ms| format!("the metadata group's majority is silent for {ms} ms"))
        };
        Cluster {
            id: self.meta.cluster.map(|id| id.to_string()),
            leader: self.meta.leader.map(|node| self.name(node)),
            term: self.meta.term,
            stale,
        }
    }

    /// All nodes, by name.
    pub(super) fn nodes(&self) -> Vec<NodeStatus> {
        let mut known: Vec<&Node> = self.catalogue.nodes().collect();
        if self.catalogue.node(self.me.id).is_none() {
            known.push(&self.me);
        }
        let mut all: Vec<_> = known.into_iter().map(|node| self.node(node)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn node(&self, node: &Node) -> NodeStatus {
        let role = if self.meta.leader == Some(node.id) {
            NodeRole::Leader
        } else if self.meta.voters.contains(&node.id) {
            NodeRole::Voter
        } else if self.meta.learners.contains(&node.id) {
            NodeRole::Learner
        } else {
            NodeRole::None
        };
        let report = self.reports.get(&node.id);
        NodeStatus {
            id: node.id.to_string(),
            name: node.name.clone(),
            zone: node.zone.clone(),
            peer: node.peer.clone(),
            api: node.api.clone(),
            nbd: node.nbd.clone(),
            role,
            online: report.is_some_and(Result::is_ok),
            error: report.and_then(|report| report.as_ref().err().cloned()),
            version: self.report(node.id).map(|report| report.version.clone()),
        }
    }

    /// All disks, by node.
    pub(super) fn disks(&self) -> Vec<DiskStatus> {
        let mut all: Vec<DiskStatus> = self.catalogue.disks().map(|disk| self.disk(disk)).collect();
        // A disk that the cluster does not take is shown by its own node.
        if let Some(report) = self.report(self.me.id) {
            let unknown = |disk: &&crate::peer::LocalDisk| self.catalogue.disk(disk.disk).is_none();
            all.extend(report.disks.iter().filter(unknown).map(|disk| {
                self.disk(&Disk {
                    id: disk.disk,
                    node: self.me.id,
                    path: disk.path.clone(),
                    capacity_bytes: disk.capacity_bytes,
                })
            }));
        }
        all.sort_by(|a, b| (&a.node, &a.path).cmp(&(&b.node, &b.path)));
        all
    }

    fn disk(&self, disk: &Disk) -> DiskStatus {
        let report = self.report(disk.node);
        let live = report.and_then(|report| report.disks.iter().find(|live| live.disk == disk.id));
        let on_disk = |volume: &Volume| volume.set.all().filter(|m| m.disk == disk.id).count();
        let missing = report.is_some() && live.is_none();
        DiskStatus {
            id: disk.id.to_string(),
            node: self.name(disk.node),
            path: disk.path.clone(),
            capacity_bytes: disk.capacity_bytes,
            replicas: self.catalogue.volumes().map(on_disk).sum::<usize>() as u64,
            backend: live.map(|live| live.backend.clone()),
            free_bytes: live.map(|live| live.free_bytes),
            wal_free_bytes: live.map(|live| live.wal_free_bytes),
            failure: match live {
                Some(live) => live.failure.clone(),
                None if missing => Some("its node does not have it".to_owned()),
                None => None,
            },
            recovery: live.map(|live| live.recovery.clone()),
        }
    }

    /// All volumes, by name.
    pub(super) fn volumes(&self) -> Vec<VolumeStatus> {
        let mut all: Vec<_> = self.catalogue.volumes().map(|volume| self.status(volume)).collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        all
    }

    /// The volume of that name.
    pub(super) fn volume(&self, name: &str) -> Result<VolumeStatus, ErrorBody> {
        let parsed = name.parse().ok();
        let volume = parsed.and_then(|name| self.catalogue.by_name(&name));
        volume.map(|volume| self.status(volume)).ok_or_else(|| failure::no_volume(name))
    }

    fn engine(&self, volume: &Volume) -> Option<&LocalEngine> {
        self.report(volume.attached?.node)?.engine(volume.id)
    }

    fn replica(&self, node: NodeId, replica: ReplicaId) -> Option<&LocalReplica> {
        self.report(node)?.replicas.iter().find(|held| held.replica == replica)
    }

    fn status(&self, volume: &Volume) -> VolumeStatus {
        let engine = self.engine(volume);
        let beside = volume.attached.and_then(|attached| {
            let mut all = volume.set.all();
            let copy = all.find(|copy| copy.node == attached.node)?;
            self.replica(copy.node, copy.replica)
        });
        let all = volume.set.all().filter_map(|copy| self.replica(copy.node, copy.replica));
        let most = all.map(|held| held.applied.get()).max();
        let voters = volume.set.members.iter().map(|copy| self.copy(volume, copy, true, engine));
        let learners =
            volume.set.learners.iter().map(|copy| self.copy(volume, copy, false, engine));
        VolumeStatus {
            name: volume.name.to_string(),
            id: volume.id.to_string(),
            size_bytes: volume.size_bytes,
            logical_block_bytes: volume.logical_block_bytes,
            phase: match volume.phase {
                Phase::Active => VolumePhase::Active,
                Phase::Deleting => VolumePhase::Deleting,
            },
            state: self.state(volume, engine),
            attached: volume.attached.map(|attached| Attachment {
                node: self.name(attached.node),
                uri: self.uri(volume, attached.node),
                read_only: attached.read_only,
            }),
            epoch: volume.epoch.get(),
            generation: volume.set.generation.get(),
            replicas_wanted: volume.replicas,
            min_replicas: volume.min_replicas,
            commit_lsn: engine.map_or(0, |engine| engine.commit.get()),
            applied_lsn: beside.map(|held| held.applied.get()).or(most).unwrap_or(0),
            sessions: engine.map_or(0, |engine| engine.sessions),
            in_flight: engine.map_or(0, |engine| engine.in_flight),
            counters: engine.map(|engine| engine.counters).unwrap_or_default(),
            replicas: voters.chain(learners).collect(),
        }
    }

    fn uri(&self, volume: &Volume, node: NodeId) -> Option<String> {
        let node = self.catalogue.node(node).filter(|node| !node.nbd.is_empty())?;
        Some(format!("nbd://{}/{}", node.nbd, volume.name))
    }

    fn state(&self, volume: &Volume, engine: Option<&LocalEngine>) -> String {
        let Some(attached) = volume.attached else {
            return match volume.phase {
                Phase::Active => "detached".to_owned(),
                Phase::Deleting => "deleting".to_owned(),
            };
        };
        let Some(report) = self.report(attached.node) else { return "unreachable".to_owned() };
        let why = |volume: VolumeId| report.waiting.iter().find(|(waits, _)| *waits == volume);
        match (engine, why(volume.id)) {
            (Some(engine), _) if engine.serving => "serving".to_owned(),
            (_, Some((_, reason))) => format!("attaching: {reason}"),
            // Serving by its own account, and not offered to clients yet.
            (Some(engine), None) if engine.state != "serving" => engine.state.clone(),
            (_, None) => "attaching".to_owned(),
        }
    }

    fn copy(
        &self,
        volume: &Volume,
        copy: &holdfast_meta::Member,
        voter: bool,
        engine: Option<&LocalEngine>,
    ) -> ReplicaStatus {
        let held = self.replica(copy.node, copy.replica);
        let seen = engine.filter(|engine| engine.serving).and_then(|engine| {
            let member = engine.members.iter().find(|member| member.replica == copy.replica)?;
            Some((engine, member))
        });
        let answered = self.report(copy.node).is_some();
        let state = match (seen, held) {
            (_, None) if answered && copy.ready => "lost".to_owned(),
            (Some((_, member)), _) => member.state.clone(),
            (None, Some(held)) if held.suspect => "suspect".to_owned(),
            (None, Some(_)) => match volume.phase {
                Phase::Active => "idle".to_owned(),
                Phase::Deleting => "deleting".to_owned(),
            },
            (None, None) if answered => "creating".to_owned(),
            (None, None) => "unreachable".to_owned(),
        };
        ReplicaStatus {
            id: copy.replica.to_string(),
            node: self.name(copy.node),
            disk: copy.disk.to_string(),
            voter,
            ready: copy.ready,
            state,
            lag: seen
                .map(|(engine, member)| engine.last.get().saturating_sub(member.matched.get())),
            last_lsn: held.map(|held| held.last.get()),
            applied_lsn: held.map(|held| held.applied.get()),
        }
    }
}
