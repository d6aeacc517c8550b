//! The cluster, its nodes and their disks.

use super::limits::{DISKS_MAX, NODES_MAX, REMOVED_MAX, check_disk, check_node, check_room};
use super::{Catalogue, Member, Phase};
use crate::{Disk, Node, Outcome, Rejected};
use holdfast_types::{ClusterId, DiskId, NodeId};

/// How many volumes a rejection names.
const NAMED_MAX: usize = 5;

impl Catalogue {
    pub(super) fn init_cluster(&mut self, cluster: ClusterId) -> Result<Outcome, Rejected> {
        match self.cluster {
            Some(held) if held != cluster => Err(Rejected::Cluster(held)),
            _ => {
                self.cluster = Some(cluster);
                Ok(Outcome::Cluster(cluster))
            }
        }
    }

    pub(super) fn put_node(&mut self, node: &Node) -> Result<Outcome, Rejected> {
        check_node(node)?;
        if self.was_removed(node.id) {
            return Err(Rejected::Removed(node.id));
        }
        let namesake = self.nodes.values().find(|n| n.name == node.name && n.id != node.id);
        let replaced = match namesake {
            None => None,
            // It advertises the very address of its namesake: the same machine under a new
            // identity, because its data was wiped. The old identity makes room for it.
            Some(old) if old.peer == node.peer && !old.peer.is_empty() => Some(old.id),
            Some(old) => {
                return Err(Rejected::NodeNameTaken { name: node.name.clone(), holder: old.id });
            }
        };
        if !self.nodes.contains_key(&node.id) {
            check_room(self.nodes.len(), NODES_MAX, "nodes")?;
        }
        if let Some(old) = replaced.and_then(|id| self.nodes.get_mut(&id)) {
            // Whole ids never collide. A node's name is a label, not its identity.
            old.name = format!("lost-{}", old.id);
        }
        self.nodes.insert(node.id, node.clone());
        Ok(Outcome::Node(node.clone()))
    }

    pub(super) fn remove_node(&mut self, node: NodeId, force: bool) -> Result<Outcome, Rejected> {
        if !self.nodes.contains_key(&node) {
            return Ok(Outcome::Gone);
        }
        if let Some(volume) = self.volumes().find(|v| v.attached.is_some_and(|a| a.node == node)) {
            return Err(Rejected::HoldsAttachment(volume.name.clone()));
        }
        let on_node = |member: &Member| member.node == node;
        self.check_unused(on_node, force)?;
        self.give_up(on_node);
        self.disks.retain(|_, disk| disk.node != node);
        self.nodes.remove(&node);
        if self.removed.len() == REMOVED_MAX {
            self.removed.pop_front();
        }
        self.removed.push_back(node);
        Ok(Outcome::Gone)
    }

    pub(super) fn put_disk(&mut self, disk: &Disk) -> Result<Outcome, Rejected> {
        check_disk(disk)?;
        if !self.nodes.contains_key(&disk.node) {
            return Err(Rejected::NoNode(disk.node));
        }
        match self.disks.get(&disk.id) {
            Some(held) if held.node != disk.node => {
                return Err(Rejected::DiskElsewhere { disk: disk.id, node: held.node });
            }
            Some(_) => {}
            None => check_room(self.disks.len(), DISKS_MAX, "disks")?,
        }
        self.disks.insert(disk.id, disk.clone());
        Ok(Outcome::Disk(disk.clone()))
    }

    pub(super) fn remove_disk(&mut self, disk: DiskId) -> Result<Outcome, Rejected> {
        let on_disk = |member: &Member| member.disk == disk;
        self.check_unused(on_disk, true)?;
        self.give_up(on_disk);
        self.disks.remove(&disk);
        Ok(Outcome::Gone)
    }

    /// Whether what `on` selects holds no member of a set (unless `spare`: nor anything else).
    fn check_unused(&self, on: impl Fn(&Member) -> bool, spare: bool) -> Result<(), Rejected> {
        let held = self.volumes().filter(|volume| {
            let counts = volume.phase == Phase::Active && volume.set.members.iter().any(&on);
            counts || (!spare && volume.set.all().any(&on))
        });
        let names: Vec<_> = held.map(|volume| volume.name.as_str()).take(NAMED_MAX + 1).collect();
        match names.as_slice() {
            [] => Ok(()),
            few if few.len() <= NAMED_MAX => Err(Rejected::HoldsReplicas(few.join(", "))),
            many => {
                let first = many[..NAMED_MAX].join(", ");
                Err(Rejected::HoldsReplicas(format!("{first} and others")))
            }
        }
    }

    /// Drops learners and unconfirmed replicas of deleted volumes that `on` selects.
    fn give_up(&mut self, on: impl Fn(&Member) -> bool) {
        self.volumes.retain(|_, volume| {
            volume.set.learners.retain(|member| !on(member));
            if volume.phase == Phase::Deleting {
                volume.set.members.retain(|member| !on(member));
            }
            volume.phase == Phase::Active || volume.set.all().next().is_some()
        });
    }
}
