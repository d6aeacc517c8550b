//! A node's disks: whose they are, that one process at a time uses them, and how the
//! shard opens them.

use crate::{DiskConfig, NodeError, StoreConfig};
use holdfast_engine::runtime::{DiskParts, ShardParts};
use holdfast_io::{BufPool, DirLock, crashsafe, dirlock::LOCK_FILE, fault};
use holdfast_meta::{Catalogue, Member};
use holdfast_replica::{FormatOptions, Host, HostError, HostOptions};
use holdfast_types::{DiskId, NodeId, ReplicaId, VolumeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Seek as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Registered buffer memory of a shard: the write-ahead log's frames in flight, the
/// payload cache and a few large requests fit without falling back to the heap.
pub(crate) const ARENA_BYTES: usize = 128 << 20;
/// Payload of unapplied records kept in memory for each disk; half of the arena, so that
/// requests in flight find room beside it.
const PAYLOAD_CACHE_BYTES: u64 = 64 << 20;
/// Map pages kept in memory for each disk: the maps of about 46 GiB of mapped data.
const MAP_CACHE_BYTES: u64 = 64 << 20;

/// What a disk that is a directory may hold. The last is a file system's own.
const DISK_FILES: [&str; 5] = [LOCK_FILE, "superblock", "wal", "data", "lost+found"];

/// What is known of a node's disks beside what the shard says. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Inventory {
    disks: Arc<Mutex<BTreeMap<DiskId, Held>>>,
}

/// An open disk.
struct Held {
    capacity_bytes: u64,
    open_took: Duration,
    /// Why the cluster does not know it, if so.
    unregistered: Option<String>,
    /// It is being taken out of use: the catalogue is not told of it meanwhile.
    leaving: bool,
    _lock: Option<DirLock>,
}

impl Inventory {
    fn held(&self) -> MutexGuard<'_, BTreeMap<DiskId, Held>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What data may take on a disk at most, and how long opening it took.
    pub(crate) fn facts(&self, disk: DiskId) -> Option<(u64, Duration)> {
        self.held().get(&disk).map(|held| (held.capacity_bytes, held.open_took))
    }

    /// Says why the cluster does not take a disk, or that it did. Whether that is news.
    pub(crate) fn set_unregistered(&self, disk: DiskId, why: Option<String>) -> bool {
        match self.held().get_mut(&disk) {
            Some(held) if held.unregistered != why => {
                held.unregistered = why;
                true
            }
            _ => false,
        }
    }

    /// Why the cluster does not take a disk.
    pub(crate) fn unregistered(&self, disk: DiskId) -> Option<String> {
        self.held().get(&disk).and_then(|held| held.unregistered.clone())
    }

    /// A disk is being taken out of use, or is not any more.
    pub(crate) fn set_leaving(&self, disk: DiskId, leaving: bool) {
        if let Some(held) = self.held().get_mut(&disk) {
            held.leaving = leaving;
        }
    }

    /// Whether a disk is being taken out of use.
    pub(crate) fn is_leaving(&self, disk: DiskId) -> bool {
        self.held().get(&disk).is_some_and(|held| held.leaving)
    }

    /// A disk is closed.
    pub(crate) fn remove(&self, disk: DiskId) {
        self.held().remove(&disk);
    }

    fn add(&self, disk: DiskId, capacity_bytes: u64, open_took: Duration, lock: Option<DirLock>) {
        let held =
            Held { capacity_bytes, open_took, unregistered: None, leaving: false, _lock: lock };
        self.held().insert(disk, held);
    }
}

/// A disk that is this process' and not open yet.
pub(crate) struct Prepared {
    config: DiskConfig,
    lock: Option<DirLock>,
    /// It was formatted before; blank, it is not the one that is meant.
    known: bool,
}

/// A disk that was added in an earlier life of this node. One that is away keeps no other
/// from being opened, and what stands in its place is not formatted.
pub(crate) fn prepare_known(config: DiskConfig) -> Option<Prepared> {
    let path = config.path.clone();
    let there = match path.exists() {
        true => prepare(config).map_err(|error| error.to_string()),
        false => Err("there is nothing".to_owned()),
    };
    match there {
        Ok(prepared) => Some(Prepared { known: true, ..prepared }),
        Err(error) => {
            tracing::error!(path = %path.display(), error, "a disk that was added cannot be used");
            None
        }
    }
}

/// Lays a blank disk out. Takes seconds: a shard that did it would serve nothing meanwhile.
/// Leaves one that is laid out as it is. Blocks.
pub(crate) fn lay_out(prepared: &Prepared, store: &StoreConfig) -> Result<(), NodeError> {
    let path = &prepared.config.path;
    let open_failed = |source| NodeError::DiskOpen { path: path.clone(), source };
    let mut disk = holdfast_io::open_disk(path, store.backend, &[]).map_err(open_failed)?;
    let format = format_options(&prepared.config, store);
    match Host::format(&mut *disk, &format) {
        Ok(_) | Err(HostError::AlreadyFormatted) => Ok(()),
        Err(source) => Err(NodeError::Disk { path: path.clone(), source }),
    }
}

fn format_options(config: &DiskConfig, store: &StoreConfig) -> FormatOptions {
    FormatOptions {
        segment_bytes: store.segment_bytes,
        segments: store.segments,
        capacity_bytes: config.capacity_bytes,
    }
}

/// Makes the disk's directory if it is to be one and is not there, and locks it.
pub(crate) fn prepare(config: DiskConfig) -> Result<Prepared, NodeError> {
    let path = config.path.clone();
    let cannot = |source| NodeError::DiskOpen { path: path.clone(), source };
    if !path.exists() {
        if is_device_name(&path) {
            let message = "there is no such device; check its name";
            return Err(cannot(io::Error::new(io::ErrorKind::NotFound, message)));
        }
        crashsafe::create_dir(&path).map_err(cannot)?;
    }
    if !path.is_dir() {
        return Ok(Prepared { config, lock: None, known: false });
    }
    // Whose it is comes before the lock: a foreign directory gets no lock file.
    for entry in std::fs::read_dir(&path).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name();
        if !DISK_FILES.iter().any(|ours| name == *ours) {
            return Err(NodeError::ForeignDisk { path });
        }
    }
    let lock = DirLock::acquire(&path).map_err(cannot)?;
    Ok(Prepared { config, lock: Some(lock), known: false })
}

/// Whether a path can only mean a device: a directory made there would be in memory.
fn is_device_name(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

/// Bytes of the file system that a directory is in, or of a device.
fn size_bytes(path: &Path) -> io::Result<u64> {
    if path.is_dir() {
        let fs = rustix::fs::statvfs(path)?;
        return Ok(fs.f_blocks.saturating_mul(fs.f_frsize));
    }
    std::fs::File::open(path)?.seek(io::SeekFrom::End(0))
}

/// Opens a disk on the shard's thread; formats it if it is blank.
pub(crate) fn open(
    prepared: Prepared,
    store: &StoreConfig,
    pool: &BufPool,
    inventory: &Inventory,
) -> Result<DiskParts, NodeError> {
    let Prepared { config, lock, known } = prepared;
    let path: PathBuf = config.path.clone();
    let open_failed = |source| NodeError::DiskOpen { path: path.clone(), source };
    let began = Instant::now();
    let size_bytes = size_bytes(&path).map_err(open_failed)?;
    let capacity_bytes = config.capacity_bytes.map_or(size_bytes, |most| most.min(size_bytes));
    let pools = [pool.clone()];
    let mut disk = holdfast_io::open_disk(&path, store.backend, &pools).map_err(open_failed)?;
    if let Some(faults) = &store.fault {
        let faults = fault::FaultConfig::parse(faults)
            .map_err(|reason| open_failed(io::Error::new(io::ErrorKind::InvalidInput, reason)))?;
        tracing::warn!(?faults, "injecting faults below the store");
        disk = Box::new(fault::FaultDisk::new(disk, faults).map_err(open_failed)?);
    }
    let options = || HostOptions {
        unapplied_bytes_max: store.unapplied_bytes_max,
        payload_cache_bytes: PAYLOAD_CACHE_BYTES,
        map_cache_bytes: MAP_CACHE_BYTES,
    };
    let unusable = |source| NodeError::Disk { path: path.clone(), source };
    let opened = match Host::open(&mut *disk, pool.clone(), options()) {
        Err(HostError::NotFormatted) if !known => {
            Host::format(&mut *disk, &format_options(&config, store)).map_err(unusable)?;
            Host::open(&mut *disk, pool.clone(), options())
        }
        other => other,
    };
    let (host, recovery) = opened.map_err(unusable)?;
    let took = began.elapsed();
    tracing::info!(
        disk = %host.disk_id(), path = %path.display(), backend = disk.describe(),
        took_ms = took.as_millis() as u64, records = recovery.records,
        wal_bytes = recovery.wal_bytes, end = recovery.end, suspect = recovery.suspect, "disk open"
    );
    inventory.add(host.disk_id(), capacity_bytes, took, lock);
    Ok(DiskParts { label: path.display().to_string(), disk, host, recovery })
}

/// Volumes of which the catalogue has a replica on this node that is not among those `held`.
pub(crate) fn away(catalogue: &Catalogue, me: NodeId, held: &BTreeSet<ReplicaId>) -> Vec<VolumeId> {
    let missing = |copy: &Member| copy.node == me && !held.contains(&copy.replica);
    let away = catalogue.volumes().filter(|volume| volume.set.all().any(missing));
    away.map(|volume| volume.id).collect()
}

/// What a shard needs beside its disks.
pub(crate) struct ShardSettings {
    pub(crate) node: NodeId,
    pub(crate) lease_ms: u64,
    pub(crate) shrink_after_ms: u64,
    pub(crate) proposals: tokio::sync::mpsc::Sender<holdfast_engine::runtime::SetProposal>,
}

/// Opens all disks on the shard's thread.
pub(crate) fn open_all(
    prepared: Vec<Prepared>,
    store: &StoreConfig,
    settings: ShardSettings,
    inventory: &Inventory,
) -> Result<ShardParts, NodeError> {
    let pool = BufPool::new(ARENA_BYTES);
    let mut disks = Vec::new();
    for disk in prepared {
        let known = disk.known;
        match open(disk, store, &pool, inventory) {
            Ok(disk) => disks.push(disk),
            Err(error) if known => tracing::error!(%error, "a disk that was added cannot be used"),
            Err(error) => return Err(error),
        }
    }
    let ShardSettings { node, lease_ms, shrink_after_ms, proposals } = settings;
    Ok(ShardParts { pool, disks, node, lease_ms, shrink_after_ms, proposals })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_becomes_no_directory() {
        let path = PathBuf::from("/dev/holdfast-no-such-device");
        let config = DiskConfig { path: path.clone(), capacity_bytes: None };
        let Err(error) = prepare(config) else { panic!("prepared") };
        assert!(error.to_string().contains("no such device"), "{error}");
        assert!(!path.exists());
    }
}
