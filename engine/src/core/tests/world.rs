//! A random world: replicas, a catalogue, an engine in force and one that was replaced
//! and may not know it, networks that lose connections, clients.

use super::history::{OPEN, Register};
use super::model::Model;
use crate::core::{
    Attach, Command, Config, EngineCore, Event, Link, MemberId, MemberSet, StateName, StopReason,
};
use holdfast_block::{Context, Op, Payload, Priority, Reply, Request, SessionId};
use holdfast_io::BufPool;
use holdfast_replica::Credits;
use holdfast_types::{Epoch, Generation, HistoryId, Lsn, NodeId, VolumeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

pub(super) const BLOCKS: u64 = 40;
pub(super) const SECTOR: u64 = 512;
const SESSIONS: u64 = 3;
const DEPTH: usize = 6;
/// In steps, which are the world's milliseconds.
const SHRINK_AFTER_MS: u64 = 300;

/// A request that a client waits for.
struct Pending {
    start: u64,
    epoch: u64,
    session: u64,
    first: u64,
    sectors: u64,
    /// What it wrote, or `None` if it reads.
    value: Option<u64>,
}

/// An engine with its links and clients.
pub(super) struct Side {
    pub(super) core: EngineCore,
    pub(super) epoch: u64,
    pub(super) up: Vec<bool>,
    pub(super) to: Vec<VecDeque<Command>>,
    pub(super) from: Vec<VecDeque<Event>>,
    /// When leases were asked for and granted, on their way back.
    pub(super) grants: Vec<VecDeque<u64>>,
    /// Asked of the metadata group.
    pub(super) proposal: Option<(Generation, MemberSet)>,
    sessions: Vec<u64>,
    stopped: bool,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) answered: u64,
    pub(super) served: u64,
    pub(super) changes: u64,
    pub(super) catch_ups: u64,
    pub(super) fenced: u64,
}

pub(super) struct World {
    pub(super) rng: ChaCha8Rng,
    pool: BufPool,
    began: Instant,
    /// The engine that was replaced, if it is still about; the one in force is the last.
    pub(super) sides: Vec<Side>,
    pub(super) replicas: Vec<Model>,
    pub(super) epoch: u64,
    pub(super) generation: Generation,
    pub(super) set: MemberSet,
    pub(super) step: u64,
    next_value: u64,
    next_session: u64,
    pending: HashMap<u64, Pending>,
    registers: Vec<Register>,
    /// Epoch of each record that was ever committed.
    committed: Vec<Epoch>,
    zeroes: bool,
    pub(super) seen: Seen,
}

fn core(pool: &BufPool) -> EngineCore {
    EngineCore::new(Config {
        volume: VolumeId::from_u128(1),
        history: HistoryId::from_u128(2),
        node: NodeId::from_u128(3),
        blocks: BLOCKS,
        logical_block_bytes: 512,
        read_only: false,
        min_replicas: 1,
        shrink_after_ms: SHRINK_AFTER_MS,
        pool: pool.clone(),
    })
}

impl World {
    pub(super) fn new(seed: u64, members: usize, zeroes: bool) -> Self {
        let pool = BufPool::new(0);
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            began: Instant::now(),
            sides: vec![],
            replicas: (0..members).map(|_| Model::new(pool.clone(), BLOCKS)).collect(),
            epoch: 0,
            generation: Generation::new(1),
            set: (0..members as u8).map(MemberId).collect(),
            step: 1,
            next_value: 1,
            next_session: 0,
            pending: HashMap::new(),
            registers: (0..BLOCKS * 8).map(|_| Register::default()).collect(),
            committed: vec![],
            zeroes,
            seen: Seen::default(),
            pool,
        };
        if !zeroes {
            world.registers.iter_mut().for_each(|register| register.saw(0, 0, 0));
        }
        world.take_over();
        world
    }

    pub(super) fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    /// The engine in force.
    pub(super) fn leader(&self) -> &Side {
        let Some(side) = self.sides.last() else { unreachable!("there is always one") };
        side
    }

    /// A new engine takes over; the old one goes on unless it was an old one already.
    pub(super) fn take_over(&mut self) {
        while self.sides.len() > 1 || self.sides.first().is_some_and(|side| side.stopped) {
            let gone = self.sides.remove(0);
            self.forget_clients(gone.epoch);
        }
        self.epoch += 1;
        let members = self.replicas.len();
        let mut side = Side {
            core: core(&self.pool),
            epoch: self.epoch,
            up: vec![false; members],
            to: (0..members).map(|_| VecDeque::new()).collect(),
            from: (0..members).map(|_| VecDeque::new()).collect(),
            grants: (0..members).map(|_| VecDeque::new()).collect(),
            proposal: None,
            sessions: (0..SESSIONS).map(|n| self.next_session + n).collect(),
            stopped: false,
        };
        self.next_session += SESSIONS;
        side.core.handle(Event::Attach(Attach {
            epoch: Epoch::new(self.epoch),
            generation: self.generation,
            current: self.set,
            members: (0..members as u8).map(MemberId).collect(),
            next: None,
            now: self.began + Duration::from_millis(self.step),
            boot_ms: self.step,
        }));
        self.sides.push(side);
        let at = self.sides.len() - 1;
        for member in 0..members {
            if self.chance(0.8) {
                self.reach(at, member);
            }
        }
        self.turn(at);
    }

    /// No one waits for what this engine was asked any more.
    fn forget_clients(&mut self, epoch: u64) {
        let open = |pending: &Pending| pending.epoch == epoch;
        let tags: Vec<u64> =
            self.pending.iter().filter(|(_, p)| open(p)).map(|(tag, _)| *tag).collect();
        tags.into_iter().for_each(|tag| self.forget(tag));
    }

    fn forget(&mut self, tag: u64) {
        let Some(lost) = self.pending.remove(&tag) else { return };
        let Some(value) = lost.value else { return };
        for sector in lost.first..lost.first + lost.sectors {
            self.registers[sector as usize].saw(value, lost.start, OPEN);
        }
    }

    /// The time passes, then something is said.
    pub(super) fn tell(&mut self, at: usize, event: Event) {
        let now = self.began + Duration::from_millis(self.step);
        let core = &mut self.sides[at].core;
        core.handle(Event::Tick { now, boot_ms: self.step });
        core.handle(event);
    }

    pub(super) fn turn(&mut self, at: usize) {
        let now = self.began + Duration::from_millis(self.step);
        let side = &mut self.sides[at];
        side.core.handle(Event::Tick { now, boot_ms: self.step });
        side.core.flush();
        let mut commands = Vec::new();
        side.core.take_commands(&mut commands);
        self.check_commit(at);
        for command in commands {
            let to = match &command {
                Command::Fence { member, .. }
                | Command::Truncate { member, .. }
                | Command::Append { member, .. }
                | Command::Commit { member, .. }
                | Command::Read { member, .. }
                | Command::Status { member, .. }
                | Command::Reserve { member, .. }
                | Command::Unreserve { member, .. }
                | Command::CatchUp { member, .. }
                | Command::Release { member, .. } => usize::from(member.0),
                Command::Reply { .. } => {
                    self.reply(command);
                    continue;
                }
                Command::ProposeSet { generation, members } => {
                    self.sides[at].proposal = Some((*generation, *members));
                    continue;
                }
                Command::Serving => {
                    self.seen.served += 1;
                    continue;
                }
                Command::Stopped { reason } => {
                    self.stopped(at, reason);
                    continue;
                }
                Command::Resized { blocks } => panic!("nobody asked for {blocks} blocks"),
            };
            if self.sides[at].up[to] {
                self.sides[at].to[to].push_back(command);
            }
        }
    }

    fn stopped(&mut self, at: usize, reason: &StopReason) {
        match reason {
            StopReason::Fenced { .. } => self.seen.fenced += 1,
            StopReason::Detached => {}
            // It looks at logs that a newer engine has changed.
            StopReason::Contradiction { .. } if self.sides[at].epoch < self.epoch => {}
            other => panic!("stopped: {other}"),
        }
        self.sides[at].stopped = true;
    }

    /// What an engine calls committed is on a majority, and is what was committed before.
    fn check_commit(&mut self, at: usize) {
        let commit = self.sides[at].core.commit_lsn();
        for lsn in self.committed.len() as u64 + 1..=commit.get() {
            let lsn = Lsn::new(lsn);
            let mut counts: HashMap<Epoch, usize> = HashMap::new();
            for member in self.set.iter() {
                if let Some(epoch) = self.replicas[usize::from(member.0)].epoch_at(lsn) {
                    *counts.entry(epoch).or_default() += 1;
                }
            }
            let majority = self.set.len() as usize / 2 + 1;
            let held = counts.iter().find(|(_, count)| **count >= majority);
            let Some((epoch, _)) = held else {
                panic!("LSN {lsn} is on no quorum of {:?}: {counts:?} (I4)", self.set)
            };
            self.committed.push(*epoch);
        }
    }

    fn reply(&mut self, command: Command) {
        let Command::Reply { tag, result, .. } = command else { return };
        let Some(request) = self.pending.remove(&tag) else { panic!("answered twice: {tag}") };
        self.seen.answered += u64::from(result.is_ok());
        let (start, end) = (request.start, self.step);
        let sectors = request.first..request.first + request.sectors;
        match (result, request.value) {
            (Ok(Reply::Data(segments)), None) => {
                let bytes: Vec<u8> = segments.iter().flat_map(|s| s.iter().copied()).collect();
                assert_eq!(bytes.len() as u64, request.sectors * SECTOR);
                for (sector, data) in sectors.zip(bytes.chunks_exact(SECTOR as usize)) {
                    assert!(data.chunks_exact(8).all(|word| word == &data[..8]), "torn sector");
                    let value = u64::from_le_bytes(data[..8].try_into().unwrap());
                    if value > 0 || !self.zeroes {
                        self.registers[sector as usize].saw(value, start, end);
                    }
                }
            }
            (result, Some(value)) => {
                let end = if result.is_ok() { end } else { OPEN };
                for sector in sectors {
                    self.registers[sector as usize].saw(value, start, end);
                }
            }
            (_, None) => {}
        }
    }

    fn submit(&mut self, at: usize) {
        let session = self.below(SESSIONS as usize);
        let session = self.sides[at].sessions[session];
        if self.pending.values().filter(|p| p.session == session).count() >= DEPTH {
            return;
        }
        // Few blocks, so that everything meets everything.
        let all = BLOCKS * 8;
        let rng = &mut self.rng;
        let (first, sectors) = match rng.random_range(0..4) {
            0 => (rng.random_range(0..24), rng.random_range(1..6)),
            1 => (rng.random_range(0..4) * 8, 8),
            2 => (rng.random_range(0..3) * 8, rng.random_range(1..5) * 8),
            _ => (rng.random_range(0..100), rng.random_range(1..all - 100)),
        };
        let (offset, len) = (first * SECTOR, sectors * SECTOR);
        let (mut value, tag) = (None, self.next_value);
        let op = match rng.random_range(0..20) {
            0..8 => Op::Read { offset, len: len as u32 },
            8 => Op::Flush,
            9 if self.zeroes => Op::Discard { offset, len },
            10 if self.zeroes => {
                let keep_allocated = rng.random_bool(0.5);
                Op::WriteZeroes { offset, len, keep_allocated }
            }
            _ => {
                value = Some(tag);
                let mut data = Payload::alloc(&self.pool, offset, len as usize);
                for part in data.parts_mut() {
                    for word in part.chunks_exact_mut(8) {
                        word.copy_from_slice(&tag.to_le_bytes());
                    }
                }
                Op::Write { offset, data }
            }
        };
        self.request(at, session, first, sectors, value, op);
    }

    fn request(
        &mut self,
        at: usize,
        session: u64,
        first: u64,
        sectors: u64,
        value: Option<u64>,
        op: Op,
    ) {
        let (tag, epoch, start) = (self.next_value, self.sides[at].epoch, self.step);
        self.next_value += 1;
        self.pending.insert(tag, Pending { start, epoch, session, first, sectors, value });
        let context =
            Context { arrived: Instant::now(), priority: Priority::Normal, deadline: None };
        let request = Request { tag, context, op };
        self.tell(at, Event::Request { session: SessionId(session), request });
    }

    /// Has one block read by the engine in force.
    pub(super) fn read_block(&mut self, block: u64) {
        let at = self.sides.len() - 1;
        let session = self.sides[at].sessions[0];
        let op = Op::Read { offset: block * 4096, len: 4096 };
        self.request(at, session, block * 8, 8, None, op);
    }

    fn close_a_session(&mut self, at: usize) {
        let place = self.below(SESSIONS as usize);
        let session = std::mem::replace(&mut self.sides[at].sessions[place], self.next_session);
        self.next_session += 1;
        self.tell(at, Event::SessionClosed { session: SessionId(session) });
        // Replies from before the session closed still count.
        self.turn(at);
        let tags: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.session == session).map(|(t, _)| *t).collect();
        tags.into_iter().for_each(|tag| self.forget(tag));
    }

    pub(super) fn one_step(&mut self) {
        self.step += 1;
        let at = if self.chance(0.75) { self.sides.len() - 1 } else { 0 };
        let member = self.below(self.replicas.len());
        let many = self.replicas.len() > 1;
        let up = self.sides[at].up[member];
        match self.rng.random_range(0..200) {
            0..50 => self.submit(at),
            50..105 if up => drop(self.deliver(at, member)),
            105..150 if up => drop(self.hear(at, member)),
            150..154 => {
                let (most, forget) = (self.rng.random_range(1..5), self.chance(0.3));
                self.replicas[member].apply(most, forget);
            }
            154..163 => self.pull(member),
            163..170 if up => self.renew(at, member),
            170..176 => self.granted(at, member),
            176 if many && up && self.chance(0.3) => self.cut(at, member),
            177 if many && self.chance(0.1) => self.restart(member),
            178..181 if !up && self.chance(0.3) => self.reach(at, member),
            181 if self.chance(0.15) => self.take_over(),
            182 if self.chance(0.3) => self.close_a_session(at),
            183..185 => self.decide(at),
            _ => {
                let credits = Credits {
                    slots: self.rng.random_range(0..40),
                    wal_bytes: self.rng.random_range(0..4) * 128 * 1024,
                };
                self.credits(at, member, credits);
            }
        }
        if self.chance(0.3) && at < self.sides.len() {
            self.turn(at);
        }
        if self.leader().stopped {
            self.take_over();
        }
    }

    fn credits(&mut self, at: usize, member: usize, credits: Credits) {
        let as_of = self.replicas[member].last().1;
        self.tell(at, Event::Credits { member: MemberId(member as u8), as_of, credits });
    }

    /// Lets everything that is under way end, in a world where nothing fails.
    pub(super) fn settle(&mut self) {
        while self.sides.len() > 1 {
            let gone = self.sides.remove(0);
            self.forget_clients(gone.epoch);
        }
        for _ in 0..100_000 {
            self.step += 1;
            if self.leader().stopped {
                self.take_over();
                self.sides.drain(..self.sides.len() - 1);
            }
            for member in 0..self.replicas.len() {
                self.reach(0, member);
                self.credits(0, member, Credits { slots: 1 << 20, wal_bytes: 1 << 30 });
                while self.deliver(0, member) || self.hear(0, member) {}
                self.pull(member);
                self.renew(0, member);
                self.granted(0, member);
            }
            self.decide(0);
            self.turn(0);
            if self.is_settled() {
                return;
            }
        }
        let states: Vec<_> = self.leader().core.status().collect();
        panic!("{} requests under way, {states:?}", self.pending.len());
    }

    fn is_settled(&self) -> bool {
        let core = &self.leader().core;
        self.pending.is_empty()
            && self.leader().to.iter().all(VecDeque::is_empty)
            && core.state() == StateName::Serving
            && core.status().all(|member| member.voter && member.link == Link::Streaming)
            && core.status().all(|member| member.matched == core.last_lsn())
            && core.commit_lsn() == core.last_lsn()
            && self.set.len() as usize == self.replicas.len()
    }

    /// What must hold at the end.
    pub(super) fn check(&self) {
        assert_eq!(self.leader().core.in_flight(), 0);
        for (lsn, epoch) in self.committed.iter().enumerate() {
            let lsn = Lsn::new(lsn as u64 + 1);
            let held = self.replicas.iter().all(|r| r.epoch_at(lsn) == Some(*epoch));
            assert!(held, "LSN {lsn} was committed and is gone (I3)");
        }
        for replica in &self.replicas {
            assert_eq!(replica.log.len(), self.committed.len(), "all have all");
        }
        for (sector, register) in self.registers.iter().enumerate() {
            if let Err(problem) = register.check() {
                panic!("sector {sector} is not linearizable: {problem}");
            }
        }
    }
}
