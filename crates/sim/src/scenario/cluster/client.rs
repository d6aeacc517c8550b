//! Clients: each reads and writes a few blocks of one volume over a connection to some
//! node, and notes when it asked, when it was answered, and what it saw; `answer` judges that. When a
//! connection is lost it does not know what became of its writes. Once the node knows of
//! the loss, and a change that the client asked for first on a newer connection is acknowledged,
//! those are decided: late ones must not take effect behind it.

mod answer;

use super::{
    What, World,
    packet::{Ask, Packet, Span},
    shape::MS,
    talk::{Heard, Talk},
};
use crate::{
    invariants::{Invariant::I9NoSilentCorruption, Violation},
    model::WriteId,
    net::{Arrival, ConnId as NetConn, EndId},
    rng::SimRng,
};
use holdfast_frontend::nbd::Mode;
use holdfast_types::{BLOCK_BYTES, BlockNo, BlockRange, SLOT_BLOCKS};
use std::collections::BTreeMap;

/// Requests of one client under way at a time.
const DEPTH_MAX: usize = 4;
/// Of those, other than reads.
const WRITES_MAX: usize = 2;
/// Before a client that found nobody looks elsewhere.
const RETRY_NS: std::ops::Range<u64> = 10 * MS..150 * MS;
/// A client gives a node this long to take it in.
const PATIENCE_NS: std::ops::Range<u64> = 400 * MS..4000 * MS;
/// Blocks that everybody reads and writes: the first few, across the first slots' border.
const HOT_BLOCKS: std::ops::Range<u64> = 12..20;
/// Whole slots, written at once now and then.
const BULK_SLOTS: std::ops::Range<u64> = 2..6;
/// Blocks from here on are written and discarded in larger pieces, and read less.
pub(super) const LOOSE_BLOCKS_FROM: u64 = 112;
/// So many of those at a time.
const LOOSE_BLOCKS_MAX: u64 = 24;
/// Of a hundred discards, and questions what is stored, so many are for those.
const LOOSE_PERCENT: u32 = 60;
/// Of a hundred requests for blocks of several sectors, so many are for whole ones anyway.
const WHOLE_PERCENT: u32 = 40;

/// What clients speak.
const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];
/// What is sent goes out in one piece, or cut at random, so many times in a hundred.
const CUT_PERCENT: u32 = 20;
/// A client that leaves says so, so many times in a hundred.
const FAREWELL_PERCENT: u32 = 30;

/// Where a client's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    None,
    Asked(NetConn),
    /// The handshake is over; the volume may not be served yet.
    Open(NetConn),
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Under {
    ask: Ask,
    begun: u64,
    since_ns: u64,
    /// Asked while nothing went wrong any more.
    calm: bool,
}

impl Under {
    /// The write that it is, or the discard.
    fn write(&self) -> Option<WriteId> {
        self.ask.change().map(|(id, ..)| id)
    }
}

/// A client.
pub(super) struct Client {
    volume: usize,
    /// Blocks of that, as its node has said.
    blocks: u64,
    /// Bytes of its logical blocks, as its node has said.
    unit: u64,
    /// Its place in the network.
    place: usize,
    /// The node that it asks.
    node: usize,
    way: Way,
    talk: Option<Talk>,
    /// In which it speaks.
    mode: Mode,
    /// It has asked for a change on this connection.
    changed: bool,
    /// Since nothing goes wrong any more, it has read; it has changed something.
    has_read: bool,
    has_changed: bool,
    /// Writes without answer, by the connection that was lost.
    lost: Vec<(NetConn, Vec<WriteId>)>,
    /// When this request succeeds, those writes are decided.
    decides: Option<(u64, Vec<WriteId>)>,
    under: BTreeMap<u64, Under>,
    last_tag: u64,
    /// Counts its plans: a plan that was replaced is void.
    plan: u64,
    rng: SimRng,
    /// How long it waits for an answer before it goes elsewhere.
    patience_ns: u64,
    /// Reads among a hundred requests.
    reads: u32,
    way_since_ns: u64,
    stopped: bool,
}

impl Client {
    fn conn(&self) -> Option<NetConn> {
        match self.way {
            Way::None => None,
            Way::Asked(conn) | Way::Open(conn) => Some(conn),
        }
    }
}

impl World {
    /// Clients of every volume.
    pub(super) fn make_clients(&mut self, seed: u64) {
        for index in 0..self.shape.clients {
            let mut rng = SimRng::nth(seed, "client", index);
            let client = Client {
                volume: index % self.volumes.len(),
                blocks: self.shape.blocks,
                unit: BLOCK_BYTES as u64,
                place: self.machines.len() + index,
                node: rng.within(0..self.machines.len() as u64) as usize,
                way: Way::None,
                talk: None,
                mode: MODES[rng.within(0..MODES.len() as u64) as usize],
                changed: false,
                has_read: false,
                has_changed: false,
                lost: Vec::new(),
                decides: None,
                under: BTreeMap::new(),
                last_tag: 0,
                plan: 0,
                patience_ns: rng.within(PATIENCE_NS),
                reads: rng.within(20..80) as u32,
                rng,
                way_since_ns: 0,
                stopped: false,
            };
            self.clients.push(client);
            self.plan(index, RETRY_NS);
        }
    }

    fn plan(&mut self, index: usize, within: std::ops::Range<u64>) {
        let client = &mut self.clients[index];
        let in_ns = client.rng.within(within);
        client.plan += 1;
        self.sched.after(in_ns, What::Client(index, client.plan));
    }

    /// A client's turn.
    pub(super) fn client_acts(&mut self, index: usize, plan: u64) {
        let now_ns = self.now_ns();
        let client = &self.clients[index];
        if client.plan != plan || client.stopped {
            return;
        }
        match client.way {
            Way::None => {
                let (place, node) = (client.place, client.node);
                let volume = self.metadata.catalogue().volume(self.volumes[client.volume].id);
                let name = volume.map(|volume| volume.name.to_string()).unwrap_or_default();
                let conn = self.net.dial(now_ns, place, node, Packet::Knock);
                self.trace.note(&[70, index as u64, node as u64, conn.0], || {
                    format!("client {index} asks node {node} on {}", conn.0)
                });
                let client = &mut self.clients[index];
                let (talk, said) = Talk::begin(&name, client.mode);
                client.way = Way::Asked(conn);
                client.talk = Some(talk);
                client.changed = false;
                client.way_since_ns = now_ns;
                self.say(index, conn, said);
                self.plan(index, 20 * MS..100 * MS);
            }
            Way::Asked(conn) => match now_ns > client.way_since_ns + client.patience_ns {
                true => self.client_leaves(index, conn),
                false => self.plan(index, 20 * MS..100 * MS),
            },
            Way::Open(conn) => {
                let oldest = client.under.values().map(|under| under.since_ns).min();
                if oldest.is_some_and(|since_ns| now_ns > since_ns + client.patience_ns) {
                    return self.client_leaves(index, conn);
                }
                if client.under.len() < DEPTH_MAX {
                    self.client_asks(index, conn);
                }
                let think_ns = self.shape.think_ns;
                self.plan(index, think_ns / 8..think_ns);
            }
        }
    }

    /// Closes the connection and tries another node.
    fn client_leaves(&mut self, index: usize, conn: NetConn) {
        self.counts.clients_left += 1;
        let client = &mut self.clients[index];
        if client.rng.percent(FAREWELL_PERCENT)
            && let Some(talk) = client.talk.as_ref().filter(|talk| talk.is_open())
        {
            let said = talk.disconnect();
            // All that was asked for before this is carried out, however late.
            let under = std::mem::take(&mut client.under);
            self.counts.unknown_outcomes += under.values().filter_map(Under::write).count() as u64;
            self.say(index, conn, said);
        }
        self.close(EndId { conn, dialled: true });
        self.client_lost(index);
    }

    /// Half of a volume's clients go to another node now, the others stay where they are for long.
    pub(super) fn part_clients(&mut self, volume: usize, node: usize) {
        let of_volume = |client: &Client| client.volume == volume;
        let clients: Vec<usize> =
            (0..self.clients.len()).filter(|index| of_volume(&self.clients[*index])).collect();
        for (nth, index) in clients.into_iter().enumerate() {
            if nth % 2 == 0 {
                if let Some(conn) = self.clients[index].conn() {
                    self.client_leaves(index, conn);
                }
                self.clients[index].node = node;
            } else {
                self.clients[index].patience_ns = PATIENCE_NS.end;
            }
        }
    }

    /// The connection is gone; what was written is unknown for ever.
    fn client_lost(&mut self, index: usize) {
        let nodes = self.machines.len() as u64;
        let home = self.volumes[self.clients[index].volume].home;
        let rng = &mut self.clients[index].rng;
        let elsewhere = rng.percent(60);
        let node = match rng.percent(50) {
            true => home,
            false => rng.within(0..nodes) as usize,
        };
        let client = &mut self.clients[index];
        if elsewhere {
            client.node = node;
        }
        let under = std::mem::take(&mut client.under);
        let lost: Vec<WriteId> = under.values().filter_map(Under::write).collect();
        self.counts.unknown_outcomes += lost.len() as u64;
        if let Some(conn) = client.conn().filter(|_| !lost.is_empty()) {
            client.lost.push((conn, lost));
        }
        client.way = Way::None;
        client.talk = None;
        client.decides = None;
        self.plan(index, RETRY_NS);
    }

    /// A range of the blocks that are compared at every read.
    fn draw_range(&mut self, index: usize) -> BlockRange {
        let rng = &mut self.clients[index].rng;
        let (hot, slot) = (HOT_BLOCKS, SLOT_BLOCKS as u64);
        match rng.within(0..40) {
            0 => {
                let start = rng.within(BULK_SLOTS);
                let slots = rng.within(1..BULK_SLOTS.end - start + 1);
                BlockRange::new(BlockNo::new(start * slot), slots * slot)
            }
            1..8 => {
                let start = rng.within(hot.clone());
                BlockRange::new(BlockNo::new(start), rng.within(1..hot.end - start + 1))
            }
            _ => BlockRange::new(BlockNo::new(rng.within(hot)), 1),
        }
    }

    /// A range of the others, up to where the volume ends as its node has said; where it has
    /// grown, what came with that as often as not.
    fn draw_loose(&mut self, index: usize) -> BlockRange {
        let drawn = self.shape.blocks;
        let Client { rng, blocks, .. } = &mut self.clients[index];
        let grown = *blocks > drawn && rng.percent(50);
        let start = rng.within(if grown { drawn } else { LOOSE_BLOCKS_FROM }..*blocks);
        let count = rng.within(1..(*blocks - start).min(LOOSE_BLOCKS_MAX) + 1);
        BlockRange::new(BlockNo::new(start), count)
    }

    /// A part of the volume of either kind.
    fn draw_any(&mut self, index: usize) -> Span {
        let range = match self.clients[index].rng.percent(LOOSE_PERCENT) {
            true => self.draw_loose(index),
            false => self.draw_range(index),
        };
        self.draw_part(index, range)
    }

    /// Where logical blocks are smaller than blocks, some of the range's, more often than not.
    fn draw_part(&mut self, index: usize, range: BlockRange) -> Span {
        let (Client { rng, unit, .. }, span) = (&mut self.clients[index], Span::from(range));
        if *unit == BLOCK_BYTES as u64 || rng.percent(WHOLE_PERCENT) {
            return span;
        }
        let per_block = BLOCK_BYTES as u64 / *unit;
        let (skipped, left_out) = (rng.within(0..per_block), rng.within(0..per_block));
        let (skipped, units) = (skipped * *unit, span.len / *unit);
        let len = (units * *unit - skipped).saturating_sub(left_out * *unit).max(*unit);
        Span { offset: span.offset + skipped, len }
    }

    /// What it asks for next; only to read if it is `stuck`.
    fn draw_ask(&mut self, index: usize, stuck: bool) -> Ask {
        let Client { rng, reads, .. } = &mut self.clients[index];
        let (kind, is_read) = (rng.within(0..100), rng.percent(*reads));
        let range = match kind {
            6..11 | 15..20 => self.draw_loose(index),
            _ => self.draw_range(index),
        };
        let span = self.draw_part(index, range);
        match kind {
            0..4 if !stuck => Ask::Discard(self.draw_any(index), self.next_write()),
            4..6 if !stuck => {
                let keep = self.clients[index].rng.percent(50);
                Ask::Zeroes(self.draw_any(index), self.next_write(), keep)
            }
            6..11 if !stuck => Ask::Write(span, self.next_write()),
            11 => Ask::Flush,
            12..15 => Ask::Status(self.draw_any(index)),
            15..20 => Ask::Read(span),
            _ if stuck || is_read => Ask::Read(span),
            _ => Ask::Write(span, self.next_write()),
        }
    }

    fn client_asks(&mut self, index: usize, conn: NetConn) {
        let Client { volume, unit, under, .. } = &self.clients[index];
        let (volume, unit) = (*volume, *unit);
        // Writes that are not answered keep nobody from reading.
        let writes = under.values().filter(|under| !matches!(under.ask, Ask::Read(_))).count();
        let ask = self.draw_ask(index, writes >= WRITES_MAX);
        let (begun, since_ns) = (self.next_moment(), self.now_ns());
        let calm = !self.storming;
        let (history, client) = (&mut self.volumes[volume].clients, index as u64);
        if let Some((id, span, zeroes)) = ask.change() {
            for place in span.places(unit) {
                match zeroes {
                    true => history.zeroing_begins(place, id, client, begun),
                    false => history.write_begins(place, id, client, begun),
                }
            }
        }
        let client = &mut self.clients[index];
        client.last_tag += 1;
        let tag = client.last_tag;
        let under = Under { ask, begun, since_ns, calm };
        if let (false, Some(_)) = (client.changed, under.write()) {
            client.changed = true;
            // Connections of which the node knows by now that they are closed.
            let known = |(conn, _): &&(NetConn, _)| self.net.nodes_of(*conn).is_none();
            let late = client.lost.iter().filter(known).flat_map(|(_, ids)| ids.clone()).collect();
            client.decides = Some((tag, late));
        }
        client.under.insert(tag, under);
        let Some(talk) = &mut client.talk else { unreachable!("an open connection is talked on") };
        let said = talk.ask(tag, ask);
        self.say(index, conn, said);
    }

    /// Sends bytes, in pieces or not.
    fn say(&mut self, index: usize, conn: NetConn, mut said: Vec<u8>) {
        let rng = &mut self.clients[index].rng;
        let mut pieces = Vec::new();
        while said.len() > 1 && pieces.len() < 2 && rng.percent(CUT_PERCENT) {
            let rest = said.split_off(rng.within(1..said.len() as u64) as usize);
            pieces.push(std::mem::replace(&mut said, rest));
        }
        pieces.push(said);
        for piece in pieces {
            self.send(EndId { conn, dialled: true }, Packet::Bytes(piece));
        }
    }

    /// Something arrives at a client.
    pub(super) fn client_receives(
        &mut self,
        place: usize,
        end: EndId,
        arrival: Arrival<Packet>,
    ) -> Result<(), Violation> {
        let index = place - self.machines.len();
        if self.clients[index].conn() != Some(end.conn) {
            return Ok(());
        }
        match arrival {
            Arrival::Closed => self.client_lost(index),
            Arrival::Message(Packet::Bytes(bytes)) => {
                let Some(talk) = &mut self.clients[index].talk else { return Ok(()) };
                let heard = talk.hear(&bytes).map_err(|what| Violation {
                    invariant: I9NoSilentCorruption,
                    what: format!("client {index} cannot follow its node: {what}"),
                })?;
                for heard in heard {
                    self.client_hears(index, end.conn, heard)?;
                }
            }
            Arrival::Message(packet) => unreachable!("a client received {packet:?}"),
        }
        Ok(())
    }

    fn client_hears(&mut self, index: usize, conn: NetConn, heard: Heard) -> Result<(), Violation> {
        match heard {
            Heard::Welcome(size_bytes, block_bytes) => {
                self.trace.note(&[71, index as u64, conn.0], || {
                    format!("client {index} is welcome on {}", conn.0)
                });
                self.clients[index].way = Way::Open(conn);
                self.clients[index].blocks = size_bytes / BLOCK_BYTES as u64;
                self.clients[index].unit = u64::from(block_bytes);
                self.plan(index, 1..MS);
            }
            Heard::Refused => {
                self.close(EndId { conn, dialled: true });
                self.client_lost(index);
            }
            Heard::Answer(tag, result) => self.client_answered(index, tag, result)?,
        }
        Ok(())
    }

    /// No client begins anything any more; true once all have their answers.
    pub(super) fn stop_clients(&mut self) -> bool {
        let mut quiet = true;
        for client in &mut self.clients {
            client.stopped = true;
            quiet &= client.under.is_empty();
        }
        quiet
    }
}
