//! The node's state as the management API says it.

use holdfast_api::{
    server::Service,
    types::{Counters, DiskStatus, RecoveryStatus, Status, VolumeStatus},
};
use holdfast_engine::runtime::{self, ShardHandle, ShardStatus};
use holdfast_meta::{Catalogue, Volume};
use holdfast_types::{NodeId, SLOT_BYTES};
use std::{future::Future, pin::Pin, time::Duration};

/// Answers the API's questions from the shard and the catalogue.
pub(crate) struct StatusService {
    shard: ShardHandle,
    catalogue: Catalogue,
    node: NodeId,
    listeners: Vec<String>,
    open_took: Duration,
}

impl StatusService {
    pub(crate) fn new(
        shard: ShardHandle,
        catalogue: Catalogue,
        node: NodeId,
        listeners: Vec<String>,
        open_took: Duration,
    ) -> Self {
        Self { shard, catalogue, node, listeners, open_took }
    }

    fn disk(&self, disk: &runtime::DiskStatus) -> DiskStatus {
        DiskStatus {
            id: disk.disk.to_string(),
            path: disk.label.clone(),
            backend: disk.backend.clone(),
            free_bytes: disk.credits.slots * SLOT_BYTES as u64,
            wal_free_bytes: disk.credits.wal_bytes,
            failure: disk.failure.clone(),
            recovery: RecoveryStatus {
                records: disk.recovery.records,
                wal_bytes: disk.recovery.wal_bytes,
                took_ms: self.open_took.as_millis() as u64,
                end: disk.recovery.end.clone(),
                suspect: disk.recovery.suspect,
            },
        }
    }

    fn volume(&self, volume: &Volume, shard: &ShardStatus) -> VolumeStatus {
        let attached = shard.volumes.iter().find(|status| status.volume == volume.id);
        let replica = shard.disks.iter().flat_map(|d| &d.replicas).find(|r| r.volume == volume.id);
        let counters = attached.map(|status| status.counters).unwrap_or_default();
        VolumeStatus {
            name: volume.name.to_string(),
            id: volume.id.to_string(),
            size_bytes: volume.size_bytes,
            logical_block_bytes: volume.logical_block_bytes,
            state: match attached {
                None => "detached".to_owned(),
                Some(status) => match &status.stopped {
                    None => status.state.to_string(),
                    Some(reason) => format!("{}: {reason}", status.state),
                },
            },
            epoch: volume.epoch.get(),
            commit_lsn: attached.map_or(0, |status| status.commit_lsn.get()),
            applied_lsn: replica.map_or(0, |replica| replica.applied_lsn.get()),
            sessions: attached.map_or(0, |status| status.sessions as u64),
            in_flight: attached.map_or(0, |status| status.in_flight as u64),
            counters: Counters {
                reads: counters.reads,
                read_bytes: counters.read_bytes,
                writes: counters.writes,
                write_bytes: counters.write_bytes,
                discards: counters.discards,
                flushes: counters.flushes,
                errors: counters.errors,
            },
        }
    }
}

impl Service for StatusService {
    fn status(&self) -> Pin<Box<dyn Future<Output = Option<Status>> + Send + '_>> {
        Box::pin(async {
            let shard = self.shard.status().await.ok()?;
            Some(Status {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node: self.node.to_string(),
                listeners: self.listeners.clone(),
                disks: shard.disks.iter().map(|disk| self.disk(disk)).collect(),
                volumes: self.catalogue.volumes().map(|v| self.volume(v, &shard)).collect(),
            })
        })
    }
}
