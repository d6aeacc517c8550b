//! The state machine.

use crate::{Command, Outcome, Rejected, VolumeName};
use holdfast_types::{DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Largest volume, in bytes (64 TiB): bounds the height of map trees.
const VOLUME_BYTES_MAX: u64 = 64 << 40;
/// Most members of a replica set; a quorum of more is slower and no safer.
const MEMBERS_MAX: usize = 7;
/// A volume is whole blocks.
const SIZE_UNIT: u64 = holdfast_types::BLOCK_BYTES as u64;

/// One member of a replica set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The copy.
    pub replica: ReplicaId,
    /// The node it is on.
    pub node: NodeId,
    /// The disk it is on.
    pub disk: DiskId,
}

/// The members that count for a volume's quorums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Counts the changes of the set.
    pub generation: Generation,
    /// The members.
    pub members: Vec<Member>,
}

/// A volume as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// Size in bytes.
    pub size_bytes: u64,
    /// 512 or 4096.
    pub logical_block_bytes: u32,
    /// Changes only when data was declared lost.
    pub history: HistoryId,
    /// The epoch last granted.
    pub epoch: Epoch,
    /// The node whose engine holds it, if any.
    pub attached: Option<NodeId>,
    /// Its replica set.
    pub set: ReplicaSet,
}

/// Everything that the metadata group agrees on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    volumes: BTreeMap<VolumeId, Volume>,
}

impl Catalogue {
    /// Every volume, by id.
    pub fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.values()
    }

    /// The volume with this id.
    #[must_use]
    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(&id)
    }

    /// The volume with this name.
    #[must_use]
    pub fn by_name(&self, name: &VolumeName) -> Option<&Volume> {
        self.volumes.values().find(|volume| volume.name == *name)
    }

    /// Carries a command out, or changes nothing.
    pub fn apply(&mut self, command: &Command) -> Result<Outcome, Rejected> {
        match command {
            Command::CreateVolume { volume, .. } if self.volumes.contains_key(volume) => {
                Err(Rejected::Exists(*volume))
            }
            Command::CreateVolume { name, .. } if self.by_name(name).is_some() => {
                Err(Rejected::NameTaken(name.clone()))
            }
            Command::CreateVolume {
                volume,
                name,
                size_bytes,
                logical_block_bytes,
                history,
                members,
            } => {
                check_geometry(*size_bytes, *logical_block_bytes)?;
                check_members(members)?;
                let created = Volume {
                    id: *volume,
                    name: name.clone(),
                    size_bytes: *size_bytes,
                    logical_block_bytes: *logical_block_bytes,
                    history: *history,
                    epoch: Epoch::ZERO,
                    attached: None,
                    set: ReplicaSet { generation: Generation::new(1), members: members.clone() },
                };
                self.volumes.insert(*volume, created.clone());
                Ok(Outcome::Volume(created))
            }
            Command::DeleteVolume { volume } => {
                if let Some(node) = self.held(*volume)?.attached {
                    return Err(Rejected::Attached(node));
                }
                match self.volumes.remove(volume) {
                    Some(gone) => Ok(Outcome::Deleted(gone)),
                    None => Err(Rejected::NoVolume(*volume)),
                }
            }
            Command::GrantEpoch { volume, node, expected } => {
                let held = self.held(*volume)?;
                if held.epoch != *expected {
                    return Err(Rejected::EpochMoved { held: held.epoch, expected: *expected });
                }
                held.epoch = held.epoch.next();
                held.attached = Some(*node);
                Ok(Outcome::Volume(held.clone()))
            }
            Command::Detach { volume, epoch } => {
                let held = self.held(*volume)?;
                if held.epoch != *epoch {
                    return Err(Rejected::EpochMoved { held: held.epoch, expected: *epoch });
                }
                held.attached = None;
                Ok(Outcome::Volume(held.clone()))
            }
        }
    }

    fn held(&mut self, volume: VolumeId) -> Result<&mut Volume, Rejected> {
        self.volumes.get_mut(&volume).ok_or(Rejected::NoVolume(volume))
    }
}

fn check_geometry(size_bytes: u64, logical_block_bytes: u32) -> Result<(), Rejected> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(SIZE_UNIT) {
        return Err(Rejected::Geometry(
            "a volume's size is a multiple of 4096 bytes, at least one",
        ));
    }
    if size_bytes > VOLUME_BYTES_MAX {
        return Err(Rejected::Geometry("a volume has at most 64 TiB"));
    }
    if !matches!(logical_block_bytes, 512 | 4096) {
        return Err(Rejected::Geometry("a logical block has 512 or 4096 bytes"));
    }
    Ok(())
}

fn check_members(members: &[Member]) -> Result<(), Rejected> {
    let disks: BTreeSet<_> = members.iter().map(|member| member.disk).collect();
    let fits = (1..=MEMBERS_MAX).contains(&members.len()) && disks.len() == members.len();
    if fits { Ok(()) } else { Err(Rejected::Members) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(name: &str, id: u128) -> Command {
        Command::CreateVolume {
            volume: VolumeId::from_u128(id),
            name: name.parse().unwrap(),
            size_bytes: 1 << 30,
            logical_block_bytes: 512,
            history: HistoryId::from_u128(9),
            members: vec![Member {
                replica: ReplicaId::from_u128(1),
                node: NodeId::from_u128(2),
                disk: DiskId::from_u128(3),
            }],
        }
    }

    fn grant(expected: u64) -> Command {
        Command::GrantEpoch {
            volume: VolumeId::from_u128(1),
            node: NodeId::from_u128(2),
            expected: Epoch::new(expected),
        }
    }

    #[test]
    fn of_two_engines_that_ask_for_the_same_epoch_one_gets_it() {
        let mut catalogue = Catalogue::default();
        catalogue.apply(&create("demo", 1)).unwrap();
        let Ok(Outcome::Volume(volume)) = catalogue.apply(&grant(0)) else { panic!("granted") };
        assert_eq!(volume.epoch, Epoch::new(1));
        let second = catalogue.apply(&grant(0));
        let (held, expected) = (Epoch::new(1), Epoch::ZERO);
        assert_eq!(second, Err(Rejected::EpochMoved { held, expected }));
    }

    #[test]
    fn an_attached_volume_is_not_deleted() {
        let mut catalogue = Catalogue::default();
        let volume = VolumeId::from_u128(1);
        catalogue.apply(&create("demo", 1)).unwrap();
        catalogue.apply(&grant(0)).unwrap();
        let delete = Command::DeleteVolume { volume };
        assert_eq!(catalogue.apply(&delete), Err(Rejected::Attached(NodeId::from_u128(2))));
        catalogue.apply(&Command::Detach { volume, epoch: Epoch::new(1) }).unwrap();
        assert!(matches!(catalogue.apply(&delete), Ok(Outcome::Deleted(_))));
        assert_eq!(catalogue.volumes().count(), 0);
    }

    #[test]
    fn an_epoch_never_comes_back_after_detach() {
        let mut catalogue = Catalogue::default();
        catalogue.apply(&create("demo", 1)).unwrap();
        catalogue.apply(&grant(0)).unwrap();
        let volume = VolumeId::from_u128(1);
        catalogue.apply(&Command::Detach { volume, epoch: Epoch::new(1) }).unwrap();
        let Ok(Outcome::Volume(again)) = catalogue.apply(&grant(1)) else { panic!("granted") };
        assert_eq!(again.epoch, Epoch::new(2));
    }

    #[test]
    fn bad_commands_change_nothing() {
        let mut catalogue = Catalogue::default();
        catalogue.apply(&create("demo", 1)).unwrap();
        let before = catalogue.clone();
        assert!(matches!(catalogue.apply(&create("demo", 2)), Err(Rejected::NameTaken(_))));
        assert!(matches!(catalogue.apply(&create("other", 1)), Err(Rejected::Exists(_))));
        let mut odd = create("odd", 4);
        if let Command::CreateVolume { size_bytes, .. } = &mut odd {
            *size_bytes = 4097;
        }
        assert!(matches!(catalogue.apply(&odd), Err(Rejected::Geometry(_))));
        let mut none = create("none", 5);
        if let Command::CreateVolume { members, .. } = &mut none {
            members.clear();
        }
        assert_eq!(catalogue.apply(&none), Err(Rejected::Members));
        assert_eq!(catalogue, before);
    }
}
