//! How things stand on this node, for whoever asks; and what its replicas hold.

use crate::{
    member::Member,
    peer::{Answer, Ask, LocalDisk, LocalEngine, LocalMember, LocalReplica, Report, SlotSum},
};
use holdfast_api::types::{Counters, RecoveryStatus};
use holdfast_engine::runtime::{DiskStatus, ShardStatus, VolumeStatus};
use holdfast_replica::{ReadError, SlotDigest};
use holdfast_types::{DiskId, Lsn, ReplicaId, SLOT_BLOCKS, SLOT_BYTES, SlotNo, VolumeId};

/// Slots that one answer covers at most: keeps it near a megabyte.
pub(crate) const DIGEST_SLOTS: u64 = 8192;

/// Answers a question about this node.
pub(crate) async fn answer(member: &Member, question: Ask) -> Answer {
    let answered = match question {
        Ask::Report => report(member).await.map(|report| Answer::Report(Box::new(report))),
        Ask::Hold { volume, replica, for_ms } => hold(member, volume, replica, for_ms).await,
        Ask::Release { volume, replica } => release(member, volume, replica).await,
        Ask::Digest { volume, replica, at, from, count } => {
            digest(member, volume, replica, at, from, count).await
        }
    };
    answered.unwrap_or_else(Answer::Failed)
}

async fn status(member: &Member) -> Result<ShardStatus, String> {
    member.shard.status().await.map_err(|gone| gone.to_string())
}

async fn report(member: &Member) -> Result<Report, String> {
    let shard = status(member).await?;
    let disks = shard.disks.iter().map(|disk| local_disk(member, disk)).collect();
    let replicas = shard.disks.iter().flat_map(local_replicas).collect();
    let engines = shard.volumes.iter().map(|volume| local_engine(member, volume)).collect();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disks,
        engines,
        replicas,
        waiting: member.attachments.waiting(),
    })
}

fn local_disk(member: &Member, disk: &DiskStatus) -> LocalDisk {
    let (capacity_bytes, took) = member.disks.facts(disk.disk).unwrap_or_default();
    LocalDisk {
        disk: disk.disk,
        path: disk.label.clone(),
        capacity_bytes,
        backend: disk.backend.clone(),
        free_bytes: disk.credits.slots.saturating_mul(SLOT_BYTES as u64),
        wal_free_bytes: disk.credits.wal_bytes,
        failure: disk.failure.clone().or_else(|| member.disks.unregistered(disk.disk)),
        recovery: RecoveryStatus {
            records: disk.recovery.records,
            wal_bytes: disk.recovery.wal_bytes,
            took_ms: took.as_millis() as u64,
            end: disk.recovery.end.clone(),
            suspect: disk.recovery.suspect,
        },
    }
}

fn local_replicas(disk: &DiskStatus) -> impl Iterator<Item = LocalReplica> {
    disk.replicas.iter().map(|replica| LocalReplica {
        volume: replica.volume,
        replica: replica.replica,
        disk: disk.disk,
        blocks: replica.blocks,
        last: replica.last_lsn,
        commit: replica.commit_lsn,
        applied: replica.applied_lsn,
        fetched: replica.fetched_lsn,
        suspect: replica.suspect,
    })
}

fn local_engine(member: &Member, volume: &VolumeStatus) -> LocalEngine {
    let counters = volume.counters;
    let geometry = member.exports.geometry(volume.volume);
    LocalEngine {
        volume: volume.volume,
        state: match &volume.stopped {
            None => volume.state.to_string(),
            Some(reason) => format!("{}: {reason}", volume.state),
        },
        serving: geometry.is_some() && volume.state == holdfast_engine::runtime::StateName::Serving,
        epoch: volume.epoch,
        generation: volume.generation,
        commit: volume.commit_lsn,
        last: volume.last_lsn,
        size_bytes: geometry.as_ref().map_or(0, |geometry| geometry.size_bytes),
        read_only: geometry.is_some_and(|geometry| geometry.read_only),
        sessions: volume.sessions as u64,
        in_flight: volume.in_flight as u64,
        counters: Counters {
            reads: counters.reads,
            read_bytes: counters.read_bytes,
            writes: counters.writes,
            write_bytes: counters.write_bytes,
            discards: counters.discards,
            flushes: counters.flushes,
            errors: counters.errors,
        },
        members: volume
            .members
            .iter()
            .map(|copy| LocalMember {
                replica: copy.replica,
                node: copy.node,
                state: copy.state.to_string(),
                matched: copy.matched,
            })
            .collect(),
    }
}

/// The disk that holds this very copy.
async fn disk_of(
    member: &Member,
    volume: VolumeId,
    replica: ReplicaId,
) -> Result<LocalReplica, String> {
    let shard = status(member).await?;
    let mut held = shard.disks.iter().flat_map(local_replicas);
    held.find(|held| (held.volume, held.replica) == (volume, replica))
        .ok_or_else(|| "the replica is not on its disk".to_owned())
}

async fn hold(
    member: &Member,
    volume: VolumeId,
    replica: ReplicaId,
    for_ms: u64,
) -> Result<Answer, String> {
    let disk = disk_of(member, volume, replica).await?.disk;
    let held = member.shard.hold(disk, volume, for_ms).await;
    held.map_err(|error| error.to_string())?;
    Ok(Answer::Held(disk_of(member, volume, replica).await?))
}

async fn release(member: &Member, volume: VolumeId, replica: ReplicaId) -> Result<Answer, String> {
    let disk: DiskId = disk_of(member, volume, replica).await?.disk;
    let released = member.shard.release(disk, volume).await;
    released.map_err(|error| error.to_string())?;
    Ok(Answer::Done)
}

async fn digest(
    member: &Member,
    volume: VolumeId,
    replica: ReplicaId,
    at: Lsn,
    from: SlotNo,
    count: u64,
) -> Result<Answer, String> {
    let disk = disk_of(member, volume, replica).await?.disk;
    match member.shard.digest(disk, volume, at, from, count.min(DIGEST_SLOTS)).await {
        Ok(Ok(slots)) => Ok(Answer::Digest(slots.iter().map(slot_sum).collect())),
        Ok(Err(ReadError::Corrupt { block })) => Ok(Answer::Corrupt(block)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn slot_sum(digest: &SlotDigest) -> SlotSum {
    let present = |block: &usize| digest.mask & (1 << block) != 0;
    let crcs = (0..SLOT_BLOCKS).filter(present).map(|block| digest.crcs[block]).collect();
    SlotSum { slot: digest.slot, mask: digest.mask, crcs }
}
