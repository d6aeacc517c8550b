//! A daemon that keeps a catalogue and no data: what is asked of it becomes commands.

use crate::Labels;
use holdfast_api::{
    Answer, Service,
    types::{
        AddDisk, AttachVolume, Changed, Cluster, CreateVolume, DiskStatus, ErrorBody, ErrorCode,
        JoinCluster, NodeStatus, ResizeVolume, Status, VerifyReport, Version, VolumePhase,
        VolumeStatus,
    },
};
use holdfast_meta::{
    Attachment, Catalogue, Command, Disk, Member, Node, Outcome, Phase, Rejected, Volume,
    VolumeName,
};
use holdfast_types::{DiskId, HistoryId, NodeId, ReplicaId, VolumeId};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
};

const NODE: NodeId = NodeId::from_u128(1);
const DISK: DiskId = DiskId::from_u128(2);

/// See the module's documentation.
pub(super) struct Daemon {
    catalogue: Mutex<Catalogue>,
    asked: Mutex<Vec<&'static str>>,
}

impl Default for Daemon {
    fn default() -> Self {
        let mut catalogue = Catalogue::default();
        let node = Node {
            id: NODE,
            name: "node1".to_owned(),
            zone: String::new(),
            peer: "h:1".to_owned(),
            api: String::new(),
            nbd: String::new(),
        };
        let disk = Disk { id: DISK, node: NODE, path: "/d".to_owned(), capacity_bytes: 1 << 40 };
        for command in [Command::PutNode(node), Command::PutDisk(disk)] {
            assert!(catalogue.apply(&command).is_ok(), "an empty catalogue takes it");
        }
        Self { catalogue: Mutex::new(catalogue), asked: Mutex::default() }
    }
}

impl Daemon {
    /// What arrived.
    pub(super) fn labels(&self, labels: &mut Labels) {
        for asked in self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            labels.see(format_args!("asked: {asked}"));
        }
    }

    fn asked(&self, what: &'static str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self, name: &str) -> Result<Volume, ErrorBody> {
        let name: VolumeName =
            name.parse().map_err(|bad| ErrorBody::new(ErrorCode::Invalid, format!("{bad}"), ""))?;
        let none = || ErrorBody::new(ErrorCode::NotFound, "there is none", "create it");
        self.catalogue().by_name(&name).cloned().ok_or_else(none)
    }

    fn apply(&self, command: &Command) -> Result<Outcome, ErrorBody> {
        self.catalogue().apply(command).map_err(|rejected| {
            let code = match rejected {
                Rejected::Geometry(_) | Rejected::Members(_) | Rejected::Text(_) => {
                    ErrorCode::Invalid
                }
                Rejected::NoVolume(_) | Rejected::NoNode(_) | Rejected::NoDisk(_) => {
                    ErrorCode::NotFound
                }
                _ => ErrorCode::Conflict,
            };
            ErrorBody::new(code, rejected.to_string(), "")
        })
    }

    fn change(&self, command: &Command) -> Result<Changed, ErrorBody> {
        match self.apply(command)? {
            Outcome::Volume(volume) => Ok(Changed { volume: shown(&volume), notice: None }),
            other => panic!("a volume's change ended as {other:?}"),
        }
    }

    fn create(&self, create: &CreateVolume) -> Result<Changed, ErrorBody> {
        let name: VolumeName = create
            .name
            .parse()
            .map_err(|bad| ErrorBody::new(ErrorCode::Invalid, format!("{bad}"), ""))?;
        let count = self.catalogue().volumes().count() as u128;
        self.change(&Command::CreateVolume {
            volume: VolumeId::from_u128(count + 1),
            name,
            size_bytes: create.size_bytes,
            logical_block_bytes: create.logical_block_bytes.unwrap_or(512),
            history: HistoryId::from_u128(1),
            members: vec![Member {
                replica: ReplicaId::from_u128(count + 1),
                node: NODE,
                disk: DISK,
                ready: true,
            }],
            replicas: create.replicas.unwrap_or(1),
            min_replicas: create.min_replicas.unwrap_or(1),
        })
    }
}

fn shown(volume: &Volume) -> VolumeStatus {
    VolumeStatus {
        name: volume.name.as_str().to_owned(),
        id: volume.id.to_string(),
        size_bytes: volume.size_bytes,
        logical_block_bytes: volume.logical_block_bytes,
        phase: match volume.phase {
            Phase::Active => VolumePhase::Active,
            Phase::Deleting => VolumePhase::Deleting,
        },
        state: "detached".to_owned(),
        attached: volume.attached.map(|Attachment { node, read_only }| {
            holdfast_api::types::Attachment { node: node.to_string(), uri: None, read_only }
        }),
        epoch: volume.epoch.get(),
        generation: volume.set.generation.get(),
        replicas_wanted: volume.replicas,
        min_replicas: volume.min_replicas,
        commit_lsn: 0,
        applied_lsn: 0,
        sessions: 0,
        in_flight: 0,
        counters: Default::default(),
        replicas: Vec::new(),
    }
}

/// What was taken apart says the same when it is written down.
fn same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let again = serde_json::to_vec(value).map(|bytes| serde_json::from_slice::<T>(&bytes));
    assert!(matches!(&again, Ok(Ok(again)) if again == value), "{value:?} is now {again:?}");
}

fn answer<'a, T: Send + 'a>(result: Result<T, ErrorBody>) -> Answer<'a, T> {
    Box::pin(std::future::ready(result))
}

fn refuse<'a, T: Send + 'a>(code: ErrorCode) -> Answer<'a, T> {
    answer(Err(ErrorBody::new(code, "not here", "ask a real one")))
}

impl Service for Daemon {
    fn ready(&self) -> Answer<'_, ()> {
        self.asked("ready");
        refuse(ErrorCode::Unavailable)
    }

    fn version(&self) -> Version {
        self.asked("version");
        Version { version: "0".to_owned(), protocol: 1 }
    }

    fn status(&self) -> Answer<'_, Status> {
        self.asked("status");
        answer(Ok(Status {
            version: "0".to_owned(),
            node: NODE.to_string(),
            name: "node1".to_owned(),
            listeners: Vec::new(),
            cluster: Cluster { id: None, leader: None, term: 1, stale: None },
            nodes: Vec::new(),
            disks: Vec::new(),
            volumes: self.catalogue().volumes().map(shown).collect(),
        }))
    }

    fn volumes(&self) -> Answer<'_, Vec<VolumeStatus>> {
        self.asked("volumes");
        answer(Ok(self.catalogue().volumes().map(shown).collect()))
    }

    fn volume(&self, name: String) -> Answer<'_, VolumeStatus> {
        self.asked("volume");
        answer(self.named(&name).map(|volume| shown(&volume)))
    }

    fn create_volume(&self, create: CreateVolume) -> Answer<'_, Changed> {
        self.asked("create");
        same_again(&create);
        answer(self.create(&create))
    }

    fn delete_volume(&self, name: String) -> Answer<'_, ()> {
        self.asked("delete");
        let volume = self.named(&name);
        answer(
            volume.and_then(|v| self.change(&Command::DeleteVolume { volume: v.id })).map(|_| ()),
        )
    }

    fn resize_volume(&self, name: String, resize: ResizeVolume) -> Answer<'_, Changed> {
        self.asked("resize");
        same_again(&resize);
        let size_bytes = resize.size_bytes;
        let volume = self.named(&name);
        answer(volume.and_then(|v| self.change(&Command::Resize { volume: v.id, size_bytes })))
    }

    fn attach_volume(&self, name: String, attach: AttachVolume) -> Answer<'_, Changed> {
        self.asked("attach");
        same_again(&attach);
        let node = match attach.node.as_deref() {
            None => Some(NODE),
            Some(name) => self.catalogue().node_by_name(name).map(|node| node.id),
        };
        let (node, read_only) = (node.unwrap_or(NodeId::from_u128(9)), attach.read_only);
        let volume = self.named(&name);
        answer(volume.and_then(|v| self.change(&Command::Attach { volume: v.id, node, read_only })))
    }

    fn detach_volume(&self, name: String) -> Answer<'_, Changed> {
        self.asked("detach");
        let volume = self.named(&name);
        answer(volume.and_then(|v| self.change(&Command::Detach { volume: v.id })))
    }

    fn verify_volume(&self, name: String) -> Answer<'_, VerifyReport> {
        self.asked("verify");
        match self.named(&name) {
            Ok(_) => refuse(ErrorCode::Timeout),
            Err(error) => answer(Err(error)),
        }
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeStatus>> {
        self.asked("nodes");
        answer(Ok(Vec::new()))
    }

    fn join(&self, join: JoinCluster) -> Answer<'_, Vec<NodeStatus>> {
        self.asked("join");
        same_again(&join);
        refuse(ErrorCode::Conflict)
    }

    fn remove_node(&self, node: String, force: bool) -> Answer<'_, ()> {
        self.asked(if force { "remove node by force" } else { "remove node" });
        let id = self.catalogue().node_by_name(&node).map(|node| node.id);
        let node = id.unwrap_or(NodeId::from_u128(9));
        answer(self.apply(&Command::RemoveNode { node, force }).map(|_| ()))
    }

    fn disks(&self) -> Answer<'_, Vec<DiskStatus>> {
        self.asked("disks");
        answer(Ok(Vec::new()))
    }

    fn add_disk(&self, add: AddDisk) -> Answer<'_, DiskStatus> {
        self.asked("add disk");
        same_again(&add);
        refuse(ErrorCode::Internal)
    }

    fn remove_disk(&self, disk: String) -> Answer<'_, ()> {
        self.asked("remove disk");
        same_again(&disk);
        answer(self.apply(&Command::RemoveDisk { disk: DISK }).map(|_| ()))
    }
}
