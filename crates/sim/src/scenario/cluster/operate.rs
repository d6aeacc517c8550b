//! Machines and what happens to them: starts, pauses, kills, power cuts.

use super::{
    What, World,
    client::LOOSE_BLOCKS_FROM,
    harm::OPEN_AGAIN_NS,
    machine::{Input, Machine, MachineState, Process},
    plan,
    shape::{MS, Shape},
    watch::Held,
};
use crate::{
    clock::SimClock,
    disk::{Faults, SimDisk},
    history::History,
    invariants::{Violation, i5_nothing_acknowledged_is_lost},
    metadata::{Metadata, QuestionId},
    model::{Lineage, SECTOR_BYTES},
    net::{Arrival, Network, Weather},
    plan::Trim,
    rng::SimRng,
    scenario::observe::is_torn,
    sched::Schedule,
    trace::Trace,
};
use holdfast_io::BufPool;
use holdfast_meta::{Command, Disk as MetaDisk, Member, Node};
use holdfast_replica::{Host, Server, inspect::read_log};
use holdfast_types::{
    BLOCK_BYTES, ClusterId, DiskId, Epoch, HistoryId, NodeId, ReplicaId, VolumeId,
};
use std::{collections::BTreeMap, rc::Rc, time::Instant};

/// Other ends learn of a dead process within this time, of a dead machine within that.
const KILL_TOLD_NS: u64 = 2 * MS;
const CUT_TOLD_NS: u64 = 3000 * MS;
/// Bits of a frame's fixed header, each of which is checked.
const HEADER_BITS: u64 = 8 * 64;

/// How long a node is down that lost power while it started.
const DOWN_AGAIN_NS: std::ops::Range<u64> = 20 * MS..1000 * MS;

/// Volumes with logical blocks of a sector, among a hundred.
const SECTORS_PERCENT: u32 = 40;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kill,
    Cut,
}

impl World {
    /// A cluster that has just been put together: empty disks, a catalogue that names them.
    pub(super) fn new(seed: u64, trim: &Trim, trace: Trace) -> Result<Self, Violation> {
        let shape = Shape::of(seed, trim);
        let plan = plan::draw(seed, &shape, trim);
        let mut machines = Vec::new();
        for node in 0..shape.nodes {
            let mut rng = SimRng::nth(seed, "machine", node);
            let mut disk = SimDisk::new(rng.bits(), shape.disk, trace.of_node(node));
            disk.set_taken(shape.taken_bytes());
            if let Err(error) = Host::format(&mut disk, &shape.format) {
                return Err(i5_nothing_acknowledged_is_lost::check_opens(&error));
            }
            machines.push(Machine {
                id: NodeId::from_u128(u128::from(rng.bits()) << 64 | 1),
                disk_id: DiskId::from_u128(u128::from(rng.bits()) << 64 | 2),
                disk,
                clock: SimClock::draw(&mut rng, 0),
                state: MachineState::Down,
                life: 0,
                process: None,
                rng,
                aim: None,
                cut_opening: None,
                io_errors: 0,
                damaged: false,
                harmed: false,
                flip: None,
            });
        }
        let places = shape.nodes + shape.clients;
        let pool = BufPool::new(super::POOL_BYTES);
        let mut world = Self {
            sched: Schedule::default(),
            net: Network::new(seed, places),
            machines,
            metadata: Metadata::default(),
            questions: 0,
            volumes: Vec::new(),
            clients: Vec::new(),
            moment: 0,
            last_write: 0,
            base: Instant::now(),
            codec: shape.coded.then(|| super::coded::Codec::new(&pool, SimRng::of(seed, "coded"))),
            garbled: None,
            pool,
            trace,
            storming: true,
            mends: 0,
            outages: BTreeMap::new(),
            turns: 0,
            counts: crate::counts::Counts::default(),
            shape,
        };
        world.found(seed);
        for node in 0..world.machines.len() {
            world.start(node)?;
        }
        world.make_clients(seed);
        world.brew(plan);
        Ok(world)
    }

    /// An operator's command, which the group carries out at once.
    pub(super) fn command(&mut self, command: &Command) -> bool {
        self.questions += 1;
        let done = self.metadata.ask(QuestionId(self.questions), command);
        let accepted = matches!(done, Some(Ok(_)));
        self.trace
            .note(&[62, u64::from(accepted)], || format!("operator: {command:?}: {accepted}"));
        if accepted {
            self.counts.questions += 1;
            self.spread();
        }
        accepted
    }

    /// The catalogue's first entries.
    fn found(&mut self, seed: u64) {
        let cluster = ClusterId::from_u128(u128::from(SimRng::of(seed, "id").bits()));
        self.command(&Command::InitCluster { cluster });
        for node in 0..self.machines.len() {
            let (id, disk) = (self.machines[node].id, self.machines[node].disk_id);
            let at = |what: &str| format!("node{node}.{what}:1");
            self.command(&Command::PutNode(Node {
                id,
                name: format!("node{node}"),
                zone: String::new(),
                peer: at("peer"),
                api: at("api"),
                nbd: at("nbd"),
            }));
            self.command(&Command::PutDisk(MetaDisk {
                id: disk,
                node: id,
                path: "/data".to_owned(),
                capacity_bytes: 1 << 30,
            }));
        }
        for index in 0..self.shape.volumes {
            self.create_volume(index, &mut SimRng::nth(seed, "volume", index));
        }
    }

    fn create_volume(&mut self, index: usize, rng: &mut SimRng) {
        let id = VolumeId::from_u128(u128::from(rng.bits()) << 64 | 3);
        let history = HistoryId::from_u128(u128::from(rng.bits()) << 64 | 4);
        let blocks = self.shape.blocks;
        assert!(blocks > LOOSE_BLOCKS_FROM, "there are blocks to discard");
        let mut members = Vec::new();
        let mut replicas = BTreeMap::new();
        for node in 0..self.shape.replicas {
            let replica = ReplicaId::from_u128(u128::from(rng.bits()) << 64 | 5);
            let machine = &self.machines[node];
            replicas.insert(node, replica);
            members.push(Member { replica, node: machine.id, disk: machine.disk_id, ready: false });
        }
        let Ok(name) = format!("volume{index}").parse() else { unreachable!("a good name") };
        let size_bytes = blocks * BLOCK_BYTES as u64;
        let logical_block_bytes = match rng.percent(SECTORS_PERCENT) {
            true => SECTOR_BYTES as u32,
            false => BLOCK_BYTES as u32,
        };
        let created = self.command(&Command::CreateVolume {
            volume: id,
            name,
            size_bytes,
            logical_block_bytes,
            history,
            members,
            replicas: self.shape.replicas as u8,
            min_replicas: self.shape.min_replicas,
        });
        let home = rng.within(0..self.machines.len() as u64) as usize;
        let node = self.machines[home].id;
        let attached = self.command(&Command::Attach { volume: id, node, read_only: false });
        assert!(created && attached, "the first volumes are accepted");
        self.volumes.push(super::VolumeFacts {
            id,
            lineage: Lineage::new(blocks),
            granted: BTreeMap::new(),
            ruling: Epoch::ZERO,
            clients: History::default(),
            acked: 0,
            blocks,
            held: replicas.keys().map(|node| (*node, Held::default())).collect(),
            replicas,
            home,
        });
    }

    /// A process starts on a machine that is down.
    pub(super) fn start(&mut self, node: usize) -> Result<(), Violation> {
        let now_ns = self.now_ns();
        if self.machines[node].state != MachineState::Down {
            return Ok(());
        }
        self.settle_flip(node);
        let (pool, options) = (self.pool.clone(), self.shape.host.clone());
        let machine = &mut self.machines[node];
        machine.disk.advance_to(now_ns);
        let cut_opening = machine.cut_opening.take();
        if let Some((completions, _)) = cut_opening {
            machine.disk.power_off_after(completions);
        }
        let opened = Host::open(&mut machine.disk, pool, options);
        if let Some((_, seed)) = cut_opening {
            if machine.disk.is_off() {
                self.cut_while_opening(node, seed);
                return Ok(());
            }
            machine.disk.power_stays_on();
        }
        let damaged = machine.damaged || machine.harmed;
        let failing = machine.disk.faults() != Faults::NONE;
        let (host, report) = match opened {
            Ok(opened) => opened,
            Err(_) if failing => {
                machine.disk = machine.disk.killed(now_ns);
                let life = machine.life;
                self.sched.after(OPEN_AGAIN_NS, What::Start(node, life));
                return Ok(());
            }
            // Damage that no log can be read through; the node stays down.
            Err(_) if damaged => return Ok(()),
            Err(error) => return Err(i5_nothing_acknowledged_is_lost::check_opens(&error)),
        };
        let up_ns = machine.disk.now_ns();
        machine.state = MachineState::Up;
        machine.io_errors = machine.disk.counts().io_errors;
        machine.life += 1;
        self.counts.recoveries += 1;
        self.counts.records_recovered += report.records;
        self.counts.suspect_logs += u64::from(report.suspect);
        self.counts.torn_tails += u64::from(!report.suspect && is_torn(&report.end));
        self.trace.note(&[63, node as u64, report.records, u64::from(report.suspect)], || {
            format!("{node}: STARTS, {} records in the log: {}", report.records, report.end)
        });
        i5_nothing_acknowledged_is_lost::check_trusted(damaged, report.suspect, &report.end)?;
        if report.suspect {
            self.damaged(node);
        }
        if self.lacks_replica(node, &host) {
            i5_nothing_acknowledged_is_lost::check_replica(damaged, node)?;
            // Its creation was in what was damaged. It is never made again under its name.
            self.machines[node].harmed = true;
        }
        self.watch_opened(node, &host)?;
        let machine = &mut self.machines[node];
        let now_ms = machine.clock.ms(now_ns);
        let mut server = Server::new(machine.id, self.shape.lease_ms, now_ms);
        server.adopt(&host, now_ms);
        // What is known here was true once.
        let view = Rc::clone(self.metadata.catalogue());
        let process = Process::new(host, server, view, self.counts.questions, up_ns);
        machine.process = Some(Box::new(process));
        self.turn_soon(node);
        Ok(())
    }

    /// A process ends, with its machine or without.
    pub(super) fn end(&mut self, node: usize, end: End, rng: &mut SimRng) {
        let now_ns = self.now_ns();
        let seed = rng.bits();
        let machine = &mut self.machines[node];
        if machine.state == MachineState::Down {
            return;
        }
        let in_checkpoint =
            machine.process.as_ref().is_some_and(|process| process.observer.in_checkpoint());
        machine.process = None;
        machine.aim = None;
        machine.state = MachineState::Down;
        self.trace.note(&[64, node as u64, u64::from(end == End::Cut)], || {
            format!("{node}: {}", if end == End::Cut { "POWER CUT" } else { "KILLED" })
        });
        let machine = &mut self.machines[node];
        // What has ended by now has ended.
        machine.disk.advance_to(now_ns);
        machine.disk = match end {
            End::Cut => machine.disk.power_cut(seed),
            End::Kill => machine.disk.killed(seed),
        };
        if end == End::Cut {
            machine.clock = SimClock::draw(rng, now_ns);
            self.counts.cuts += 1;
            self.counts.cuts_in_checkpoint += u64::from(in_checkpoint);
        } else {
            self.counts.kills += 1;
        }
        let fate = self.machines[node].disk.counts();
        self.counts.changes_kept += fate.kept;
        self.counts.changes_lost += fate.lost;
        self.counts.changes_torn += fate.torn;
        self.settle_astray(node, seed);
        for end_at in self.net.ends_at(node) {
            let within_ns = if end == End::Cut { CUT_TOLD_NS } else { KILL_TOLD_NS };
            self.net.break_from(now_ns, end_at, within_ns);
        }
    }

    /// The power failed while a process read what an earlier one had left.
    fn cut_while_opening(&mut self, node: usize, seed: u64) {
        let now_ns = self.now_ns();
        let rng = &mut SimRng::new(seed);
        let machine = &mut self.machines[node];
        machine.disk = machine.disk.power_cut(rng.bits());
        machine.clock = SimClock::draw(rng, now_ns);
        let life = machine.life;
        self.trace.note(&[67, node as u64], || format!("{node}: POWER CUT while it starts"));
        self.counts.cuts += 1;
        self.counts.cuts_in_recovery += 1;
        self.sched.after(rng.within(DOWN_AGAIN_NS), What::Start(node, life));
    }

    /// The process takes no turns until it is resumed.
    pub(super) fn pause(&mut self, node: usize, for_ns: u64) {
        let machine = &mut self.machines[node];
        if machine.state != MachineState::Up {
            return;
        }
        machine.state = MachineState::Paused;
        if let Some(process) = &mut machine.process {
            process.turn_at_ns = None;
            process.turn += 1;
        }
        self.counts.pauses += 1;
        self.counts.pauses_beyond_lease += u64::from(for_ns > self.shape.lease_ms * MS);
        let life = machine.life;
        self.trace
            .note(&[65, node as u64, for_ns], || format!("{node}: PAUSED for {} ms", for_ns / MS));
        self.sched.after(for_ns, What::Resume(node, life));
    }

    pub(super) fn resume(&mut self, node: usize, life: u64) {
        let machine = &mut self.machines[node];
        if machine.state == MachineState::Paused && machine.life == life {
            machine.state = MachineState::Up;
            self.trace.note(&[66, node as u64], || format!("{node}: goes on"));
            self.turn_soon(node);
        }
    }

    /// Flips a bit of a frame that was durable once, in the log of a machine that is down;
    /// `first`: of the first one, so that nothing of the log can be read.
    pub(super) fn damage_log(&mut self, node: usize, first: bool, rng: &mut SimRng) {
        if self.shape.disk.device || self.machines[node].state != MachineState::Down {
            return;
        }
        let disk = &mut self.machines[node].disk;
        let Ok(log) = read_log(disk) else { return };
        let durable: Vec<u64> = log
            .frames
            .iter()
            .filter(|frame| frame.position < log.mark)
            .map(|frame| frame.offset)
            .collect();
        let Some(last) = durable.len().checked_sub(1) else { return };
        let back = rng.within(0..last as u64 + 1) as usize;
        let back = if first { last } else { back };
        let bit = rng.within(0..HEADER_BITS) as usize;
        let disk = &mut self.machines[node].disk;
        if disk.flip_bit("wal", durable[last - back] / 4096, bit).is_some() {
            self.damaged(node);
            self.counts.bit_flips += 1;
        }
    }

    /// Something has arrived at a node.
    pub(super) fn deliver(&mut self, end: crate::net::EndId) -> Result<(), Violation> {
        let Some((place, arrival)) = self.net.arrive(end) else { return Ok(()) };
        if place >= self.machines.len() {
            return self.client_receives(place, end, arrival);
        }
        match self.machines[place].state {
            MachineState::Down => {
                // Nobody listens.
                self.net.close(self.sched.now_ns(), end);
            }
            MachineState::Up | MachineState::Paused => {
                if let (Arrival::Closed, Some(process)) = (&arrival, &self.machines[place].process)
                    && let Some(frontend) = process.frontends.get(&end.conn)
                    && !end.dialled
                {
                    frontend.hang_up(end.conn);
                }
                self.hand(place, Input::Arrived(end, arrival));
            }
        }
        Ok(())
    }

    /// The network between nodes and clients, now.
    pub(super) fn weather(&mut self) -> &mut Weather {
        self.net.weather_mut()
    }
}
