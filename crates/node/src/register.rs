//! Keeps the catalogue's entries of this node and its disks true: where it is found,
//! what it is called, which disks it has.

use crate::{NodeError, member::Member};
use holdfast_engine::runtime::DiskStatus;
use holdfast_meta::{Command, Disk, ProposeError, Rejected};

/// Brings the entries up to date. Whether all are; what cannot be asked now is tried again.
///
/// # Errors
/// This node cannot be part of the cluster as it is.
pub(crate) async fn register(member: &Member) -> Result<bool, NodeError> {
    let catalogue = member.catalogue();
    if catalogue.was_removed(member.me.id) {
        return Err(NodeError::Removed { node: member.me.id });
    }
    if catalogue.node(member.me.id) != Some(&member.me) {
        match member.propose(Command::PutNode(member.me.clone())).await {
            Ok(_) => {}
            Err(ProposeError::Rejected(rejected)) => return Err(NodeError::NotTaken(rejected)),
            Err(error) => {
                tracing::debug!(%error, "this node is not registered yet");
                return Ok(false);
            }
        }
    }
    let Ok(status) = member.shard.status().await else { return Err(NodeError::shard_gone()) };
    let mut all = true;
    for disk in &status.disks {
        all &= register_disk(member, disk).await;
    }
    Ok(all)
}

async fn register_disk(member: &Member, disk: &DiskStatus) -> bool {
    let catalogue = member.catalogue();
    let entry = Disk {
        id: disk.disk,
        node: member.me.id,
        path: disk.label.clone(),
        capacity_bytes: member.disks.facts(disk.disk).map_or(0, |(capacity, _)| capacity),
    };
    if catalogue.disk(disk.disk) == Some(&entry) || member.disks.is_leaving(disk.disk) {
        return true;
    }
    if let Some(reason) = refuse_foreign(member, disk) {
        return unregistered(member, disk, reason);
    }
    match member.propose(Command::PutDisk(entry)).await {
        Ok(_) => {
            member.disks.set_unregistered(disk.disk, None);
            true
        }
        Err(ProposeError::Rejected(rejected)) => unregistered(member, disk, rejection(&rejected)),
        Err(error) => {
            tracing::debug!(disk = %disk.disk, %error, "a disk is not registered yet");
            false
        }
    }
}

/// A disk that is new to the cluster and holds replicas is not what it seems: it was
/// another cluster's, or its node was removed from this one.
fn refuse_foreign(member: &Member, disk: &DiskStatus) -> Option<String> {
    let catalogue = member.catalogue();
    if catalogue.disk(disk.disk).is_some() || disk.replicas.is_empty() {
        return None;
    }
    Some("it holds replicas that this cluster does not know; give an empty disk".to_owned())
}

fn rejection(rejected: &Rejected) -> String {
    match rejected {
        Rejected::DiskElsewhere { disk, node } => format!(
            "it belongs to node {node}, whose identity is not in this data directory; put that back, or \
             remove the disk (holdfast disk remove {disk}) and give an empty one"
        ),
        other => other.to_string(),
    }
}

/// Registered or not, the node goes on; an unregistered disk gets no replicas.
fn unregistered(member: &Member, disk: &DiskStatus, reason: String) -> bool {
    if member.disks.set_unregistered(disk.disk, Some(reason.clone())) {
        tracing::error!(disk = %disk.disk, path = %disk.label, reason, "the cluster does not take a disk");
    }
    true
}
