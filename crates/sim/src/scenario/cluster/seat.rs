//! The engine of a volume on a node: what it is told, and what becomes of its commands.

use super::{World, desk::Desk, machine::Process, packet::Packet};
use crate::{
    invariants::Violation,
    net::{ConnId as NetConn, EndId},
};
use holdfast_block::{BlockError, Reply, SessionId};
use holdfast_engine::core::{
    Attach, CatchUp, Command, Config, EngineCore, Event as ToEngine, MemberId, MemberSet, OpTag,
    StateName, StopReason,
};
use holdfast_io::BufPool;
use holdfast_meta::Volume;
use holdfast_replica::Tag;
use holdfast_types::{BLOCK_BYTES, Epoch, Lsn, NodeId, ReplicaId, VolumeId};
use holdfast_wire::{
    StreamTag, ToReplica,
    catchup::{CatchUp as WireCatchUp, Source},
};
use std::{
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

/// How long an engine that is asked to stop finishes what it has begun.
const DRAIN: Duration = Duration::from_secs(2);

/// How a member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// By calls.
    Here,
    /// Not now; tried again at this time.
    Not(u64),
    /// A connection is being made.
    Dialled(NetConn),
    /// By this connection; the engine was told.
    Open(NetConn),
}

/// A member of the engine's set, or a learner.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeatMember {
    pub(super) id: MemberId,
    pub(super) replica: ReplicaId,
    pub(super) node_id: NodeId,
    pub(super) node: usize,
    pub(super) link: Link,
}

/// An engine and what the node keeps for it.
pub(super) struct Seat {
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) core: EngineCore,
    pub(super) members: Vec<SeatMember>,
    pub(super) inbox: VecDeque<ToEngine>,
    pub(super) touched: bool,
    /// Where its clients' requests come from.
    pub(super) desk: Rc<Desk>,
    pub(super) stopped: Option<StopReason>,
    /// Members that count: in force, and the set proposed.
    pub(super) voters: MemberSet,
    pub(super) proposed: Option<MemberSet>,
    pub(super) detaching: bool,
    pub(super) blocks_asked: u64,
    /// The commit LSN that was looked at last.
    pub(super) watched: Lsn,
    pub(super) served: bool,
}

/// A host's tag: which engine's call, and which call of it.
pub(super) fn tag_of(number: u16, call: OpTag) -> Tag {
    Tag(u64::from(number) << OpTag::BITS | call.0)
}

/// The reverse of [`tag_of`].
pub(super) fn call_of(tag: Tag) -> (u16, OpTag) {
    ((tag.0 >> OpTag::BITS) as u16, OpTag(tag.0 & ((1 << OpTag::BITS) - 1)))
}

impl Seat {
    /// An engine for the epoch that was granted with `volume`.
    pub(super) fn new(
        volume: &Volume,
        node: usize,
        members: Vec<SeatMember>,
        shrink_after_ms: u64,
        pool: BufPool,
        now: (Instant, u64),
        me: NodeId,
    ) -> Self {
        let core = EngineCore::new(Config {
            volume: volume.id,
            history: volume.history,
            node: me,
            blocks: volume.size_bytes / BLOCK_BYTES as u64,
            logical_block_bytes: volume.logical_block_bytes,
            read_only: false,
            min_replicas: volume.min_replicas,
            shrink_after_ms,
            pool,
        });
        let voting = |member: &&SeatMember| {
            volume.set.members.iter().any(|voter| voter.replica == member.replica)
        };
        let voters: MemberSet = members.iter().filter(voting).map(|member| member.id).collect();
        let mut order: Vec<_> =
            members.iter().map(|member| (member.node != node, member.id)).collect();
        order.sort_unstable();
        let mut inbox = VecDeque::new();
        inbox.push_back(ToEngine::Attach(Attach {
            epoch: volume.epoch,
            generation: volume.set.generation,
            members: order.into_iter().map(|(_, id)| id).collect(),
            current: voters,
            next: None,
            now: now.0,
            boot_ms: now.1,
        }));
        for member in members.iter().filter(|member| member.link == Link::Here) {
            inbox.push_back(ToEngine::Lease { member: member.id, until_ms: u64::MAX });
            inbox.push_back(ToEngine::MemberUp { member: member.id });
        }
        Self {
            volume: volume.id,
            epoch: volume.epoch,
            core,
            members,
            inbox,
            touched: true,
            desk: Rc::new(Desk::new(
                volume.size_bytes / BLOCK_BYTES as u64,
                volume.logical_block_bytes,
            )),
            stopped: None,
            voters,
            proposed: None,
            detaching: false,
            blocks_asked: volume.size_bytes / BLOCK_BYTES as u64,
            watched: Lsn::ZERO,
            served: false,
        }
    }

    /// The member on this very node.
    pub(super) fn local(&self) -> Option<MemberId> {
        self.members.iter().find(|member| member.link == Link::Here).map(|member| member.id)
    }

    pub(super) fn member(&mut self, id: MemberId) -> Option<&mut SeatMember> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    /// Requests are carried out.
    pub(super) fn serves(&self) -> bool {
        self.core.state() == StateName::Serving
    }

    /// Stops the engine once what was begun is finished.
    pub(super) fn detach(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.detaching, true) {
            self.inbox.push_back(ToEngine::Detach { deadline: now + DRAIN });
        }
    }

    pub(super) fn members_of(&self, replicas: &[ReplicaId]) -> MemberSet {
        let named = |member: &&SeatMember| replicas.contains(&member.replica);
        self.members.iter().filter(named).map(|member| member.id).collect()
    }
}

impl World {
    /// Now, as an engine on `node` measures it: deadlines, and leases.
    pub(super) fn engine_now(&self, node: usize) -> (Instant, u64) {
        let clock = &self.machines[node].clock;
        let now_ns = self.now_ns();
        (self.base + Duration::from_nanos(clock.ns(now_ns)), clock.ms(now_ns))
    }

    /// Lets every engine decide that was told something.
    pub(super) fn serve_seats(
        &mut self,
        node: usize,
        process: &mut Process,
    ) -> Result<bool, Violation> {
        let mut moved = false;
        let numbers: Vec<u16> = process.seats.keys().copied().collect();
        for number in numbers {
            let Some(mut seat) = process.seats.remove(&number) else { continue };
            let result = match seat.touched || !seat.inbox.is_empty() || seat.desk.waits() {
                true => {
                    moved = true;
                    self.serve(node, process, number, &mut seat)
                }
                false => Ok(()),
            };
            match seat.stopped.take() {
                Some(reason) => self.retire(node, process, &seat, &reason),
                None => {
                    process.seats.insert(number, seat);
                }
            }
            result?;
        }
        Ok(moved)
    }

    fn serve(
        &mut self,
        node: usize,
        process: &mut Process,
        number: u16,
        seat: &mut Seat,
    ) -> Result<(), Violation> {
        seat.touched = false;
        let (now, boot_ms) = self.engine_now(node);
        let mut begun = seat.core.state() != StateName::Idle;
        if begun {
            seat.core.handle(ToEngine::Tick { now, boot_ms });
        }
        seat.desk.tell_ended(&mut seat.core);
        while let Some(event) = seat.inbox.pop_front() {
            let attach = matches!(event, ToEngine::Attach(_));
            self.note_engine_event(node, seat, &event);
            seat.core.handle(event);
            begun |= attach;
        }
        if let (true, Some(member)) = (begun, seat.local()) {
            // Exact: what the engines here have sequenced before is in the host.
            let mut credits = process.host.credits_of(seat.volume);
            let lent = process.server.slots_lent(self.machines[node].disk_id);
            credits.slots = credits.slots.saturating_sub(lent);
            let as_of = Lsn::new(u64::MAX);
            seat.core.handle(ToEngine::Credits { member, as_of, credits });
        }
        seat.desk.hand_over(&mut seat.core);
        seat.core.flush();
        let mut commands = Vec::new();
        seat.core.take_commands(&mut commands);
        self.note_engine_commands(node, seat, &commands);
        self.watch_commands(node, seat, &commands)?;
        for command in commands {
            self.carry_out(node, process, number, seat, command)?;
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        node: usize,
        process: &mut Process,
        number: u16,
        seat: &mut Seat,
        command: Command,
    ) -> Result<(), Violation> {
        let id = seat.volume;
        let message = match command {
            Command::Reply { session, tag, result } => {
                return self.reply(seat, session, tag, result);
            }
            Command::Serving => {
                self.counts.served += 1;
                seat.served = true;
                self.trace.note(&[42, node as u64, seat.epoch.get()], || {
                    format!("{node}: engine {} SERVES {id}", seat.epoch)
                });
                return Ok(());
            }
            Command::Stopped { reason } => {
                self.trace.note(&[43, node as u64, seat.epoch.get()], || {
                    format!("{node}: engine {} STOPS: {reason}", seat.epoch)
                });
                seat.stopped = Some(reason);
                return Ok(());
            }
            Command::ProposeSet { generation, members } => {
                self.propose_set(node, process, number, seat, generation, members);
                return Ok(());
            }
            Command::Resized { blocks } => {
                seat.desk.resized(blocks);
                self.counts.resizes += 1;
                return Ok(());
            }
            Command::Fence { member, fence, session } => (member, ToReplica::Fence(fence, session)),
            Command::Truncate { member, truncate } => {
                self.watch_truncate(seat, member, truncate.last);
                (member, ToReplica::Truncate(truncate))
            }
            Command::Append { member, append } => (member, ToReplica::Append(append)),
            Command::Commit { member, lsn } => (member, ToReplica::Commit(lsn)),
            Command::Read { member, tag, epoch, at, range } => {
                (member, ToReplica::Read { tag: StreamTag(tag.0), epoch, at, range })
            }
            Command::Status { member, tag, epoch, at, range } => {
                (member, ToReplica::Status { tag: StreamTag(tag.0), epoch, at, range })
            }
            Command::Reserve { member, tag, range } => {
                (member, ToReplica::Reserve { tag: StreamTag(tag.0), range })
            }
            Command::Unreserve { member, tag, range } => {
                (member, ToReplica::Unreserve { tag: StreamTag(tag.0), range })
            }
            Command::CatchUp { member, catch_up } => {
                (member, ToReplica::CatchUp(sources_of(seat, catch_up)))
            }
            Command::Release { member, epoch } => (member, ToReplica::Release(epoch)),
        };
        self.tell_member(node, process, number, seat, message);
        Ok(())
    }

    fn tell_member(
        &mut self,
        node: usize,
        process: &mut Process,
        number: u16,
        seat: &mut Seat,
        (member, message): (MemberId, ToReplica),
    ) {
        match seat.member(member).map(|member| member.link) {
            Some(Link::Here) => self.tell_local(node, process, number, seat, message),
            Some(Link::Open(conn)) => {
                if matches!(message, ToReplica::Read { .. }) {
                    self.counts.remote_reads += 1;
                }
                self.send(EndId { conn, dialled: true }, Packet::ToReplica(message));
            }
            // The connection is gone; the engine hears of it.
            Some(Link::Not(_) | Link::Dialled(_)) | None => {}
        }
    }

    fn tell_local(
        &mut self,
        node: usize,
        process: &mut Process,
        number: u16,
        seat: &mut Seat,
        message: ToReplica,
    ) {
        let now_ms = self.machines[node].clock.ms(self.now_ns());
        let Process { host, server, .. } = process;
        let call = |tag: StreamTag| tag_of(number, OpTag(tag.0));
        match message {
            ToReplica::Fence(fence, _) => {
                server.local_fence(&fence, host, now_ms);
                host.fence(tag_of(number, OpTag(0)), &fence);
            }
            ToReplica::Truncate(truncate) => host.truncate(tag_of(number, OpTag(0)), &truncate),
            ToReplica::Append(append) => seat.core.recycle(host.append(append)),
            ToReplica::Commit(lsn) => host.advance_commit(seat.volume, lsn),
            ToReplica::Read { tag, epoch, at, range } => {
                host.read(call(tag), seat.volume, epoch, at, range);
            }
            ToReplica::Status { tag, epoch, at, range } => {
                host.status(call(tag), seat.volume, epoch, at, range);
            }
            ToReplica::Reserve { tag, range } => host.reserve(call(tag), seat.volume, range),
            ToReplica::Unreserve { tag, range } => host.unreserve(call(tag), seat.volume, range),
            ToReplica::CatchUp(catch_up) => {
                server.local_catch_up(seat.volume, catch_up, host, now_ms);
            }
            ToReplica::Release(epoch) => server.local_release(seat.volume, epoch),
        }
    }

    fn reply(
        &mut self,
        seat: &Seat,
        session: SessionId,
        tag: u64,
        result: Result<Reply, BlockError>,
    ) -> Result<(), Violation> {
        self.counts.space_refused += u64::from(matches!(result, Err(BlockError::NoSpace)));
        if let (true, Some(id)) = (result.is_ok(), seat.desk.write_of(session, tag)) {
            self.watch_reply(seat, id)?;
        }
        seat.desk.reply(session, tag, result);
        Ok(())
    }

    /// An engine has stopped: its connections end, without answers to what they wait for
    /// unless it was asked to stop.
    fn retire(&mut self, node: usize, process: &mut Process, seat: &Seat, reason: &StopReason) {
        self.counts.engines_fenced += u64::from(matches!(reason, StopReason::Fenced { .. }));
        seat.desk.retire();
        for member in &seat.members {
            if let Link::Dialled(conn) | Link::Open(conn) = member.link {
                process.outward.remove(&conn);
                self.close(EndId { conn, dialled: true });
            }
        }
        process.pending.retain(|_, pending| pending.epoch() != Some((seat.volume, seat.epoch)));
        let rest_ns = self.rest_ns(node, reason);
        process.rest_until_ns.insert(seat.volume, self.now_ns() + rest_ns);
        self.trace.note(&[44, node as u64, seat.epoch.get()], || {
            format!("{node}: engine {} of {} is gone", seat.epoch, seat.volume)
        });
    }
}

fn sources_of(seat: &Seat, catch_up: CatchUp) -> WireCatchUp {
    let source = |id: &MemberId| {
        let member = seat.members.iter().find(|member| member.id == *id)?;
        Some(Source { node: member.node_id, replica: member.replica })
    };
    WireCatchUp {
        session: catch_up.session,
        epoch: catch_up.epoch,
        settle: catch_up.settle,
        sources: catch_up.sources.iter().filter_map(source).collect(),
    }
}
