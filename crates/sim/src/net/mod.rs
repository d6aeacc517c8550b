//! A simulated network: connections between nodes whose messages arrive in
//! order, late, or not at all.
//!
//! A connection is two directions. Each keeps what was sent in order, with a
//! delay of its own for each message. A direction from one node to another can
//! be cut (a partition, one way or both): its messages wait, as TCP would send
//! them again, and whether the connection outlives that, the caller decides with
//! [`Network::reset`]. One direction of one connection can be held back alone,
//! while newer connections overtake it. An end that is closed throws away what
//! still arrives; the other end learns of the close behind all that was sent
//! before it, as of a FIN. Nothing is ever lost from the middle, doubled or reordered
//! within a direction: that is what a stream promises.
//!
//! The network has no clock and no queue of events of its own: [`Network::due`]
//! says when the next thing arrives where, [`Network::arrive`] takes it.

mod conn;
mod weather;

#[cfg(test)]
mod tests;

pub use weather::{Delay, Weather};

use crate::rng::SimRng;
use conn::{Conn, Direction};
use std::collections::BTreeMap;

/// Names a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndId {
    /// The connection.
    pub conn: ConnId,
    /// Whether it is the end that connected.
    pub dialled: bool,
}

impl EndId {
    /// The other end.
    #[must_use]
    pub fn other(self) -> Self {
        Self { dialled: !self.dialled, ..self }
    }
}

/// What arrives at an end.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<M> {
    /// A message.
    Message(M),
    /// The other end is closed; the last that arrives.
    Closed,
}

/// The network; see the module's documentation.
pub struct Network<M> {
    rng: SimRng,
    weather: Weather,
    conns: BTreeMap<ConnId, Conn<M>>,
    made: u64,
}

impl<M> Network<M> {
    /// A network between `nodes` nodes, all of which reach each other.
    #[must_use]
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            rng: SimRng::of(seed, "net"),
            weather: Weather::new(nodes),
            conns: BTreeMap::new(),
            made: 0,
        }
    }

    /// What the network is like now.
    #[must_use]
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// Changes what it is like: affects what is under way too.
    pub fn weather_mut(&mut self) -> &mut Weather {
        &mut self.weather
    }

    /// Opens a connection; `hello` is the first message on it.
    pub fn dial(&mut self, now_ns: u64, from: usize, to: usize, hello: M) -> ConnId {
        self.made += 1;
        let conn = ConnId(self.made);
        self.conns.insert(conn, Conn::new(from, to));
        self.send(now_ns, EndId { conn, dialled: true }, hello);
        conn
    }

    /// Sends from `end`; dropped if it is closed already.
    pub fn send(&mut self, now_ns: u64, end: EndId, message: M) {
        self.put(now_ns, end, Arrival::Message(message));
    }

    /// Closes `end`: nothing arrives at it any more; the other end learns of it
    /// behind what was sent before.
    pub fn close(&mut self, now_ns: u64, end: EndId) {
        self.put(now_ns, end, Arrival::Closed);
        if let Some(conn) = self.conns.get_mut(&end.conn) {
            conn.towards(end).close();
            if conn.is_over() {
                self.conns.remove(&end.conn);
            }
        }
    }

    /// Breaks a connection: what is under way is gone, and each open end learns of
    /// it at its own time, after at most `within_ns`.
    pub fn reset(&mut self, now_ns: u64, conn: ConnId, within_ns: u64) {
        let Some(broken) = self.conns.get_mut(&conn) else { return };
        for dialled in [true, false] {
            let at_ns = now_ns + self.rng.within(0..within_ns.max(1));
            broken.towards(EndId { conn, dialled }).break_off(at_ns);
        }
    }

    /// `end` is gone without a word, with its machine or process: the other end learns
    /// of it after at most `within_ns`, and what was sent before may be lost with it.
    pub fn break_from(&mut self, now_ns: u64, end: EndId, within_ns: u64) {
        let Some(conn) = self.conns.get_mut(&end.conn) else { return };
        conn.towards(end).close();
        let at_ns = now_ns + self.rng.within(0..within_ns.max(1));
        let lost = self.rng.percent(50);
        let other = conn.towards(end.other());
        if lost {
            other.break_off(at_ns);
        } else {
            other.put(at_ns, Arrival::Closed);
        }
        if conn.is_over() {
            self.conns.remove(&end.conn);
        }
    }

    /// Holds back what is sent from `end` until `until_ns`.
    pub fn hold(&mut self, end: EndId, until_ns: u64) {
        if let Some(conn) = self.conns.get_mut(&end.conn) {
            conn.towards(end.other()).hold(until_ns);
        }
    }

    /// The open ends at `node`, in order.
    #[must_use]
    pub fn ends_at(&self, node: usize) -> Vec<EndId> {
        let mut ends = Vec::new();
        for (id, conn) in &self.conns {
            for dialled in [true, false] {
                if conn.node(dialled) == node && conn.is_open(dialled) {
                    ends.push(EndId { conn: *id, dialled });
                }
            }
        }
        ends
    }

    /// Every connection with an open end, in order.
    #[must_use]
    pub fn conns(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }

    /// The nodes of a connection: who dialled, and whom.
    #[must_use]
    pub fn nodes_of(&self, conn: ConnId) -> Option<(usize, usize)> {
        self.conns.get(&conn).map(|conn| (conn.node(true), conn.node(false)))
    }

    /// When the next thing arrives, as things are now; and where.
    #[must_use]
    pub fn due(&self) -> Option<(u64, EndId)> {
        let mut first: Option<(u64, EndId)> = None;
        for (id, conn) in &self.conns {
            for dialled in [true, false] {
                let (from, to) = (conn.node(!dialled), conn.node(dialled));
                if !self.weather.passes(from, to) {
                    continue;
                }
                let end = EndId { conn: *id, dialled };
                if let Some(at_ns) = conn.direction(dialled).due_ns()
                    && first.is_none_or(|(first_ns, _)| at_ns < first_ns)
                {
                    first = Some((at_ns, end));
                }
            }
        }
        first
    }

    /// Takes what [`Self::due`] names: where it arrives, and what. `None` if
    /// nobody is there to take it.
    pub fn arrive(&mut self, end: EndId) -> Option<(usize, Arrival<M>)> {
        let conn = self.conns.get_mut(&end.conn)?;
        let node = conn.node(end.dialled);
        let arrival = conn.towards(end).take()?;
        if matches!(arrival, Arrival::Closed) {
            conn.towards(end).close();
            if conn.is_over() {
                self.conns.remove(&end.conn);
            }
        }
        Some((node, arrival))
    }

    fn put(&mut self, now_ns: u64, from: EndId, arrival: Arrival<M>) {
        let Some(conn) = self.conns.get_mut(&from.conn) else { return };
        if !conn.is_open(from.dialled) {
            return;
        }
        let (sender, receiver) = (conn.node(from.dialled), conn.node(!from.dialled));
        let at_ns = now_ns + self.weather.delay(sender, receiver).draw(&mut self.rng);
        let direction: &mut Direction<M> = conn.towards(from.other());
        direction.put(at_ns, arrival);
    }
}
