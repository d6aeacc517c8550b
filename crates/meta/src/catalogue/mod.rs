//! The state machine.

mod limits;
mod nodes;
mod set;
mod volumes;

#[cfg(test)]
mod tests;

use crate::{Command, Outcome, Rejected, VolumeName};
use holdfast_types::{
    ClusterId, DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// A machine that runs the daemon. The addresses are what it advertises to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Lives with the node's data.
    pub id: NodeId,
    /// Unique; for people.
    pub name: String,
    /// Where it stands (rack, room, cloud zone), for placement; empty if not said.
    pub zone: String,
    /// Where other nodes reach it, as `host:port`.
    pub peer: String,
    /// Where its management API is, as `host:port`.
    pub api: String,
    /// Where its NBD server is, as `host:port`.
    pub nbd: String,
}

/// A directory or raw block device that a node gives to Holdfast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Lives with the disk's data.
    pub id: DiskId,
    /// Whose.
    pub node: NodeId,
    /// Where on that node.
    pub path: String,
    /// What there is room for, in bytes.
    pub capacity_bytes: u64,
}

/// One copy of a volume: a member of its replica set, or a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The copy.
    pub replica: ReplicaId,
    /// The node it is on.
    pub node: NodeId,
    /// The disk it is on.
    pub disk: DiskId,
    /// Whether it was created there: one that is ready and yet missing is lost.
    pub ready: bool,
}

/// The members that count for a volume's quorums, and those that only receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Counts the changes of the set.
    pub generation: Generation,
    /// Those that count.
    pub members: Vec<Member>,
    /// Those that receive the log but do not count (yet, or any more).
    pub learners: Vec<Member>,
}

impl ReplicaSet {
    /// Members, then learners.
    pub fn all(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().chain(&self.learners)
    }
}

/// Who shall serve a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The node.
    pub node: NodeId,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// In use.
    Active,
    /// Given up; its set lists the replicas that are not confirmed gone.
    Deleting,
}

/// A volume as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// Size in bytes.
    pub size_bytes: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// Changes only when data was declared lost.
    pub history: HistoryId,
    /// The epoch last granted.
    pub epoch: Epoch,
    /// Who shall serve it, if anyone.
    pub attached: Option<Attachment>,
    /// Its replicas.
    pub set: ReplicaSet,
    /// How many replicas are wanted.
    pub replicas: u8,
    /// The engine keeps at least so many members in the set, but for those with a damaged log.
    pub min_replicas: u8,
    /// Where it is in its life.
    pub phase: Phase,
}

/// Everything that the metadata group agrees on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    cluster: Option<ClusterId>,
    nodes: BTreeMap<NodeId, Node>,
    disks: BTreeMap<DiskId, Disk>,
    volumes: BTreeMap<VolumeId, Volume>,
    /// Nodes that were taken out, the latest last; they are not let in again.
    removed: VecDeque<NodeId>,
}

impl Catalogue {
    /// The cluster's id, once it has one.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Every node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// The node with this name.
    #[must_use]
    pub fn node_by_name(&self, name: &str) -> Option<&Node> {
        self.nodes.values().find(|node| node.name == name)
    }

    /// Whether this node was taken out of the cluster. Such an id never comes back (the latest
    /// thousand are known): its replicas and its log may be of another time.
    #[must_use]
    pub fn was_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id)
    }

    /// Every disk, by id.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.disks.values()
    }

    /// The disk with this id.
    #[must_use]
    pub fn disk(&self, id: DiskId) -> Option<&Disk> {
        self.disks.get(&id)
    }

    /// Every volume, by id; also those being deleted.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    /// The volume with this id; also one being deleted.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(&id)
    }

    /// The volume in use that has this name.
    #[must_use]
    pub fn by_name(&self, name: &VolumeName) -> Option<&Volume> {
        self.volumes().find(|volume| volume.name == *name && volume.phase == Phase::Active)
    }

    /// Carries a command out, or changes nothing.
    ///
    /// Deterministic: the same commands in the same order give the same catalogue and the
    /// same answers on every node. Repeating a command whose effect is there already is
    /// accepted, except for [`Command::CreateVolume`] and [`Command::GrantEpoch`].
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Rejected> {
        match command {
            Command::InitCluster { cluster } => self.init_cluster(*cluster),
            Command::PutNode(node) => self.put_node(node),
            Command::RemoveNode { node, force } => self.remove_node(*node, *force),
            Command::PutDisk(disk) => self.put_disk(disk),
            Command::RemoveDisk { disk } => self.remove_disk(*disk),
            Command::CreateVolume {
                volume,
                name,
                size_bytes,
                logical_block_bytes,
                history,
                members,
                replicas,
                min_replicas,
            } => self.create_volume(Volume {
                id: *volume,
                name: name.clone(),
                size_bytes: *size_bytes,
                logical_block_bytes: *logical_block_bytes,
                history: *history,
                epoch: Epoch::ZERO,
                attached: None,
                set: ReplicaSet {
                    generation: Generation::new(1),
                    members: members.clone(),
                    learners: Vec::new(),
                },
                replicas: *replicas,
                min_replicas: *min_replicas,
                phase: Phase::Active,
            }),
            Command::DeleteVolume { volume } => self.delete_volume(*volume),
            Command::ReplicaReady { volume, replica } => self.replica_ready(*volume, *replica),
            Command::ReplicaGone { volume, replica } => self.replica_gone(*volume, *replica),
            Command::Attach { volume, node, read_only } => {
                self.attach(*volume, Attachment { node: *node, read_only: *read_only })
            }
            Command::Detach { volume } => self.detach(*volume),
            Command::GrantEpoch { volume, node, expected } => {
                self.grant_epoch(*volume, *node, *expected)
            }
            Command::ChangeSet { volume, epoch, generation, members } => {
                self.change_set(*volume, *epoch, *generation, members)
            }
            Command::Resize { volume, size_bytes } => self.resize(*volume, *size_bytes),
        }
    }

    /// The volume in use with this id.
    fn active(&mut self, id: VolumeId) -> Result<&mut Volume, Rejected> {
        match self.volumes.get_mut(&id) {
            None => Err(Rejected::NoVolume(id)),
            Some(volume) if volume.phase == Phase::Deleting => Err(Rejected::Deleting(id)),
            Some(volume) => Ok(volume),
        }
    }
}
