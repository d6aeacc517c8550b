//! One engine, from its epoch on: what it is told, what it wants, and its check.

use super::{HISTORY, VOLUME, World};
use crate::{
    invariants::{Violation, i1_one_writer, i2_log_matching, i3_commit_is_forever},
    model::{Point, WriteId},
};
use holdfast_block::{Context, Op, Payload, Priority, Request, SessionId};
use holdfast_engine::core::{
    Attach, CatchUp, Command, Config, EngineCore, Event, MemberId, MemberSet, StateName,
};
use holdfast_meta::{Command as MetaCommand, Outcome, Rejected};
use holdfast_types::{BLOCK_BYTES, BlockNo, Epoch, Generation, Lsn, NodeId, ReplicaId};
use holdfast_wire::{
    FromReplica, Refusal, StreamTag, ToReplica,
    catchup::{CatchUp as WireCatchUp, Source},
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// A member that has not streamed for so long is proposed out of the set.
const SHRINK_AFTER_MS: u64 = 400;
/// What time passes by.
const TICK_MS: std::ops::Range<u64> = 20..500;
/// Blocks of a write at most.
const WRITE_BLOCKS: u64 = 3;
/// Writes that are not answered, of one engine at most.
const WRITES_MAX: usize = 8;

/// The way to a member.
#[derive(Default)]
pub(super) struct Line {
    pub(super) conn: Option<u64>,
    pub(super) to: VecDeque<ToReplica>,
    /// `None`: the member has closed the connection.
    pub(super) from: VecDeque<Option<FromReplica>>,
}

impl Line {
    pub(super) fn has_mail(&self) -> bool {
        !self.to.is_empty() || !self.from.is_empty()
    }
}

pub(super) struct Reign {
    pub(super) core: EngineCore,
    pub(super) epoch: Epoch,
    pub(super) node: NodeId,
    pub(super) members: Vec<Line>,
    voters: MemberSet,
    watched: Lsn,
    writes: BTreeMap<u64, WriteId>,
    proposed: Option<(Generation, MemberSet)>,
    over: bool,
}

impl Reign {
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn serves(&self) -> bool {
        self.core.state() == StateName::Serving
    }
}

fn member_of(at: usize) -> MemberId {
    MemberId(at as u8)
}

impl World {
    /// The next epoch's engine begins. Nobody tells the one before.
    pub(super) fn reign(&mut self) -> Result<(), Violation> {
        let number = self.reigns.len();
        let node = Self::node_of_engine(number);
        let name = format!("engine{number}");
        let at = |what: &str| format!("{name}.{what}:1");
        self.accepted(&MetaCommand::PutNode(holdfast_meta::Node {
            id: node,
            zone: String::new(),
            peer: at("peer"),
            api: at("api"),
            nbd: at("nbd"),
            name: name.clone(),
        }));
        let attached = self.ask(&MetaCommand::Attach { volume: VOLUME, node, read_only: false });
        let expected = match attached {
            Ok(Outcome::Volume(volume)) => volume.epoch,
            answer => unreachable!("a volume is attached to any node: {answer:?}"),
        };
        let granted = self.ask(&MetaCommand::GrantEpoch { volume: VOLUME, node, expected });
        let Ok(Outcome::Volume(volume)) = granted else { unreachable!("nobody else asks") };
        let before = self.granted.insert(volume.epoch, number);
        i1_one_writer::check_granted(VOLUME, volume.epoch, before, number)?;
        self.counts.epochs += 1;
        self.trace.note(&[21, volume.epoch.get()], || format!("engine {} begins", volume.epoch));
        let voters: Vec<ReplicaId> = volume.set.members.iter().map(|m| m.replica).collect();
        let voters = self.members_of(&voters);
        let mut core = EngineCore::new(Config {
            volume: VOLUME,
            history: HISTORY,
            node,
            blocks: super::BLOCKS,
            logical_block_bytes: 4096,
            read_only: false,
            min_replicas: 1,
            shrink_after_ms: SHRINK_AFTER_MS,
            pool: self.pool.clone(),
        });
        core.handle(Event::Attach(Attach {
            epoch: volume.epoch,
            generation: volume.set.generation,
            members: (0..self.replicas.len()).map(member_of).collect(),
            current: voters,
            next: None,
            now: self.now(),
            boot_ms: self.now_ms,
        }));
        self.reigns.push(Reign {
            core,
            epoch: volume.epoch,
            node,
            members: (0..self.replicas.len()).map(|_| Line::default()).collect(),
            voters,
            watched: Lsn::ZERO,
            writes: BTreeMap::new(),
            proposed: None,
            over: false,
        });
        for member in 0..self.replicas.len() {
            if self.rng.percent(70) {
                self.connect(number, member)?;
            }
        }
        Ok(())
    }

    fn now(&self) -> std::time::Instant {
        self.base + Duration::from_millis(self.now_ms)
    }

    fn members_of(&self, replicas: &[ReplicaId]) -> MemberSet {
        let is_named = |at: &usize| replicas.contains(&self.replicas[*at].id);
        (0..self.replicas.len()).filter(is_named).map(member_of).collect()
    }

    /// An engine is told something, and what it wants is carried out.
    pub(super) fn tell(&mut self, number: usize, event: Event) -> Result<(), Violation> {
        if self.reigns[number].over {
            return Ok(());
        }
        let (now, boot_ms) = (self.now(), self.now_ms);
        let core = &mut self.reigns[number].core;
        core.handle(Event::Tick { now, boot_ms });
        core.handle(event);
        core.flush();
        let mut commands = Vec::new();
        core.take_commands(&mut commands);
        for command in &commands {
            if let Command::Append { append, .. } = command {
                let sent = self.lineage.sent(append);
                i2_log_matching::check_sent(VOLUME, sent)?;
                self.counts.records += append.records.len() as u64;
            }
        }
        self.check_commit(number)?;
        for command in commands {
            self.carry_out(number, command)?;
        }
        Ok(())
    }

    fn check_commit(&mut self, number: usize) -> Result<(), Violation> {
        let reign = &mut self.reigns[number];
        let (commit, epoch) = (reign.core.commit_lsn(), reign.epoch);
        let begun = self.lineage.first_of(epoch).is_some_and(|first| first <= commit);
        if commit <= reign.watched || !begun {
            return Ok(());
        }
        reign.watched = commit;
        let end = Point { lsn: commit, epoch };
        i1_one_writer::check_commit(VOLUME, &self.lineage, self.ruling, end)?;
        i3_commit_is_forever::check_commit(VOLUME, &self.lineage, end)?;
        self.ruling = self.ruling.max(epoch);
        if commit > self.lineage.committed().lsn {
            self.lineage.commit(end);
        }
        Ok(())
    }

    fn carry_out(&mut self, number: usize, command: Command) -> Result<(), Violation> {
        let (member, message) = match command {
            Command::Fence { member, fence, session } => (member, ToReplica::Fence(fence, session)),
            Command::Truncate { member, truncate } => {
                self.counts.truncations += 1;
                (member, ToReplica::Truncate(truncate))
            }
            Command::Append { member, append } => (member, ToReplica::Append(append)),
            Command::Commit { member, lsn } => (member, ToReplica::Commit(lsn)),
            Command::Reserve { member, tag, range } => {
                (member, ToReplica::Reserve { tag: StreamTag(tag.0), range })
            }
            Command::Unreserve { member, tag, range } => {
                (member, ToReplica::Unreserve { tag: StreamTag(tag.0), range })
            }
            Command::CatchUp { member, catch_up } => {
                self.counts.catch_ups += 1;
                (member, ToReplica::CatchUp(self.sources_of(catch_up)))
            }
            Command::Release { member, epoch } => (member, ToReplica::Release(epoch)),
            Command::ProposeSet { generation, members } => {
                self.counts.set_proposals += 1;
                self.reigns[number].proposed = Some((generation, members));
                return Ok(());
            }
            Command::Reply { tag, result, .. } => {
                let id = self.reigns[number].writes.remove(&tag);
                if let (Some(id), true) = (id, result.is_ok()) {
                    self.counts.writes_acked += 1;
                    self.check_reply(id)?;
                }
                return Ok(());
            }
            Command::Serving => {
                self.counts.served += 1;
                return Ok(());
            }
            Command::Stopped { reason } => {
                let epoch = self.reigns[number].epoch;
                self.trace.note(&[22, epoch.get()], || format!("engine {epoch} stops: {reason}"));
                self.reigns[number].over = true;
                return Ok(());
            }
            Command::Resized { .. } => return Ok(()),
            Command::Read { .. } | Command::Status { .. } => unreachable!("nobody reads"),
        };
        let line = &mut self.reigns[number].members[usize::from(member.0)];
        if line.conn.is_some() {
            line.to.push_back(message);
        }
        Ok(())
    }

    fn sources_of(&self, catch_up: CatchUp) -> WireCatchUp {
        let source = |id: &MemberId| {
            let replica = &self.replicas[usize::from(id.0)];
            Source { node: replica.node, replica: replica.id }
        };
        WireCatchUp {
            session: catch_up.session,
            epoch: catch_up.epoch,
            settle: catch_up.settle,
            sources: catch_up.sources.iter().map(source).collect(),
        }
    }

    /// A client writes.
    pub(super) fn write(&mut self, number: usize) -> Result<(), Violation> {
        let reign = &self.reigns[number];
        if !reign.serves() || reign.writes.len() >= WRITES_MAX {
            return Ok(());
        }
        self.writes += 1;
        let id = WriteId(self.writes);
        let count = self.rng.within(1..WRITE_BLOCKS + 1);
        let start = self.rng.within(0..super::BLOCKS - count);
        let (offset, len) = (start * BLOCK_BYTES as u64, count as usize * BLOCK_BYTES);
        let mut data = Payload::alloc(&self.pool, offset, len);
        let blocks = data.parts_mut().flat_map(|part| part.chunks_mut(BLOCK_BYTES));
        for (into, block) in blocks.zip(start..) {
            id.fill(BlockNo::new(block), into);
        }
        let context = Context { arrived: self.now(), priority: Priority::Normal, deadline: None };
        let request = Request { tag: id.0, context, op: Op::Write { offset, data } };
        self.reigns[number].writes.insert(id.0, id);
        self.tell(number, Event::Request { session: SessionId(1), request })
    }

    /// Time passes for every engine that is not over.
    pub(super) fn time_passes(&mut self) -> Result<(), Violation> {
        self.now_ms += self.rng.within(TICK_MS);
        for replica in &mut self.replicas {
            replica.host.tick(self.now_ms);
            replica.server.tick(self.now_ms);
            replica.server.review(&mut replica.host, self.now_ms);
        }
        self.quiesce()?;
        for number in 0..self.reigns.len() {
            let (now, boot_ms) = (self.now(), self.now_ms);
            self.tell(number, Event::Tick { now, boot_ms })?;
        }
        Ok(())
    }

    /// The metadata group decides about a set that an engine has proposed.
    pub(super) fn answer_proposal(&mut self, number: usize) -> Result<(), Violation> {
        let reign = &mut self.reigns[number];
        let Some((generation, members)) = reign.proposed.take() else { return Ok(()) };
        let (epoch, voters) = (reign.epoch, reign.voters);
        let wanted = members.iter().map(|id| self.replicas[usize::from(id.0)].id).collect();
        let command = MetaCommand::ChangeSet { volume: VOLUME, epoch, generation, members: wanted };
        let event = match self.ask(&command) {
            Ok(Outcome::Volume(volume)) => {
                let grown = volume.set.learners.is_empty();
                self.counts.set_grown += u64::from(grown);
                self.counts.set_shrunk += u64::from(!grown);
                self.reigns[number].voters = members;
                Event::SetDecided { generation: volume.set.generation, members, accepted: true }
            }
            Err(Rejected::EpochMoved { held, .. }) => {
                let refusal = Refusal::Fenced { promised: held };
                Event::MemberLost { member: member_of(0), refusal }
            }
            _ => Event::SetDecided { generation, members: voters, accepted: false },
        };
        self.tell(number, event)
    }
}
