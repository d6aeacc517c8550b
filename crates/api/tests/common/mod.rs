//! A daemon that remembers what it was asked, behind a real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not recognised as tests"
)]

use holdfast_api::{
    Answer, Service,
    client::{Client, Target},
    server,
    types::{
        AddDisk, AttachVolume, Changed, Cluster, CreateVolume, DiskStatus, ErrorBody, ErrorCode,
        JoinCluster, NodeStatus, ResizeVolume, Status, VerifyReport, Version, VolumePhase,
        VolumeStatus,
    },
};
use holdfast_io::net::{Address, Listener};
use std::sync::{Arc, Mutex};
use tokio::{sync::oneshot, task::JoinHandle};

/// What it was asked, one line each.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Fake {
    fn say<T: Send + 'static>(&self, asked: String, answer: T) -> Answer<'_, T> {
        self.asked.lock().unwrap().push(asked);
        Box::pin(async { Ok(answer) })
    }

    fn refuse<T: Send + 'static>(&self, asked: String, code: ErrorCode) -> Answer<'_, T> {
        self.asked.lock().unwrap().push(asked);
        Box::pin(async move { Err(ErrorBody::new(code, "the cause", "the remedy")) })
    }
}

pub(crate) fn volume(name: &str) -> VolumeStatus {
    VolumeStatus {
        name: name.to_owned(),
        id: String::new(),
        size_bytes: 4096,
        logical_block_bytes: 512,
        phase: VolumePhase::Active,
        state: "serving".to_owned(),
        attached: None,
        epoch: 1,
        generation: 1,
        replicas_wanted: 3,
        min_replicas: 1,
        commit_lsn: 1,
        applied_lsn: 1,
        sessions: 0,
        in_flight: 0,
        counters: Default::default(),
        replicas: Vec::new(),
    }
}

pub(crate) fn status() -> Status {
    Status {
        version: "0".to_owned(),
        node: "id".to_owned(),
        name: "node1".to_owned(),
        listeners: Vec::new(),
        cluster: Cluster { id: None, leader: None, term: 3, stale: Some("no leader".to_owned()) },
        nodes: Vec::new(),
        disks: Vec::new(),
        volumes: vec![volume("demo")],
    }
}

impl Service for Fake {
    fn ready(&self) -> Answer<'_, ()> {
        self.refuse("ready".to_owned(), ErrorCode::Unavailable)
    }
    fn version(&self) -> Version {
        Version { version: "1.2.3".to_owned(), protocol: 7 }
    }
    fn status(&self) -> Answer<'_, Status> {
        self.say("status".to_owned(), status())
    }
    fn volumes(&self) -> Answer<'_, Vec<VolumeStatus>> {
        self.say("volumes".to_owned(), vec![volume("demo")])
    }
    fn volume(&self, name: String) -> Answer<'_, VolumeStatus> {
        self.refuse(format!("volume {name}"), ErrorCode::NotFound)
    }
    fn create_volume(&self, create: CreateVolume) -> Answer<'_, Changed> {
        let volume = volume(&create.name);
        self.say(format!("{create:?}"), Changed { volume, notice: None })
    }
    fn delete_volume(&self, name: String) -> Answer<'_, ()> {
        self.refuse(format!("delete {name}"), ErrorCode::Conflict)
    }
    fn resize_volume(&self, name: String, resize: ResizeVolume) -> Answer<'_, Changed> {
        let volume = volume(&name);
        self.say(format!("resize {name} {}", resize.size_bytes), Changed { volume, notice: None })
    }
    fn attach_volume(&self, name: String, attach: AttachVolume) -> Answer<'_, Changed> {
        let volume = volume(&name);
        self.say(format!("attach {name} {attach:?}"), Changed { volume, notice: None })
    }
    fn detach_volume(&self, name: String) -> Answer<'_, Changed> {
        let volume = volume(&name);
        self.say(format!("detach {name}"), Changed { volume, notice: Some("so".to_owned()) })
    }
    fn verify_volume(&self, name: String) -> Answer<'_, VerifyReport> {
        self.refuse(format!("verify {name}"), ErrorCode::Timeout)
    }
    fn nodes(&self) -> Answer<'_, Vec<NodeStatus>> {
        self.say("nodes".to_owned(), Vec::new())
    }
    fn join(&self, join: JoinCluster) -> Answer<'_, Vec<NodeStatus>> {
        self.say(format!("join {}", join.seed), Vec::new())
    }
    fn remove_node(&self, node: String, force: bool) -> Answer<'_, ()> {
        self.say(format!("remove node {node} {force}"), ())
    }
    fn disks(&self) -> Answer<'_, Vec<DiskStatus>> {
        self.say("disks".to_owned(), Vec::new())
    }
    fn add_disk(&self, add: AddDisk) -> Answer<'_, DiskStatus> {
        self.refuse(format!("{add:?}"), ErrorCode::Invalid)
    }
    fn remove_disk(&self, disk: String) -> Answer<'_, ()> {
        self.refuse(format!("remove disk {disk}"), ErrorCode::Internal)
    }
}

/// A served [`Fake`].
pub(crate) struct Served {
    pub(crate) fake: Arc<Fake>,
    pub(crate) client: Client,
    pub(crate) address: Address,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) async fn on(address: &Address) -> Self {
        let listener = Listener::bind(address).await.unwrap();
        let address = listener.local_addr().clone();
        let target = match &address {
            Address::Unix(path) => Target::Unix(path.clone()),
            Address::Tcp(address) => Target::Tcp(address.to_string()),
        };
        let fake = Arc::new(Fake::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move { stopped.await.unwrap_or(()) };
        let served = tokio::spawn(server::serve(listener, fake.clone(), until));
        Self { fake, client: Client::new(target), address, stop, served }
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(12), self.served).await;
        ended.expect("ends in time").unwrap().unwrap();
    }
}
