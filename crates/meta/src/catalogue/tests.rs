//! What the catalogue accepts, and what it does then.

use super::*;
use crate::placement;

const VOLUME: VolumeId = VolumeId::from_u128(1);

fn node_id(n: u128) -> NodeId {
    NodeId::from_u128(0x100 + n)
}

fn disk_id(n: u128) -> DiskId {
    DiskId::from_u128(0x200 + n)
}

fn replica(n: u128) -> ReplicaId {
    ReplicaId::from_u128(0x300 + n)
}

fn node(n: u128) -> Node {
    Node {
        id: node_id(n),
        name: format!("n{n}"),
        zone: String::new(),
        peer: format!("h{n}:1"),
        api: String::new(),
        nbd: String::new(),
    }
}

fn disk(n: u128) -> Disk {
    Disk { id: disk_id(n), node: node_id(n), path: "/d".to_owned(), capacity_bytes: 1 << 40 }
}

fn member(n: u128) -> Member {
    Member { replica: replica(n), node: node_id(n), disk: disk_id(n), ready: true }
}

fn create(name: &str, id: u128, members: Vec<Member>) -> Command {
    Command::CreateVolume {
        volume: VolumeId::from_u128(id),
        name: name.parse().unwrap(),
        size_bytes: 1 << 30,
        logical_block_bytes: 512,
        history: HistoryId::from_u128(9),
        replicas: members.len() as u8,
        members,
        min_replicas: 1,
    }
}

/// Nodes 1 to 4 with a disk each; `demo` on 1, 2 and 3.
fn sample() -> Catalogue {
    let mut catalogue = Catalogue::default();
    for n in 1..=4 {
        catalogue.apply(&Command::PutNode(node(n))).unwrap();
        catalogue.apply(&Command::PutDisk(disk(n))).unwrap();
    }
    catalogue.apply(&create("demo", 1, vec![member(1), member(2), member(3)])).unwrap();
    catalogue
}

fn attach(n: u128) -> Command {
    Command::Attach { volume: VOLUME, node: node_id(n), read_only: false }
}

fn grant(n: u128, expected: u64) -> Command {
    Command::GrantEpoch { volume: VOLUME, node: node_id(n), expected: Epoch::new(expected) }
}

fn change(epoch: u64, generation: u64, members: &[u128]) -> Command {
    Command::ChangeSet {
        volume: VOLUME,
        epoch: Epoch::new(epoch),
        generation: Generation::new(generation),
        members: members.iter().copied().map(replica).collect(),
    }
}

fn volume(outcome: Result<Outcome, Rejected>) -> Volume {
    match outcome {
        Ok(Outcome::Volume(volume)) => volume,
        other => panic!("{other:?}"),
    }
}

/// Carries out what must be rejected, and sees that nothing changed.
fn reject(catalogue: &mut Catalogue, command: &Command) -> Rejected {
    let before = catalogue.clone();
    let rejected = catalogue.apply(command).expect_err("rejected");
    assert_eq!(*catalogue, before, "{command:?}");
    rejected
}

#[test]
fn of_two_engines_that_ask_for_the_same_epoch_one_gets_it() {
    let mut catalogue = sample();
    catalogue.apply(&attach(1)).unwrap();
    assert_eq!(volume(catalogue.apply(&grant(1, 0))).epoch, Epoch::new(1));
    let (held, expected) = (Epoch::new(1), Epoch::ZERO);
    assert_eq!(reject(&mut catalogue, &grant(1, 0)), Rejected::EpochMoved { held, expected });
}

#[test]
fn an_epoch_goes_to_the_node_that_shall_serve() {
    let mut catalogue = sample();
    assert_eq!(reject(&mut catalogue, &grant(1, 0)), Rejected::NotAttached(None));
    catalogue.apply(&attach(1)).unwrap();
    catalogue.apply(&grant(1, 0)).unwrap();
    // Taken over: the first node gets none any more, the second the next one.
    catalogue.apply(&attach(2)).unwrap();
    let rejected = reject(&mut catalogue, &grant(1, 1));
    assert_eq!(rejected, Rejected::NotAttached(Some(node_id(2))));
    assert_eq!(volume(catalogue.apply(&grant(2, 1))).epoch, Epoch::new(2));
    assert_eq!(reject(&mut catalogue, &attach(9)), Rejected::NoNode(node_id(9)));
}

#[test]
fn an_epoch_never_comes_back_after_detach() {
    let mut catalogue = sample();
    catalogue.apply(&attach(1)).unwrap();
    catalogue.apply(&grant(1, 0)).unwrap();
    let detached = volume(catalogue.apply(&Command::Detach { volume: VOLUME }));
    assert_eq!((detached.attached, detached.epoch), (None, Epoch::new(1)));
    assert_eq!(reject(&mut catalogue, &grant(1, 1)), Rejected::NotAttached(None));
    catalogue.apply(&attach(1)).unwrap();
    assert_eq!(volume(catalogue.apply(&grant(1, 1))).epoch, Epoch::new(2));
}

#[test]
fn a_set_changes_by_one_member_under_the_epoch_in_force() {
    let mut catalogue = sample();
    catalogue.apply(&attach(1)).unwrap();
    catalogue.apply(&grant(1, 0)).unwrap();
    let two = volume(catalogue.apply(&change(1, 1, &[1, 2]))).set;
    assert_eq!(two.generation, Generation::new(2));
    assert_eq!((two.members, two.learners), (vec![member(1), member(2)], vec![member(3)]));
    // The proposer asks again because it never got the answer.
    let again = volume(catalogue.apply(&change(1, 1, &[2, 1]))).set;
    assert_eq!(again.generation, Generation::new(2));

    let moved =
        Rejected::GenerationMoved { held: Generation::new(2), expected: Generation::new(1) };
    assert_eq!(reject(&mut catalogue, &change(1, 1, &[1])), moved);
    let moved = Rejected::EpochMoved { held: Epoch::new(1), expected: Epoch::ZERO };
    assert_eq!(reject(&mut catalogue, &change(0, 2, &[1])), moved);
    let missing = Rejected::NoReplica { volume: VOLUME, replica: replica(4) };
    assert_eq!(reject(&mut catalogue, &change(1, 2, &[1, 2, 4])), missing);
    for bad in [vec![], vec![1, 3], vec![3]] {
        let rejected = reject(&mut catalogue, &change(1, 2, &bad));
        assert!(matches!(rejected, Rejected::Members(_)), "{bad:?}: {rejected}");
    }
    let back = volume(catalogue.apply(&change(1, 2, &[1, 2, 3]))).set;
    assert_eq!((back.members.len(), back.learners.len()), (3, 0));
}

/// A question that was refused may have an earlier copy on its way, and arrive when it
/// would be granted; who was told no counts on it.
#[test]
fn a_refused_change_is_closed_by_the_same_set_under_the_next_generation() {
    let mut catalogue = sample();
    let unready = Member { ready: false, ..member(3) };
    let demo = catalogue.volumes.get_mut(&VOLUME).unwrap();
    (demo.set.members, demo.set.learners) = (vec![member(1)], vec![unready]);
    demo.epoch = Epoch::new(1);
    let grow = change(1, 1, &[1, 3]);
    assert!(matches!(reject(&mut catalogue, &grow), Rejected::Members(_)));
    let same = volume(catalogue.apply(&change(1, 1, &[1]))).set;
    assert_eq!((same.generation, &same.members[..]), (Generation::new(2), &[member(1)][..]));
    assert_eq!(same.learners, [unready]);
    let again = volume(catalogue.apply(&change(1, 1, &[1]))).set;
    assert_eq!(again, same);
    catalogue.apply(&Command::ReplicaReady { volume: VOLUME, replica: replica(3) }).unwrap();
    let moved =
        Rejected::GenerationMoved { held: Generation::new(2), expected: Generation::new(1) };
    assert_eq!(reject(&mut catalogue, &grow), moved);
    assert_eq!(volume(catalogue.apply(&change(1, 2, &[1, 3]))).set.members.len(), 2);
}

#[test]
fn a_set_shrinks_to_one_member_at_the_engines_word_and_takes_only_those_that_exist() {
    let mut catalogue = sample();
    let unready = Member { ready: false, replica: replica(14), ..member(4) };
    let mut command = create("two", 2, vec![Member { replica: replica(11), ..member(1) }, unready]);
    if let Command::CreateVolume { min_replicas, .. } = &mut command {
        *min_replicas = 2;
    }
    catalogue.apply(&command).unwrap();
    let id = VolumeId::from_u128(2);
    catalogue.volumes.get_mut(&id).unwrap().epoch = Epoch::new(1);
    let of = |generation: u64, members: &[u128]| Command::ChangeSet {
        volume: id,
        epoch: Epoch::new(1),
        generation: Generation::new(generation),
        members: members.iter().copied().map(replica).collect(),
    };
    // The other one's log may be damaged: of that only the engine knows.
    catalogue.apply(&of(1, &[11])).unwrap();
    assert!(matches!(reject(&mut catalogue, &of(2, &[])), Rejected::Members(_)));
    assert!(matches!(reject(&mut catalogue, &of(2, &[11, 14])), Rejected::Members(_)));
    catalogue.apply(&Command::ReplicaReady { volume: id, replica: replica(14) }).unwrap();
    assert_eq!(volume(catalogue.apply(&of(2, &[11, 14]))).set.members.len(), 2);
}

#[test]
fn a_deleted_volume_stays_until_every_replica_is_gone() {
    let mut catalogue = sample();
    catalogue.apply(&attach(2)).unwrap();
    let delete = Command::DeleteVolume { volume: VOLUME };
    assert_eq!(reject(&mut catalogue, &delete), Rejected::Attached(node_id(2)));
    let gone = |n: u128| Command::ReplicaGone { volume: VOLUME, replica: replica(n) };
    assert_eq!(reject(&mut catalogue, &gone(1)), Rejected::InUse(VOLUME));
    catalogue.apply(&Command::Detach { volume: VOLUME }).unwrap();
    assert_eq!(volume(catalogue.apply(&delete)).phase, Phase::Deleting);
    catalogue.apply(&delete).unwrap();
    assert!(catalogue.by_name(&"demo".parse().unwrap()).is_none(), "the name is free");
    catalogue.apply(&create("demo", 2, vec![Member { replica: replica(5), ..member(1) }])).unwrap();
    for command in [
        attach(1),
        Command::Detach { volume: VOLUME },
        Command::ReplicaReady { volume: VOLUME, replica: replica(1) },
        Command::Resize { volume: VOLUME, size_bytes: 2 << 30 },
        grant(1, 0),
        change(0, 1, &[1, 2]),
    ] {
        assert_eq!(reject(&mut catalogue, &command), Rejected::Deleting(VOLUME));
    }
    for n in [1, 1, 3] {
        assert_eq!(catalogue.apply(&gone(n)), Ok(Outcome::Gone));
        assert!(catalogue.volume(VOLUME).is_some());
    }
    assert_eq!(catalogue.apply(&gone(2)), Ok(Outcome::Gone));
    assert!(catalogue.volume(VOLUME).is_none());
    assert_eq!(catalogue.apply(&gone(2)), Ok(Outcome::Gone), "again");
}

#[test]
fn a_node_is_removed_when_nothing_counts_on_it() {
    let mut catalogue = sample();
    let remove = |n: u128, force| Command::RemoveNode { node: node_id(n), force };
    let held = Rejected::HoldsReplicas("demo".to_owned());
    assert_eq!(reject(&mut catalogue, &remove(3, true)), held, "a member");
    catalogue.apply(&attach(1)).unwrap();
    catalogue.apply(&grant(1, 0)).unwrap();
    catalogue.apply(&change(1, 1, &[1, 2])).unwrap();
    assert_eq!(reject(&mut catalogue, &remove(3, false)), held, "a learner");
    catalogue.apply(&remove(3, true)).unwrap();
    assert!(catalogue.volume(VOLUME).unwrap().set.learners.is_empty());
    assert!(catalogue.node(node_id(3)).is_none() && catalogue.disk(disk_id(3)).is_none());
    assert_eq!(catalogue.apply(&remove(3, true)), Ok(Outcome::Gone), "again");

    catalogue.apply(&attach(4)).unwrap();
    let rejected = reject(&mut catalogue, &remove(4, true));
    assert_eq!(rejected, Rejected::HoldsAttachment("demo".parse().unwrap()));
    catalogue.apply(&attach(1)).unwrap();
    catalogue.apply(&remove(4, false)).unwrap();
    // What was taken out does not come back as if nothing had been.
    assert!(catalogue.was_removed(node_id(4)) && !catalogue.was_removed(node_id(1)));
    let rejected = reject(&mut catalogue, &Command::PutNode(node(4)));
    assert_eq!(rejected, Rejected::Removed(node_id(4)));
}

#[test]
fn replicas_of_deleted_volumes_are_given_up_with_their_node_or_disk() {
    let mut catalogue = sample();
    catalogue.apply(&Command::DeleteVolume { volume: VOLUME }).unwrap();
    let remove = |force| Command::RemoveNode { node: node_id(1), force };
    assert!(matches!(reject(&mut catalogue, &remove(false)), Rejected::HoldsReplicas(_)));
    catalogue.apply(&remove(true)).unwrap();
    for n in [2, 3] {
        assert!(catalogue.volume(VOLUME).is_some());
        catalogue.apply(&Command::RemoveDisk { disk: disk_id(n) }).unwrap();
    }
    assert!(catalogue.volume(VOLUME).is_none());
}

#[test]
fn a_disk_with_members_stays_and_keeps_its_node() {
    let mut catalogue = sample();
    let remove = Command::RemoveDisk { disk: disk_id(1) };
    assert!(matches!(reject(&mut catalogue, &remove), Rejected::HoldsReplicas(_)));
    let moved = Command::PutDisk(Disk { node: node_id(2), ..disk(1) });
    let elsewhere = Rejected::DiskElsewhere { disk: disk_id(1), node: node_id(1) };
    assert_eq!(reject(&mut catalogue, &moved), elsewhere);
    let stray = Command::PutDisk(Disk { node: node_id(9), ..disk(9) });
    assert_eq!(reject(&mut catalogue, &stray), Rejected::NoNode(node_id(9)));
    let grown = Disk { capacity_bytes: 5, ..disk(1) };
    catalogue.apply(&Command::PutDisk(grown.clone())).unwrap();
    assert_eq!(catalogue.disk(disk_id(1)), Some(&grown));
}

#[test]
fn a_wiped_node_takes_its_name_back_at_its_address_only() {
    let mut catalogue = sample();
    let wiped = Node { id: node_id(7), ..node(1) };
    let elsewhere = Node { peer: "h8:1".to_owned(), ..wiped.clone() };
    let taken = Rejected::NodeNameTaken { name: "n1".to_owned(), holder: node_id(1) };
    assert_eq!(reject(&mut catalogue, &Command::PutNode(elsewhere)), taken);
    catalogue.apply(&Command::PutNode(wiped.clone())).unwrap();
    assert_eq!(catalogue.node_by_name("n1"), Some(&wiped));
    let old = catalogue.node(node_id(1)).unwrap();
    assert_eq!(old.name, format!("lost-{}", node_id(1)));
    let moved = Node { peer: "h9:1".to_owned(), ..wiped };
    catalogue.apply(&Command::PutNode(moved)).unwrap();
}

#[test]
fn a_cluster_keeps_its_id() {
    let mut catalogue = Catalogue::default();
    let init = |id: u128| Command::InitCluster { cluster: ClusterId::from_u128(id) };
    assert_eq!(catalogue.cluster(), None);
    catalogue.apply(&init(1)).unwrap();
    catalogue.apply(&init(1)).unwrap();
    let rejected = reject(&mut catalogue, &init(2));
    assert_eq!(rejected, Rejected::Cluster(ClusterId::from_u128(1)));
}

#[test]
fn a_volume_grows_only() {
    let mut catalogue = sample();
    let resize = |size_bytes| Command::Resize { volume: VOLUME, size_bytes };
    assert_eq!(volume(catalogue.apply(&resize(2 << 30))).size_bytes, 2 << 30);
    catalogue.apply(&resize(2 << 30)).unwrap();
    let shrinks = Rejected::Shrinks { held_bytes: 2 << 30 };
    assert_eq!(reject(&mut catalogue, &resize(1 << 30)), shrinks);
    for bad in [0, (2 << 30) + 1, u64::MAX - 4095] {
        assert!(matches!(reject(&mut catalogue, &resize(bad)), Rejected::Geometry(_)), "{bad}");
    }
}

#[test]
fn bad_volumes_are_not_created() {
    let mut catalogue = sample();
    let three = || (1..=3).map(|n| Member { replica: replica(n + 10), ..member(n) }).collect();
    let name = reject(&mut catalogue, &create("demo", 2, three()));
    assert!(matches!(name, Rejected::NameTaken(_)));
    assert!(matches!(reject(&mut catalogue, &create("other", 1, three())), Rejected::Exists(_)));
    let none = reject(&mut catalogue, &create("none", 5, vec![]));
    assert!(matches!(none, Rejected::Members(_)));
    let own = reject(&mut catalogue, &create("x", 5, vec![member(4), member(1)]));
    assert!(matches!(own, Rejected::Members(_)), "a replica id of another volume");
    let same = Member { replica: replica(20), ..member(4) };
    let same_node = reject(&mut catalogue, &create("x", 5, vec![same, member(4)]));
    assert!(matches!(same_node, Rejected::Members(_)));
    let unknown = reject(&mut catalogue, &create("x", 5, vec![member(8)]));
    assert_eq!(unknown, Rejected::NoDisk(disk_id(8)));
    let foreign = Member { node: node_id(3), ..member(4) };
    let foreign = reject(&mut catalogue, &create("x", 5, vec![foreign]));
    assert!(matches!(foreign, Rejected::DiskElsewhere { .. }));
    let mut cases: Vec<Command> = Vec::new();
    for case in 0..5 {
        let mut command = create("odd", 4, three());
        let Command::CreateVolume {
            size_bytes, logical_block_bytes, min_replicas, replicas, ..
        } = &mut command
        else {
            unreachable!("made so above")
        };
        match case {
            0 => *size_bytes = 4097,
            1 => *logical_block_bytes = 1024,
            2 => *min_replicas = 0,
            3 => *min_replicas = 4,
            _ => *replicas = 2,
        }
        cases.push(command);
    }
    for command in cases {
        reject(&mut catalogue, &command);
    }
    catalogue.apply(&create("good", 4, three())).unwrap();
}

#[test]
fn texts_have_bounds() {
    let mut catalogue = sample();
    let long = "x".repeat(300);
    for bad in [
        Node { name: String::new(), ..node(5) },
        Node { name: "a b".to_owned(), ..node(5) },
        Node { name: long.clone(), ..node(5) },
        Node { zone: long.clone(), ..node(5) },
        Node { peer: long.clone(), ..node(5) },
    ] {
        assert!(matches!(reject(&mut catalogue, &Command::PutNode(bad)), Rejected::Text(_)));
    }
    let path = "x".repeat(5000);
    let bad = Command::PutDisk(Disk { path, ..disk(4) });
    assert!(matches!(reject(&mut catalogue, &bad), Rejected::Text(_)));
}

/// The nodes that get a new volume of 1 GiB.
fn placed(catalogue: &Catalogue, replicas: u8) -> Vec<NodeId> {
    let places = placement::places(catalogue, replicas, 1 << 30, &|_| true).unwrap();
    places.into_iter().map(|(node, _)| node).collect()
}

#[test]
fn placement_takes_different_nodes_with_most_room() {
    let mut catalogue = sample();
    assert_eq!(placed(&catalogue, 1), [node_id(4)], "the others hold demo");
    let big = Disk { id: disk_id(12), capacity_bytes: 2 << 40, ..disk(2) };
    catalogue.apply(&Command::PutDisk(big)).unwrap();
    let places = placement::places(&catalogue, 4, 1 << 30, &|_| true).unwrap();
    let first = (node_id(2), disk_id(12));
    assert_eq!(places[..2], [first, (node_id(4), disk_id(4))]);
    let nodes: std::collections::BTreeSet<_> = places.iter().map(|(node, _)| node).collect();
    assert_eq!(nodes.len(), 4);
    let few = placement::places(&catalogue, 5, 1 << 30, &|_| true);
    assert_eq!(few, Err(Rejected::TooFewNodes { have: 4, wanted: 5 }));
    let dead = |disk: &Disk| disk.node != node_id(2);
    let places = placement::places(&catalogue, 1, 1 << 30, &dead).unwrap();
    assert_eq!(places, [(node_id(4), disk_id(4))]);
    let members = placement::choose(&catalogue, 3, 1 << 30).unwrap();
    catalogue.apply(&create("placed", 7, members)).unwrap();
}

#[test]
fn placement_spreads_over_zones_before_it_looks_at_room() {
    let mut catalogue = sample();
    for (n, zone) in [(1, "a"), (2, "b"), (3, "b"), (4, "b")] {
        let zoned = Node { zone: zone.to_owned(), ..node(n) };
        catalogue.apply(&Command::PutNode(zoned)).unwrap();
    }
    let nodes = placed(&catalogue, 2);
    assert!(nodes.contains(&node_id(1)), "{nodes:?}: the only one of zone a");
    assert_eq!(nodes[0], node_id(4), "most room first");
}

#[test]
fn a_disk_that_is_too_small_is_the_last_choice() {
    let mut catalogue = sample();
    for n in 1..=3 {
        let small = Disk { capacity_bytes: 1 << 20, ..disk(n) };
        catalogue.apply(&Command::PutDisk(small)).unwrap();
    }
    assert_eq!(placed(&catalogue, 1), [node_id(4)]);
    assert_eq!(placed(&catalogue, 4).len(), 4);
}
