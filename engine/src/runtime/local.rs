//! What the control plane wants of the disks and replicas of this shard.

use super::{
    DiskChangeError, DiskParts, ReplicaError, SHUTDOWN_DRAIN_MAX, Shard, ShardGone, agenda::Agenda,
    disks::DiskSlot,
};
use holdfast_io::{BufPool, DiskWake};
use holdfast_replica::{Event, Host, HostError, NewVolume, ReadError, SlotDigest, Tag};
use holdfast_types::{DiskId, Epoch, Lsn, ReplicaId, SlotNo, VolumeId};
use std::{convert::Infallible, io, rc::Rc};
use tokio::{sync::oneshot, task::spawn_local, time::timeout};

impl Shard {
    /// See [`super::ShardHandle::create_replica`].
    ///
    /// # Errors
    /// As there.
    pub async fn create_replica(&self, disk: DiskId, new: NewVolume) -> Result<(), ReplicaError> {
        self.change(disk, |host, tag| host.create_volume(tag, &new)).await?;
        self.find_local_copies();
        Ok(())
    }

    /// See [`super::ShardHandle::delete_replica`].
    ///
    /// # Errors
    /// As there.
    pub async fn delete_replica(&self, disk: DiskId, volume: VolumeId) -> Result<(), ReplicaError> {
        if self.inner.volumes.borrow().get(volume).is_some() {
            return Err(ReplicaError::Attached(volume));
        }
        let (server, now_ms) = (&self.inner.server, self.inner.clock.now_ms());
        self.change(disk, |host, tag| {
            server.borrow_mut().delete(volume, host, now_ms);
            host.delete_volume(tag, volume);
        })
        .await
    }

    /// See [`super::ShardHandle::set_floor`].
    ///
    /// # Errors
    /// As there.
    pub async fn set_floor(
        &self,
        disk: DiskId,
        volume: VolumeId,
        replica: ReplicaId,
        epoch: Epoch,
    ) -> Result<(), ReplicaError> {
        // Also when the disk has failed: the leases of all other volumes wait for it.
        self.floor_leases(volume, epoch);
        self.change(disk, |host, tag| host.set_floor(tag, volume, replica, epoch)).await
    }

    /// See [`super::ShardHandle::floor_leases`].
    pub fn floor_leases(&self, volume: VolumeId, epoch: Epoch) {
        self.inner.server.borrow_mut().floor(volume, epoch);
    }

    /// See [`super::ShardHandle::suspend_leases`].
    pub fn suspend_leases(&self, volumes: &[VolumeId]) {
        let (mut server, now_ms) = (self.inner.server.borrow_mut(), self.inner.clock.now_ms());
        for volume in volumes {
            server.suspend(*volume, now_ms);
        }
    }

    /// See [`super::ShardHandle::forget_leases`].
    pub fn forget_leases(&self, volume: VolumeId) {
        self.inner.server.borrow_mut().forget(volume);
    }

    /// See [`super::ShardHandle::discard_replica`].
    ///
    /// # Errors
    /// As there.
    pub async fn discard_replica(
        &self,
        disk: DiskId,
        volume: VolumeId,
        replica: ReplicaId,
    ) -> Result<(), ReplicaError> {
        if self.inner.volumes.borrow().get(volume).is_some() {
            return Err(ReplicaError::Attached(volume));
        }
        self.change(disk, |host, tag| host.abandon(tag, volume, replica)).await?;
        self.delete_replica(disk, volume).await
    }

    /// See [`super::ShardHandle::reset_replica`].
    ///
    /// # Errors
    /// As there.
    pub async fn reset_replica(
        &self,
        disk: DiskId,
        volume: VolumeId,
        replica: ReplicaId,
        epoch: Epoch,
    ) -> Result<(), ReplicaError> {
        self.change(disk, |host, tag| host.reset(tag, volume, replica, epoch)).await
    }

    /// Has a host create or delete something and waits for its answer.
    async fn change(
        &self,
        disk: DiskId,
        what: impl FnOnce(&mut Host, Tag),
    ) -> Result<(), ReplicaError> {
        match self.call(disk, what).await? {
            Event::VolumeChanged { result, .. } => result.map_err(ReplicaError::from),
            _ => unreachable!("a change is answered by its end"),
        }
    }

    /// Calls a host and waits for its answer.
    async fn call(
        &self,
        disk: DiskId,
        what: impl FnOnce(&mut Host, Tag),
    ) -> Result<Event, ReplicaError> {
        let inner = &self.inner;
        let (done, answer) = oneshot::channel();
        {
            let mut disks = inner.disks.borrow_mut();
            let Some(slot) = disks.by_id(disk) else { return Err(ReplicaError::NoDisk(disk)) };
            if let Some(failure) = slot.host.failure() {
                return Err(HostError::Disk(failure.clone()).into());
            }
            // No volume has the number zero, so these tags are nobody else's.
            let tag = Tag(inner.next_call.replace(inner.next_call.get() + 1));
            inner.calls.borrow_mut().insert(tag, done);
            what(&mut slot.host, tag);
        }
        inner.touch();
        Ok(answer.await.map_err(|_| ShardGone)?)
    }

    /// See [`super::ShardHandle::hold`].
    ///
    /// # Errors
    /// As there.
    pub fn hold(&self, disk: DiskId, volume: VolumeId, for_ms: u64) -> Result<Lsn, ReplicaError> {
        let until_ms = self.inner.clock.now_ms().saturating_add(for_ms);
        let mut disks = self.inner.disks.borrow_mut();
        let slot = disks.by_id(disk).ok_or(ReplicaError::NoDisk(disk))?;
        let held = slot.host.hold(volume, until_ms);
        self.inner.touch();
        Ok(held?)
    }

    /// See [`super::ShardHandle::release`].
    ///
    /// # Errors
    /// As there.
    pub fn release(&self, disk: DiskId, volume: VolumeId) -> Result<(), ReplicaError> {
        let mut disks = self.inner.disks.borrow_mut();
        let slot = disks.by_id(disk).ok_or(ReplicaError::NoDisk(disk))?;
        slot.host.release(volume);
        self.inner.touch();
        Ok(())
    }

    /// See [`super::ShardHandle::digest`].
    ///
    /// # Errors
    /// As there.
    pub async fn digest(
        &self,
        disk: DiskId,
        volume: VolumeId,
        at: Lsn,
        from: SlotNo,
        count: u64,
    ) -> Result<Result<Vec<SlotDigest>, ReadError>, ReplicaError> {
        match self.call(disk, |host, tag| host.digest(tag, volume, at, from, count)).await? {
            Event::Digest { result, .. } => Ok(result),
            _ => unreachable!("a digest is answered by one"),
        }
    }

    /// See [`super::ShardHandle::add_disk`].
    ///
    /// # Errors
    /// As there.
    pub fn add_disk<E>(
        &self,
        build: impl FnOnce(&BufPool) -> Result<DiskParts, E>,
    ) -> Result<DiskId, DiskChangeError<E>> {
        let inner = &self.inner;
        let mut slot = DiskSlot::new(build(&inner.pool).map_err(DiskChangeError::Build)?);
        let id = slot.id;
        {
            let mut disks = inner.disks.borrow_mut();
            if disks.find(id).is_some() {
                return Err(DiskChangeError::Present(id));
            }
            listen(&mut slot, &inner.agenda).map_err(DiskChangeError::Unusable)?;
            inner.server.borrow_mut().adopt(&slot.host, inner.clock.now_ms());
            disks.add(slot);
        }
        self.find_local_copies();
        inner.touch();
        Ok(id)
    }

    /// See [`super::ShardHandle::remove_disk`].
    ///
    /// # Errors
    /// As there.
    pub async fn remove_disk(&self, disk: DiskId) -> Result<(), DiskChangeError<Infallible>> {
        let inner = &self.inner;
        {
            let mut disks = inner.disks.borrow_mut();
            let slot = disks.by_id(disk).ok_or(DiskChangeError::NoDisk(disk))?;
            if !slot.host.volumes().is_empty() {
                return Err(DiskChangeError::InUse(disk));
            }
            slot.host.drain();
        }
        let drained = async {
            inner.touch();
            while inner.disks.borrow_mut().by_id(disk).is_some_and(|slot| !slot.is_done()) {
                inner.turned.notified().await;
            }
        };
        if timeout(SHUTDOWN_DRAIN_MAX, drained).await.is_err() {
            tracing::warn!(%disk, "taken away before its log is applied; opening it again will do it");
        }
        let Some(mut slot) = inner.disks.borrow_mut().remove(disk) else {
            return Err(DiskChangeError::NoDisk(disk));
        };
        inner.server.borrow_mut().disown(&mut slot.host, inner.clock.now_ms());
        inner.touch();
        Ok(())
    }

    /// Volumes that are attached here and whose copy on this node was not there so far
    /// go on with it if it is there now.
    pub(super) fn find_local_copies(&self) {
        let disks = self.inner.disks.borrow();
        for volume in self.inner.volumes.borrow().by_number.values() {
            if let Some(spec) = volume.local_spec()
                && let Some(place) = disks.holding(volume.id(), spec.replica)
            {
                volume.local_up(place);
            }
        }
    }
}

/// Has a disk wake the driver when it has completed something.
pub(super) fn listen(slot: &mut DiskSlot, agenda: &Rc<Agenda>) -> io::Result<()> {
    let Some(wake) = DiskWake::new(slot.disk.as_ref())? else {
        let error = format!("the disk at {} has no descriptor to wait on", slot.label);
        return Err(io::Error::other(error));
    };
    let agenda = agenda.clone();
    let task = spawn_local(async move {
        while wake.woken().await.is_ok() {
            agenda.wake();
        }
    });
    slot.waker = Some(task.abort_handle());
    Ok(())
}
