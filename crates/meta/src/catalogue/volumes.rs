//! A volume's life: creation, attachment, epochs, growth, deletion.

use super::limits::{MEMBERS_MAX, VOLUMES_MAX, check_block, check_room, check_size};
use super::{Attachment, Catalogue, Phase, Volume};
use crate::{Outcome, Rejected};
use holdfast_types::{
    Epoch, NodeId, ReplicaId, VolumeId,
    mutant::{self, Mutant},
};
use std::collections::BTreeSet;

impl Catalogue {
    pub(super) fn create_volume(&mut self, volume: Volume) -> Result<Outcome, Rejected> {
        if self.volumes.contains_key(&volume.id) {
            return Err(Rejected::Exists(volume.id));
        }
        if self.by_name(&volume.name).is_some() {
            return Err(Rejected::NameTaken(volume.name));
        }
        check_size(volume.size_bytes)?;
        check_block(volume.logical_block_bytes)?;
        self.check_first_set(&volume)?;
        check_room(self.volumes.len(), VOLUMES_MAX, "volumes")?;
        self.volumes.insert(volume.id, volume.clone());
        Ok(Outcome::Volume(volume))
    }

    fn check_first_set(&self, volume: &Volume) -> Result<(), Rejected> {
        let no = |cause: &str| Err(Rejected::Members(cause.to_owned()));
        let members = &volume.set.members;
        if !(1..=MEMBERS_MAX).contains(&members.len())
            || usize::from(volume.replicas) != members.len()
        {
            return no("a volume has 1 to 7 replicas, and a member for each");
        }
        if !(1..=volume.replicas).contains(&volume.min_replicas) {
            return no("the least number of replicas is 1 at least, and at most that of replicas");
        }
        let nodes: BTreeSet<_> = members.iter().map(|member| member.node).collect();
        if nodes.len() != members.len() {
            return no("each member is on a node of its own");
        }
        for member in members {
            match self.disks.get(&member.disk) {
                Some(disk) if disk.node == member.node => {}
                Some(disk) => {
                    return Err(Rejected::DiskElsewhere { disk: disk.id, node: disk.node });
                }
                None => return Err(Rejected::NoDisk(member.disk)),
            }
        }
        let new: BTreeSet<_> = members.iter().map(|member| member.replica).collect();
        let mut known = self.volumes().flat_map(|v| v.set.all());
        if new.len() != members.len() || known.any(|member| new.contains(&member.replica)) {
            return no("each member has a replica id of its own");
        }
        Ok(())
    }

    pub(super) fn delete_volume(&mut self, id: VolumeId) -> Result<Outcome, Rejected> {
        let Some(volume) = self.volumes.get_mut(&id) else { return Err(Rejected::NoVolume(id)) };
        if let Some(attached) = volume.attached {
            return Err(Rejected::Attached(attached.node));
        }
        volume.phase = Phase::Deleting;
        Ok(Outcome::Volume(volume.clone()))
    }

    pub(super) fn replica_ready(
        &mut self,
        volume: VolumeId,
        replica: ReplicaId,
    ) -> Result<Outcome, Rejected> {
        let held = self.active(volume)?;
        let all = held.set.members.iter_mut().chain(&mut held.set.learners);
        match all.into_iter().find(|member| member.replica == replica) {
            Some(member) => member.ready = true,
            None => return Err(Rejected::NoReplica { volume, replica }),
        }
        Ok(Outcome::Volume(held.clone()))
    }

    pub(super) fn replica_gone(
        &mut self,
        volume: VolumeId,
        replica: ReplicaId,
    ) -> Result<Outcome, Rejected> {
        match self.volumes.get_mut(&volume) {
            // The last confirmation took the volume away.
            None => Ok(Outcome::Gone),
            Some(held) if held.phase == Phase::Active => Err(Rejected::InUse(volume)),
            Some(held) => {
                held.set.members.retain(|member| member.replica != replica);
                held.set.learners.retain(|member| member.replica != replica);
                if held.set.all().next().is_none() {
                    self.volumes.remove(&volume);
                }
                Ok(Outcome::Gone)
            }
        }
    }

    pub(super) fn attach(
        &mut self,
        volume: VolumeId,
        attachment: Attachment,
    ) -> Result<Outcome, Rejected> {
        if !self.nodes.contains_key(&attachment.node) {
            return Err(Rejected::NoNode(attachment.node));
        }
        let held = self.active(volume)?;
        held.attached = Some(attachment);
        Ok(Outcome::Volume(held.clone()))
    }

    pub(super) fn detach(&mut self, volume: VolumeId) -> Result<Outcome, Rejected> {
        let held = self.active(volume)?;
        held.attached = None;
        Ok(Outcome::Volume(held.clone()))
    }

    /// Epochs are what makes one writer (I1): each is given out once, by compare-and-swap.
    pub(super) fn grant_epoch(
        &mut self,
        volume: VolumeId,
        node: NodeId,
        expected: Epoch,
    ) -> Result<Outcome, Rejected> {
        let held = self.active(volume)?;
        let attached = held.attached.map(|attachment| attachment.node);
        if attached != Some(node) {
            return Err(Rejected::NotAttached(attached));
        }
        if held.epoch != expected {
            return Err(Rejected::EpochMoved { held: held.epoch, expected });
        }
        if held.epoch == Epoch::ZERO || !mutant::active(Mutant::EpochGrantedTwice) {
            held.epoch = held.epoch.next();
        }
        Ok(Outcome::Volume(held.clone()))
    }

    pub(super) fn resize(
        &mut self,
        volume: VolumeId,
        size_bytes: u64,
    ) -> Result<Outcome, Rejected> {
        check_size(size_bytes)?;
        let held = self.active(volume)?;
        if size_bytes < held.size_bytes {
            return Err(Rejected::Shrinks { held_bytes: held.size_bytes });
        }
        held.size_bytes = size_bytes;
        Ok(Outcome::Volume(held.clone()))
    }
}
