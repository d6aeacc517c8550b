//! Whole clusters: the shipping engine cores, replica hosts with their logs and
//! stores, servers and leases of every node, and the shipping catalogue, on
//! simulated disks, clocks and a simulated network, under everything that
//! operators and bad luck do to them.
//!
//! One queue of events moves all of it. A node's *process* takes turns as the
//! shard's driver does: what has arrived goes in, then hosts and engines decide until
//! nothing moves, then what they want goes to the disk and the network. While it is
//! paused it takes no turns, and what arrives waits. When it is killed all of it is
//! gone but the disk; when its power is cut, a part of the disk too.
//!
//! The files, in the order of a request's way: `client` asks and notes what it saw,
//! `talk` puts that into NBD's bytes;
//! `turn` and `input` are a process's turn; `frontend` serves NBD to clients; `seat` drives
//! the engine of a volume, which `desk` makes a block device;
//! `outward` and `inward` are the connections that a node makes and takes; `reconcile` does
//! what the catalogue says. `blow` is what can go wrong, `plan` what will in this run;
//! `storm`, `weather` and `harm` (disks) are how it does, `operate` carries that out,
//! `coded` puts messages into
//! bytes and back; `watch` holds everything against the invariants, `calm` is the end.

mod blow;
mod calm;
mod client;
mod coded;
mod desk;
mod forget;
mod frontend;
mod harm;
mod input;
mod inward;
mod machine;
mod operate;
mod outward;
mod packet;
mod plan;
mod reconcile;
mod rejoin;
mod seat;
mod shape;
mod storm;
mod talk;
mod turn;
mod watch;
mod weather;
mod words;

use crate::{
    counts::Counts,
    history::History,
    invariants::Violation,
    metadata::{Metadata, QuestionId},
    model::{Lineage, WriteId},
    net::Network,
    plan::{Plan, Trim},
    sched::Schedule,
    trace::Trace,
};
use client::Client;
use holdfast_io::BufPool;
use holdfast_types::{ReplicaId, VolumeId};
use machine::Machine;
use packet::Packet;
use plan::Planned;
use shape::Shape;
use std::{collections::BTreeMap, time::Instant};
use storm::Desert;
use watch::Held;
use weather::Outage;

/// What every process's buffers come from: more than all that can be under way.
const POOL_BYTES: usize = 64 << 20;

/// What happens at some moment, besides what arrives and what disks end.
#[derive(Clone, Debug)]
enum What {
    /// A process takes a turn, unless another one was arranged since.
    Turn(usize, u64),
    /// A paused process goes on.
    Resume(usize, u64),
    /// A node that is down starts.
    Start(usize, u64),
    /// A question reaches the metadata group.
    Ask(Question),
    /// Its answer reaches the process that asked.
    Answer(usize, u64, QuestionId, crate::metadata::Answer),
    /// A node learns of the catalogue.
    View(usize),
    /// A client does something.
    Client(usize, u64),
    /// Something goes wrong.
    Blow(Planned),
    /// What a blow has waited for has come.
    Aimed { node: usize, life: u64, seed: u64 },
    /// A node whose engine hears late is heard by nobody any more.
    Desert(Desert),
    /// Those who owe an old engine its lease restart.
    Forget(Desert),
    /// All lose power, one of them a part of its log; this one had lagged.
    Damage { lagging: usize, seed: u64 },
    /// A direction or a node's whole network works again.
    Mend(u64),
    /// The metadata group has its quorum again.
    Return,
    /// A node whose disk has failed is restarted.
    Restart { node: usize, life: u64, seed: u64 },
}

/// A question on its way to the metadata group.
#[derive(Clone, Debug)]
struct Question {
    node: usize,
    life: u64,
    id: QuestionId,
    command: holdfast_meta::Command,
}

/// A volume, as the simulation knows it.
struct VolumeFacts {
    id: VolumeId,
    lineage: Lineage,
    /// The node that was given each epoch.
    granted: BTreeMap<holdfast_types::Epoch, usize>,
    /// The highest epoch under which something was committed.
    ruling: holdfast_types::Epoch,
    clients: History,
    /// Acknowledged writes: each must be committed.
    acked: u64,
    /// Highest size that an operator asked for, in blocks.
    blocks: u64,
    /// What each replica has said, by node.
    held: BTreeMap<usize, Held>,
    replicas: BTreeMap<usize, ReplicaId>,
    /// Where it was attached last.
    home: usize,
}

/// A cluster and everything around it.
pub struct World {
    shape: Shape,
    sched: Schedule<What>,
    net: Network<Packet>,
    machines: Vec<Machine>,
    metadata: Metadata,
    questions: u64,
    volumes: Vec<VolumeFacts>,
    clients: Vec<Client>,
    /// Names moments of the clients' histories.
    moment: u64,
    last_write: u64,
    base: Instant,
    pool: BufPool,
    /// Messages pass as bytes.
    codec: Option<coded::Codec>,
    /// What did not pass.
    garbled: Option<Violation>,
    trace: Trace,
    storming: bool,
    mends: u64,
    outages: BTreeMap<u64, Outage>,
    /// Turns in all: bounds a run that never ends.
    turns: u64,
    /// What happened.
    pub counts: Counts,
}

/// What a seed's run is made of: blows.
#[must_use]
pub fn plan(seed: u64, trim: &Trim) -> Plan {
    let shape = Shape::of(seed, trim);
    let text = |planned: &Planned| {
        (planned.number, format!("{:?} at {} ms", planned.blow, planned.at_ns / shape::MS))
    };
    Plan {
        steps: plan::draw(seed, &shape, trim).iter().map(text).collect(),
        until: shape.storm_ns / shape::MS,
        volumes: shape.volumes,
        clients: shape.clients,
    }
}

/// Runs one seed, but for what `trim` leaves out.
pub fn run_seed(seed: u64, trim: &Trim, trace: Trace) -> (Counts, Result<(), Violation>) {
    let mut world = match World::new(seed, trim, trace) {
        Ok(world) => world,
        Err(violation) => return (Counts::default(), Err(violation)),
    };
    let result = world.live();
    (world.totals(), result)
}

impl World {
    fn now_ns(&self) -> u64 {
        self.sched.now_ns()
    }

    fn next_write(&mut self) -> WriteId {
        self.last_write += 1;
        WriteId(self.last_write)
    }

    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn volume_of(&self, id: VolumeId) -> Option<usize> {
        self.volumes.iter().position(|volume| volume.id == id)
    }
}
