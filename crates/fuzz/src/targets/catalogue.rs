//! The metadata group's state: commands, snapshots, messages between its members.
//!
//! Checked: two nodes with the same log say and hold the same; a refused command changes nothing; an
//! epoch is given out once and a replica set changes by one member at most; a snapshot comes back as it
//! was, and what a hostile one holds can be worked with; messages come back as they were.

use crate::{Input, Labels, Target};
use holdfast_meta::{
    Catalogue, Command, Disk, Member, Node, Outcome, Rejected, Volume, VolumeName,
    fuzzing::{Answered, Machine, answer, request},
};
use holdfast_types::{
    ClusterId, DiskId, Epoch, Generation, HistoryId, NodeId, ReplicaId, VolumeId, codec,
};

pub(super) const TARGET: Target = Target {
    name: "catalogue",
    about: "the metadata group: commands, snapshots, messages between its members",
    run,
    // What 64 KiB decode to, four of them at a time: two machines, the snapshot and its copy.
    heap_bytes_max: 8 << 20,
    seeds,
};

/// How the rest of an input is taken.
mod mode {
    /// Commands out of few ids, so that they meet.
    pub(super) const COMMANDS: u8 = 0;
    /// A snapshot's body, its header put right.
    pub(super) const SNAPSHOT: u8 = 1;
    /// A snapshot.
    pub(super) const RAW: u8 = 2;
    /// A request between members.
    pub(super) const REQUEST: u8 = 3;
    /// An answer between members.
    pub(super) const ANSWER: u8 = 4;
    /// A command as it is stored.
    pub(super) const STORED: u8 = 5;
    pub(super) const COUNT: u8 = 6;
}

/// Commands of an input at most.
const COMMANDS_MAX: usize = 400;
/// Bytes before the body of a snapshot.
const HEADER_BYTES: usize = 20;
/// Of an entry behind a snapshot.
const INDEX: u64 = 1 << 40;
/// Entries between a proposal and its repetition, at most: more than answers are kept for.
const LATE_MAX: u64 = 1100;

fn run(input: &[u8], labels: &mut Labels) {
    let mut input = Input::new(input);
    match input.u8() % mode::COUNT {
        mode::COMMANDS => commands(&mut input, Machine::default(), labels),
        mode::SNAPSHOT => snapshot(&with_header(input.rest()), labels),
        mode::RAW => snapshot(input.rest(), labels),
        mode::REQUEST => {
            let message = versioned(input.rest());
            match request(&message) {
                Ok((name, bytes)) => {
                    labels.see(format_args!("request: {name}"));
                    assert_eq!(request(&bytes), Ok((name, bytes.clone())), "it comes back");
                }
                Err(_) => labels.see(format_args!("request: refused")),
            }
        }
        mode::ANSWER => {
            let message = versioned(input.rest());
            match answer(&message) {
                Ok(bytes) => {
                    labels.see(format_args!("answer: taken"));
                    assert_eq!(answer(&bytes), Ok(bytes.clone()), "it comes back");
                }
                Err(_) => labels.see(format_args!("answer: refused")),
            }
        }
        mode::STORED => stored(input.rest(), labels),
        _ => unreachable!("there is no more"),
    }
}

/// The message behind the version that is understood.
fn versioned(body: &[u8]) -> Vec<u8> {
    let mut message = vec![1];
    message.extend_from_slice(body);
    message
}

fn with_header(body: &[u8]) -> Vec<u8> {
    let mut snapshot = b"HFcatlg\0".to_vec();
    snapshot.extend(2u32.to_le_bytes());
    snapshot.extend((body.len() as u32).to_le_bytes());
    snapshot.extend(crc32fast::hash(body).to_le_bytes());
    snapshot.extend_from_slice(body);
    snapshot
}

fn snapshot(bytes: &[u8], labels: &mut Labels) {
    let machine = match Machine::load(bytes) {
        Ok(machine) => machine,
        Err(why) => {
            let why = why.split([':', ';']).next().unwrap_or_default();
            return labels.see(format_args!("snapshot: {why}"));
        }
    };
    labels.see(format_args!("snapshot: taken"));
    let again = machine.snapshot();
    let back = Machine::load(&again).map(|machine| machine.snapshot());
    assert!(back.as_ref() == Ok(&again), "a snapshot comes back");
    // What it holds is worked with: every command, with the ids that it knows.
    let known = Known::of(machine.catalogue());
    let mut machine = machine;
    for kind in 0..KINDS {
        let front = [kind, 0, 0, 0, 0, 0, 0, 0];
        let command = command(&mut Input::new(&front), &known);
        machine.apply(INDEX + u64::from(kind), (1 << 100) + u128::from(kind), INDEX, command);
    }
    let _ = machine.snapshot();
}

fn stored(bytes: &[u8], labels: &mut Labels) {
    let Ok(command) = codec::decode::<Command, { 1 << 20 }>(bytes) else {
        return labels.see(format_args!("command: refused"));
    };
    labels.see(format_args!("command: taken"));
    let again = codec::encode(&command);
    assert_eq!(codec::decode::<Command, { 1 << 20 }>(&again).as_ref(), Ok(&command));
    let mut catalogue = Catalogue::default();
    let (first, held) = (catalogue.apply(&command), catalogue.clone());
    if first.is_err() {
        assert_eq!(held, Catalogue::default(), "a refused command changes nothing");
    }
}

/// Ids to make commands of.
struct Known {
    nodes: Vec<NodeId>,
    disks: Vec<(DiskId, NodeId)>,
    volumes: Vec<VolumeId>,
    replicas: Vec<ReplicaId>,
}

impl Known {
    fn few() -> Self {
        let nodes: Vec<NodeId> = (1..6).map(NodeId::from_u128).collect();
        Self {
            disks: (1..9).map(|n| (DiskId::from_u128(n), nodes[n as usize % 5])).collect(),
            volumes: (1..5).map(VolumeId::from_u128).collect(),
            replicas: (1..13).map(ReplicaId::from_u128).collect(),
            nodes,
        }
    }

    /// Those of a catalogue, and one that it does not know.
    fn of(catalogue: &Catalogue) -> Self {
        let mut known = Self::few();
        let front = |known: usize| known.min(4);
        let nodes: Vec<NodeId> = catalogue.nodes().map(|node| node.id).take(front(4)).collect();
        let disks = catalogue.disks().map(|disk| (disk.id, disk.node)).take(front(4));
        let volumes = catalogue.volumes().map(|volume| volume.id).take(front(4));
        let sets = catalogue.volumes().flat_map(|volume| volume.set.all());
        let replicas = sets.map(|member| member.replica).take(front(4));
        known.disks.splice(0..0, disks);
        known.volumes.splice(0..0, volumes);
        known.replicas.splice(0..0, replicas);
        known.nodes.splice(0..0, nodes);
        known
    }
}

/// Kinds of commands that are made.
const KINDS: u8 = 14;

fn node(input: &mut Input<'_>, known: &Known) -> Node {
    let id = input.pick(&known.nodes);
    let number = input.u8();
    let text = |front: &str| format!("{front}{}", number % 8);
    Node {
        id,
        name: if number == 255 { "a b".to_owned() } else { text("node") },
        zone: if number > 200 { "z".repeat(usize::from(number) + 10) } else { text("z") },
        peer: text("h:"),
        api: String::new(),
        nbd: text("n:"),
    }
}

fn command(input: &mut Input<'_>, known: &Known) -> Command {
    let kind = input.u8() % KINDS;
    let volume = input.pick(&known.volumes);
    match kind {
        0 => Command::InitCluster { cluster: ClusterId::from_u128(u128::from(input.u8() % 2)) },
        1 => Command::PutNode(node(input, known)),
        2 => Command::RemoveNode { node: input.pick(&known.nodes), force: input.u8() % 2 == 1 },
        3 => {
            let (id, of) = input.pick(&known.disks);
            let of = if input.u8() == 255 { input.pick(&known.nodes) } else { of };
            Command::PutDisk(Disk {
                id,
                node: of,
                path: "p".repeat(usize::from(input.u8()) * 20),
                capacity_bytes: input.u64(),
            })
        }
        4 => Command::RemoveDisk { disk: input.pick(&known.disks).0 },
        5 => {
            let count = 1 + input.below(4);
            let first = input.u8();
            let member = |number: u8| {
                let (disk, node) = known.disks[usize::from(number) % known.disks.len()];
                let replica = known.replicas[usize::from(number) % known.replicas.len()];
                Member { replica, node, disk, ready: number.is_multiple_of(3) }
            };
            let odd = input.u8();
            let name = format!("v{}", odd % 3);
            let Ok(name) = name.parse::<VolumeName>() else { unreachable!("it is a name") };
            Command::CreateVolume {
                volume,
                name,
                size_bytes: if odd > 250 { input.u64() } else { 4096 * u64::from(odd) },
                logical_block_bytes: if odd == 249 { 7 } else { 512 },
                history: HistoryId::from_u128(9),
                members: (0..count as u8).map(|at| member(first.wrapping_add(at))).collect(),
                replicas: if odd == 248 { 9 } else { count as u8 },
                min_replicas: if odd == 247 { 9 } else { 1 },
            }
        }
        6 => Command::DeleteVolume { volume },
        7 => Command::ReplicaReady { volume, replica: input.pick(&known.replicas) },
        8 => Command::ReplicaGone { volume, replica: input.pick(&known.replicas) },
        9 => {
            let node = input.pick(&known.nodes);
            Command::Attach { volume, node, read_only: input.u8() % 2 == 1 }
        }
        10 => Command::Detach { volume },
        11 => Command::GrantEpoch {
            volume,
            node: input.pick(&known.nodes),
            expected: Epoch::new(input.u8().into()),
        },
        12 => {
            let (epoch, generation) = (input.u8(), input.u8());
            let bits = input.u16();
            let chosen = known.replicas.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            Command::ChangeSet {
                volume,
                epoch: Epoch::new(epoch.into()),
                generation: Generation::new(generation.into()),
                members: chosen.map(|(_, replica)| *replica).collect(),
            }
        }
        _ => Command::Resize { volume, size_bytes: u64::from(input.u8()) * 2048 },
    }
}

/// A log of proposals, some of them repeated, on two nodes; the second starts over from a
/// snapshot now and then.
fn commands(input: &mut Input<'_>, mut first: Machine, labels: &mut Labels) {
    let known = Known::few();
    let mut second = first.clone();
    let (mut index, mut number) = (0u64, 0u128);
    let mut last: Option<(u128, u64, Command)> = None;
    for _ in 0..COMMANDS_MAX {
        if input.is_empty() {
            break;
        }
        index += 1;
        let how = input.u8();
        let repeated = last.clone().filter(|_| how % 16 == 1);
        if repeated.is_some() && how > 200 {
            index += u64::from(input.u16()) % LATE_MAX;
        }
        let (request, since, command) = repeated.clone().unwrap_or_else(|| {
            number += 1;
            (number, index - 1, command(input, &known))
        });
        let before = first.catalogue().clone();
        let said = first.apply(index, request, since, command.clone());
        assert_eq!(said, second.apply(index, request, since, command.clone()), "nodes differ");
        assert!(first.catalogue() == second.catalogue(), "nodes hold different catalogues");
        match &said {
            Answered::Done(result) => {
                see(&command, result, labels);
                // The answer of a repetition is old.
                if repeated.is_none() || result.is_err() {
                    judge(&before, &command, result, first.catalogue());
                }
            }
            Answered::Expired => labels.see(format_args!("expired")),
        }
        if repeated.is_some() {
            assert!(before == *first.catalogue(), "a repetition changed something");
        }
        if how % 16 == 2 {
            let snapshot = second.snapshot();
            assert_eq!(snapshot, first.snapshot(), "snapshots differ");
            match Machine::load(&snapshot) {
                Ok(machine) => second = machine,
                Err(why) => panic!("its own snapshot is refused: {why}"),
            }
        }
        last = Some((request, since, command));
    }
}

/// What one command may change.
fn judge(
    before: &Catalogue,
    command: &Command,
    result: &Result<Outcome, Rejected>,
    after: &Catalogue,
) {
    if result.is_err() {
        assert!(before == after, "a refused command changed something");
    }
    for new in after.volumes() {
        let Some(old) = before.volume(new.id) else { continue };
        let granted = matches!(command, Command::GrantEpoch { volume, .. } if *volume == new.id);
        let granted = granted && result.is_ok();
        assert_eq!(new.epoch.get(), old.epoch.get() + u64::from(granted), "epochs, one by one");
        assert!(new.size_bytes >= old.size_bytes, "a volume shrank");
        one_member(old, new);
    }
}

/// Any majority of the old members meets any of the new ones.
fn one_member(old: &Volume, new: &Volume) {
    if old.phase != holdfast_meta::Phase::Active || new.phase != old.phase {
        return;
    }
    let ids = |volume: &Volume| volume.set.members.iter().map(|m| m.replica).collect::<Vec<_>>();
    let (old_ids, new_ids) = (ids(old), ids(new));
    let gone = old_ids.iter().filter(|id| !new_ids.contains(id)).count();
    let came = new_ids.iter().filter(|id| !old_ids.contains(id)).count();
    assert!(gone + came <= 1, "a set changed by {gone} and {came} members");
    let step = new.set.generation.get() - old.set.generation.get();
    assert!(step <= 1 && (step == 1 || gone + came == 0), "a change without a generation");
    let mut unique = new_ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), new_ids.len(), "a member twice");
    assert!(!new_ids.is_empty(), "a set of none");
}

fn see(command: &Command, result: &Result<Outcome, Rejected>, labels: &mut Labels) {
    let name = |debug: String| debug.split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    let asked = name(format!("{command:?}"));
    match result {
        Ok(_) => labels.see(format_args!("{asked}: done")),
        Err(rejected) => labels.see(format_args!("{asked}: {}", name(format!("{rejected:?}")))),
    }
}

/// A life of a cluster, its snapshot, and the beginnings of messages.
fn seeds() -> Vec<Vec<u8>> {
    let mut life = vec![mode::COMMANDS];
    let mut step = |bytes: &[u8]| {
        life.push(if life.len() % 5 == 0 { 2 } else { 0 });
        life.extend_from_slice(bytes);
    };
    step(&[0, 0, 0]);
    for node in 0..5 {
        step(&[1, 0, node, node]);
    }
    for disk in 0..8 {
        step(&[3, 0, disk, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
    step(&[5, 0, 2, 0, 10]);
    step(&[5, 1, 1, 3, 11]);
    step(&[5, 1, 1, 3, 247]);
    for replica in 0..6 {
        step(&[7, 0, replica]);
        step(&[7, 1, replica]);
    }
    step(&[9, 0, 1, 0]);
    step(&[11, 0, 1, 0]);
    step(&[11, 0, 1, 0]);
    step(&[12, 0, 1, 1, 3, 0]);
    step(&[12, 0, 1, 2, 7, 0]);
    step(&[13, 0, 30]);
    step(&[13, 0, 1]);
    step(&[2, 0, 1, 0]);
    step(&[4, 0, 1]);
    step(&[6, 1]);
    step(&[6, 0]);
    step(&[10, 0]);
    step(&[6, 0]);
    for replica in 0..8 {
        step(&[8, 0, replica]);
    }
    step(&[2, 0, 1, 1]);
    step(&[1, 0, 1, 1]);
    let mut seeds = vec![life, vec![mode::COMMANDS, 0, 0, 0, 0, 1, 255, 0, 0, 0, 1, 241, 255, 4]];

    let mut machine = Machine::default();
    let known = Known::few();
    let mut index = 0;
    for front in [[0u8, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 1], [3, 0, 0, 0], [3, 0, 1, 0]] {
        index += 1;
        machine.apply(index, u128::from(index), 0, command(&mut Input::new(&front), &known));
    }
    let bytes = machine.snapshot();
    let mut body = vec![mode::SNAPSHOT];
    body.extend_from_slice(&bytes[HEADER_BYTES..]);
    let mut raw = vec![mode::RAW];
    raw.extend_from_slice(&bytes);
    for at in [0, 8, 12, 16, raw.len() - 2] {
        let mut damaged = raw.clone();
        damaged[1 + at] ^= 1;
        seeds.push(damaged);
    }
    let mut older = raw.clone();
    older[9] = 1;
    seeds.extend([body, raw, older]);
    for kind in 0..KINDS {
        let command = command(&mut Input::new(&[kind]), &known);
        let mut seed = vec![mode::STORED];
        seed.extend(codec::encode(&command));
        seeds.push(seed);
    }
    for (line, bytes) in golden(include_str!("../../../meta/golden/messages-v1.hex")).enumerate() {
        let mut seed = vec![if line < REQUESTS { mode::REQUEST } else { mode::ANSWER }];
        // Without its version.
        seed.extend_from_slice(&bytes[1..]);
        seeds.push(seed);
    }
    let pinned: Vec<u8> =
        golden(include_str!("../../../meta/golden/catalogue-v2.hex")).flatten().collect();
    let mut seed = vec![mode::SNAPSHOT];
    seed.extend_from_slice(&pinned[HEADER_BYTES..]);
    seeds.push(seed);
    seeds
}

/// Of the pinned messages, the first are requests.
const REQUESTS: usize = 9;

/// The lines of a pinned file, as bytes.
fn golden(hex: &str) -> impl Iterator<Item = Vec<u8>> {
    hex.lines().map(|line| {
        let digits = line.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).ok());
        digits.filter_map(|digits| u8::from_str_radix(digits?, 16).ok()).collect()
    })
}
