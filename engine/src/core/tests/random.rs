//! Random clients on random networks: whatever happens, every sector behaves
//! like one register, what was committed stays, and logs never disagree below it.

use super::history::{OPEN, Register};
use super::model::Model;
use crate::core::{Attach, Command, Config, EngineCore, Event, MemberId, StateName};
use holdfast_block::{Context, Op, Payload, Priority, Reply, Request, SessionId};
use holdfast_io::BufPool;
use holdfast_replica::Credits;
use holdfast_types::{BLOCK_BYTES, Epoch, Generation, HistoryId, Lsn, VolumeId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

pub(super) const BLOCKS: u64 = 40;
const SECTOR: u64 = 512;
const SESSIONS: u64 = 3;
const DEPTH: usize = 6;

/// A request that a client waits for.
struct Pending {
    start: u64,
    session: u64,
    first: u64,
    sectors: u64,
    /// What it wrote, or `None` if it reads.
    value: Option<u64>,
}

struct World {
    rng: ChaCha8Rng,
    pool: BufPool,
    epoch: u64,
    core: EngineCore,
    replicas: Vec<Model>,
    up: Vec<bool>,
    to: Vec<VecDeque<Command>>,
    from: Vec<VecDeque<Event>>,
    step: u64,
    next_value: u64,
    next_session: u64,
    sessions: Vec<u64>,
    pending: HashMap<u64, Pending>,
    registers: Vec<Register>,
    /// Epoch of each record that was ever committed.
    committed: Vec<Epoch>,
    zeroes: bool,
    answered: u64,
    served: u64,
}

fn core(pool: &BufPool) -> EngineCore {
    EngineCore::new(Config {
        volume: VolumeId::from_u128(1),
        history: HistoryId::from_u128(2),
        blocks: BLOCKS,
        logical_block_bytes: 512,
        read_only: false,
        pool: pool.clone(),
    })
}

impl World {
    fn new(seed: u64, members: usize, zeroes: bool) -> Self {
        let pool = BufPool::new(0);
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            epoch: 0,
            core: core(&pool),
            replicas: (0..members).map(|_| Model::new(pool.clone())).collect(),
            up: vec![true; members],
            to: (0..members).map(|_| VecDeque::new()).collect(),
            from: (0..members).map(|_| VecDeque::new()).collect(),
            step: 1,
            next_value: 1,
            next_session: 0,
            sessions: vec![],
            pending: HashMap::new(),
            registers: (0..BLOCKS * 8).map(|_| Register::default()).collect(),
            committed: vec![],
            zeroes,
            answered: 0,
            served: 0,
            pool,
        };
        if !zeroes {
            world.registers.iter_mut().for_each(|register| register.saw(0, 0, 0));
        }
        world.take_over();
        world
    }

    /// A new engine takes over, whatever the old one was doing.
    fn take_over(&mut self) {
        self.epoch += 1;
        self.core = core(&self.pool);
        for (_, lost) in self.pending.drain() {
            if let Some(value) = lost.value {
                for sector in lost.first..lost.first + lost.sectors {
                    self.registers[sector as usize].saw(value, lost.start, OPEN);
                }
            }
        }
        self.sessions = (0..SESSIONS).map(|n| self.next_session + n).collect();
        self.next_session += SESSIONS;
        for member in 0..self.replicas.len() {
            // Appends on their way may still arrive, up to any point.
            while self.rng.random_bool(0.5) && self.deliver(member) {}
            self.to[member].clear();
            self.from[member].clear();
            self.up[member] = true;
        }
        self.level_a_quorum();
        let ids: Vec<_> = (0..self.replicas.len() as u8).map(MemberId).collect();
        self.core.handle(Event::Attach(Attach {
            epoch: Epoch::new(self.epoch),
            generation: Generation::new(1),
            current: ids.iter().copied().collect(),
            members: ids,
            next: None,
            now: Instant::now(),
        }));
        self.turn();
    }

    /// Catching up is not the engine's part yet: brings as many members to the
    /// best log among a random majority as make a quorum, and gives their
    /// promises first.
    fn level_a_quorum(&mut self) {
        let members = self.replicas.len();
        let mut order: Vec<usize> = (0..members).collect();
        for at in (1..members).rev() {
            order.swap(at, self.rng.random_range(0..=at));
        }
        let quorum = &order[..members / 2 + 1];
        let Some(best) = quorum.iter().copied().max_by_key(|m| self.replicas[*m].last()) else {
            unreachable!("a quorum has members")
        };
        let log = self.replicas[best].log.clone();
        for member in quorum {
            self.replicas[*member].log.clone_from(&log);
        }
        // The others are reached later.
        for member in &order[members / 2 + 1..] {
            self.up[*member] = false;
        }
    }

    fn turn(&mut self) {
        self.core.flush();
        let mut commands = Vec::new();
        self.core.take_commands(&mut commands);
        self.check_commit();
        for command in commands {
            let to = match &command {
                Command::Fence { member, .. }
                | Command::Truncate { member, .. }
                | Command::Append { member, .. }
                | Command::Commit { member, .. }
                | Command::Read { member, .. }
                | Command::Status { member, .. }
                | Command::Reserve { member, .. }
                | Command::Unreserve { member, .. } => member.0 as usize,
                Command::Reply { .. } => {
                    self.reply(command);
                    continue;
                }
                Command::Serving => {
                    self.served += 1;
                    continue;
                }
                Command::Stopped { reason } => panic!("stopped: {reason}"),
            };
            self.to[to].push_back(command);
        }
    }

    /// What the engine calls committed is on a majority, and is what was committed before.
    fn check_commit(&mut self) {
        let commit = self.core.commit_lsn();
        for lsn in self.committed.len() as u64 + 1..=commit.get() {
            let lsn = Lsn::new(lsn);
            let mut counts: HashMap<Epoch, usize> = HashMap::new();
            for epoch in self.replicas.iter().filter_map(|replica| replica.epoch_at(lsn)) {
                *counts.entry(epoch).or_default() += 1;
            }
            let majority = self.replicas.len() / 2 + 1;
            let held = counts.iter().find(|(_, count)| **count >= majority);
            let Some((epoch, _)) = held else { panic!("LSN {lsn} is on no quorum: {counts:?}") };
            self.committed.push(*epoch);
        }
    }

    fn reply(&mut self, command: Command) {
        let Command::Reply { tag, result, .. } = command else { return };
        let Some(request) = self.pending.remove(&tag) else { panic!("answered twice: {tag}") };
        self.answered += 1;
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
            (Ok(_), None) => {}
            (Err(error), None) => {
                assert!(self.replicas.len() > 1, "a read or flush failed: {error}")
            }
        }
    }

    fn submit(&mut self) {
        let session = self.sessions[self.rng.random_range(0..self.sessions.len())];
        if self.pending.values().filter(|p| p.session == session).count() >= DEPTH {
            return;
        }
        // Few blocks, so that everything meets everything.
        let all = BLOCKS * 8;
        let (first, sectors) = match self.rng.random_range(0..4) {
            0 => (self.rng.random_range(0..24), self.rng.random_range(1..6)),
            1 => (self.rng.random_range(0..4) * 8, 8),
            2 => (self.rng.random_range(0..3) * 8, self.rng.random_range(1..5) * 8),
            _ => (self.rng.random_range(0..100), self.rng.random_range(1..all - 100)),
        };
        let (offset, len) = (first * SECTOR, sectors * SECTOR);
        let tag = self.next_value;
        self.next_value += 1;
        let mut value = None;
        let op = match self.rng.random_range(0..20) {
            0..8 => Op::Read { offset, len: len as u32 },
            8 => Op::Flush,
            9 if self.zeroes => Op::Discard { offset, len },
            10 if self.zeroes => {
                let keep_allocated = self.rng.random_bool(0.5);
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
        self.pending.insert(tag, Pending { start: self.step, session, first, sectors, value });
        let context =
            Context { arrived: Instant::now(), priority: Priority::Normal, deadline: None };
        let request = Request { tag, context, op };
        self.core.handle(Event::Request { session: SessionId(session), request });
    }

    /// Lets a replica take its next message.
    fn deliver(&mut self, member: usize) -> bool {
        let Some(command) = self.to[member].pop_front() else { return false };
        let replica = &mut self.replicas[member];
        let id = MemberId(member as u8);
        let event = match command {
            Command::Fence { fence, .. } => {
                Event::Promised { member: id, result: replica.fence(&fence) }
            }
            Command::Truncate { truncate, .. } => {
                Event::Truncated { member: id, result: replica.truncate(&truncate) }
            }
            Command::Append { append, .. } => match replica.append(&append) {
                Ok(ack) => Event::Ack { member: id, ack },
                Err(refusal) => Event::Refused { member: id, session: append.session, refusal },
            },
            Command::Commit { lsn, .. } => {
                replica.commit(lsn);
                return true;
            }
            Command::Read { tag, epoch, at, range, .. } => {
                let mut result = replica.read(epoch, at, range);
                if self.replicas.len() > 1 && self.rng.random_bool(0.02) && id != MemberId(1) {
                    result = Err(holdfast_replica::ReadError::Corrupt { block: 0 });
                }
                Event::ReadDone { member: id, tag, result }
            }
            Command::Reserve { tag, .. } => Event::Reserved { member: id, tag, granted: true },
            _ => return true,
        };
        self.from[member].push_back(event);
        true
    }

    fn hear(&mut self, member: usize) -> bool {
        let Some(event) = self.from[member].pop_front() else { return false };
        self.core.handle(event);
        true
    }

    fn reach(&mut self, member: usize) {
        // What it missed and is committed, it has fetched meanwhile.
        let source = (0..self.replicas.len())
            .find(|m| *m != member && self.replicas[*m].last().1 >= self.core.commit_lsn());
        if let Some(source) = source {
            let log = &self.replicas[source].log[..self.core.commit_lsn().get() as usize];
            let log = log.to_vec();
            let own = &mut self.replicas[member].log;
            let same = own.iter().zip(&log).take_while(|(a, b)| a.epoch == b.epoch).count();
            if same < log.len() {
                *own = log;
            }
        }
        self.up[member] = true;
        self.core.handle(Event::MemberDown { member: MemberId(member as u8) });
        self.core.handle(Event::MemberUp { member: MemberId(member as u8) });
    }

    fn one_step(&mut self) {
        self.step += 1;
        let member = self.rng.random_range(0..self.replicas.len());
        let credits = Credits {
            slots: self.rng.random_range(0..40),
            wal_bytes: self.rng.random_range(0..4) * 128 * 1024,
        };
        match self.rng.random_range(0..100) {
            0..30 => self.submit(),
            30..60 if self.up[member] => {
                self.deliver(member);
            }
            60..85 if self.up[member] => {
                self.hear(member);
            }
            85 => self.replicas[member].apply(3),
            86 if self.replicas.len() > 1 && self.up[member] && self.rng.random_bool(0.3) => {
                self.up[member] = false;
                self.to[member].clear();
                self.from[member].clear();
                self.core.handle(Event::MemberDown { member: MemberId(member as u8) });
            }
            87..90 if !self.up[member] && self.core.state() == StateName::Serving => {
                self.reach(member);
            }
            90 if self.rng.random_bool(0.1) => self.take_over(),
            91 if self.rng.random_bool(0.3) => self.close_a_session(),
            _ => self.core.handle(Event::Credits { member: MemberId(member as u8), credits }),
        }
        if self.rng.random_bool(0.3) {
            self.turn();
        }
    }

    fn close_a_session(&mut self) {
        let at = self.rng.random_range(0..self.sessions.len());
        let session = std::mem::replace(&mut self.sessions[at], self.next_session);
        self.next_session += 1;
        self.core.handle(Event::SessionClosed { session: SessionId(session) });
        // Replies from before the session closed still count.
        self.turn();
        let tags: Vec<u64> =
            self.pending.iter().filter(|(_, p)| p.session == session).map(|(t, _)| *t).collect();
        for tag in tags {
            if let Some(lost) = self.pending.remove(&tag)
                && let Some(value) = lost.value
            {
                for sector in lost.first..lost.first + lost.sectors {
                    self.registers[sector as usize].saw(value, lost.start, OPEN);
                }
            }
        }
    }

    /// Lets everything that is under way end, then reads everything.
    fn settle(&mut self) {
        if self.core.state() != StateName::Serving {
            self.take_over();
        }
        for member in 0..self.replicas.len() {
            if !self.up[member] && self.core.state() == StateName::Serving {
                self.reach(member);
            }
        }
        for _ in 0..100_000 {
            self.step += 1;
            for member in 0..self.replicas.len() {
                let credits = Credits { slots: 1 << 20, wal_bytes: 1 << 30 };
                self.core.handle(Event::Credits { member: MemberId(member as u8), credits });
                while self.up[member] && (self.deliver(member) || self.hear(member)) {}
            }
            self.turn();
            let quiet = self.to.iter().all(VecDeque::is_empty);
            if quiet && self.pending.is_empty() {
                break;
            }
        }
        assert!(self.pending.is_empty(), "{} requests were never answered", self.pending.len());
        assert_eq!(self.core.in_flight(), 0);
    }

    fn run(mut self, steps: u64) -> (u64, u64) {
        for _ in 0..steps {
            self.one_step();
        }
        self.settle();
        for sector in 0..BLOCKS {
            self.step += 1;
            let tag = self.next_value;
            self.next_value += 1;
            let (first, start, session) = (sector * 8, self.step, self.sessions[0]);
            self.pending.insert(tag, Pending { start, session, first, sectors: 8, value: None });
            let context =
                Context { arrived: Instant::now(), priority: Priority::Normal, deadline: None };
            let op = Op::Read { offset: first * SECTOR, len: BLOCK_BYTES as u32 };
            let request = Request { tag, context, op };
            self.core.handle(Event::Request { session: SessionId(session), request });
            self.settle();
        }
        for (lsn, epoch) in self.committed.iter().enumerate() {
            let lsn = Lsn::new(lsn as u64 + 1);
            let held = self.replicas.iter().filter(|r| r.epoch_at(lsn) == Some(*epoch)).count();
            assert!(held > self.replicas.len() / 2, "LSN {lsn} was committed and is gone (I3)");
        }
        for (sector, register) in self.registers.iter().enumerate() {
            if let Err(problem) = register.check() {
                panic!("sector {sector} is not linearizable: {problem}");
            }
        }
        (self.answered, self.served)
    }
}

fn runs(members: usize, zeroes: bool, seeds: u64) {
    let (mut answered, mut served) = (0, 0);
    for seed in 0..seeds {
        let (a, s) = World::new(seed, members, zeroes).run(4000 * members.min(3) as u64);
        answered += a;
        served += s;
    }
    assert!(answered > seeds * 300, "too little happened: {answered} requests");
    assert!(served > seeds * 2, "too few take-overs: {served}");
}

#[test]
fn one_member_is_linearizable() {
    runs(1, false, 40);
}

#[test]
fn one_member_with_discards() {
    runs(1, true, 40);
}

#[test]
fn three_members_are_linearizable() {
    runs(3, false, 30);
}

#[test]
fn five_members_with_discards() {
    runs(5, true, 15);
}
