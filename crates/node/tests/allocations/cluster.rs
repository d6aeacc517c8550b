//! Three shards with one volume, joined by TCP and served by NBD as a node does it, but
//! without a control plane: what their threads take from the heap, the data path takes.

use holdfast_block::BlockDevice as _;
use holdfast_engine::runtime::{
    AttachVolume, DiskParts, MemberSpec, MemberState, Shard, ShardHandle, ShardParts, greeting,
};
use holdfast_frontend::nbd::{self, Connections, Export, Exports, Limits};
use holdfast_io::{
    BackendChoice, BufPool, counting,
    net::{Address, Listener},
    open_disk,
};
use holdfast_replica::{FormatOptions, Host, HostError, HostOptions, NewVolume};
use holdfast_types::{
    BLOCK_BYTES, ClusterId, DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::sleep};

pub(crate) const NODES: usize = 3;
pub(crate) const NAME: &str = "demo";
pub(crate) const SIZE_BYTES: u64 = 64 << 20;
const VOLUME: VolumeId = VolumeId::from_u128(7);
const CLUSTER: ClusterId = ClusterId::from_u128(1);
const HISTORY: HistoryId = HistoryId::from_u128(9);
const PATIENCE: Duration = Duration::from_secs(40);

fn node(n: usize) -> NodeId {
    NodeId::from_u128(100 + n as u128)
}

fn replica(n: usize) -> ReplicaId {
    ReplicaId::from_u128(200 + n as u128)
}

/// The first has the engine.
pub(crate) struct Cluster {
    dir: TempDir,
    shards: Vec<ShardHandle>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (mut shards, mut peers) = (Vec::new(), Vec::new());
        for n in 0..NODES {
            let root = dir.path().join(format!("disk{n}"));
            std::fs::create_dir(&root).unwrap();
            let shard = Shard::spawn(&format!("shard-{n}"), move || open(&root, n)).await.unwrap();
            shard.set_cluster(CLUSTER).await.unwrap();
            let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
            peers.push((node(n), listener.local_addr().to_string()));
            tokio::spawn(accept(listener, shard.clone(), n));
            shards.push(shard);
        }
        let mut members = Vec::new();
        for (n, shard) in shards.iter().enumerate() {
            shard.set_peers(peers.clone()).await.unwrap();
            let disk = shard.status().await.unwrap().disks[0].disk;
            let blocks = SIZE_BYTES / BLOCK_BYTES as u64;
            let new = NewVolume { volume: VOLUME, replica: replica(n), history: HISTORY, blocks };
            shard.create_replica(disk, new).await.unwrap();
            members.push(member(n, disk));
        }
        let cluster = Self { dir, shards };
        cluster.shards[0].attach(attach(members)).await.unwrap();
        cluster.until_level().await;
        let listener = Listener::bind(&Address::Unix(cluster.socket())).await.unwrap();
        tokio::spawn(serve(listener, cluster.shards[0].clone()));
        cluster
    }

    /// Where its clients connect.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("nbd.sock")
    }

    /// Waits until all replicas have all that was written.
    pub(crate) async fn until_level(&self) {
        let began = Instant::now();
        loop {
            let status = self.shards[0].status().await.unwrap().volumes.remove(0);
            let streams = |state| matches!(state, MemberState::Streaming);
            if status.members.iter().all(|m| streams(m.state) && m.matched == status.last_lsn) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "not level: {status:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What each shard's thread has taken from the heap, asking included.
    pub(crate) async fn taken(&self) -> [u64; NODES] {
        let mut all = [0; NODES];
        for (taken, shard) in all.iter_mut().zip(&self.shards) {
            *taken = shard.run(|_| async { counting::taken() }).await.unwrap();
        }
        all
    }

    /// Has every shard print where it takes memory next.
    pub(crate) async fn show(&self, count: u32) {
        for shard in &self.shards {
            shard.run(move |_| async move { counting::show(count) }).await.unwrap();
        }
    }

    pub(crate) async fn stop(self) {
        for shard in &self.shards {
            shard.shutdown().await.unwrap();
        }
    }
}

fn member(n: usize, disk: DiskId) -> MemberSpec {
    MemberSpec { replica: replica(n), node: node(n), disk, voter: true }
}

fn attach(members: Vec<MemberSpec>) -> AttachVolume {
    AttachVolume {
        volume: VOLUME,
        history: HISTORY,
        epoch: Epoch::new(1),
        generation: Generation::new(1),
        size_blocks: SIZE_BYTES / BLOCK_BYTES as u64,
        logical_block_bytes: 512,
        read_only: false,
        members,
        min_replicas: 1,
    }
}

/// A log so small that rounds and checkpoints are part of what is counted.
fn open(root: &Path, n: usize) -> Result<ShardParts, HostError> {
    let pool = BufPool::new(64 << 20);
    let mut disk = open_disk(root, BackendChoice::Auto, std::slice::from_ref(&pool)).unwrap();
    let format = FormatOptions { segment_bytes: 4 << 20, segments: 16, capacity_bytes: None };
    Host::format(&mut *disk, &format)?;
    let options = HostOptions {
        unapplied_bytes_max: 16 << 20,
        payload_cache_bytes: 16 << 20,
        map_cache_bytes: 4 << 20,
    };
    let (host, recovery) = Host::open(&mut *disk, pool.clone(), options)?;
    let label = root.display().to_string();
    // Nobody leaves the set, so nothing is proposed.
    let (proposals, _) = mpsc::channel(1);
    Ok(ShardParts {
        pool,
        disks: vec![DiskParts { label, disk, host, recovery }],
        node: node(n),
        lease_ms: 3000,
        shrink_after_ms: 60_000,
        proposals,
    })
}

/// What a node does with connections of others.
async fn accept(listener: Listener, shard: ShardHandle, n: usize) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let shard = shard.clone();
        tokio::spawn(async move {
            let Ok(hello) = greeting::hello(&mut stream).await else { return };
            greeting::check(&hello, node(n), Some(CLUSTER)).unwrap();
            let _ = shard.accept(stream.detach().unwrap(), hello).await;
        });
    }
}

struct One(Export);

impl Exports for One {
    fn list(&self) -> Vec<Export> {
        vec![self.0.clone()]
    }
}

/// What a node does with clients.
async fn serve(listener: Listener, shard: ShardHandle) {
    let geometry = shard.run(|shard| async move { shard.volume(VOLUME).unwrap().geometry() });
    let (name, description) = (NAME.to_owned(), String::new());
    let exports = One(Export { name, description, geometry: geometry.await.unwrap() });
    while let Ok((mut stream, _)) = listener.accept().await {
        let negotiated = nbd::negotiate(&mut stream, &exports, &Limits::default()).await.unwrap();
        let socket = stream.detach().unwrap();
        let serving = shard.spawn(move |shard| async move {
            let (stream, device) = (socket.attach().unwrap(), shard.volume(VOLUME).unwrap());
            let connections = Connections::new();
            nbd::serve(stream, negotiated, device, &connections, shard.pool()).await;
        });
        serving.await.unwrap();
    }
}
