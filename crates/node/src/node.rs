//! Bring-up, service and take-down of a node.

use crate::{
    Config, DataDir, DiskConfig, NodeError, VolumeConfig,
    catalogue_file::CatalogueFile,
    exports::ExportList,
    serve::{self, Acceptor},
    status::StatusService,
};
use holdfast_engine::runtime::{
    AttachVolume, DiskParts, Shard, ShardHandle, ShardParts, SpawnError,
};
use holdfast_io::{
    BufPool, DirLock, crashsafe,
    dirlock::LOCK_FILE,
    fault,
    net::{Address, Listener},
};
use holdfast_meta::{Catalogue, Command, Member, Outcome, Volume};
use holdfast_replica::{FormatOptions, Host, HostError, HostOptions, NewVolume};
use holdfast_types::{BLOCK_BYTES, DiskId, HistoryId, NodeId, ReplicaId, VolumeId};
use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;

/// Registered buffer memory of a shard: the write-ahead log's frames in flight, the
/// payload cache and a few large requests fit without falling back to the heap.
const ARENA_BYTES: usize = 128 << 20;
/// Payload of unapplied records kept in memory; half of the arena, so that requests
/// in flight find room beside it.
const PAYLOAD_CACHE_BYTES: u64 = 64 << 20;
/// Map pages kept in memory: the maps of about 46 GiB of mapped data.
const MAP_CACHE_BYTES: u64 = 64 << 20;

/// What a disk that is a directory may hold. The last is a file system's own.
const DISK_FILES: [&str; 5] = [LOCK_FILE, "superblock", "wal", "data", "lost+found"];

/// Where clients find a node that has come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where NBD is served: the unix socket, then TCP if it is on.
    pub nbd: Vec<Address>,
    /// The volume.
    pub volume: String,
    /// Its size.
    pub size_bytes: u64,
    /// Whether it was made by this start.
    pub created: bool,
    /// What carries the disk's I/O.
    pub backend: String,
}

/// Runs a node until `stop` resolves: brings it up, calls `on_ready`, serves, and
/// takes it down in the reverse order.
pub async fn run(
    config: Config,
    on_ready: impl FnOnce(&Ready),
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let data = DataDir::open_or_create(&config.data_dir)?;
    let mut catalogue = CatalogueFile::open(data.join("catalogue"))?;
    check_geometry(catalogue.catalogue(), &config.volume)?;

    let unix = config.nbd_socket.clone().unwrap_or_else(|| data.join("nbd.sock"));
    let mut nbd = vec![listen(&Address::Unix(unix), "--nbd-socket").await?];
    if let Some(address) = config.nbd {
        nbd.push(listen(&Address::Tcp(address), "--nbd").await?);
    }
    let api = listen(&Address::Unix(data.join(holdfast_api::SOCKET_NAME)), "--data-dir").await?;
    let addresses: Vec<Address> = nbd.iter().map(|l| l.local_addr().clone()).collect();
    for address in addresses.iter().filter(|address| !address.is_local()) {
        tracing::warn!(%address, "NBD has no authentication: whoever reaches this address can read and write every volume");
    }

    let disk_path = config.disk.path.clone().unwrap_or_else(|| data.join("disk"));
    let _disk_lock = prepare_disk(&disk_path)?;
    let opened = Instant::now();
    let shard = open_shard(&config.disk, &disk_path, catalogue.catalogue()).await?;
    let took = opened.elapsed();
    let (disk, backend, report) = first_disk(&shard, catalogue.catalogue(), &disk_path).await?;
    tracing::info!(
        disk = %disk, path = %disk_path.display(), backend, took_ms = took.as_millis() as u64,
        records = report.records, wal_bytes = report.wal_bytes, end = report.end,
        suspect = report.suspect, "disk open"
    );

    let created = ensure_volume(&mut catalogue, &config.volume, data.node(), disk)?;
    let exports = ExportList::default();
    let ids: Vec<VolumeId> = catalogue.catalogue().volumes().map(|volume| volume.id).collect();
    for id in ids {
        let volume = bring_up(&mut catalogue, &shard, data.node(), disk, &disk_path, id).await?;
        exports.add(&volume);
    }

    let (stopping, stopped) = watch::channel(false);
    let acceptor = Acceptor::new(shard.clone(), exports, stopped.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for listener in nbd {
        tasks.spawn(acceptor.clone().accept(listener));
    }
    let listeners = addresses.iter().map(serve::uri).collect();
    let service = StatusService::new(
        shard.clone(),
        catalogue.catalogue().clone(),
        data.node(),
        listeners,
        took,
    );
    let until = serve::until_stopped(stopped);
    tasks.spawn(async move {
        if let Err(error) = holdfast_api::server::serve(api, Arc::new(service), until).await {
            tracing::error!(%error, "the management API stopped");
        }
    });

    let Some(served) = catalogue.catalogue().by_name(&config.volume.name) else {
        unreachable!("the volume was found or created above");
    };
    on_ready(&Ready {
        data_dir: config.data_dir.clone(),
        nbd: addresses,
        volume: served.name.to_string(),
        size_bytes: served.size_bytes,
        created,
        backend,
    });

    stop.await;
    tracing::info!("stopping");
    // No receiver left means that every task has ended already.
    let _ = stopping.send(true);
    while tasks.join_next().await.is_some() {}
    acceptor.close_connections().await;
    if shard.shutdown().await.is_err() {
        tracing::error!("the shard ended by itself; the next start recovers from its log");
    }
    tracing::info!("stopped");
    Ok(())
}

fn check_geometry(catalogue: &Catalogue, wanted: &VolumeConfig) -> Result<(), NodeError> {
    let Some(held) = catalogue.by_name(&wanted.name) else {
        return Ok(());
    };
    let same = wanted.size_bytes.is_none_or(|size| size == held.size_bytes)
        && wanted.logical_block_bytes.is_none_or(|block| block == held.logical_block_bytes);
    if same {
        return Ok(());
    }
    Err(NodeError::Geometry {
        name: held.name.to_string(),
        held: format!("{} bytes in blocks of {}", held.size_bytes, held.logical_block_bytes),
    })
}

async fn listen(address: &Address, option: &'static str) -> Result<Listener, NodeError> {
    Listener::bind(address).await.map_err(|source| NodeError::Listen { source, option })
}

/// Makes the disk's directory if it is to be one and is not there, and locks it.
fn prepare_disk(path: &Path) -> Result<Option<DirLock>, NodeError> {
    let cannot = |source| NodeError::DiskOpen { path: path.to_owned(), source };
    if !path.exists() {
        if is_device_name(path) {
            let message = "there is no such device; check its name";
            return Err(cannot(io::Error::new(io::ErrorKind::NotFound, message)));
        }
        crashsafe::create_dir(path).map_err(cannot)?;
    }
    if !path.is_dir() {
        return Ok(None);
    }
    // Whose it is comes before the lock: a foreign directory gets no lock file.
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        if !DISK_FILES.iter().any(|ours| name == *ours) {
            return Err(NodeError::ForeignDisk { path: path.to_owned() });
        }
    }
    DirLock::acquire(path).map(Some).map_err(cannot)
}

/// Whether a path can only mean a device: a directory made there would be in memory.
fn is_device_name(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

/// Starts the shard with its disk; formats the disk if it is new.
async fn open_shard(
    config: &DiskConfig,
    path: &Path,
    catalogue: &Catalogue,
) -> Result<ShardHandle, NodeError> {
    let config = config.clone();
    let path = path.to_owned();
    // A disk that should hold replicas and is blank is not the disk it should be.
    let expected = catalogue.volumes().next().map(|volume| volume.name.to_string());
    let spawned = Shard::spawn("shard-0", move || open_disk(&config, &path, expected)).await;
    spawned.map_err(|error| match error {
        SpawnError::Thread(source) => NodeError::System { what: "cannot start a thread", source },
        SpawnError::Build(error) => error,
    })
}

fn open_disk(
    config: &DiskConfig,
    path: &Path,
    expected: Option<String>,
) -> Result<ShardParts, NodeError> {
    let open_failed = |source| NodeError::DiskOpen { path: path.to_owned(), source };
    let pool = BufPool::new(ARENA_BYTES);
    let pools = [pool.clone()];
    let mut disk = holdfast_io::open_disk(path, config.backend, &pools).map_err(open_failed)?;
    if let Some(faults) = &config.fault {
        let faults = fault::FaultConfig::parse(faults)
            .map_err(|reason| open_failed(io::Error::new(io::ErrorKind::InvalidInput, reason)))?;
        tracing::warn!(?faults, "injecting faults below the store");
        disk = Box::new(fault::FaultDisk::new(disk, faults).map_err(open_failed)?);
    }
    let options = || HostOptions {
        unapplied_bytes_max: config.unapplied_bytes_max,
        payload_cache_bytes: PAYLOAD_CACHE_BYTES,
        map_cache_bytes: MAP_CACHE_BYTES,
    };
    let unusable = |source| NodeError::Disk { path: path.to_owned(), source };
    let opened = match Host::open(&mut *disk, pool.clone(), options()) {
        Err(HostError::NotFormatted) => {
            if let Some(name) = expected {
                return Err(NodeError::ReplicaLost { path: path.to_owned(), name });
            }
            let format = FormatOptions {
                segment_bytes: config.segment_bytes,
                segments: config.segments,
                capacity_bytes: config.capacity_bytes,
            };
            Host::format(&mut *disk, &format).map_err(unusable)?;
            Host::open(&mut *disk, pool.clone(), options())
        }
        other => other,
    };
    let (host, recovery) = opened.map_err(unusable)?;
    let label = path.display().to_string();
    Ok(ShardParts { pool, disks: vec![DiskParts { label, disk, host, recovery }] })
}

/// The shard's disk. One whose replicas the catalogue does not know is another
/// node's: a volume is in the catalogue before it is on a disk.
async fn first_disk(
    shard: &ShardHandle,
    catalogue: &Catalogue,
    path: &Path,
) -> Result<(DiskId, String, holdfast_replica::RecoveryReport), NodeError> {
    let status = shard.status().await.map_err(|_| gone())?;
    let Some(disk) = status.disks.into_iter().next() else {
        unreachable!("the shard was built with one disk");
    };
    if disk.replicas.iter().any(|replica| catalogue.volume(replica.volume).is_none()) {
        return Err(NodeError::OthersDisk { path: path.to_owned() });
    }
    Ok((disk.disk, disk.backend, disk.recovery))
}

/// Puts the volume into the catalogue if it is not there. Says whether it did.
fn ensure_volume(
    catalogue: &mut CatalogueFile,
    wanted: &VolumeConfig,
    node: NodeId,
    disk: DiskId,
) -> Result<bool, NodeError> {
    if catalogue.catalogue().by_name(&wanted.name).is_some() {
        return Ok(false);
    }
    catalogue.apply(&Command::CreateVolume {
        volume: VolumeId::random(),
        name: wanted.name.clone(),
        size_bytes: wanted.size_bytes.unwrap_or(VolumeConfig::SIZE_BYTES_DEFAULT),
        logical_block_bytes: wanted
            .logical_block_bytes
            .unwrap_or(VolumeConfig::LOGICAL_BLOCK_BYTES_DEFAULT),
        history: HistoryId::random(),
        members: vec![Member { replica: ReplicaId::random(), node, disk }],
    })?;
    Ok(true)
}

/// Makes sure that the volume's replica exists, takes an epoch, and attaches it.
async fn bring_up(
    catalogue: &mut CatalogueFile,
    shard: &ShardHandle,
    node: NodeId,
    disk: DiskId,
    disk_path: &Path,
    id: VolumeId,
) -> Result<Volume, NodeError> {
    let Some(volume) = catalogue.catalogue().volume(id).cloned() else {
        unreachable!("the id comes from the catalogue");
    };
    let name = volume.name.to_string();
    let lost = || NodeError::ReplicaLost { path: disk_path.to_owned(), name: name.clone() };
    let Some(member) = volume.set.members.iter().find(|member| member.disk == disk) else {
        return Err(lost());
    };
    let status = shard.status().await.map_err(|_| gone())?;
    let held = status.disks.iter().flat_map(|disk| &disk.replicas).find(|r| r.volume == id);
    match held {
        Some(held) if held.replica == member.replica => {}
        Some(_) => return Err(lost()),
        // Created in the catalogue, and the last start ended before it was made here.
        None if volume.epoch == holdfast_types::Epoch::ZERO => {
            let new = NewVolume {
                volume: id,
                replica: member.replica,
                history: volume.history,
                blocks: volume.size_bytes / BLOCK_BYTES as u64,
            };
            let attach = |reason: String| NodeError::Attach { name: name.clone(), reason };
            shard.create_replica(disk, new).await.map_err(|error| attach(error.to_string()))?;
        }
        None => return Err(lost()),
    }
    let grant = Command::GrantEpoch { volume: id, node, expected: volume.epoch };
    let Outcome::Volume(granted) = catalogue.apply(&grant)? else {
        unreachable!("a grant answers with the volume");
    };
    let attach = AttachVolume {
        volume: id,
        disk,
        replica: member.replica,
        history: granted.history,
        epoch: granted.epoch,
        generation: granted.set.generation,
        size_blocks: granted.size_bytes / BLOCK_BYTES as u64,
        logical_block_bytes: granted.logical_block_bytes,
        read_only: false,
    };
    shard
        .attach(attach)
        .await
        .map_err(|error| NodeError::Attach { name, reason: error.to_string() })?;
    tracing::info!(volume = %granted.id, name = %granted.name, epoch = %granted.epoch, "volume attached");
    Ok(granted)
}

fn gone() -> NodeError {
    let source = io::Error::other("its thread ended");
    NodeError::System { what: "the shard stopped by itself", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_becomes_no_directory() {
        let path = Path::new("/dev/holdfast-no-such-device");
        let error = prepare_disk(path).unwrap_err();
        assert!(error.to_string().contains("no such device"), "{error}");
        assert!(!path.exists());
    }
}
