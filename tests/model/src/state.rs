//! The state of the model: replicas, engines, the catalogue, and what only the checker knows.
//!
//! All that concerns one replica lies in its [`Replica`], also what each engine thinks of it. So
//! the state with its replicas sorted stands for all its permutations.

use crate::log::{LOG_MAX, Log};
use crate::property::Invariant;

/// Replicas of the volume.
pub const REPLICAS: usize = 3;
/// Nodes that engines run on.
pub const NODES: usize = 2;
/// Engines at most, over all epochs.
pub const ENGINES_MAX: usize = 4;

/// Where an engine stands with a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Has not asked it, or must ask again.
    #[default]
    None,
    /// The replica has promised; the engine has not heard.
    Fenced,
    /// The engine has the promise, and knows that the log may have lost something.
    Doubted,
    /// The engine has the promise.
    Promised,
    /// The replica's log is the beginning of the engine's and takes appends.
    Streaming,
}

/// What an engine knows of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// Where it stands.
    pub link: Link,
    /// The replica holds the engine's log durably up to here.
    pub matched: u8,
    /// Member of the set in force, as the engine knows it.
    pub current: bool,
    /// Member of the set that the engine has proposed.
    pub next: bool,
}

/// To whom a replica has promised last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// To nobody yet.
    #[default]
    Nobody,
    /// It was before the replica's process started.
    Unknown,
    /// To the engine of this node.
    Node(u8),
}

/// The leases between a replica and a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// Ticks that the node counts on it for.
    pub held: u8,
    /// Ticks that the replica owes it for.
    pub granted: u8,
    /// Ticks that an engine of another node has to wait for it.
    pub debt: u8,
    /// The node has yet to hear that it was fenced off.
    pub fenced: bool,
    /// A grant is on its way: age in ticks, and whether it lists the volume as fenced.
    pub grant: Option<(u8, bool)>,
}

/// What is known of a replica's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It holds all that was acknowledged.
    #[default]
    Whole,
    /// It lost some of that, and perhaps its promise. The replica answers nobody.
    Suspect,
    /// It has a promise again that is not below any it made.
    Floored,
    /// It has been emptied as a learner, and counts as any other. What it once
    /// acknowledged it need not hold.
    Reset,
}

/// A replica, and what each engine and node knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    /// The node with an engine whose process it lives in.
    pub home: Option<u8>,
    /// Member of the set in force.
    pub member: bool,
    /// Its log.
    pub log: Log,
    /// On disk up to here.
    pub durable: u8,
    /// In map and data up to here.
    pub applied: u8,
    /// Hears no engine of a lower epoch.
    pub promised: u8,
    /// The promise on disk.
    pub promised_on_disk: u8,
    /// To whom.
    pub to: To,
    /// Ticks that it owes to everyone since its start.
    pub owes_all: u8,
    /// What is known of its log.
    pub health: Health,
    /// The highest epoch whose engine has asked for its promise since its log was damaged.
    pub heard: u8,
    /// Leases, by node.
    pub leases: [Lease; NODES],
    /// What engines know of it.
    pub views: [View; ENGINES_MAX],
}

/// Where an engine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not there, or not there any more.
    #[default]
    Gone,
    /// Collects promises.
    Fencing,
    /// Brings the other logs in line with the best.
    Recovering,
    /// Has written the first record of its epoch.
    Started,
}

/// A change of the set that an engine has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// None.
    #[default]
    None,
    /// Not decided yet.
    Proposed,
    /// The set is changed; the engine has not heard.
    Accepted,
    /// The set stays; the engine has not heard.
    Refused,
}

/// An engine. One that crashed is one that does nothing any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Engine {
    /// Where it stands.
    pub phase: Phase,
    /// Where it runs.
    pub node: u8,
    /// Its epoch.
    pub epoch: u8,
    /// Its log: while it collects promises, the best so far.
    pub log: Log,
    /// Last record that it took over.
    pub base: u8,
    /// Committed up to here, as it knows.
    pub commit: u8,
    /// Ticks that it must not serve for.
    pub wait: u8,
    /// The generation of its set.
    pub generation: u8,
    /// The change that it has asked for.
    pub change: Change,
    /// End of its log when a quorum had promised a higher epoch.
    pub fenced_at: Option<u8>,
}

impl Engine {
    /// Whether it is there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.phase != Phase::Gone
    }
}

/// The state as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Sorted.
    pub replicas: [Replica; REPLICAS],
    /// In the order that they came.
    pub engines: [Engine; ENGINES_MAX],
    /// The catalogue: the last epoch granted.
    pub epoch: u8,
    /// The catalogue: the generation of the set in force.
    pub generation: u8,
    /// Engines so far.
    pub granted: u8,
    /// Writes so far.
    pub writes: u8,
    /// Restarts so far.
    pub crashes: u8,
    /// Damaged logs so far.
    pub damages: u8,
    /// Changes proposed so far.
    pub changes: u8,
    /// For the checker: all that some engine has found committed.
    pub committed: Log,
    /// For the checker: the epoch of the engine that found it first.
    pub committed_by: [u8; LOG_MAX as usize],
    /// For the checker: newest write that a client was told of, by an ack or by a read.
    pub seen: u8,
    /// For the checker: the invariant that the last action broke.
    pub broken: Option<Invariant>,
}

impl State {
    /// A volume that nothing has happened to.
    #[must_use]
    pub fn new(replicas: [Replica; REPLICAS]) -> Self {
        Self {
            replicas,
            engines: [Engine::default(); ENGINES_MAX],
            epoch: 0,
            generation: 0,
            granted: 0,
            writes: 0,
            crashes: 0,
            damages: 0,
            changes: 0,
            committed: Log::default(),
            committed_by: [0; LOG_MAX as usize],
            seen: 0,
            broken: None,
        }
    }

    /// Whether a quorum of the set in force is among those that pass `test`.
    pub fn is_quorum(&self, test: impl Fn(&Replica) -> bool) -> bool {
        majority(&self.replicas, |replica| replica.member, test)
    }

    /// Engines that are there, with their places.
    pub fn alive(&self) -> impl Iterator<Item = (usize, &Engine)> {
        self.engines.iter().enumerate().filter(|(_, engine)| engine.is_alive())
    }

    /// The engine that runs on `node`.
    #[must_use]
    pub fn engine_of(&self, node: u8) -> Option<usize> {
        self.alive().find(|(_, engine)| engine.node == node).map(|(at, _)| at)
    }

    /// The engine is no more, and nobody hears of it again: what it had sent arrived before.
    pub fn end(&mut self, engine: usize) {
        let node = self.engines[engine].node as usize;
        self.engines[engine] = Engine::default();
        for replica in &mut self.replicas {
            replica.views[engine] = View::default();
            replica.leases[node].held = 0;
            replica.leases[node].grant = None;
        }
    }

    /// Notes which engines have been fenced off by a quorum of the set in force by now.
    pub fn note_fenced(&mut self) {
        for at in 0..ENGINES_MAX {
            let engine = self.engines[at];
            if !engine.is_alive() || engine.fenced_at.is_some() {
                continue;
            }
            let told = |replica: &Replica| {
                let heard =
                    |(other, _): &(usize, &Engine)| replica.views[*other].link >= Link::Doubted;
                let newer = self.alive().filter(|(_, other)| other.epoch > engine.epoch);
                replica.promised_on_disk > engine.epoch || newer.into_iter().any(|o| heard(&o))
            };
            if self.is_quorum(told) {
                self.engines[at].fenced_at = Some(engine.log.len());
            }
        }
    }
}

/// Whether most of those in the set pass `test`.
pub(crate) fn majority<'a>(
    replicas: impl IntoIterator<Item = &'a Replica>,
    set: impl Fn(&Replica) -> bool,
    test: impl Fn(&Replica) -> bool,
) -> bool {
    let (mut size, mut have) = (0, 0);
    for replica in replicas.into_iter().filter(|replica| set(replica)) {
        size += 1;
        have += u8::from(test(replica));
    }
    2 * have > size
}
