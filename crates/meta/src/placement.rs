//! Where a new volume's replicas go: different nodes, zones before all else, then
//! the most free room. Pure: what is known of the cluster comes in as arguments.

use crate::{Catalogue, Disk, Member, Rejected};
use holdfast_types::{DiskId, NodeId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Members for a new volume of `size_bytes`, none of them ready, under fresh replica ids.
///
/// # Errors
/// There are fewer nodes with a disk than replicas.
pub fn choose(
    catalogue: &Catalogue,
    replicas: u8,
    size_bytes: u64,
) -> Result<Vec<Member>, Rejected> {
    choose_among(catalogue, replicas, size_bytes, &|_| true)
}

/// As [`choose`], on disks that are `usable` (of nodes that answer, say).
///
/// # Errors
/// There are fewer nodes with a usable disk than replicas.
pub fn choose_among(
    catalogue: &Catalogue,
    replicas: u8,
    size_bytes: u64,
    usable: &dyn Fn(&Disk) -> bool,
) -> Result<Vec<Member>, Rejected> {
    let places = places(catalogue, replicas, size_bytes, usable)?;
    let member = |(node, disk)| Member { replica: ReplicaId::random(), node, disk, ready: false };
    Ok(places.into_iter().map(member).collect())
}

/// The disks on which [`choose_among`] puts a volume, best first; the same for the same arguments.
///
/// # Errors
/// There are fewer nodes with a usable disk than replicas.
pub fn places(
    catalogue: &Catalogue,
    replicas: u8,
    size_bytes: u64,
    usable: &dyn Fn(&Disk) -> bool,
) -> Result<Vec<(NodeId, DiskId)>, Rejected> {
    let free = free_bytes(catalogue);
    let usable: Vec<&Disk> = catalogue.disks().filter(|disk| usable(disk)).collect();
    let have = usable.iter().map(|disk| disk.node).collect::<BTreeSet<_>>().len();
    let wanted = usize::from(replicas);
    if have < wanted {
        return Err(Rejected::TooFewNodes { have, wanted });
    }
    let zone = |node: NodeId| catalogue.node(node).map_or("", |node| node.zone.as_str());
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut chosen: Vec<(NodeId, DiskId)> = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let spare = usable.iter().filter(|disk| chosen.iter().all(|(node, _)| *node != disk.node));
        let best = spare.min_by_key(|disk| {
            let free = free.get(&disk.id).copied().unwrap_or(0);
            let crowded = taken.get(zone(disk.node)).copied().unwrap_or(0);
            // Volumes are thin: one that does not fit today is a reason to look elsewhere
            // first, not to refuse.
            (crowded, free < i128::from(size_bytes), -free, disk.id)
        });
        let Some(best) = best else { unreachable!("there are as many nodes as wanted") };
        *taken.entry(zone(best.node)).or_default() += 1;
        chosen.push((best.node, best.id));
    }
    Ok(chosen)
}

/// What is left of each disk when every volume on it fills up; may be below zero.
fn free_bytes(catalogue: &Catalogue) -> BTreeMap<DiskId, i128> {
    let mut free: BTreeMap<_, _> =
        catalogue.disks().map(|disk| (disk.id, i128::from(disk.capacity_bytes))).collect();
    for volume in catalogue.volumes() {
        for member in volume.set.all() {
            if let Some(left) = free.get_mut(&member.disk) {
                *left -= i128::from(volume.size_bytes);
            }
        }
    }
    free
}
