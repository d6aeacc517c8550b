//! What waits for a process at the beginning of its turn: messages, answers of
//! the metadata group, news of the catalogue.

use super::{
    World,
    machine::{Input, Outward, Process, Use},
    packet::Packet,
    seat::Link,
    shape::MS,
};
use crate::{
    invariants::Violation,
    net::{Arrival, ConnId as NetConn, EndId},
};
use holdfast_engine::core::{Event as ToEngine, OpTag};
use holdfast_io::DiskError;
use holdfast_replica::{Credits, ReadError};
use holdfast_wire::{FromReplica, ReadFailure, Refusal, peer::Welcome};

/// A node that does not answer renewals for so long is taken for gone, and the
/// streams to it are closed: a few renewals at the longest lease.
pub(super) const PEER_SILENT_NS: u64 = 1000 * MS;

/// Before a connection that was lost or refused is made again.
const REDIAL_NS: std::ops::Range<u64> = 20 * MS..400 * MS;

impl World {
    pub(super) fn take_input(
        &mut self,
        node: usize,
        process: &mut Process,
        input: Input,
    ) -> Result<(), Violation> {
        match input {
            Input::Arrived(end, Arrival::Message(packet)) => match end.dialled {
                true => self.take_outward(node, process, end.conn, packet),
                false => self.take_inward(node, process, end.conn, packet),
            },
            Input::Arrived(end, Arrival::Closed) => match end.dialled {
                true => self.outward_gone(node, process, end.conn, "closed"),
                false => self.inward_gone(node, process, end.conn),
            },
            Input::Answered(id, answer) => self.answered(node, process, id, answer)?,
            Input::View(version, view) => {
                if version > process.view_version {
                    process.view_version = version;
                    process.view = view;
                    self.reconcile(node, process);
                }
            }
        }
        Ok(())
    }

    /// Something came on a connection that this node made.
    fn take_outward(&mut self, node: usize, process: &mut Process, conn: NetConn, packet: Packet) {
        let Some(outward) = process.outward.get_mut(&conn) else { return };
        if let (false, Packet::Welcome(welcome)) = (outward.welcomed, &packet) {
            match welcome {
                Welcome::Accepted { .. } => {
                    outward.welcomed = true;
                    let outward = *outward;
                    self.outward_up(node, process, conn, outward);
                }
                Welcome::Refused { reason } => {
                    let reason = reason.clone();
                    self.close(EndId { conn, dialled: true });
                    self.outward_gone(node, process, conn, &reason);
                }
            }
            return;
        }
        let now_ns = self.now_ns();
        let now_ms = self.machines[node].clock.ms(now_ns);
        match (outward.what, packet) {
            (Use::Stream(number, member), Packet::FromReplica(message)) => {
                if let Some(seat) = process.seats.get_mut(&number) {
                    seat.inbox.extend(event_of(member, message));
                }
            }
            (Use::Pair(peer), Packet::Grant(grant)) => {
                self.take_grant(process, peer, &grant, now_ms);
            }
            (Use::Pull(pull), Packet::Answer(answer)) => {
                self.count_answer(&answer);
                process.server.answer(pull, answer, &mut process.host, now_ms);
            }
            (what, packet) => unreachable!("{what:?} received {packet:?}"),
        }
    }

    /// A connection that this node made is welcome.
    fn outward_up(&mut self, node: usize, process: &mut Process, conn: NetConn, outward: Outward) {
        let now_ns = self.now_ns();
        let now_ms = self.machines[node].clock.ms(now_ns);
        match outward.what {
            Use::Stream(number, id) => {
                if let Some(seat) = process.seats.get_mut(&number)
                    && let Some(member) = seat.member(id)
                {
                    member.link = Link::Open(conn);
                    let until_ms = process.holder.until_ms(member.node_id);
                    seat.inbox.push_back(ToEngine::Lease { member: id, until_ms });
                    seat.inbox.push_back(ToEngine::MemberUp { member: id });
                }
            }
            Use::Pair(peer) => {
                if let Some(pair) = process.pairs.get_mut(&peer) {
                    pair.open = true;
                    pair.heard_ns = now_ns;
                    pair.renew_at_ns = now_ns;
                }
                self.renew_leases(node, process);
            }
            Use::Pull(pull) => process.server.source_up(pull, &mut process.host, now_ms),
        }
    }

    /// A connection that this node made is gone.
    pub(super) fn outward_gone(
        &mut self,
        node: usize,
        process: &mut Process,
        conn: NetConn,
        cause: &str,
    ) {
        let Some(outward) = process.outward.remove(&conn) else { return };
        let now_ns = self.now_ns();
        let now_ms = self.machines[node].clock.ms(now_ns);
        match outward.what {
            Use::Stream(number, id) => {
                if let Some(seat) = process.seats.get_mut(&number)
                    && let Some(member) = seat.member(id)
                {
                    let was_open = matches!(member.link, Link::Open(_));
                    member.link = Link::Not(now_ns + self.machines[node].rng.within(REDIAL_NS));
                    if was_open {
                        seat.inbox.push_back(ToEngine::MemberDown { member: id });
                    }
                }
            }
            Use::Pair(peer) => {
                if let Some(pair) = process.pairs.get_mut(&peer) {
                    pair.conn = None;
                    pair.open = false;
                    pair.dial_at_ns = now_ns + self.machines[node].rng.within(REDIAL_NS);
                    process.holder.disconnected(self.machines[peer].id);
                }
            }
            Use::Pull(pull) => {
                let cause = cause.to_owned();
                process.server.source_down(pull, cause, &mut process.host, now_ms);
            }
        }
    }

    fn take_grant(
        &mut self,
        process: &mut Process,
        peer: usize,
        grant: &holdfast_wire::peer::Grant,
        now_ms: u64,
    ) {
        let from = self.machines[peer].id;
        if let Some(pair) = process.pairs.get_mut(&peer) {
            pair.heard_ns = self.sched.now_ns();
        }
        // Engines that were fenced off stop before anything is extended.
        for (volume, promised) in process.holder.granted(now_ms, from, grant) {
            process.fence_off(volume, promised);
        }
        let until_ms = process.holder.until_ms(from);
        for seat in process.seats.values_mut() {
            let members = seat.members.iter().filter(|member| member.node_id == from);
            for id in members.map(|member| member.id).collect::<Vec<_>>() {
                seat.inbox.push_back(ToEngine::Lease { member: id, until_ms });
            }
        }
    }
}

impl Process {
    /// The engine of `volume` here stops if its epoch is lower than `promised`: before
    /// anything else that it was told.
    pub(super) fn fence_off(
        &mut self,
        volume: holdfast_types::VolumeId,
        promised: holdfast_types::Epoch,
    ) {
        if let Some((_, seat)) = self.seat_of(volume)
            && seat.epoch < promised
            && let Some(member) = seat.members.first().map(|member| member.id)
        {
            let refusal = Refusal::Fenced { promised };
            // Not before its beginning.
            let at = usize::from(matches!(seat.inbox.front(), Some(ToEngine::Attach(_))));
            seat.inbox.insert(at, ToEngine::MemberLost { member, refusal });
        }
    }
}

/// What a member's message is to its engine.
fn event_of(member: holdfast_engine::core::MemberId, message: FromReplica) -> Option<ToEngine> {
    Some(match message {
        FromReplica::Promised(result) => ToEngine::Promised { member, result },
        FromReplica::Truncated(result) => ToEngine::Truncated { member, result },
        FromReplica::Ack(ack) => ToEngine::Ack { member, ack },
        FromReplica::Refused(session, refusal) => ToEngine::Refused { member, session, refusal },
        FromReplica::ReadDone { tag, result } => {
            ToEngine::ReadDone { member, tag: OpTag(tag.0), result: result.map_err(failure) }
        }
        FromReplica::StatusDone { tag, result } => {
            ToEngine::StatusDone { member, tag: OpTag(tag.0), result: result.map_err(failure) }
        }
        FromReplica::Reserved { tag, granted } => {
            ToEngine::Reserved { member, tag: OpTag(tag.0), granted }
        }
        FromReplica::Credits { as_of, slots, wal_bytes } => {
            let credits = Credits { slots, wal_bytes };
            ToEngine::Credits { member, as_of, credits }
        }
        FromReplica::CaughtUp(session, result) => ToEngine::CaughtUp { member, session, result },
    })
}

fn failure(failure: ReadFailure) -> ReadError {
    match failure {
        ReadFailure::Refused(refusal) => ReadError::Refused(refusal),
        ReadFailure::Corrupt { block } => ReadError::Corrupt { block },
        ReadFailure::Disk(message) => ReadError::Disk(DiskError {
            op: "read",
            file: "remote".to_owned(),
            offset: 0,
            len: 0,
            kind: holdfast_io::DiskErrorKind::Io,
            message,
        }),
    }
}
