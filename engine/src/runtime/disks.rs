//! The disks of a shard, each with the replicas on it.

use super::{DiskParts, DiskStatus};
use holdfast_io::{Disk, IoQueue};
use holdfast_replica::{Host, RecoveryReport};
use holdfast_types::{DiskId, ReplicaId, VolumeId};
use tokio::task::AbortHandle;

/// A disk of the shard.
pub(super) struct DiskSlot {
    pub(super) id: DiskId,
    pub(super) label: String,
    pub(super) disk: Box<dyn Disk>,
    pub(super) host: Host,
    recovery: RecoveryReport,
    pub(super) queue: IoQueue,
    pub(super) failure_told: bool,
    /// Wakes the driver when the disk has completed something.
    pub(super) waker: Option<AbortHandle>,
}

impl DiskSlot {
    pub(super) fn new(parts: DiskParts) -> Self {
        Self {
            id: parts.host.disk_id(),
            label: parts.label,
            disk: parts.disk,
            host: parts.host,
            recovery: parts.recovery,
            queue: IoQueue::new(),
            failure_told: false,
            waker: None,
        }
    }

    pub(super) fn status(&self) -> DiskStatus {
        DiskStatus {
            disk: self.id,
            label: self.label.clone(),
            backend: self.disk.describe(),
            credits: self.host.credits(),
            in_flight: self.disk.in_flight(),
            failure: self.host.failure().map(ToString::to_string),
            recovery: self.recovery.clone(),
            replicas: self.host.volumes(),
        }
    }

    /// Whether everything that was logged is applied, or never will be.
    pub(super) fn is_done(&self) -> bool {
        self.host.is_drained() || self.host.failure().is_some()
    }
}

impl Drop for DiskSlot {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            waker.abort();
        }
    }
}

/// The disks, each in a place that it keeps for as long as it is there.
#[derive(Default)]
pub(super) struct Disks(Vec<Option<DiskSlot>>);

impl Disks {
    pub(super) fn iter(&self) -> impl Iterator<Item = &DiskSlot> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut DiskSlot> {
        self.0.iter_mut().flatten()
    }

    /// With their places.
    pub(super) fn places_mut(&mut self) -> impl Iterator<Item = (usize, &mut DiskSlot)> {
        self.0.iter_mut().enumerate().filter_map(|(at, slot)| Some((at, slot.as_mut()?)))
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut DiskSlot> {
        self.0.get_mut(place)?.as_mut()
    }

    /// The place of a disk.
    pub(super) fn find(&self, disk: DiskId) -> Option<usize> {
        self.0.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.id == disk))
    }

    pub(super) fn by_id(&mut self, disk: DiskId) -> Option<&mut DiskSlot> {
        self.iter_mut().find(|slot| slot.id == disk)
    }

    /// The place of the disk that holds this very copy.
    pub(super) fn holding(&self, volume: VolumeId, replica: ReplicaId) -> Option<usize> {
        let holds = |slot: &DiskSlot| {
            slot.host.volume_report(volume).is_some_and(|report| report.replica == replica)
        };
        self.0.iter().position(|slot| slot.as_ref().is_some_and(holds))
    }

    pub(super) fn add(&mut self, slot: DiskSlot) {
        match self.0.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(slot),
            None => self.0.push(Some(slot)),
        }
    }

    pub(super) fn remove(&mut self, disk: DiskId) -> Option<DiskSlot> {
        let place = self.find(disk)?;
        self.0[place].take()
    }
}
