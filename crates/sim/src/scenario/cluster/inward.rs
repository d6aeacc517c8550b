//! The connections that a node takes: greetings, streams of engines elsewhere, leases,
//! catch-up, clients.

use super::{
    World,
    machine::{Inward, Process},
    packet::{Ask, Packet},
    seat::Seat,
    shape::SECOND,
};
use crate::{
    invariants::Violation,
    net::{ConnId as NetConn, EndId},
};
use holdfast_block::{Context, Op, Payload, Priority, Request, SessionId};
use holdfast_engine::core::Event as ToEngine;
use holdfast_replica::{ConnId, Output};
use holdfast_types::{BLOCK_BYTES, BlockNo};
use holdfast_wire::peer::{Hello, PROTOCOL_VERSION, Purpose, Welcome};

/// A client that asks for a volume which is attached here and not served yet waits so long.
const ADMISSION_NS: u64 = 10 * SECOND;

impl World {
    /// Something came on a connection that this node took.
    pub(super) fn take_inward(
        &mut self,
        node: usize,
        process: &mut Process,
        conn: NetConn,
        packet: Packet,
    ) {
        let now_ms = self.machines[node].clock.ms(self.now_ns());
        let Some(inward) = process.inward.get(&conn).copied() else {
            match packet {
                Packet::Hello(hello) => self.greet(node, process, conn, &hello),
                Packet::Open(volume) => self.open(node, process, conn, volume),
                // It was closed by this end meanwhile.
                _ => {}
            }
            return;
        };
        match (inward, packet) {
            (Inward::Pair(from), Packet::Renew(renew)) => {
                let grant = process.server.renew(now_ms, from, &renew);
                self.counts.fences_listed += grant.fenced.len() as u64;
                self.send(EndId { conn, dialled: false }, Packet::Grant(grant));
            }
            (Inward::Stream, Packet::ToReplica(message)) => {
                process.server.message(ConnId(conn.0), message, &mut process.host, now_ms);
            }
            (Inward::Source, Packet::Question(question)) => {
                process.server.question(ConnId(conn.0), question, &mut process.host, now_ms);
            }
            (Inward::Session(number, session), Packet::Ask(tag, ask)) => {
                let request = self.request(node, tag, ask);
                match process.seats.get_mut(&number) {
                    Some(seat) => seat.inbox.push_back(ToEngine::Request { session, request }),
                    None => self.close(EndId { conn, dialled: false }),
                }
            }
            (inward, packet) => unreachable!("{inward:?} received {packet:?}"),
        }
    }

    /// A connection that this node took is gone.
    pub(super) fn inward_gone(&mut self, node: usize, process: &mut Process, conn: NetConn) {
        let now_ms = self.machines[node].clock.ms(self.now_ns());
        match process.inward.remove(&conn) {
            Some(Inward::Stream | Inward::Source) => {
                process.server.close(ConnId(conn.0), &mut process.host, now_ms);
            }
            Some(Inward::Session(number, session)) => {
                if let Some(seat) = process.seats.get_mut(&number) {
                    seat.sessions.remove(&session);
                    // Sessions that ended come first, so that nothing of theirs is
                    // sequenced behind a newer session's requests.
                    let at = usize::from(matches!(seat.inbox.front(), Some(ToEngine::Attach(_))));
                    seat.inbox.insert(at, ToEngine::SessionClosed { session });
                    drop_requests(seat, session);
                }
            }
            Some(Inward::Pair(_) | Inward::Waiting(..)) | None => {}
        }
    }

    fn greet(&mut self, node: usize, process: &mut Process, conn: NetConn, hello: &Hello) {
        let me = self.machines[node].id;
        let wanted = hello.version == PROTOCOL_VERSION && hello.to == Some(me);
        let (id, from, host) = (ConnId(conn.0), hello.from, &process.host);
        let taken = match hello.purpose {
            _ if !wanted => Err("another node was meant".to_owned()),
            Purpose::Pair => Ok(Inward::Pair(from)),
            Purpose::Stream { volume, replica } => process
                .server
                .open_stream(id, volume, replica, from, host)
                .map(|()| Inward::Stream)
                .map_err(|refusal| refusal.to_string()),
            Purpose::CatchUp { volume, replica } => process
                .server
                .open_source(id, volume, replica, from, host)
                .map(|()| Inward::Source)
                .map_err(|refusal| refusal.to_string()),
            Purpose::Meta => Err("the metadata group is elsewhere".to_owned()),
        };
        let end = EndId { conn, dialled: false };
        match taken {
            Ok(inward) => {
                process.inward.insert(conn, inward);
                self.send(end, Packet::Welcome(Welcome::Accepted { node: me }));
            }
            Err(reason) => {
                self.send(end, Packet::Welcome(Welcome::Refused { reason }));
                self.close(end);
            }
        }
    }

    /// A client asks for a volume.
    fn open(
        &mut self,
        node: usize,
        process: &mut Process,
        conn: NetConn,
        volume: holdfast_types::VolumeId,
    ) {
        let me = self.machines[node].id;
        let now_ns = self.now_ns();
        let number = process.seat_of(volume).filter(|(_, seat)| seat.serves()).map(|(n, _)| n);
        if let Some(number) = number
            && let Some(mut seat) = process.seats.remove(&number)
        {
            self.admit(node, process, number, &mut seat, conn);
            process.seats.insert(number, seat);
            return;
        }
        let attached = process.view.volume(volume).and_then(|volume| volume.attached);
        match attached.is_some_and(|attached| attached.node == me) {
            true => {
                process.inward.insert(conn, Inward::Waiting(volume, now_ns));
            }
            false => self.close(EndId { conn, dialled: false }),
        }
    }

    /// The client is served from now on.
    pub(super) fn admit(
        &mut self,
        _node: usize,
        process: &mut Process,
        number: u16,
        seat: &mut Seat,
        conn: NetConn,
    ) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        seat.sessions.insert(session, conn);
        process.inward.insert(conn, Inward::Session(number, session));
        self.send(EndId { conn, dialled: false }, Packet::Opened(seat.epoch));
    }

    /// Turns away those who have waited too long, or for what is attached elsewhere now.
    pub(super) fn expire_inward(&mut self, node: usize, process: &mut Process) {
        let (now_ns, me) = (self.now_ns(), self.machines[node].id);
        let here = |id| {
            let volume = process.view.volume(id);
            volume.and_then(|volume| volume.attached).is_some_and(|attached| attached.node == me)
        };
        let late: Vec<NetConn> = process
            .inward
            .iter()
            .filter(|(_, inward)| match inward {
                Inward::Waiting(id, since_ns) => now_ns > since_ns + ADMISSION_NS || !here(*id),
                _ => false,
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in late {
            process.inward.remove(&conn);
            self.close(EndId { conn, dialled: false });
        }
    }

    /// What a frontend makes of a client's bytes.
    fn request(&self, node: usize, tag: u64, ask: Ask) -> Request {
        let (arrived, _) = self.engine_now(node);
        let op = match ask {
            Ask::Read(range) => {
                Op::Read { offset: range.start.offset(), len: range.bytes() as u32 }
            }
            Ask::Write(range, id) => {
                let (offset, len) = (range.start.offset(), range.bytes() as usize);
                let mut data = Payload::alloc(&self.pool, offset, len);
                let mut block = range.start.get();
                for part in data.parts_mut() {
                    for into in part.chunks_mut(BLOCK_BYTES) {
                        id.fill(BlockNo::new(block), into);
                        block += 1;
                    }
                }
                Op::Write { offset, data }
            }
            Ask::Discard(range) => Op::Discard { offset: range.start.offset(), len: range.bytes() },
            Ask::Flush => Op::Flush,
            Ask::Status(range) => {
                Op::Status { offset: range.start.offset(), len: range.bytes(), one: false }
            }
        };
        let context = Context { arrived, priority: Priority::Normal, deadline: None };
        Request { tag, context, op }
    }

    /// Carries out what the server wants.
    pub(super) fn server_outputs(
        &mut self,
        node: usize,
        process: &mut Process,
        now_ms: u64,
    ) -> Result<bool, Violation> {
        let mut outputs = Vec::new();
        process.server.take(&mut outputs);
        let any = !outputs.is_empty();
        for output in outputs {
            match output {
                Output::EngineFenced { volume, promised } => process.fence_off(volume, promised),
                Output::Send(conn, message) => {
                    let end = EndId { conn: NetConn(conn.0), dialled: false };
                    self.watch_answer(node, process, NetConn(conn.0), &message)?;
                    self.send(end, Packet::FromReplica(message));
                }
                Output::Answer(conn, answer) => {
                    self.send(
                        EndId { conn: NetConn(conn.0), dialled: false },
                        Packet::Answer(answer),
                    );
                }
                Output::Close(conn, reason) => {
                    self.trace.note(&[53, conn.0], || {
                        format!("{node}: server closes {}: {reason}", conn.0)
                    });
                    process.inward.remove(&NetConn(conn.0));
                    self.close(EndId { conn: NetConn(conn.0), dialled: false });
                }
                Output::Connect { pull, volume, source, .. } => {
                    self.dial_source(node, process, pull, volume, source, now_ms);
                }
                Output::Ask(pull, question) => {
                    if let Some(conn) = Self::conn_of(process, pull) {
                        self.send(EndId { conn, dialled: true }, Packet::Question(question));
                    }
                }
                Output::Hangup(pull) => {
                    if let Some(conn) = Self::conn_of(process, pull) {
                        process.outward.remove(&conn);
                        self.close(EndId { conn, dialled: true });
                    }
                }
                Output::CaughtUp { volume, session, result } => {
                    if let Some((_, seat)) = process.seat_of(volume)
                        && let Some(member) = seat.local()
                    {
                        seat.inbox.push_back(ToEngine::CaughtUp { member, session, result });
                    }
                }
            }
        }
        Ok(any)
    }
}

/// Requests of a session that is gone are not for the engine.
fn drop_requests(seat: &mut Seat, gone: SessionId) {
    seat.inbox
        .retain(|event| !matches!(event, ToEngine::Request { session, .. } if *session == gone));
}
