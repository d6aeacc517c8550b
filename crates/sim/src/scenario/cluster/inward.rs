//! The connections that a node takes: greetings, streams of engines elsewhere, leases,
//! catch-up; clients' are in `frontend`.

use super::{
    World,
    frontend::Frontend,
    machine::{Inward, Process},
    packet::Packet,
};
use crate::{
    invariants::Violation,
    net::{ConnId as NetConn, EndId},
};
use holdfast_engine::core::Event as ToEngine;
use holdfast_replica::{ConnId, Output};
use holdfast_wire::peer::{Hello, PROTOCOL_VERSION, Purpose, Welcome};

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
                Packet::Knock => {
                    process.frontends.insert(conn, Frontend::new());
                }
                Packet::Bytes(bytes) => {
                    if let Some(frontend) = process.frontends.get_mut(&conn) {
                        frontend.received(&bytes);
                    }
                }
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
            (inward, packet) => unreachable!("{inward:?} received {packet:?}"),
        }
    }

    /// A connection that this node took is gone.
    pub(super) fn inward_gone(&mut self, node: usize, process: &mut Process, conn: NetConn) {
        let now_ms = self.machines[node].clock.ms(self.now_ns());
        if let Some(frontend) = process.frontends.get(&conn) {
            // It may have hung up before it was taken.
            frontend.hang_up(conn);
        }
        match process.inward.remove(&conn) {
            Some(Inward::Stream | Inward::Source) => {
                process.server.close(ConnId(conn.0), &mut process.host, now_ms);
            }
            Some(Inward::Pair(_)) | None => {}
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
