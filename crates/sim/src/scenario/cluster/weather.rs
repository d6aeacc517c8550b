//! What goes wrong with the network between nodes, and how it is mended.

use super::{What, World, shape::MS};
use crate::{
    net::{Delay, EndId},
    rng::SimRng,
};
use std::ops::Range;

/// How long a direction is cut, or slow.
const CUT_OFF_NS: Range<u64> = 200 * MS..7000 * MS;
/// How long a connection is held back.
const HOLD_NS: Range<u64> = 100 * MS..5000 * MS;
/// What a slow direction takes.
pub(super) const SLOW_NS: Range<u64> = 100 * MS..450 * MS;
/// Both ends learn within this time that a connection broke.
const RESET_TOLD_NS: u64 = 10 * MS;

/// Directions that will work again.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    directions: Vec<(usize, usize)>,
    seed: u64,
}

impl World {
    /// Cuts directions for a while.
    pub(super) fn cut_off(
        &mut self,
        directions: Vec<(usize, usize)>,
        for_ns: u64,
        rng: &mut SimRng,
    ) {
        for (from, to) in directions.iter().copied().filter(|(from, to)| from != to) {
            self.weather().set_cut(from, to, true);
        }
        self.mends += 1;
        let mend = self.mends;
        self.trace.note(&[81, mend, for_ns], || {
            format!("{directions:?} cut off for {} ms, outage {mend}", for_ns / MS)
        });
        self.outages.insert(mend, Outage { directions, seed: rng.bits() });
        self.sched.after(for_ns, What::Mend(mend));
    }

    /// What was cut works again; half of the connections that were under it do not.
    pub(super) fn mend(&mut self, mend: u64) {
        let Some(Outage { directions, seed }) = self.outages.remove(&mend) else { return };
        let rng = &mut SimRng::new(seed);
        let now_ns = self.now_ns();
        for (from, to) in directions {
            let still = self.outages.values().any(|other| other.directions.contains(&(from, to)));
            if still {
                continue;
            }
            self.weather().set_cut(from, to, false);
            self.weather().set_delay(from, to, Delay::QUICK);
            for conn in self.net.conns() {
                let between = self.net.nodes_of(conn);
                let under = between == Some((from, to)) || between == Some((to, from));
                if under && rng.percent(50) {
                    self.net.reset(now_ns, conn, RESET_TOLD_NS);
                }
            }
        }
        self.trace.note(&[82, mend], || format!("outage {mend} is mended"));
    }

    /// Everything that is cut works again.
    pub(super) fn mend_all(&mut self) {
        let mends: Vec<u64> = self.outages.keys().copied().collect();
        for mend in mends {
            self.mend(mend);
        }
        self.weather().clear();
    }

    /// Cuts a node off from the other nodes, both ways; clients still reach it.
    pub(super) fn isolate(&mut self, node: usize, for_ns: u64, rng: &mut SimRng) {
        let others = (0..self.machines.len()).filter(|other| *other != node);
        let directions = others.flat_map(|other| [(node, other), (other, node)]).collect();
        self.counts.partitions += 1;
        self.cut_off(directions, for_ns, rng);
    }

    /// The same for a while that it draws.
    pub(super) fn partition(&mut self, node: usize, rng: &mut SimRng) {
        let for_ns = rng.within(CUT_OFF_NS);
        self.isolate(node, for_ns, rng);
    }

    /// What a node says does not reach one other.
    pub(super) fn cut_one_way(&mut self, node: usize, rng: &mut SimRng) {
        let peer = self.any_node(rng);
        let for_ns = rng.within(CUT_OFF_NS);
        self.counts.one_way += 1;
        self.cut_off(vec![(node, peer)], for_ns, rng);
    }

    /// What a node says reaches one other late.
    pub(super) fn slow_one(&mut self, node: usize, rng: &mut SimRng) {
        let peer = self.any_node(rng);
        let for_ns = rng.within(CUT_OFF_NS);
        self.slow_down(node, peer, for_ns, rng);
    }

    pub(super) fn slow_down(&mut self, from: usize, to: usize, for_ns: u64, rng: &mut SimRng) {
        if from == to {
            return;
        }
        self.counts.slow_links += 1;
        let delay = Delay { usual_ns: SLOW_NS, late_ns: SLOW_NS, late_percent: 0 };
        self.weather().set_delay(from, to, delay);
        self.mends += 1;
        let mend = self.mends;
        self.trace.note(&[86, mend, for_ns], || {
            format!("{from} to {to} slow for {} ms, outage {mend}", for_ns / MS)
        });
        self.outages.insert(mend, Outage { directions: vec![(from, to)], seed: rng.bits() });
        self.sched.after(for_ns, What::Mend(mend));
    }

    /// One direction of one connection stands still for a while.
    pub(super) fn hold_one(&mut self, rng: &mut SimRng) {
        let conns = self.net.conns();
        if conns.is_empty() {
            return;
        }
        let conn = conns[rng.within(0..conns.len() as u64) as usize];
        let end = EndId { conn, dialled: rng.percent(50) };
        let until_ns = self.now_ns() + rng.within(HOLD_NS);
        self.counts.holds += 1;
        self.trace.note(&[83, conn.0], || format!("connection {} is held", conn.0));
        self.net.hold(end, until_ns);
    }

    /// One connection breaks.
    pub(super) fn reset_one(&mut self, rng: &mut SimRng) {
        let conns = self.net.conns();
        if conns.is_empty() {
            return;
        }
        let conn = conns[rng.within(0..conns.len() as u64) as usize];
        let now_ns = self.now_ns();
        self.counts.resets += 1;
        self.trace.note(&[84, conn.0], || format!("connection {} is lost", conn.0));
        self.net.reset(now_ns, conn, RESET_TOLD_NS);
    }
}
