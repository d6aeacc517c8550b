//! Commands to the catalogue, and their answers.
//!
//! They are stored in the Raft log and sent between nodes: variants and fields
//! are appended, never reordered or removed.

use crate::{Disk, Member, Node, Volume, VolumeName};
use holdfast_types::{
    ClusterId, DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId,
};
use serde::{Deserialize, Serialize};

/// A change asked of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names the cluster: the first command of all.
    InitCluster {
        /// Its id.
        cluster: ClusterId,
    },
    /// Adds a node, or says what it is called and where it is found now.
    ///
    /// A node that advertises the address of another one has taken its place:
    /// when both have one name, the older is renamed (see [`Catalogue::apply`]).
    ///
    /// [`Catalogue::apply`]: crate::Catalogue::apply
    PutNode(Node),
    /// Takes a node and its disks out of the catalogue. It must hold no member of a replica
    /// set and no attachment.
    RemoveNode {
        /// Which.
        node: NodeId,
        /// Also when it holds learners, or replicas of deleted volumes that it has not confirmed
        /// gone: they are given up, for a node that does not come back.
        force: bool,
    },
    /// Adds a disk of a known node, or says its path and capacity anew.
    PutDisk(Disk),
    /// Takes a disk that holds no member of a replica set out of the catalogue. Learners and
    /// replicas of deleted volumes on it are given up.
    RemoveDisk {
        /// Which.
        disk: DiskId,
    },
    /// Adds a volume with its first replica set, at generation 1 and epoch 0.
    CreateVolume {
        /// Its id, chosen by the proposer so that applying stays deterministic.
        volume: VolumeId,
        /// Its name.
        name: VolumeName,
        /// Size in bytes; a multiple of 4096.
        size_bytes: u64,
        /// 512 or 4096.
        logical_block_bytes: u32,
        /// Its first history.
        history: HistoryId,
        /// Its first members, as many as `replicas`, each on a node of its own.
        members: Vec<Member>,
        /// How many replicas are wanted: 1 to 7.
        replicas: u8,
        /// The engine lets the set shrink no further, but by members with a damaged log; 1 to
        /// `replicas`.
        min_replicas: u8,
    },
    /// Gives up a volume that is not attached. It stays as [`Phase::Deleting`] until
    /// each replica is confirmed gone; its name is free at once.
    ///
    /// [`Phase::Deleting`]: crate::Phase::Deleting
    DeleteVolume {
        /// Which.
        volume: VolumeId,
    },
    /// The replica exists on its disk.
    ReplicaReady {
        /// Of which volume.
        volume: VolumeId,
        /// Which.
        replica: ReplicaId,
    },
    /// The replica of a deleted volume does not exist on its disk (any more).
    ReplicaGone {
        /// Of which volume.
        volume: VolumeId,
        /// Which.
        replica: ReplicaId,
    },
    /// The volume shall be served by `node`, whoever served it before.
    Attach {
        /// Which.
        volume: VolumeId,
        /// Where.
        node: NodeId,
        /// Whether writes are refused.
        read_only: bool,
    },
    /// The volume shall not be served.
    Detach {
        /// Which.
        volume: VolumeId,
    },
    /// Gives the right to write to the engine on `node`, where the volume must be attached.
    GrantEpoch {
        /// Of which volume.
        volume: VolumeId,
        /// To the engine on which node.
        node: NodeId,
        /// The epoch that the proposer believes to be in force.
        expected: Epoch,
    },
    /// Changes who counts for a volume's quorums, by at most one member. Members that
    /// no longer count become learners. How small the set may get is the engine's to judge.
    ChangeSet {
        /// Of which volume.
        volume: VolumeId,
        /// The proposing engine's epoch.
        epoch: Epoch,
        /// The generation that the proposer believes to be in force.
        generation: Generation,
        /// The new members, out of the members and learners.
        members: Vec<ReplicaId>,
    },
    /// Grows a volume.
    Resize {
        /// Which.
        volume: VolumeId,
        /// Its new size in bytes; a multiple of 4096, not below the present one.
        size_bytes: u64,
    },
}

/// What an accepted command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The cluster has this id.
    Cluster(ClusterId),
    /// The node as it is now.
    Node(Node),
    /// The disk as it is now.
    Disk(Disk),
    /// The volume as it is now.
    Volume(Volume),
    /// What the command removed is no longer there.
    Gone,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejected {
    /// The name is taken by another volume.
    #[error("a volume named {0} exists; choose another name")]
    NameTaken(VolumeName),
    /// The id is taken.
    #[error("volume {0} exists")]
    Exists(VolumeId),
    /// No such volume.
    #[error("there is no volume {0}")]
    NoVolume(VolumeId),
    /// Size or block size is out of range.
    #[error("{0}")]
    Geometry(String),
    /// Another engine was granted an epoch meanwhile.
    #[error("epoch {held} is in force, not {expected}; read the catalogue again")]
    EpochMoved {
        /// In force.
        held: Epoch,
        /// Expected by the proposer.
        expected: Epoch,
    },
    /// The volume is to be served by that node.
    #[error("the volume is attached on node {0}; detach it first")]
    Attached(NodeId),
    /// The members make no replica set.
    #[error("no replica set: {0}")]
    Members(String),
    /// The cluster has an id already.
    #[error("this is cluster {0}; a cluster's id never changes")]
    Cluster(ClusterId),
    /// No such node.
    #[error("there is no node {0}; see `holdfast node list`")]
    NoNode(NodeId),
    /// Another node, at another address, has the name.
    #[error("node {holder} is called {name}; give this node another name, or remove the other one")]
    NodeNameTaken {
        /// The name.
        name: String,
        /// Who has it.
        holder: NodeId,
    },
    /// A name, label, address or path that cannot be.
    #[error("{0}")]
    Text(String),
    /// No such disk.
    #[error("there is no disk {0}; see `holdfast disk list`")]
    NoDisk(DiskId),
    /// The disk is another node's.
    #[error("disk {disk} belongs to node {node}; remove it there first")]
    DiskElsewhere {
        /// Which.
        disk: DiskId,
        /// Whose.
        node: NodeId,
    },
    /// What is to be removed holds replicas.
    #[error(
        "it holds replicas of {0}; delete these volumes first, or, when it is gone for good, wait until they are served without it (holdfast volume show)"
    )]
    HoldsReplicas(String),
    /// The node serves a volume.
    #[error("volume {0} is attached there; attach it elsewhere or detach it first")]
    HoldsAttachment(VolumeName),
    /// No such replica of that volume.
    #[error("volume {volume} has no replica {replica}")]
    NoReplica {
        /// The volume.
        volume: VolumeId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The volume was given up.
    #[error("volume {0} is being deleted")]
    Deleting(VolumeId),
    /// The volume was not given up.
    #[error("volume {0} is in use; its replicas are not given up")]
    InUse(VolumeId),
    /// The asking node is not the one that shall serve the volume.
    #[error("the volume is attached {}", match .0 { Some(node) => format!("on node {node}"), None => "nowhere".to_owned() })]
    NotAttached(Option<NodeId>),
    /// The replica set changed meanwhile.
    #[error(
        "generation {held} of the replica set is in force, not {expected}; read the catalogue again"
    )]
    GenerationMoved {
        /// In force.
        held: Generation,
        /// Expected by the proposer.
        expected: Generation,
    },
    /// Volumes only grow.
    #[error("the volume has {held_bytes} bytes; a volume never shrinks")]
    Shrinks {
        /// Its size.
        held_bytes: u64,
    },
    /// Not enough nodes with a disk.
    #[error(
        "{wanted} replicas need {wanted} nodes with a disk, there are {have}; add nodes or ask for fewer replicas"
    )]
    TooFewNodes {
        /// How many could be used.
        have: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// The node was taken out of the cluster.
    #[error(
        "node {0} was removed from the cluster; to come back it needs an empty data directory, and so a new id"
    )]
    Removed(NodeId),
    /// A list of the catalogue is full.
    #[error("the catalogue has {0} at most")]
    Full(String),
}
