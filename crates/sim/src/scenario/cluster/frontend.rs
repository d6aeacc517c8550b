//! A node's NBD server: the shipping handshake and transmission of each client's
//! connection, with the simulated network for a socket and an engine's seat for a device.
//!
//! What arrived lies in a connection's `unread` until it is its turn, as in a socket's
//! receive buffer; the end of the stream is known before all in front of it is read, as it is
//! to `poll(2)`. Connections are looked at in another order every turn, and now and then one
//! is left out, so that a newer connection's writes overtake what an older one has sent.

use super::{World, desk::Desk, machine::Process, packet::Packet, shape::SECOND};
use crate::net::{ConnId as NetConn, EndId};
use holdfast_block::Geometry;
use holdfast_frontend::nbd::{
    End, Export, Exports, Negotiated, Negotiation, Peer, Progress, Transmission,
};
use holdfast_io::net::Hangup;
use holdfast_meta::{Catalogue, Volume};
use holdfast_types::{BLOCK_BYTES, NodeId, VolumeId};
use std::{cell::Cell, io::Read, rc::Rc, time::Instant};

/// A client that asks for a volume which is attached here and not served yet waits so long.
const ADMISSION_NS: u64 = 10 * SECOND;
/// Options that a client may send: the simulated ones send three.
const OPTIONS_MAX: u32 = 16;
/// Largest request that is accepted: more than any client asks for.
const REQUEST_BYTES_MAX: u32 = 4 << 20;
/// One in so many connections is not looked at in a turn.
const LEFT_OUT_EVERY: u64 = 8;
/// Bytes that one look reads at most: a large write takes several.
const READ_BYTES_MAX: usize = 96 << 10;
/// Bytes that one look sends at once.
const SEND_BYTES_MAX: usize = 64 << 10;

/// The client's end, as the machine sees it.
#[derive(Debug)]
pub(super) struct Far(Cell<Hangup>);

impl Peer for Far {
    fn hangup(&self) -> Hangup {
        self.0.get()
    }
}

/// A connection of a client.
pub(super) struct Frontend {
    far: Rc<Far>,
    unread: Vec<u8>,
    stage: Stage,
}

enum Stage {
    Handshake(Negotiation),
    /// For a volume that is not served yet, since then.
    Waiting(Box<Negotiated>, VolumeId, u64),
    Serving(Box<Transmission>),
}

/// What came of looking at a connection.
enum Look {
    Nothing,
    Moved,
    /// It is to be closed.
    Over,
}

impl Frontend {
    /// A connection that was just taken.
    pub(super) fn new() -> Self {
        Self {
            far: Rc::new(Far(Cell::new(Hangup::No))),
            unread: Vec::new(),
            stage: Stage::Handshake(Negotiation::new(OPTIONS_MAX)),
        }
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The machine knows that the client closed its end; the process does when it looks.
    pub(super) fn hang_up(&self, conn: NetConn) {
        // Some close their side only, and would still read.
        self.far.0.set(if conn.0.is_multiple_of(2) { Hangup::Half } else { Hangup::Full });
    }

    /// Whether something arrived that was not looked at.
    fn waits(&self) -> bool {
        let leaves = match &self.stage {
            Stage::Serving(transmission) => transmission.leaving().is_some(),
            Stage::Handshake(_) | Stage::Waiting(..) => false,
        };
        !leaves && (!self.unread.is_empty() || self.far.hangup() != Hangup::No)
    }

    fn waits_for(&self) -> Option<(VolumeId, u64)> {
        match &self.stage {
            Stage::Waiting(_, volume, since_ns) => Some((*volume, *since_ns)),
            Stage::Handshake(_) | Stage::Serving(_) => None,
        }
    }
}

/// The volumes that are attached to a node, as it knows the catalogue.
struct Offered<'a> {
    view: &'a Catalogue,
    me: NodeId,
}

impl Offered<'_> {
    fn volumes(&self) -> impl Iterator<Item = &Volume> {
        let here = |volume: &&Volume| volume.attached.is_some_and(|at| at.node == self.me);
        self.view.volumes().filter(here)
    }
}

impl Exports for Offered<'_> {
    fn list(&self) -> Vec<Export> {
        let export = |volume: &Volume| Export {
            name: volume.name.to_string(),
            description: String::new(),
            geometry: geometry(volume.size_bytes, volume.logical_block_bytes),
        };
        self.volumes().map(export).collect()
    }
}

/// What clients are told of a volume.
pub(super) fn geometry(size_bytes: u64, logical_block_bytes: u32) -> Geometry {
    Geometry {
        size_bytes,
        logical_block_bytes,
        preferred_block_bytes: BLOCK_BYTES as u32,
        max_request_bytes: REQUEST_BYTES_MAX,
        read_only: false,
    }
}

impl World {
    /// Looks at the connections of this node's clients; whether anything happened.
    pub(super) fn serve_clients(&mut self, node: usize, process: &mut Process) -> bool {
        let mut conns: Vec<NetConn> = process.frontends.keys().copied().collect();
        if conns.is_empty() {
            return false;
        }
        let first = self.turns as usize % conns.len();
        conns.rotate_left(first);
        let mut any = false;
        for conn in conns {
            let Some(mut frontend) = process.frontends.remove(&conn) else { continue };
            let left_out = self.turns.wrapping_add(conn.0).is_multiple_of(LEFT_OUT_EVERY);
            let look = match left_out && frontend.waits() {
                true => {
                    process.look_again = true;
                    Look::Nothing
                }
                false => self.look(node, process, conn, &mut frontend),
            };
            any |= !matches!(look, Look::Nothing);
            match look {
                Look::Nothing | Look::Moved => {
                    process.frontends.insert(conn, frontend);
                }
                Look::Over => self.close(EndId { conn, dialled: false }),
            }
        }
        any
    }

    fn look(
        &mut self,
        node: usize,
        process: &mut Process,
        conn: NetConn,
        frontend: &mut Frontend,
    ) -> Look {
        if frontend.far.hangup() == Hangup::Full {
            self.trace.note(&[74, node as u64, conn.0], || {
                format!("{node}: the client on {} is gone", conn.0)
            });
            return Look::Over;
        }
        match &mut frontend.stage {
            Stage::Handshake(negotiation) => {
                if frontend.unread.is_empty() && frontend.far.hangup() != Hangup::No {
                    return Look::Over;
                }
                negotiation.received(&std::mem::take(&mut frontend.unread));
                self.haggle(node, process, conn, frontend)
            }
            Stage::Waiting(negotiated, volume, _) => {
                let Some(desk) = process.desk(*volume, &negotiated.geometry) else {
                    return Look::Nothing;
                };
                let connections = process.connections.entry(*volume).or_default();
                let far: Rc<Far> = Rc::clone(&frontend.far);
                let pool = self.pool.clone();
                let transmission = Transmission::new(negotiated, desk, connections, far, pool);
                self.trace.note(&[75, node as u64, conn.0], || {
                    format!("{node}: {volume} for the client on {}", conn.0)
                });
                frontend.stage = Stage::Serving(Box::new(transmission));
                Look::Moved
            }
            Stage::Serving(transmission) => {
                let (now, _) = self.engine_now(node);
                let mut told = Vec::new();
                let looked =
                    converse(transmission, &mut frontend.unread, &frontend.far, now, &mut told);
                let any = !told.is_empty();
                for piece in told {
                    self.send(EndId { conn, dialled: false }, Packet::Bytes(piece));
                }
                match looked {
                    Ok(moved) if moved || any => Look::Moved,
                    Ok(_) => Look::Nothing,
                    Err(end) => {
                        self.trace.note(&[76, node as u64, conn.0], || {
                            format!("{node}: the connection {} ends: {end}", conn.0)
                        });
                        Look::Over
                    }
                }
            }
        }
    }

    /// Goes on with a handshake.
    fn haggle(
        &mut self,
        node: usize,
        process: &Process,
        conn: NetConn,
        frontend: &mut Frontend,
    ) -> Look {
        let Stage::Handshake(negotiation) = &mut frontend.stage else { return Look::Nothing };
        let exports = Offered { view: &process.view, me: self.machines[node].id };
        let progress = loop {
            if let Some(progress) = negotiation.step(&exports) {
                break progress;
            }
        };
        let said = negotiation.output().to_vec();
        negotiation.sent();
        let any = !said.is_empty();
        if any {
            self.send(EndId { conn, dialled: false }, Packet::Bytes(said));
        }
        match progress {
            Progress::NeedMore if any => Look::Moved,
            Progress::NeedMore => Look::Nothing,
            Progress::End(_) => Look::Over,
            Progress::Done(negotiated) => {
                let name = |volume: &&Volume| volume.name.as_str() == negotiated.export;
                let Some(volume) = exports.volumes().find(name).map(|volume| volume.id) else {
                    return Look::Over;
                };
                let now_ns = self.now_ns();
                frontend.stage = Stage::Waiting(Box::new(negotiated), volume, now_ns);
                Look::Moved
            }
        }
    }

    /// Turns away those who have waited too long, or for what is attached elsewhere now.
    pub(super) fn expire_waiting(&mut self, node: usize, process: &mut Process) {
        let (now_ns, me) = (self.now_ns(), self.machines[node].id);
        let here = |id| {
            let volume = process.view.volume(id);
            volume.and_then(|volume| volume.attached).is_some_and(|attached| attached.node == me)
        };
        let late: Vec<NetConn> = process
            .frontends
            .iter()
            .filter(|(_, frontend)| match frontend.waits_for() {
                Some((id, since_ns)) => now_ns > since_ns + ADMISSION_NS || !here(id),
                None => false,
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in late {
            process.frontends.remove(&conn);
            self.close(EndId { conn, dialled: false });
        }
    }
}

/// One round of a transmission, as over a socket; whether anything moved.
fn converse(
    transmission: &mut Transmission,
    unread: &mut Vec<u8>,
    far: &Far,
    now: Instant,
    told: &mut Vec<Vec<u8>>,
) -> Result<bool, End> {
    if transmission.session().is_closed() {
        return Err(End::SessionClosed);
    }
    let mut moved = transmission.complete();
    while transmission.has_output() {
        let (pieces, total) = transmission.gather();
        let sent = total.min(SEND_BYTES_MAX);
        let mut bytes = Vec::with_capacity(total);
        for piece in pieces.iter() {
            bytes.extend_from_slice(piece);
        }
        drop(pieces);
        bytes.truncate(sent);
        transmission.sent(sent);
        told.push(bytes);
    }
    if transmission.is_full() {
        moved |= transmission.take_requests(now)?;
    }
    let mut left = READ_BYTES_MAX;
    while left > 0 && !unread.is_empty() {
        if transmission.is_full() || transmission.leaving().is_some() {
            break;
        }
        let mut bytes = &unread[..unread.len().min(left)];
        let read = bytes.read_vectored(&mut transmission.room()).unwrap_or_default();
        transmission.received(read);
        unread.drain(..read);
        left -= read;
        moved = true;
        transmission.take_requests(now)?;
    }
    if unread.is_empty() && far.hangup() != Hangup::No && transmission.leaving().is_none() {
        transmission.hang_up();
        transmission.leave(End::Closed);
        moved = true;
    }
    match transmission.ended() {
        Some(end) => Err(end),
        None => Ok(moved || transmission.has_output()),
    }
}

impl Process {
    /// The device for a client that was told of `told`, once the volume is served.
    fn desk(&mut self, volume: VolumeId, told: &Geometry) -> Option<Rc<Desk>> {
        let (_, seat) = self.seat_of(volume)?;
        let enough = seat.desk.size_bytes() >= told.size_bytes;
        (seat.serves() && enough).then(|| Rc::clone(&seat.desk))
    }
}
