//! Brings this node to where the catalogue wants it: peers, replicas, attachments. One
//! loop, woken by every change of the catalogue or of the shard, and once in a while.

use crate::{
    NodeError,
    attachments::Keeper,
    member::{Member, PROPOSE_MAX},
    register::register,
};
use holdfast_engine::runtime::ShardStatus;
use holdfast_meta::{Catalogue, Command, Outcome, Phase, ProposeError, Volume};
use holdfast_replica::{NewVolume, VolumeReport};
use holdfast_types::{DiskId, Epoch, NodeId, ReplicaId, VolumeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Whatever could not be done is tried again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// What the loop remembers.
pub(crate) struct Reconciler {
    member: Member,
    keeper: Keeper,
    peers: Option<Vec<(NodeId, String)>>,
    /// Replicas whose loss has been said.
    lost: BTreeSet<ReplicaId>,
    /// Replicas of which was said that their log is damaged.
    suspect: BTreeSet<ReplicaId>,
    /// What waits for a checkpoint of a damaged disk, which may take long: the loop does not.
    healing: BTreeMap<ReplicaId, AbortHandle>,
    tasks: JoinSet<()>,
    registered: watch::Sender<bool>,
}

impl Reconciler {
    /// `registered` turns true when the catalogue knows this node and its disks.
    pub(crate) fn new(member: Member, registered: watch::Sender<bool>) -> Self {
        let keeper = Keeper::new(member.clone());
        let (lost, suspect) = (BTreeSet::new(), BTreeSet::new());
        let (healing, tasks) = (BTreeMap::new(), JoinSet::new());
        Self { member, keeper, peers: None, lost, suspect, healing, tasks, registered }
    }

    /// Runs until it is dropped.
    ///
    /// # Errors
    /// The node cannot be part of the cluster (any more).
    pub(crate) async fn run(mut self) -> Result<(), NodeError> {
        let mut catalogues = self.member.meta.catalogue();
        let mut changes = self.member.shard.changes();
        loop {
            let catalogue = catalogues.borrow_and_update().clone();
            changes.mark_unchanged();
            self.follow_peers(&catalogue).await?;
            let volumes: Vec<Volume> = catalogue.volumes().cloned().collect();
            self.keeper.follow(&volumes);
            if register(&self.member).await? {
                self.registered.send_if_modified(|registered| !std::mem::replace(registered, true));
            }
            self.follow_replicas(&volumes).await?;
            tokio::select! {
                changed = catalogues.changed() => if changed.is_err() { return Ok(()) },
                changed = changes.changed() => if changed.is_err() { return Err(NodeError::shard_gone()) },
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn follow_peers(&mut self, catalogue: &Catalogue) -> Result<(), NodeError> {
        let me = self.member.me.id;
        let others = catalogue.nodes().filter(|node| node.id != me && !node.peer.is_empty());
        let peers: Vec<_> = others.map(|node| (node.id, node.peer.clone())).collect();
        if self.peers.as_ref() != Some(&peers) {
            let told = self.member.shard.set_peers(peers.clone()).await;
            told.map_err(|_| NodeError::shard_gone())?;
            self.peers = Some(peers);
        }
        Ok(())
    }

    async fn follow_replicas(&mut self, volumes: &[Volume]) -> Result<(), NodeError> {
        let Ok(status) = self.member.shard.status().await else {
            return Err(NodeError::shard_gone());
        };
        while self.tasks.try_join_next().is_some() {}
        self.healing.retain(|_, task| !task.is_finished());
        // Without the group there is nobody to ask or to tell; the next round tries again.
        let mut open = self.follow_promises(&status).await?;
        let me = self.member.me.id;
        for volume in volumes {
            for copy in volume.set.all().filter(|copy| copy.node == me) {
                open = open && self.follow_replica(volume, copy, &status).await;
            }
        }
        Ok(())
    }

    /// Tells replicas how high the promises can have been that they may have lost, whatever else
    /// becomes of them: the leases that this node grants wait for all of them.
    /// Whether the metadata group answered, or was not needed.
    async fn follow_promises(&mut self, status: &ShardStatus) -> Result<bool, NodeError> {
        let mut unsure = Vec::new();
        for disk in status.disks.iter().filter(|disk| disk.failure.is_none()) {
            let held = disk.replicas.iter().filter(|held| !held.floored);
            unsure.extend(held.map(|held| (disk.disk, held.volume, held.replica)));
        }
        unsure.retain(|(_, _, replica)| !self.healing.contains_key(replica));
        // As of now: an epoch that was granted since would not be covered.
        if unsure.is_empty() && status.unfloored.is_empty() {
            return Ok(true);
        }
        if self.member.meta.read_barrier(PROPOSE_MAX).await.is_err() {
            return Ok(false);
        }
        let shard = &self.member.shard;
        for volume in status.unfloored.iter().copied() {
            let told = match self.member.volume(volume) {
                Some(now) => shard.floor_leases(volume, now.epoch).await,
                // It was deleted, and nobody reads from it.
                None => shard.forget_leases(volume).await,
            };
            told.map_err(|_| NodeError::shard_gone())?;
        }
        for (disk, id, replica) in unsure {
            match self.member.volume(id) {
                Some(now) => self.set_floor(disk, &now, replica),
                None => self.discard_orphan(disk, id, replica),
            }
        }
        Ok(true)
    }

    fn set_floor(&mut self, disk: DiskId, now: &Volume, replica: ReplicaId) {
        let (shard, id, epoch) = (self.member.shard.clone(), now.id, now.epoch);
        self.heal(replica, async move {
            if let Err(error) = shard.set_floor(disk, id, replica, epoch).await {
                tracing::warn!(volume = %id, %replica, %error, "cannot tell the replica of the epoch");
            }
        });
    }

    /// What damage has brought back of a volume that is deleted: its deletion was in what
    /// was lost. Only on a disk that the cluster knows as this node's.
    fn discard_orphan(&mut self, disk: DiskId, id: VolumeId, replica: ReplicaId) {
        let me = self.member.me.id;
        if self.member.catalogue().disk(disk).is_none_or(|known| known.node != me) {
            return;
        }
        self.discard(disk, id, replica);
    }

    fn discard(&mut self, disk: DiskId, id: VolumeId, replica: ReplicaId) {
        let shard = self.member.shard.clone();
        self.heal(replica, async move {
            match shard.discard_replica(disk, id, replica).await {
                Ok(()) => tracing::info!(volume = %id, %replica, %disk, "damaged replica of a deleted volume deleted"),
                Err(error) => {
                    tracing::warn!(volume = %id, %replica, %disk, %error, "cannot delete a damaged replica yet");
                }
            }
        });
    }

    /// One task at a time for a replica. The loop sees what came of it.
    fn heal(&mut self, replica: ReplicaId, task: impl Future<Output = ()> + Send + 'static) {
        if !self.healing.contains_key(&replica) {
            self.healing.insert(replica, self.tasks.spawn(task));
        }
    }

    /// Whether the metadata group answered, or was not needed.
    async fn follow_replica(
        &mut self,
        volume: &Volume,
        copy: &holdfast_meta::Member,
        status: &ShardStatus,
    ) -> bool {
        let Some(disk) = status.disks.iter().find(|disk| disk.disk == copy.disk) else {
            self.say_lost(volume, copy);
            return true;
        };
        let held = disk.replicas.iter().find(|replica| replica.volume == volume.id);
        let here = held.is_some_and(|held| held.replica == copy.replica);
        let (volume_id, replica) = (volume.id, copy.replica);
        match volume.phase {
            Phase::Active if copy.ready && here => match held.filter(|held| held.suspect) {
                Some(held) => self.rejoin(volume, copy, held).await,
                None => {
                    self.suspect.remove(&copy.replica);
                    true
                }
            },
            Phase::Active if copy.ready => {
                self.say_lost(volume, copy);
                true
            }
            Phase::Active if disk.failure.is_some() => true,
            Phase::Active => {
                if !here {
                    match self.awaits(volume, copy).await {
                        Some(true) => {}
                        Some(false) => return true,
                        None => return false,
                    }
                    if let Err(error) = self.create(volume, copy).await {
                        tracing::warn!(volume = %volume.id, name = %volume.name, error, "cannot create a replica");
                        return true;
                    }
                }
                // The replica is durable before the catalogue hears of it (I8).
                self.tell(Command::ReplicaReady { volume: volume_id, replica }).await
            }
            Phase::Deleting if here && held.is_some_and(|held| held.suspect) => {
                self.discard(copy.disk, volume_id, replica);
                true
            }
            Phase::Deleting => {
                if here && let Err(error) = self.delete(volume, copy).await {
                    tracing::warn!(volume = %volume.id, name = %volume.name, error, "cannot delete a replica yet");
                    return true;
                }
                self.tell(Command::ReplicaGone { volume: volume_id, replica }).await
            }
        }
    }

    /// Whether the replica is still to be created, as of now: what this node has of the
    /// catalogue may be old, above all after a start, and to create one again that was ready
    /// would have a blank log vote in its place. `None` while the group does not say.
    async fn awaits(&self, volume: &Volume, copy: &holdfast_meta::Member) -> Option<bool> {
        self.member.meta.read_barrier(PROPOSE_MAX).await.ok()?;
        let now = self.member.volume(volume.id).filter(|now| now.phase == Phase::Active);
        Some(now.is_some_and(|now| now.set.all().any(|held| held == copy)))
    }

    /// Leads a replica whose log was damaged back: see `holdfast_replica`'s `rejoin`, which
    /// says what makes each step safe. Whether the metadata group answered, or was not needed.
    async fn rejoin(
        &mut self,
        volume: &Volume,
        copy: &holdfast_meta::Member,
        held: &VolumeReport,
    ) -> bool {
        let (id, replica) = (volume.id, copy.replica);
        if self.suspect.insert(replica) {
            tracing::error!(
                volume = %id, name = %volume.name, %replica, disk = %copy.disk, applied = %held.applied_lsn,
                "the replica's log is damaged; it rejoins once the volume's other replicas have taken it out of the set"
            );
            if volume.set.all().count() == 1 {
                tracing::error!(
                    volume = %id, name = %volume.name,
                    "it is the volume's only replica: the volume stays offline; restore it from a backup"
                );
            }
        }
        let busy = self.healing.contains_key(&replica);
        if !held.floored || busy || sealing(volume, replica, held.heard).is_none() {
            return true;
        }
        // As of now, and after the engine has asked: a change of an older generation would be
        // taken for the repetition of somebody else's, and move nothing.
        if self.member.meta.read_barrier(PROPOSE_MAX).await.is_err() {
            return false;
        }
        let now = self.member.volume(id);
        let Some(command) = now.and_then(|now| sealing(&now, replica, held.heard)) else {
            return true;
        };
        let sealed = match self.member.propose(command).await {
            Ok(Outcome::Volume(sealed)) => sealed,
            Ok(other) => {
                tracing::error!(?other, "a change of a set was answered with something else");
                return true;
            }
            Err(ProposeError::Rejected(reason)) => {
                tracing::debug!(volume = %id, %reason, "not as this node has heard; the replica waits");
                return true;
            }
            Err(error) => {
                tracing::debug!(%error, "a damaged replica cannot start over yet");
                return false;
            }
        };
        if sealed.epoch > held.heard
            || !sealed.set.learners.iter().any(|learner| learner.replica == replica)
        {
            return true;
        }
        let (shard, disk) = (self.member.shard.clone(), copy.disk);
        self.heal(replica, async move {
            match shard.reset_replica(disk, id, replica, sealed.epoch).await {
                Ok(()) => tracing::info!(
                    volume = %id, name = %sealed.name, %replica,
                    "the replica has dropped its damaged log and catches up"
                ),
                Err(error) => {
                    tracing::warn!(volume = %id, name = %sealed.name, %replica, %error, "the replica cannot start over yet");
                }
            }
        });
        true
    }

    async fn create(&self, volume: &Volume, copy: &holdfast_meta::Member) -> Result<(), String> {
        let new = NewVolume {
            volume: volume.id,
            replica: copy.replica,
            history: volume.history,
            // The log says it, from its first epoch on. That of the catalogue may be one that
            // the log has not come to, or another than those that were created before.
            blocks: 0,
        };
        let created = self.member.shard.create_replica(copy.disk, new).await;
        created.map_err(|error| error.to_string())?;
        tracing::info!(volume = %volume.id, name = %volume.name, replica = %copy.replica, disk = %copy.disk, "replica created");
        Ok(())
    }

    async fn delete(&self, volume: &Volume, copy: &holdfast_meta::Member) -> Result<(), String> {
        let deleted = self.member.shard.delete_replica(copy.disk, volume.id).await;
        deleted.map_err(|error| error.to_string())?;
        tracing::info!(volume = %volume.id, name = %volume.name, replica = %copy.replica, disk = %copy.disk, "replica deleted");
        Ok(())
    }

    /// Whether the metadata group answered.
    async fn tell(&self, command: Command) -> bool {
        match self.member.propose(command).await {
            Ok(_) => true,
            Err(ProposeError::Rejected(reason)) => {
                tracing::debug!(%reason, "told what is known already");
                true
            }
            Err(error) => {
                tracing::debug!(%error, "cannot tell of a replica yet");
                false
            }
        }
    }

    /// A replica that was there and is not is never made again under its id: it would
    /// answer for data that it does not have.
    fn say_lost(&mut self, volume: &Volume, copy: &holdfast_meta::Member) {
        if copy.ready && volume.phase == Phase::Active && self.lost.insert(copy.replica) {
            tracing::error!(
                volume = %volume.id, name = %volume.name, replica = %copy.replica, disk = %copy.disk,
                "the replica is not on its disk any more; give back the disk that it was written on"
            );
        }
    }
}

/// The same set under a new generation: whatever its engine proposed before it asked this
/// replica for its promise is void then. `volume` is as of after that. `None` unless the
/// replica is out of the set, and the engine in force has asked.
fn sealing(volume: &Volume, replica: ReplicaId, heard: Epoch) -> Option<Command> {
    let is_out = volume.set.learners.iter().any(|learner| learner.replica == replica);
    let asked = volume.phase == Phase::Active && heard >= volume.epoch;
    (is_out && asked).then(|| Command::ChangeSet {
        volume: volume.id,
        epoch: volume.epoch,
        generation: volume.set.generation,
        members: volume.set.members.iter().map(|member| member.replica).collect(),
    })
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
