//! Engines of one volume that reign one after the other, and beside each other, over the
//! same replicas, on a network that hands over what it likes when it likes.
//!
//! The shipping engine cores, servers, hosts and catalogue. There is no time but what engines
//! are told, disks end at once, and nobody reads; what is left is the order of messages,
//! and that is all chance. A message to a replica, or from it, waits until it is picked;
//! a connection may be lost with all that is on it; replicas lose power; another engine
//! begins while the old one goes on. So what takes a cluster minutes of bad luck (tails
//! that nobody shares, sets that change under a member that lags) is here in every run.
//!
//! One thing no connection does: an acknowledgement of a stream that is over is handed
//! to the engine that reigns now. Runtimes forget connections, so that the engine's own
//! check never has to help; here the first is left out, and the second has to.

mod engine;
mod network;
mod replica;

use crate::{
    counts::Counts,
    invariants::{Violation, i4_acked_means_committed, liveness},
    metadata::{Answer, Metadata, QuestionId},
    model::{Lineage, Point, WriteId},
    plan::{Plan, Trim},
    rng::SimRng,
    trace::Trace,
};
use engine::{Line, Reign};
use holdfast_io::BufPool;
use holdfast_meta::{Command, Disk as MetaDisk, Member, Node};
use holdfast_replica::PullId;
use holdfast_types::{BLOCK_BYTES, ClusterId, DiskId, Epoch, HistoryId, NodeId, VolumeId};
use holdfast_wire::Ack;
use replica::Replica;
use std::{collections::BTreeMap, time::Instant};

/// Picks of a run.
const STEPS: std::ops::Range<u64> = 600..1500;
/// Engines of a run at most, the one of the end not counted.
const REIGNS_MAX: usize = 12;
/// Rounds in which everything is handed over until the last engine must have all level.
const CALM_ROUNDS: u32 = 400;
/// Size of the volume.
const BLOCKS: u64 = 64;
/// What buffers come from.
const POOL_BYTES: usize = 8 << 20;
/// Rounds of these in which half of the truncations are lost, with their connections.
const LOSSES_ROUNDS: u32 = 12;

const VOLUME: VolumeId = VolumeId::from_u128(1);
const HISTORY: HistoryId = HistoryId::from_u128(2);

struct World {
    replicas: Vec<Replica>,
    reigns: Vec<Reign>,
    metadata: Metadata,
    questions: u64,
    /// Connections of pulls: the source, and the one that pulls.
    pulls: BTreeMap<(usize, PullId), (usize, u64)>,
    conns: u64,
    lineage: Lineage,
    ruling: Epoch,
    granted: BTreeMap<Epoch, usize>,
    /// The highest that each engine was acknowledged, by replica.
    late: Vec<BTreeMap<Epoch, Ack>>,
    /// What each replica has promised.
    promised: Vec<Epoch>,
    /// Replicas that are handed nothing for now, a bit each.
    held: u32,
    pool: BufPool,
    base: Instant,
    now_ms: u64,
    rng: SimRng,
    trace: Trace,
    writes: u64,
    counts: Counts,
}

/// What a seed's run is made of: its picks, each with chance of its own.
#[must_use]
pub fn plan(seed: u64, trim: &Trim) -> Plan {
    let picks = SimRng::of(seed, "picks").within(STEPS);
    Plan { steps: trim.steps_of(picks, "a pick"), ..Plan::default() }
}

/// Runs one seed, but for what `trim` leaves out.
pub fn run_seed(seed: u64, trim: &Trim, trace: Trace) -> (Counts, Result<(), Violation>) {
    let mut rng = SimRng::of(seed, "reigns");
    let members = if rng.percent(75) { 3 } else { 5 };
    let mut world = World {
        replicas: Vec::new(),
        reigns: Vec::new(),
        metadata: Metadata::default(),
        questions: 0,
        pulls: BTreeMap::new(),
        conns: 0,
        lineage: Lineage::new(BLOCKS),
        ruling: Epoch::ZERO,
        granted: BTreeMap::new(),
        late: vec![BTreeMap::new(); members],
        promised: vec![Epoch::ZERO; members],
        held: 0,
        pool: BufPool::new(POOL_BYTES),
        base: Instant::now(),
        now_ms: 1,
        rng,
        trace,
        writes: 0,
        counts: Counts::default(),
    };
    let result = world.run(seed, trim, members);
    (world.counts, result)
}

impl World {
    fn run(&mut self, seed: u64, trim: &Trim, members: usize) -> Result<(), Violation> {
        self.found(members)?;
        self.reign()?;
        for (number, _) in plan(seed, trim).steps {
            self.rng = SimRng::nth(seed, "pick", number);
            self.step()?;
        }
        self.rng = SimRng::of(seed, "calm");
        self.calm()
    }

    /// The catalogue's first entries, and a replica for each member.
    fn found(&mut self, count: usize) -> Result<(), Violation> {
        self.accepted(&Command::InitCluster { cluster: ClusterId::from_u128(3) });
        let mut members = Vec::new();
        for number in 0..count {
            let seed = self.rng.bits();
            let replica = Replica::new(number, seed, &self.pool, &self.trace)?;
            let name = format!("node{number}");
            let at = |what: &str| format!("{name}.{what}:1");
            let (id, disk) = (replica.node, DiskId::from_u128(0x200 + number as u128));
            self.accepted(&Command::PutNode(Node {
                id,
                zone: String::new(),
                peer: at("peer"),
                api: at("api"),
                nbd: at("nbd"),
                name,
            }));
            let (path, capacity_bytes) = ("/data".to_owned(), 1 << 30);
            self.accepted(&Command::PutDisk(MetaDisk { id: disk, node: id, path, capacity_bytes }));
            members.push(Member { replica: replica.id, node: id, disk, ready: true });
            self.replicas.push(replica);
        }
        let Ok(name) = "volume".parse() else { unreachable!("a good name") };
        self.accepted(&Command::CreateVolume {
            volume: VOLUME,
            name,
            size_bytes: BLOCKS * BLOCK_BYTES as u64,
            logical_block_bytes: 4096,
            history: HISTORY,
            members,
            replicas: count as u8,
            min_replicas: 1,
        });
        Ok(())
    }

    fn ask(&mut self, command: &Command) -> Answer {
        self.questions += 1;
        match self.metadata.ask(QuestionId(self.questions), command) {
            Some(answer) => answer,
            None => unreachable!("the group is never away here"),
        }
    }

    fn accepted(&mut self, command: &Command) {
        let answer = self.ask(command);
        assert!(answer.is_ok(), "what operators ask here is sound: {answer:?}");
    }

    /// One thing that happens.
    fn step(&mut self) -> Result<(), Violation> {
        let reign = self.any_reign();
        let member = self.rng.within(0..self.replicas.len() as u64) as usize;
        match self.rng.within(0..1000) {
            0..380 => {
                let held = self.held;
                let free = |at: usize| held & 1 << at == 0;
                let member = self.any_mail(reign, |at, line| !line.to.is_empty() && free(at));
                member.map_or(Ok(()), |member| self.hand_to_replica(reign, member))
            }
            380..760 => {
                let member = self.any_mail(reign, |_, line| !line.from.is_empty());
                member.map_or(Ok(()), |member| self.hand_to_engine(reign, member))
            }
            760..850 => self.write(reign),
            850..885 => self.connect(reign, member),
            885..898 => self.disconnect(reign, member),
            898..904 => self.lose_power(member),
            904..920 => self.time_passes(),
            920..955 => self.hand_late(reign, member),
            955..982 => self.answer_proposal(reign),
            982..991 => {
                self.held = match self.rng.within(0..10) {
                    0..2 => 0,
                    2..6 => 1 << member,
                    // All but one: what an engine sends now, nobody else has.
                    _ => ((1 << self.replicas.len()) - 1) & !(1 << member),
                };
                Ok(())
            }
            _ if self.reigns.len() < REIGNS_MAX => self.reign(),
            _ => Ok(()),
        }
    }

    /// A member whose line to an engine is as wanted.
    fn any_mail(&mut self, reign: usize, wanted: impl Fn(usize, &Line) -> bool) -> Option<usize> {
        let lines = self.reigns[reign].members.iter().enumerate();
        let fit: Vec<usize> =
            lines.filter(|(at, line)| wanted(*at, line)).map(|(member, _)| member).collect();
        match fit.len() as u64 {
            0 => None,
            count => Some(fit[self.rng.within(0..count) as usize]),
        }
    }

    /// The newest engine as a rule, else one that may not know yet that it is over.
    fn any_reign(&mut self) -> usize {
        let newest = self.reigns.len() - 1;
        match self.rng.percent(80) {
            true => newest,
            false => self.rng.within(0..newest as u64 + 1) as usize,
        }
    }

    /// A member acknowledged this write's records, says the engine: a quorum holds them.
    fn check_reply(&self, id: WriteId) -> Result<(), Violation> {
        let record = self.lineage.record_of(id).unwrap_or_default();
        let Some(truth) = self.metadata.catalogue().volume(VOLUME) else {
            unreachable!("the volume is never deleted")
        };
        let nodes = truth.set.members.iter();
        let members: Vec<usize> = nodes
            .filter_map(|member| self.replicas.iter().position(|r| r.node == member.node))
            .collect();
        let holds = |at: &usize| self.lineage.holds(self.replicas[*at].durable(), record);
        let holders: Vec<usize> = members.iter().copied().filter(holds).collect();
        i4_acked_means_committed::check_acked(VOLUME, &self.lineage, id, &holders, &members)
    }

    /// A last engine, and nothing goes wrong any more: in the end everybody has everything.
    fn calm(&mut self) -> Result<(), Violation> {
        self.reign()?;
        let last = self.reigns.len() - 1;
        for round in 0..CALM_ROUNDS {
            self.time_passes()?;
            self.answer_proposal(last)?;
            for member in 0..self.replicas.len() {
                self.connect(last, member)?;
                if round < LOSSES_ROUNDS && self.rng.percent(50) {
                    self.lose_truncation(last, member)?;
                }
                while self.reigns[last].members[member].has_mail() {
                    self.hand_to_replica(last, member)?;
                    self.hand_to_engine(last, member)?;
                }
            }
            if self.is_level(last) {
                return Ok(());
            }
            if self.reigns[last].is_over() {
                return Err(liveness::overdue("the last engine has stopped"));
            }
        }
        Err(liveness::overdue(&self.what_is_missing(last)))
    }

    fn is_level(&self, last: usize) -> bool {
        let committed = self.lineage.committed();
        let whole = self
            .metadata
            .catalogue()
            .volume(VOLUME)
            .is_some_and(|volume| volume.set.members.len() == self.replicas.len());
        whole
            && self.reigns[last].serves()
            && self.replicas.iter().all(|replica| replica.durable() == committed)
    }

    fn what_is_missing(&self, last: usize) -> String {
        let ends: Vec<Point> = self.replicas.iter().map(Replica::durable).collect();
        format!(
            "the last engine is {:?}, committed is {:?}, the logs end at {ends:?}",
            self.reigns[last].core.state(),
            self.lineage.committed()
        )
    }

    fn node_of_engine(number: usize) -> NodeId {
        NodeId::from_u128(0x1000 + number as u128)
    }
}
