//! Nodes, each a shard with a listener, and a catalogue that all of them ask.

use super::relay::{Gate, relay};
use holdfast_engine::runtime::{
    AttachError, AttachVolume, DiskParts, MemberSpec, MemberState, SetAnswer, SetProposal, Shard,
    ShardHandle, ShardParts, VolumeStatus, greeting,
};
use holdfast_io::{
    BackendChoice, BufPool,
    net::{Address, Listener},
    open_disk,
};
use holdfast_meta::{Catalogue, Command, Disk, Member, Node as MetaNode, Outcome, Rejected};
use holdfast_replica::{FormatOptions, Host, HostError, HostOptions, NewVolume, SlotDigest};
use holdfast_types::{ClusterId, DiskId, HistoryId, Lsn, NodeId, ReplicaId, SlotNo, VolumeId};
use std::{
    future::Future,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

pub(crate) const VOLUME: VolumeId = VolumeId::from_u128(7);
pub(crate) const BLOCKS: u64 = 16384;
const CLUSTER: ClusterId = ClusterId::from_u128(1);
const HISTORY: HistoryId = HistoryId::from_u128(9);
const LEASE_MS: u64 = 1000;
/// Longer than anything here should take, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn node_id(n: usize) -> NodeId {
    NodeId::from_u128(100 + n as u128)
}

pub(crate) fn replica_id(n: usize) -> ReplicaId {
    ReplicaId::from_u128(200 + n as u128)
}

/// A running node.
pub(crate) struct Node {
    pub(crate) shard: ShardHandle,
    pub(crate) disk: DiskId,
    tasks: Vec<JoinHandle<()>>,
}

/// Nodes with one volume that has a replica on each.
pub(crate) struct Cluster {
    dirs: Vec<TempDir>,
    /// Where each node is to be found by others: its relay.
    addresses: Vec<String>,
    /// Where its relay finds it.
    behind: Vec<Address>,
    pub(crate) gates: Vec<Arc<Gate>>,
    nodes: Vec<Option<Node>>,
    catalogue: Arc<Mutex<Catalogue>>,
    shrink_after_ms: u64,
    lease_ms: u64,
}

impl Cluster {
    /// So many nodes, all up, the volume created and attached nowhere.
    pub(crate) async fn start(count: usize, shrink_after_ms: u64) -> Self {
        Self::with_leases(count, shrink_after_ms, LEASE_MS).await
    }

    /// The same with leases of another length.
    pub(crate) async fn with_leases(count: usize, shrink_after_ms: u64, lease_ms: u64) -> Self {
        let mut cluster = Self {
            dirs: Vec::new(),
            addresses: Vec::new(),
            behind: Vec::new(),
            gates: Vec::new(),
            nodes: Vec::new(),
            catalogue: Arc::default(),
            shrink_after_ms,
            lease_ms,
        };
        for n in 0..count {
            cluster.dirs.push(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
            let any: Address = "127.0.0.1:0".parse().unwrap();
            let front = Listener::bind(&any).await.unwrap();
            // The port of the node itself stays its own for as long as the test runs, but for restarts.
            let behind = Listener::bind(&any).await.unwrap().local_addr().clone();
            cluster.addresses.push(front.local_addr().to_string());
            let gate = Arc::new(Gate::default());
            tokio::spawn(relay(front, behind.clone(), gate.clone()));
            cluster.behind.push(behind);
            cluster.gates.push(gate);
            cluster.nodes.push(None);
            cluster.up(n).await;
        }
        cluster.create().await;
        cluster
    }

    /// Starts a node.
    pub(crate) async fn up(&mut self, n: usize) {
        let (proposals, asked) = mpsc::channel(16);
        let root = self.dirs[n].path().to_owned();
        let (shrink_after_ms, lease_ms) = (self.shrink_after_ms, self.lease_ms);
        let name = format!("node-{n}");
        let shard =
            Shard::spawn(&name, move || open(&root, n, shrink_after_ms, lease_ms, proposals));
        let shard = shard.await.unwrap();
        let disk = shard.status().await.unwrap().disks[0].disk;
        shard.set_cluster(CLUSTER).await.unwrap();
        shard.set_peers(self.peers()).await.unwrap();
        let listener = Listener::bind(&self.behind[n]).await.unwrap();
        let tasks = vec![
            tokio::spawn(accept(listener, shard.clone(), n)),
            tokio::spawn(answer(asked, self.catalogue.clone())),
        ];
        self.nodes[n] = Some(Node { shard, disk, tasks });
    }

    fn peers(&self) -> Vec<(NodeId, String)> {
        let all = self.addresses.iter().enumerate();
        all.map(|(n, address)| (node_id(n), address.clone())).collect()
    }

    /// Ends a node as a crash does: nothing is drained, nothing is given back.
    pub(crate) async fn crash(&mut self, n: usize) {
        let node = self.nodes[n].take().unwrap();
        node.tasks.iter().for_each(JoinHandle::abort);
        // It may be gone before it can say that it is.
        let _ = node.shard.run(|shard| async move { shard.stop() }).await;
        while node.shard.status().await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
        // The thread lets go of its disk.
        sleep(Duration::from_millis(100)).await;
    }

    /// Ends a node in order.
    pub(crate) async fn down(&mut self, n: usize) {
        let node = self.nodes[n].take().unwrap();
        node.shard.shutdown().await.unwrap();
        node.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Gives a node that is down a blank disk.
    pub(crate) fn replace_disk(&mut self, n: usize) {
        self.dirs[n] = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    }

    pub(crate) fn node(&self, n: usize) -> &Node {
        self.nodes[n].as_ref().unwrap()
    }

    pub(crate) fn shard(&self, n: usize) -> &ShardHandle {
        &self.node(n).shard
    }

    fn apply(&self, command: &Command) -> Result<Outcome, Rejected> {
        self.catalogue.lock().unwrap().apply(command)
    }

    async fn create(&self) {
        self.apply(&Command::InitCluster { cluster: CLUSTER }).unwrap();
        let mut members = Vec::new();
        for n in 0..self.nodes.len() {
            let (node, disk) = (node_id(n), self.node(n).disk);
            self.apply(&Command::PutNode(MetaNode {
                id: node,
                name: format!("node-{n}"),
                zone: String::new(),
                peer: self.addresses[n].clone(),
                api: "127.0.0.1:1".to_owned(),
                nbd: "127.0.0.1:2".to_owned(),
            }))
            .unwrap();
            let (path, capacity_bytes) = (format!("/disk{n}"), 1 << 40);
            self.apply(&Command::PutDisk(Disk { id: disk, node, path, capacity_bytes })).unwrap();
            members.push(Member { replica: replica_id(n), node, disk, ready: false });
        }
        self.apply(&Command::CreateVolume {
            volume: VOLUME,
            name: "demo".parse().unwrap(),
            size_bytes: BLOCKS * 4096,
            logical_block_bytes: 512,
            history: HISTORY,
            replicas: members.len() as u8,
            members,
            min_replicas: 1,
        })
        .unwrap();
        for n in 0..self.nodes.len() {
            self.shard(n).set_peers(self.peers()).await.unwrap();
            let (volume, replica) = (VOLUME, replica_id(n));
            let new = NewVolume { volume, replica, history: HISTORY, blocks: BLOCKS };
            self.shard(n).create_replica(self.node(n).disk, new).await.unwrap();
            self.apply(&Command::ReplicaReady { volume, replica }).unwrap();
        }
    }

    /// Takes an epoch for node `n` and has it serve the volume.
    pub(crate) async fn attach(&self, n: usize) -> Result<(), AttachError> {
        let attaching = self.shard(n).attach(self.grant(n));
        tokio::pin!(attaching);
        match timeout(Duration::from_secs(15), &mut attaching).await {
            Ok(attached) => attached,
            Err(_) => panic!("not served: {:#?}", self.shard(n).status().await),
        }
    }

    /// Takes an epoch for node `n`.
    pub(crate) fn grant(&self, n: usize) -> AttachVolume {
        let node = node_id(n);
        self.apply(&Command::Attach { volume: VOLUME, node, read_only: false }).unwrap();
        let expected = self.volume().epoch;
        self.apply(&Command::GrantEpoch { volume: VOLUME, node, expected }).unwrap();
        let volume = self.volume();
        let spec = |member: &Member, voter| MemberSpec {
            replica: member.replica,
            node: member.node,
            disk: member.disk,
            voter,
        };
        let voters = volume.set.members.iter().map(|member| spec(member, true));
        let learners = volume.set.learners.iter().map(|member| spec(member, false));
        AttachVolume {
            volume: VOLUME,
            history: HISTORY,
            epoch: volume.epoch,
            generation: volume.set.generation,
            size_blocks: BLOCKS,
            logical_block_bytes: 512,
            read_only: false,
            members: voters.chain(learners).collect(),
            min_replicas: 1,
        }
    }

    /// The volume as the catalogue has it.
    pub(crate) fn volume(&self) -> holdfast_meta::Volume {
        self.catalogue.lock().unwrap().volume(VOLUME).unwrap().clone()
    }

    /// The engine on node `n`, for those who look at it.
    pub(crate) async fn engine(&self, n: usize) -> Option<VolumeStatus> {
        self.shard(n).status().await.unwrap().volumes.into_iter().next()
    }

    /// Waits until the engine on node `n` is as `test` wants it.
    pub(crate) async fn until(&self, n: usize, what: &str, test: impl Fn(&VolumeStatus) -> bool) {
        let began = Instant::now();
        loop {
            let status = self.engine(n).await;
            if status.as_ref().is_some_and(&test) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not {what}: {status:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the engine on node `n` streams to everyone.
    pub(crate) async fn until_level(&self, n: usize) {
        let streams = |status: &VolumeStatus| {
            let level = |member: &holdfast_engine::runtime::MemberStatus| {
                member.state == MemberState::Streaming && member.matched == status.last_lsn
            };
            status.members.iter().all(level)
        };
        self.until(n, "level", streams).await;
    }

    /// Runs a client on node `n`, and says how things stand if it does not come to an end.
    pub(crate) async fn on<F, Fut, T>(&self, n: usize, client: F) -> T
    where
        F: FnOnce(Shard) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let working = self.shard(n).run(client);
        tokio::pin!(working);
        match timeout(PATIENCE, &mut working).await {
            Ok(done) => done.unwrap(),
            Err(_) => panic!("its client waits: {:#?}", self.shard(n).status().await),
        }
    }

    /// Compares all replicas, each read from its own disk, at one LSN. Nothing may be written meanwhile.
    pub(crate) async fn assert_identical(&self) {
        let mut all: Vec<(usize, Lsn, Vec<SlotDigest>)> = Vec::new();
        let began = Instant::now();
        let at = loop {
            let mut ends = Vec::new();
            for n in 0..self.nodes.len() {
                let status = self.shard(n).status().await.unwrap();
                let report = &status.disks[0].replicas[0];
                ends.push((report.last_lsn, report.commit_lsn));
            }
            if ends.iter().all(|(last, commit)| last == commit && *last == ends[0].0) {
                break ends[0].0;
            }
            assert!(began.elapsed() < PATIENCE, "the logs end at {ends:?}");
            sleep(Duration::from_millis(50)).await;
        };
        for n in 0..self.nodes.len() {
            let (shard, disk) = (self.shard(n), self.node(n).disk);
            let digest = shard.digest(disk, VOLUME, at, SlotNo::new(0), BLOCKS / 16).await;
            all.push((n, at, digest.unwrap().unwrap()));
        }
        for (n, at, digest) in &all[1..] {
            assert!(*digest == all[0].2, "replica {n} differs at {at}");
        }
        assert!(!all[0].2.is_empty(), "there is something to compare");
    }
}

/// Opens a node's only disk.
fn open(
    root: &Path,
    n: usize,
    shrink_after_ms: u64,
    lease_ms: u64,
    proposals: mpsc::Sender<SetProposal>,
) -> Result<ShardParts, HostError> {
    let pool = BufPool::new(32 << 20);
    let pools = std::slice::from_ref(&pool);
    let mut disk = open_disk(root, BackendChoice::Threads, pools).unwrap();
    let options = || HostOptions {
        unapplied_bytes_max: 16 << 20,
        payload_cache_bytes: 8 << 20,
        map_cache_bytes: 4 << 20,
    };
    let mut opened = Host::open(&mut *disk, pool.clone(), options());
    if matches!(opened, Err(HostError::NotFormatted)) {
        let format = FormatOptions { segment_bytes: 4 << 20, segments: 8, capacity_bytes: None };
        Host::format(&mut *disk, &format)?;
        opened = Host::open(&mut *disk, pool.clone(), options());
    }
    let (host, recovery) = opened?;
    let label = root.display().to_string();
    Ok(ShardParts {
        pool,
        disks: vec![DiskParts { label, disk, host, recovery }],
        node: node_id(n),
        lease_ms,
        shrink_after_ms,
        proposals,
    })
}

/// What the daemon does with connections of other nodes.
async fn accept(listener: Listener, shard: ShardHandle, n: usize) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let shard = shard.clone();
        tokio::spawn(async move {
            let Ok(hello) = greeting::hello(&mut stream).await else { return };
            greeting::check(&hello, node_id(n), Some(CLUSTER)).unwrap();
            let _ = shard.accept(stream.detach().unwrap(), hello).await;
        });
    }
}

/// What the daemon does with proposals.
async fn answer(mut asked: mpsc::Receiver<SetProposal>, catalogue: Arc<Mutex<Catalogue>>) {
    while let Some(proposal) = asked.recv().await {
        let SetProposal { volume, epoch, generation, members, answer } = proposal;
        let mut catalogue = catalogue.lock().unwrap();
        let change = Command::ChangeSet { volume, epoch, generation, members };
        // An answer of no: the set is as it was, which is what is said.
        let _ = catalogue.apply(&change);
        let Some(held) = catalogue.volume(volume) else { continue };
        let said = if held.epoch == epoch {
            SetAnswer::InForce {
                generation: held.set.generation,
                members: held.set.members.iter().map(|member| member.replica).collect(),
            }
        } else {
            SetAnswer::Fenced { epoch: held.epoch }
        };
        let _ = answer.send(said);
    }
}
