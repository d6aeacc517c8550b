//! A shard's state as the management API shows it.

use crate::core::{Link, StateName, StopReason, VolumeCounters};
use holdfast_replica::{Credits, PullReport, RecoveryReport, VolumeReport};
use holdfast_types::{DiskId, Epoch, Generation, Lsn, NodeId, ReplicaId, VolumeId};
use std::fmt;

/// A shard at one instant.
#[derive(Clone, Debug)]
pub struct ShardStatus {
    /// The shard's name.
    pub name: String,
    /// Its disks.
    pub disks: Vec<DiskStatus>,
    /// The volumes attached through it, and those that stopped by themselves and
    /// were not detached yet.
    pub volumes: Vec<VolumeStatus>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Streams of other nodes' engines to replicas here.
    pub streams: Vec<StreamStatus>,
    /// Replicas here that are catching up.
    pub catch_ups: Vec<CatchUpStatus>,
    /// Volumes of which a replica here may have promised what nobody knows: until
    /// [`super::ShardHandle::floor_leases`] no lease is extended.
    pub unfloored: Vec<VolumeId>,
}

/// The connection to another node at one instant, as this one sees it.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The other node.
    pub node: NodeId,
    /// Where it is looked for.
    pub address: String,
    /// Whether it answers renewals.
    pub alive: bool,
    /// What is left of the lease that it granted, in milliseconds.
    pub lease_ms: u64,
    /// Why the last connection failed, if none is open.
    pub error: Option<String>,
}

/// A stream of another node's engine to a replica here.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// The volume.
    pub volume: VolumeId,
    /// The copy.
    pub replica: ReplicaId,
    /// The engine's node.
    pub from: NodeId,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: usize,
}

/// A replica that fetches what it lacks.
#[derive(Clone, Debug)]
pub struct CatchUpStatus {
    /// The volume.
    pub volume: VolumeId,
    /// The node that it fetches from.
    pub source: Option<NodeId>,
    /// What it does, in a word.
    pub state: &'static str,
    /// The last record that it holds.
    pub last: Lsn,
    /// Slots that came so far.
    pub slots: u64,
    /// Records that came so far.
    pub records: u64,
}

/// A disk at one instant.
#[derive(Clone, Debug)]
pub struct DiskStatus {
    /// The disk.
    pub disk: DiskId,
    /// Where it is, as the caller of [`crate::runtime::Shard::spawn`] named it.
    pub label: String,
    /// What carries its operations out.
    pub backend: String,
    /// Space that it can promise now.
    pub credits: Credits,
    /// Operations in flight on the device.
    pub in_flight: usize,
    /// Why it has failed, if it has.
    pub failure: Option<String>,
    /// What opening it found.
    pub recovery: RecoveryReport,
    /// The replicas on it.
    pub replicas: Vec<VolumeReport>,
}

/// An attached volume at one instant.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// The volume.
    pub volume: VolumeId,
    /// Where its engine stands.
    pub state: StateName,
    /// Why it stopped, if it did.
    pub stopped: Option<StopReason>,
    /// The engine's epoch.
    pub epoch: Epoch,
    /// All up to here is committed.
    pub commit_lsn: Lsn,
    /// The last record given an LSN.
    pub last_lsn: Lsn,
    /// Requests submitted and not yet answered.
    pub in_flight: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Generation of the replica set in force.
    pub generation: Generation,
    /// Committed size in blocks.
    pub blocks: u64,
    /// Whether reads are covered by leases; they wait otherwise.
    pub has_lease: bool,
    /// Its copies, as the engine sees them.
    pub members: Vec<MemberStatus>,
    /// What it has done since it was attached.
    pub counters: VolumeCounters,
}

/// A copy of an attached volume at one instant.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// The copy.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Its disk.
    pub disk: DiskId,
    /// Whether it counts for quorums.
    pub voter: bool,
    /// Where the engine stands with it.
    pub state: MemberState,
    /// It holds durably all up to here, as far as the engine knows.
    pub matched: Lsn,
    /// Records that it has not confirmed; `None` while it does not stream.
    pub lag: Option<u64>,
    /// What is left of its node's lease, in milliseconds; `None` for the engine's own node.
    pub lease_ms: Option<u64>,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: usize,
    /// What it refused, or why there is no stream to it.
    pub error: Option<String>,
}

/// Where an engine stands with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Cannot be reached.
    Down,
    /// Is being fenced, or its log compared.
    Joining,
    /// Lacks records that it fetches from another copy.
    CatchingUp,
    /// Has all records, or they are on the way to it.
    Streaming,
    /// Will not return as it was.
    Lost,
}

impl From<Link> for MemberState {
    fn from(link: Link) -> Self {
        match link {
            Link::Down => Self::Down,
            Link::Fencing | Link::Promised | Link::Truncating => Self::Joining,
            Link::Streaming => Self::Streaming,
            Link::Behind => Self::CatchingUp,
            Link::Lost => Self::Lost,
        }
    }
}

impl From<PullReport> for CatchUpStatus {
    fn from(pull: PullReport) -> Self {
        let PullReport { volume, source, state, last, slots, records } = pull;
        let source = source.map(|source| source.node);
        Self { volume, source, state, last, slots, records }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Joining => "joining",
            Self::CatchingUp => "catching-up",
            Self::Streaming => "streaming",
            Self::Lost => "lost",
        })
    }
}
