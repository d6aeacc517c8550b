//! What the loop decides, without a group or a shard.

use super::*;
use holdfast_meta::{Disk, Member as Copy, Node, Rejected};
use holdfast_types::HistoryId;

const VOLUME: VolumeId = VolumeId::from_u128(1);

fn copy(n: u128) -> Copy {
    let (replica, node) = (ReplicaId::from_u128(0x300 + n), NodeId::from_u128(0x100 + n));
    Copy { replica, node, disk: DiskId::from_u128(0x200 + n), ready: true }
}

/// A volume on three nodes, served by the first in epoch 1, with itself as the only member.
fn alone() -> Catalogue {
    let mut catalogue = Catalogue::default();
    let mut apply = |command| catalogue.apply(&command).unwrap();
    for n in 1..=3 {
        let Copy { node: id, disk, .. } = copy(n);
        let text = |what: &str| format!("{what}{n}");
        apply(Command::PutNode(Node {
            id,
            name: text("n"),
            zone: String::new(),
            peer: text("h:"),
            api: String::new(),
            nbd: String::new(),
        }));
        apply(Command::PutDisk(Disk {
            id: disk,
            node: id,
            path: text("/d"),
            capacity_bytes: 1 << 40,
        }));
    }
    apply(Command::CreateVolume {
        volume: VOLUME,
        name: "demo".parse().unwrap(),
        size_bytes: 1 << 30,
        logical_block_bytes: 512,
        history: HistoryId::from_u128(9),
        members: (1..=3).map(copy).collect(),
        replicas: 3,
        min_replicas: 1,
    });
    apply(Command::Attach { volume: VOLUME, node: copy(1).node, read_only: false });
    apply(Command::GrantEpoch { volume: VOLUME, node: copy(1).node, expected: Epoch::ZERO });
    for members in [vec![1, 2], vec![1]] {
        let command = change(&catalogue, &members);
        catalogue.apply(&command).unwrap();
    }
    catalogue
}

fn volume(catalogue: &Catalogue) -> Volume {
    catalogue.volume(VOLUME).unwrap().clone()
}

/// As the engine proposes it now.
fn change(catalogue: &Catalogue, members: &[u128]) -> Command {
    let now = volume(catalogue);
    Command::ChangeSet {
        volume: VOLUME,
        epoch: now.epoch,
        generation: now.set.generation,
        members: members.iter().map(|n| copy(*n).replica).collect(),
    }
}

/// Two damaged replicas. The second's node has heard of the catalogue before the first
/// moved the generation on; then the engine, which has not noticed, proposes the second.
#[test]
fn a_set_is_sealed_as_it_is_after_the_engine_has_asked() {
    let mut catalogue = alone();
    let (heard, second) = (Epoch::new(1), copy(3).replica);
    let before = volume(&catalogue);
    let first = sealing(&before, copy(2).replica, heard).unwrap();
    catalogue.apply(&first).unwrap();
    let late = change(&catalogue, &[1, 3]);

    // With what was heard before, the answer is that of the first, and nothing moves.
    let mut fooled = catalogue.clone();
    fooled.apply(&sealing(&before, second, heard).unwrap()).unwrap();
    fooled.apply(&late).unwrap();

    catalogue.apply(&sealing(&volume(&catalogue), second, heard).unwrap()).unwrap();
    let refused = catalogue.apply(&late);
    assert!(matches!(refused, Err(Rejected::GenerationMoved { .. })), "{refused:?}");
}

#[test]
fn no_set_is_sealed_for_a_member_nor_before_the_engine_in_force_has_asked() {
    let mut catalogue = alone();
    let held = volume(&catalogue);
    assert_eq!(sealing(&held, copy(1).replica, Epoch::new(1)), None, "a member");
    assert_eq!(sealing(&held, copy(2).replica, Epoch::ZERO), None, "not asked");
    let again = Command::GrantEpoch { volume: VOLUME, node: copy(1).node, expected: Epoch::new(1) };
    catalogue.apply(&again).unwrap();
    assert_eq!(
        sealing(&volume(&catalogue), copy(2).replica, Epoch::new(1)),
        None,
        "by an older one"
    );
}

/// What it has promised is not known: no lease is granted before that is told.
#[test]
fn a_replica_that_is_on_no_open_disk_at_the_start_is_away() {
    let catalogue = alone();
    let away = |node, held: &[u128]| {
        let held = held.iter().map(|n| copy(*n).replica).collect();
        crate::disks::away(&catalogue, node, &held)
    };
    assert_eq!(away(copy(2).node, &[]), [VOLUME]);
    assert_eq!(away(copy(2).node, &[1, 3]), [VOLUME], "another's is not its own");
    assert_eq!(away(copy(2).node, &[2]), []);
    assert_eq!(away(NodeId::from_u128(99), &[]), []);
}
