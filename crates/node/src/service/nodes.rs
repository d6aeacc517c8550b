//! Changes of nodes and disks.

use super::failure;
use crate::{
    DiskConfig, NodeError, StoreConfig, disks,
    member::{Member, PROPOSE_MAX},
};
use holdfast_api::types::{AddDisk, ErrorBody, ErrorCode, JoinCluster};
use holdfast_engine::runtime::{DiskChangeError, DiskStatus};
use holdfast_meta::{Catalogue, Command};
use holdfast_types::DiskId;
use std::{path::PathBuf, time::Duration};
use tokio::{sync::watch, time::timeout};

/// Longest wait for a node to have joined.
const JOIN_MAX: Duration = Duration::from_secs(30);
/// Longest wait for an added disk to be in the catalogue.
const REGISTER_MAX: Duration = Duration::from_secs(10);

/// Joins the cluster that `join.seed` is part of.
pub(super) async fn join(
    member: &Member,
    seeds: &watch::Sender<Vec<String>>,
    mut registered: watch::Receiver<bool>,
    join: JoinCluster,
) -> Result<(), ErrorBody> {
    if let Some(cluster) = member.meta.cluster() {
        return Err(ErrorBody::new(
            ErrorCode::Conflict,
            format!("this node is part of cluster {cluster} already"),
            "to move it, remove it there, empty its data directory and disks, and start it with \
             --seed of the other cluster",
        ));
    }
    let seed = join.seed;
    if seed
        .rsplit_once(':')
        .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
    {
        let message = format!("{seed:?} is no address of a node");
        return Err(ErrorBody::new(ErrorCode::Invalid, message, "give HOST:PORT"));
    }
    seeds.send_replace(vec![seed.clone()]);
    match timeout(JOIN_MAX, registered.wait_for(|registered| *registered)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(ErrorBody::new(
            ErrorCode::Timeout,
            format!("the node has not joined the cluster of {seed} yet; it goes on trying"),
            "see whether a node of a cluster listens there for other nodes (holdfast node list)",
        )),
    }
}

/// Removes a node, by name or id.
pub(super) async fn remove(member: &Member, node: &str, force: bool) -> Result<(), ErrorBody> {
    let barrier = member.meta.read_barrier(PROPOSE_MAX).await;
    barrier.map_err(|error| failure::refused(member, error))?;
    let id = failure::node(member, Some(node))?;
    let removed = member.meta.remove_node(id, force, PROPOSE_MAX).await;
    removed.map_err(|error| failure::refused(member, error))
}

/// Takes a disk of this node into use.
pub(super) async fn add_disk(
    member: &Member,
    store: StoreConfig,
    add: AddDisk,
) -> Result<DiskId, ErrorBody> {
    let config = DiskConfig { path: add.path.into(), capacity_bytes: add.capacity_bytes };
    let failed = |error: NodeError| {
        ErrorBody::new(ErrorCode::Conflict, error.to_string(), "give another path, or an empty one")
    };
    let path = config.path.clone();
    if !path.is_absolute() {
        let message = format!("{} is not an absolute path", path.display());
        return Err(ErrorBody::new(ErrorCode::Invalid, message, "give one that begins with /"));
    }
    let (added, laid_out) = (member.added.clone(), store.clone());
    let prepared = blocking(move || {
        let prepared = disks::prepare(config.clone())?;
        disks::lay_out(&prepared, &laid_out)?;
        // From here on the next start opens it, whatever becomes of this one.
        let remembered = added.add(&config);
        let cannot = |source| NodeError::DiskOpen { path: config.path, source };
        Ok((prepared, remembered.map_err(cannot)?))
    });
    let (prepared, is_new) = prepared.await.map_err(failed)?;
    let inventory = member.disks.clone();
    let build = move |pool: &holdfast_io::BufPool| disks::open(prepared, &store, pool, &inventory);
    let disk = match member.shard.add_disk(build).await {
        Ok(disk) => disk,
        Err(error) => {
            if is_new {
                forget(member, path).await;
            }
            return Err(match error {
                DiskChangeError::Build(error) => failed(error),
                error => ErrorBody::new(ErrorCode::Conflict, error.to_string(), ""),
            });
        }
    };
    tracing::info!(%disk, "disk added");
    // The reconciler finds it within a second.
    let mut catalogues = member.meta.catalogue();
    let known = catalogues.wait_for(|catalogue| catalogue.disk(disk).is_some());
    let _ = timeout(REGISTER_MAX, known).await;
    if let Some(reason) = member.disks.unregistered(disk) {
        // It stays open until then: what it holds may be somebody's.
        forget(member, path).await;
        let remedy = "the next start of this node leaves it alone";
        return Err(ErrorBody::new(ErrorCode::Conflict, reason, remedy));
    }
    Ok(disk)
}

/// Does `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(NodeError::System { what: "a part of the node failed", source })
    })
}

/// Has the next start not open a disk that was added.
async fn forget(member: &Member, path: PathBuf) {
    let (added, disk) = (member.added.clone(), path.clone());
    let forgotten = tokio::task::spawn_blocking(move || added.remove(&disk)).await;
    let forgotten = forgotten.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    if let Err(error) = forgotten {
        tracing::warn!(path = %path.display(), %error, "the next start will open a disk that was taken out");
    }
}

/// A disk that holds anything stays: given up by the catalogue, what is on it would be
/// neither used nor taken back. Also what the catalogue counts for nothing, such as a learner.
fn refuse_in_use(disk: &DiskStatus, catalogue: &Catalogue) -> Result<(), ErrorBody> {
    let Some(held) = disk.replicas.first() else { return Ok(()) };
    let name = catalogue.volume(held.volume).map(|volume| volume.name.to_string());
    let name = name.unwrap_or_else(|| held.volume.to_string());
    Err(ErrorBody::new(
        ErrorCode::Conflict,
        format!("the disk still holds a replica of volume {name}"),
        "delete that volume first, or leave the disk where it is; a disk that is to be given up with what it          holds is taken away first, and the node restarted without it",
    ))
}

/// Takes an empty disk out of use.
pub(super) async fn remove_disk(member: &Member, text: &str) -> Result<(), ErrorBody> {
    let catalogue = member.catalogue();
    let disk = text.parse().ok().and_then(|id| catalogue.disk(id));
    let Some(disk) = disk else {
        let message = format!("there is no disk {text}");
        return Err(ErrorBody::new(ErrorCode::NotFound, message, "see `holdfast disk list`"));
    };
    let mut volumes = catalogue.volumes();
    if let Some(volume) = volumes.find(|v| v.set.members.iter().any(|m| m.disk == disk.id)) {
        return Err(ErrorBody::new(
            ErrorCode::Conflict,
            format!("the disk holds a replica of volume {}", volume.name),
            "delete that volume first, or leave the disk where it is",
        ));
    }
    let here = disk.node == member.me.id;
    // Otherwise its node would say at once that it has it.
    if !here
        && member.report(disk.node).await.is_ok_and(|r| r.disks.iter().any(|d| d.disk == disk.id))
    {
        return Err(ErrorBody::new(
            ErrorCode::Conflict,
            format!("disk {text} is in use on another node"),
            "ask that node (--api), or stop it first",
        ));
    }
    // The catalogue first: refused, or not answered, the disk stays open and in use. Its node
    // does not say meanwhile that it has it.
    member.disks.set_leaving(disk.id, true);
    let removed = async {
        let status = member.shard.status().await;
        let status = status.map_err(|error| {
            ErrorBody::new(ErrorCode::Internal, error.to_string(), "restart the node")
        })?;
        let on_shard = status.disks.iter().find(|held| held.disk == disk.id);
        if let Some(held) = on_shard.filter(|_| here) {
            refuse_in_use(held, &catalogue)?;
        }
        let removed = member.propose(Command::RemoveDisk { disk: disk.id }).await;
        removed.map_err(|error| failure::refused(member, error))?;
        if here && on_shard.is_some() {
            let closed = member.shard.remove_disk(disk.id).await;
            closed.map_err(|error| ErrorBody::new(ErrorCode::Conflict, error.to_string(), ""))?;
            member.disks.remove(disk.id);
        }
        Ok(())
    }
    .await;
    member.disks.set_leaving(disk.id, false);
    if here && removed.is_ok() {
        forget(member, disk.path.clone().into()).await;
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_replica::{Credits, RecoveryReport, VolumeReport};
    use holdfast_types::{Epoch, HistoryId, Lsn, ReplicaId, VolumeId};

    fn report(volume: VolumeId) -> VolumeReport {
        VolumeReport {
            volume,
            replica: ReplicaId::from_u128(3),
            history: HistoryId::from_u128(9),
            blocks: 1,
            promised: Epoch::ZERO,
            last_lsn: Lsn::ZERO,
            durable_lsn: Lsn::ZERO,
            commit_lsn: Lsn::ZERO,
            applied_lsn: Lsn::ZERO,
            fetched_lsn: Lsn::ZERO,
            epochs: Vec::new(),
            suspect: false,
            floored: true,
            heard: Epoch::ZERO,
        }
    }

    #[test]
    fn a_disk_that_holds_a_replica_which_counts_for_nothing_is_in_use() {
        let mut disk = DiskStatus {
            disk: DiskId::from_u128(2),
            label: "/d".to_owned(),
            backend: String::new(),
            credits: Credits { slots: 0, wal_bytes: 0 },
            in_flight: 0,
            failure: None,
            recovery: RecoveryReport {
                records: 0,
                wal_bytes: 0,
                end: String::new(),
                suspect: false,
            },
            replicas: Vec::new(),
        };
        let catalogue = Catalogue::default();
        assert!(refuse_in_use(&disk, &catalogue).is_ok());
        disk.replicas.push(report(VolumeId::from_u128(1)));
        assert_eq!(refuse_in_use(&disk, &catalogue).unwrap_err().code, ErrorCode::Conflict);
    }
}
