//! The connections that a node makes: streams to the members of its engines'
//! sets, one to each peer for leases, and those of catch-up.

use super::{
    World,
    input::PEER_SILENT_NS,
    machine::{Outward, Process, Use},
    packet::Packet,
    seat::Link,
    shape::MS,
};
use crate::net::{ConnId as NetConn, EndId};
use holdfast_engine::lease::RENEWALS_PER_LEASE;
use holdfast_replica::PullId;
use holdfast_types::{NodeId, VolumeId};
use holdfast_wire::{
    catchup::{Answer, Source},
    peer::{Hello, PROTOCOL_VERSION, Purpose},
};

/// A connection that is not welcomed within this time is given up.
const GREETING_NS: u64 = 2000 * MS;

impl World {
    /// Sends on a connection.
    pub(super) fn send(&mut self, end: EndId, packet: Packet) {
        let now_ns = self.now_ns();
        self.trace.note(&[50, end.conn.0 << 1 | u64::from(end.dialled), packet.word()], || {
            let nodes = self.net.nodes_of(end.conn);
            let way = match (nodes, end.dialled) {
                (Some((a, b)), true) => format!("{a} to {b}"),
                (Some((a, b)), false) => format!("{b} to {a}"),
                (None, _) => "nowhere".to_owned(),
            };
            format!("net: {way} on {}: {}", end.conn.0, packet.text())
        });
        let packet = match &mut self.codec {
            Some(codec) => match codec.pass(packet) {
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    self.counts.frames_damaged += 1;
                    return self.net.reset(now_ns, end.conn, 10 * MS);
                }
                Err(violation) => {
                    self.garbled.get_or_insert(violation);
                    return;
                }
            },
            None => packet,
        };
        self.net.send(now_ns, end, packet);
    }

    pub(super) fn close(&mut self, end: EndId) {
        let now_ns = self.now_ns();
        self.trace.note(&[51, end.conn.0 << 1 | u64::from(end.dialled)], || {
            format!(
                "net: {} is closed by {}",
                end.conn.0,
                if end.dialled { "dialler" } else { "dialled" }
            )
        });
        self.net.close(now_ns, end);
    }

    fn dial(
        &mut self,
        node: usize,
        process: &mut Process,
        peer: usize,
        purpose: Purpose,
        what: Use,
    ) -> NetConn {
        let now_ns = self.now_ns();
        let hello = Hello {
            version: PROTOCOL_VERSION,
            cluster: process.view.cluster(),
            from: self.machines[node].id,
            to: Some(self.machines[peer].id),
            purpose,
        };
        let conn = self.net.dial(now_ns, node, peer, Packet::Hello(hello));
        self.trace.note(&[52, conn.0, node as u64, peer as u64], || {
            format!("net: {node} dials {peer} on {} for {what:?}", conn.0)
        });
        process.outward.insert(conn, Outward { what, welcomed: false, since_ns: now_ns });
        conn
    }

    pub(super) fn node_of(&self, id: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.id == id)
    }

    /// Keeps a connection to every peer, and renews what they owe this node.
    pub(super) fn renew_leases(&mut self, node: usize, process: &mut Process) {
        let now_ns = self.now_ns();
        let now_ms = self.machines[node].clock.ms(now_ns);
        for peer in (0..self.machines.len()).filter(|peer| *peer != node) {
            let pair = *process.pairs.entry(peer).or_default();
            match pair.conn {
                None if now_ns >= pair.dial_at_ns => {
                    let conn = self.dial(node, process, peer, Purpose::Pair, Use::Pair(peer));
                    if let Some(pair) = process.pairs.get_mut(&peer) {
                        pair.conn = Some(conn);
                        pair.heard_ns = now_ns;
                    }
                }
                Some(conn) if pair.open && now_ns >= pair.renew_at_ns => {
                    let renew = process.holder.renewal(now_ms, self.machines[peer].id);
                    self.send(EndId { conn, dialled: true }, Packet::Renew(renew));
                    let every_ns = self.shape.lease_ms * MS / RENEWALS_PER_LEASE;
                    if let Some(pair) = process.pairs.get_mut(&peer) {
                        pair.renew_at_ns = now_ns + every_ns;
                    }
                }
                _ => {}
            }
            let silent = pair.conn.is_some() && now_ns > pair.heard_ns + PEER_SILENT_NS;
            if let (true, Some(conn)) = (silent, pair.conn) {
                self.counts.peers_silent += 1;
                self.close(EndId { conn, dialled: true });
                self.outward_gone(node, process, conn, "silent");
                self.hang_up_on(node, process, peer);
            }
        }
        self.give_up_greetings(node, process);
    }

    /// A peer is silent: engines here must not wait for it.
    fn hang_up_on(&mut self, node: usize, process: &mut Process, peer: usize) {
        let streams: Vec<NetConn> = process
            .outward
            .iter()
            .filter(|(_, outward)| matches!(outward.what, Use::Stream(..)))
            .filter(|(conn, _)| self.net.nodes_of(**conn) == Some((node, peer)))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in streams {
            self.close(EndId { conn, dialled: true });
            self.outward_gone(node, process, conn, "silent");
        }
    }

    fn give_up_greetings(&mut self, node: usize, process: &mut Process) {
        let now_ns = self.now_ns();
        let late: Vec<NetConn> = process
            .outward
            .iter()
            .filter(|(_, outward)| !outward.welcomed && now_ns > outward.since_ns + GREETING_NS)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in late {
            self.close(EndId { conn, dialled: true });
            self.outward_gone(node, process, conn, "no answer");
        }
    }

    /// Opens the streams that engines here lack.
    pub(super) fn dial_members(&mut self, node: usize, process: &mut Process) {
        let now_ns = self.now_ns();
        let numbers: Vec<u16> = process.seats.keys().copied().collect();
        for number in numbers {
            let Some(mut seat) = process.seats.remove(&number) else { continue };
            let volume = seat.volume;
            for member in &mut seat.members {
                let Link::Not(at_ns) = member.link else { continue };
                let peer = member.node;
                let known = process.pairs.get(&peer).is_some_and(|pair| pair.open);
                if now_ns < at_ns || !known {
                    continue;
                }
                let purpose = Purpose::Stream { volume, replica: member.replica };
                let what = Use::Stream(number, member.id);
                let conn = self.dial(node, process, peer, purpose, what);
                member.link = Link::Dialled(conn);
            }
            process.seats.insert(number, seat);
        }
    }

    /// The server wants a connection to a source.
    pub(super) fn dial_source(
        &mut self,
        node: usize,
        process: &mut Process,
        pull: PullId,
        volume: VolumeId,
        source: Source,
        now_ms: u64,
    ) {
        self.counts.pulls += 1;
        match self.node_of(source.node) {
            Some(peer) => {
                let purpose = Purpose::CatchUp { volume, replica: source.replica };
                self.dial(node, process, peer, purpose, Use::Pull(pull));
            }
            None => {
                let cause = "no such node".to_owned();
                process.server.source_down(pull, cause, &mut process.host, now_ms);
            }
        }
    }

    /// The connection of a pull.
    pub(super) fn conn_of(process: &Process, pull: PullId) -> Option<NetConn> {
        let of = |outward: &Outward| outward.what == Use::Pull(pull);
        process.outward.iter().find(|(_, outward)| of(outward)).map(|(conn, _)| *conn)
    }

    pub(super) fn count_answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Slots { slots, .. } => {
                self.counts.slots_fetched += slots.len() as u64;
                self.counts.pulls_by_slots += u64::from(!slots.is_empty());
            }
            Answer::Records { records, .. } => {
                self.counts.records_fetched += records.len() as u64;
                self.counts.pulls_by_records += u64::from(!records.is_empty());
            }
            Answer::Opened(_) | Answer::Failed(_) => {}
        }
    }
}
