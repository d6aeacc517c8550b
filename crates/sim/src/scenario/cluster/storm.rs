//! What goes wrong, and what operators do meanwhile.

use super::{
    What, World,
    machine::{MachineState, Use},
    operate::End,
    shape::{Blow, MS, SECOND},
};
use crate::net::{Delay, EndId};
use holdfast_meta::Command;
use holdfast_types::BLOCK_BYTES;

/// How long a process is paused.
const PAUSE_NS: std::ops::Range<u64> = 50 * MS..4000 * MS;
/// How long a node stays down.
const DOWN_NS: std::ops::Range<u64> = 20 * MS..6000 * MS;
/// How long a direction is cut.
const CUT_OFF_NS: std::ops::Range<u64> = 200 * MS..7000 * MS;
/// How long a connection is held back.
const HOLD_NS: std::ops::Range<u64> = 100 * MS..5000 * MS;
/// How long the metadata group is away.
const AWAY_NS: std::ops::Range<u64> = 200 * MS..4000 * MS;
/// What a slow direction takes.
const SLOW_NS: std::ops::Range<u64> = 100 * MS..450 * MS;
/// What a volume grows by at most, in blocks, and to.
const GROWTH_BLOCKS: u64 = 48;
const BLOCKS_MAX: u64 = 480;

impl World {
    /// The next blow comes at some time.
    pub(super) fn brew(&mut self) {
        let in_ns = self.rng.within(20 * MS..self.shape.temper.every_ns);
        self.sched.after(in_ns, What::Blow);
    }

    /// Something goes wrong.
    pub(super) fn blow(&mut self) {
        if !self.storming {
            return;
        }
        let mut drawn = self.rng.within(0..self.shape.temper.total());
        for (blow, part) in self.shape.temper.parts() {
            match drawn.checked_sub(part) {
                Some(left) => drawn = left,
                None => {
                    self.strike(blow);
                    break;
                }
            }
        }
        self.brew();
    }

    fn any_node(&mut self) -> usize {
        self.rng.within(0..self.machines.len() as u64) as usize
    }

    fn any_volume(&mut self) -> usize {
        self.rng.within(0..self.volumes.len() as u64) as usize
    }

    fn strike(&mut self, blow: Blow) {
        self.trace.note(&[80, blow as u64], || format!("storm: {blow:?}"));
        let node = self.any_node();
        match blow {
            Blow::Pause => {
                let for_ns = self.rng.within(PAUSE_NS);
                self.pause(node, for_ns);
            }
            Blow::Kill => self.take_down(node, End::Kill, DOWN_NS),
            Blow::Cut => self.take_down(node, End::Cut, DOWN_NS),
            Blow::CutAll => {
                self.counts.cuts_of_all += 1;
                for node in 0..self.machines.len() {
                    self.take_down(node, End::Cut, DOWN_NS);
                }
            }
            Blow::Partition => {
                let for_ns = self.rng.within(CUT_OFF_NS);
                self.isolate(node, for_ns);
            }
            Blow::OneWay => {
                let peer = self.any_node();
                let for_ns = self.rng.within(CUT_OFF_NS);
                self.counts.one_way += 1;
                self.cut_off(vec![(node, peer)], for_ns);
            }
            Blow::Hold => self.hold_one(),
            Blow::Reset => self.reset_one(),
            Blow::Slow => {
                let peer = self.any_node();
                let for_ns = self.rng.within(CUT_OFF_NS);
                self.slow_down(node, peer, for_ns);
            }
            Blow::Attach => {
                let volume = self.any_volume();
                self.attach_to(volume, node);
            }
            Blow::HandOver => self.hand_over(),
            Blow::Away => {
                self.counts.metadata_away += 1;
                self.metadata.set_away(true);
                let for_ns = self.rng.within(AWAY_NS);
                self.sched.after(for_ns, What::Return);
            }
            Blow::Resize => {
                let volume = self.any_volume();
                let blocks = self.volumes[volume].blocks + self.rng.within(1..GROWTH_BLOCKS);
                let command = Command::Resize {
                    volume: self.volumes[volume].id,
                    size_bytes: blocks * BLOCK_BYTES as u64,
                };
                if blocks <= BLOCKS_MAX && !self.metadata.is_away() && self.command(&command) {
                    self.volumes[volume].blocks = blocks;
                }
            }
            Blow::Damage => self.damage(),
        }
    }

    /// Ends a node's process; another starts after a while.
    fn take_down(&mut self, node: usize, end: End, down_ns: std::ops::Range<u64>) {
        if self.machines[node].state == MachineState::Down {
            return;
        }
        self.end(node, end);
        let in_ns = self.rng.within(down_ns);
        let life = self.machines[node].life;
        self.sched.after(in_ns, What::Start(node, life));
    }

    /// Cuts directions for a while.
    fn cut_off(&mut self, directions: Vec<(usize, usize)>, for_ns: u64) {
        for (from, to) in directions.iter().copied().filter(|(from, to)| from != to) {
            self.weather().set_cut(from, to, true);
        }
        self.mends += 1;
        let mend = self.mends;
        self.trace.note(&[81, mend, for_ns], || {
            format!("storm: {directions:?} cut off for {} ms", for_ns / MS)
        });
        self.cut_off.insert(mend, directions);
        self.sched.after(for_ns, What::Mend(mend));
    }

    /// What was cut works again; half of the connections that were under it do not.
    pub(super) fn mend(&mut self, mend: u64) {
        let Some(directions) = self.cut_off.remove(&mend) else { return };
        let now_ns = self.now_ns();
        for (from, to) in directions {
            let still = self.cut_off.values().any(|others| others.contains(&(from, to)));
            if still {
                continue;
            }
            self.weather().set_cut(from, to, false);
            self.weather().set_delay(from, to, Delay::QUICK);
            for conn in self.net.conns() {
                let between = self.net.nodes_of(conn);
                let under = between == Some((from, to)) || between == Some((to, from));
                if under && self.rng.percent(50) {
                    self.net.reset(now_ns, conn, 10 * MS);
                }
            }
        }
        self.trace.note(&[82, mend], || format!("storm: {mend} is mended"));
    }

    /// Cuts a node off from the other nodes, both ways; clients still reach it.
    fn isolate(&mut self, node: usize, for_ns: u64) {
        self.counts.partitions += 1;
        let others = (0..self.machines.len()).filter(|other| *other != node);
        let directions = others.flat_map(|other| [(node, other), (other, node)]).collect();
        self.cut_off(directions, for_ns);
    }

    fn slow_down(&mut self, from: usize, to: usize, for_ns: u64) {
        if from == to {
            return;
        }
        self.counts.slow_links += 1;
        let delay = Delay { usual_ns: SLOW_NS, late_ns: SLOW_NS, late_percent: 0 };
        self.weather().set_delay(from, to, delay);
        self.mends += 1;
        self.cut_off.insert(self.mends, vec![(from, to)]);
        self.sched.after(for_ns, What::Mend(self.mends));
    }

    fn hold_one(&mut self) {
        let conns = self.net.conns();
        if conns.is_empty() {
            return;
        }
        let conn = conns[self.rng.within(0..conns.len() as u64) as usize];
        let end = EndId { conn, dialled: self.rng.percent(50) };
        let until_ns = self.now_ns() + self.rng.within(HOLD_NS);
        self.counts.holds += 1;
        self.trace.note(&[83, conn.0], || format!("storm: connection {} is held", conn.0));
        self.net.hold(end, until_ns);
    }

    fn reset_one(&mut self) {
        let conns = self.net.conns();
        if conns.is_empty() {
            return;
        }
        let conn = conns[self.rng.within(0..conns.len() as u64) as usize];
        let now_ns = self.now_ns();
        self.counts.resets += 1;
        self.trace.note(&[84, conn.0], || format!("storm: connection {} is lost", conn.0));
        self.net.reset(now_ns, conn, 10 * MS);
    }

    fn attach_to(&mut self, volume: usize, node: usize) {
        if self.metadata.is_away() {
            return;
        }
        let id = self.volumes[volume].id;
        if self.rng.percent(20) {
            self.command(&Command::Detach { volume: id });
        }
        let to = self.machines[node].id;
        if self.command(&Command::Attach { volume: id, node: to, read_only: false }) {
            self.counts.attaches += 1;
            self.volumes[volume].home = node;
        }
    }

    /// Attaches a volume elsewhere while its engine lives on, out of reach of some or
    /// all of the others: the moment at which stale reads and split brains come about.
    fn hand_over(&mut self) {
        let volume = self.any_volume();
        let old = self.volumes[volume].home;
        let nodes = self.machines.len();
        let new = (old + self.rng.within(1..nodes as u64) as usize) % nodes;
        if self.machines[old].state != MachineState::Up {
            return;
        }
        self.counts.hand_overs += 1;
        let for_ns = self.rng.within(SECOND..7 * SECOND);
        match self.rng.within(0..6) {
            // It hears late, of grants too, and after a while nothing.
            0 | 1 => {
                for peer in (0..nodes).filter(|peer| *peer != old) {
                    self.slow_down(peer, old, for_ns + 2 * SECOND);
                }
                let in_ns = self.rng.within(500 * MS..SECOND);
                let event = What::Desert { volume, old, new, for_ns, hears: true };
                self.sched.after(in_ns, event);
                return;
            }
            2 => self.isolate(old, for_ns),
            3 => self.pause(old, for_ns / 2),
            // It reaches everybody but the new engine's node; its streams are stuck.
            4 => {
                self.cut_off(vec![(old, new), (new, old)], for_ns);
                self.hold_streams(old, for_ns);
            }
            // Nothing is wrong.
            _ => {}
        }
        self.attach_to(volume, new);
    }

    /// A node is heard by no other from now on; when it has heard the last that is on its
    /// way, it hears nothing more, and its volume goes elsewhere.
    pub(super) fn desert(
        &mut self,
        volume: usize,
        (old, new): (usize, usize),
        for_ns: u64,
        hears: bool,
    ) {
        if !self.storming {
            return;
        }
        let others = (0..self.machines.len()).filter(|other| *other != old);
        let way = |other| if hears { (old, other) } else { (other, old) };
        let directions = others.map(way).collect();
        self.cut_off(directions, for_ns);
        if hears {
            let event = What::Desert { volume, old, new, for_ns, hears: false };
            self.sched.after(SLOW_NS.end + 20 * MS, event);
        } else {
            self.attach_to(volume, new);
            self.part_clients(volume, new);
        }
    }

    /// What members say to the engines on `node` is held back, leases are not.
    fn hold_streams(&mut self, node: usize, for_ns: u64) {
        let until_ns = self.now_ns() + for_ns;
        let Some(process) = &self.machines[node].process else { return };
        let streams: Vec<_> = process
            .outward
            .iter()
            .filter(|(_, outward)| matches!(outward.what, Use::Stream(..)))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in streams {
            self.net.hold(EndId { conn, dialled: false }, until_ns);
            if self.rng.percent(50) {
                self.net.hold(EndId { conn, dialled: true }, until_ns);
            }
        }
    }

    /// One replica lags a little; then all lose power, and of the other two, which hold what
    /// was acknowledged meanwhile, one comes back late and the other with a damaged log.
    pub(super) fn damage(&mut self) {
        let damaged = self.machines.iter().any(|machine| machine.damaged);
        let all_up = self.machines.iter().all(|machine| machine.state == MachineState::Up);
        if damaged || !all_up || !self.net.weather().is_whole() {
            return;
        }
        let lagging = self.rng.within(0..self.shape.replicas as u64) as usize;
        // What it lacks must be so fresh that the others' logs do not say yet that it is
        // committed: they refuse to drop what they know to be.
        let for_ns = match self.rng.percent(75) {
            true => self.rng.within(3 * MS..40 * MS),
            false => self.rng.within(100 * MS..400 * MS),
        };
        let peers = (0..self.machines.len()).filter(|peer| *peer != lagging);
        let directions = peers.flat_map(|peer| [(lagging, peer), (peer, lagging)]).collect();
        self.cut_off(directions, for_ns + 50 * MS);
        self.sched.after(for_ns, What::Damage(lagging));
    }

    /// The rest of it.
    pub(super) fn damage_now(&mut self, lagging: usize) {
        if !self.storming {
            return;
        }
        let replicas = self.shape.replicas;
        let damaged = (lagging + 1) % replicas;
        for node in 0..self.machines.len() {
            let down_ns = match node == lagging || node == damaged {
                true => 20 * MS..200 * MS,
                false => 4 * SECOND..8 * SECOND,
            };
            self.take_down(node, End::Cut, down_ns);
        }
        // Its log then ends before the lagging one's, as a rule: whoever counts it takes the
        // lagging one for the best.
        let first = self.rng.percent(75);
        self.damage_log(damaged, first);
        for volume in 0..self.volumes.len() {
            self.attach_to(volume, lagging);
        }
    }
}
